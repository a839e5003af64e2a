"""The overhead benchmarks run, and their parts add up."""

import pytest

import dlm
from dlm import Engine
from dlm.evals.search.overhead import search_overhead
from dlm.evals.speed import PHASES, step_overhead
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec


def test_step_overhead_measures_steps_and_phases():
    spec = tiny_spec()
    engine = Engine(random_decoder(spec), info_of(spec))
    found = step_overhead(engine, prompt_tokens=8, window=6, repeats=2)
    assert found.pairs == 2 * 5, "all steps but the one that opens the block"
    assert min(found.cpu) > 0
    assert set(found.phases) == set(PHASES)
    assert "step / forward" in str(found)
    assert engine.kv.pages.in_use == 0


def test_search_overhead_compares_the_same_rows():
    found = search_overhead(dlm.load(), rows=3, repeats=2, max_new_tokens=8, unmask="topk")
    assert found.forwards == 3 * 8
    assert len(found.cpu) == len(found.wall) == 2
    assert 0 < found.ratio < 10
    assert "generate(n=3)" in str(found)


def test_work_that_differs_is_not_timed(monkeypatch):
    search = Engine.search
    monkeypatch.setattr(
        Engine, "search", lambda self, *asked, **more: search(self, *asked, **more, seed=1)
    )
    with pytest.raises(RuntimeError, match="different numbers of forwards"):
        search_overhead(dlm.load(), rows=3, repeats=1, unmask="threshold(0.5)")
