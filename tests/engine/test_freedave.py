"""FreeDave against a decoder of its own, and against the greedy decoding that it must equal."""

import itertools
import math
import random
from dataclasses import dataclass

import pytest
import torch

import dlm
from dlm import Engine
from dlm.core import DRAFT, Branches, Proposal
from dlm.errors import InvalidRequest
from dlm.evals.tasks import TASKS
from dlm.evals.tasks.mix import sample
from dlm.unmasking.unmask.freedave import FreeDave
from tests import twins
from tests.engine.harness import Bench, info_of
from tests.engine.near_ties import NEAR
from tests.engine.test_hard_cases import EXACT, decoder_of, prompt_of
from tests.helpers import random_decoder, tiny_spec
from tests.unmasking.views import make_view

FULL = {}
BLOCKS = {"attention": "block_causal", "block_length": 8}
PLANS = [
    (FULL, "none"),
    (FULL, "prefix"),
    (FULL, "dual"),
    (BLOCKS, "block_causal"),
    (BLOCKS, "none"),
]
OPTIONS = {"max_new_tokens": 24, "blocks": "fixed(8)", "stop": "none"}


def step_of(run, ids, still_open, end):
    """What one greedy step on a canvas does, and all that it saw: position -> (id, confidence)."""
    trained = run.decoder.spec.block_length or 0
    rows = twins.dense(run.decoder, ids[:end] if trained else ids, trained)
    seen = {}
    for p in sorted(still_open):
        ranked = sorted((-x, i) for i, x in enumerate(rows[p].tolist()) if i != run.mask)
        run.decided(ranked[1][0] - ranked[0][0])
        seen[p] = ranked[0][1], float(rows[p].double().softmax(0)[ranked[0][1]])
    order = sorted(seen, key=lambda p: (-seen[p][1], p))
    for one, other in itertools.pairwise(order):
        run.decided(seen[one][1] - seen[other][1])
    return [(p, seen[p][0]) for p in order]


def by_the_book(decoder, prompt, new, block, branches):
    """arXiv 2510.00294: nested drafts, one forward over all, then go on while a draft is what the
    step on the draft before it gives. The canvas after each forward holds the first draft, too,
    which is always right.
    """
    trained = decoder.spec.block_length or 1
    run = twins.Run(decoder, prompt, math.ceil((len(prompt) + new) / trained) * trained)
    start = len(prompt) // trained * trained
    while start < len(run.ids):
        end = min(start + block, len(run.ids))

        def opened(ids, end=end):
            return {p for p in range(end) if p in run.open and ids[p] == run.mask}

        ids, run.nfe["forward"] = run.ids, run.nfe["forward"] + 1
        order = step_of(run, ids, opened(ids), end)
        while order:
            drafts = []
            for count in range(1, min(branches, len(order)) + 1):
                draft = list(ids)
                for p, token in order[:count]:
                    draft[p] = token
                drafts.append(draft)
            run.ids = drafts[0]
            run.end_step()
            if not opened(drafts[0]):
                break
            run.nfe["forward"] += 1
            best, number = drafts[0], 0
            targets = [step_of(run, draft, opened(draft), end) for draft in drafts]
            while number + 1 < len(drafts) and targets[number]:
                target = list(drafts[number])
                target[targets[number][0][0]] = targets[number][0][1]
                if target != drafts[number + 1] or not opened(target):
                    break
                number, best = number + 1, drafts[number + 1]
            ids, order = best, targets[number]
        run.open -= set(range(end))
        start = end
    return run


@pytest.mark.parametrize("branches", [2, 3, 8])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [FULL, BLOCKS], ids=["full", "blocks"])
def test_every_forward_is_that_of_the_textbook(kind, seed, branches):
    decoder, prompt = decoder_of(seed, **kind), prompt_of(6 + seed, 5 * seed)
    trace = Bench(decoder).decode(prompt, **OPTIONS, unmask=f"freedave({branches})", cache="none")
    run = by_the_book(decoder, prompt, 24, 8, branches)
    same = [a == b for a, b in zip(trace.canvases, run.canvases, strict=False)]
    if all(same):
        assert len(trace.forwards) == run.nfe["forward"] == len(run.canvases) - 1
    else:
        assert run.gaps[same.index(False) - 1] < NEAR


@pytest.mark.parametrize(("kind", "cache"), PLANS)
def test_tokens_are_those_of_one_token_a_step_under_every_plan(kind, cache):
    """Rows with other prompts, numbers and beginnings in one batch, beside other rules."""
    decoder, saved, parted = decoder_of(2, **kind), 0, 0
    bench, plain = Bench(decoder, unroll=3), Bench(decoder)
    states, others = [], []
    for n, branches in enumerate((2, 4, 4, 8)):
        options = {**OPTIONS, "cache": cache, "max_new_tokens": 17 + 5 * n}
        prompt = prompt_of(5 + 3 * n, 8 * n + 1)
        states.append(bench.state(prompt, unmask=f"freedave({branches})", **options))
        others.append(plain.state(prompt, unmask="topk", **options))
    beside = bench.state(prompt_of(9, 3), **OPTIONS, unmask="topk", cache=cache)
    traces = bench.run(*states, beside, after={1: 2, 3: 4})
    greedy = plain.run(*others)
    for trace, other, state, slow in zip(traces, greedy, states, others, strict=False):
        parted += trace.canvases[-1] != other.canvases[-1]
        assert state.ledger.nfe == sum(state.ledger.forwards.values())
        saved += slow.ledger.nfe - state.ledger.nfe
        if trace.canvases[-1] == other.canvases[-1]:
            ours, theirs = (commits(s) for s in (state, slow))
            assert ours == pytest.approx(theirs, abs=EXACT), "confidence of the step that decided"
    assert parted == 0
    assert saved > 8


def commits(state):
    """The confidence of each position's commit."""
    done = (e for e in state.events if e.type == "commit")
    return {p: c for e in done for p, c in zip(e.pos, e.conf, strict=True)}


def test_tokens_of_branches_are_counted_and_forwards_once():
    decoder, prompt = decoder_of(1), prompt_of(8, 1)
    bench = Bench(decoder)
    state = bench.state(prompt, **OPTIONS, unmask="freedave(4)", cache="dual")
    (trace,) = bench.run(state)
    opening = sum(e.type == "block" for e in state.events)
    assert opening == 3
    assert state.ledger.nfe == len(trace.forwards)
    # a block's first step computes the canvas of 32; the others 8 positions and 3 copies of them
    assert state.ledger.token_forwards == 3 * 32 + (state.ledger.nfe - 3) * 8 * 4
    assert all(len(f.queries) in (32, 8) for f in trace.forwards), "a copy stores no key"


@dataclass(frozen=True)
class Watched(FreeDave):
    """Checks every branch with a plain forward on its canvas."""

    tier = "T2"

    def propose(self, view):
        if view.branches is not None:
            SEEN.append((view, [view.scratch[spec.name][0].tolist() for spec in DRAFT]))
        return FreeDave.propose(self, view)


SEEN = []


@pytest.mark.parametrize("kind", [FULL, BLOCKS], ids=["full", "blocks"])
def test_a_branch_is_the_canvas_with_its_draft(kind):
    decoder, prompt = decoder_of(3, **kind), prompt_of(9, 2)
    SEEN.clear()
    Bench(decoder).decode(prompt, **OPTIONS, unmask=Watched(4), cache="none")
    checked = 0
    for view, (token, order) in SEEN:
        canvas = [*prompt[: int(view.pos[0, 0])], *view.ids[0].tolist()]
        if not kind:
            canvas += [decoder.spec.mask_id] * (33 - len(canvas))
        if int(view.pos[0, 0]) > len(prompt):
            continue  # of later blocks a view does not show what is before them
        for number in range(view.branches.token.shape[1]):
            filled = [token[p] if 0 < order[p] <= number + 1 else i for p, i in enumerate(canvas)]
            rows = twins.dense(decoder, filled, decoder.spec.block_length or 0)
            for column in view.branches.scored[0, number].nonzero()[:, 0].tolist():
                found = view.branches.logits[view.branches.logit_row[0, number, column]]
                assert torch.allclose(found, rows[int(view.pos[0, column])], atol=1e-3)
                checked += 1
    assert checked > 40


@dataclass(frozen=True)
class Trusting(FreeDave):
    """A wrong rule: it takes its drafts unseen."""

    tier = "T3"

    def propose(self, view):
        token, order = (view.scratch[spec.name].gather(1, view.pos) for spec in DRAFT)
        proposal = FreeDave.propose(self, view)
        drafted = view.eligible & (order > 0) & (order < 3)
        return Proposal(
            proposal.commit | drafted,
            torch.where(drafted, token, view.token),
            scratch=proposal.scratch,
        )


def test_drafts_that_are_taken_unseen_are_not_greedy_decoding():
    wrong = 0
    for seed in range(4):
        decoder, prompt = decoder_of(seed), prompt_of(7, seed)
        runs = [Bench(decoder).decode(prompt, **OPTIONS, unmask=u) for u in (Trusting(4), "topk")]
        wrong += runs[0].canvases[-1] != runs[1].canvases[-1]
    assert wrong > 2


def test_pinned_ids_streams_and_the_budget_of_forwards():
    spec = tiny_spec()
    engine = Engine(random_decoder(spec, seed=4), info_of(spec))
    infill = [None, None, 7, None, None, None, 9, 12, *[None] * 8]
    options = {"infill": infill, "stop": "none", "blocks": "fixed(6)", "cache": "dual"}
    fast, slow = (engine.generate((5, 9), unmask=u, **options) for u in ("freedave", "topk"))
    assert fast.canvas == slow.canvas
    assert fast.stats.nfe < slow.stats.nfe
    events = list(engine.stream((5, 9), unmask="freedave", **options))
    assert events[-1].result.canvas == fast.canvas
    short = engine.generate(
        (5, 9), unmask="freedave", **(options | {"stop": ["none", "max_nfe(4)"]})
    )
    assert short.stats.nfe == 4
    assert engine.kv.pages.in_use == 0


def test_forks_share_a_forward_with_its_branches_and_reopened_rows_draft_anew():
    spec = tiny_spec()
    engine = Engine(random_decoder(spec, seed=6), info_of(spec))
    options = {"max_new_tokens": 24, "blocks": "fixed(12)", "stop": "none", "cache": "dual"}
    slow = engine.generate((5, 9, 4), unmask="topk", **options)
    parent = engine.start((5, 9, 4), unmask="freedave(3)", **options)
    engine.resume(parent, steps=3)
    children = [engine.fork(parent, path) for path in (1, 2)]
    engine.resume([parent, *children])
    assert {node.result().canvas for node in (parent, *children)} == {slow.canvas}
    engine.reopen(parent, [4, 9])
    engine.resume(parent)
    assert parent.result().canvas.count(spec.mask_id) == 0
    for node in (parent, *children):
        node.close()


@pytest.mark.parametrize("model", ["tiny", "tiny-block"])
def test_bundled_answers_are_those_of_topk(model):
    engine, rng = dlm.load(model, device="cpu"), random.Random(3)
    prompts = [sample(rng, "test", TASKS[i % len(TASKS)]).prompt for i in range(8)]
    options = {"max_new_tokens": 32, "cache": "block_causal" if model == "tiny-block" else "dual"}
    fast, slow = (engine.generate(prompts, unmask=u, **options) for u in ("freedave(8)", "topk"))
    assert [a.ids for a in fast] == [a.ids for a in slow]
    assert sum(a.stats.nfe for a in fast) < 0.6 * sum(a.stats.nfe for a in slow)


# the rule on a view


def hand(drafted, order, copies, c):
    """A row of four open positions that all say 5; `copies`: tokens and confidences of each."""
    rule = FreeDave(branches=len(copies) + 1)
    view = make_view(rule, [c])
    token, confidence = (torch.tensor([[copy[n] for copy in copies]]) for n in (0, 1))
    zero = torch.zeros_like(token)
    scored = torch.ones_like(token, dtype=torch.bool)
    branches = Branches(token, confidence, scored, zero, view.logits, view.stats.logsumexp)
    values = (torch.tensor([[*row, 0]]) for row in (drafted, order))
    scratch = {spec.name: value for spec, value in zip(DRAFT, values, strict=True)}
    proposal = rule.propose(view._replace(branches=branches, scratch=scratch))
    draft = [proposal.scratch[spec.name][0, :4].tolist() for spec in DRAFT]
    return proposal.commit[0].tolist(), proposal.branch[0].tolist(), draft


SURE = [0.1, 0.9, 0.2, 0.3]
FIRST = ([6, 6, 6, 6], [0.3, 0.0, 0.9, 0.4])  # with position 1 filled, position 2 is best
SECOND = ([7, 7, 7, 7], [0.8, 0.0, 0.0, 0.5])


def test_a_draft_goes_on_while_each_step_is_the_one_that_was_drafted():
    commit, branch, (token, order) = hand([0, 5, 6, 0], [0, 1, 2, 0], [FIRST, SECOND], SURE)
    assert commit == [True, True, True, False]
    assert branch == [2, 0, 1, 2]
    assert (token[3], order) == (7, [0, 0, 0, 1])


@pytest.mark.parametrize(
    ("drafted", "order"),
    [([0, 4, 6, 0], [0, 1, 2, 0]), ([0, 5, 6, 0], [0, 2, 1, 0]), ([0] * 4, [0] * 4)],
    ids=["another token", "another place", "nothing drafted"],
)
def test_a_draft_that_is_wrong_at_once_leaves_the_step_itself(drafted, order):
    commit, branch, (token, order) = hand(drafted, order, [FIRST, SECOND], SURE)
    assert commit == [False, True, False, False]
    assert branch == [0, 0, 0, 0]
    assert (token, order) == ([5, 5, 5, 5], [3, 0, 2, 1])


def test_a_draft_that_fails_later_stops_there():
    commit, branch, _ = hand([0, 5, 9, 0], [0, 1, 2, 0], [FIRST, SECOND], SURE)
    assert commit == [False, True, True, False]
    assert branch == [1, 0, 1, 1]


def test_equal_confidences_go_from_left_to_right():
    commit, _, (_, order) = hand([0] * 4, [0] * 4, [FIRST], [0.5, 0.5, 0.5, 0.5])
    assert commit == [True, False, False, False]
    assert order == [0, 1, 2, 3]


# refusals


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"unmask": "freedave(1)"}, "`branches` must be between 2 and 64, got 1"),
        ({"temperature": 0.5}, "verified at temperature 0, got 0.5"),
        ({"edit": "rewrite"}, "Rewrite revises it in between: use no `edit`"),
        ({"stop": ["none", "stable"]}, "Stable counts steps of one: use no early commit"),
        ({"guide": "cfg(1.0)"}, "CFG asks for further model inputs"),
        ({"blocks": "sliding(4)"}, "offers all its open positions, and Sliding does not"),
        ({"blocks": "pipeline(4)"}, "offers all its open positions, and Pipeline does not"),
        ({"cache": "dual(every=4)"}, "what the cache Dual computes depends on their number"),
        ({"cache": "delayed"}, "what the cache Delayed computes depends on their number"),
        ({"cache": "freecache"}, "what the cache FreeCache computes depends on their number"),
        ({"cache": "vicinity"}, "what the cache Vicinity computes depends on their number"),
        ({"steps": 8}, "no part follows a schedule that could take 8 steps"),
    ],
)
def test_what_cannot_be_verified_is_refused_with_the_reason(options, reason):
    bench = Bench(decoder_of(0))
    with pytest.raises(InvalidRequest) as caught:
        bench.state(prompt_of(5, 0), **({"unmask": "freedave", "max_new_tokens": 16} | options))
    assert reason in str(caught.value)


def test_branches_that_fit_no_forward_are_refused():
    spec = tiny_spec()
    engine = Engine(random_decoder(spec), info_of(spec), max_token_forwards=40)
    options = {"max_new_tokens": 16, "stop": "none"}
    engine.generate((5, 9), unmask="freedave(2)", **options)
    with pytest.raises(InvalidRequest, match="18 positions in 3 inputs does not fit one forward"):
        engine.generate((5, 9), unmask="freedave(3)", **options)


def test_shifted_models_are_refused():
    bench = Bench(decoder_of(0, shift=True))
    with pytest.raises(InvalidRequest, match="predicts the position after a query"):
        bench.state(prompt_of(5, 0), **OPTIONS, unmask="freedave")
