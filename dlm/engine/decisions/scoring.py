"""Scores of labels: the canvases to compute, and the log-probabilities that they add up to.

Three ways to score a label of several tokens in its hole:

chain: log p(first token) + log p(second | first) + ..., the positions to come masked. It is the log
    of a probability: labels share the forwards of equal beginnings, and one that is shorter than
    the hole ends with an end id, which counts as its last token.
pseudo: the sum of log p(token | all others of the label), the pseudo-log-likelihood (Salazar et
    al., arXiv 1910.14659). It is no probability: tokens that foretell each other count twice.
first: log p(first token), where every label begins with another one: a single canvas, whose other
    tokens count as certain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp, fsum, log
from typing import NamedTuple

import torch
from torch import Tensor

from dlm.core import ModelInfo
from dlm.engine.canvas_reader import Ids
from dlm.engine.decisions.canvases import Canvas, Slot
from dlm.engine.decisions.options import Scoring
from dlm.errors import InvalidRequest


class Read(NamedTuple):
    """A position of a canvas that is computed, and the ids whose probability is wanted there.

    groups: sets of ids, each of which counts as one
    """

    position: int
    groups: tuple[Ids, ...]


class CanvasRow(NamedTuple):
    """A canvas to compute.

    source: the whole canvas
    ids: the part of it that is computed
    reads: what is read of it, by position
    """

    source: Ids
    ids: Ids
    reads: tuple[Read, ...]

    @property
    def length(self) -> int:
        """The number of ids."""
        return len(self.ids)

    @property
    def positions(self) -> list[int]:
        """The positions that are read."""
        return [read.position for read in self.reads]


class Term(NamedTuple):
    """One summand of a label's score: the log-probability of a set of ids at a position."""

    ids: Ids
    position: int
    group: Ids


class LabelTerms(NamedTuple):
    """The summands of the score of each label of a slot."""

    slot: Slot
    labels: tuple[tuple[Term, ...], ...]


def label_terms(canvas: Canvas, info: ModelInfo, scoring: Scoring) -> list[LabelTerms]:
    """The terms of the labels of every slot of a canvas.

    Raises `InvalidRequest` for `first` where labels begin alike.
    """
    score = {"chain": _chain, "pseudo": _pseudo, "first": _first}[scoring]
    if scoring == "first":
        for slot in canvas.slots:
            _check_beginnings(slot)
    known: dict[Ids, Ids] = {}  # equal canvases are one object

    def terms(slot: Slot, label: Ids) -> Iterator[Term]:
        for term in score(canvas, slot, label, info):
            yield term._replace(ids=known.setdefault(term.ids, term.ids))

    return [
        LabelTerms(slot, tuple(tuple(terms(slot, label)) for label in slot.labels))
        for slot in canvas.slots
    ]


def _chain(canvas: Canvas, slot: Slot, label: Ids, info: ModelInfo) -> Iterator[Term]:
    """Each token after those before it; then the end, if the hole goes on."""
    groups: list[Ids] = [(token,) for token in label]
    if len(label) < slot.width:
        groups.append(info.eos_ids)
    for at, group in enumerate(groups):
        yield Term(_filled(canvas, slot, label[:at]), slot.start + at, group)


def _pseudo(canvas: Canvas, slot: Slot, label: Ids, info: ModelInfo) -> Iterator[Term]:
    """Each token beside all others; the end counts as one, if the hole goes on."""
    assert info.mask_id is not None
    rest = slot.width - len(label)
    content = (*label, *info.eos_ids[:1] * rest)
    groups: list[Ids] = [*((token,) for token in label), *[info.eos_ids] * min(rest, 1)]
    for at, group in enumerate(groups):
        seen = (*content[:at], info.mask_id, *content[at + 1 :])
        yield Term(_filled(canvas, slot, seen), slot.start + at, group)


def _first(canvas: Canvas, slot: Slot, label: Ids, info: ModelInfo) -> Iterator[Term]:
    """The first token alone, or the end for a label without one of its own."""
    yield Term(canvas.ids, slot.start, label[:1] or info.eos_ids)


def _check_beginnings(slot: Slot) -> None:
    seen: dict[Ids, int] = {}
    for number, label in enumerate(slot.labels):
        if seen.setdefault(label[:1], number) != number:
            raise InvalidRequest(
                "scoring",
                f"'first' needs labels of different first tokens: in questions[{slot.question}], "
                f"those of labels {seen[label[:1]]} and {number} are the same",
            )


def _filled(canvas: Canvas, slot: Slot, ids: Ids) -> Ids:
    """The canvas with the first positions of a slot filled."""
    end = slot.start + len(ids)
    return (*canvas.ids[: slot.start], *ids, *canvas.ids[end:])


def rows_of(terms: Sequence[LabelTerms], info: ModelInfo) -> list[CanvasRow]:
    """Each canvas once, with all that is read of it.

    In block-causal models nothing after the block of the last position that is read matters: the
    canvas ends there, filled up to the end of its block.
    """
    reads: dict[Ids, dict[int, dict[Ids, None]]] = {}
    for term in (term for one in terms for label in one.labels for term in label):
        there = reads.setdefault(term.ids, {})
        there.setdefault(term.position, {})[term.group] = None
    return [
        CanvasRow(
            ids,
            _cut(ids, max(found), info),
            tuple(Read(at, tuple(groups)) for at, groups in sorted(found.items())),
        )
        for ids, found in reads.items()
    ]


def _cut(ids: Ids, last: int, info: ModelInfo) -> Ids:
    """The ids that position `last` sees."""
    if info.attention != "block_causal":
        return ids
    end = (last // info.alignment + 1) * info.alignment
    return (*ids[:end], *(ids[-1:] * (end - len(ids))))


def note_terms(found: dict[Term, float], rows: Sequence[CanvasRow], logits: Tensor) -> None:
    """Write down in `found` the log-probabilities of what is read of rows in `logits [N, V]`."""
    reads = [(row, read) for row in rows for read in row.reads]
    wanted = [(n, i) for n, (_, read) in enumerate(reads) for g in read.groups for i in g]
    places, ids = torch.tensor(wanted, device=logits.device).unbind(1)
    logs = logits[places, ids].double() - logits.logsumexp(1).double()[places]
    values = iter(logs.tolist())
    for row, read in reads:
        for group in read.groups:
            score = log_sum([next(values) for _ in group])
            found[Term(row.source, read.position, group)] = score


def log_sum(logs: Sequence[float]) -> float:
    """The log of the sum of exponentials."""
    top = max(logs)
    return top + log(fsum(exp(value - top) for value in logs))


def renormalised(logs: Sequence[float], temperature: float) -> list[float]:
    """Probabilities of labels whose log-scores are `logs`, tempered; they sum up to 1."""
    top = max(logs)
    weights = [exp((score - top) / temperature) for score in logs]
    total = fsum(weights)
    return [weight / total for weight in weights]


def summed(terms: LabelTerms, found: Mapping[Term, float]) -> list[float]:
    """The log-score of each label."""
    return [fsum(found[term] for term in label) for label in terms.labels]


def mass(logs: Sequence[float]) -> float:
    """The probability of all labels together."""
    return min(1.0, fsum(exp(score) for score in logs))
