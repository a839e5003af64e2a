"""Word problems and expressions with worked steps, one equation a line, and a boxed result.

A template draws its numbers, works the problem out on a `Work` sheet and words the question. The
sheet remembers how each value came about; that tree, with the operands of `+` and `*` sorted, is
the structure key: two stories with the same arithmetic are the same problem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from dlm.evals.tasks.base import Example

MEN: Final = ("Tom", "Ben", "Sam", "Max", "Leo", "Jack", "Omar", "Ivan", "Carl", "Eric")
WOMEN: Final = ("Anna", "Mia", "Lily", "Ella", "Nora", "Rosa", "Zoe", "Lucy", "Dana", "Hana")
PEOPLE: Final = (*((name, "he") for name in MEN), *((name, "she") for name in WOMEN))
THINGS: Final = (
    "apples", "books", "coins", "cards", "pens", "eggs", "toys", "shells", "stamps", "marbles",
    "cookies", "balls",
)  # fmt: skip
CONTAINERS: Final = ("bags", "boxes", "packs", "baskets", "jars")
TIMES: Final[Mapping[int, str]] = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}
GROWS: Final[Mapping[int, str]] = {2: "doubles", 3: "triples", 4: "quadruples"}
BOXED: Final = re.compile(r"\\boxed\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Term:
    """A whole number and the tree of operations it came from."""

    value: int
    tree: Any


@dataclass(slots=True)
class Work:
    """The worked steps of one problem, in order."""

    lines: list[str] = field(default_factory=list)

    def step(self, left: int | Term, op: str, right: int | Term) -> Term:
        """Write one equation down and return its value; division must be exact."""
        a, b = as_term(left), as_term(right)
        value = apply(a.value, op, b.value)
        self.lines.append(f"{a.value}{op}{b.value}={value}")
        operands = (a.tree, b.tree)
        if op in "+*":
            operands = tuple(sorted(operands, key=repr))
        return Term(value, (op, *operands))


def as_term(number: int | Term) -> Term:
    """A plain number is its own tree."""
    return number if isinstance(number, Term) else Term(number, number)


def apply(left: int, op: str, right: int) -> int:
    """One operation on whole numbers."""
    if op == "/":
        assert left % right == 0, f"{left}/{right} is not a whole number"
        return left // right
    return {"+": left + right, "-": left - right, "*": left * right}[op]


Template = Callable[[Random, Work], tuple[str, Term]]


@dataclass(frozen=True, slots=True)
class Math:
    """Rungs: easy (one step), medium (two or three), hard (four or more)."""

    name: str = "math"
    canvas: int = 64

    def make(self, rng: Random) -> Example:
        """Draw a rung, then one of its templates."""
        (templates,) = rng.choices((EASY, MEDIUM, HARD), weights=(0.25, 0.60, 0.15))
        work = Work()
        question, result = rng.choice(templates)(rng, work)
        steps = len(work.lines)
        return Example(
            task=self.name,
            rung="easy" if steps == 1 else "medium" if steps <= 3 else "hard",
            key=(self.name, result.tree),
            prompt=question,
            answer="\n".join([*work.lines, f"\\boxed{{{result.value}}}"]),
            meta={"gold": str(result.value), "steps": steps},
        )

    def grade(self, example: Example, text: str) -> bool:
        """The last `\\boxed{}` must hold the result; the steps are free."""
        boxes = BOXED.findall(text)
        return bool(boxes) and boxes[-1].strip() == example.meta["gold"]


def person(rng: Random) -> tuple[str, str]:
    """A name and what later sentences call its owner: the name again, or a pronoun."""
    name, pronoun = rng.choice(PEOPLE)
    return name, rng.choice((name, pronoun))


def buys_more(rng: Random, work: Work) -> tuple[str, Term]:
    """a + b."""
    a, b = rng.randint(2, 60), rng.randint(2, 39)
    name, who = person(rng)
    things, now = rng.choice(THINGS), rng.choice((" now", ""))
    verb = rng.choice(("buys", "gets", "finds"))
    forms = (
        f"{name} has {a} {things} and {verb} {b} more. How many {things} does {who} have{now}?",
        f"{name} has {a} {things}. {who.capitalize()} {verb} {b} more {things}. "
        f"How many {things} does {who} have{now}?",
        f"{name} found {a} {things} on Monday and {b} on Tuesday. How many {things} in total?",
    )
    return rng.choice(forms), work.step(a, "+", b)


def gives_away(rng: Random, work: Work) -> tuple[str, Term]:
    """a - b."""
    a = rng.randint(4, 99)
    b = rng.randint(2, a - 1)
    name, who = person(rng)
    things = rng.choice(THINGS)
    forms = (
        f"{name} has {a} {things} and gives away {b}. How many {things} are left?",
        f"{name} had {a} {things} but lost {b}. How many {things} does {who} have left?",
        f"There are {a} {things}. {name} takes {b} of them. How many {things} remain?",
    )
    return rng.choice(forms), work.step(a, "-", b)


def full_containers(rng: Random, work: Work) -> tuple[str, Term]:
    """k * b."""
    k, b = rng.randint(2, 12), rng.randint(2, 9)
    name, who = person(rng)
    things, containers = rng.choice(THINGS), rng.choice(CONTAINERS)
    forms = (
        f"{name} has {k} {containers} with {b} {things} each. How many {things} does {who} have?",
        f"There are {b} {things} in each of {k} {containers}. How many {things} are there?",
        f"A rectangle has length {k} and width {b}. Find its area.",
    )
    return rng.choice(forms), work.step(k, "*", b)


def equal_shares(rng: Random, work: Work) -> tuple[str, Term]:
    """a / k."""
    k, each = rng.randint(2, 9), rng.randint(2, 12)
    name, who = person(rng)
    things = rng.choice(THINGS)
    forms = (
        f"{name} shares {k * each} {things} equally among {k} friends. "
        f"How many {things} does each friend get?",
        f"{name} has {k * each} {things} and puts them into {k} equal groups. "
        f"How many {things} does {who} put in each group?",
    )
    return rng.choice(forms), work.step(k * each, "/", k)


def buys_containers(rng: Random, work: Work) -> tuple[str, Term]:
    """k * b + a."""
    a, k, b = rng.randint(2, 40), rng.randint(2, 9), rng.randint(2, 9)
    name, who = person(rng)
    things, containers, now = rng.choice(THINGS), rng.choice(CONTAINERS), rng.choice((" now", ""))
    join = rng.choice(("with", "of"))
    each = " each" if join == "with" else ""
    forms = (
        f"{name} has {a} {things}. {who.capitalize()} buys {k} {containers} {join} {b} "
        f"{things}{each}. How many {things} does {who} have{now}?",
        f"{name} has {a} {things} and buys {k} {containers} {join} {b}{each}. "
        f"How many {things} does {who} have{now}?",
        f"{name} buys {k} {containers} {join} {b} {things}{each} and already had {a} {things}. "
        f"How many {things} are there in total?",
    )
    return rng.choice(forms), work.step(work.step(k, "*", b), "+", a)


def loses_some(rng: Random, work: Work) -> tuple[str, Term]:
    """k * b - c."""
    k, b = rng.randint(2, 9), rng.randint(2, 9)
    c = rng.randint(1, k * b - 1)
    name, who = person(rng)
    things, containers = rng.choice(THINGS), rng.choice(CONTAINERS)
    forms = (
        f"{name} has {k} {containers} with {b} {things} each and loses {c} {things}. "
        f"How many {things} are left?",
        f"There are {k} {containers} of {b} {things}. {name} takes {c}. How many {things} remain?",
        f"{name} has {k} {containers} of {b} {things}. {who.capitalize()} gives away {c} {things}. "
        f"How many {things} does {who} have left?",
    )
    return rng.choice(forms), work.step(work.step(k, "*", b), "-", c)


def gains_and_loses(rng: Random, work: Work) -> tuple[str, Term]:
    """a + b - c."""
    a, b = rng.randint(2, 40), rng.randint(2, 30)
    c = rng.randint(1, a + b - 1)
    name, who = person(rng)
    things = rng.choice(THINGS)
    lose = rng.choice(("eats", "gives away", "loses"))
    forms = (
        f"{name} has {a} {things}. {who.capitalize()} buys {b} more and {lose} {c}. "
        f"How many {things} does {who} have left?",
        f"{name} has {a} {things}, buys {b} more and {lose} {c}. How many {things} are left?",
    )
    return rng.choice(forms), work.step(work.step(a, "+", b), "-", c)


def adds_and_shares(rng: Random, work: Work) -> tuple[str, Term]:
    """(x + a) / k."""
    k, each = rng.randint(2, 9), rng.randint(2, 9)
    a = rng.randint(1, min(30, k * each - 1))
    name, _ = person(rng)
    things = rng.choice(THINGS)
    question = (
        f"{name} has {k * each - a} {things}, gets {a} more and shares them equally among "
        f"{k} friends. How many {things} does each friend get?"
    )
    return question, work.step(work.step(k * each - a, "+", a), "/", k)


def total_cost(rng: Random, work: Work) -> tuple[str, Term]:
    """k * p + j * q."""
    k, p, j, q = (rng.randint(2, 9) for _ in range(4))
    name, _ = person(rng)
    first, second = rng.sample(THINGS, 2)
    question = (
        f"{name} buys {k} {first} for ${p} each and {j} {second} for ${q} each. "
        "What is the total cost in dollars?"
    )
    return question, work.step(work.step(k, "*", p), "+", work.step(j, "*", q))


def change(rng: Random, work: Work) -> tuple[str, Term]:
    """m - k * p."""
    p, k = rng.randint(2, 9), rng.randint(2, 9)
    paid = rng.choice([note for note in (20, 50, 100) if note > k * p])
    name, who = person(rng)
    question = (
        f"{name} buys {k} {rng.choice(THINGS)} for ${p} each and pays with ${paid}. "
        f"How many dollars of change does {who} get?"
    )
    return question, work.step(paid, "-", work.step(k, "*", p))


def journey(rng: Random, work: Work) -> tuple[str, Term]:
    """v * t + b."""
    v, t, b = rng.randint(3, 9), rng.randint(2, 9), rng.randint(2, 40)
    name, who = person(rng)
    question = (
        f"{name} walks {v} km per hour for {t} hours and then rides {b} km by bus. "
        f"How many km does {who} travel?"
    )
    return question, work.step(work.step(v, "*", t), "+", b)


def together(rng: Random, work: Work) -> tuple[str, Term]:
    """a * k + b + a."""
    a, k, b = rng.randint(2, 12), rng.randint(2, 5), rng.randint(1, 20)
    (name, _), (other, _) = rng.sample(PEOPLE, 2)
    things = rng.choice(THINGS)
    question = (
        f"{name} has {a} {things}. {other} has {TIMES[k]} as many, plus {b} more. "
        f"How many {things} do they have together?"
    )
    return question, work.step(work.step(work.step(a, "*", k), "+", b), "+", a)


def perimeter(rng: Random, work: Work) -> tuple[str, Term]:
    """(a + b) * 2."""
    a, b = rng.randint(2, 20), rng.randint(2, 20)
    question = f"A rectangle has length {a} and width {b}. Find its perimeter."
    return question, work.step(work.step(a, "+", b), "*", 2)


def compute(rng: Random) -> str:
    """How an expression is asked for."""
    return rng.choice(("Compute", "Evaluate", "Find the value of"))


def bracket_expression(rng: Random, work: Work) -> tuple[str, Term]:
    """(a + b) * c - d."""
    a, b, c, d = (rng.randint(2, 9) for _ in range(4))
    question = f"{compute(rng)} $({a}+{b})*{c}-{d}$."
    return question, work.step(work.step(work.step(a, "+", b), "*", c), "-", d)


def two_products(rng: Random, work: Work) -> tuple[str, Term]:
    """a * b + c * d."""
    a, b, c, d = (rng.randint(2, 9) for _ in range(4))
    question = f"{compute(rng)} ${a}*{b}+{c}*{d}$."
    return question, work.step(work.step(a, "*", b), "+", work.step(c, "*", d))


def linear_equation(rng: Random, work: Work) -> tuple[str, Term]:
    """(c - b) / a."""
    a, x, b = rng.randint(2, 9), rng.randint(1, 12), rng.randint(1, 30)
    c = a * x + b
    forms = (f"Solve for $x$: ${a}x+{b}={c}$.", f"If ${a}x+{b}={c}$, what is $x$?")
    return rng.choice(forms), work.step(work.step(c, "-", b), "/", a)


def average(rng: Random, work: Work) -> tuple[str, Term]:
    """(a + b + c) / 3."""
    a, b = rng.randint(1, 20), rng.randint(1, 20)
    c = 3 * rng.randint((a + b) // 3 + 1, 25) - a - b
    question = f"What is the average of {a}, {b} and {c}?"
    return question, work.step(work.step(work.step(a, "+", b), "+", c), "/", 3)


def remainder(rng: Random, work: Work) -> tuple[str, Term]:
    """a - k * q."""
    k, quotient = rng.randint(3, 9), rng.randint(2, 9)
    a = k * quotient + rng.randint(0, k - 1)
    question = f"What is the remainder when {a} is divided by {k}?"
    return question, work.step(a, "-", work.step(k, "*", quotient))


def grows(rng: Random, work: Work) -> tuple[str, Term]:
    """(a + b - c) * k."""
    a, b, k = rng.randint(2, 30), rng.randint(2, 30), rng.randint(2, 4)
    c = rng.randint(1, a + b - 1)
    name, who = person(rng)
    things = rng.choice(THINGS)
    question = (
        f"{name} starts with {a} {things}, wins {b}, loses {c} and then {GROWS[k]} what is left. "
        f"How many {things} does {who} have?"
    )
    return question, work.step(work.step(work.step(a, "+", b), "-", c), "*", k)


def grows_and_gives(rng: Random, work: Work) -> tuple[str, Term]:
    """(a + b - c) * k - d."""
    a, b, k = rng.randint(2, 20), rng.randint(2, 20), rng.randint(2, 4)
    c = rng.randint(1, a + b - 1)
    d = rng.randint(1, (a + b - c) * k - 1)
    name, who = person(rng)
    things = rng.choice(THINGS)
    question = (
        f"{name} starts with {a} {things}, wins {b}, loses {c}, then {GROWS[k]} what is left and "
        f"gives away {d}. How many {things} does {who} have?"
    )
    left = work.step(work.step(a, "+", b), "-", c)
    return question, work.step(work.step(left, "*", k), "-", d)


def change_of_two(rng: Random, work: Work) -> tuple[str, Term]:
    """m - (k * p + j * q)."""
    k, p, j, q = (rng.randint(2, 7) for _ in range(4))
    paid = rng.choice([note for note in (20, 50, 100) if note > k * p + j * q])
    name, who = person(rng)
    first, second = rng.sample(THINGS, 2)
    question = (
        f"{name} buys {k} {first} for ${p} each and {j} {second} for ${q} each and pays with "
        f"${paid}. How many dollars of change does {who} get?"
    )
    cost = work.step(work.step(k, "*", p), "+", work.step(j, "*", q))
    return question, work.step(paid, "-", cost)


def difference_of_products(rng: Random, work: Work) -> tuple[str, Term]:
    """(a + b) * c - d * e."""
    a, b, c, d = (rng.randint(2, 9) for _ in range(4))
    e = rng.randint(2, max(2, min(9, ((a + b) * c - 1) // d)))
    question = f"{compute(rng)} $({a}+{b})*{c}-{d}*{e}$."
    return question, work.step(work.step(work.step(a, "+", b), "*", c), "-", work.step(d, "*", e))


EASY: Final[tuple[Template, ...]] = (buys_more, gives_away, full_containers, equal_shares)
MEDIUM: Final[tuple[Template, ...]] = (
    buys_containers,
    loses_some,
    gains_and_loses,
    adds_and_shares,
    total_cost,
    change,
    journey,
    together,
    perimeter,
    bracket_expression,
    two_products,
    linear_equation,
    average,
    remainder,
    grows,
)
HARD: Final[tuple[Template, ...]] = (grows_and_gives, change_of_two, difference_of_products)
