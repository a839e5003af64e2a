"""Shadow tokens: WINO against its twin, and what a plan with shadows must keep."""

import numpy as np
import pytest
import torch

from dlm.core import Extra, ForwardPlan, Segment, span
from dlm.decode.packing import pack
from dlm.errors import InvalidRequest
from dlm.model.kv_store import KVPool
from dlm.unmasking.edit.wino import NarrowOut
from dlm.unmasking.unmask.wide_in import WideIn
from tests import twins
from tests.engine.harness import CPU, Bench
from tests.engine.test_hard_cases import EXACT, SEEDS, STALE, assert_same, decoder_of, prompt_of

OPTIONS = {"stop": "none", "max_new_tokens": 24, "blocks": "fixed(12)"}


def rules(sure, back):
    return {"unmask": WideIn(sure), "edit": NarrowOut(back), **OPTIONS}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("sure", "back"), [(0.3, 0.5), (0.15, 0.3), (0.5, 0.9)])
def test_wino_equals_its_twin(seed, sure, back):
    decoder = decoder_of(seed)
    prompt = prompt_of(7 + seed, seed)
    bench = Bench(decoder)
    state = bench.state(prompt, **rules(sure, back))
    (trace,) = bench.run(state)
    run = twins.wino(decoder, prompt, 24, 12, sure, back)
    assert_same(trace, run, logits=STALE)
    reopened = sum(e.type == "remask" for e in state.events)
    assert state.ledger.token_forwards == state.ledger.nfe * (len(run.ids) + 12)
    assert reopened or sure == 0.5


def test_rows_with_shadows_in_one_batch():
    """Blocks at different places, other rows without shadows, two inputs of one row."""
    decoder = decoder_of(2)
    bench = Bench(decoder)
    settings = [(5, 0.15, 0.3), (14, 0.3, 0.5), (9, 0.2, 0.6)]
    states = [
        bench.state(prompt_of(n, n), **rules(sure, back), cache="none")
        for n, sure, back in settings
    ]
    plain = bench.state(prompt_of(8, 1), **OPTIONS, unmask="threshold(0.4)")
    guided = bench.state(prompt_of(6, 4), **rules(0.2, 0.4), guide="cfg(0.7)")
    traces = bench.run(*states, plain, guided, after={1: 2})
    for trace, (length, sure, back) in zip(traces, settings, strict=False):
        run = twins.wino(decoder, prompt_of(length, length), 24, 12, sure, back)
        assert_same(trace, run, logits=STALE)
    alone = Bench(decoder)
    (solo,) = alone.run(alone.state(prompt_of(6, 4), **rules(0.2, 0.4), guide="cfg(0.7)"))
    assert solo.canvases == traces[-1].canvases


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_shadows_see_the_keys_that_the_cache_keeps(cache):
    """Inside the block the keys are fresh, so with one block all caches agree."""
    decoder, prompt = decoder_of(1), prompt_of(9, 1)
    options = rules(0.2, 0.4) | {"blocks": "fixed(24)"}
    runs = []
    for name in ("none", cache):
        bench = Bench(decoder)
        state = bench.state(prompt, **options, cache=name)
        runs.append((bench.run(state)[0], state))
    (plain, _), (cached, state) = runs
    assert cached.canvases[1] == plain.canvases[1]
    assert any(e.type == "remask" for e in state.events)
    assert all(len(f.queries) <= len(prompt) + 24 for f in cached.forwards)


def test_a_shadow_sees_all_but_what_its_mask_hides():
    """Logits of the real tokens are those without shadows; a shadow that sees everything else."""
    decoder = decoder_of(3)
    ids = torch.randint(0, 90, (1, 10), generator=torch.Generator().manual_seed(1))
    where = span(4, 7)
    hidden = np.ones((3, 13), dtype=np.bool_)
    hidden[np.arange(3), where] = False
    extra = Extra(np.full(3, 95), where, hidden)
    outs = []
    for shadows in (None, extra):
        pool = KVPool(decoder.spec, device=CPU, dtype=torch.float32)
        pages = torch.tensor([[pool.pages.reserve(1)]])
        segment = Segment(0, 0, span(0, 10), 10, write=True, predict=span(2, 10), extra=shadows)
        plan = ForwardPlan((segment,), ("step",), pages, 10)
        packed = pack([plan], pool.store, shift=False, device=CPU)
        with torch.inference_mode():
            outs.append(decoder(packed.read([ids]), pool.store))
        assert plan.token_forwards == [10 + 3 * (shadows is not None)]
        assert len(packed.write_slots) == 10, "a shadow stores no key"
    plain, shadowed = outs
    assert torch.allclose(plain, shadowed[:8], atol=EXACT)
    places = [*range(10), *where.tolist()]
    sees = [[k < 10 for k in range(13)] for _ in range(10)] + hidden.tolist()
    rows = twins.seeing(decoder, [*ids[0].tolist(), 95, 95, 95], places, sees)
    assert torch.allclose(shadowed[8:], rows[10:], atol=STALE)


def test_shadows_are_refused_where_they_cannot_stand():
    bench = Bench(decoder_of(0, shift=True))
    with pytest.raises(InvalidRequest, match="predict their own position"):
        bench.state(prompt_of(5, 0), **rules(0.3, 0.5))


def test_rows_with_shadows_draw_with_their_own_numbers():
    """Temperature, and numbers of the rules that differ from row to row."""
    decoder = decoder_of(5)
    settings = [
        {"unmask": WideIn(0.05, least=1, most=1), "temperature": 0.0, "seed": 1},
        {"unmask": WideIn(0.05, least=9, most=12), "temperature": 0.8, "seed": 2},
        {"unmask": WideIn(0.3), "temperature": 0.5, "seed": 3},
    ]
    bench = Bench(decoder)
    states = [
        bench.state(prompt_of(6 + n, n), **OPTIONS, edit=NarrowOut(0.3 + n / 10), **options)
        for n, options in enumerate(settings)
    ]
    together = bench.run(*states)
    for n, (trace, options) in enumerate(zip(together, settings, strict=True)):
        edit = NarrowOut(0.3 + n / 10)
        alone = Bench(decoder).decode(prompt_of(6 + n, n), **OPTIONS, edit=edit, **options)
        assert trace.canvases == alone.canvases
    assert len(together[0].forwards) > len(together[1].forwards)


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_a_block_that_begins_in_the_prompt_has_shadows_of_the_answer_alone(length):
    bench = Bench(decoder_of(1, attention="block_causal", block_length=4))
    options = {"unmask": WideIn(0.2), "edit": NarrowOut(0.6), "cache": "none"}
    state = bench.state(prompt_of(length, 3), **options, stop="none", max_new_tokens=9)
    (trace,) = bench.run(state)
    end = (length // 4 + 1) * 4
    assert trace.forwards[0].computed == end + (end - length)
    assert not any(at < length for e in state.events if e.type == "remask" for at in e.pos)
    assert state.canvas.reason == "length"
