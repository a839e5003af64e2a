"""The benchmarks of caches and batches run, and their numbers hang together."""

import pytest

from dlm import Engine
from dlm.evals.batching import alone, arrivals, batch_speed, gemm_seconds, serve
from dlm.evals.cache_speed import cache_speeds, lines
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPTS = [tuple(range(3, 3 + n)) for n in (2, 9, 4, 17, 6)]
OPTIONS = {"max_new_tokens": 12, "unmask": "topk", "blocks": "fixed(4)", "cache": "dual"}


@pytest.fixture
def engine():
    spec = tiny_spec()
    return Engine(random_decoder(spec), info_of(spec))


def test_rows_beside_the_machine(engine):
    one, four = (batch_speed(engine, PROMPTS, rows, OPTIONS) for rows in (1, 4))
    assert four.positions > 2 * one.positions
    assert one.calls == 1.0 < four.calls
    assert one.padding == four.padding == 0.0
    assert min(one.tokens_per_second, one.ceiling) > 0
    assert gemm_seconds(engine, 64, 8) > 0
    assert engine.kv.pages.in_use == 0


def test_requests_that_come_when_they_like(engine):
    times = arrivals(5, 200.0, seed=3)
    assert times == sorted(times)
    assert times == arrivals(5, 200.0, seed=3)
    engine.scheduler.max_rows = 2
    options = [OPTIONS] * 5
    for static in (False, True):
        found = serve(engine, PROMPTS, times, options, static=static)
        assert found.requests == 5
        assert 0 < found.p50 <= found.p95 <= found.last + times[0]
    assert alone(engine, PROMPTS, options).p50 > 0
    assert engine.kv.pages.in_use == 0


def test_caches_beside_none(engine):
    found = cache_speeds(
        engine, ("dual", "freecache"), prompt_tokens=8, new_tokens=32, steps=16, repeats=1
    )
    assert [s.cache for s in found] == ["none", "dual", "freecache"]
    assert found[0].speedup == found[0].positions == 1.0
    assert found[1].positions > 1
    assert all(s.nfe == 16 for s in found)
    assert len(lines(found)) == 5
