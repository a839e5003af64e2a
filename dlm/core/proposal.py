"""Answers of parts: the proposal of a rule, and those of early commits and stop rules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor


class Entries(NamedTuple):
    """New values of some entries of a scratch tensor that has one for each token, `[R, L, ...]`:
    `values [n, ...]` at the flat places `at [n]` in `[R, L]`, no place twice.
    """

    at: Tensor
    values: Tensor


class Proposal(NamedTuple):
    """The changes that a rule proposes, applied together by the iteration manager.

    commit: open positions that take `token`, `[R, W]`
    token: ids to write, `[R, W]` (None: the view's)
    remask: committed positions to reopen, `[R, W]`
    replace: committed positions to overwrite with `token`, `[R, W]`
    renoise: open positions to draw anew (uniform processes), `[R, W]`
    scratch: new values of declared tensors, whole or some entries
    hold: rows whose block this step does not close, though nothing of it may be open, `[R]`
    branch: the branch whose logits each position is decided by, `[R, W]`, 0 for the canvas itself
        (None: all are); the view's tokens are then those of the branches
    """

    commit: Tensor
    token: Tensor | None = None
    remask: Tensor | None = None
    replace: Tensor | None = None
    renoise: Tensor | None = None
    scratch: Mapping[str, Tensor | Entries] | None = None
    hold: Tensor | None = None
    branch: Tensor | None = None

    @property
    def commits_alone(self) -> bool:
        """True if it commits the view's tokens, and changes nothing else."""
        return self.token is self.remask is self.replace is self.renoise is None

    def revised(
        self,
        *,
        remask: Tensor | None = None,
        replace: Tensor | None = None,
        hold: Tensor | None = None,
        scratch: Mapping[str, Tensor | Entries] | None = None,
    ) -> Proposal:
        """The proposal with further edits and scratch beside those that it has."""
        return self._replace(
            remask=_either(self.remask, remask),
            replace=_either(self.replace, replace),
            hold=_either(self.hold, hold),
            scratch={**(self.scratch or {}), **(scratch or {})} or None,
        )

    def without_edits(self, rows: Tensor) -> Proposal:
        """The proposal without the edits, and without the hold, of `rows [R]`."""
        stay = ~rows
        edits = self.remask, self.replace, self.renoise
        remask, replace, renoise = (m if m is None else m & stay[:, None] for m in edits)
        hold = None if self.hold is None else self.hold & stay
        return self._replace(remask=remask, replace=replace, renoise=renoise, hold=hold)

    def of_rows(self, active: Tensor) -> Proposal:
        """The proposal for the rows `active [R]` alone."""
        rows = active[:, None]
        return self._replace(
            commit=self.commit & rows,
            remask=None if self.remask is None else self.remask & rows,
            replace=None if self.replace is None else self.replace & rows,
            renoise=None if self.renoise is None else self.renoise & rows,
            hold=None if self.hold is None else self.hold & active,
        )


def _either(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The union of two masks, of which either may be missing."""
    if one is None or other is None:
        return one if other is None else other
    return one | other


class Fill(NamedTuple):
    """The answer of an early commit.

    rows: rows whose eligible positions all take their tokens in this step, `[R]`
    scratch: new values of declared tensors
    """

    rows: Tensor
    scratch: Mapping[str, Tensor | Entries] | None = None


class Stop(NamedTuple):
    """The answer of a stop rule.

    done: rows that end with this step, `[R]`; their open positions die
    scratch: new values of declared tensors
    """

    done: Tensor
    scratch: Mapping[str, Tensor | Entries] | None = None


class Progress(NamedTuple):
    """The state of the rows that a block scheduler may read at a sync, on the CPU.

    open_count: open positions of each block, `[R, 8]`
    max_end: largest end of a new block, `[R]`
    length: positions of the canvas, `[R]`
    prompt: positions of the prompt, `[R]`
    next_unopened: first open position that no block has held, the length where there is none, `[R]`
    live: rows that go on, `[R]` bool
    stores: clean blocks wait for the forward that stores their final keys
    """

    open_count: Tensor
    max_end: Tensor
    length: Tensor
    prompt: Tensor
    next_unopened: Tensor
    live: Tensor
    stores: bool


def is_one_of(ids: Tensor, choices: tuple[int, ...]) -> Tensor:
    """Mark the `ids` (any shape) that are one of a few `choices`.

    One comparison each; nothing is copied to the device.
    """
    return reduce(torch.logical_or, (ids == choice for choice in choices))
