"""Revising: the positions that editors of a block may touch, and how long they hold it open."""

from __future__ import annotations

from torch import Tensor

from dlm.core import Kind, StepView, Unmasker


def revisable(view: StepView) -> Tensor:
    """`[R, W]`: the committed positions of live blocks that have logits."""
    inside = view.pos >= view.in_block(view.blocks.start)
    return (view.kind == Kind.COMMITTED) & view.scored & inside


def refuse_schedule(unmask: Unmasker) -> str | None:
    """Why an editor cannot reopen positions beside an unmasker that counts down a schedule."""
    if not unmask.one_block:
        return None
    name = type(unmask).__name__
    return f"reopens more than {name} has scheduled: use a rule without a schedule, 'threshold'"


def filled_steps(view: StepView, before: Tensor) -> Tensor:
    """`[R]`: the steps that the block has been looked at with nothing open in it, this one
    included; `before [R]` is the number after the last step. Each block begins at 0.
    """
    begins = (view.eligible & (view.in_block(view.blocks.step) == 0)).any(dim=1)
    steps = before.masked_fill(begins, 0)
    return steps + ~view.eligible.any(dim=1)
