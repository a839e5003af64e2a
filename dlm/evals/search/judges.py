"""Verifiers by themselves: how often the answer that one scores best is right.

All verifiers judge the same answers to an item.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np

import dlm
from dlm.evals.items import Item
from dlm.evals.lines import appending, read_lines
from dlm.evals.report_sweeps import table_line
from dlm.evals.search.curves import Estimate, draws, estimated
from dlm.evals.search.trials import searched

COLUMNS: Final = ("verifier", "right", "of the way to the oracle", "forwards an answer", "failed")
NOTE: Final = (
    "Right: share of items of which the best-scored of all answers is right, in percent (of "
    "equals the first); `random`: any of them; `oracle`: one of them is. Of the way: what a "
    "verifier gains over `random`, as a share of what the oracle gains. In brackets 95% bounds by "
    "the bootstrap over items."
)


@dataclass(frozen=True, slots=True)
class Panel(dlm.Verifier):
    """Several verifiers that judge the same answers, each for itself; it prefers none.

    members: the verifiers, or what they are parsed from, by their names
    told: called with each name, its verifier, the answers and their verdicts
    """

    members: Mapping[str, Any]
    told: Callable[[str, Any, Sequence[dlm.Generation], Sequence[dlm.Verdict]], object]

    blocks: ClassVar[bool] = True

    @property
    def parts(self) -> tuple[dlm.Verifier, ...]:
        """See `Verifier`."""
        return tuple(self.members.values())

    def resolve(self, parse: Callable[[Any], dlm.Verifier]) -> dlm.Verifier:
        """See `Verifier`."""
        return replace(self, members={n: parse(spec) for n, spec in self.members.items()})

    def bind(self, question: Any) -> dlm.Verifier:
        """See `Verifier`."""
        return replace(self, members={n: one.bind(question) for n, one in self.members.items()})

    def score(self, answers: Sequence[dlm.Generation], question: Any) -> Sequence[dlm.Verdict]:
        """See `Verifier`."""
        for name, member in self.members.items():
            self.told(name, member, answers, member.score(answers, question))
        return [dlm.Verdict(0.0)] * len(answers)


@dataclass(frozen=True, slots=True)
class Judgement:
    """An item's answers, which of them are right, and the scores that verifiers give them.

    scores: None where there is no finite one
    costs: forwards of the model that an answer takes, as verifiers declare them
    """

    item: str
    right: Sequence[bool]
    scores: Mapping[str, Sequence[float | None]]
    costs: Mapping[str, float]

    @classmethod
    def parse(cls, line: Mapping[str, Any]) -> Self:
        """A judgement of a line of its file. Raises `ValueError` for one that is none."""
        try:
            found = cls(**line)
        except TypeError as error:
            raise ValueError(f"is no judgement: {error!r}") from error
        if any(len(scores) != len(found.right) for scores in found.scores.values()):
            raise ValueError("is no judgement: a verifier has not judged all answers")
        return found


@dataclass(frozen=True, slots=True)
class JudgeFigures:
    """A verifier on a task, as `NOTE` has it. `failed`: share of answers without a score."""

    verifier: str
    right: Estimate
    way: Estimate
    cost: float
    failed: float


def read_judgements(path: Path) -> dict[str, Judgement]:
    """Item -> its judgement, of a file; empty without one."""
    return {one.item: one for one in read_lines(path, Judgement.parse)}


def draw_judgements(
    engine: dlm.Engine,
    items: Sequence[Item],
    verifiers: Sequence[str],
    options: Mapping[str, Any],
    path: Path,
    at_once: int,
) -> None:
    """Draw answers to the items that `path` has none of, and have all verifiers judge them.

    options: of `AsyncEngine.search` but for the verifier
    """
    with appending(path, wait=False) as file:
        done = read_judgements(path)
        todo = [item for item in items if item.id not in done]
        heard: dict[str, dict[str, tuple[Any, list[dlm.Generation], list[dlm.Verdict]]]] = {}

        def asking(item: Item) -> dict[str, Any]:
            own = heard[item.id] = {}

            def told(name: str, member: Any, answers: Any, verdicts: Any) -> None:
                _, before, judged = own.setdefault(name, (member, [], []))
                before += answers
                judged += verdicts

            panel = Panel({name: name for name in verifiers}, told)
            return {**options, "verifier": panel}

        async def draw() -> None:
            async with aclosing(searched(engine, todo, asking, at_once)) as found:
                async for item, _ in found:
                    one = _judged(item, heard.pop(item.id))
                    file.write(json.dumps(asdict(one), allow_nan=False) + "\n")
                    file.flush()

        asyncio.run(draw())


def _judged(item: Item, heard: Mapping[str, tuple[Any, Any, Any]]) -> Judgement:
    """Grade the answers that were judged, and compare their scores."""
    answers = next(iter(heard.values()))[1]
    marks = {text: item.grade(text) for text in {one.text or "" for one in answers}}
    scores = {
        name: [score if isfinite(score) else None for score in member.compare(given, verdicts)]
        for name, (member, given, verdicts) in heard.items()
    }
    costs = {name: float(member.cost) for name, (member, *_) in heard.items()}
    return Judgement(item.id, [marks[one.text or ""] for one in answers], scores, costs)


def judge_figures(judgements: Sequence[Judgement]) -> list[JudgeFigures]:
    """The figures of all verifiers, of one that picks at random, and of the oracle."""
    plain = np.array([np.mean(one.right) for one in judgements], dtype=float)
    best = np.array([max(one.right) for one in judgements], dtype=float)
    weights = draws(len(judgements))
    rows = [_row("random", plain, plain, best, weights)]
    for name in judgements[0].scores:
        picked = np.array([_picked(one, name) for one in judgements], dtype=float)
        lost = np.mean([[score is None for score in one.scores[name]] for one in judgements])
        row = _row(name, picked, plain, best, weights)
        rows.append(replace(row, cost=judgements[0].costs[name], failed=float(lost)))
    return [*rows, _row("oracle", best, plain, best, weights)]


def _picked(one: Judgement, name: str) -> bool:
    """True if the answer that scores best is right."""
    scores = [-np.inf if score is None else score for score in one.scores[name]]
    return one.right[int(np.argmax(scores))]


def _row(
    name: str, picked: np.ndarray, plain: np.ndarray, best: np.ndarray, weights: np.ndarray
) -> JudgeFigures:
    right, low, high = (weights @ column for column in (picked, plain, best))
    gained = np.divide(right - low, high - low, out=np.zeros_like(low), where=high > low)
    shares = estimated(list(right), len(picked), 0.0)
    return JudgeFigures(name, shares, estimated(list(gained)), 0.0, 0.0)


def judge_table(rows: Sequence[JudgeFigures], title: str) -> str:
    """A Markdown table."""
    lines = [f"### {title}", "", table_line(COLUMNS), table_line(["---"] * len(COLUMNS))]
    for row in rows:
        shown = [
            f"{scale * value:.{digits}f} ({scale * low:.{digits}f} to {scale * high:.{digits}f})"
            for scale, digits, (value, (low, high)) in ((100, 1, row.right), (1, 2, row.way))
        ]
        lines.append(table_line([row.verifier, *shown, f"{row.cost:g}", f"{row.failed:.1%}"]))
    return "\n".join([*lines, ""])


def write_judges(
    header: Mapping[str, Any], found: Mapping[str, Sequence[Judgement]], folder: Path
) -> str:
    """Write `verifiers.json` and `verifiers.md`; the tables. `found`: task -> its judgements."""
    rows = {task: judge_figures(some) for task, some in found.items()}
    data = {task: list(map(asdict, figures)) for task, figures in rows.items()}
    text = json.dumps({"header": dict(header), "figures": data}, indent=1, allow_nan=False)
    (folder / "verifiers.json").write_text(text + "\n", encoding="utf-8")
    titles = {task: f"{task} (n = {len(found[task])})" for task in rows}
    parts = [judge_table(figures, titles[task]) for task, figures in rows.items()]
    told = "\n".join([*parts, NOTE, ""])
    (folder / "verifiers.md").write_text(told, encoding="utf-8")
    return told
