"""A group: live rows whose parts are of the same classes, so that every part is one batched call.

Groups share each forward; only what is decided on the logits runs group by group. The plain
numbers of the rows' parts are stacked into parameters `[R, 1]` when a row is admitted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final

import torch
from torch import Tensor

from dlm.core import (
    CacheManager,
    ForwardPlan,
    Guide,
    Parts,
    Rows,
    StepView,
    is_number,
)
from dlm.core.contracts import (
    checked_asks,
    checked_ends,
    checked_fill,
    checked_logits,
    checked_plan,
    checked_proposal,
    checked_restriction,
    checked_stop,
    guarded,
)
from dlm.core.struct import TensorStruct
from dlm.decode.sampling import Sampler
from dlm.decode.top import Draft, drafts_of
from dlm.decode.window import Planned

Numbers = dict[str, Tensor]
"""Fields of a part by name, as tensors."""


def numbers_of(part: Any) -> Numbers:
    """The plain numbers of one part as tensors `[1, 1]` on the CPU: int64 or float64."""
    values = {f.name: getattr(part, f.name) for f in fields(part)}
    return {
        name: torch.tensor([[v]], dtype=torch.float64 if isinstance(v, float) else torch.long)
        for name, v in values.items()
        if is_number(v)
    }


def constants_of(part: Any) -> Numbers:
    """The tuples of numbers of one part, which all rows of a group share: tensors `[n, ...]` on
    the CPU. A step would have to copy them to the device each time.
    """
    values = {f.name: getattr(part, f.name) for f in fields(part)}
    return {
        name: torch.tensor(value, dtype=torch.float64 if nested(value) else None)
        for name, value in values.items()
        if isinstance(value, tuple) and value and (nested(value) or all(map(is_number, value)))
    }


def nested(value: tuple[Any, ...]) -> bool:
    """True if a tuple holds tuples of numbers, all of one length."""
    inner = [item for item in value if isinstance(item, tuple)]
    return (
        len(inner) == len(value)
        and len({len(item) for item in inner}) == 1
        and all(is_number(number) for item in inner for number in item)
    )


def select_params(params: SimpleNamespace, index: Tensor) -> SimpleNamespace:
    """The rows `index [r]`."""
    return SimpleNamespace(**{n: v.index_select(0, index) for n, v in vars(params).items()})


@dataclass(frozen=True, slots=True)
class RowNumbers(TensorStruct):
    """The numbers of R rows that their group's calls read.

    params: of each part of a kind, its plain numbers `[R, 1]`.
    sampler: the way the rows draw (None: every row is greedy).
    top: a row asks for this many most likely ids at its commits.
    """

    params: dict[str, tuple[Numbers, ...]]
    sampler: Sampler | None
    top: int = field(default=0, metadata={"join": max})


CALLS: Final[Mapping[str, tuple[str, str, Callable[..., Any]]]] = MappingProxyType(
    {
        "guide": ("guide", "__call__", checked_logits),
        "blocks": ("blocks", "block_end", checked_ends),
        "unmask": ("unmask", "propose", checked_proposal),
        "edit": ("edit", "edit", checked_proposal),
        "early": ("stop", "fill", checked_fill),
        "stop": ("stop", "__call__", checked_stop),
    }
)
"""For each field of `Parts` the option that gives them, the method that a step calls, and the check
of its answer.
"""
TRAITS: Final = ("signature", "needs", "aux", "arms", "armed", "clock", "paced")
"""Properties of `Parts` that are kept."""


@dataclass(frozen=True, slots=True)
class GroupParts:
    """The parts of a group and all that follows from them alone, found once.

    by_kind: the parts of each kind, in the order of their calls.
    calls: the method of each of them that a step calls (`CALLS`).
    constants: of each of them, the tuples of numbers that all rows share.
    signature: equal for rows that may share calls.
    needs: statistics and auxiliary models that some part reads.
    aux: the auxiliary models among them.
    arms: model inputs of each row.
    armed: the guide that reads several of them.
    clock: a schedule bounds the steps, so that a step may commit nothing.
    paced: it may change nothing, by a schedule of the unmasker or of an editor.
    restrict: narrows what a step may commit, a method of the block scheduler (None: nothing does).
    extend: those of parts which look through shadow tokens.
    asks: finds the rows that the model reads from left to right (None: no part asks for it).
    """

    parts: Parts
    by_kind: dict[str, tuple[Any, ...]]
    calls: dict[str, tuple[Callable[..., Any], ...]]
    constants: dict[str, tuple[Numbers, ...]]
    signature: Hashable
    needs: frozenset[str]
    aux: tuple[str, ...]
    arms: int
    armed: Guide | None
    clock: bool
    paced: bool
    restrict: Callable[[StepView], Tensor] | None
    extend: tuple[Callable[[ForwardPlan, Rows], ForwardPlan], ...]
    asks: Callable[[StepView], Tensor] | None

    @classmethod
    def of(cls, parts: Parts) -> GroupParts:
        """All that follows from `parts`, on the CPU."""
        values = {kind: getattr(parts, kind) for kind in Parts.__slots__}
        by_kind = {k: v if isinstance(v, tuple) else (v,) for k, v in values.items()}
        narrows = parts.eligibility_filter
        return cls(
            parts,
            by_kind,
            calls={
                kind: tuple(guarded(option, part, method, check) for part in by_kind[kind])
                for kind, (option, method, check) in CALLS.items()
            },
            constants={k: tuple(map(constants_of, own)) for k, own in by_kind.items()},
            **{name: getattr(parts, name) for name in TRAITS},
            restrict=guarded("blocks", narrows, "restrict", checked_restriction)
            if narrows is not None
            else None,
            extend=tuple(guarded(k, p, "extend", checked_plan) for k, p in parts.extenders),
            asks=guarded("unmask", parts.unmask, "asks", checked_asks) if parts.verifies else None,
        )

    def to(self, device: torch.device) -> GroupParts:
        """The same with its constants on `device`."""
        moved = {
            kind: tuple({n: v.to(device) for n, v in table.items()} for table in tables)
            for kind, tables in self.constants.items()
        }
        return replace(self, constants=moved)


class RowGroup:
    """Rows that share every call, with their parts and the current plan.

    shared: the parts, and what follows from them.
    rows: the state of the rows.
    numbers: the numbers that differ from row to row.
    caches: of each row, which may differ in numbers.
    isolated: nobody may join.
    calls: the method of each part that a step calls, with the numbers and constants it reads.
    planned: the plan, which holds until a block changes.
    plan_age: steps that the plan has served.
    leaders: the first row with the input of each row, in the next plan (None: no two are alike).
    error: the exception that one of the parts raised.
    everyone: all rows, `[R]` bool.
    active: rows that have not ended since the last sync, nor filled their blocks, `[R]`; the very
        tensor `everyone` in the first step after it.
    unstopped: no row was stopped by a rule, `[R]` zeros.
    aux_tokens: tokens that each auxiliary model has computed in this step, row by row.
    drawn: of the last step, positions with logits, all positions, tokens, confidences, `[R, W]`.
    top: of the last step, what `read_top` gives (None: no row asks for it).
    """

    def __init__(
        self,
        shared: GroupParts,
        rows: Rows,
        numbers: RowNumbers,
        caches: Sequence[CacheManager],
        *,
        isolated: bool = False,
    ) -> None:
        self.shared, self.rows, self.numbers, self.isolated = shared, rows, numbers, isolated
        self.caches = tuple(caches)
        self.parts, self.sampler = shared.parts, numbers.sampler
        self.calls: Mapping[str, tuple[tuple[Callable[..., Any], SimpleNamespace], ...]] = {
            kind: tuple(
                (call, SimpleNamespace(**own, **constants))
                for call, own, constants in zip(
                    calls, numbers.params[kind], shared.constants[kind], strict=True
                )
            )
            for kind, calls in shared.calls.items()
        }
        self.planned: Planned | None = None
        self.plan_age = 0
        self.leaders: tuple[int, ...] | None = None
        self.error: Exception | None = None
        self.everyone = torch.ones(rows.count, dtype=torch.bool, device=rows.device)
        self.active, self.unstopped = self.everyone, torch.zeros_like(rows.step)
        self.aux_tokens: dict[str, list[int]] = {}
        self.drawn: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        self.top: Tensor | None = None

    @property
    def current(self) -> Planned:
        """The plan in force, with what belongs to it."""
        assert self.planned is not None, "a group is planned before it steps"
        return self.planned

    @property
    def steps_left(self) -> int | None:
        """Steps that the plan may still serve (None: no bound)."""
        valid_steps = self.current.plan.valid_steps
        return valid_steps if valid_steps is None else valid_steps - self.plan_age

    @property
    def signature(self) -> tuple[Any, ...]:
        """Equal for groups that can be one."""
        numbers, alone = self.numbers, id(self) if self.isolated else None
        return self.shared.signature, self.sampler is None, numbers.top > 0, alone

    def params(self, kind: str) -> SimpleNamespace:
        """The numbers of the only part of its kind: `[R, 1]`, and its constants."""
        ((_, params),) = self.calls[kind]
        return params

    def host_params(self, kind: str) -> SimpleNamespace:
        """The numbers alone, on the CPU."""
        (numbers,) = self.numbers.params[kind]
        return SimpleNamespace(**{name: value.cpu() for name, value in numbers.items()})

    def draft(self, row: int) -> dict[int, Draft]:
        """Of the last step, the draft at each position of a row with logits."""
        if self.drawn is None:
            return {}
        top = None if self.top is None else self.top[row]
        return drafts_of([column[row] for column in self.drawn], top)

    def replan(self, rows: Rows) -> None:
        """Go on with `rows`, whose blocks have changed."""
        self.rows, self.planned, self.plan_age, self.leaders = rows, None, 0, None

    def undo(self, before: Rows, error: Exception) -> None:
        """A part has failed: go back to the blocks of `before`; pages that were copied stay."""
        pages = self.rows.host.pages
        self.rows, self.error = replace(before, host=replace(before.host, pages=pages)), error

    def select(self, index: Tensor) -> RowGroup:
        """The rows `index [r]`, without a plan."""
        rows, numbers = self.rows.select(index), self.numbers.select(index)
        caches = [self.caches[row] for row in index.tolist()]
        return RowGroup(self.shared, rows, numbers, caches, isolated=self.isolated)

    def to(self, device: torch.device) -> RowGroup:
        """The same rows on `device`, without a plan."""
        if self.rows.device == device:
            return self
        rows, numbers = self.rows.to(device), self.numbers.to(device)
        shared, caches = self.shared.to(device), self.caches
        return RowGroup(shared, rows, numbers, caches, isolated=self.isolated)

    @staticmethod
    def cat(groups: Sequence[RowGroup]) -> RowGroup:
        """Stack groups of equal signature, without a plan; one alone is given back as it is."""
        if len(groups) == 1:
            return groups[0]
        rows, numbers = Rows.cat([g.rows for g in groups]), [g.numbers for g in groups]
        caches = [cache for g in groups for cache in g.caches]
        return RowGroup(groups[0].shared, rows, RowNumbers.cat(numbers), caches)


def group_of(parts: Parts, row: Rows, sampler: Sampler | None, top: int = 0) -> RowGroup:
    """A group of one row on the CPU."""
    shared = GroupParts.of(parts)
    params = {kind: tuple(map(numbers_of, own)) for kind, own in shared.by_kind.items()}
    return RowGroup(shared, row, RowNumbers(params, sampler, top), [parts.cache])
