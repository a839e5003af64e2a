"""The third stage of a run: the figures of each setting on each task, and how settings compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dlm.evals.grading import Verdicts
from dlm.evals.items import Item
from dlm.evals.sampling import REFUSED, Sample
from dlm.evals.statistics import (
    Interval,
    Paired,
    bootstrap,
    holm,
    paired,
    pass_at_k,
    percentile,
    wilson,
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one setting has reached on one task, and at what cost.

    `accuracy` over `n` items (with several samples an item: the mean share, and its bootstrap over
    items) · `rungs`: (right, n) of each step of the ladder · `pass_at_k` at k = samples (None for
    one) · `nfe`, `tokens`, `token_forwards`: means an answer · `tpf`: tokens over forwards, sums
    over sums (NaN where none are known, as of a server) · `tokens_per_second`: tokens over the
    summed seconds of all requests, one at a time · `p50`, `p95`: seconds of a request ·
    `masked_left`: answers with positions never filled, of which `refused` did not fit the model ·
    `unjudged`: answers without a verdict, which no figure counts · `scores`: means of what the
    grader says beyond right and wrong.
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


def figures_of(
    setting: str, items: Sequence[Item], samples: Sequence[Sample], verdicts: Verdicts
) -> Figures:
    """The figures of one setting over the items that all have their samples and verdicts."""
    shares = item_shares(items, verdicts)
    done = [item for item in items if item.id in shares]
    drawn = max((sample.index for sample in samples), default=0) + 1
    counted = [s for s in samples if (s.item, s.index) in verdicts]
    right = [shares[item.id] for item in done]
    seconds = [s.seconds for s in counted]
    tokens, nfe = sum(s.tokens for s in counted), sum(s.nfe for s in counted)
    many = max(1, len(counted))
    return Figures(
        setting=setting,
        task=items[0].task if items else "",
        n=len(done),
        samples=drawn,
        accuracy=sum(right) / len(done) if done else math.nan,
        interval=wilson(round(sum(right)), len(done)) if drawn == 1 else bootstrap(right),
        rungs=_rungs(done, shares),
        pass_at_k=_pass_at_k(done, verdicts, drawn) if drawn > 1 else None,
        nfe=nfe / many,
        tpf=tokens / nfe if nfe else math.nan,
        tokens=tokens / many,
        token_forwards=sum(s.token_forwards for s in counted) / many,
        tokens_per_second=tokens / sum(seconds) if sum(seconds) else 0.0,
        p50=percentile(seconds, 0.5),
        p95=percentile(seconds, 0.95),
        masked_left=sum(s.masked_left > 0 for s in counted),
        refused=sum(s.finish_reason == REFUSED for s in counted),
        unjudged=sum((s.item, s.index) not in verdicts for s in samples),
    )


def item_shares(items: Sequence[Item], verdicts: Verdicts) -> dict[str, float]:
    """For each item with verdicts, the share of its samples that is right."""
    marks: dict[str, list[bool]] = {}
    for (item, _), right in verdicts.items():
        marks.setdefault(item, []).append(right)
    return {i.id: sum(marks[i.id]) / len(marks[i.id]) for i in items if i.id in marks}


def _rungs(items: Sequence[Item], shares: Mapping[str, float]) -> dict[str, tuple[float, int]]:
    """(right, n) for each rung; `right` counts shares of samples."""
    found: dict[str, tuple[float, int]] = {}
    for item in sorted(items, key=lambda item: item.rung):
        right, n = found.get(item.rung, (0.0, 0))
        found[item.rung] = right + shares[item.id], n + 1
    return found


def _pass_at_k(items: Sequence[Item], verdicts: Verdicts, k: int) -> float:
    """Mean of pass@k over the items whose k samples all have verdicts."""
    marks: dict[str, list[bool]] = {item.id: [] for item in items}
    for (item, _), verdict in verdicts.items():
        if item in marks:
            marks[item].append(verdict)
    found = [pass_at_k(k, sum(own), k) for own in marks.values() if len(own) == k]
    return sum(found) / len(found) if found else math.nan


@dataclass(frozen=True, slots=True)
class Comparison:
    """A setting against the baseline on the items that both have; `p` adjusted by Holm over the
    table's rows. `same`: the share of their answers that are the same text.
    """

    setting: str
    task: str
    paired: Paired
    same: float
    p: float


class Answers(NamedTuple):
    """What one setting gave on one task: verdicts and texts by item and sample."""

    verdicts: Verdicts
    texts: Mapping[tuple[str, int], str]


def compare(
    baseline: Mapping[str, Answers], others: Mapping[str, Mapping[str, Answers]]
) -> list[Comparison]:
    """Every setting of `others` (name -> task -> answers) against the baseline's tasks.

    Each item counts by its first sample.
    """
    rows: list[tuple[str, str, Paired, float]] = []
    for name, tasks in others.items():
        for task, ours in tasks.items():
            base = baseline[task]
            shared = [key for key in base.verdicts if key in ours.verdicts and key[1] == 0]
            pair = paired(*([each.verdicts[key] for key in shared] for each in (base, ours)))
            same = sum(base.texts[key] == ours.texts[key] for key in shared)
            rows.append((name, task, pair, same / max(1, len(shared))))
    adjusted = holm([found.p for _, _, found, _ in rows])
    return [Comparison(*row, p) for row, p in zip(rows, adjusted, strict=True)]
