"""A group: live rows whose parts are of the same classes, so that every part is one batched call.

Groups share each forward; only what is decided on the logits runs group by group. The plain
numbers of the rows' parts are stacked into parameters `[R, 1]` when a row is admitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from dlm.core import EligibilityFilter, ForwardPlan, Parts, Rows, Window, is_number
from dlm.decode.sampling import Sampler
from dlm.decode.window import KeyAges


def params_of(part: Any) -> SimpleNamespace:
    """The plain numbers of one part as tensors `[1, 1]` on the CPU: int64 or float64."""
    numbers = {
        f.name: getattr(part, f.name) for f in fields(part) if is_number(getattr(part, f.name))
    }
    dtypes = {
        name: torch.float64 if isinstance(v, float) else torch.long for name, v in numbers.items()
    }
    return SimpleNamespace(**{n: torch.tensor([[v]], dtype=dtypes[n]) for n, v in numbers.items()})


def constants_of(part: Any) -> dict[str, Tensor]:
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


def cat_params(parts: Sequence[SimpleNamespace]) -> SimpleNamespace:
    """Stack the rows of parameters with the same names."""
    return SimpleNamespace(
        **{name: torch.cat([vars(p)[name] for p in parts]) for name in vars(parts[0])}
    )


def select_params(params: SimpleNamespace, index: Tensor) -> SimpleNamespace:
    """The rows `index [r]`."""
    return SimpleNamespace(
        **{name: value.index_select(0, index) for name, value in vars(params).items()}
    )


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan and all that holds as long as it does.

    `live` `[R, 8]` on the CPU: the blocks being denoised · `key_ages`: which keys it makes and
    which
    it reuses (None where keys are never out of date) · `opening`: a block opens in some row, so
    that its end is read from the logits · `replans_next`: one opens or is stored, so that the next
    plan
    is another one.
    """

    plan: ForwardPlan
    window: Window
    live: Tensor
    key_ages: KeyAges | None
    opening: bool
    replans_next: bool


@dataclass(slots=True)
class RowGroup:
    """Rows that share every call, with their parts and the current plan.

    `part_params` and `constants` run parallel to `parts.all()`: numbers `[R, 1]`, and tuples that
    all rows
    share; `parts_with_params` pairs the parts of each kind with both.
    `sampler` is None when every row is greedy. `isolated`: nobody may join. `planned` holds until a
    block changes, `plan_age` counts the steps that it has served. `error`: what one of the parts
    raised.
    `active [R]`: rows that have not ended since the last sync, nor filled their blocks.
    `aux_tokens`: what each auxiliary model has computed in this step, row by row.
    """

    parts: Parts
    rows: Rows
    part_params: tuple[SimpleNamespace, ...]
    constants: tuple[dict[str, Tensor], ...]
    sampler: Sampler | None
    isolated: bool = False
    planned: Planned | None = None
    plan_age: int = 0
    error: Exception | None = None
    aux_tokens: dict[str, list[int]] = field(default_factory=dict)
    needs: frozenset[str] = field(init=False)
    eligibility_filter: EligibilityFilter | None = field(init=False)
    active: Tensor = field(init=False)
    parts_with_params: Mapping[str, tuple[tuple[Any, SimpleNamespace], ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.needs, self.eligibility_filter = self.parts.needs, self.parts.eligibility_filter
        self.parts_with_params = self._paired()
        self.active = torch.ones(self.rows.count, dtype=torch.bool, device=self.rows.device)

    @property
    def current(self) -> Planned:
        """The plan in force, with what belongs to it."""
        assert self.planned is not None, "a group is planned before it steps"
        return self.planned

    @property
    def syncs_every_step(self) -> bool:
        """True if the host must synchronise after each step.

        It must when a block opens or is stored, when the block scheduler watches every step's
        progress, and when an auxiliary model is asked.
        """
        return self.current.replans_next or self.parts.blocks.multi_block or bool(self.parts.aux)

    @property
    def steps_left(self) -> int | None:
        """The number of steps that the plan may still serve; None: any number."""
        valid_steps = self.current.plan.valid_steps
        return valid_steps if valid_steps is None else valid_steps - self.plan_age

    @property
    def signature(self) -> tuple[Any, ...]:
        """Groups of equal signature can be one."""
        return self.parts.signature, self.sampler is None, id(self) if self.isolated else None

    def _paired(self) -> dict[str, tuple[tuple[Any, SimpleNamespace], ...]]:
        pairs, start = {}, 0
        for kind in Parts.__slots__:
            value = getattr(self.parts, kind)
            parts = value if isinstance(value, tuple) else (value,)
            part_params = [
                SimpleNamespace(**vars(params), **self.constants[start + i])
                for i, params in enumerate(self.part_params[start : start + len(parts)])
            ]
            pairs[kind] = tuple(zip(parts, part_params, strict=True))
            start += len(parts)
        return pairs

    def params(self, kind: str) -> SimpleNamespace:
        """The stacked numbers of the only part of its kind."""
        ((_, params),) = self.parts_with_params[kind]
        return params

    def host_params(self, kind: str) -> SimpleNamespace:
        """The numbers alone, on the CPU."""
        constants = self.constants[self.parts.all().index(getattr(self.parts, kind))]
        return SimpleNamespace(
            **{n: value.cpu() for n, value in vars(self.params(kind)).items() if n not in constants}
        )

    def undo(self, before: Rows, error: Exception) -> None:
        """A part has failed: go back to the blocks of `before`; pages that were copied stay."""
        pages = self.rows.host.pages
        self.rows, self.error = replace(before, host=replace(before.host, pages=pages)), error

    def replan(self, rows: Rows) -> None:
        """Go on with `rows`, whose blocks have changed."""
        self.rows, self.planned, self.plan_age = rows, None, 0

    def select(self, index: Tensor) -> RowGroup:
        """The rows `index [r]`, without a plan."""
        at = index.to(self.rows.device)
        return RowGroup(
            self.parts,
            self.rows.select(index),
            tuple(select_params(k, at) for k in self.part_params),
            self.constants,
            None if self.sampler is None else self.sampler.select(at),
            self.isolated,
        )

    def to(self, device: torch.device) -> RowGroup:
        """The same rows on `device`, without a plan."""
        if self.rows.device == device:
            return self
        part_params = [
            {n: v.to(device) for n, v in vars(params).items()} for params in self.part_params
        ]
        return RowGroup(
            self.parts,
            self.rows.to(device),
            tuple(SimpleNamespace(**params) for params in part_params),
            tuple({n: v.to(device) for n, v in table.items()} for table in self.constants),
            None if self.sampler is None else self.sampler.to(device),
            self.isolated,
        )

    @staticmethod
    def cat(groups: Sequence[RowGroup]) -> RowGroup:
        """Stack groups of equal signature, without a plan; one alone is given back as it is."""
        if len(groups) == 1:
            return groups[0]
        samplers = [c.sampler for c in groups if c.sampler is not None]
        return RowGroup(
            groups[0].parts,
            Rows.cat([c.rows for c in groups]),
            tuple(cat_params(k) for k in zip(*(c.part_params for c in groups), strict=True)),
            groups[0].constants,
            Sampler.cat(samplers) if samplers else None,
        )
