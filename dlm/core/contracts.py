"""Checks of the answers of parts: each returns the answer, or raises `RuleError`.

Tensors of another shape would broadcast, and ids out of range would end the process on a GPU. The
answers of dlm's own parts are not checked, so that a step with them waits for nothing. A check is
called as `check(kind, part, method, answer, *arguments of the method)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from dlm.core import (
    BlockTable,
    Entries,
    Fill,
    ForwardPlan,
    Frame,
    Guided,
    Kind,
    Proposal,
    Rows,
    StepView,
    Stop,
)
from dlm.errors import blaming, is_foreign, rule_error, shown

MASKS: Final = ("commit", "remask", "replace", "renoise")
WHOLE: Final = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
"""Types of ids and positions."""


def guarded(
    kind: str, part: Any, method: str, check: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """A method of a part as the engine calls it.

    Of a user's part: what it raises is its fault, and its answer is checked.
    """
    call: Callable[..., Any] = getattr(part, method)
    if not is_foreign(part):
        return call

    def blamed(*arguments: Any) -> Any:
        with blaming(kind, part):
            answer = call(*arguments)
        return answer if check is None else check(kind, part, method, answer, *arguments)

    return blamed


def checked_proposal(
    kind: str, part: Any, method: str, answer: Any, view: StepView, before: Proposal | None = None
) -> Proposal:
    """A `Proposal` whose masks are `[R, W]` bool and whose tokens may be written.

    An unmasker commits eligible positions alone. Raises `RuleError` naming the field.
    """
    proposal: Proposal = answer
    if not isinstance(answer, Proposal):
        raise rule_error(kind, part, method, f"must return a Proposal, got {_type(answer)}")
    for name in MASKS:
        value = getattr(answer, name)
        if value is not None or name == "commit":
            _require(kind, part, method, name, value, view.eligible, (torch.bool,))
    if answer.token is not None:
        _require(kind, part, method, "token", answer.token, view.token, WHOLE)
        proposal = answer._replace(token=_checked_ids(kind, part, method, view, answer))
    if answer.branch is not None:
        _require(kind, part, method, "branch", answer.branch, view.token, WHOLE[:1])
    if answer.hold is not None:
        _require(kind, part, method, "hold", answer.hold, view.row.step, (torch.bool,))
    _require_scratch(kind, part, method, answer.scratch, view)
    if before is None:
        proposal = proposal._replace(commit=proposal.commit & view.eligible)
    return proposal


def checked_logits(
    kind: str, part: Any, method: str, answer: Any, before: Tensor, frame: Frame, *_: Any
) -> Tensor | Guided:
    """Logits `[arms, N, V]` or `[1, N, V]`, as they came, with scratch or without; every row has a
    largest, finite one.
    """
    if isinstance(answer, Guided):
        _require_scratch(kind, part, method, answer.scratch, frame)
        _require_logits(kind, part, method, answer.logits, before)
    else:
        _require_logits(kind, part, method, answer, before)
    whole: Tensor | Guided = answer
    return whole


def _require_logits(kind: str, part: Any, method: str, answer: Any, before: Tensor) -> None:
    """Raise `RuleError` unless `answer` may take the place of the logits `before`."""
    shapes = (tuple(before.shape), (1, *before.shape[1:]))
    if not isinstance(answer, Tensor) or answer.shape not in shapes or answer.is_complex():
        wanted = " or ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
        message = f"must return logits {wanted}, got {_described(answer)}"
        raise rule_error(kind, part, method, message)
    if answer.dtype != before.dtype or answer.device != before.device:
        message = f"must return {_kind(before)}, got {_described(answer)}"
        raise rule_error(kind, part, method, message)
    if _is_lost(answer) and not _is_lost(before):
        message = "must leave finite logits, and has made some NaN, infinite or all impossible"
        raise rule_error(kind, part, method, message)


def checked_ends(kind: str, part: Any, method: str, answer: Any, view: StepView) -> Tensor:
    """`[R]`: ends of the blocks that open, after their beginnings and within the canvas."""
    _require(kind, part, method, "the ends", answer, view.row.step, WHOLE)
    opens = view.blocks.phase == 0
    ends: Tensor = answer.long()
    start = view.blocks.start
    wrong = opens & ((ends[:, None] <= start) | (ends > view.row.length)[:, None])
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        message = (
            f"must end the block behind its beginning {int(start[row, column])} and within the "
            f"canvas of {int(view.row.length[row])}, got {int(ends[row])}"
        )
        raise rule_error(kind, part, method, message)
    return ends


def checked_max_end(part: Any, answer: Any, like: Tensor) -> Tensor:
    """`[R]` on the CPU: the largest end of the next block."""
    if is_foreign(part):
        _require("blocks", part, "max_end", "the reach", answer, like, WHOLE)
    max_end: Tensor = answer
    return max_end


def checked_table(part: Any, answer: Any, before: BlockTable, length: Tensor) -> BlockTable:
    """A block table `[R, 8]` on the CPU whose live blocks lie within the canvas."""
    table: BlockTable = answer
    if not is_foreign(part):
        return table
    if not isinstance(answer, BlockTable):
        raise rule_error(
            "blocks", part, "advance", f"must return a BlockTable, got {_type(answer)}"
        )
    for name in BlockTable.__slots__:
        _require("blocks", part, "advance", name, getattr(answer, name), before.start, WHOLE[:1])
    known = (answer.phase >= 0) & (answer.phase <= 3)
    outside = (answer.start < 0) | (answer.end <= answer.start) | (answer.end > length[:, None])
    wrong = ~known | (answer.live & outside)
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        bounds = (int(t[row, column]) for t in (answer.start, answer.end, answer.phase))
        message = "must return blocks within the canvas of {}, got {}:{} in phase {}"
        raise rule_error("blocks", part, "advance", message.format(int(length[row]), *bounds))
    return table


def checked_restriction(kind: str, part: Any, method: str, answer: Any, view: StepView) -> Tensor:
    """`[R, W]` bool: the positions that a step may commit."""
    _require(kind, part, method, "the mask", answer, view.eligible, (torch.bool,))
    now: Tensor = answer
    return now


def checked_asks(kind: str, part: Any, method: str, answer: Any, view: StepView) -> Tensor:
    """`[R]` bool: the rows that ask."""
    _require(kind, part, method, "the rows", answer, view.row.step, (torch.bool,))
    rows: Tensor = answer
    return rows


def checked_fill(kind: str, part: Any, method: str, answer: Any, view: StepView) -> Fill:
    """A `Fill` whose mask is `[R]` bool."""
    if not isinstance(answer, Fill):
        raise rule_error(kind, part, method, f"must return a Fill, got {_type(answer)}")
    _require(kind, part, method, "rows", answer.rows, view.row.step, (torch.bool,))
    _require_scratch(kind, part, method, answer.scratch, view)
    return answer


def checked_stop(
    kind: str, part: Any, method: str, answer: Any, rows: Rows, view: StepView
) -> Stop:
    """A `Stop` whose mask is `[R]` bool."""
    if not isinstance(answer, Stop):
        raise rule_error(kind, part, method, f"must return a Stop, got {_type(answer)}")
    _require(kind, part, method, "done", answer.done, view.row.step, (torch.bool,))
    _require_scratch(kind, part, method, answer.scratch, view)
    return answer


def checked_plan(kind: str, part: Any, method: str, answer: Any, *arguments: Any) -> ForwardPlan:
    """A plan for all rows, which are the last argument."""
    plan: ForwardPlan = answer
    rows = arguments[-1].count
    if not isinstance(answer, ForwardPlan):
        raise rule_error(kind, part, method, f"must return a ForwardPlan, got {_type(answer)}")
    if len(answer.purposes) != rows or answer.pages.shape[0] != rows:
        planned = f"{len(answer.purposes)} purposes and {answer.pages.shape[0]} page tables"
        raise rule_error(kind, part, method, f"must plan for {rows} rows, got {planned}")
    if not answer.segments or any(not 0 <= s.row < rows for s in answer.segments):
        named = sorted({s.row for s in answer.segments})
        message = f"must plan segments of the rows 0 to {rows - 1}, got {shown(named)}"
        raise rule_error(kind, part, method, message)
    return plan


def checked_spent(part: Any, answer: Any) -> bool:
    """True or False."""
    if is_foreign(part) and not isinstance(answer, bool):
        raise rule_error("stop", part, "spent", f"must return True or False, got {shown(answer)}")
    return bool(answer)


def _require(
    kind: str,
    part: Any,
    method: str,
    name: str,
    value: Any,
    like: Tensor,
    dtypes: Sequence[torch.dtype],
) -> None:
    """Raise `RuleError` unless `value` is a tensor of one of `dtypes`, of the shape and on the
    device of `like`.
    """
    if (
        isinstance(value, Tensor)
        and value.layout == like.layout
        and value.shape == like.shape
        and value.dtype in dtypes
        and value.device == like.device
    ):
        return
    wanted = f"{_short(dtypes[0])} {list(like.shape)} on {like.device}"
    raise rule_error(kind, part, method, f"must give `{name}` as {wanted}, got {_described(value)}")


def _checked_ids(kind: str, part: Any, method: str, view: StepView, proposal: Proposal) -> Tensor:
    """`[R, W]`: the proposal's tokens, which are ids of the vocabulary where they are written.

    Elsewhere they may be anything; the view's take the place of values that are no ids. MASK may be
    proposed: it is never written.
    """
    assert proposal.token is not None
    token, size = proposal.token.long(), view.logits.shape[1]
    writes = proposal.commit & (view.kind >= Kind.MASK)
    if proposal.replace is not None:
        writes = writes | (proposal.replace & (view.kind == Kind.COMMITTED))
    outside = (token < 0) | (token >= size)
    wrong = writes & outside
    if bool(wrong.any()):
        message = f"must give `token` as ids from 0 to {size - 1}, got {int(token[wrong][0])}"
        raise rule_error(kind, part, method, message)
    return torch.where(outside, view.token, token)


def _require_scratch(
    kind: str, part: Any, method: str, scratch: Any, view: StepView | Frame
) -> None:
    """Raise `RuleError` unless `scratch` holds values of declared tensors, or entries of them."""
    if scratch is None:
        return
    if not isinstance(scratch, Mapping):
        message = f"must give `scratch` as a map from names to tensors, got {_type(scratch)}"
        raise rule_error(kind, part, method, message)
    for name, value in scratch.items():
        if name not in view.scratch:
            declared = ", ".join(map(repr, view.scratch)) or "none"
            message = f"must give declared `scratch` ({declared}), got {shown(name)}"
            raise rule_error(kind, part, method, message)
        like = view.scratch[name]
        entries = isinstance(value, Entries)
        shape = [len(value.at), *like.shape[2:]] if entries else list(like.shape)
        found = value.values if entries else value
        if not isinstance(found, Tensor) or list(found.shape) != shape:
            message = f"must give the scratch {name!r} as {shape}, got {_described(found)}"
            raise rule_error(kind, part, method, message)


def _is_lost(logits: Tensor) -> bool:
    """True if the largest logit of a row is not finite: NaN, infinite, or all impossible."""
    return logits.shape[1] > 0 and not bool(logits.amax(dim=-1).isfinite().all())


def _described(value: Any) -> str:
    """Type, shape and device of a tensor, or the type of another value."""
    return _kind(value) if isinstance(value, Tensor) else _type(value)


def _kind(tensor: Tensor) -> str:
    return f"{_short(tensor.dtype)} {list(tensor.shape)} on {tensor.device}"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _type(value: Any) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"
