"""What a reward gains in anchored remasking: `python evals/anchored.py`, about half an hour.

The bundled model solves Countdown (test split, 32 positions) in 8, 16, 32 and 64 steps, by the rule
alone and with a reward, at the same number of its own forwards. The cases, of which some may be
named (`python evals/anchored.py rules`): `likelihood`, the log-likelihood of the answer under the
bundled causal model, for candidates; `gradient`, the same, by gradients of what that model says;
`through`, by gradients through that model; `rules`, the share of the game's rules that the draft
keeps, for candidates; `orders`, the rule's own options without a reward. Writes
`evals/results/anchored`.
"""

import json
import re
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean as mean
from typing import Any

import torch
from torch import Tensor

import dlm
from dlm.evals.cache_speed import machine
from dlm.evals.items import Item, bundled_items
from dlm.evals.statistics import bootstrap, paired
from dlm.evals.tasks.countdown import EQUATION, combine

OUT = Path(__file__).parent / "results" / "anchored"
STEPS = (8, 16, 32, 64)
NEW = 32
TITLES = {
    "likelihood": "Log-likelihood a token under tiny-ar, without gradients",
    "gradient": "Log-likelihood a token under tiny-ar, 2 natural gradient steps a step",
    "through": "Log-likelihood a token under tiny-ar, 4 gradient steps a step through that model",
    "rules": "Share of Countdown's rules that are kept, without gradients",
    "orders": "Log-likelihood a token under tiny-ar, which no rule looks at",
}
CASES = tuple(TITLES)


@dataclass(frozen=True, eq=False)
class Likelihood:
    """The log-likelihood of answers under a causal model with the same vocabulary."""

    causal: Any
    end: int

    def bonuses(self, draft: dlm.HardDraft) -> Tensor:
        """`[R, W, K]`: the log-probability of each candidate after the draft to its left."""
        logp = self.causal.logits(draft.canvas).log_softmax(dim=2)  # row i predicts position i
        at = logp.gather(1, draft.pos[..., None].expand(-1, -1, logp.shape[2]))
        return at.gather(2, draft.candidates) * self._counted(draft).gather(1, draft.pos)[..., None]

    def said(self, draft: dlm.SoftDraft) -> Tensor:
        """`[R]`: that of the soft tokens, each after the draft to its left as it stands."""
        logp = self.causal.logits(draft.canvas).clone().log_softmax(dim=2)
        return self._summed(draft, logp[draft.row, draft.pos])

    def through(self, draft: dlm.SoftDraft) -> Tensor:
        """`[R]`: the same, and gradients pass through the embeddings that the model reads, too."""
        model = self.causal.model
        length = draft.canvas.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        embedded = draft.embeddings(model.embedding.weight)
        hidden = model.dense(draft.canvas, causal, inputs=embedded)[draft.row, draft.pos - 1]
        return self._summed(draft, model.head(hidden).float().log_softmax(dim=1))

    def _summed(self, draft: dlm.SoftDraft, logp: Tensor) -> Tensor:
        """`[R]`: the expected log-probabilities `[M, V]` of an answer's soft tokens."""
        said = (draft.probs * logp).sum(dim=1) * self._counted(draft)[draft.row, draft.pos]
        return said.new_zeros(len(draft.prompt)).index_add(0, draft.row, said)

    def _counted(self, draft: dlm.HardDraft | dlm.SoftDraft) -> Tensor:
        """`[R, L]`: the answer up to its first end id."""
        at = torch.arange(draft.canvas.shape[1])
        inside = (at >= draft.prompt[:, None]) & (at < draft.length[:, None])
        ends = ((draft.canvas == self.end) & inside).cumsum(dim=1)
        return (inside & (ends - (draft.canvas == self.end).long() <= 0)).float()

    def of(self, answer: dlm.Generation, prompt: int) -> float:
        """The mean of an answer's tokens, its end included."""
        canvas = torch.tensor([answer.canvas])
        none = torch.zeros(0)
        draft = dlm.SoftDraft(
            canvas, torch.tensor([prompt]), torch.tensor([canvas.shape[1]]), *[none] * 3
        )
        logp = self.causal.logits(canvas).log_softmax(dim=2).gather(2, canvas[..., None])[..., 0]
        counted = self._counted(draft)
        return float((logp * counted).sum() / counted.sum())


def kept(text: str, numbers: list[int], target: int) -> float:
    """The share of Countdown's rules that a text keeps: of each line that it is an equation, uses
    what is there, and is true; of the last that it ends in the target; and that no line is missing.
    """
    pool, lines, points = list(numbers), text.strip().split("\n"), 0.0
    due = len(numbers) - 1
    for line in lines[:due]:
        if (match := EQUATION.fullmatch(line.strip())) is None:
            continue
        left, right, value = int(match[1]), int(match[3]), int(match[4])
        points += 1
        for used in (left, right):
            if used in pool:
                pool.remove(used)
                points += 1
        points += combine(left, match[2], right) == value
        pool.append(value)
    points += (pool == [target]) + (len(lines) == due)
    return points / (4 * due + 2)


@dataclass(frozen=True, eq=False)
class Rules:
    """`kept` of drafts, for candidates one by one; the puzzle is read from the prompt."""

    text: dlm.Text
    end: int

    def bonuses(self, draft: dlm.HardDraft) -> Tensor:
        """`[R, W, K]`: what the draft with a candidate keeps of the rules, beside the best
        candidate of its position: a token that another one would better is taken back.
        """
        bonus = torch.zeros(draft.candidates.shape)
        rows = zip(draft.canvas.tolist(), draft.prompt.tolist(), draft.length.tolist(), strict=True)
        for row, (ids, prompt, length) in enumerate(rows):
            numbers, target = self._puzzle(ids[:prompt])
            answer = ids[prompt:length]
            until = answer.index(self.end) + 1 if self.end in answer else len(answer)
            now = self._kept(answer, numbers, target)
            for column, at in enumerate(draft.pos[row].tolist()):
                if not draft.weighed[row, column] or at - prompt >= until:
                    continue
                for k, token in enumerate(draft.candidates[row, column].tolist()):
                    if token != answer[at - prompt]:
                        other = [*answer[: at - prompt], token, *answer[at - prompt + 1 :]]
                        bonus[row, column, k] = self._kept(other, numbers, target) - now
        return bonus - bonus.amax(dim=2, keepdim=True)

    def of(self, answer: dlm.Generation, prompt: int) -> float:
        """The share of rules that an answer keeps."""
        numbers, target = self._puzzle(list(answer.canvas[:prompt]))
        return kept(answer.text, numbers, target)

    def _puzzle(self, prompt: list[int]) -> tuple[list[int], int]:
        *numbers, target = map(int, re.findall(r"\d+", self.text.decode_inside(prompt)))
        return numbers, target

    def _kept(self, answer: list[int], numbers: list[int], target: int) -> float:
        until = answer.index(self.end) if self.end in answer else len(answer)
        return kept(self.text.decode_inside(answer[:until]), numbers, target)


def rules_of(case: str, likelihood: Likelihood, rules: Rules) -> dict[str, dlm.Anchored]:
    """The editors of a case by name; the first is what the others are compared with."""
    tilts = {
        "likelihood": dlm.CandidateReward(likelihood.bonuses, beta=1.0, candidates=16),
        "gradient": dlm.GradientReward(likelihood.said, steps=2, rate=0.5, natural=True),
        "through": dlm.GradientReward(likelihood.through, steps=4, rate=0.5),
        "rules": dlm.CandidateReward(rules.bonuses, beta=5.0, candidates=8),
    }
    if case in tilts:
        return {"no reward": dlm.Anchored(), "reward": dlm.Anchored(tilt=tilts[case])}
    return {
        "as it is": dlm.Anchored(),
        "eta=0.5": dlm.Anchored(eta=0.5),
        "scores='stored' (RCR)": dlm.Anchored(scores="stored"),
        "hold=2": dlm.Anchored(hold=2),
        "symbols, gamma=1": dlm.Anchored(informative="symbols", gamma=1.0),
        "symbols, informative_hold=2": dlm.Anchored(informative="symbols", informative_hold=2),
    }


def measured(
    engine: dlm.Engine, items: Sequence[Item], edit: dlm.Anchored, steps: int, reward: Any
) -> dict[str, Any]:
    """Rewards, verdicts and forwards of all items."""
    answers = engine.generate(
        [item.prompt for item in items],
        unmask="everything",
        edit=edit,
        blocks="whole",
        cache="none",
        steps=steps,
        max_new_tokens=NEW,
        stop="none",
    )
    return {
        "steps": steps,
        "nfe": sum(answer.stats.nfe for answer in answers) / len(answers),
        "reward": [round(reward.of(a, len(a.canvas) - NEW), 4) for a in answers],
        "right": [item.grade(a.text) for item, a in zip(items, answers, strict=True)],
    }


def run_case(case: str, items: Sequence[Item]) -> dict[str, Any]:
    """All editors of a case, at all numbers of steps."""
    engine, causal = dlm.load("tiny", device="cpu"), dlm.load_causal("tiny-ar", device="cpu")
    likelihood = Likelihood(causal, engine.info.eos_ids[0])
    assert engine.text is not None
    rules = Rules(engine.text, engine.info.eos_ids[0])
    reward = rules if case == "rules" else likelihood
    found: dict[str, Any] = {"case": case, "header": machine(), "items": len(items), "runs": {}}
    for name, edit in rules_of(case, likelihood, rules).items():
        found["runs"][name] = [measured(engine, items, edit, steps, reward) for steps in STEPS]
        print(
            case, name, [round(mean(run["reward"]), 3) for run in found["runs"][name]], flush=True
        )
    return found


def table(found: dict[str, Any]) -> str:
    """Mean reward and right answers at each number of steps, and what the others gain."""
    head = ["steps", "forwards", "rule", "reward", "gain (95%)", "right", "gain (95%)"]
    lines = [head, ["---"] * len(head)]
    (_, base), *_ = found["runs"].items()
    for column, steps in enumerate(STEPS):
        for name, runs in found["runs"].items():
            run, before = runs[column], base[column]
            cells = [steps, f"{run['nfe']:.0f}", name, f"{mean(run['reward']):.3f}"]
            shares = f"{mean(run['right']):.0%}"
            if runs is base:
                lines.append([*map(str, cells), "", shares, ""])
                continue
            gains = [b - a for a, b in zip(before["reward"], run["reward"], strict=True)]
            low, high = bootstrap(gains)
            right = paired(before["right"], run["right"])
            span = f"{right.interval.low:+.0%} to {right.interval.high:+.0%}"
            cells.append(f"{mean(gains):+.3f} ({low:+.3f} to {high:+.3f})")
            lines.append([*map(str, cells), shares, f"{right.difference:+.0%} ({span})"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write_tables() -> None:
    """`table.md` of the cases whose results are there."""
    parts = []
    for case in CASES:
        path = OUT / f"{case}.json"
        if path.is_file():
            found = json.loads(path.read_text())
            parts.append(f"### {TITLES[case]}, {found['items']} problems\n\n{table(found)}\n")
    (OUT / "table.md").write_text("\n".join(parts))


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--items", type=int, default=64)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    for case in asked.cases or CASES:
        found = run_case(case, bundled_items("countdown", "test", asked.items))
        (OUT / f"{case}.json").write_text(json.dumps(found) + "\n")
    write_tables()
