"""An unmasking rule of your own: `python examples/my_rule.py`.

On the command line, from the folder above: `dlm generate --unmask "examples.my_rule:Falling()" ...`
"""

from dataclasses import dataclass

import dlm


@dataclass(frozen=True, slots=True)
class Falling(dlm.Unmasker):
    """Commit tokens above a threshold that falls from `high` by `fall` with every step."""

    high: float = 0.95
    fall: float = 0.05

    def propose(self, view: dlm.StepView) -> dlm.Proposal:
        (step,) = view.of_first_block(view.blocks.step)  # [R, 1]: steps of each row's block so far
        threshold = view.params.high - view.params.fall * step  # [R, 1]
        return dlm.Proposal(commit=view.eligible & (view.confidence >= threshold))  # [R, W]


def main() -> None:
    engine = dlm.load()
    for rule in ("threshold(0.95)", Falling(), Falling(fall=0.2)):
        answer = engine.generate("Countdown: use 2 10 3 to make 9.", unmask=rule)
        print(f"{answer.stats.nfe:3} forwards with {rule}: {answer.text!r}")


if __name__ == "__main__":
    main()
