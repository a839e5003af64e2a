"""Short Python functions in the format of HumanEval: signature and docstring in, body out.

A function applies one to eight operations to a list or a string and returns something of it. From
two operations on, the structure key is the sequence of operations alone: held-out items are
compositions that training has not shown, whatever their parameters or names. Training shows none of
more than five operations. The operations are in `code_ops`; a third of the docstrings show a
public test as doctest lines.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from dlm.evals.tasks.base import CLOSED, HELD_OUT, Example, Key
from dlm.evals.tasks.code_ops import LIST_ENDS, LIST_OPS, ONE_LINERS, STRING_ENDS, STRING_OPS, Op

FUNCTIONS: Final = (
    "f", "f", "g", "solve", "process", "transform", "compute", "run", "convert", "apply", "build",
)  # fmt: skip
LIST_NAMES: Final = ("xs", "xs", "nums", "arr", "values", "items", "lst", "numbers")
STRING_NAMES: Final = ("s", "s", "text", "word", "line")
LETTERS: Final = "abcdeiost"
LISTS: Final[tuple[tuple[int, ...], ...]] = (
    (3, 1, 2),
    (5, -3, 8, 8, 0, 2),
    (9, 4, 7, 1, 6, 10, 12),
    (-5, -2, 3, 15, 15, 6),
    (2, 7, 4, 11, 20, 18, 3, 5),
    (),
)
STRINGS: Final = (
    "hello world", "a big cold set", "  A man a plan ", "racecar", " Tea for two 22 ", ""
)  # fmt: skip
ONE_LINER_SHARE: Final = 0.08
STRING_SHARE: Final = 0.35
DOCTEST_SHARE: Final = 1 / 3
COUNTS: Final = (1, 2, 3, 4, 5, 6, 7, 8)
COUNT_WEIGHTS: Final = (0.12, 0.24, 0.22, 0.22, 0.20, 0.015, 0.015, 0.010)
MOST_TRAINED: Final = 5
PHRASES: Final = ("big red cat", "Hello you", "a b c", "Do it now", " code ", "abcdef", "seaside")


@dataclass(frozen=True, slots=True)
class Code:
    """Rungs: the number of operations before the return line (1 to 8), and closed one-liners."""

    name: str = "code"
    canvas: int = 160

    def make(self, rng: Random) -> Example:
        """Draw a composition of operations, or (train only) a common one-line function."""
        if rng.random() < ONE_LINER_SHARE:
            return self._one_liner(rng)
        example = self._composition(rng)
        while is_constant(example):
            example = self._composition(rng)
        return example

    def grade(self, example: Example, text: str) -> bool:
        """Run the function on the hidden inputs in a sandbox; all results must be right.

        Raises `SandboxError` if it cannot be run.
        """
        # The sandbox is imported by the one grader that needs it: generating stays light.
        from dlm.sandbox import check_function

        body = text.rstrip()
        if not body.strip():
            return False
        source = example.prompt + body + "\n"
        return check_function(source, example.meta["entry"], example.meta["tests"])

    def _composition(self, rng: Random) -> Example:
        is_list = rng.random() >= STRING_SHARE
        ops, ends = (LIST_OPS, LIST_ENDS) if is_list else (STRING_OPS, STRING_ENDS)
        variable = rng.choice(LIST_NAMES if is_list else STRING_NAMES)
        (count,) = rng.choices(COUNTS, weights=COUNT_WEIGHTS)
        picked = [*rng.sample(ops, count), rng.choice(ends)]
        phrases, lines, parameters = [], [], []
        for op in picked:
            values = parameters_of(op, rng)
            phrases.append(rng.choice(op.phrases).format(**values))
            lines.append("    " + op.code.format(v=variable, **values))
            parameters.append(tuple(values.values()))
        structure: tuple[Any, ...] = tuple(op.name for op in picked)
        if count == 1:
            structure += tuple(parameters)
        key: Key = (self.name, "list" if is_list else "string", structure)
        if count > MOST_TRAINED:
            key = (HELD_OUT, *key)
        return self._example(rng, f"{count}-op", key, variable, join(rng, phrases), lines)

    def _one_liner(self, rng: Random) -> Example:
        phrases, code = rng.choice(ONE_LINERS)
        variable = rng.choice(LIST_NAMES)
        key = (CLOSED, self.name, code)
        lines = ["    " + code.format(v=variable)]
        return self._example(rng, "closed", key, variable, rng.choice(phrases), lines)

    def _example(
        self,
        rng: Random,
        rung: str,
        key: Key,
        variable: str,
        docstring: str,
        lines: Sequence[str],
    ) -> Example:
        entry = rng.choice(FUNCTIONS)
        head, body = f"def {entry}({variable}):\n", "\n".join(lines)
        is_string = variable in STRING_NAMES
        inputs: Sequence[Any] = STRINGS if is_string else [list(numbers) for numbers in LISTS]
        if rung == "closed":
            inputs = [numbers for numbers in inputs if numbers]
        tests = [[value, run_reference(head + body, entry, value)] for value in inputs]
        public = []
        if rng.random() < DOCTEST_SHARE:
            shown: Any = rng.choice(PHRASES) if is_string else draw_list(rng)
            public = [[shown, run_reference(head + body, entry, shown)]]
        lines_of_tests = "".join(f"    >>> {entry}({x!r})\n    {y!r}\n" for x, y in public)
        end = f"\n{lines_of_tests}    " if public else ""
        prompt = f'{head}    """{docstring}{end}"""\n'
        meta = {"entry": entry, "tests": tests, "public": public}
        return Example(self.name, rung, key, prompt, body, meta)


def is_constant(example: Example) -> bool:
    """True if all hidden tests expect the same value, so that a wrong function might pass."""
    _, first = example.meta["tests"][0]
    return all(wanted == first for _, wanted in example.meta["tests"])


def draw_list(rng: Random) -> list[int]:
    """Three to five whole numbers for a public test."""
    return [rng.randint(-3, 12) for _ in range(rng.randint(3, 5))]


def parameters_of(op: Op, rng: Random) -> dict[str, int | str]:
    """Draw the values that an operation's texts ask for."""
    if op.name == "replace":
        a, b = rng.sample(LETTERS, 2)
        return {"a": a, "b": b}
    return {"k": rng.randint(*op.span)} if op.span else {}


def join(rng: Random, phrases: Sequence[str]) -> str:
    """One sentence of several phrases, with commas and `and`, or with `then`."""
    if rng.random() < 0.5:
        text = ", ".join(phrases[:-1]) + " and " + phrases[-1]
    else:
        text = ", then ".join(phrases)
    return text[0].upper() + text[1:] + "."


def run_reference(source: str, entry: str, value: Any) -> Any:
    """Run a reference answer, which is made of the templates above and therefore trusted."""
    scope: dict[str, Any] = {}
    exec(source, scope)
    return scope[entry](copy.copy(value))
