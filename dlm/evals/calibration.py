"""Measures of probabilities over labels: accuracy, Brier score, calibration error, temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, fsum, log
from typing import Final, NamedTuple

from dlm.errors import InvalidRequest

BINS: Final = 15
"""Bins of the expected calibration error, as in Guo et al., arXiv 1706.04599."""
LEAST: Final = 1e-12
"""Probabilities below it count as it."""
SPREAD: Final = 4.0
"""Natural logarithm of the largest temperature that is tried, and minus that of the smallest."""


class Record(NamedTuple):
    """Probabilities of the labels of one question, and the number of the right one."""

    probabilities: Sequence[float]
    right: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measures of n records.

    n: records
    accuracy: share whose most probable label is right
    brier: mean over records of the summed squares of p - y over the labels, 0 to 2
    ece: expected calibration error of the most probable label, in 15 bins of equal width
    nll: mean negative log-probability of the right label, in nats
    """

    n: int
    accuracy: float
    brier: float
    ece: float
    nll: float


def calibration(records: Sequence[Record]) -> Calibration:
    """All measures. Raises `InvalidRequest` for no records, or a record without its right label."""
    _check(records)
    n = len(records)
    hits = [_best(p) == right for p, right in records]
    squares = (
        fsum((value - (label == right)) ** 2 for label, value in enumerate(p))
        for p, right in records
    )
    losses = (-log(max(p[right], LEAST)) for p, right in records)
    sure = [max(p) for p, _ in records]
    return Calibration(n, sum(hits) / n, fsum(squares) / n, ece(sure, hits), fsum(losses) / n)


def ece(confidences: Sequence[float], hits: Sequence[bool], bins: int = BINS) -> float:
    """The expected calibration error: |share of hits - mean confidence|, weighted over the bins."""
    inside: list[list[int]] = [[] for _ in range(bins)]
    for number, confidence in enumerate(confidences):
        inside[min(int(confidence * bins), bins - 1)].append(number)
    gaps = (abs(fsum(hits[i] - confidences[i] for i in members)) for members in inside)
    return fsum(gaps) / len(confidences)


def tempered(probabilities: Sequence[float], temperature: float) -> list[float]:
    """The distribution at another temperature: p ** (1 / T), renormalised."""
    logs = [log(max(p, LEAST)) / temperature for p in probabilities]
    weights = [exp(value - max(logs)) for value in logs]
    return [weight / fsum(weights) for weight in weights]


def with_temperature(records: Sequence[Record], temperature: float) -> list[Record]:
    """The records at another temperature."""
    return [Record(tempered(p, temperature), right) for p, right in records]


def fit_temperature(records: Sequence[Record]) -> float:
    """The temperature under which the right labels are most probable (Guo et al., arXiv
    1706.04599).

    Found by golden-section search over its logarithm, in which the loss has one minimum. Raises
    `InvalidRequest` as `calibration` does.
    """
    _check(records)

    def loss(exponent: float) -> float:
        at = exp(exponent)
        return fsum(-log(max(tempered(p, at)[right], LEAST)) for p, right in records)

    low, high, ratio = -SPREAD, SPREAD, (5**0.5 - 1) / 2
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return exp((low + high) / 2)


def _best(probabilities: Sequence[float]) -> int:
    return max(range(len(probabilities)), key=probabilities.__getitem__)


def _check(records: Sequence[Record]) -> None:
    if not records:
        raise InvalidRequest("records", "must not be empty")
    for number, (probabilities, right) in enumerate(records):
        if not 0 <= right < len(probabilities):
            rule = f"must be the number of one of {len(probabilities)} labels, got {right}"
            raise InvalidRequest(f"records[{number}].right", rule)
