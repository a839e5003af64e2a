"""Task rules: the prompt of a puzzle holds all that its rules need, so no right answer is known."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from dlm.engine.generation import Generation
from dlm.errors import InvalidRequest, shown
from dlm.search.names import called
from dlm.search.spans import Places, merged
from dlm.search.verifier import Question, Verdict, Verifier, each, require_words
from dlm.search.verifiers.countdown import broken_line
from dlm.search.verifiers.sudoku import Fault, faults_of, groups_that_hold

COUNTDOWN: Final = re.compile(
    r"Countdown: use (\d{1,6}(?: \d{1,6})+) to make (\d{1,6})\b", re.ASCII
)
SUDOKU: Final = re.compile(r"Sudoku:\n((?:\d+\n){3,}\d+)(?!\d)", re.ASCII)
TOLD: Final = 3
"""Faults of a grid that are told at once."""


class PuzzleRules(Verifier):
    """Rules of a puzzle: 1 for an answer that keeps all of them, else the share that it keeps.

    form: the puzzle in a prompt, in words
    """

    __slots__ = ()

    form: ClassVar[str]

    tier: ClassVar[str] = "T2"
    by_text: ClassVar[bool] = True

    @property
    def highest(self) -> float:
        """All rules are kept."""
        return 1.0

    @abstractmethod
    def read(self, words: str) -> Verifier | None:
        """The same with the numbers of the puzzle in a prompt; None if there is none."""

    def bind(self, question: Question) -> Verifier:
        """See `Verifier`."""
        words = require_words(self, question)
        found = self.read(words)
        if found is None:
            rule = f"{called(self)} needs a prompt with {self.form}, got {shown(words)}"
            raise InvalidRequest("verifier", rule)
        return found


@dataclass(frozen=True, slots=True)
class Countdown(PuzzleRules):
    """`countdown`: the rules of `Countdown: use 3 7 2 to make 19.`: one equation a line, each of
    them true and of numbers that are given or were arrived at, all used once, the last one the
    target.

    The score counts the lines from the first one on that hold, half of one whose value is wrong or
    missing, and the target. The span is that of the first fault, to the end of its line: of the
    last line all, where its numbers do not come to the target; of the whole answer where all lines
    hold and the target is missed.

    numbers, target: read from the prompt
    """

    form: ClassVar[str] = "'Countdown: use 3 7 2 to make 19.'"

    numbers: tuple[int, ...] = field(default=(), metadata={"bound": True})
    target: int = field(default=0, metadata={"bound": True})

    def read(self, words: str) -> Verifier | None:
        """See `PuzzleRules`."""
        found = COUNTDOWN.findall(words)
        if not found:
            return None
        numbers, target = found[-1]
        return replace(self, numbers=tuple(map(int, numbers.split())), target=int(target))

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""

        def judge(answer: Generation) -> Verdict:
            broken = broken_line(answer.text or "", self.numbers, self.target)
            if broken is None:
                return Verdict(1.0)
            places = Places(answer, question.engine.text)
            span = places.rest(broken.start) if broken.end is None else None
            spans = merged([span or places.span(broken.start, broken.end or 0)])
            return Verdict(broken.held / len(self.numbers), broken.words, spans)

        return each(answers, question, judge)


@dataclass(frozen=True, slots=True)
class Sudoku(PuzzleRules):
    """`sudoku`: the rules of `Sudoku:` and lines of digits, 0 for a hole, of 4 or 9 cells a side:
    the given cells stay, and each row, column and box holds every digit once.

    The score is the share of rows, columns and boxes that hold every digit. Spans are the cells
    that repeat a digit and were not given, and given ones that were changed.

    puzzle: its lines, read from the prompt
    """

    form: ClassVar[str] = "'Sudoku:' and then 4 or 9 lines of as many digits, 0 for a hole"

    puzzle: tuple[str, ...] = field(default=(), metadata={"bound": True})

    def read(self, words: str) -> Verifier | None:
        """See `PuzzleRules`."""
        found = [tuple(grid.split("\n")) for grid in SUDOKU.findall(words)]
        square = [g for g in found if len(g) in (4, 9) and {len(row) for row in g} == {len(g)}]
        return replace(self, puzzle=square[-1]) if square else None

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""

        def judge(answer: Generation) -> Verdict:
            text = answer.text or ""
            faults = faults_of(text, self.puzzle)
            if not faults:
                return Verdict(1.0)
            places = Places(answer, question.engine.text)
            words = " ".join(dict.fromkeys(fault.words for fault in faults[:TOLD]))
            spans = merged(_span(fault, places) for fault in faults)
            return Verdict(groups_that_hold(text, self.puzzle), words, spans)

        return each(answers, question, judge)


def _span(fault: Fault, places: Places) -> tuple[int, int]:
    return places.rest(fault.start) if fault.end is None else places.span(fault.start, fault.end)


@dataclass(frozen=True, slots=True)
class TaskRules(PuzzleRules):
    """`rules`: the rules of the puzzle that stands in the prompt, a Countdown or a Sudoku."""

    form: ClassVar[str] = f"{Countdown.form}, or {Sudoku.form}"

    def read(self, words: str) -> Verifier | None:
        """See `PuzzleRules`."""
        readings = (kind().read(words) for kind in (Countdown, Sudoku))
        return next((found for found in readings if found is not None), None)

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""
        bound: Any = self.bind(question)
        verdicts: Sequence[Verdict] = bound.score(answers, question)
        return verdicts
