"""Expressions, equations and figures, of two to six steps."""

from __future__ import annotations

from random import Random
from typing import Final

from dlm.evals.tasks.math_sheet import Template, Term, Work, compute


def perimeter(rng: Random, work: Work) -> tuple[str, Term]:
    """(a + b) * 2."""
    a, b = rng.randint(2, 40), rng.randint(2, 40)
    question = f"A rectangle has length {a} and width {b}. Find its perimeter."
    return question, work.step(work.step(a, "+", b), "*", 2)


def bracket_expression(rng: Random, work: Work) -> tuple[str, Term]:
    """(a + b) * c - d."""
    a, b, c = (rng.randint(*span) for span in ((2, 15), (2, 15), (2, 9)))
    d = rng.randint(2, min(40, (a + b) * c))
    question = f"{compute(rng)} $({a}+{b})*{c}-{d}$."
    return question, work.step(work.step(work.step(a, "+", b), "*", c), "-", d)


def two_products(rng: Random, work: Work) -> tuple[str, Term]:
    """a * b + c * d."""
    a, b, c, d = (rng.randint(2, 9) for _ in range(4))
    question = f"{compute(rng)} ${a}*{b}+{c}*{d}$."
    return question, work.step(work.step(a, "*", b), "+", work.step(c, "*", d))


def linear_equation(rng: Random, work: Work) -> tuple[str, Term]:
    """(c - b) / a."""
    a, x, b = rng.randint(2, 9), rng.randint(1, 12), rng.randint(1, 60)
    c = a * x + b
    forms = (f"Solve for $x$: ${a}x+{b}={c}$.", f"If ${a}x+{b}={c}$, what is $x$?")
    return rng.choice(forms), work.step(work.step(c, "-", b), "/", a)


def average(rng: Random, work: Work) -> tuple[str, Term]:
    """(a + b + c) / 3."""
    a, b = rng.randint(1, 40), rng.randint(1, 40)
    c = 3 * rng.randint((a + b) // 3 + 1, 45) - a - b
    question = f"What is the average of {a}, {b} and {c}?"
    return question, work.step(work.step(work.step(a, "+", b), "+", c), "/", 3)


def remainder(rng: Random, work: Work) -> tuple[str, Term]:
    """a - k * q."""
    k, quotient = rng.randint(3, 9), rng.randint(2, 9)
    a = k * quotient + rng.randint(0, k - 1)
    question = f"What is the remainder when {a} is divided by {k}?"
    return question, work.step(a, "-", work.step(k, "*", quotient))


def difference_of_products(rng: Random, work: Work) -> tuple[str, Term]:
    """(a + b) * c - d * e."""
    a, b, c, d = (rng.randint(*span) for span in ((2, 15), (2, 15), (2, 9), (2, 12)))
    if (a + b) * c < 2 * d:
        return difference_of_products(rng, work)
    e = rng.randint(2, min(9, (a + b) * c // d))
    question = f"{compute(rng)} $({a}+{b})*{c}-{d}*{e}$."
    return question, work.step(work.step(work.step(a, "+", b), "*", c), "-", work.step(d, "*", e))


def product_difference(rng: Random, work: Work) -> tuple[str, Term]:
    """a * b - c * d."""
    a, b, c = rng.randint(5, 15), rng.randint(5, 9), rng.randint(2, 9)
    d = rng.randint(2, max(2, min(9, (a * b - 1) // c)))
    question = f"{compute(rng)} ${a}*{b}-{c}*{d}$."
    return question, work.step(work.step(a, "*", b), "-", work.step(c, "*", d))


def bracket_difference(rng: Random, work: Work) -> tuple[str, Term]:
    """(a - b) * c + d."""
    a, c, d = rng.randint(12, 60), rng.randint(2, 7), rng.randint(5, 60)
    b = rng.randint(max(1, a - 25), a - 2)
    question = f"{compute(rng)} $({a}-{b})*{c}+{d}$."
    return question, work.step(work.step(work.step(a, "-", b), "*", c), "+", d)


def long_expression(rng: Random, work: Work) -> tuple[str, Term]:
    """(a + b) * c - d * e + f."""
    a, b, c, d = (rng.randint(*span) for span in ((3, 20), (3, 20), (2, 9), (2, 12)))
    e = rng.randint(2, max(2, min(9, ((a + b) * c - 1) // d)))
    if (a + b) * c < d * e:
        return long_expression(rng, work)
    f = rng.randint(5, 90)
    question = f"{compute(rng)} $({a}+{b})*{c}-{d}*{e}+{f}$."
    product = work.step(work.step(a, "+", b), "*", c)
    return question, work.step(work.step(product, "-", work.step(d, "*", e)), "+", f)


def wide_products(rng: Random, work: Work) -> tuple[str, Term]:
    """a * b - c * d + e, or with the signs the other way round."""
    a, b, c, d = (rng.randint(*span) for span in ((21, 49), (5, 9), (11, 20), (2, 5)))
    e = rng.randint(5, 90)
    signs = rng.choice(("-+", "+-"))
    question = f"{compute(rng)} ${a}*{b}{signs[0]}{c}*{d}{signs[1]}{e}$."
    both = work.step(work.step(a, "*", b), signs[0], work.step(c, "*", d))
    return question, work.step(both, signs[1], e)


def nested_quotient(rng: Random, work: Work) -> tuple[str, Term]:
    """((a + b) * c - d) / e + f."""
    a, b, c, e = (rng.randint(*span) for span in ((5, 25), (5, 25), (2, 6), (2, 9)))
    d = (a + b) * c % e + e * rng.randint(1, 2)
    if d >= (a + b) * c:
        return nested_quotient(rng, work)
    f = rng.randint(5, 60)
    question = f"{compute(rng)} $(({a}+{b})*{c}-{d})/{e}+{f}$."
    product = work.step(work.step(a, "+", b), "*", c)
    return question, work.step(work.step(work.step(product, "-", d), "/", e), "+", f)


def average_of_four(rng: Random, work: Work) -> tuple[str, Term]:
    """(a + b + c + d) / 4."""
    a, b, c = (rng.randint(5, 60) for _ in range(3))
    d = 4 * rng.randint((a + b + c) // 4 + 1, 70) - a - b - c
    question = f"What is the average of {a}, {b}, {c} and {d}?"
    total = work.step(work.step(work.step(a, "+", b), "+", c), "+", d)
    return question, work.step(total, "/", 4)


def bracket_equation(rng: Random, work: Work) -> tuple[str, Term]:
    """((d - c) / a - b) * m."""
    a, x, b, c = (rng.randint(*span) for span in ((2, 9), (2, 19), (1, 12), (1, 60)))
    m = rng.randint(3, 9)
    d = a * (x + b) + c
    question = f"If ${a}(x+{b})+{c}={d}$, what is ${m}x$?"
    inner = work.step(work.step(d, "-", c), "/", a)
    return question, work.step(work.step(inner, "-", b), "*", m)


MEDIUM_EXPRESSIONS: Final[tuple[Template, ...]] = (
    perimeter,
    bracket_expression,
    bracket_difference,
    two_products,
    product_difference,
    linear_equation,
    average,
    remainder,
)
HARD_EXPRESSIONS: Final[tuple[Template, ...]] = (
    difference_of_products,
    long_expression,
    wide_products,
    nested_quotient,
    average_of_four,
    bracket_equation,
)
