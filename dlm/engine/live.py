"""The rows that are decoded, in groups, and the rows that are parked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlm.core import BlockTable, Parts, Rows
from dlm.decode.group import RowGroup
from dlm.decode.iteration import IterationManager
from dlm.decode.leaders import leaders_of
from dlm.decode.planning import Planner
from dlm.decode.top import Draft
from dlm.engine.admission import skipped_of
from dlm.engine.row import RowState

GroupRows = tuple[RowGroup, list[RowState]]
"""A group and the states of its rows."""


@dataclass(frozen=True, slots=True)
class Until:
    """The point at which a row is parked: the first of these that it reaches, or its end.

    nfe: the forwards of the row.
    blocks: the blocks that were filled in it.
    open_ratio: at most this share of its answer is open, see `RowState.open_share`.
    """

    nfe: int | None = None
    blocks: int | None = None
    open_ratio: float | None = None

    def steps(self, state: RowState) -> int:
        """Steps after which a row can have come to the point, at the earliest."""
        if self.nfe is None or self.blocks is not None or self.open_ratio is not None:
            return 1
        return max(self.nfe - state.ledger.nfe, 1)

    def reached(self, state: RowState) -> bool:
        """True if a row has come to the point."""
        return (
            (self.nfe is not None and state.ledger.nfe >= self.nfe)
            or (self.blocks is not None and state.filled_blocks >= self.blocks)
            or (self.open_ratio is not None and state.open_share <= self.open_ratio)
        )


def steps_unwatched(watched: Sequence[RowState]) -> int | None:
    """Steps that may pass before a row can have come to its point (None: any number)."""
    points = [(state.until, state) for state in watched if not state.done]
    return min((until.steps(state) for until, state in points if until), default=None)


class LiveRows:
    """The rows that are being decoded, in groups with the states of their rows."""

    def __init__(self) -> None:
        self.groups: list[GroupRows] = []

    def __len__(self) -> int:
        """The number of rows."""
        return sum(len(states) for _, states in self.groups)

    @property
    def states(self) -> list[RowState]:
        """The states of all rows."""
        return [state for _, states in self.groups for state in states]

    def join(self, fresh: Sequence[GroupRows], device: torch.device) -> None:
        """Let rows join the groups of their signature on `device`, or found some.

        Rows of a signature are stacked first and moved together: new ones come from the CPU, those
        that were parked are on the device already.
        """
        alike: list[tuple[list[RowGroup], list[RowState]]] = []
        for group, states in fresh:  # signatures are compared: a user's part need not be hashable
            mates = next((m for m in alike if _stackable(m[0][0], group)), None)
            if mates is None:
                alike.append(mates := ([], []))
            mates[0].append(group)
            mates[1].extend(states)
        for members, states in alike:
            new = RowGroup.cat(members).to(device)
            signatures = [group.signature for group, _ in self.groups]
            if new.signature in signatures:
                place = signatures.index(new.signature)
                other, known = self.groups[place]
                self.groups[place] = _paired(RowGroup.cat([other, new]), [*known, *states])
            else:
                self.groups.append(_paired(new, states))

    def __contains__(self, state: RowState) -> bool:
        """True if a row is live."""
        return any(state in states for _, states in self.groups)

    def pages(self, state: RowState) -> Tensor:
        """The page table of a live row, `[C, P]`."""
        place, at = self._find(state)
        pages: Tensor = self.groups[place][0].rows.host.pages[at]
        return pages

    def draft(self, state: RowState) -> dict[int, Draft]:
        """Of a row's last step, the draft at each position that it read."""
        place, at = self._find(state)
        return self.groups[place][0].draft(at)

    def take(self, state: RowState) -> RowGroup:
        """Remove a live row; it goes on as a group of its own."""
        place, at = self._find(state)
        group, states = self.groups[place]
        if len(states) == 1:
            del self.groups[place]
            return group
        self.groups[place] = _chosen(group, states, [i for i in range(len(states)) if i != at])
        return group.select(torch.tensor([at]))

    def double(self, state: RowState, child: RowState) -> None:
        """Let a second row stand beside a live one, as it is now; it draws along its own path."""
        place, at = self._find(state)
        group, states = self.groups[place]
        wider = group.select(torch.tensor([*range(len(states)), at]))
        wider.rows.path[-1] = child.path
        self.groups[place] = _paired(wider, [*states, child])

    def divide(self, group: RowGroup, pieces: Sequence[Sequence[int]]) -> list[GroupRows]:
        """Replace a group by pieces of it, each with some of its rows."""
        place = next(i for i, (other, _) in enumerate(self.groups) if other is group)
        states = self.groups[place][1]
        parts = [_chosen(group, states, rows) for rows in pieces]
        self.groups[place : place + 1] = parts
        return parts

    def drop_done(self) -> list[tuple[Parts, Tensor]]:
        """Remove the rows that have ended; the parts and pages of each."""
        kept, leaving = [], []
        for group, states in self.groups:
            stay = [i for i, state in enumerate(states) if not state.done]
            if len(stay) == len(states):
                kept.append((group, states))
                continue
            pages = group.rows.host.pages
            leaving += [(group.parts, pages[i]) for i, t in enumerate(states) if t.done]
            if stay:
                kept.append(_chosen(group, states, stay))
        self.groups = kept
        return leaving

    def forwards(self, planner: Planner, most: int | None) -> list[list[GroupRows]]:
        """The groups that go into each forward, of at most `most` positions (None: any number).

        A group that is too large for one is divided.
        """
        if most is None or not self.groups:
            return [list(self.groups)]
        uncut = [group for group, _ in self.groups]
        while uncut:
            group = uncut.pop()
            pieces = runs_within(_sizes(group, planner), most)
            if len(pieces) > 1:  # a row that is parted from its leader is computed
                uncut += [piece for piece, _ in self.divide(group, pieces)]
        sizes = [sum(_sizes(group, planner)) for group, _ in self.groups]
        return [[self.groups[i] for i in run] for run in runs_within(sizes, most)]

    def _find(self, state: RowState) -> tuple[int, int]:
        """The place of a live row's group, and its place there."""
        place = next(i for i, (_, states) in enumerate(self.groups) if state in states)
        return place, self.groups[place][1].index(state)


def _chosen(group: RowGroup, states: Sequence[RowState], rows: Sequence[int]) -> GroupRows:
    """Some rows of a group, without a plan."""
    return _paired(group.select(torch.tensor(rows)), [states[row] for row in rows])


def _paired(group: RowGroup, states: list[RowState]) -> GroupRows:
    """A group whose rows have changed; it knows which of them have the same input."""
    group.leaders = leaders_of([state.lineage for state in states])
    return group, states


def _stackable(one: RowGroup, other: RowGroup) -> bool:
    """True if two groups are of one signature and on one device."""
    return one.rows.device == other.rows.device and one.signature == other.signature


def _sizes(group: RowGroup, planner: Planner) -> list[int]:
    """The positions that the next forward computes for each row; none where a part cannot plan it,
    which the forward meets again.
    """
    try:
        return planner.plan(group).token_forwards
    except Exception:
        return [0] * group.rows.count


def runs_within(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Places of `sizes` in runs whose sums are at most `most`; a larger one is alone."""
    runs: list[list[int]] = [[]]
    for place, size in enumerate(sizes):
        if runs[-1] and sum(sizes[i] for i in runs[-1]) + size > most:
            runs.append([])
        runs[-1].append(place)
    return runs


class ParkedRows:
    """Rows that hold their canvas and keys and are not stepped, each a group of its own."""

    def __init__(self, manager: IterationManager) -> None:
        self.manager = manager
        self.groups: dict[RowState, RowGroup] = {}

    def __contains__(self, state: RowState) -> bool:
        """True if a row is parked and has keys."""
        return state in self.groups

    def pages(self, state: RowState) -> Tensor:
        """The page table of a parked row, `[C, P]`."""
        pages: Tensor = self.groups[state].rows.host.pages[0]
        return pages

    def double(self, state: RowState, child: RowState) -> None:
        """Let a second row stand beside a parked one, as it is now; it draws along its own path."""
        group = self.groups[state]
        group.replan(group.rows)  # its plan writes pages that are shared now
        self.groups[child] = twin = group.select(torch.tensor([0]))
        twin.rows.path[0] = child.path

    def reopen(self, state: RowState, positions: Sequence[int]) -> None:
        """Open committed positions; blocks open anew from the first of them on.

        Keys before the block of the first one stay, if they depend on nothing after it. Raises
        `Unavailable`, and changes nothing, when pages that other requests use cannot be replaced,
        and the exception of the block scheduler.
        """
        group, info, pages = self.groups[state], self.manager.info, self.manager.page_manager
        step = info.alignment
        stored = min(int(group.rows.host.stored[0]), min(positions) // step * step)
        own, copies = pages.unsealed(group.parts, group.rows.host.pages[0], stored)
        self.manager.kv.store.copy(copies)
        at = torch.tensor([positions], device=group.rows.device)
        prior = info.process.prior(group.rows.seed, group.rows.path, at, group.rows.step)
        state.reopen(positions, prior[0].tolist())
        rows = reopened(group.rows, at, prior, int(info.process.open_kind))
        host = replace(
            rows.host,
            skipped=skipped_of(state)[None],
            stored=torch.tensor([stored]),
            pages=own[None],
        )
        rows = replace(rows, host=host).prepared(rows.specs, whole_row=host.whole_row)
        self.groups[state] = fresh = RowGroup(
            group.shared, rows, group.numbers, group.caches, isolated=group.isolated
        )
        self.manager.admit(fresh)

    def drop_done(self) -> list[tuple[Parts, Tensor]]:
        """Remove the rows that have ended; the parts and pages of each."""
        if not self.groups:
            return []
        ended = [state for state in self.groups if state.done]
        gone = [self.groups.pop(state) for state in ended]
        return [(group.parts, group.rows.host.pages[0]) for group in gone]


def reopened(rows: Rows, at: Tensor, prior: Tensor, open_kind: int) -> Rows:
    """One row whose positions `at [1, n]` are open and hold `prior [1, n]`; no block is live."""
    kind = rows.kind.scatter(1, at, open_kind)
    still_open = (kind >= open_kind).sum(dim=1)
    empty = BlockTable.empty(1)
    return replace(
        rows,
        ids=rows.ids.scatter(1, at, prior),
        kind=kind,
        edits=rows.edits.scatter_add(1, at, torch.ones_like(at)),
        grace=(rows.step + still_open - rows.initial_masks).clamp_min(0),
        blocks=empty.to(rows.device),
        host=replace(rows.host, blocks=empty),
    )
