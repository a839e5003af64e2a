"""A first answer, and what three ways of unmasking cost: `python examples/quickstart.py`."""

import dlm

PROMPT = (
    "Nina starts with 12 shells, wins 5, loses 4 and then doubles what is left. "
    "How many shells does she have?"
)

engine = dlm.load()  # the bundled model; also a checkpoint folder or a hub id
answer = engine.generate(PROMPT, max_new_tokens=96)
print(answer.text, f"({answer.finish_reason})\n", sep="\n")

for unmask in ("topk", "threshold(0.9)", "threshold(0.6)"):
    stats = engine.generate(PROMPT, max_new_tokens=96, unmask=unmask).stats
    print(f"{unmask:15} {stats.nfe:3} forwards, {stats.tokens_per_forward:.2f} tokens per forward")
