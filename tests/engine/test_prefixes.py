"""What requests have in common is computed once, and nothing else changes."""

import random

import pytest

from dlm import Engine
from dlm.core import SharedPrefix
from dlm.decode.pages import PrefixCache
from dlm.errors import InvalidRequest
from dlm.model.pages import PageTable
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

LONG = tuple(range(3, 60)) * 2  # 114 ids
OPTIONS = {"max_new_tokens": 24, "unmask": "threshold(0.6)", "stop": "none"}


def engine_of(block=4, seed=0, **options):
    spec = tiny_spec(attention="block_causal", block_length=block, shift=block == 8)
    return Engine(random_decoder(spec, seed), info_of(spec), **options)


def kept_pages(engine):
    return len(engine.manager.page_manager.prefixes.pages)


@pytest.mark.parametrize("block", [4, 8, 32])
def test_a_prefix_is_computed_once_and_answers_stay_the_same(block):
    plain, engine = engine_of(block), engine_of(block, prefix_bytes=1 << 24)
    unit = max(16, block)
    prompts = [LONG[:70], LONG[:70], (*LONG[:70], 5, 6), LONG[:40] + (9,) * 40, LONG[:110]]
    reused = []
    for prompt in prompts:
        ours, theirs = (e.generate(prompt, **OPTIONS) for e in (engine, plain))
        assert ours.canvas == theirs.canvas
        assert ours.stats.nfe == theirs.stats.nfe
        saved = theirs.stats.token_forwards - ours.stats.token_forwards
        assert saved == ours.stats.reused
        reused.append(ours.stats.reused)
        engine.scheduler.check_integrity()
    whole = 70 // unit * unit
    assert reused[:4] == [0, whole, whole, 40 // unit * unit]
    assert plain.generate(LONG, **OPTIONS).stats.reused == 0


def test_a_later_turn_goes_on_from_the_answer():
    """Final keys of the answer are kept, too."""
    engine, plain = engine_of(prefix_bytes=1 << 24), engine_of()
    first = engine.generate(LONG[:30], **{**OPTIONS, "max_new_tokens": 40})
    talk = (*first.canvas, 7, 8, 9)
    second = engine.generate(talk, **OPTIONS)
    assert second.stats.reused >= 64 - 16
    assert second.canvas == plain.generate(talk, **OPTIONS).canvas


def test_rows_that_run_together_share_as_soon_as_it_is_there():
    engine, plain = engine_of(prefix_bytes=1 << 24, max_rows=2), engine_of()
    prompts = [LONG[:64] + (n,) * 5 for n in range(3, 9)]
    ours, theirs = (e.generate(prompts, **OPTIONS) for e in (engine, plain))
    assert [a.canvas for a in ours] == [a.canvas for a in theirs]
    assert [a.stats.reused for a in ours][2:] == [64] * 4
    engine.scheduler.check_integrity()


def test_the_store_keeps_to_its_budget_and_forgets_the_longest_unused_ends():
    page = engine_of().kv.pages.page_bytes
    engine = engine_of(prefix_bytes=6 * page)
    for n in range(3, 9):
        engine.generate((n,) * 40, **OPTIONS)
        assert kept_pages(engine) <= 6
        engine.scheduler.check_integrity()
    assert engine.generate((8,) * 40, **OPTIONS).stats.reused == 32
    assert engine.generate((3,) * 40, **OPTIONS).stats.reused == 0


def test_kept_prefixes_make_room_for_rows():
    """The pool is as large as one row; the store gives way."""
    page = engine_of().kv.pages.page_bytes
    engine = engine_of(kv_bytes=9 * page, prefix_bytes=1 << 24)
    for n in (3, 4, 5, 3):
        answer = engine.generate((n,) * 90, **OPTIONS)  # 114 positions: 8 pages
        assert answer.canvas == engine_of().generate((n,) * 90, **OPTIONS).canvas
        engine.scheduler.check_integrity()
    engine.manager.page_manager.prefixes.clear()
    assert engine.kv.pages.in_use == 0


@pytest.mark.parametrize("cache", ["dual", "freecache('token')", "prefix"])
def test_a_frozen_prompt_is_shared_by_those_who_ask_the_same(cache):
    spec = tiny_spec()
    plain, engine = (
        Engine(random_decoder(spec), info_of(spec), prefix_bytes=n) for n in (0, 1 << 24)
    )
    name, _, rest = cache.partition("(")
    whole = f"{name}({rest.rstrip(')') + ', ' if rest else ''}frozen_prompt=True)"
    for prompt, reused in ((LONG[:70], 0), (LONG[:70], 64), (LONG[:90], 0), (LONG[:90], 80)):
        ours, theirs = (e.generate(prompt, **OPTIONS, cache=whole) for e in (engine, plain))
        assert ours.canvas == theirs.canvas
        assert ours.stats.reused == reused
        assert theirs.stats.token_forwards - ours.stats.token_forwards == reused
    chunks = whole.replace("True", "16")
    for prompt, reused in ((LONG[:70], 0), (LONG[:90], 64), ((*LONG[:40], *LONG[:9]), 32)):
        ours, theirs = (e.generate(prompt, **OPTIONS, cache=chunks) for e in (engine, plain))
        assert ours.canvas == theirs.canvas
        assert ours.stats.reused == reused
    engine.scheduler.check_integrity()


def test_models_whose_keys_change_share_nothing():
    spec = tiny_spec()
    engine = Engine(random_decoder(spec), info_of(spec), prefix_bytes=1 << 24)
    for _ in range(2):
        assert engine.generate(LONG, **OPTIONS, cache="dual").stats.reused == 0
    assert engine.kv.pages.in_use == 0
    with pytest.raises(
        InvalidRequest, match="`prefix_bytes`: must be an integer of at least 0, got -1"
    ):
        engine_of(prefix_bytes=-1)


def test_another_beginning_is_another_prefix():
    table = PageTable(16, 1, grow=lambda count: None)
    store, pages, how = PrefixCache(table, 1 << 24), table.reserve(4), SharedPrefix("final", 4)
    store.keep(range(64), pages, how)
    assert store.take([*range(48), 0], how) == pages[:3]
    assert store.take([1, *range(1, 64)], how) == []
    assert store.take(range(15), how) == []
    assert store.take(range(64), SharedPrefix("alone 4", 4)) == []
    table.release(pages[:3])
    table.release(pages)
    assert table.in_use == 4
    store.clear()
    table.check_integrity()
    assert table.in_use == 0


def test_a_random_history_keeps_every_count():
    rng = random.Random(1)
    page = engine_of().kv.pages.page_bytes
    engine = engine_of(prefix_bytes=10 * page, kv_bytes=40 * page, max_rows=4)
    plain = engine_of()
    starts = [tuple(rng.randrange(3, 60) for _ in range(48)) for _ in range(3)]
    for _ in range(12):
        prompts = [
            rng.choice(starts)[: rng.randint(1, 48)] + (rng.randrange(3, 60),) * rng.randint(1, 20)
            for _ in range(rng.randint(1, 5))
        ]
        requests = [engine.submit(prompt, **OPTIONS) for prompt in prompts]
        engine.step()
        requests[0].abort()
        engine.scheduler.check_integrity()
        for prompt, request in list(zip(prompts, requests, strict=True))[1:]:
            assert request.result().canvas == plain.generate(prompt, **OPTIONS).canvas
        engine.scheduler.check_integrity()


def test_a_row_says_how_much_it_holds():
    engine = engine_of(4)
    answer = engine.generate(LONG[:30], **OPTIONS)  # 54 positions: 4 pages, 56 of a whole block
    assert answer.stats.kv_bytes == 4 * engine.kv.pages.page_bytes
    both = engine.generate(LONG[:30], **OPTIONS, guide="cfg(1.5)")
    assert both.stats.kv_bytes == 2 * answer.stats.kv_bytes
