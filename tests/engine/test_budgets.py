"""Budgets: what a row may cost."""

import pytest

import dlm
from dlm import Engine
from dlm.errors import InvalidRequest
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = (5, 9, 33, 12)
PLAIN = {"max_new_tokens": 16, "unmask": "topk"}


def new_engine(**options):
    spec = tiny_spec()
    return Engine(random_decoder(spec), info_of(spec), **options)


@pytest.mark.parametrize("unroll", [1, 4])
@pytest.mark.parametrize("cache", ["none", "dual"])
@pytest.mark.parametrize("forwards", [1, 5, 15])
def test_a_row_ends_after_so_many_forwards(forwards, cache, unroll):
    """What it has committed by then is what an unbounded row had after as many."""
    engine = new_engine(unroll=unroll)
    options = {**PLAIN, "cache": cache, "trace": True}
    bounded = engine.generate(PROMPT, **options, stop=["none", f"max_nfe({forwards})"])
    whole = engine.generate(PROMPT, **options, stop="none")
    assert bounded.finish_reason == "max_nfe"
    assert bounded.stats.nfe == forwards
    early = [e for e in whole.trace if e.type == "commit" and e.step <= forwards]
    assert [e for e in bounded.trace if e.type == "commit"] == early
    assert engine.kv.pages.in_use == 0


def test_a_budget_that_is_not_used_up_changes_nothing():
    engine = new_engine()
    free = engine.generate(PROMPT, **PLAIN)
    for stop in ("max_nfe(16)", "max_nfe(999)", "max_seconds(1000)"):
        bound = engine.generate(PROMPT, **PLAIN, stop=stop)
        assert bound.canvas == free.canvas
        assert bound.finish_reason == free.finish_reason


def test_the_end_rule_stays_beside_a_budget():
    """`stop="max_nfe(9)"` does not switch the end id off; rows with and without share forwards."""
    engine = dlm.load("tiny", device="cpu")
    text = "Say the word lion four times."
    plain, bounded, tight = (
        engine.submit(text, stop=stop) for stop in (None, "max_nfe(99)", "max_nfe(1)")
    )
    assert plain.result().finish_reason == bounded.result().finish_reason == "stop"
    assert plain.result().text == bounded.result().text
    assert tight.result().stats.nfe == 1
    assert "MaxNFE(forwards=9)" in str(engine.explain(stop="max_nfe(9)"))
    assert "Eos(" in str(engine.explain(stop="max_nfe(9)"))


def test_an_answer_that_is_complete_in_time_is_a_stop():
    engine = dlm.load("tiny", device="cpu")
    text = "Say the word lion four times."
    nfe = engine.generate(text).stats.nfe
    assert engine.generate(text, stop=f"max_nfe({nfe})").finish_reason == "stop"


def test_a_row_ends_when_its_time_is_over(monkeypatch):
    """The clock moves a second a look: one at admission, one a step."""
    engine = new_engine()
    now = iter(range(10_000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))
    request = engine.submit(PROMPT, **PLAIN, stop=["none", "max_seconds(5)"])
    steps = 0
    while not request.done:
        engine.step()
        steps += 1
    answer = request.result()
    assert answer.finish_reason == "max_seconds"
    assert answer.stats.nfe == steps < 16
    assert tiny_spec().mask_id in answer.canvas


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ("max_nfe(0)", "`forwards` must be at least 1, got 0"),
        ("max_seconds(0)", "`seconds` must be greater than 0, got 0"),
        ("max_nfe()", "forwards"),
        (["none", "eos"], "'none' must stand alone or beside texts, budgets"),
        (["none", "max_nfe(3)", "END"], "stop strings need a tokenizer"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(stop, message):
    with pytest.raises(InvalidRequest, match=message):
        new_engine().submit(PROMPT, **PLAIN, stop=stop)


@pytest.mark.parametrize("unroll", [1, 3, 8])
def test_a_row_that_is_full_with_its_last_forward_has_its_length(unroll):
    """However seldom the host looks."""
    engine = new_engine(unroll=unroll)
    options = {"max_new_tokens": 6, "unmask": "topk", "blocks": "whole"}
    for forwards, reason in ((5, "max_nfe"), (6, "length")):
        answer = engine.generate(PROMPT, **options, stop=["none", f"max_nfe({forwards})"])
        assert (answer.finish_reason, answer.stats.nfe) == (reason, forwards)
