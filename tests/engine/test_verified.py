"""Drafts that the model verifies from left to right, against decoders of one token at a time."""

import math
import random

import pytest
import torch

import dlm
from dlm import Engine
from dlm.core import Branches
from dlm.errors import InvalidRequest
from dlm.evals.tasks import TASKS
from dlm.evals.tasks.mix import sample
from dlm.unmasking.unmask.verified import Verified
from tests import twins
from tests.engine.harness import Bench, info_of
from tests.engine.test_hard_cases import decoder_of, prompt_of
from tests.helpers import random_decoder, tiny_spec
from tests.unmasking.views import make_view

BLOCK = 8
KIND = {"attention": "block_causal", "block_length": BLOCK}
OPTIONS = {"max_new_tokens": 24, "stop": "none"}


def said(decoder, ids, position, block=BLOCK):
    """The best id but the mask of a MASK that sees all before its block, which sees itself block by
    block, and the tokens of its own block one after the other.
    """
    mask, start = decoder.spec.mask_id, position // block * block
    places = [*range(position), position]

    def sees(query, key):
        if query < start:
            return key // block <= query // block
        return key <= query

    rows = twins.seeing(
        decoder, [*ids[:position], mask], places, [[sees(q, k) for k in places] for q in places]
    )
    rows[-1][mask] = -math.inf
    return int(rows[-1].argmax())


def one_by_one(decoder, prompt, new):
    """Greedy decoding with blocks of one position."""
    ids, length = list(prompt), math.ceil((len(prompt) + new) / BLOCK) * BLOCK
    while len(ids) < length:
        ids.append(said(decoder, ids, len(ids)))
    return ids


def drafts(decoder, ids, first, end):
    """Of each open position from `first` on: its best id, the confidence, and the margin."""
    mask, rows = decoder.spec.mask_id, twins.dense(decoder, ids[:end], BLOCK)
    found = {}
    for p in (p for p in range(first, end) if ids[p] == mask):
        probs = rows[p].double().softmax(0)[:mask]
        first, second = probs.topk(2).values.tolist()
        found[p] = int(probs.argmax()), first, first - second
    return found


def routed(decoder, prompt, new, worth, threshold):
    """arXiv 2603.25702 with greedy drafts: each step verifies the first run of masks where it is
    `worth` it (by the margins of the run), else commits what is sure. The canvas, and the number
    of drafts and of verdicts.
    """
    mask, length = decoder.spec.mask_id, math.ceil((len(prompt) + new) / BLOCK) * BLOCK
    ids, counts = [*prompt, *[mask] * (length - len(prompt))], [0, 0]
    for start in range(len(prompt) // BLOCK * BLOCK, length, BLOCK):
        end = start + BLOCK
        while found := drafts(decoder, ids, len(prompt), end):
            counts[0] += 1
            run = [min(found)]
            while run[-1] + 1 in found:
                run.append(run[-1] + 1)
            if worth([found[p][2] for p in run]):
                counts[1] += 1
                for p in run:
                    ids[p] = found[p][0]
                    verdict = said(decoder, ids, p)
                    if verdict != ids[p]:
                        ids[p] = verdict
                        for q in range(p + 1, run[-1] + 1):
                            ids[q] = mask
                        break
            else:
                sure = [p for p in found if found[p][1] > threshold]
                for p in sure or [max(found, key=lambda p: (found[p][1], -p))]:
                    ids[p] = found[p][0]
    return ids, counts


def run_of(seed, length, **options):
    bench = Bench(decoder_of(seed, **KIND))
    state = bench.state(prompt_of(length, seed), **(OPTIONS | options))
    (trace,) = bench.run(state)
    return trace, state


@pytest.mark.parametrize("cache", ["block_causal", "none"])
@pytest.mark.parametrize("length", [3, 8, 13])
@pytest.mark.parametrize("seed", [0, 2])
def test_what_is_always_verified_is_decoding_token_by_token(seed, length, cache):
    prompt, bench = prompt_of(length, seed), Bench(decoder_of(seed, **KIND))
    state = bench.state(prompt, **OPTIONS, unmask="verified", cache=cache)
    (trace,) = bench.run(state)
    assert trace.canvases[-1] == one_by_one(decoder_of(seed, **KIND), prompt, 24)
    ledger = state.ledger
    assert ledger.nfe == len(trace.forwards) == ledger.aux_forwards["self"] == bench.verdicts
    assert ledger.aux_tokens["self"] == 2 * BLOCK * ledger.nfe
    assert sum(e.type == "commit" for e in state.events) <= ledger.nfe


@pytest.mark.parametrize("threshold", [0.5, 0.9])
@pytest.mark.parametrize(("cost", "least"), [(1.0, 0.0), (2.0, 1.0), (0.0, 3.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_routed_run_equals_the_textbook(seed, cost, least, threshold):
    decoder, prompt = decoder_of(seed, **KIND), prompt_of(9, seed)

    def worth(margins):
        leading = next((n for n, m in enumerate(margins) if m <= 0.25), len(margins))
        return leading - cost >= least

    rule = Verified("score", threshold, 0.25, cost, least)
    trace, state = run_of(seed, 9, unmask=rule)
    ids, (steps, verdicts) = routed(decoder, prompt, 24, worth, threshold)
    assert trace.canvases[-1] == ids
    assert (state.ledger.nfe, state.ledger.aux_forwards["self"]) == (steps, verdicts)


@pytest.mark.parametrize("span", [2, 5, 9])
def test_a_run_that_is_too_short_is_not_verified(span):
    decoder, prompt = decoder_of(3, **KIND), prompt_of(10, 3)
    trace, state = run_of(3, 10, unmask=Verified("span", 0.6, span=span))
    expected = routed(decoder, prompt, 24, lambda margins: len(margins) >= span, 0.6)
    found = trace.canvases[-1], [state.ledger.nfe, state.ledger.aux_forwards["self"]]
    assert found == expected
    assert (expected[1][1] == 0) == (span > BLOCK)


def test_a_route_that_is_never_taken_is_the_rule_of_a_threshold():
    for seed in range(3):
        never, _ = run_of(seed, 7, unmask=Verified("score", 0.6, least=1e9))
        plain, state = run_of(seed, 7, unmask="dynamic(0.6)")
        assert never.canvases == plain.canvases
        assert not state.ledger.aux_forwards


def test_rows_that_verify_share_forwards_with_rows_that_do_not():
    """Each has its own numbers and joins in the middle of a block; guides reach the verdict."""
    decoder = decoder_of(4, **KIND)
    rules = [
        {"unmask": "verified"},
        {"unmask": Verified("score", 0.4, 0.2)},
        {"unmask": Verified("score", 0.7, 0.6, 3.0)},
        {"unmask": "dynamic(0.5)"},
        {"unmask": "verified", "guide": ["forbid((5, 6, 7))", "bias(((9, 2.0),))"]},
    ]
    bench = Bench(decoder)
    states = [
        bench.state(prompt_of(4 + 3 * n, n), **OPTIONS, **rule) for n, rule in enumerate(rules)
    ]
    together = bench.run(*states, after={1: 1, 2: 3})
    for n, (rule, trace, state) in enumerate(zip(rules, together, states, strict=True)):
        alone = Bench(decoder)
        other = alone.state(prompt_of(4 + 3 * n, n), **OPTIONS, **rule)
        (own,) = alone.run(other)
        assert own.canvases[-1] == trace.canvases[-1]
        assert other.ledger == state.ledger
    assert not {5, 6, 7} & set(together[-1].canvases[-1][16:])


def test_pinned_ids_and_streams():
    spec = tiny_spec(**KIND)
    engine = Engine(random_decoder(spec, seed=4), info_of(spec))
    infill = [None, None, 7, None, None, None, 9, 12, *[None] * 8]
    events = list(engine.stream((5, 9), unmask="verified", infill=infill, stop="none"))
    answer = events[-1].result
    assert [answer.canvas[2 + n] for n in (2, 6, 7)] == [7, 9, 12]
    assert spec.mask_id not in answer.canvas
    assert answer.stats.aux_forwards["self"] == answer.stats.nfe
    assert engine.kv.pages.in_use == 0


def test_bundled_answers_do_not_depend_on_the_draft():
    """Verified always, the answers are those of blocks of one position."""
    engine, rng = dlm.load("tiny-block", device="cpu"), random.Random(3)
    prompt = sample(rng, "test", TASKS[0]).prompt
    answer = engine.generate(prompt, max_new_tokens=16, unmask="verified", stop="none")
    block, length = engine.info.block_length, len(answer.canvas)
    ids = list(answer.canvas[: length - 16])
    while len(ids) < length:
        ids.append(said(engine.model, ids, len(ids), block))
    assert tuple(ids) == answer.canvas
    assert answer.stats.nfe < 16


# the rule on a view


def hand(right, judged=True, kind=(3, 3, 3, 3), c=(0.2, 0.95, 0.1, 0.3)):
    """A row that drafts 5 everywhere; the verdict says 5 where it is `right`, else 6."""
    rule = Verified()
    view = make_view(rule, [list(c)], kind=[list(kind)])
    token = torch.tensor([[[5 if r else 6 for r in right]]])
    scored = torch.full_like(token, judged, dtype=torch.bool)
    zero = torch.zeros_like(token)
    branches = Branches(token, zero.float(), scored, zero, view.logits, view.stats.logsumexp)
    proposal = rule.propose(view._replace(branches=branches))
    return proposal.commit[0].int().tolist(), proposal.branch[0].tolist()


def test_the_draft_is_taken_up_to_the_first_token_that_differs():
    assert hand([1, 1, 0, 1]) == ([1, 1, 1, 0], [1, 1, 1, 0])
    assert hand([0, 0, 0, 0]) == ([1, 0, 0, 0], [1, 0, 0, 0])
    assert hand([1, 1, 1, 1]) == ([1, 1, 1, 1], [1, 1, 1, 1])


def test_only_the_first_run_of_masks_is_verified():
    assert hand([1, 1, 1, 1], kind=(1, 3, 1, 3)) == ([0, 1, 0, 0], [0, 1, 0, 0])


def test_what_was_not_judged_is_committed_by_the_threshold():
    assert hand([0, 0, 0, 0], judged=False) == ([0, 1, 0, 0], [0, 0, 0, 0])


# refusals


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"unmask": "verified('maybe')"}, "`route` must be one of 'always', 'score', 'span'"),
        ({"unmask": "verified(threshold=1.5)"}, "`threshold` must be between 0 and 1, got 1.5"),
        ({"unmask": "verified(margin=-0.1)"}, "`margin` must be between 0 and 1, got -0.1"),
        ({"unmask": "verified(cost=-1.0)"}, "`cost` must be at least 0, got -1.0"),
        ({"unmask": "verified(span=0)"}, "`span` must be at least 1, got 0"),
        ({"temperature": 0.5}, "verified at temperature 0, got 0.5"),
        ({"edit": "rewrite"}, "Rewrite revises these: use no `edit`"),
        ({"guide": "cfg(1.0)"}, "CFG asks for further model inputs"),
        ({"blocks": "pipeline(8)"}, "offers all its open positions, and Pipeline does not"),
        ({"steps": 8}, "no part follows a schedule that could take 8 steps"),
    ],
)
def test_what_cannot_be_verified_is_refused_with_the_reason(options, reason):
    bench = Bench(decoder_of(0, **KIND))
    with pytest.raises(InvalidRequest) as caught:
        bench.state(prompt_of(5, 0), **({"unmask": "verified", "max_new_tokens": 16} | options))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [({}, "has full attention"), (KIND | {"shift": True}, "predicts the position after")],
)
def test_models_that_read_no_block_from_left_to_right_are_refused(kind, reason):
    with pytest.raises(InvalidRequest, match=reason):
        Bench(decoder_of(0, **kind)).state(prompt_of(5, 0), **OPTIONS, unmask="verified")
