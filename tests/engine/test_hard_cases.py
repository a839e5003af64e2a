"""The hard cases of rules and caches together, each against its textbook twin."""

import itertools
import math

import pytest
import torch

from tests import twins
from tests.engine.harness import Bench
from tests.engine.near_ties import NEAR, Comparison
from tests.helpers import random_decoder, tiny_spec

VOCAB = 96
DELIMITERS = tuple(range(3, VOCAB, 7))
SEEDS = range(4)
EXACT = 1e-4  # other kernels, the same keys
STALE = 1e-3  # another program's arithmetic; a wrong key shows in the first digit


def decoder_of(seed, **changes):
    return random_decoder(tiny_spec(vocab_size=VOCAB, layers=3, **changes), seed)


def prompt_of(length, seed):
    """Ids of any kind; every fourth prompt spells the mask id."""
    ids = torch.randint(0, VOCAB - 1, (length,), generator=torch.Generator().manual_seed(seed))
    prompt = ids.tolist()
    if seed % 4 == 3:
        prompt[length // 2] = VOCAB - 1
    return prompt


def assert_same(trace, run, *, logits=None):
    """The same canvases after every step, one forward each, or they part at a near-tie; with
    `logits`, the numbers are as close as that wherever both have some.
    """
    pairs = enumerate(zip(trace.canvases, run.canvases, strict=False))
    parted = next((step for step, (ours, theirs) in pairs if ours != theirs), None)
    if parted is None:
        assert len(trace.canvases) == len(run.canvases)
        assert len(trace.forwards) == run.nfe.total()
    else:
        assert run.gaps[parted - 1] < NEAR, f"step {parted} differs"
    for forward, rows in list(zip(trace.forwards, run.logits, strict=False))[:parted]:
        shared = rows.keys() & forward.logits.keys()
        assert shared
        for position in shared if logits else ():
            assert float((forward.logits[position] - rows[position]).abs().max()) < logits


# a


@pytest.mark.parametrize("seed", SEEDS)
def test_adablock_opens_on_the_refresh_logits_while_other_rows_are_mid_block(seed):
    decoder = decoder_of(seed)
    bench = Bench(decoder, DELIMITERS)
    settings = [  # prompt, new tokens, block, delimiter threshold, threshold, steps before it
        (9, 40, 8, 0.3, 0.6, 0),
        (14, 28, 6, 0.45, 0.8, 1),
        (5, 33, 16, 0.2, 0.5, 3),
        (22, 24, 8, 1.0, 0.9, 4),  # no delimiter is ever sure enough: blocks of 8
    ]
    rows = []
    for n, (length, new, block, sure, threshold, _) in enumerate(settings):
        options = {
            "max_new_tokens": new,
            "blocks": f"adaptive({block}, threshold={sure})",
            "unmask": f"threshold({threshold})",
            "cache": "dual",
            "stop": "none",
        }
        rows.append(bench.state(prompt_of(length, 10 * seed + n), **options))
    traces = bench.run(*rows, after={n: row[5] for n, row in enumerate(settings)})
    lengths = set()
    for state, trace, (length, new, block, sure, threshold, _) in zip(
        rows, traces, settings, strict=True
    ):
        close = twins.adablock(length, block, sure, DELIMITERS)
        run = twins.frozen(decoder, state.prompt, new, threshold, close)
        assert_same(trace, run, logits=STALE)
        assert dict(state.ledger.forwards) == dict(run.nfe)
        lengths |= {e.pos[1] - e.pos[0] for e in state.events if e.type == "block"}
    assert len(lengths) > 4, "the logits hardly decided any block end"


# b


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cache", ["dual", "prefix"])
def test_shifted_family_reads_the_query_before_the_window(cache, seed):
    decoder = decoder_of(seed, shift=True, qkv_bias=True)
    prompt = prompt_of(7 + seed, seed)
    options = {"max_new_tokens": 30, "blocks": "fixed(8)", "unmask": "threshold(0.6)"}
    trace = Bench(decoder).decode(prompt, **options, cache=cache, stop="none")
    run = twins.frozen(decoder, prompt, 30, 0.6, twins.every(8), suffix=cache == "prefix")
    assert_same(trace, run, logits=STALE)
    start = len(prompt)
    restrict = [f for f in trace.forwards if len(f.queries) < len(trace.canvases[0])]
    assert restrict
    for forward in restrict:
        assert set(forward.queries) - forward.written == {min(forward.written) - 1}
        assert forward.ages[start - 1] > 0, "the query before the window must not write"


def test_stale_keys_make_a_difference():
    """Were caches exact on these tiny models, the tests above would prove nothing."""
    for shift in (False, True):
        decoder, prompt = decoder_of(1, shift=shift), prompt_of(9, 1)
        runs = [
            Bench(decoder).decode(
                prompt, max_new_tokens=32, blocks="fixed(16)", unmask="threshold(0.6)", cache=cache
            )
            for cache in ("none", "prefix", "dual")
        ]
        finals = [run.canvases[-1] for run in runs]
        assert finals[0] != finals[1] != finals[2] != finals[0]


# d


@pytest.mark.parametrize("shift", [False, True], ids=["plain", "shifted"])
@pytest.mark.parametrize("width", [4, 8], ids=["trained", "twice"])
@pytest.mark.parametrize("tail", [0, 1, 3])
def test_stores_ride_with_the_next_blocks_first_step(tail, width, shift):
    """`tail` ids of the prompt share the first block; `twice`: blocks of two trained ones."""
    seed = 8 * tail + 2 * width + shift
    decoder = decoder_of(seed, attention="block_causal", block_length=4, shift=shift, qk_norm=True)
    prompt, new = prompt_of(8 + tail, seed), 41
    unmask = f"dynamic(0.5, {width // 2})"
    options = {"max_new_tokens": new, "blocks": f"fixed({width})", "stop": "none"}
    bench = Bench(decoder)
    state = bench.state(prompt, **options, unmask=unmask)
    (stored,) = bench.run(state)
    plain = Bench(decoder).decode(prompt, **options, unmask=unmask, cache="none")
    run = twins.sdar(decoder, prompt, new, width, width // 2, 0.5)
    assert_same(stored, run, logits=EXACT)
    assert_same(plain, run, logits=EXACT)
    assert state.ledger.nfe == run.nfe.total(), "a forward that only stores"
    opened = {e.step: e.pos for e in state.events if e.type == "block"}
    stored_to, start, end = 0, 0, 0
    for step, forward in enumerate(stored.forwards, start=1):
        first = start
        if step in opened:  # what is not stored yet rides along
            first, (start, end) = stored_to, opened[step]
            stored_to = start
        assert forward.written == set(range(first, end))
        assert forward.ages.keys() == set(range(end))
        look = {start - 1} if shift and start not in range(len(prompt)) else set()
        assert set(forward.queries) == forward.written | look
        assert not forward.foreign
    assert len(opened) > 5


@pytest.mark.parametrize("seed", SEEDS)
def test_ragged_block_causal_rows_share_forwards(seed):
    """Prefill, store and plain steps of different rows in one forward."""
    decoder = decoder_of(seed, attention="block_causal", block_length=4)
    bench = Bench(decoder)
    lengths = (3, 12, 5, 18)
    states = [
        bench.state(
            prompt_of(length, seed + length),
            max_new_tokens=10 + 3 * n,
            unmask=f"dynamic({0.3 + 0.2 * n}, {n + 1})",
            stop="none",
        )
        for n, length in enumerate(lengths)
    ]
    traces = bench.run(*states, after={1: 2, 3: 5})
    for n, (state, trace) in enumerate(zip(states, traces, strict=True)):
        run = twins.sdar(decoder, state.prompt, 10 + 3 * n, 4, n + 1, 0.3 + 0.2 * n)
        assert_same(trace, run, logits=EXACT)


# e


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shift", [False, True], ids=["plain", "shifted"])
@pytest.mark.parametrize("cache", ["none", 'dual(on_edit="requery")'])
def test_rcr_over_several_blocks(cache, shift, seed):
    """Row scope: tokens of finished blocks are reopened, and filled again by later steps."""
    decoder = decoder_of(seed, shift=shift)
    prompt = prompt_of(6 + seed, seed)
    options = {"max_new_tokens": 24, "blocks": "fixed(8)", "stop": "none", "cache": cache}
    trace = Bench(decoder).decode(prompt, **options, unmask="everything", edit="rcr(15)")
    cached = cache != "none"
    run = twins.mdpo(decoder, prompt, 24, 8, 15, lambda r: 1 - r, cached=cached)
    assert_same(trace, run, logits=STALE)
    reopened = [
        p
        for before, after in itertools.pairwise(trace.canvases)
        for p in range(len(prompt), len(before))
        if before[p] != VOCAB - 1 and after[p] == VOCAB - 1
    ]
    assert reopened
    assert cached == any(len(f.queries) < len(run.ids) for f in trace.forwards)


def test_rcr_reaches_behind_the_block():
    """The seeds above do show what they are meant to show, and the stale keys matter."""
    behind = different = 0
    for seed in SEEDS:
        decoder, prompt = decoder_of(seed), prompt_of(6 + seed, seed)
        runs = [
            twins.mdpo(decoder, prompt, 24, 8, 15, lambda r: 1 - r, cached=cached)
            for cached in (False, True)
        ]
        different += runs[0].ids != runs[1].ids
        for step, canvas in enumerate(runs[1].canvases[6:], start=6):
            behind += VOCAB - 1 in canvas[len(prompt) : len(prompt) + 8] and step > 5
    assert behind > 2
    assert different > 1


# k


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("score", ["confidence", "entropy"])
def test_eps_schedule_with_more_steps_than_tokens(score, seed):
    decoder, prompt = decoder_of(seed, shift=True), prompt_of(8, seed)
    options = {"max_new_tokens": 20, "steps": 31, "blocks": "whole", "stop": "none"}
    trace = Bench(decoder).decode(prompt, **options, unmask=f"topk({score!r}, 'eps')")
    run = twins.dream(decoder, prompt, 20, 31, score)
    assert_same(trace, run)
    idle = [a == b for a, b in itertools.pairwise(run.canvases)]
    assert sum(idle) > 5
    assert idle[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_even_schedule_with_more_steps_than_masks(seed):
    """One token a step, and no forward for the steps that are left over."""
    decoder, prompt = decoder_of(seed), prompt_of(9, seed)
    options = {"max_new_tokens": 16, "steps": 44, "blocks": "fixed(4)", "unmask": "topk"}
    trace = Bench(decoder).decode(prompt, **options, stop="none")
    run = twins.llada(decoder, prompt, 16, 4, 44)
    assert_same(trace, run)
    assert run.nfe.total() == 16


CURVES = {"linear": lambda r: 1 - r, "cosine": lambda r: math.cos(r * math.pi / 2)}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("curve", CURVES)
def test_curves_with_more_steps_than_masks(curve, seed):
    decoder, prompt = decoder_of(seed), prompt_of(9, seed)
    options = {"max_new_tokens": 16, "steps": 26, "blocks": "fixed(8)", "stop": "none"}
    trace = Bench(decoder).decode(prompt, **options, unmask=f"topk(schedule={curve!r})")
    run = twins.mdpo(decoder, prompt, 16, 8, 26, CURVES[curve], rcr=False)
    assert_same(trace, run)
    assert len({tuple(c) for c in run.canvases}) < len(run.canvases), "no idle step"


# l

MIXED = [
    {"unmask": "threshold(0.5)", "blocks": "fixed(8)", "cache": "dual", "temperature": 0.7},
    {"unmask": "threshold(0.8)", "blocks": "fixed(5)", "cache": "dual", "temperature": 1.3},
    {"unmask": "topk('entropy')", "blocks": "fixed(6)", "steps": 12, "top_p": 0.9},
    {"unmask": "everything", "edit": "rcr(12)", "blocks": "fixed(12)", "temperature": 0.4},
    {"unmask": "topk('random')", "blocks": "whole", "top_k": 5, "temperature": 1.0, "seed": 3},
    {"unmask": "threshold(0.7)", "blocks": "adaptive(8)", "cache": "prefix", "guide": "forbid"},
    {"unmask": "threshold(0.6)", "blocks": "pipeline(4, 0.2, 0.4)", "guide": "cfg(0.5)"},
    {"unmask": "threshold(0.9)", "blocks": "pipeline(6, 0.3, 1.0)", "guide": "cfg(1.5)"},
]


@pytest.mark.parametrize("seed", SEEDS)
def test_mixed_batch_equals_each_alone(seed):
    """Rows of different classes of parts, and with different numbers of the same classes."""
    decoder = decoder_of(seed, shift=seed == 1)
    prompts = [prompt_of(4 + 3 * n, 20 * seed + n) for n in range(len(MIXED))]
    bench = Bench(decoder, DELIMITERS)
    states = [
        bench.state(p, path=n, **({"max_new_tokens": 24} | options))
        for n, (p, options) in enumerate(zip(prompts, MIXED, strict=True))
    ]
    together = bench.run(*states, after={1: 1, 4: 2})
    groups = {type(t.bound.parts.unmask) for t in states}
    assert len(groups) == 3
    comparison = Comparison(DELIMITERS)
    for n, (prompt, options) in enumerate(zip(prompts, MIXED, strict=True)):
        request = {"prompt": prompt, "path": n, "max_new_tokens": 24, **options}
        alone = Bench(decoder, DELIMITERS)
        state = alone.state(**request)
        (trace,) = alone.run(state)
        comparison.same(decoder, request, together[n].canvases, trace.canvases)
        if together[n].canvases == trace.canvases:
            assert state.ledger == states[n].ledger
            assert state.canvas.reason == states[n].canvas.reason
    comparison.close()
