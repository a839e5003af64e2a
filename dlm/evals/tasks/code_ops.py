"""The operations that the functions of the code task are composed of."""

from __future__ import annotations

from typing import Final, NamedTuple


class Op(NamedTuple):
    """One line of a body: its words in a docstring, its Python, and its parameter.

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
    Op("others", ("keep the numbers at odd positions", "drop the numbers at even positions"),
       "{v} = {v}[1::2]"),
    Op("running", ("take the running sum", "replace each number by the sum up to it"),
       "{v} = [sum({v}[:i + 1]) for i in range(len({v}))]"),
    Op("steps", ("take the differences of neighbours", "subtract each number from the next"),
       "{v} = [b - a for a, b in zip({v}, {v}[1:])]"),
    Op("cap", ("cap each number at {k}", "replace numbers above {k} by {k}"),
       "{v} = [min(x, {k}) for x in {v}]", (2, 9)),
    Op("raise", ("raise each number to at least {k}", "replace numbers below {k} by {k}"),
       "{v} = [max(x, {k}) for x in {v}]", (1, 5)),
    Op("index", ("add to each number its position",),
       "{v} = [x + i for i, x in enumerate({v})]"),
    Op("mirror", ("append the list in reverse", "add the reversed list at the end"),
       "{v} = {v} + {v}[::-1]"),
)  # fmt: skip
LIST_ENDS: Final = (
    Op("list", ("return the list", "return the result"), "return {v}"),
    Op("sum", ("return the sum", "return the total"), "return sum({v})"),
    Op("max", ("return the maximum or 0 if empty",), "return max({v}, default=0)"),
    Op("min", ("return the minimum or 0 if empty",), "return min({v}, default=0)"),
    Op("count", ("return how many are left", "return the count"), "return len({v})"),
    Op("greater", ("return how many are greater than {k}",),
       "return sum(x > {k} for x in {v})", (0, 9)),
    Op("evens", ("return how many are even",), "return sum(x % 2 == 0 for x in {v})"),
    Op("span", ("return the maximum minus the minimum or 0 if empty",),
       "return max({v}, default=0) - min({v}, default=0)"),
)  # fmt: skip
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
    Op("swapcase", ("swap upper and lower case",), "{v} = {v}.swapcase()"),
    Op("title", ("capitalize each word",), "{v} = {v}.title()"),
    Op("shift", ("shift each character by {k}", "move each character {k} places on"),
       "{v} = ''.join(chr(ord(c) + {k}) for c in {v})", (1, 3)),
    Op("twice", ("double each character",), "{v} = ''.join(c * 2 for c in {v})"),
    Op("every", ("take every second character",), "{v} = {v}[::2]"),
    Op("replace", ("replace '{a}' with '{b}'",), "{v} = {v}.replace('{a}', '{b}')"),
)  # fmt: skip
STRING_ENDS: Final = (
    Op("string", ("return the string", "return the result"), "return {v}"),
    Op("length", ("return its length",), "return len({v})"),
    Op("palindrome", ("return whether it is a palindrome",), "return {v} == {v}[::-1]"),
    Op("count", ("return how often 'a' occurs",), "return {v}.count('a')"),
    Op("split", ("return the list of words",), "return {v}.split()"),
    Op("capitals", ("return how many characters are upper case",),
       "return sum(c.isupper() for c in {v})"),
)  # fmt: skip
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
