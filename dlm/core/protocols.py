"""The bases of the engine's parts.

A part is a frozen dataclass of plain values that inherits the base of its kind. It states its
method and the traits that differ from the defaults, each as a class attribute, a field or a
property; methods are pure and batched. `bind(info)` returns the part with everything the model
decides filled in (ids, trained lengths); it is called once, at admission. Numbers of rows that
share a call arrive stacked in `view.params.<field>` `[R, 1]`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from dlm.core.blocks import BlockTable
from dlm.core.info import ModelInfo
from dlm.core.packed import Packed
from dlm.core.plan import ForwardPlan, SharedPrefix
from dlm.core.proposal import Fill, Progress, Proposal, Stop
from dlm.core.rows import Rows, ScratchSpec
from dlm.core.view import StepView

if TYPE_CHECKING:
    from dlm.core.parts import Parts


def bound(default: Any) -> Any:
    """A field that `bind` fills in from the model; users neither give it nor see it."""
    return field(default=default, repr=False, kw_only=True, metadata={"bound": True})


class Model(Protocol):
    """ids -> logits."""

    def __call__(self, packed: Packed, kv: Any) -> Tensor:
        """`logits [N, V]` in float32."""


class Part:
    """A part of any kind.

    tier: how well it is proved at its best, `T1` to `T3`
    """

    __slots__ = ()

    tier: ClassVar[str] = "own rule"

    @property
    def tier_as_set(self) -> str:
        """The tier with its arguments."""
        return self.tier

    @property
    def needs(self) -> frozenset[str]:
        """Statistics it reads beyond `token` and `confidence`, and auxiliary models by name."""
        return frozenset()

    @property
    def scratch(self) -> tuple[ScratchSpec, ...]:
        """The tensors that it keeps between steps."""
        return ()

    def bind(self, info: ModelInfo) -> Self:
        """Fill in what the model decides; by default nothing.

        Raises `InvalidRequest` when the part cannot work on the model.
        """
        return self


class BlockScheduler(Part):
    """A block scheduler: opens blocks, sets their ends, and closes them.

    multi_block: the progress inside a block matters to it; else it is asked when one is full
    restricts: `restrict` offers the unmasker only some of a block's open positions in each step
    """

    __slots__ = ()

    multi_block: bool = False
    restricts: bool = False

    def block_sizes(self, still_open: Sequence[bool]) -> list[int] | None:
        """The open positions (`still_open`) of each block of a canvas; None: not known."""
        return None

    def num_blocks(self, tokens: int) -> int | None:
        """The blocks that `tokens` open positions make, where that is known beforehand."""
        return None

    def least_steps(self, tokens: int) -> int:
        """The steps that `tokens` open positions take at least, whatever the unmasker commits."""
        return self.num_blocks(tokens) or 1

    @abstractmethod
    def max_end(self, rows: Rows, params: Any) -> Tensor:
        """`[R]`: how far a block that opens next may extend; `params` as in a view. On the CPU."""

    def block_end(self, view: StepView) -> Tensor:
        """`[R]`: the end of the block that this step opens; by default the one that was planned."""
        return view.blocks.front

    @abstractmethod
    def advance(self, table: BlockTable, progress: Progress, params: Any) -> BlockTable:
        """Append, promote and close blocks; tables and `params` on the CPU."""

    def restrict(self, view: StepView) -> Tensor:
        """`[R, W]`: the eligible positions that a step may commit, at least one where any is."""
        return view.eligible


class Scheduled(Part):
    """A part that may follow a schedule: an unmasker or an editor.

    clock: a schedule bounds its steps, so that a step may change nothing
    steps: of the schedule, for the whole answer (None: as many as there are positions)
    """

    __slots__ = ()

    clock: bool = False
    steps: int | None = None

    @property
    def one_block(self) -> bool:
        """True if it counts down the clock of one block, so that no pipeline suits it."""
        return False

    def steps_for(self, masks: int, total: int) -> int | None:
        """Steps of a block of `masks` open positions, of `total` in the answer; None: not known."""
        return None

    def extend(self, plan: ForwardPlan, rows: Rows) -> ForwardPlan:
        """The plan with shadow tokens (`Segment.extra`): those that are copies of the canvas give
        `view.branches`, others `view.stats.prob_current`.
        """
        return plan


class Unmasker(Scheduled):
    """An unmasker: chooses the positions that a step commits."""

    __slots__ = ()

    @property
    def canvases(self) -> int:
        """Canvases of a row that a forward computes at most: its own, and copies of it."""
        return 1

    def conflict(self, parts: Parts, temperature: float) -> str | None:
        """Why it cannot work beside the other parts of a row; None when it can."""
        return None

    def asks(self, view: StepView) -> Tensor:
        """`[R]`: the rows whose drafted block the model reads from left to right before `propose`;
        what it says is branch 1 of the view.
        """
        return torch.zeros_like(view.row.step, dtype=torch.bool)

    @abstractmethod
    def propose(self, view: StepView) -> Proposal:
        """Choose among `view.eligible`; without a `clock` one position is committed at least."""


class Editor(Scheduled):
    """An editor: revises committed positions.

    post_steps: steps for which it may hold each filled block open, beyond its schedule
    """

    __slots__ = ()

    post_steps: int = 0

    @property
    def holds(self) -> bool:
        """True if it may hold a filled block open, whether in its schedule or after it."""
        return self.post_steps > 0

    @property
    @abstractmethod
    def scope(self) -> str:
        """`block` (it revises live blocks alone) or `row` (all that was generated)."""

    def refuses(self, unmask: Unmasker) -> str | None:
        """Why it cannot revise what this unmasker commits; None when it can."""
        return None

    @abstractmethod
    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        """Revise committed positions, or parts of the proposal."""


class StopRule(Part):
    """A stop rule: ends a row before its last block is clean.

    reason: the finish reason it stands for
    """

    __slots__ = ()

    reason: str = "stop"

    @property
    def waits_for_clean_block(self) -> bool:
        """True if it ends a row at clean blocks only, when editors have done their work."""
        return False

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Ids at which the answer's text ends, the id itself left out."""
        return ()

    @abstractmethod
    def __call__(self, rows: Rows, view: StepView) -> Stop:
        """Read the view after the proposal was applied: `ids` and `kind` are the new ones."""


class EarlyCommit(Part):
    """An early commit: fills what is open once the model is sure; users give it in `stop`.

    reason: the finish reason of a row that it fills
    """

    __slots__ = ()

    reason: str = "early"

    @abstractmethod
    def fill(self, view: StepView) -> Fill:
        """Read the view with the step's proposal in it: `kind` is the new one."""


class Budget(Part):
    """A bound of a row's cost, which the host checks after every step.

    reason: the finish reason it stands for
    """

    __slots__ = ()

    reason: str = "budget"

    @property
    def most_forwards(self) -> int | None:
        """Forwards after which it ends a row; None where it bounds something else."""
        return None

    @abstractmethod
    def spent(self, nfe: int, seconds: float) -> bool:
        """True if the row ends: its forwards so far, and its wall time since admission."""


class CacheManager(Part):
    """A cache policy: plans the positions that are computed and the keys that are reused.

    exact: results equal those without a cache
    at_opening: keys that it keeps are renewed where a block opens, and there alone
    on_edit: `refuse` editors that reach before the block, or `requery` what they change
    stores: a clean block needs one more forward that stores its final keys
    leaves_filled: steps compute no filled positions of a block
    computes: the positions that each forward computes, in words
    """

    __slots__ = ()

    exact: bool = False
    at_opening: bool = False
    on_edit: str = "refuse"
    stores: bool = False
    leaves_filled: bool = False
    computes: str = "what its cache plans"

    @property
    def stale(self) -> str:
        """The reused keys that may be out of date, in words (read where it is not `exact`)."""
        return "its author does not say which keys may be stale"

    @property
    def steady(self) -> bool:
        """True if the number of steps that fill a block changes nothing about what they compute."""
        return False

    @property
    def shows_block(self) -> bool:
        """True if a step predicts all of a block, not a part of it."""
        return True

    @property
    def shared_prefix(self) -> SharedPrefix | None:
        """The keys that requests that begin alike can share; None: none."""
        return None

    @abstractmethod
    def plan(self, rows: Rows) -> ForwardPlan:
        """The next forward."""


def missing_members(part: Part) -> list[str]:
    """The methods and traits that a part's base leaves to it and that it has not."""
    cls = type(part)
    return [n for n in dir(cls) if getattr(getattr(cls, n), "__isabstractmethod__", False)]
