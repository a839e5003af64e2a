"""Rewards: functions of the user's, given in Python alone, that judge a draft.

A draft is the canvases of all rows of a call, every position that the step may fill holding a
token. What a reward raises, or answers wrongly, ends the row that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlm.errors import (
    Culprit,
    DlmError,
    InvalidRequest,
    RuleError,
    charge,
    culprit_of,
    is_foreign,
    shown,
)


class HardDraft(NamedTuple):
    """A draft whose candidate tokens a reward weighs.

    canvas: ids of the whole rows, `[R, L]`; positions that this step cannot fill hold MASK
    prompt, length: positions of each row's prompt and canvas, `[R]`
    pos: the window's positions, `[R, W]`
    weighed: those whose bonus counts, `[R, W]` bool
    candidates: ids for each of them, `[R, W, K]`; the first one stands in `canvas`
    """

    canvas: Tensor
    prompt: Tensor
    length: Tensor
    pos: Tensor
    weighed: Tensor
    candidates: Tensor


class SoftDraft(NamedTuple):
    """A draft with gradients: M of its positions are distributions over the vocabulary.

    canvas: ids of the whole rows, `[R, L]`; positions that this step cannot fill hold MASK
    prompt, length: positions of each row's prompt and canvas, `[R]`
    row, pos: of the M soft positions, `[M]`
    probs: of the soft positions, `[M, V]`; gradients flow through it. With a straight-through
        estimate each is one-hot at the id in `canvas`.
    """

    canvas: Tensor
    prompt: Tensor
    length: Tensor
    row: Tensor
    pos: Tensor
    probs: Tensor

    def embeddings(self, table: Tensor) -> Tensor:
        """`[R, L, D]`: the rows in the embedding table `[V, D]`, soft positions as expectations."""
        soft = self.probs.to(table.dtype) @ table
        return table[self.canvas].index_put((self.row, self.pos), soft)

    def one_hot(self) -> Tensor:
        """`[R, L, V]`: the rows over the vocabulary; of the size of all positions."""
        shape = (*self.canvas.shape, self.probs.shape[1])
        hard = self.probs.new_zeros(shape).scatter_(2, self.canvas[..., None], 1.0)
        return hard.index_put((self.row, self.pos), self.probs)


def called(reward: Callable[[Any], Any], draft: Any) -> Any:
    """The answer of a reward; what it raises is marked as its fault."""
    try:
        return reward(draft)
    except Exception as error:
        foreign = is_foreign(reward) and not isinstance(error, DlmError)
        if foreign and culprit_of(error) is None:
            charge(error, _culprit(reward))
        raise


def check_answer(reward: Any, answer: Any, shape: torch.Size, what: str) -> None:
    """Raise `RuleError` unless the answer is a tensor of real numbers of the shape."""
    if isinstance(answer, Tensor) and answer.shape == shape and answer.is_floating_point():
        return
    got = f"{answer.dtype} {list(answer.shape)}" if isinstance(answer, Tensor) else shown(answer)
    raise wrong(reward, f"must return {what}, a float tensor {list(shape)}, got {got}")


def wrong(reward: Any, message: str) -> RuleError:
    """The error for what a reward has answered."""
    return RuleError(_culprit(reward), message)


def _culprit(reward: Any) -> Culprit:
    """The reward as the one at fault; its line is where it begins."""
    name = getattr(reward, "__qualname__", type(reward).__qualname__)
    code = getattr(reward, "__code__", getattr(type(reward).__call__, "__code__", None))
    line = "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
    return Culprit("reward", name, line)


def require_reward(reward: Any) -> None:
    """Raise `InvalidRequest` unless it can be called; a class would make an object."""
    if not callable(reward) or isinstance(reward, type):
        raise InvalidRequest("edit", f"`reward` must be a function, got {shown(reward)}")


def require_count(name: str, value: Any) -> None:
    """Raise `InvalidRequest` unless the argument `name` is a whole number of 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidRequest("edit", f"`{name}` must be an integer of 1 or more, got {value!r}")


def require_number(name: str, value: Any, least: float = -torch.inf) -> None:
    """Raise `InvalidRequest` unless the argument `name` is finite, and `least` or more."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value < torch.inf or value == -torch.inf:
        rule = "a finite number" if least == -torch.inf else f"a finite number >= {least:g}"
        raise InvalidRequest("edit", f"`{name}` must be {rule}, got {value!r}")
