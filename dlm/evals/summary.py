"""The third stage of a run: the figures of each setting on each task, and how settings compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dlm.evals.items import Item
from dlm.evals.sampling import REFUSED, Sample
from dlm.evals.statistics import (
    Interval,
    Paired,
    holm,
    mean_interval,
    paired,
    pass_at_k,
    percentile,
    wilson,
)
from dlm.evals.verdicts import Verdicts


@dataclass(frozen=True, slots=True)
class Figures:
    """Accuracy and cost of one setting on one task.

    n, samples: items, and answers to each
    accuracy, interval: share of right answers with its 95% interval (with several samples an item:
        of the items' shares)
    rungs, rung_intervals: (right, n) of each step of the ladder
    pass_at_k, pass_interval: at k = samples, over the items with all their samples (None for one)
    nfe, tokens, token_forwards: means of an answer
    tpf: all tokens over all forwards (NaN if forwards are not known, as of a server)
    tokens_per_second: tokens over the summed seconds of all requests, one at a time
    p50, p95: seconds of a request
    masked_left: answers with positions that were never filled
    refused: those of them whose canvas did not fit the model
    unjudged: answers without a verdict, which no figure counts
    scores, score_intervals: means of a grader's further scores
    missing: answers not drawn
    alike: True if all samples of each item are the same text: several then tell no more than one
    """

    setting: str
    task: str
    n: int
    samples: int
    accuracy: float
    interval: Interval
    rungs: Mapping[str, tuple[float, int]]
    pass_at_k: float | None
    nfe: float
    tpf: float
    tokens: float
    token_forwards: float
    tokens_per_second: float
    p50: float
    p95: float
    masked_left: int
    refused: int = 0
    unjudged: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    score_intervals: Mapping[str, Interval] = field(default_factory=dict)
    rung_intervals: Mapping[str, Interval] = field(default_factory=dict)
    pass_interval: Interval | None = None
    missing: int = 0
    alike: bool = False


def figures_of(
    setting: str,
    items: Sequence[Item],
    samples: Sequence[Sample],
    verdicts: Verdicts,
    drawn: int | None = None,
) -> Figures:
    """The figures of one setting over the items that have verdicts.

    `drawn`: samples an item that the run asks for (None: as many as there are).
    """
    if drawn is None:
        drawn = max((sample.index for sample in samples), default=0) + 1
    shares = item_shares(items, verdicts)
    done = [item for item in items if item.id in shares]
    counted = [s for s in samples if (s.item, s.index) in verdicts]
    right = [shares[item.id] for item in done]
    steps = {rung: [shares[i.id] for i in done if i.rung == rung] for rung in _rungs(done)}
    passes = _passes(done, verdicts, drawn) if drawn > 1 else []
    return Figures(
        setting=setting,
        task=items[0].task if items else "",
        n=len(done),
        samples=drawn,
        accuracy=mean(right),
        interval=share_interval(right),
        rungs={rung: (sum(found), len(found)) for rung, found in steps.items()},
        pass_at_k=mean(passes) if drawn > 1 else None,
        **_costs(counted),
        masked_left=sum(s.masked_left > 0 for s in counted),
        refused=sum(s.finish_reason == REFUSED for s in counted),
        unjudged=sum((s.item, s.index) not in verdicts for s in samples),
        rung_intervals={rung: share_interval(found) for rung, found in steps.items()},
        pass_interval=share_interval(passes) if drawn > 1 else None,
        missing=max(0, len(items) * drawn - len(samples)),
        alike=_alike(samples),
    )


def _costs(counted: Sequence[Sample]) -> dict[str, Any]:
    """Sum up the cost of answers under the names of `Figures`."""
    seconds, many = [s.seconds for s in counted], max(1, len(counted))
    tokens, nfe = sum(s.tokens for s in counted), sum(s.nfe for s in counted)
    return {
        "nfe": nfe / many,
        "tpf": tokens / nfe if nfe else math.nan,
        "tokens": tokens / many,
        "token_forwards": sum(s.token_forwards for s in counted) / many,
        "tokens_per_second": tokens / sum(seconds) if sum(seconds) else 0.0,
        "p50": percentile(seconds, 0.5),
        "p95": percentile(seconds, 0.95),
    }


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return sum(values) / len(values) if values else math.nan


def share_interval(shares: Sequence[float]) -> Interval:
    """The 95% interval of a mean share: Wilson's where each is 0 or 1, else the bootstrap's."""
    if all(share in (0, 1) for share in shares):
        return wilson(round(sum(shares)), len(shares))
    return mean_interval(shares)


def item_shares(items: Sequence[Item], verdicts: Verdicts) -> dict[str, float]:
    """For each item with verdicts, the share of its samples that is right."""
    shares = shares_of(verdicts)
    return {item.id: shares[item.id] for item in items if item.id in shares}


def shares_of(verdicts: Verdicts) -> dict[str, float]:
    """Item id -> the share of its judged samples that is right."""
    marks: dict[str, list[bool]] = {}
    for (item, _), right in verdicts.items():
        marks.setdefault(item, []).append(right)
    return {item: sum(own) / len(own) for item, own in marks.items()}


def _rungs(items: Sequence[Item]) -> list[str]:
    """The steps of a ladder, in order."""
    return sorted({item.rung for item in items})


def _passes(items: Sequence[Item], verdicts: Verdicts, k: int) -> list[float]:
    """pass@k of each item whose k samples all have verdicts."""
    marks: dict[str, list[bool]] = {item.id: [] for item in items}
    for (item, _), verdict in verdicts.items():
        if item in marks:
            marks[item].append(verdict)
    return [pass_at_k(k, sum(own), k) for own in marks.values() if len(own) == k]


def _alike(samples: Sequence[Sample]) -> bool:
    """True if items have several samples and those of each item are the same text."""
    texts: dict[str, set[str]] = {}
    for sample in samples:
        texts.setdefault(sample.item, set()).add(sample.text)
    several = len(samples) > len(texts)
    return several and all(len(own) == 1 for own in texts.values())


@dataclass(frozen=True, slots=True)
class Comparison:
    """A setting against the baseline on the items that both have.

    paired: the difference to the baseline
    same: share of their answers that are the same text
    p: adjusted by Holm over all comparisons of the run that have anything to test (else NaN)
    """

    setting: str
    task: str
    paired: Paired
    same: float
    p: float


class Answers(NamedTuple):
    """Verdicts and texts of one setting on one task, by item and sample."""

    verdicts: Verdicts
    texts: Mapping[tuple[str, int], str]


def beside(first: Answers, second: Answers) -> tuple[Paired, float]:
    """Two settings on the items that both have, each by the share of its samples that is right, and
    how many of the answers that both have judged are the same text.
    """
    shares = shares_of(first.verdicts), shares_of(second.verdicts)
    items = [item for item in shares[0] if item in shares[1]]
    pair = paired(*([own[item] for item in items] for own in shares))
    both = [key for key in first.verdicts if key in second.verdicts]
    return pair, mean([first.texts[key] == second.texts[key] for key in both])


def compare(
    baseline: Mapping[str, Answers], others: Mapping[str, Mapping[str, Answers]]
) -> list[Comparison]:
    """Every setting of `others` (name -> task -> answers) against the baseline's tasks."""
    rows = [
        (name, task, *beside(baseline[task], ours))
        for name, tasks in others.items()
        for task, ours in tasks.items()
    ]
    adjusted = iter(holm([pair.p for _, _, pair, _ in rows if pair.n]))
    return [Comparison(*row, next(adjusted) if row[2].n else math.nan) for row in rows]
