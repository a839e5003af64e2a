"""What holds for every rule, cache, model and batch: random combinations of what is registered."""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dlm import Editor, Unmasker
from dlm.config import KINDS
from dlm.core import Kind, Proposal
from dlm.core.canvas import HostCanvas, replay
from dlm.errors import InvalidRequest
from dlm.rng import Stream, uniforms
from dlm.unmasking.unmask.freedave import FreeDave
from dlm.unmasking.unmask.verified import Verified
from tests.engine.harness import Bench, open_positions
from tests.engine.near_ties import Comparison
from tests.helpers import random_decoder, tiny_spec

VOCAB, MASK = 64, 63
DELIMITERS = tuple(range(4, VOCAB, 9))
ENDS = tuple(range(1, VOCAB, 12))
FULL, CAUSAL = {}, {"attention": "block_causal", "block_length": 4}
SHARE = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 1.0])
COUNT = st.integers(1, 12)
FEW = st.integers(0, 5)
PERIOD = st.none() | st.integers(1, 5)
FROZEN = st.sampled_from([False, False, True, 3])


@cache
def model(seed, causal, shift):
    return random_decoder(tiny_spec(**(CAUSAL if causal else FULL), shift=shift), seed)


def spell(name, **arguments):
    """A spec string whose arguments are drawn."""
    drawn = st.fixed_dictionaries(arguments)
    return drawn.map(lambda a: f"{name}({', '.join(f'{k}={v!r}' for k, v in a.items())})")


@cache
def spelled(align):
    """Arguments worth drawing, for models whose blocks are multiples of `align`."""
    length = st.integers(1, 12 // align).map(lambda n: n * align)
    return {
        ("unmask", "threshold"): spell("threshold", threshold=SHARE),
        ("unmask", "factor"): spell("factor", factor=st.sampled_from([0.3, 1.0, 1.9])),
        ("unmask", "leap"): spell(
            "leap",
            relaxed=st.sampled_from([0.0, 0.01, 0.05]),
            threshold=st.sampled_from([0.05, 0.2, 0.9]),
            radius=st.integers(0, 5),
            committed=st.booleans(),
            chain=st.booleans(),
        ),
        ("unmask", "hierarchical"): spell(
            "hierarchical",
            low=st.sampled_from([0.0, 0.02, 0.05]),
            threshold=st.sampled_from([0.05, 0.9]),
        ),
        ("unmask", "entropy_bound"): spell(
            "entropy_bound",
            bound=st.sampled_from([0.0, 3.0, 9.0]),
            order=st.sampled_from(["entropy", "confidence", "margin"]),
        ),
        ("unmask", "low_entropy"): spell("low_entropy", threshold=st.sampled_from([0.0, 3.5, 4.0])),
        ("unmask", "dynamic"): spell("dynamic", threshold=SHARE, block_steps=st.none() | COUNT),
        ("unmask", "topk"): spell(
            "topk",
            score=st.sampled_from(["confidence", "entropy", "margin", "random", "left"]),
            schedule=st.sampled_from(["even", "linear", "cosine", "power", "eps"]),
            steps=st.none() | st.integers(1, 24),
            demote=st.sampled_from([(), "eos"]),
            temperature=st.none() | st.sampled_from([0.1, 2.0]),
        ),
        ("unmask", "ancestral"): spell("ancestral", steps=st.none() | st.integers(1, 24)),
        ("unmask", "slowfast"): spell(
            "slowfast",
            threshold=st.sampled_from([0.2, 0.9]),
            low=st.sampled_from([0.0, 0.05, 0.2]),
            explore=st.integers(1, 6),
        ),
        ("unmask", "verified"): spell(
            "verified", route=st.sampled_from(["always", "score", "span"]), threshold=SHARE
        ),
        ("unmask", "freedave"): spell("freedave", branches=st.integers(2, 8)),
        ("blocks", "fixed"): spell("fixed", length=length),
        ("blocks", "sub_blocks"): spell("sub_blocks", length=length, sub=COUNT),
        ("blocks", "sliding"): spell(
            "sliding", width=COUNT, by=st.sampled_from(["position", "open"])
        ),
        ("unmask", "klass"): spell(
            "klass",
            threshold=st.sampled_from([0.0, 0.05]),
            kl=st.sampled_from([0.01, 0.3, 2.0]),
            history=st.integers(1, 3),
        ),
        ("unmask", "running_mean"): spell("running_mean", quota=st.integers(1, 4)),
        ("blocks", "pipeline"): spell("pipeline", length=length, add=SHARE, full=SHARE),
        ("blocks", "adaptive"): spell(
            "adaptive", length=COUNT, window=st.sampled_from([0.25, 0.6]), threshold=SHARE
        ),
        ("unmask", "wide_in"): spell(
            "wide_in", threshold=SHARE, share=SHARE, least=COUNT, most=st.just(40)
        ),
        ("edit", "rcr"): spell(
            "rcr",
            steps=st.none() | st.integers(1, 24),
            score=st.sampled_from(["confidence", "entropy", "margin"]),
        ),
        ("edit", "t2m"): spell(
            "t2m",
            detect=st.sampled_from(["low_prob", "other_sure", "drop"]),
            threshold=st.none() | SHARE,
            most=st.integers(1, 3),
            share=SHARE,
            post_steps=FEW,
        ),
        ("edit", "backtrack"): spell("backtrack", least=FEW),
        ("edit", "narrow_out"): spell("narrow_out", threshold=SHARE, first=COUNT),
        ("cache", "prefix"): spell("prefix", every=PERIOD, frozen_prompt=FROZEN),
        ("cache", "dual"): spell(
            "dual",
            on_edit=st.sampled_from(["refuse", "requery"]),
            every=PERIOD,
            frozen_prompt=FROZEN,
        ),
        ("cache", "vicinity"): spell(
            "vicinity", before=FEW, after=FEW, warmup=FEW, frozen_prompt=FROZEN
        ),
        ("cache", "freecache"): spell(
            "freecache",
            keeps=st.sampled_from(["prompt", "block", "token", "window"]),
            block=COUNT,
            window=COUNT,
            frozen_prompt=FROZEN,
        ),
        ("cache", "delayed"): spell(
            "delayed", every=st.integers(1, 5), warmup=FEW, frozen_prompt=FROZEN
        ),
        ("cache", "delayed_blocks"): spell(
            "delayed_blocks",
            block=COUNT,
            delay=st.integers(1, 3),
            every=PERIOD,
            frozen_prompt=FROZEN,
        ),
        ("guide", "bias"): st.just("bias(((5, 2.0), (9, -1.5)))"),
        ("guide", "cfg"): spell("cfg", scale=st.sampled_from([0.0, 0.5, 1.5])),
        ("stop", "eos"): spell(
            "eos", when=st.sampled_from(["prefix", "block"]), ids=st.sampled_from([(), ENDS])
        ),
        ("stop", "prophet"): spell(
            "prophet",
            early=st.sampled_from([0.3, 0.6]),
            middle=st.sampled_from([0.2, 0.3]),
            late=st.sampled_from([0.0, 0.1]),
            start=st.integers(0, 3),
            count=st.none() | COUNT,
        ),
        ("stop", "stable"): spell(
            "stable", entropy=st.sampled_from([3.5, 3.9, 9.0]), patience=st.integers(1, 3)
        ),
        ("stop", "max_nfe"): spell("max_nfe", forwards=COUNT),
        ("stop", "max_seconds"): st.just("max_seconds(1000)"),
    }


HELPED = {("unmask", "guided")}  # reads an auxiliary model
UNFIT = {  # what models of an attention pattern refuse
    True: {
        *HELPED,
        ("blocks", "whole"),
        ("blocks", "sliding"),
        ("blocks", "adaptive"),
        ("cache", "prefix"),
        ("cache", "dual"),
        ("cache", "vicinity"),
        ("cache", "freecache"),
        ("cache", "delayed"),
        ("cache", "delayed_blocks"),
    },
    False: {*HELPED, ("cache", "block_causal"), ("unmask", "verified")},
}
NAMES = {
    causal: {
        kind: [name for name in sorted(registry.names()) if (kind, name) not in UNFIT[causal]]
        for kind, registry in KINDS.items()
    }
    for causal in (False, True)
}


@st.composite
def requests(draw, causal, usual):
    """A prompt, a path and options, which may still be refused; most parts are the `usual` ones,
    with numbers of their own, so that rows share cohorts.
    """

    def drawn(kind):
        names = NAMES[causal][kind] if draw(st.integers(0, 3)) == 0 else [usual[kind]]
        name = draw(st.sampled_from(names))
        return draw(spelled(4 if causal else 1).get((kind, name), st.just(name)))

    options = {
        "max_new_tokens": draw(st.integers(1, 18)),
        "unmask": drawn("unmask"),
        "blocks": drawn("blocks"),
        "cache": drawn("cache"),
        "guide": drawn("guide") if draw(st.integers(0, 2)) == 0 else None,
        "stop": drawn("stop") if draw(st.booleans()) else "none",
        "temperature": draw(st.sampled_from([0.0, 0.0, 0.7])),
        "top_p": draw(st.sampled_from([1.0, 0.8])),
        "seed": draw(st.integers(0, 3)),
    }
    if draw(st.integers(0, 4)) == 0:  # an editor that takes back needs a rule that fills
        options |= {"edit": drawn("edit"), "unmask": "everything"}
        caches = ["none"] if causal else ["none", "dual(on_edit='requery')", "delayed(3)"]
        options["cache"] = draw(st.sampled_from(caches))
    if draw(st.integers(0, 2)) == 0:  # the mask's own id may be given
        places = st.lists(st.none() | st.integers(0, VOCAB - 1), min_size=1, max_size=18)
        options["infill"] = draw(places.filter(lambda given: None in given))
        options["max_new_tokens"] = draw(st.none() | st.integers(18, 22))
    prompt = draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=9))
    return {"prompt": prompt, "path": draw(st.integers(0, 2)), **options}


@st.composite
def batches(draw, least=1):
    """A decoder and up to three requests that it accepts."""
    causal = draw(st.booleans())
    decoder = model(draw(st.integers(0, 3)), causal, draw(st.booleans()))
    bench = Bench(decoder, DELIMITERS)

    def accepted(request):
        try:
            return bench.state(**request) is not None
        except InvalidRequest:
            return False

    usual = {kind: draw(st.sampled_from(names)) for kind, names in NAMES[causal].items()}
    drawn = requests(causal, usual).filter(accepted)
    return decoder, draw(st.lists(drawn, min_size=least, max_size=3))


def quick(examples):
    """So many examples; one that fails is shown as it is, shrinking takes minutes."""
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    phases = [Phase.explicit, Phase.reuse, Phase.generate]
    return settings(max_examples=examples, suppress_health_check=slow, phases=phases)


def run(decoder, requests, after=None, unroll=1):
    bench = Bench(decoder, DELIMITERS, unroll=unroll)
    states = [bench.state(**request) for request in requests]
    bench.run(*states, after=after)
    return bench, states


@given(batches())
@quick(100)
def test_every_run(batch):
    """The invariants that one run shows."""
    decoder, batch = batch
    bench, states = run(decoder, batch, after={1: 1, 2: 3})
    for state in states:
        trace, parts = bench.traces[state], state.bound.parts
        check_canvases(state, trace, paced=parts.clock or bool(parts.edit))
        check_end(state, trace)
        check_tokens(state, trace)
        check_replay(state, trace)
        check_settled(state, trace)
        check_ledger(state, trace)
        check_keys(state, trace)


def check_canvases(state, trace, *, paced):
    """What is given stays, MASK is never committed, every step commits unless it is paced."""
    given = dict(enumerate((*state.prompt, *state.pinned)))
    for canvas, kinds in zip(trace.canvases, trace.kinds, strict=True):
        for pos, (token, kind) in enumerate(zip(canvas, kinds, strict=True)):
            if given.get(pos) is not None:
                assert (token, kind) == (given[pos], Kind.PROMPT)
            else:
                assert kind != Kind.PROMPT
                assert (token == MASK) == (kind == Kind.MASK)
    if not paced:
        left = [len(open_positions(kinds)) for kinds in trace.kinds]
        assert left == sorted(set(left), reverse=True)


def check_end(state, trace):
    """Nothing is open before the end of the answer, and the reason says which end it is."""
    still_open = open_positions(trace.kinds[-1])
    if state.canvas.reason in ("length", "early"):
        assert not still_open
    elif state.canvas.reason == "max_nfe":
        assert state.ledger.nfe == state.bound.budgets[0].forwards
    elif state.canvas.reason == "max_seconds":
        assert state.bound.budgets[0].seconds < 1000
    else:
        assert state.canvas.reason == "stop"
        ends, canvas = state.end_ids, state.canvas
        generated = range(len(state.prompt), state.limit)
        found = [
            p for p in generated if canvas.ids[p] in ends and canvas.kinds[p] == Kind.COMMITTED
        ]
        assert found or state.ends_pinned
        assert not [p for p in still_open if p < min(found, default=state.limit)]


BY_BRANCHES = (FreeDave, Verified)  # they commit by logits of copies of the canvas


def check_tokens(state, trace):
    """A committed id is the draw from its own logits, with the uniform of its own position and
    step; its confidence is its probability, with MASK in the denominator.
    """
    config = state.bound.config
    parts = state.bound.parts
    if parts.guide or config.top_p < 1 or isinstance(parts.unmask, BY_BRANCHES):
        return  # the logits that were recorded are not those that were drawn from
    key = torch.tensor([config.seed]), torch.tensor([state.choice])
    for event in state.events:
        if event.type != "commit":
            continue
        places, step = torch.tensor([event.pos]), event.step - 1
        u = uniforms(*key, places, torch.tensor([step]), Stream.DRAW)[0]
        for n, (pos, token, conf) in enumerate(zip(event.pos, event.ids, event.conf, strict=True)):
            row = trace.forwards[step].logits[pos].double()
            assert conf == pytest.approx(float(row.softmax(0)[token]), abs=1e-4)
            row[MASK] = -torch.inf
            if config.temperature == 0:
                assert float(row.max() - row[token]) == 0
            else:
                ends = (row / config.temperature).softmax(0).cumsum(0)
                start = float(ends[token - 1]) if token else 0.0
                assert start - 1e-4 <= float(u[n]) <= float(ends[token]) + 1e-4


def check_settled(state, trace):
    """What is settled never changes again, commits stay inside the blocks that were opened, and a
    row that ends has settled its answer.
    """
    canvas, settled, max_end = HostCanvas(), [], 0
    for event in state.events:
        before = canvas.ids[: canvas.settled]
        canvas.apply(event)
        max_end = event.pos[1] if event.type == "block" else max_end
        assert event.type != "commit" or max(event.pos) < max_end
        assert canvas.ids[: len(before)] == before
        assert not [p for p in open_positions(canvas.kinds) if p < canvas.settled]
        settled.append(canvas.settled)
    assert settled == sorted(settled)
    if state.canvas.reason in ("length", "early"):
        assert canvas.settled == len(canvas.ids)
    elif state.canvas.reason == "stop" and not (state.bound.parts.edit or state.ends_pinned):
        assert state.end_ids & set(canvas.ids[canvas.prompt : canvas.settled])


def check_replay(state, trace):
    """The events give the device's final canvas; what was open when the row ended is dead."""
    (canvas,) = replay(state.events).values()
    assert canvas.ids == state.canvas.ids == trace.canvases[-1]
    expected = [Kind.PAD if kind >= Kind.MASK else kind for kind in trace.kinds[-1]]
    assert canvas.kinds == state.canvas.kinds == expected
    for number, (before, after) in enumerate(zip(trace.canvases, trace.canvases[1:], strict=False)):
        changed = {p for p, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
        told = [set(e.pos) for e in state.events if e.step == number + 1 and e.ids]
        assert changed <= set().union(*told)


def check_ledger(state, trace):
    """Billed is what ran."""
    ledger = state.ledger
    assert ledger.nfe == len(trace.forwards) == sum(ledger.forwards.values())
    assert ledger.token_forwards == sum(f.computed for f in trace.forwards)
    assert ledger.arm_forwards == ledger.nfe * (state.bound.parts.arms - 1)


def check_keys(state, trace):
    """No key of another id than the canvas holds is ever read, nor one that is older than its
    cache allows: none at all, the row's last opening of a block, the period of its refreshes.
    """
    part = state.bound.parts.cache
    cache, period = type(part).__name__, getattr(part, "every", None)
    opened = {e.step for e in state.events if e.type == "block"}
    refreshed = 0
    for number, forward in enumerate(trace.forwards, start=1):
        refreshed = number if number in opened else refreshed
        assert not forward.foreign
        first = 0 if getattr(part, "frozen_prompt", False) is False else len(state.prompt)
        oldest = max((age for p, age in forward.ages.items() if p >= first), default=0)
        twice = Counter(forward.queries) - Counter(set(forward.queries))
        assert all(p + 1 in forward.logits for p in twice), "only looks may compute a position anew"
        if cache == "NoCache":
            assert oldest == 0
        elif cache in ("Prefix", "Dual", "Vicinity", "Delayed"):
            assert oldest <= number - refreshed
            assert period is None or oldest < period
        else:
            assert cache in ("BlockCausal", "FreeCache", "DelayedBlocks"), "without a contract"


def test_same_result_whatever_the_batch():
    """Batch mates, their order and when they come do not matter; nor does a second run."""
    comparison = Comparison(DELIMITERS)

    @given(batches(2), st.permutations(range(3)), st.lists(st.integers(0, 4), min_size=3))
    @quick(40)
    def check(batch, order, delays):
        decoder, batch = batch
        alone = []
        for request in batch:
            bench, (state,) = run(decoder, [request])
            alone.append((state, bench.traces[state].canvases))
        order = [n for n in order if n < len(batch)]
        bench, mates = run(decoder, [batch[n] for n in order], after=dict(enumerate(delays)))
        for n, mate in zip(order, mates, strict=True):
            state, canvases = alone[n]
            ours = bench.traces[mate].canvases
            comparison.same(decoder, batch[n], ours, canvases)
            if ours == canvases:
                assert (mate.ledger, mate.canvas.reason) == (state.ledger, state.canvas.reason)

    check()
    comparison.close()


def test_exact_caches_equal_no_cache():
    comparison = Comparison(DELIMITERS)

    @given(batches())
    @quick(40)
    def check(batch):
        decoder, batch = batch
        for request in batch:
            bench, (state,) = run(decoder, [request])
            if state.bound.parts.cache.exact:
                plain, (other,) = run(decoder, [request | {"cache": "none"}])
                ours, theirs = bench.traces[state].canvases, plain.traces[other].canvases
                comparison.same(decoder, request | {"cache": "none"}, ours, theirs)

    check()
    comparison.close()


def told(state):
    """The canvas after each step, as the events tell it."""
    canvas, states = HostCanvas(), {}
    for event in state.events:
        canvas.apply(event)
        states[event.step] = list(canvas.ids)
    return [states[max(n for n in states if n <= step)] for step in range(state.ledger.nfe + 1)]


def test_results_do_not_depend_on_how_often_the_host_looks():
    comparison = Comparison(DELIMITERS)

    @given(batches(2), st.integers(2, 6))
    @quick(40)
    def check(batch, unroll):
        decoder, batch = batch
        _, often = run(decoder, batch)
        bench, seldom = run(decoder, batch, unroll=unroll)
        for request, one, several in zip(batch, often, seldom, strict=True):
            comparison.same(decoder, request, told(several), told(one))
            if told(several) == told(one):
                assert several.canvas.reason == one.canvas.reason
            ran = several.ledger.nfe + several.ledger.idle_forwards
            assert ran == len(bench.traces[several].forwards)

    check()
    comparison.close()


@dataclass(frozen=True)
class Hostile(Editor, Unmasker):
    """An unmasker and editor that for a while ask for everything, wherever they look."""

    scope, clock = "row", True

    def propose(self, view):
        masked = (view.pos % 3 == 0) & (view.row.step < 6)[:, None]
        return Proposal(torch.ones_like(view.eligible), torch.where(masked, MASK, 7))

    def edit(self, view, proposal):
        calm = (view.row.step >= 6)[:, None]
        odd = (view.pos + view.row.step[:, None]) % 2 == 1
        return proposal._replace(remask=odd & ~calm, replace=~odd & ~calm, renoise=odd & ~calm)


@pytest.mark.parametrize("cache", ["none", "dual(on_edit='requery')"])
@pytest.mark.parametrize("blocks", ["fixed(4)", "adaptive(4, window=0.9)", "pipeline(4)"])
def test_rules_cannot_touch_what_is_given(blocks, cache):
    """Neither the prompt, nor what lies behind the block, nor the columns without a position."""
    bench = Bench(model(0, False, False), DELIMITERS)
    rule = {"unmask": Hostile(), "edit": Hostile(), "stop": "none", "blocks": blocks}
    prompts = ([9, 8, MASK], [5, 6, 7, 4, 3, 2, 9], [1])
    states = [
        bench.state(prompt, max_new_tokens=9 + 2 * n, cache=cache, **rule)
        for n, prompt in enumerate(prompts)
    ]
    for state, trace in zip(states, bench.run(*states, after={1: 2, 2: 3}), strict=True):
        check_canvases(state, trace, paced=True)
        check_replay(state, trace)
        check_settled(state, trace)
        check_ledger(state, trace)
        assert {e.type for e in state.events} >= {"commit", "remask"}
        assert set(trace.canvases[-1][len(state.prompt) :]) == {7}


@given(batches(), st.integers(0, 6), st.sets(st.integers(0, 2), min_size=1))
@quick(40)
def test_an_abort_at_any_step_frees_every_page(batch, step, victims):
    decoder, batch = batch
    bench = Bench(decoder, DELIMITERS, max_rows=2)
    states = [bench.state(**request) for request in batch]
    for state in states:
        bench.scheduler.submit(state)
    for _ in range(step):
        bench.step()
    gone = [t for n, t in enumerate(states) if n in victims and not t.done]
    for state in gone:
        bench.scheduler.abort(state)
        bench.scheduler.abort(state)
        assert state.canvas.reason == "abort"
        bench.scheduler.check_integrity()
    while bench.scheduler.live or not all(t.done for t in states):
        bench.step()
    assert bench.pool.pages.in_use == 0
    bench.scheduler.check_integrity()
    for state in gone:
        steps = len(bench.traces[state].forwards)
        assert steps == state.ledger.nfe <= step


@pytest.mark.parametrize("causal", [False, True])
@given(st.data())
@quick(10)
def test_all_that_is_registered_is_drawn(causal, data):
    """Alone, every part is accepted, whatever arguments are drawn for it."""
    bench = Bench(model(0, causal, False), DELIMITERS)
    for kind, names in NAMES[causal].items():
        fill = {}
        if kind == "edit":
            fill = {"unmask": "everything", "stop": "none", "cache": "none"}
        for name in names:
            spec = data.draw(spelled(4 if causal else 1).get((kind, name), st.just(name)))
            bench.state([3], max_new_tokens=4, **fill, **{kind: spec})
