"""Stories of one to three steps."""

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
    a, k, b = rng.randint(2, 60), rng.randint(2, 9), rng.randint(2, 12)
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
    k, b = rng.randint(2, 9), rng.randint(2, 15)
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
    a, b = rng.randint(10, 80), rng.randint(10, 60)
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
    k, each = rng.randint(2, 9), rng.randint(2, 15)
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
    k, p, j, q = (rng.randint(2, top) for top in (9, 12, 9, 12))
    name, _ = person(rng)
    first, second = rng.sample(THINGS, 2)
    question = (
        f"{name} buys {k} {first} for ${p} each and {j} {second} for ${q} each. "
        "What is the total cost in dollars?"
    )
    return question, work.step(work.step(k, "*", p), "+", work.step(j, "*", q))


def change(rng: Random, work: Work) -> tuple[str, Term]:
    """m - k * p."""
    p, k = rng.randint(2, 11), rng.randint(2, 9)
    paid = rng.choice([note for note in (20, 50, 100) if note > k * p])
    name, who = person(rng)
    question = (
        f"{name} buys {k} {rng.choice(THINGS)} for ${p} each and pays with ${paid}. "
        f"How many dollars of change does {who} get?"
    )
    return question, work.step(paid, "-", work.step(k, "*", p))


def journey(rng: Random, work: Work) -> tuple[str, Term]:
    """v * t + b."""
    v, t, b = rng.randint(3, 12), rng.randint(2, 9), rng.randint(10, 90)
    name, who = person(rng)
    question = (
        f"{name} walks {v} km per hour for {t} hours and then rides {b} km by bus. "
        f"How many km does {who} travel?"
    )
    return question, work.step(work.step(v, "*", t), "+", b)


def together(rng: Random, work: Work) -> tuple[str, Term]:
    """a * k + b + a."""
    a, k, b = rng.randint(2, 20), rng.randint(2, 5), rng.randint(1, 40)
    (name, _), (other, _) = rng.sample(PEOPLE, 2)
    things = rng.choice(THINGS)
    question = (
        f"{name} has {a} {things}. {other} has {TIMES[k]} as many, plus {b} more. "
        f"How many {things} do they have together?"
    )
    return question, work.step(work.step(work.step(a, "*", k), "+", b), "+", a)


def grows(rng: Random, work: Work) -> tuple[str, Term]:
    """(a + b - c) * k."""
    a, b, k = rng.randint(10, 50), rng.randint(10, 50), rng.randint(2, 4)
    c = rng.randint(1, a + b - 1)
    name, who = person(rng)
    things = rng.choice(THINGS)
    question = (
        f"{name} starts with {a} {things}, wins {b}, loses {c} and then {GROWS[k]} what is left. "
        f"How many {things} does {who} have?"
    )
    return question, work.step(work.step(work.step(a, "+", b), "-", c), "*", k)


def who_has_more(rng: Random, work: Work) -> tuple[str, Term]:
    """a + b - c."""
    a, b = rng.randint(20, 80), rng.randint(10, 60)
    c = rng.randint(5, a + b - 1)
    (name, _), (other, _) = rng.sample(PEOPLE, 2)
    things = rng.choice(THINGS)
    question = (
        f"{name} has {a} {things} and finds {b} more. {other} has {c} {things}. "
        f"How many more {things} does {name} have than {other}?"
    )
    return question, work.step(work.step(a, "+", b), "-", c)


def three_days(rng: Random, work: Work) -> tuple[str, Term]:
    """a + b + c."""
    a, b, c = (rng.randint(11, 69) for _ in range(3))
    name, who = person(rng)
    things = rng.choice(THINGS)
    forms = (
        f"{name} sells {a} {things} on Monday, {b} on Tuesday and {c} on Friday. "
        f"How many {things} does {who} sell in total?",
        f"There are {a} {things} in a red box, {b} in a blue box and {c} in a green box. "
        f"How many {things} are there?",
    )
    return rng.choice(forms), work.step(work.step(a, "+", b), "+", c)


def saves_for(rng: Random, work: Work) -> tuple[str, Term]:
    """(p - a) / k."""
    k, weeks = rng.randint(2, 9), rng.randint(3, 12)
    a = rng.randint(5, 60)
    name, who = person(rng)
    question = (
        f"A bike costs ${a + k * weeks}. {name} has ${a} and saves ${k} a week. "
        f"How many weeks does {who} need?"
    )
    return question, work.step(work.step(a + k * weeks, "-", a), "/", k)


def packs_away(rng: Random, work: Work) -> tuple[str, Term]:
    """k * b / j."""
    k, b = rng.randint(2, 9), rng.randint(4, 12)
    j = rng.choice([d for d in range(2, 10) if k * b % d == 0 and d not in (k, b)] or [k])
    name, who = person(rng)
    things, (old, new) = rng.choice(THINGS), rng.sample(CONTAINERS, 2)
    question = (
        f"{name} has {k} {old} of {b} {things} and packs all of them into {new} of {j}. "
        f"How many {new} does {who} need?"
    )
    return question, work.step(work.step(k, "*", b), "/", j)


EASY: Final[tuple[Template, ...]] = (buys_more, gives_away, full_containers, equal_shares)
MEDIUM_STORIES: Final[tuple[Template, ...]] = (
    buys_containers,
    loses_some,
    gains_and_loses,
    adds_and_shares,
    total_cost,
    change,
    journey,
    together,
    grows,
    who_has_more,
    three_days,
    saves_for,
    packs_away,
)
