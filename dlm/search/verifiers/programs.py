"""Tests of the programs in answers: those that the prompt shows, and hidden ones for analysis."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, NamedTuple

from dlm.config.checks import require_number
from dlm.engine.generation import Generation
from dlm.errors import InvalidRequest, shown
from dlm.sandbox import Outcome, best_sandbox, check_function, check_program
from dlm.sandbox import Verdict as End
from dlm.sandbox.programs import extract
from dlm.sandbox.source import parsed
from dlm.search.names import called
from dlm.search.spans import Places, Span, merged
from dlm.search.verifier import Question, Verdict, Verifier, each, require_words
from dlm.search.verifiers.examples import Example, examples_of, failure, tests_of

CALLED: Final = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
LINE: Final = re.compile(r"\bline (\d{1,6})\b")
MEMORY_MB: Final = 1024
LONGEST: Final = 60.0
"""Seconds that one program may take."""
AT_ONCE: Final = 4
"""Programs that run at once."""


class Program(NamedTuple):
    """A program to test.

    source: the code that the prompt begins with, and that of the answer
    before: its lines before the answer's first one (None: the answer holds more than code)
    """

    source: str
    before: int | None


@dataclass(frozen=True, slots=True)
class PublicTests(Verifier):
    """`tests`: the tests that the prompt shows, of the program in an answer, in the sandbox: lines
    of an interpreter in docstrings, and `assert` statements.

    1 where all pass. Else the share of these that held: that the program runs, and each test up to
    the first one that fails, which the feedback tells. Spans: the line of a fault of syntax.

    seconds: for one program
    bare: prompts without tests are taken; a program that runs is then right
    unsafe: programs run even where nothing but `rlimit` works, which holds none that means harm
    """

    seconds: float = 5.0
    bare: bool = False
    unsafe: bool = False
    examples: tuple[Example, ...] = field(default=(), metadata={"bound": True})
    entry: str = field(default="", metadata={"bound": True})

    tier: ClassVar[str] = "T2"
    blocks: ClassVar[bool] = True
    runs_programs: ClassVar[bool] = True
    by_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_number("seconds", self.seconds, low=0.1, high=LONGEST)

    @property
    def workers(self) -> int:
        """Several, as each program has processes of its own."""
        return AT_ONCE

    @property
    def private(self) -> bool:
        """True where a program could do harm."""
        return self.unsafe

    @property
    def highest(self) -> float:
        """All tests pass."""
        return 1.0

    def bind(self, question: Question) -> Verifier:
        """See `Verifier`."""
        words = require_words(self, question)
        if not (self.unsafe or best_sandbox().isolates):
            rule = "runs programs, and nothing that holds them works here: install bubblewrap"
            raise InvalidRequest("verifier", f"{called(self)} {rule}, or give `unsafe`")
        examples = examples_of(words)
        if not (examples or self.bare):
            rule = "finds no `>>>` lines and no `assert` in the prompt"
            raise InvalidRequest("verifier", f"{called(self)} {rule}")
        return replace(self, examples=tuple(examples), entry=entry_of(words, examples))

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`; answers of one text are run once."""
        tests, known = tests_of(self.examples), dict[str, Outcome]()

        def judge(answer: Generation) -> Verdict:
            text, places = answer.text or "", Places(answer, question.engine.text)
            if not text.strip():
                return Verdict(0.0, "The answer is empty.", merged([places.rest(0)]))
            program = program_of(question.text or "", text, self.entry)
            if program.source not in known:
                known[program.source] = check_program(
                    program.source, tests, timeout_s=self.seconds, memory_mb=MEMORY_MB
                )
            return self._verdict(known[program.source], program, text, places)

        return each(answers, question, judge)

    def _verdict(self, outcome: Outcome, program: Program, text: str, places: Places) -> Verdict:
        """The verdict that the end of a program comes to."""
        if outcome.ok:
            return Verdict(1.0)
        if outcome.verdict == End.SYNTAX:
            words = outcome.detail.removeprefix("syntax: ").partition(" (<")[0]
            spans = merged(_faulty_line(outcome.detail, program, text, places))
            return Verdict(0.0, f"The code does not parse: {words}.", spans)
        failed = failure(outcome.detail) if outcome.verdict == End.ASSERTION else None
        if failed is None:
            reason = outcome.detail or "it did not come to its end"
            return Verdict(0.0, f"The code ended with {outcome.verdict}: {reason}.")
        held = min(failed[0], len(self.examples) - 1)
        return Verdict((1 + held) / (1 + len(self.examples)), failed[1])


@dataclass(frozen=True, slots=True)
class HiddenTests(Verifier):
    """`hidden_tests(tests, entry)`: an oracle: 1 if the program in an answer passes given tests.

    tests: pairs of an input and the value expected, or code with `assert` statements
    entry: name of the function that pairs test
    """

    tests: Any
    entry: str = ""

    tier: ClassVar[str] = "T2"
    oracle: ClassVar[bool] = True
    blocks: ClassVar[bool] = True
    runs_programs: ClassVar[bool] = True
    by_text: ClassVar[bool] = True
    trusted_only: ClassVar[bool] = True  # its tests are code of the user

    def __post_init__(self) -> None:
        if not isinstance(self.tests, str) and not self.entry.isidentifier():
            rule = "must name the function that `tests` are of"
            raise InvalidRequest("entry", f"{rule}, got {shown(self.entry)}")

    @property
    def highest(self) -> float:
        """All tests pass."""
        return 1.0

    def bind(self, question: Question) -> Verifier:
        """See `Verifier`."""
        require_words(self, question)
        return self

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""

        def judge(answer: Generation) -> Verdict:
            text = answer.text or ""
            if not text.strip():
                return Verdict(0.0)
            source = program_of(question.text or "", text, self.entry).source
            if isinstance(self.tests, str):
                return Verdict(float(check_program(source, self.tests).ok))
            return Verdict(float(check_function(source, self.entry, self.tests)))

        return each(answers, question, judge)


def program_of(prompt: str, answer: str, entry: str) -> Program:
    """The program that an answer gives: the body of the function that the prompt ends with, or the
    code found in it, after that of the prompt.
    """
    begun = prompt if _functions(prompt) else ""
    if begun and answer.lstrip("\n")[:1] in (" ", "\t"):
        return Program(begun + answer.rstrip() + "\n", begun.count("\n"))
    return Program(f"{begun}\n{extract(answer, entry or None).source}\n", None)


def entry_of(prompt: str, examples: Sequence[Example]) -> str:
    """The function that the tests of a prompt call; empty where there is none."""
    defined = _functions(prompt)
    called = [name for example in examples for name in CALLED.findall(example.source)]
    own = [name for name in called if name in defined or not hasattr(builtins, name)]
    return next(iter([*(name for name in own if name in defined), *own, *defined[-1:]]), "")


def _functions(prompt: str) -> list[str]:
    """The functions that a prompt of code defines; none where it is no code."""
    tree = parsed(prompt) or parsed(f"{prompt.rstrip()}\n    pass\n")
    return [] if tree is None else [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]


def _faulty_line(detail: str, program: Program, text: str, places: Places) -> list[Span]:
    """The line of an answer that a message about a program names."""
    found = LINE.findall(detail)
    if program.before is None or not found:
        return []
    lines = text.split("\n")
    number = min(max(int(found[-1]) - program.before, 1), len(lines))
    start = len("\n".join(lines[: number - 1])) + (number > 1)
    return [places.span(start, start + max(len(lines[number - 1]), 1))]
