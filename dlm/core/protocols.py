"""The protocols of the engine's parts.

A part is a frozen dataclass of plain values with one pure, batched method. `bind(info)` returns the
part with everything the model decides filled in (ids, trained lengths); it is called once, at
admission. Numbers of rows that share a call arrive stacked in `view.params.<field>` `[R, 1]`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import field
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from torch import Tensor

from dlm.core.blocks import BlockTable
from dlm.core.info import ModelInfo
from dlm.core.packed import Packed
from dlm.core.plan import Flags, ForwardPlan, Ints
from dlm.core.rows import Rows, ScratchSpec
from dlm.core.view import Frame, Progress, Proposal, StepView, Stop


def bound(default: Any) -> Any:
    """A field that `bind` fills in from the model; users neither give it nor see it."""
    return field(default=default, repr=False, kw_only=True, metadata={"bound": True})


class Model(Protocol):
    """ids -> logits."""

    def __call__(self, packed: Packed, kv: Any) -> Tensor:
        """`logits [N, V]` in float32."""
        ...


@runtime_checkable
class Part(Protocol):
    """The base of all parts: a class that inherits it, or the base of its kind, states only the
    traits that differ from the defaults. A class with the same members is a part as well.
    """

    __slots__ = ()

    def bind(self, info: ModelInfo) -> Self:
        """Fill in what the model decides; by default nothing.

        Raises `InvalidRequest` when the part cannot work on the model.
        """
        return self


@runtime_checkable
class Guide(Part, Protocol):
    """An operation on the clean logits."""

    @property
    def arms(self) -> int:
        """Model inputs it needs for each row."""
        ...

    def __call__(self, logits: Tensor, frame: Frame, params: Any) -> Tensor:
        """`[arms, N, V]` -> `[1, N, V]` or `[arms, N, V]`.

        N counts the logits of shadow tokens, too, which come last; `frame.window.row` knows all.
        """
        ...


@runtime_checkable
class ArmedGuide(Guide, Protocol):
    """A guide that reads several model inputs of each row; arm 0 is the canvas itself."""

    def masked_for_arm(self, arm: int, q_pos: Ints, prompt: int) -> Flags:
        """`[q]` bool: which of the positions `q_pos` the arm sees as MASK."""
        ...


@runtime_checkable
class BlockScheduler(Part, Protocol):
    """A block scheduler: opens blocks, sets their ends, and closes them."""

    @property
    def multi_block(self) -> bool:
        """True if the progress inside a block matters to it; else it is asked when one is full."""
        ...

    def num_blocks(self, tokens: int) -> int | None:
        """The number of blocks that `tokens` positions make, where that is known beforehand."""
        ...

    def max_end(self, rows: Rows, params: Any) -> Tensor:
        """`[R]` on the CPU: how far a block that opens next may extend.

        `params` holds the part's numbers, as in a view.
        """
        ...

    def block_end(self, view: StepView) -> Tensor:
        """`[R]`: the end of the block that this step opens, read from its logits."""
        ...

    def advance(self, table: BlockTable, progress: Progress, params: Any) -> BlockTable:
        """Append, promote and close blocks; tables and `params` on the CPU."""
        ...


@runtime_checkable
class EligibilityFilter(BlockScheduler, Protocol):
    """A scheduler that offers the unmasker only some of a block's open positions in each step."""

    @property
    def restricts(self) -> bool:
        """True if it does, with its numbers."""
        ...

    def restrict(self, view: StepView) -> Tensor:
        """`[R, W]`: the eligible positions that a step may commit, at least one where any is."""
        ...


@runtime_checkable
class Unmasker(Part, Protocol):
    """An unmasker: proposes commits. With `clock` it follows a schedule and may commit nothing.

    It may have, as an editor may: `one_block`: it counts down the clock of one block, so that no
    pipeline suits it · `by_chance`: its steps are not known beforehand · `tier`, and `tier_as_set`
    where it depends on the numbers: how well it is proved.
    """

    __slots__ = ()

    @property
    def needs(self) -> frozenset[str]:
        """Statistics it reads beyond `token` and `confidence`, and auxiliary models by name."""
        return frozenset()

    @property
    def clock(self) -> bool:
        """True if a schedule bounds its steps."""
        return False

    @abstractmethod
    def propose(self, view: StepView) -> Proposal:
        """Choose among `view.eligible`."""
        ...


@runtime_checkable
class Editor(Part, Protocol):
    """An editor: revises commits of its `scope`, `block` (live blocks) or `row` (all generated).

    One that holds filled blocks open has `post_steps`: for so many steps each at the most.
    """

    __slots__ = ()

    @property
    def needs(self) -> frozenset[str]:
        """Statistics it reads beyond `token` and `confidence`, and auxiliary models by name."""
        return frozenset()

    @property
    def scope(self) -> str:
        """`block` or `row`."""
        ...

    def refuses(self, unmask: Unmasker) -> str | None:
        """Why it cannot revise what this unmasker commits; None when it can."""
        return None

    @abstractmethod
    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        """Revise committed positions, or parts of the proposal."""
        ...


@runtime_checkable
class Extender(Editor, Protocol):
    """An editor that looks through shadow tokens: `view.stats.prob_current` holds their
    probabilities."""

    def extend(self, plan: ForwardPlan, rows: Rows) -> ForwardPlan:
        """The plan with shadow tokens (`Segment.extra`) for positions that it predicts."""
        ...


@runtime_checkable
class StopRule(Part, Protocol):
    """A stop rule: ends a row before its last block is clean."""

    __slots__ = ()

    @property
    def reason(self) -> str:
        """The finish reason it stands for."""
        ...

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
        ...


@runtime_checkable
class EarlyCommit(StopRule, Protocol):
    """A stop rule that may fill what is open (`Stop.fill`). It is asked before the others, which
    then see what it has filled.
    """

    __slots__ = ()

    @property
    def fills(self) -> bool:
        """True."""
        return True


@runtime_checkable
class Budget(Part, Protocol):
    """A bound of a row's cost, which the host checks after every step."""

    __slots__ = ()

    @property
    def reason(self) -> str:
        """The finish reason it stands for."""
        ...

    @abstractmethod
    def spent(self, nfe: int, seconds: float) -> bool:
        """True if the row ends: its forwards so far, and its wall time since admission."""
        ...


class SharedPrefix(NamedTuple):
    """The keys that requests that begin alike can share.

    name: cache namespace; the same ids under two names have different keys
    unit: a key depends only on ids up to the end of its unit of this many positions (None: on the
        whole prompt)
    prompt_only: positions after the prompt are not shared
    """

    name: str
    unit: int | None
    prompt_only: bool = False


@runtime_checkable
class CacheManager(Part, Protocol):
    """A cache policy: plans the positions that are computed and the keys that are reused.

    For `explain` it may have: `computes` and `stale` in words · `shows_block`: whether a step
    predicts all of a block. With `leaves_filled` steps compute no filled positions of a block.
    """

    @property
    def exact(self) -> bool:
        """True if results equal those without a cache."""
        ...

    @property
    def at_opening(self) -> bool:
        """True if keys that it keeps are renewed where a block opens, and there alone."""
        ...

    @property
    def on_edit(self) -> str:
        """`refuse` editors that reach before the block, or `requery` what they change."""
        ...

    @property
    def stores(self) -> bool:
        """True if a clean block needs one more forward that stores its final keys."""
        ...

    @property
    def shared_prefix(self) -> SharedPrefix | None:
        """The keys that requests that begin alike can share; None: none."""
        ...

    def plan(self, rows: Rows) -> ForwardPlan:
        """The next forward."""
        ...


@runtime_checkable
class Scratched(Protocol):
    """A part that keeps tensors between steps."""

    @property
    def scratch(self) -> tuple[ScratchSpec, ...]:
        """Their declarations."""
        ...
