"""Short Python functions in the format of HumanEval: signature and docstring in, body out.

A function applies one to three operations to a list or a string and returns something of it. From
two operations on, the structure key is the sequence of operations alone: held-out items are
compositions that training has not shown, whatever their parameters or names.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, NamedTuple

from dlm.evals.tasks.base import CLOSED, Example


class Op(NamedTuple):
    """One line of a body: how a docstring says it, how Python writes it, and its parameter.

    `{v}` is the variable, `{k}` a whole number of `span` (inclusive), `{a}` and `{b}` two letters.
    """

    name: str
    phrases: tuple[str, ...]
    code: str
    span: tuple[int, int] | None = None


LIST_OPS: Final = (
    Op("mul", ("multiply each number by {k}", "scale every number by {k}"),
       "{v} = [x * {k} for x in {v}]", (2, 9)),
    Op("add", ("add {k} to each number", "increase every number by {k}"),
       "{v} = [x + {k} for x in {v}]", (1, 9)),
    Op("sub", ("subtract {k} from each number", "decrease every number by {k}"),
       "{v} = [x - {k} for x in {v}]", (1, 9)),
    Op("square", ("square each number", "replace every number by its square"),
       "{v} = [x * x for x in {v}]"),
    Op("negate", ("negate each number", "flip the sign of every number"),
       "{v} = [-x for x in {v}]"),
    Op("abs", ("take the absolute value of each number",), "{v} = [abs(x) for x in {v}]"),
    Op("even", ("keep only the even numbers", "drop the odd numbers"),
       "{v} = [x for x in {v} if x % 2 == 0]"),
    Op("odd", ("keep only the odd numbers", "drop the even numbers"),
       "{v} = [x for x in {v} if x % 2 == 1]"),
    Op("above", ("keep the numbers greater than {k}", "drop the numbers that are at most {k}"),
       "{v} = [x for x in {v} if x > {k}]", (0, 9)),
    Op("below", ("keep the numbers less than {k}", "drop the numbers that are at least {k}"),
       "{v} = [x for x in {v} if x < {k}]", (1, 9)),
    Op("multiples", ("keep the multiples of {k}", "keep the numbers divisible by {k}"),
       "{v} = [x for x in {v} if x % {k} == 0]", (3, 9)),
    Op("unique", ("remove duplicates", "drop repeated numbers"),
       "{v} = list(dict.fromkeys({v}))"),
    Op("ascending", ("sort in ascending order", "sort from smallest to largest"),
       "{v} = sorted({v})"),
    Op("descending", ("sort in descending order", "sort from largest to smallest"),
       "{v} = sorted({v}, reverse=True)"),
    Op("reverse", ("reverse the list", "put the list in reverse order"), "{v} = {v}[::-1]"),
    Op("first", ("take the first {k} numbers", "keep the first {k} items"),
       "{v} = {v}[:{k}]", (2, 5)),
    Op("last", ("take the last {k} numbers", "keep the last {k} items"),
       "{v} = {v}[-{k}:]", (2, 5)),
    Op("skip", ("skip the first {k} numbers", "drop the first {k} items"),
       "{v} = {v}[{k}:]", (1, 4)),
    Op("second", ("take every second number",), "{v} = {v}[::2]"),
)  # fmt: skip
LIST_ENDS: Final = (
    Op("list", ("return the list", "return the result"), "return {v}"),
    Op("sum", ("return the sum", "return the total"), "return sum({v})"),
    Op("max", ("return the maximum or 0 if empty",), "return max({v}, default=0)"),
    Op("min", ("return the minimum or 0 if empty",), "return min({v}, default=0)"),
    Op("count", ("return how many are left", "return the count"), "return len({v})"),
)
STRING_OPS: Final = (
    Op("upper", ("convert to upper case",), "{v} = {v}.upper()"),
    Op("lower", ("convert to lower case",), "{v} = {v}.lower()"),
    Op("reverse", ("reverse the string",), "{v} = {v}[::-1]"),
    Op("strip", ("strip surrounding spaces",), "{v} = {v}.strip()"),
    Op("consonants", ("remove the vowels",),
       "{v} = ''.join(c for c in {v} if c not in 'aeiou')"),
    Op("dense", ("remove all spaces",), "{v} = {v}.replace(' ', '')"),
    Op("head", ("keep the first {k} characters",), "{v} = {v}[:{k}]", (2, 6)),
    Op("tail", ("keep the last {k} characters",), "{v} = {v}[-{k}:]", (2, 6)),
    Op("repeat", ("repeat the string {k} times",), "{v} = {v} * {k}", (2, 4)),
    Op("words", ("reverse the order of the words",), "{v} = ' '.join({v}.split()[::-1])"),
    Op("letters", ("keep only the letters",), "{v} = ''.join(c for c in {v} if c.isalpha())"),
    Op("replace", ("replace '{a}' with '{b}'",), "{v} = {v}.replace('{a}', '{b}')"),
)  # fmt: skip
STRING_ENDS: Final = (
    Op("string", ("return the string", "return the result"), "return {v}"),
    Op("length", ("return its length",), "return len({v})"),
    Op("palindrome", ("return whether it is a palindrome",), "return {v} == {v}[::-1]"),
    Op("count", ("return how often 'a' occurs",), "return {v}.count('a')"),
)
ONE_LINERS: Final = (
    (("Return the sum of the list.", "Return the sum of the numbers."), "return sum({v})"),
    (("Return the largest number.", "Return the maximum of the list."), "return max({v})"),
    (("Return the smallest number.", "Return the minimum of the list."), "return min({v})"),
    (("Return the length of the list.", "Count the items."), "return len({v})"),
    (("Return the list in reverse order.", "Reverse the list."), "return {v}[::-1]"),
    (("Return the list sorted.", "Sort the list."), "return sorted({v})"),
    (("Return the squares of the numbers.", "Square each number."), "return [x * x for x in {v}]"),
    (("Double each number.", "Return each number doubled."), "return [x * 2 for x in {v}]"),
    (("Return the even numbers.", "Keep only the even numbers."),
     "return [x for x in {v} if x % 2 == 0]"),
    (("Return the sum of the squares.", "Sum the squares of the numbers."),
     "return sum(x * x for x in {v})"),
    (("Return the first item.", "Return the first number."), "return {v}[0]"),
    (("Return the last item.", "Return the last number."), "return {v}[-1]"),
)  # fmt: skip
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


@dataclass(frozen=True, slots=True)
class Code:
    """Rungs: the number of operations before the return line (1, 2, 3), and closed one-liners."""

    name: str = "code"
    canvas: int = 80

    def make(self, rng: Random) -> Example:
        """Draw a composition of operations, or (train only) a common one-line function."""
        if rng.random() < ONE_LINER_SHARE:
            return self._one_liner(rng)
        return self._composition(rng)

    def grade(self, example: Example, text: str) -> bool:
        """Run the function on the hidden inputs in a sandbox; all results must be right."""
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
        picked = [*rng.sample(ops, rng.choice((1, 1, 2, 2, 2, 3))), rng.choice(ends)]
        phrases, lines, parameters = [], [], []
        for op in picked:
            values = parameters_of(op, rng)
            phrases.append(rng.choice(op.phrases).format(**values))
            lines.append("    " + op.code.format(v=variable, **values))
            parameters.append(tuple(values.values()))
        structure: tuple[Any, ...] = tuple(op.name for op in picked)
        count = len(picked) - 1
        if count == 1:
            structure += tuple(parameters)
        kind = "list" if is_list else "string"
        return self._example(
            rng, f"{count}-op", (self.name, kind, structure), variable, join(rng, phrases), lines
        )

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
        key: tuple[Any, ...],
        variable: str,
        docstring: str,
        lines: Sequence[str],
    ) -> Example:
        entry = rng.choice(FUNCTIONS)
        prompt = f'def {entry}({variable}):\n    """{docstring}"""\n'
        body = "\n".join(lines)
        is_string = variable in STRING_NAMES
        inputs: Sequence[Any] = STRINGS if is_string else [list(numbers) for numbers in LISTS]
        if rung == "closed":
            inputs = [numbers for numbers in inputs if numbers]
        tests = [[value, run_reference(prompt + body, entry, value)] for value in inputs]
        return Example(self.name, rung, key, prompt, body, {"entry": entry, "tests": tests})


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
