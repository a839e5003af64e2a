"""Long and short requests side by side: nobody waits longer than those before it make it."""

import pytest

from dlm import Engine
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

OPTIONS = {"unmask": "topk", "blocks": "fixed(8)", "stop": "none"}
PAGE = 16 * tiny_spec().kv_bytes_per_token(4)


def engine_of(**options):
    spec = tiny_spec()
    return Engine(random_decoder(spec), info_of(spec), **options)


def steps_until_done(engine, requests):
    """After how many steps of the engine each request is done."""
    done, steps = {}, 0
    while len(done) < len(requests):
        engine.step()
        steps += 1
        done |= {i: steps for i, r in enumerate(requests) if r.done and i not in done}
    return [done[i] for i in range(len(requests))]


@pytest.mark.parametrize("bounds", [{}, {"max_token_forwards": 80}])
def test_a_long_request_steps_with_every_step_and_short_ones_pass_it(bounds):
    """One token a step: 48 steps for the long one whatever runs beside it, 8 for each short one."""
    engine = engine_of(max_rows=2, **bounds)
    long = engine.submit([5, 9, 33], max_new_tokens=48, **OPTIONS)
    short = [engine.submit([7, 8], max_new_tokens=8, **OPTIONS) for _ in range(5)]
    found = steps_until_done(engine, [long, *short])
    assert found == [48, 8, 16, 24, 32, 40], "a free place is filled in the next step"


def test_who_waits_for_pages_is_not_overtaken():
    """Small requests that would fit wait behind a large one, then share what it leaves: a page."""
    engine = engine_of(max_rows=8, kv_bytes=6 * PAGE)  # one of them is the trash page
    first = engine.submit([5] * 8, max_new_tokens=24, **OPTIONS)  # 2 pages of 5
    large = engine.submit([5] * 8, max_new_tokens=56, **OPTIONS)  # 4 pages
    small = [engine.submit([7], max_new_tokens=8, **OPTIONS) for _ in range(3)]  # 1 page each
    engine.step()
    assert engine.scheduler.live == 1
    found = steps_until_done(engine, [first, large, *small])
    assert found == [23, 79, 31, 39, 47]


def test_an_aborted_row_is_gone_at_once_and_the_next_step_refills_its_place():
    engine = engine_of(max_rows=1)
    first = engine.submit([5, 9], max_new_tokens=32, **OPTIONS)
    second = engine.submit([7], max_new_tokens=8, **OPTIONS)
    engine.step()
    first.abort()
    assert engine.kv.pages.in_use == 0
    assert engine.scheduler.live == 0
    assert steps_until_done(engine, [second]) == [8]
    assert first.result().finish_reason == "abort"
