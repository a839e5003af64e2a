"""ReMDM, Psi and P2 against textbook loops of their own, and the end of every row."""

import math

import pytest
import torch

from dlm.core import Kind
from dlm.errors import InvalidRequest
from dlm.rng import uniforms
from tests.engine.harness import Bench, open_positions
from tests.engine.near_ties import NEAR
from tests.engine.test_hard_cases import decoder_of, prompt_of
from tests.twins import Run, dense

NEW, ORDER = 12, 1
EPS = 1e-3


def uniform(seed, pos, step):
    """The engine's uniform of one position in one step of the row."""
    one = (torch.tensor([seed]), torch.tensor([0]), torch.tensor([[pos]]), torch.tensor([step]))
    return float(uniforms(*one, ORDER)[0, 0])


def largest(alpha_s, alpha_t):
    return 1.0 if alpha_t == 0 else min(1.0, (1 - alpha_s) / alpha_t)


def cap(eta):
    def rule(i, steps, confs):
        alpha_t, alpha_s = usual(i, steps), usual(i + 1, steps)
        return alpha_t, alpha_s, {p: min(eta, largest(alpha_s, alpha_t)) for p in confs}

    return rule


def rescale(eta):
    def rule(i, steps, confs):
        alpha_t, alpha_s = usual(i, steps), usual(i + 1, steps)
        return alpha_t, alpha_s, {p: eta * largest(alpha_s, alpha_t) for p in confs}

    return rule


def conf(eta):
    """The softmax is over committed positions; open ones, of confidence None, have no share."""

    def rule(i, steps, confs):
        alpha_t, alpha_s = usual(i, steps), usual(i + 1, steps)
        weights = {p: 0.0 if c is None else math.exp(-c) for p, c in confs.items()}
        total = sum(weights.values()) or 1.0
        most = largest(alpha_s, alpha_t)
        return alpha_t, alpha_s, {p: eta * most * w / total for p, w in weights.items()}

    return rule


def loop(eta, t_on=0.55, t_off=0.05, level=0.9):
    def alpha(time):
        if time > t_on:
            return level * (1 - time) / (1 - t_on)
        return level if time > t_off else 1 - (1 - level) * time / t_off

    def rule(i, steps, confs):
        t, s = 1 - usual(i, steps), 1 - usual(i + 1, steps)
        sigma = min(eta, largest(alpha(s), alpha(t))) if t_off < t <= t_on else 0.0
        return alpha(t), alpha(s), dict.fromkeys(confs, sigma)

    return rule


def psi(kappa, high=0.2, middle=0.6, first=1.0, last=1.0):
    def rule(i, steps, confs):
        alpha_t, alpha_s = usual(i, steps), usual(i + 1, steps)
        time = round(1 - alpha_t, 8)
        k = first if time > 1 - high else kappa if time > round(1 - high - middle, 8) else last
        return alpha_t, alpha_s, dict.fromkeys(confs, (1 - k) * (1 - alpha_s))

    return rule


def usual(i, steps):
    """alpha, by evenly spaced times from 1 to eps."""
    return (1 - EPS) * i / steps


def sampled(decoder, prompt, block, steps, seed, rule, ends=0.0):
    """One reverse step after the other; block by block, greedy tokens. A step at a time of more
    than `ends` may reopen something, so that a full block goes on.
    """
    run = Run(decoder, prompt, len(prompt) + NEW)
    own, clock, known = max(steps * block // NEW, 1), 0, {}
    for start in range(len(prompt), len(run.ids), block):
        inside = range(start, start + block)
        for i in range(own):
            guesses = run.guesses("step", dense(decoder, run.ids), inside)
            confs = {p: None if p in run.open else known[p] for p in inside}
            alpha_t, alpha_s, sigma = rule(i, own, confs)
            last = i == own - 1
            fallen, reopened = [], []
            for p in inside:
                u = uniform(seed, p, clock)
                share = (alpha_s - (1 - sigma[p]) * alpha_t) / (1 - alpha_t)
                bound = (1.0 if last else share) if p in run.open else 0.0 if last else sigma[p]
                run.decided(abs(u - bound))
                if u < bound:
                    (fallen if p in run.open else reopened).append(p)
            run.commit(fallen, guesses)
            known |= {p: guesses[p][1] for p in fallen}
            run.reopen(reopened)
            run.end_step()
            clock += 1
            more = i + 1 < own - 1 and 1 - usual(i + 1, own) > ends
            if not more and run.open.isdisjoint(inside):
                break
    return run


def planned(decoder, prompt, block, steps, eta, row, kept):
    """P2: all tokens are ranked, those of open positions by log p(new), others by eta log p(old);
    `kept(share of the steps)` of the block stay.
    """
    run = Run(decoder, prompt, len(prompt) + NEW)
    own = steps * block // NEW
    for start in range(len(prompt), len(run.ids), block):
        inside = range(start, start + block)
        for i in range(own):
            rows = dense(decoder, run.ids)
            guesses = run.guesses("step", rows, range(start + block))
            scores = {}
            for p in range(len(prompt) if row else start, start + block):
                if p in run.open:
                    scores[p] = math.log(guesses[p][1])
                else:
                    scores[p] = eta * math.log(float(rows[p].double().softmax(0)[run.ids[p]]))
            owed = math.floor(block * (1 - kept((i + 1) / own)) + 1e-9)
            worst = run.best({p: -score for p, score in scores.items()}, owed)
            run.commit(list(guesses), guesses)
            run.reopen(worst)
            run.end_step()
            if run.open.isdisjoint(range(start + block)):
                break
        assert run.open.isdisjoint(inside)
    return run


def compare(trace, run):
    """The same canvases after every step, or a near-tie where they part."""
    pairs = enumerate(zip(trace.canvases, run.canvases, strict=False))
    parted = next((step for step, (ours, theirs) in pairs if ours != theirs), None)
    if parted is None:
        assert len(trace.canvases) == len(run.canvases)
        assert len(trace.forwards) == run.nfe.total()
    else:
        assert run.gaps[parted - 1] < NEAR, f"step {parted} differs"


def decoded(decoder, prompt, edit, **options):
    bench = Bench(decoder)
    given = {"max_new_tokens": NEW, "blocks": "whole", "cache": "none", "stop": "none"} | options
    state = bench.state(prompt, unmask="everything", edit=edit, **given)
    (trace,) = bench.run(state)
    return trace, state


REVERSE = [
    ("remdm(eta=0.3)", cap(0.3), 0.0),
    ("remdm('rescale', 0.6)", rescale(0.6), 0.0),
    ("remdm('rescale', 1.0)", rescale(1.0), 0.0),
    ("remdm('conf', 1.0)", conf(1.0), 0.0),
    ("remdm('loop', 0.1)", loop(0.1), 0.05),
    (
        "remdm('loop', 0.6, t_on=0.8, t_off=0.3, on_level=0.6)",
        loop(0.6, 0.8, 0.3, 0.6),
        0.3,
    ),
    ("psi(0.3)", psi(0.3), 0.2),
    ("psi(0.0, high=0.0, middle=1.0)", psi(0.0, 0.0, 1.0), 0.0),
    (
        "psi(1.0, high=0.5, middle=0.2, kappa_high=0.3, kappa_low=0.2)",
        psi(1.0, 0.5, 0.2, 0.3, 0.2),
        0.0,
    ),
]


@pytest.mark.parametrize(("edit", "rule", "ends"), REVERSE, ids=[e for e, _, _ in REVERSE])
@pytest.mark.parametrize(("block", "steps"), [(NEW, 9), (NEW, 20), (6, 14)])
def test_reverse_steps_equal_their_twins(edit, rule, ends, block, steps):
    reopened = 0
    for seed in range(2):
        decoder, prompt = decoder_of(seed), prompt_of(6 + seed, seed)
        options = {"blocks": f"fixed({block})", "steps": steps, "seed": seed}
        trace, state = decoded(decoder, prompt, edit, **options)
        compare(trace, sampled(decoder, prompt, block, steps, seed, rule, ends))
        check_end(state, trace, steps)
        reopened += sum(e.type == "remask" for e in state.events)
    assert reopened


def test_a_twin_with_another_sigma_differs():
    """What the comparison is worth: a rule whose shares are not made up for parts at once."""

    def uncorrected(i, steps, confs):
        alpha_t, alpha_s, sigma = cap(0.3)(i, steps, confs)
        return alpha_t, alpha_s, {p: 0.0 if c is None else sigma[p] for p, c in confs.items()}

    decoder, prompt = decoder_of(0), prompt_of(6, 0)
    trace, _ = decoded(decoder, prompt, "remdm(eta=0.3)", steps=20, seed=0)
    run = sampled(decoder, prompt, NEW, 20, 0, uncorrected)
    with pytest.raises(AssertionError):
        compare(trace, run)


PLANS = [
    ("p2", 1.0, False, lambda r: r),
    ("p2(eta=0.0)", 0.0, False, lambda r: r),
    ("p2(eta=3.0)", 3.0, False, lambda r: r),
    ("p2(eta=2.0, schedule='cosine')", 2.0, False, lambda r: 1 - math.cos(math.pi * r / 2)),
    ("p2(eta=2.0, scope='row')", 2.0, True, lambda r: r),
]


@pytest.mark.parametrize(("edit", "eta", "row", "kept"), PLANS, ids=[p[0] for p in PLANS])
@pytest.mark.parametrize(("block", "steps"), [(NEW, 6), (4, 12), (6, 8)])
def test_path_planning_equals_its_twin(edit, eta, row, kept, block, steps):
    reopened = 0
    for seed in range(3):
        decoder, prompt = decoder_of(seed), prompt_of(6 + seed, seed)
        trace, state = decoded(decoder, prompt, edit, blocks=f"fixed({block})", steps=steps)
        compare(trace, planned(decoder, prompt, block, steps, eta, row, kept))
        check_end(state, trace, steps)
        reopened += sum(e.type == "remask" for e in state.events)
    assert bool(reopened) == (eta > 0)


def check_end(state, trace, steps):
    """Nothing is open, no mask is left, no more forwards than the schedule has."""
    assert not open_positions(trace.kinds[-1])
    assert all(kind in (Kind.PROMPT, Kind.COMMITTED) for kind in trace.kinds[-1])
    assert state.bound.parts.edit[0].steps == steps
    mask = state.canvas.ids[len(state.prompt) :].count(decoder_of(0).spec.mask_id)
    assert mask == 0
    assert 0 < state.ledger.nfe <= steps


@pytest.mark.parametrize("edit", ["remdm(eta=0)", "psi(1.0)"])
def test_without_reopening_it_is_ancestral_sampling(edit):
    """Position by position, from the same uniforms, and it ends when nothing is open."""
    decoder, prompt = decoder_of(1), prompt_of(7, 1)
    options = {"max_new_tokens": NEW, "blocks": "whole", "cache": "none", "stop": "none"}
    options |= {"steps": 10, "seed": 3, "temperature": 0.8}
    plain = Bench(decoder).decode(prompt, unmask="ancestral", **options)
    edited = Bench(decoder).decode(prompt, unmask="everything", edit=edit, **options)
    assert plain.canvases == edited.canvases


@pytest.mark.parametrize("cache", ["prefix", "dual", "vicinity"])
@pytest.mark.parametrize("edit", ["remdm(eta=0.3)", "psi(0.3)", "p2(eta=2.0)"])
def test_keys_before_the_block_may_be_frozen(edit, cache):
    """A rule of the block reopens nothing before it."""
    decoder, prompt = decoder_of(2), prompt_of(8, 2)
    trace, state = decoded(decoder, prompt, edit, blocks="fixed(4)", steps=12, cache=cache)
    check_end(state, trace, 12)
    start, reopened = 0, []
    for event in state.events:
        start = event.pos[0] if event.type == "block" else start
        if event.type == "remask":
            reopened += event.pos
            assert min(event.pos) >= start
    assert reopened


@pytest.mark.parametrize("edit", ["remdm(eta=0.4)", "remdm('conf', 1.0)", "psi(0.3)", "p2(eta=2)"])
def test_a_row_is_the_same_in_a_batch_and_between_syncs(edit):
    """Rows with numbers of their own, more steps between two syncs."""
    decoder = decoder_of(3)
    options = {"max_new_tokens": NEW, "blocks": "fixed(6)", "cache": "none", "stop": "none"}
    options |= {"unmask": "everything", "temperature": 0.7}
    rows = [
        {"edit": edit, "steps": 10, "seed": 1},
        {"edit": edit.replace("0.", "0.1"), "steps": 16, "seed": 2},
        {"edit": "remdm(eta=0)", "steps": 8, "seed": 3},
    ]
    alone = [Bench(decoder).decode(prompt_of(5, n), **options, **own) for n, own in enumerate(rows)]
    for unroll in (1, 3):
        bench = Bench(decoder, unroll=unroll)
        states = [bench.state(prompt_of(5, n), **options, **own) for n, own in enumerate(rows)]
        bench.run(*states)
        for state, trace in zip(states, alone, strict=True):
            assert list(state.canvas.ids) == trace.canvases[-1]
            assert state.ledger.nfe == len(trace.forwards)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edit": "remdm", "unmask": "ancestral"}, "draws by itself which open positions fall"),
        ({"edit": "psi", "unmask": "threshold"}, "draws by itself which open positions fall"),
        ({"edit": "p2", "unmask": "topk"}, "P2 ranks the tokens of all open positions"),
        ({"edit": "remdm", "blocks": "sliding(4)"}, "Sliding offers some of them"),
        ({"edit": "p2", "blocks": "pipeline(4)"}, "P2 counts down the steps of one"),
        ({"edit": "p2(scope='row')", "cache": "dual"}, "whose keys the cache Dual has frozen"),
        ({"edit": "psi", "cache": "delayed(3)"}, "looks at a filled block again"),
        ({"edit": "remdm", "stop": "eos('prefix')"}, "before its edits are done"),
        ({"edit": "remdm('x')"}, "`sigma` must be one of 'cap', 'rescale', 'conf', 'loop'"),
        ({"edit": "remdm(eta=1.5)"}, "`eta` must be in [0, 1], got 1.5"),
        ({"edit": "remdm('loop', 0.2)"}, "`eta` of the loop must be at most"),
        ({"edit": "remdm(t_on=0.1, t_off=0.2)"}, "`t_on` and `t_off` must be"),
        ({"edit": "remdm(on_level=1.0)"}, "`on_level` must be in (0, 1), got 1.0"),
        ({"edit": "remdm(eps=0.0)"}, "`eps` must be in (0, 1), got 0.0"),
        ({"edit": "psi(1.1)"}, "`kappa` must be in [0, 1], got 1.1"),
        ({"edit": "psi(high=0.7)"}, "`high` and `middle` must be at most 1 together"),
        ({"edit": "psi(steps=0)"}, "`steps` must be at least 1, got 0"),
        ({"edit": "p2(eta=-1)"}, "`eta` must be at least 0, got -1"),
        ({"edit": "p2(scope='all')"}, "`scope` must be one of 'block', 'row'"),
        ({"edit": "p2(schedule='eps')"}, "`edit: schedule`: must be one of"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    bench = Bench(decoder_of(0))
    with pytest.raises(InvalidRequest) as caught:
        bench.state([5, 9], **{"unmask": "everything", "max_new_tokens": 8} | options)
    assert message in str(caught.value)
