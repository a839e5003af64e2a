"""Functions of a user as verifiers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import isnan
from typing import Any, ClassVar, Final

from dlm.engine.generation import Generation
from dlm.errors import InvalidRequest, shown
from dlm.search.verifier import FAILED, Question, Verdict, Verifier, require_tokenizer

SIDE_BY_SIDE: Final = 32
"""Answers that a coroutine function judges at once."""


@dataclass(frozen=True, slots=True)
class UserFunction(Verifier):
    """A function of the text of an answer: a score, or a pair of a score and words of feedback.

    It may be a coroutine function: several answers are then judged side by side, in event loops of
    their own. An answer for which it raises, or gives anything else, scores -inf, and is counted
    among the errors.

    function: takes a text
    """

    function: Callable[[str], Any]

    blocks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InvalidRequest("verifier", f"must be a function, got {shown(self.function)}")

    @property
    def workers(self) -> int:
        """Many for a coroutine function, which waits most of the time."""
        call = getattr(self.function, "__call__", None)  # noqa: B004  # that of an object
        waits = inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(call)
        return SIDE_BY_SIDE if waits else 1

    def bind(self, question: Question) -> Verifier:
        """See `Verifier`."""
        require_tokenizer(self, question)
        return self

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""
        results: dict[int, Any] = {}
        for number, answer in enumerate(answers):
            with question.spent.guarded():
                results[number] = self.function(answer.text or "")
        waiting = [number for number, value in results.items() if inspect.isawaitable(value)]
        if waiting:
            values = asyncio.run(_awaited([results[number] for number in waiting]))
            results |= zip(waiting, values, strict=True)
        verdicts = [FAILED] * len(answers)
        for number, value in results.items():
            with question.spent.guarded():
                verdicts[number] = verdict_of(value)
        return verdicts


async def _awaited(values: Sequence[Awaitable[Any]]) -> list[Any]:
    """Await values side by side; an exception takes the place of a value."""
    return await asyncio.gather(*values, return_exceptions=True)


def verdict_of(result: Any) -> Verdict:
    """The verdict that a function's result means. Raises `ValueError` for any other."""
    if isinstance(result, Verdict):
        return result
    score, words = result if isinstance(result, tuple) and len(result) == 2 else (result, "")
    if isinstance(score, str | bytes) or not hasattr(score, "__float__"):
        raise ValueError(f"must be a number, got {shown(score)}")
    if not isinstance(words, str):
        raise ValueError(f"must be words, got {shown(words)}")
    number = float(score)
    if isnan(number):
        raise ValueError("must be a number, got NaN")
    return Verdict(number, words)


def function_at(path: str) -> Any:
    """The function at "package.module:function"; None where there is none, or a class."""
    module, _, name = path.partition(":")
    if not name.isidentifier():
        return None
    try:
        found = getattr(import_module(module), name, None)
    except (Exception, SystemExit):  # told when the path is read as that of a class
        return None
    return None if isinstance(found, type) or not callable(found) else found
