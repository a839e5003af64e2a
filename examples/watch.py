"""Watch a canvas fill, one line a step: `python examples/watch.py [PROMPT]`.

Bold is new in this step, a dot is a mask, `∎` ends the answer.
"""

import sys
from itertools import groupby

import dlm

BOLD, DIM, PLAIN = "\033[1m", "\033[2m", "\033[0m"
PROMPT = "Countdown: use 2 10 3 to make 9."


def line(cells: list[str | None], fresh: set[int]) -> str:
    """The canvas in one line: runs of the same look share one pair of escapes."""
    shown = []
    looks = [DIM if c is None else BOLD if i in fresh else "" for i, c in enumerate(cells)]
    for look, run in groupby(zip(looks, cells, strict=True), key=lambda pair: pair[0]):
        shown.append(look + "".join("·" if c is None else c for _, c in run) + PLAIN)
    return "".join(shown).replace("\n", "⏎")


def main() -> None:
    engine = dlm.load()
    assert engine.text is not None
    cells: list[str | None] = []
    start, step, fresh = 0, 0, set[int]()
    for event in engine.stream(" ".join(sys.argv[1:]) or PROMPT, max_new_tokens=48):
        if event.step > step and fresh:
            print(f"{step:3} {line(cells, fresh)}")
            fresh = set()
        step = event.step
        if event.type == "open":
            start = event.data["prompt"]
            cells = [None] * (len(event.ids) - start)
        elif event.type in ("commit", "remask"):
            for pos, token in zip(event.pos, event.ids, strict=True):
                new = event.type == "commit"
                cells[pos - start] = (engine.text.decode_inside([token]) or "∎") if new else None
                (fresh.add if new else fresh.discard)(pos - start)
    print(f"{step:3} {line(cells, fresh)}")


if __name__ == "__main__":
    main()
