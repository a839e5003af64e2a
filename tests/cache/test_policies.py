"""Every policy for bidirectional models against a twin with explicit keys, and its contract."""

import re
from collections import Counter
from types import SimpleNamespace

import pytest

import dlm
from dlm.errors import InvalidRequest
from dlm.evals.items import bundled_items
from tests import twins
from tests.engine.harness import Bench, open_positions
from tests.engine.test_hard_cases import assert_same, decoder_of, prompt_of

NEW = 32
CLOSE = 1e-4  # in float64 but for norms; a key of another step is off by 0.1 and more


def reusing(decoder, prompt, new, block, threshold, queries, chunk=None):
    """Decode with explicit keys. `queries(now)` says what a step computes: its kind, positions, and
    the end of what it may see. `chunk`: the prompt's keys are made alone, chunk by chunk.
    """
    run, keys = twins.Run(decoder, prompt, len(prompt) + new), twins.Keys(decoder)
    length, steps, born = len(run.ids), 0, {}
    for start in range(0, len(prompt), chunk) if chunk else ():
        end = min(start + chunk, len(prompt))
        keys.forward(run.ids, range(start, end), end=end)
    for start in range(len(prompt), length, block):
        end, age = min(start + block, length), 0
        while not run.open.isdisjoint(range(end)):
            unseen = {p for p, token in enumerate(run.ids) if keys.kv_ids_spec.get(p) != token}
            now = SimpleNamespace(
                step=steps, age=age, start=start, end=end, prompt=len(prompt), length=length,
                open=set(run.open), unseen=unseen, born=born,
            )  # fmt: skip
            kind, write, seen = queries(now)
            write = {p for p in write if (len(prompt) if chunk else 0) <= p < seen}
            wanted = {p for p in run.open if p < end and (p in write or decoder.spec.shift)}
            wanted = {p for p in wanted if p < seen and p >= min(write)}
            look = sorted({p - 1 for p in wanted} - write) if decoder.spec.shift else []
            rows = keys.forward(run.ids, write, look, seen)
            guesses = run.guesses(kind, rows, wanted)
            sure = [p for p, (_, c) in guesses.items() if c >= threshold]
            for _, c in guesses.values():
                run.decided(abs(c - threshold))
            chosen = sure or run.best({p: c for p, (_, c) in guesses.items()}, 1)
            run.commit(chosen, guesses)
            born |= dict.fromkeys(chosen, steps)
            run.end_step()
            steps, age = steps + 1, age + 1
    return run


def everything(now, kind="refresh step"):
    return kind, range(now.length), now.length


def periodic(every, rest):
    return lambda now: everything(now) if now.age % every == 0 else rest(now)


def block_alone(now):
    return "step", range(now.start, now.end), now.length


def block_and_rest(now):
    return "step", range(now.start, now.length), now.length


def vicinity(before, after, warmup):
    def queries(now):
        if now.age == 0 or now.step < warmup:
            return everything(now)
        return "step", range(now.start - before, min(now.end + after, now.length)), now.length

    return queries


def freecache(begin, window=None):
    def queries(now):
        if now.step == 0:
            return everything(now, "prefill step")
        first = min(now.open | now.unseen)
        if window is not None:
            seen = min(min(now.open) + window, now.length)
            return "step", range(min(min(now.open) - window, first), seen), seen
        return "step", range(begin(now, first), now.length), now.length

    return queries


def delayed(every, warmup):
    def queries(now):
        if now.age % every == 0 or now.step < warmup:
            return everything(now)
        return "step", now.open | now.unseen, now.length

    return queries


def delayed_blocks(block, delay, every=10**9):
    def queries(now):
        begin, waits = now.prompt, False
        while begin < now.length and not waits:
            own = range(begin, min(begin + block, now.length))
            if not now.open.isdisjoint(own):
                break
            waits = now.step - 1 - max(now.born[p] for p in own) < delay
            begin += 0 if waits else len(own)
        fresh = waits or now.step % every == 0
        return "refresh step" if fresh else "step", range(0 if fresh else begin, now.end), now.end

    return queries


def oldest(trace):
    """How many forwards old the oldest key was that one has read."""
    return max(age for forward in trace.forwards for age in forward.ages.values())


@pytest.mark.parametrize("unroll", [1, 4])
def test_the_stats_say_how_old_the_keys_were(unroll):
    """Blocks of 8 take 8 steps each; a row joins late. Idle forwards are nobody's steps."""
    expected = {"none": 0, "dual": 7, "dual(every=3)": 2, "freecache('token')": 15}
    bench = Bench(decoder_of(0), unroll=unroll)
    options = {"max_new_tokens": 16, "blocks": "fixed(8)", "unmask": "topk", "stop": "none"}
    states = [bench.state(prompt_of(7, i), **options, cache=c) for i, c in enumerate(expected)]
    states += [bench.state(prompt_of(5, 9), **options, cache="dual")]
    traces = bench.run(*states, after={len(expected): 5})
    assert [state.ledger.staleness for state in states] == [*expected.values(), 7]
    if unroll == 1:
        assert [oldest(trace) for trace in traces] == [*expected.values(), 7]


POLICIES = {
    "dual": periodic(99, block_alone),
    "dual(every=3)": periodic(3, block_alone),
    "prefix(every=2)": periodic(2, block_and_rest),
    "vicinity(3, 5, 0)": vicinity(3, 5, 0),
    "vicinity(0, 0, 4)": vicinity(0, 0, 4),
    "vicinity(40, 2, 2)": vicinity(40, 2, 2),
    "freecache('prompt')": freecache(lambda now, first: now.prompt),
    "freecache('block', 5)": freecache(
        lambda now, first: now.prompt + (first - now.prompt) // 5 * 5
    ),
    "freecache('token')": freecache(lambda now, first: first - 1),
    "freecache('window', window=6)": freecache(None, window=6),
    "delayed(3, 2)": delayed(3, 2),
    "delayed(99, 0)": delayed(99, 0),
    "delayed_blocks(8)": delayed_blocks(8, 1),
    "delayed_blocks(5, delay=3, every=4)": delayed_blocks(5, 3, 4),
}


SHAPES = [  # each policy with both lengths of a block and both kinds of models
    (cache, block, shift)
    for number, cache in enumerate(POLICIES)
    for block, shift in (((8, True), (32, False)) if number % 2 else ((8, False), (32, True)))
]


@pytest.mark.parametrize(("cache", "block", "shift"), SHAPES)
def test_a_policy_equals_its_twin(cache, block, shift):
    for seed in range(2):
        decoder = decoder_of(seed, shift=shift).double()
        prompt = prompt_of(7 + seed, seed)
        options = {"max_new_tokens": NEW, "blocks": f"fixed({block})", "unmask": "threshold(0.8)"}
        bench = Bench(decoder)
        state = bench.state(prompt, **options, cache=cache, stop="none")
        (trace,) = bench.run(state)
        run = reusing(decoder, prompt, NEW, block, 0.8, POLICIES[cache])
        assert_same(trace, run, logits=CLOSE)
        assert state.ledger.staleness == oldest(trace)
        if trace.canvases == run.canvases:
            assert Counter(state.ledger.forwards) == run.nfe


@pytest.mark.parametrize("cache", ["freecache('token')", "delayed(4)", "delayed_blocks(8)"])
def test_policies_that_follow_the_canvas_suit_pipelines(cache):
    """No key of another id is read, and every position is filled."""
    decoder = decoder_of(3)
    bench = Bench(decoder)
    options = {"max_new_tokens": NEW, "blocks": "pipeline(8)", "unmask": "threshold(0.9)"}
    state = bench.state(prompt_of(7, 3), **options, cache=cache, stop="none")
    (trace,) = bench.run(state)
    assert state.error is None
    assert not open_positions(trace.kinds[-1])
    assert not any(forward.foreign for forward in trace.forwards)
    assert max(len(f.logits) for f in trace.forwards) > 8, "several blocks at once"


@pytest.mark.parametrize("cache", ["prefix", "dual", "vicinity"])
def test_policies_that_renew_keys_at_openings_do_not(cache):
    options = {"max_new_tokens": NEW, "blocks": "pipeline(8)", "cache": cache}
    with pytest.raises(InvalidRequest, match="use cache 'block_causal', 'none', 'freecache'"):
        Bench(decoder_of(0)).state((3, 4), **options)


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        ("dual(every=0)", "`every` must be None or at least 1, got 0"),
        ("vicinity(-1)", "`before`, `after` and `warmup` must be at least 0, got -1, 16 and 4"),
        ("freecache('all')", "`keeps` must be one of 'prompt', 'block', 'token', 'window', got"),
        ("freecache(window=0)", "`block` and `window` must be at least 1, got 32 and 0"),
        ("delayed(warmup=-2)", "`warmup` must be at least 0, got -2"),
        ("dual(frozen_prompt=0)", "`frozen_prompt` must be True, False or at least 2, got 0"),
        ("dual(frozen_prompt=1)", "`frozen_prompt` must be True, False or at least 2, got 1"),
        ("delayed_blocks(delay=0)", "`block` and `delay` must be at least 1, got 32, 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(cache, message):
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        Bench(decoder_of(0)).state((3, 4), max_new_tokens=8, cache=cache)


@pytest.mark.parametrize("cache", POLICIES)
def test_block_causal_models_are_refused(cache):
    decoder = decoder_of(0, attention="block_causal", block_length=4)
    with pytest.raises(InvalidRequest, match="needs full attention"):
        Bench(decoder).state((3, 4), max_new_tokens=8, cache=cache)


FROZEN = {  # with the prompt's keys made alone, in chunks of so many positions
    "dual(frozen_prompt=True)": (periodic(99, block_alone), 99),
    "dual(every=3, frozen_prompt=4)": (periodic(3, block_alone), 4),
    "prefix(frozen_prompt=3)": (periodic(99, block_and_rest), 3),
    "vicinity(3, 5, 0, frozen_prompt=True)": (vicinity(3, 5, 0), 99),
    "freecache('token', frozen_prompt=2)": (freecache(lambda now, first: first - 1), 2),
    "delayed(3, 2, frozen_prompt=True)": (delayed(3, 2), 99),
    "delayed_blocks(8, frozen_prompt=5)": (delayed_blocks(8, 1), 5),
}


@pytest.mark.parametrize("shift", [False, True], ids=["plain", "shifted"])
@pytest.mark.parametrize("cache", FROZEN)
def test_a_frozen_prompt_equals_its_twin(cache, shift):
    queries, chunk = FROZEN[cache]
    for seed in range(2):
        decoder = decoder_of(seed, shift=shift).double()
        prompt = prompt_of(7 + seed, seed)
        options = {"max_new_tokens": NEW, "blocks": "fixed(8)", "unmask": "threshold(0.8)"}
        bench = Bench(decoder)
        state = bench.state(prompt, **options, cache=cache, stop="none")
        (trace,) = bench.run(state)
        run = reusing(decoder, prompt, NEW, 8, 0.8, queries, chunk)
        assert_same(trace, run, logits=CLOSE)
        assert state.ledger.staleness == oldest(trace)
        asked = [p for f in trace.forwards for p in f.written if p < len(prompt)]
        assert sorted(asked) == list(range(len(prompt))), "every key of the prompt is made once"


BLOCKWISE = ("threshold(0.9)", "dynamic(0.8, 4)")


@pytest.mark.parametrize("unmask", BLOCKWISE)
def test_final_keys_equal_computing_everything_on_the_bundled_model(unmask):
    """Token for token, prefixes shared or not; kernels of other shapes may turn a near-tie."""
    prompts = [item.prompt for item in bundled_items("math", "test", 10)]
    plain, shared = (dlm.load("tiny-block", device="cpu", prefix_bytes=n) for n in (0, 1 << 26))
    options = {"max_new_tokens": 64, "unmask": unmask}
    everything = plain.generate(prompts, **options, cache="none")
    for engine in (plain, shared, shared):
        found = engine.generate(prompts, **options, cache="block_causal")
        differ = sum(a.canvas != b.canvas for a, b in zip(everything, found, strict=True))
        assert differ == 0
        saved = sum(a.stats.token_forwards for a in found)
        assert saved < sum(a.stats.token_forwards for a in everything) / 2
    assert sum(answer.stats.reused for answer in found) > 10 * 16


@pytest.mark.parametrize("unroll", [1, 4])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dual(every=2)", "dual(every=3)"),
        ("prefix(every=2)", "prefix(every=5)"),
        ("vicinity(3, 5, 0)", "vicinity(40, 2, 2)"),
        ("freecache('block', 5)", "freecache('block', 3)"),
        ("delayed(3, 2)", "delayed(99, 0)"),
        ("delayed_blocks(5, delay=3, every=4)", "delayed_blocks(8, delay=1, every=2)"),
    ],
)
def test_rows_whose_caches_differ_in_numbers_share_a_group(one, other, unroll):
    """Each row is planned by its own cache, also after the first row has left the group."""
    options = {"blocks": "fixed(8)", "unmask": "threshold(0.8)", "stop": "none"}
    decoder, caches = decoder_of(5).double(), (one, other, one)

    def states(bench):
        return [
            bench.state(prompt_of(6 + i, i), i, cache=cache, max_new_tokens=16 + 8 * i, **options)
            for i, cache in enumerate(caches)
        ]

    alone = [Bench(decoder, unroll=unroll) for _ in caches]
    lonely = [states(bench)[i] for i, bench in enumerate(alone)]
    expected = [bench.run(state)[0] for bench, state in zip(alone, lonely, strict=True)]
    bench = Bench(decoder, unroll=unroll)
    shared = states(bench)
    for state in shared:
        bench.scheduler.submit(state)
    bench.step()
    assert len(bench.scheduler._live.groups) == 1
    while not all(state.done for state in shared):
        bench.step()
    for state, mine, trace in zip(shared, lonely, expected, strict=True):
        assert state.canvas.ids == mine.canvas.ids
        assert (state.ledger.nfe, state.ledger.forwards) == (mine.ledger.nfe, mine.ledger.forwards)
        if unroll == 1:  # else rows idle more or less often, as their mates have the host look
            assert state.ledger.token_forwards == mine.ledger.token_forwards
            assert state.ledger.staleness == mine.ledger.staleness
            positions = [forward.computed for forward in bench.traces[state].forwards]
            assert positions == [forward.computed for forward in trace.forwards]


def test_keys_of_prompts_that_are_made_alone_keep_groups_apart():
    """Chunks of other lengths make other keys, which a group's prefixes must not mix up."""
    bench = Bench(decoder_of(0))
    for i, chunk in enumerate((4, 6)):
        cache = f"dual(frozen_prompt={chunk})"
        state = bench.state(prompt_of(9, i), i, cache=cache, max_new_tokens=8, stop="none")
        bench.scheduler.submit(state)
    bench.step()
    assert len(bench.scheduler._live.groups) == 2
