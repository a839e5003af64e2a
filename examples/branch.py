"""Look at a half-filled answer and choose how it goes on: `python examples/branch.py [PROMPT]`.

Four rows are forked from one that stands still, each draws its own next steps, and the one whose
draft is most likely goes on. Then its last words are opened once more.
"""

import sys

import dlm
from dlm import Kind

PROMPT = (
    "Nina starts with 12 shells, wins 5, loses 4 and then doubles what is left. "
    "How many shells does she have?"
)


def mean(values: tuple[float, ...]) -> float:
    return sum(values) / max(len(values), 1)


def main(prompt: str = PROMPT) -> None:
    engine = dlm.load()
    options = {"max_new_tokens": 64, "blocks": "whole", "unmask": "topk", "temperature": 1.5}
    root = engine.start(prompt, **options)
    engine.resume(root, steps=16)  # and stand still
    print(f"{len(root.open)} of {len(root.ids)} positions are open after {root.nfe} forwards")

    branches = [engine.fork(root, path) for path in range(4)]
    engine.resume(branches, steps=8)  # as one batch
    drafts = {branch: engine.complete(branch) for branch in branches}  # without a forward
    for branch, draft in drafts.items():
        print(f"path {branch.path}: {mean(draft.logprobs):7.3f}  {draft.text!r}")
    best = max(branches, key=lambda branch: mean(drafts[branch].logprobs))
    engine.resume(best)
    costs = f"{best.nfe} forwards, {best.inherited} of them shared"
    print(f"path {best.path}, {costs}: {best.result().text!r}")

    end = best.kinds.count(Kind.PROMPT) + len(best.result().ids)
    engine.reopen(best, range(end - 6, end))
    engine.resume(best)
    print(f"with its end written anew, {best.nfe} forwards: {best.result().text!r}")
    for node in (root, *branches):
        node.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
