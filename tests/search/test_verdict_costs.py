"""Budgets count verdicts, and do not depend on how long a verdict takes."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from math import isnan
from typing import ClassVar

import pytest

import dlm
from dlm.search import Verdict, Verifier
from dlm.search.names import POLICIES
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec
from tests.search.searches import READ_TEXT

OTHERS = (*READ_TEXT, "shortlist")  # which takes free verifiers alone
JUDGE_NOTHING = ("seeds", "lopa", "order", "temporal_vote")
PROMPT = [7, 3, 9, 21, 14]


@dataclass(frozen=True)
class Slow(Verifier):
    """A dear verifier that takes a random time, in another thread."""

    price: float = 3.0
    pauses: int = 0
    blocks: ClassVar[bool] = True

    @property
    def cost(self):
        return self.price

    def score(self, answers, question):
        if self.pauses:
            time.sleep(random.Random(self.pauses + len(answers)).random() / 50)
        question.spent.add(len(answers), self.price * len(answers))
        return [Verdict(float(sum(answer.ids) % 97)) for answer in answers]


@dataclass(frozen=True)
class Alike(Slow):
    """All answers score the same, after a random time, and several are asked at once."""

    @property
    def workers(self):
        return 4

    def score(self, answers, question):
        return [verdict._replace(score=1.0) for verdict in Slow.score(self, answers, question)]


def searched(verifier, nfe, **options):
    engine = dlm.Engine(random_decoder(tiny_spec(), 1), info_of(tiny_spec()), **options)
    found = engine.search(
        PROMPT,
        "best_of(12, width=4)",
        verifier=verifier,
        budget=None if nfe is None else {"nfe": nfe},
        temperature=0.8,
        seed=4,
        max_new_tokens=16,
        unmask="threshold(0.3)",
    )
    engine.scheduler.check_integrity()
    assert not engine.kv.pages.in_use
    return found


@pytest.mark.parametrize("price", [0.0, 0.4, 3.0, 20.0])
@pytest.mark.parametrize("nfe", [1, 7, 20, 40, 90, 400])
def test_no_budget_is_exceeded(price, nfe):
    costs = searched(Slow(price), nfe).costs
    assert costs.nfe <= nfe
    assert costs.verifier_nfe == pytest.approx(price * costs.verifier_calls)


@dataclass(frozen=True)
class Prompt(Slow):
    """A dear verifier that answers at once."""

    blocks: ClassVar[bool] = False


@pytest.mark.parametrize("kind", [Slow, Prompt])
@pytest.mark.parametrize("policy", [one for one in POLICIES.entries if one not in OTHERS])
def test_no_policy_exceeds_its_budget(policy, kind):
    """With its own arguments, also where it judges many rows at one point."""
    engine = dlm.Engine(random_decoder(tiny_spec(), 1), info_of(tiny_spec()))
    options = {"temperature": 0.8, "max_new_tokens": 16, "unmask": "threshold(0.3)"}
    for nfe in (1, 7, 20, 40, 90, 200):
        found = engine.search(
            PROMPT, policy, verifier=kind(4.0), budget={"nfe": nfe}, seed=nfe, **options
        )
        assert found.costs.nfe <= nfe
        assert found.costs.verifier_nfe == 4 * found.costs.verifier_calls
        assert not engine.kv.pages.in_use
    assert not isnan(found.score) or policy in JUDGE_NOTHING


@pytest.mark.parametrize("nfe", [20, 60, 90])
def test_the_time_that_a_verdict_takes_changes_nothing(nfe):
    expected = searched(Slow(), nfe)
    for pauses, rows in ((1, 32), (2, 1), (3, 3)):
        found = searched(Slow(pauses=pauses), nfe, max_rows=rows)
        assert sorted(c.answer.ids for c in found.candidates) == sorted(
            c.answer.ids for c in expected.candidates
        )
        assert found.costs.row_forwards + found.costs.shared_forwards == (
            expected.costs.row_forwards + expected.costs.shared_forwards
        )


def test_a_search_does_not_wait_for_a_verdict_beyond_its_time():
    free = threading.Event()

    @dataclass(frozen=True)
    class Hangs(Slow):
        def score(self, answers, question):
            free.wait(120)
            return Slow.score(self, answers, question)

    engine = dlm.Engine(random_decoder(tiny_spec(), 1), info_of(tiny_spec()))
    try:
        found = engine.search(
            PROMPT,
            "best_of(2)",
            verifier=Hangs(),
            budget={"seconds": 0.3},
            temperature=0.8,
            max_new_tokens=8,
        )
        assert not free.is_set()
    finally:
        free.set()
    assert found.reason == "budget"
    assert found.best.canvas


def test_of_equal_answers_that_of_the_first_node_is_the_best():
    expected = searched(Alike(), None)
    first = min(expected.candidates, key=lambda one: one.node)
    assert expected.best.ids == first.answer.ids
    for pauses, rows in ((1, 32), (2, 1), (3, 3), (4, 32)):
        found = searched(Alike(pauses=pauses), None, max_rows=rows)
        assert found.best.ids == expected.best.ids
        assert len(found.candidates) == len(expected.candidates) == 12
