"""Wrong requests for a search: refused before any work, by the names that the user has written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import dlm
from dlm.errors import InvalidRequest
from dlm.search.budget import SearchBudget
from dlm.search.names import POLICIES, VERIFIERS, called
from dlm.search.searcher import parse_policy
from dlm.search.verifiers.parsing import parse_verifier

PROMPT = "Countdown: use 2 10 3 to make 9."
OPTIONS = {"temperature": 1.0, "max_new_tokens": 24, "seed": 1}


@pytest.fixture(scope="module")
def engine() -> dlm.Engine:
    return dlm.load(device="cpu")


def refused(call: Callable[[], Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("best_of(0)", "`n` must be an integer of at least 1, got 0"),
        ("best_of('x')", "`n` must be an integer, got 'x'"),
        ("best_of(m=2)", "an argument of best_of must be one of 'n', 'width', got 'm'"),
        ("prism(n=2, keep=3)", "`keep` must be at most `n`, which is 2, got 3"),
        ("beam(remask=0.5, lookahead=0)", "`lookahead` must be at least 1 with `remask`, got 0"),
        ("prism(n=2)", "`keep` must be at most `n`, which is 2, got 4"),
        ("neighbours(select='drip')", "`select` must be one of"),
        ("neighbours(select='random(3)')", "`select`: 'random' takes at most 0 arguments"),
    ],
)
def test_arguments_of_policies_are_named_in_one_way(spec: str, told: str) -> None:
    error = refused(lambda: parse_policy(spec))
    assert error.param == "search"
    assert error.message.startswith(told)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("pll(rate=0.0)", "`rate` must be more than 0"),
        ("pll(rate='x')", "`rate` must be a finite number, got 'x'"),
        ("pll(rat=1.0)", "an argument of pll must be one of"),
        ("ensemble('confidence', 'pll')", "`members` must be a tuple, such as ('a', 'b'), got"),
    ],
)
def test_arguments_of_verifiers_are_named_in_the_same_way(spec: str, told: str) -> None:
    error = refused(lambda: parse_verifier(spec))
    assert error.param == "verifier"
    assert error.message.startswith(told)


def test_lists_are_taken_for_tuples() -> None:
    same = "ensemble(('confidence', 'pll'))", "ensemble(['confidence', 'pll'])"
    assert parse_verifier(same[0]) == parse_verifier(same[1])
    same = "cascade(('best_of', 'tree'), (0.5,))", "cascade(['best_of', 'tree'], [0.5])"
    assert parse_policy(same[0]) == parse_policy(same[1])
    assert hash(parse_policy(same[1])) == hash(parse_policy(same[0]))
    error = refused(lambda: parse_policy("cascade(['best_of', 'tree'], ['half'])"))
    assert error.message == "`shares` must be a tuple, each a finite number, got ('half',)"


@dataclass(frozen=True, slots=True)
class Mine(dlm.Policy):
    """A policy without a registered name."""


def test_parts_are_called_as_users_call_them() -> None:
    for registry in (POLICIES, VERIFIERS):
        for name in registry.names():
            assert called(object.__new__(registry.load(name))) == name
    assert called(Mine()) == "Mine"


def test_refusals_name_parts_as_users_do(engine: dlm.Engine) -> None:
    error = refused(lambda: engine.search(PROMPT))
    assert (error.param, "for best_of, whose" in error.message) == ("temperature", True)
    asked = {"verifier": "exact_answer('9')", **OPTIONS}
    error = refused(lambda: engine.search(PROMPT, **asked))
    assert error.message.startswith("exact_answer knows the right answer")


@pytest.mark.parametrize(
    ("prompt", "asked", "told"),
    [
        ("Hello", {"verifier": "countdown"}, "countdown needs a prompt with 'Countdown: use 3 7 2"),
        (PROMPT, {"verifier": "sudoku"}, "sudoku needs a prompt with 'Sudoku:' and then 4 or 9"),
        ("Hello", {"verifier": "rules"}, "rules needs a prompt with 'Countdown: use 3 7 2"),
        ([5, 6], {"verifier": "rules"}, "rules reads the words of the prompt"),
        ("Hello", {"search": "vote", "verifier": "pll"}, "pll is of no use to vote"),
    ],
)
def test_verifiers_that_do_not_suit_are_told(
    engine: dlm.Engine, prompt: Any, asked: dict[str, Any], told: str
) -> None:
    error = refused(lambda: engine.search(prompt, **asked, **OPTIONS))
    assert (error.param, error.message.startswith(told)) == ("verifier", True), error.message


@pytest.mark.parametrize(
    ("param", "given"),
    [
        ("verifier", {"verifier": "confident"}),
        ("verifier", {"verifier": "exact_answer('9')"}),
        ("budget", {"budget": {"forwards": 3}}),
        ("budget.nfe", {"budget": {"nfe": 0}}),
        ("target", {"target": float("nan")}),
        ("target", {"target": "high"}),
        ("on_improve", {"on_improve": 3}),
        ("temperature", {}),
    ],
)
def test_the_temperature_is_looked_at_last(
    engine: dlm.Engine, param: str, given: dict[str, Any]
) -> None:
    assert refused(lambda: engine.search(PROMPT, "best_of(2)", **given)).param == param


def test_who_is_told_must_be_a_function(engine: dlm.Engine) -> None:
    error = refused(lambda: engine.search(PROMPT, on_improve=3, **OPTIONS))  # type: ignore[arg-type]
    assert str(error) == "`on_improve`: must be a function, got 3"
    assert engine.kv.pages.usage == 0


@pytest.mark.parametrize("seconds", [0, 0.0, -1, float("nan"), float("inf"), "1", True])
def test_seconds_must_be_above_nothing(seconds: Any) -> None:
    error = refused(lambda: SearchBudget.from_options({"seconds": seconds}))
    assert error.param == "budget.seconds"
    assert error.message.startswith("must be a finite number above 0, got ")
