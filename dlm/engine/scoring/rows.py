"""The canvases that the log-likelihood of a text is read from: pure functions of the text.

chain: log p(x_i | the prompt, all x before i), everything after masked, position by position: the
    log of a probability, that of writing the text from left to right.
pseudo: log p(x_i | the prompt, all x outside the set of i): the positions are split into random
    sets, each of which is masked once. With sets of one position it is the pseudo-log-likelihood of
    Salazar et al. (arXiv 1910.14659). It is no probability: tokens that foretell each other count
    twice; but texts of one length share their sets, so that it ranks them in few canvases.

A position of a block-causal model sees no block after its own, and never one with masks before it:
its canvas ends with its block, in which alone positions are masked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple, Self

import numpy as np

from dlm.config.checks import require_integer, require_number
from dlm.config.generation import MOST_LIKELY
from dlm.core import ModelInfo
from dlm.engine.canvas_reader import Ids
from dlm.errors import InvalidRequest, shown, unknown_name

Method = Literal["chain", "pseudo"]
METHODS: Final = ("chain", "pseudo")
ROUNDING: Final = 1e-9
"""Error of `1 / rate` that makes no further set."""


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """Options of `Engine.score`.

    method: `chain`, from left to right, a canvas a token; or `pseudo`, each token beside the others
    rate: of `pseudo`: share of the positions that are masked at a time, in `ceil(1 / rate)` sets
        (None: one position at a time)
    seed: of the sets; they depend on it and on the number of tokens alone
    top_logprobs: keep this many most likely ids at each position
    """

    method: Method = "chain"
    rate: float | None = None
    seed: int = 0
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        """Raises `InvalidRequest` for a wrong value."""
        if not isinstance(self.method, str) or self.method not in METHODS:
            raise unknown_name("method", str(self.method), METHODS)
        if self.rate is not None:
            require_number("rate", self.rate, low=0.0, high=1.0)
            if self.rate == 0:
                raise InvalidRequest("rate", f"must be more than 0, got {shown(self.rate)}")
            if self.method != "pseudo":
                raise InvalidRequest("rate", "is an option of method='pseudo'")
        require_integer("seed", self.seed, 0)
        require_integer("top_logprobs", self.top_logprobs, 0, most=MOST_LIKELY)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """The options of a mapping. Raises `InvalidRequest` for an unknown name."""
        known = {one.name for one in fields(cls)}
        for name in options:
            if name not in known:
                raise unknown_name("options", str(name), known)
        return cls(**options)


class Want(NamedTuple):
    """A token whose log-probability is read from a row.

    pair: number of its text
    at: its place in the text
    token: its id
    place: number of the row's position that predicts it
    """

    pair: int
    at: int
    token: int
    place: int


class ScoredRow(NamedTuple):
    """A canvas to compute.

    base: a prompt and its text
    seen: ids of `base` that the canvas begins with; masks follow
    length: of the canvas
    positions: the ones that are read, masked too
    mask_id: id of MASK
    wants: the tokens that are read; those of several texts where these have the canvas in common
    """

    base: Ids
    seen: int
    length: int
    positions: tuple[int, ...]
    mask_id: int
    wants: list[Want]

    @property
    def ids(self) -> Ids:
        """The ids of the canvas, made anew each time: all of a long text would take much memory."""
        ids = [*self.base[: self.seen], *[self.mask_id] * (self.length - self.seen)]
        for position in self.positions:
            ids[position] = self.mask_id
        return tuple(ids)


class _Shown(NamedTuple):
    """`seen`, `length` and `positions` of a `ScoredRow`."""

    seen: int
    length: int
    positions: tuple[int, ...]


def scored_rows(
    pairs: Sequence[tuple[Ids, Ids]], info: ModelInfo, options: ScoringOptions
) -> list[ScoredRow]:
    """The canvases of pairs of a prompt and its text, in their order; equal ones are one."""
    assert info.mask_id is not None
    rows: dict[tuple[int, _Shown], ScoredRow] = {}
    numbers: dict[tuple[int, int], int] = {}  # of each beginning: that of the one before, and an id
    for number, (prompt, answer) in enumerate(pairs):
        base, start, path = prompt + answer, len(prompt), [0]
        for token in base:
            path.append(numbers.setdefault((path[-1], token), len(numbers) + 1))
        way = _chain(start, len(base), info)
        if options.method == "pseudo":
            way = _pseudo(start, len(base), info, options)
        for one in way:
            row = ScoredRow(base, *one, info.mask_id, [])
            row = rows.setdefault((path[one.seen], one), row)
            for place, position in enumerate(one.positions):
                row.wants.append(Want(number, position - start, base[position], place))
    return list(rows.values())


def _chain(start: int, end: int, info: ModelInfo) -> Iterator[_Shown]:
    for position in range(start, end):
        yield _Shown(position, _length(position, end, info), (position,))


def _pseudo(start: int, end: int, info: ModelInfo, options: ScoringOptions) -> Iterator[_Shown]:
    for chosen in position_sets(end - start, options.rate, options.seed):
        lengths = groupby((start + at for at in chosen), lambda at: _length(at, end, info))
        for length, positions in lengths:
            yield _Shown(min(length, end), length, tuple(positions))


def _length(position: int, end: int, info: ModelInfo) -> int:
    """The length of the canvas that a position of a text up to `end` sees."""
    size = info.alignment
    return end if info.attention != "block_causal" else (position // size + 1) * size


def position_sets(length: int, rate: float | None, seed: int) -> list[list[int]]:
    """`range(length)` in `ceil(1 / rate)` random sets of nearly equal sizes, at most one for each
    position; each set in ascending order.
    """
    count = length if rate is None else min(length, math.ceil(1 / rate - ROUNDING))
    order = np.random.default_rng([seed, length]).permutation(length)
    return [sorted(part.tolist()) for part in np.array_split(order, max(count, 1)) if len(part)]
