"""Stories of four to six steps."""

from __future__ import annotations

from random import Random
from typing import Final

from dlm.evals.tasks.math_sheet import (
    CONTAINERS,
    GROWS,
    PEOPLE,
    THINGS,
    TIMES,
    Template,
    Term,
    Work,
    person,
)


def grows_and_gives(rng: Random, work: Work) -> tuple[str, Term]:
    """(a + b - c) * k - d."""
    a, b, k = rng.randint(10, 50), rng.randint(10, 50), rng.randint(2, 4)
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
    k, p, j, q = (rng.randint(2, top) for top in (9, 12, 9, 12))
    paid = rng.choice([note for note in (50, 100, 200, 500) if note > k * p + j * q])
    name, who = person(rng)
    first, second = rng.sample(THINGS, 2)
    question = (
        f"{name} buys {k} {first} for ${p} each and {j} {second} for ${q} each and pays with "
        f"${paid}. How many dollars of change does {who} get?"
    )
    cost = work.step(work.step(k, "*", p), "+", work.step(j, "*", q))
    return question, work.step(paid, "-", cost)


def three_purchases(rng: Random, work: Work) -> tuple[str, Term]:
    """m - (k * p + j * q + i * r)."""
    amounts = [(rng.randint(2, 8), rng.randint(2, 12)) for _ in range(3)]
    paid = rng.choice([note for note in (50, 100, 200, 500) if note > sum_of(amounts)])
    name, who = person(rng)
    bought = [
        f"{count} {things} for ${price} each"
        for (count, price), things in zip(amounts, rng.sample(THINGS, 3), strict=True)
    ]
    question = (
        f"{name} buys {bought[0]}, {bought[1]} and {bought[2]} and pays with ${paid}. "
        f"How many dollars of change does {who} get?"
    )
    first, second, third = (work.step(count, "*", price) for count, price in amounts)
    return question, work.step(paid, "-", work.step(work.step(first, "+", second), "+", third))


def sum_of(amounts: list[tuple[int, int]]) -> int:
    """Total cost of purchases of (count, price)."""
    return sum(count * price for count, price in amounts)


def containers_shared(rng: Random, work: Work) -> tuple[str, Term]:
    """(k * b + a - c) / n."""
    k, b, n = rng.randint(2, 9), rng.randint(4, 19), rng.randint(2, 9)
    a = rng.randint(2, 60)
    c = (k * b + a) % n + n * rng.randint(0, 2)
    if not 0 < c < k * b + a:
        return containers_shared(rng, work)
    name, who = person(rng)
    things, containers = rng.choice(THINGS), rng.choice(CONTAINERS)
    question = (
        f"{name} has {k} {containers} of {b} {things}. {who.capitalize()} finds {a} more, loses "
        f"{c} and shares the rest equally among {n} friends. "
        f"How many {things} does each friend get?"
    )
    left = work.step(work.step(work.step(k, "*", b), "+", a), "-", c)
    return question, work.step(left, "/", n)


def three_people(rng: Random, work: Work) -> tuple[str, Term]:
    """a + (a * k - b) + (a * k - b) * j."""
    a, k, j = rng.randint(11, 30), rng.randint(2, 5), rng.randint(2, 3)
    b = rng.randint(2, a)
    (name, _), (other, _), (third, _) = rng.sample(PEOPLE, 3)
    things = rng.choice(THINGS)
    question = (
        f"{name} has {a} {things}. {other} has {TIMES[k]} as many, minus {b}. {third} has "
        f"{TIMES[j]} as many as {other}. How many {things} do the three have together?"
    )
    second = work.step(work.step(a, "*", k), "-", b)
    last = work.step(second, "*", j)
    return question, work.step(work.step(a, "+", second), "+", last)


def wages(rng: Random, work: Work) -> tuple[str, Term]:
    """p * h * d - s - k * q."""
    p, h, d, k, q = (rng.randint(*span) for span in ((5, 15), (2, 8), (2, 6), (2, 6), (2, 9)))
    s = rng.randint(1, 20)
    name, who = person(rng)
    if p * h * d <= s + k * q:
        return wages(rng, work)
    question = (
        f"{name} earns ${p} an hour and works {h} hours a day for {d} days. {who.capitalize()} "
        f"spends ${s} on food and buys {k} {rng.choice(THINGS)} for ${q} each. "
        f"How many dollars does {who} have left?"
    )
    earned = work.step(work.step(p, "*", h), "*", d)
    return question, work.step(work.step(earned, "-", s), "-", work.step(k, "*", q))


def two_workers(rng: Random, work: Work) -> tuple[str, Term]:
    """(a * p - b * q) * k."""
    a, p, b, q = (rng.randint(*span) for span in ((3, 9), (8, 19), (2, 9), (2, 12)))
    if a * p <= b * q:
        return two_workers(rng, work)
    k = rng.randint(2, 6)
    (name, _), (other, _) = rng.sample(PEOPLE, 2)
    question = (
        f"Each day {name} works {a} hours for ${p} an hour and {other} works {b} hours for ${q} "
        f"an hour. How many dollars more does {name} earn in {k} days?"
    )
    more = work.step(work.step(a, "*", p), "-", work.step(b, "*", q))
    return question, work.step(more, "*", k)


def road_trip(rng: Random, work: Work) -> tuple[str, Term]:
    """(d - (v * t + w * u)) / r."""
    v, t, w, u = (rng.randint(*span) for span in ((20, 60), (2, 5), (10, 40), (2, 4)))
    r, hours = rng.randint(5, 20), rng.randint(2, 9)
    name, who = person(rng)
    distance = v * t + w * u + r * hours
    question = (
        f"A trip is {distance} km long. {name} drives {v} km per hour for {t} hours, then {w} km "
        f"per hour for {u} hours and walks the rest at {r} km per hour. "
        f"How many hours does {who} walk?"
    )
    driven = work.step(work.step(v, "*", t), "+", work.step(w, "*", u))
    return question, work.step(work.step(distance, "-", driven), "/", r)


def legs(rng: Random, work: Work) -> tuple[str, Term]:
    """c * 2 + h * 4 + s * 8."""
    ducks, cows, spiders = rng.randint(5, 29), rng.randint(3, 19), rng.randint(2, 12)
    question = (
        f"A farm has {ducks} ducks with 2 legs each, {cows} cows with 4 legs each and {spiders} "
        "spiders with 8 legs each. How many legs are there?"
    )
    first, second = work.step(ducks, "*", 2), work.step(cows, "*", 4)
    third = work.step(spiders, "*", 8)
    return question, work.step(work.step(first, "+", second), "+", third)


def sells_twice(rng: Random, work: Work) -> tuple[str, Term]:
    """(k * b - a - c) * p."""
    k, b, p = rng.randint(3, 9), rng.randint(8, 25), rng.randint(2, 7)
    a = rng.randint(2, k * b // 3)
    c = rng.randint(2, k * b // 3)
    name, who = person(rng)
    things, containers = rng.choice(THINGS), rng.choice(CONTAINERS)
    question = (
        f"{name} has {k} {containers} of {b} {things}. {a} of them break and {who} keeps {c}. "
        f"{who.capitalize()} sells the rest for ${p} each. How many dollars does {who} get?"
    )
    left = work.step(work.step(work.step(k, "*", b), "-", a), "-", c)
    return question, work.step(left, "*", p)


HARD_STORIES: Final[tuple[Template, ...]] = (
    grows_and_gives,
    change_of_two,
    three_purchases,
    containers_shared,
    three_people,
    wages,
    two_workers,
    road_trip,
    legs,
    sells_twice,
)
