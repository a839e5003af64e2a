"""Known defects of public reference codes that concern commits: a test each, or where one stands.

| defect | test |
| --- | --- |
| a prompt that spells the mask token is decoded (all) | engine/test_infill.py |
| factor decoding commits a last rank that fails (Fast-dLLM) | unmasking/test_rules.py |
| a confidence of exactly 0 counts as certain (MDPO's RCR) | unmasking/test_rules.py |
| steps beyond the masks run idle forwards (LLaDA) | engine/test_hard_cases.py |
| left padding shifts what the attention sees (Fast-dLLM) | engine/test_invariants.py |
| what is committed by the refresh is computed once more (Fast-dLLM) | here |
| k beyond the candidates takes what is not open (SDAR, LLaDA) | here |
| positions whose best id is MASK are skipped for ever (dInfer) | here |
| end ids are suppressed only while nothing is drawn (LLaDA) | here |
| demoted ids leave their share of the softmax to the others (LLaDA) | engine/test_differential.py |
| a block's first position falls alone, whatever its score (Fast-dLLM) | here |
| a block of one step stays masked (Fast-dLLM on Dream) | here |
| a block's quota overwrites prompts and commits (SDAR) | here |
| one count for the whole batch (Dream) | here |
| confidences in the model's half precision move thresholds (LLaDA) | here |
| `>` where the paper has `>=`, and the other way round | here |
| a block of one delimiter costs a whole forward (AdaBlock) | here |
| the largest entropy is looked for across the batch, not along the ranks (d2Cache) | here |
| the summed entropy is bounded with its largest term in it (SDAR) | here |
| the highest entropy counts as the most certain (KLASS) | here |
"""

from dataclasses import replace

import pytest
import torch

from dlm import Engine
from dlm.core import Kind
from dlm.unmasking.blocks.adaptive import AdaBlock
from dlm.unmasking.unmask.entropy import EntropyBound, LowEntropy
from dlm.unmasking.unmask.threshold import Dynamic, Threshold
from dlm.unmasking.unmask.topk import TopK
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec
from tests.unmasking.views import INFO, make_view

PROMPT = (5, 9, 33, 12)


def new_engine(model=None, **changes):
    spec = tiny_spec(**changes)
    decoder = random_decoder(spec)
    engine = Engine(decoder, info_of(spec))
    if model is not None:
        engine.manager.model = lambda packed, kv: model(decoder(packed, kv))
    return engine


def test_a_block_that_the_refresh_fills_takes_one_forward():
    answer = new_engine().generate(
        PROMPT, max_new_tokens=32, unmask="threshold(0.0)", blocks="fixed(8)", cache="dual",
        stop="none",
    )  # fmt: skip
    assert answer.stats.forwards == {"refresh step": 4}


@pytest.mark.parametrize("rule", [TopK(steps=1), Dynamic(1.0, 1), TopK("left", steps=1)])
def test_a_count_beyond_the_candidates_takes_open_positions_alone(rule):
    """The first block of a block-causal model shares its positions with the prompt's tail."""
    kinds = [Kind.PROMPT, Kind.COMMITTED, Kind.MASK, Kind.MASK]
    view = make_view(rule.bind(INFO), [[0.9, 0.9, 0.1, 0.2]], kind=[kinds], step=0)
    assert rule.bind(INFO).propose(view).commit.tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("rule", [Dynamic(1.0, 2), Dynamic(0.8, 2), Dynamic(1.0, 2, order="left")])
def test_a_blocks_quota_never_reaches_the_prompt(rule):
    kinds = [Kind.PROMPT, Kind.PROMPT, Kind.PROMPT, Kind.MASK]
    view = make_view(rule.bind(INFO), [[0.9, 0.9, 0.1, 0.2]], kind=[kinds], step=0)
    assert rule.bind(INFO).propose(view).commit.tolist() == [[False, False, False, True]]


@pytest.mark.parametrize("schedule", ["even", "eps"])
def test_a_first_position_falls_alone_only_on_demand(schedule):
    """Threshold and schedule alike; in the steps after the opening both are as always."""
    c = [[0.1, 0.9, 0.95, 0.2], [0.1, 0.9, 0.95, 0.2]]
    kinds = [[Kind.MASK] * 4, [Kind.COMMITTED, Kind.COMMITTED, Kind.MASK, Kind.MASK]]
    for rule, usual in (
        (Threshold(0.5), [False, True, True, False]),
        (TopK(schedule=schedule, steps=2), [False, schedule == "even", True, False]),
    ):
        ways = {
            way: replace(rule, first_alone=way).propose(
                make_view([replace(rule, first_alone=way)] * 2, c, kind=kinds, step=[0, 1], masks=4)
            )
            for way in (False, True)
        }
        assert ways[False].commit[0].tolist() == usual
        assert ways[True].commit[0].tolist() == [True, False, False, False]
        assert ways[True].commit[1].tolist() == ways[False].commit[1].tolist()


def test_no_block_of_one_step_stays_masked():
    """Its first position falls with the refresh; the next forward fills what is left."""
    answer = new_engine().generate(
        PROMPT, alg="entropy", steps=2, block_length=8, dual_cache=True, max_new_tokens=16,
        stop="none",
    )  # fmt: skip
    assert answer.stats.forwards == {"refresh step": 2, "step": 2}
    assert 63 not in answer.canvas


def test_shares_add_up():
    """Of 7 masks and 3 shares, 3, 5 and 7 may have fallen after so many steps; one always does."""
    rule = Threshold(0.5, shares=3)
    for step, taken, most in ((0, 0, 3), (1, 1, 4), (1, 3, 2), (2, 4, 3), (3, 5, 2), (2, 6, 1)):
        kinds = [[Kind.COMMITTED] * taken + [Kind.MASK] * (7 - taken)]
        view = make_view(rule, [[0.9] * 7], kind=kinds, step=step, masks=7)
        assert int(rule.propose(view).commit.sum()) == most


@pytest.mark.parametrize("unmask", ["threshold(0.9)", "topk", "leap", "factor", "slowfast"])
def test_a_model_that_always_says_mask_still_ends(unmask):
    def stubborn(logits):
        logits = logits.clone()
        logits[..., 63] = logits.amax() + 50
        return logits

    answer = new_engine(stubborn).generate(PROMPT, max_new_tokens=12, unmask=unmask, stop="none")
    assert answer.finish_reason == "length"
    assert 63 not in answer.ids
    assert answer.stats.nfe <= 12


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_demoted_ends_stay_demoted_when_tokens_are_drawn(temperature):
    """Both end ids, drawn or not: other positions fall first, whatever the confidences."""

    def ends(logits):
        logits = logits.clone()
        logits[..., 2::2, 1] += 60  # every other row of the logits
        return logits

    answer = new_engine(ends).generate(
        PROMPT, max_new_tokens=8, unmask="topk(demote=(1,))", blocks="whole", stop="none",
        temperature=temperature, trace=True,
    )  # fmt: skip
    order = [token for event in answer.trace if event.type == "commit" for token in event.ids]
    first_end = order.index(1)
    assert all(token == 1 for token in order[first_end:])
    assert 0 < first_end < len(order)


def test_every_row_has_its_own_count():
    """Dream takes the mean of the open positions of a batch: 4 and 12 would both be 8."""
    rule = TopK(schedule="eps", steps=2)
    c = [[0.5] * 12, [0.5] * 12]
    kinds = [[Kind.MASK] * 4 + [Kind.COMMITTED] * 8, [Kind.MASK] * 12]
    view = make_view([rule, rule], c, kind=kinds, masks=12)
    taken = rule.propose(view).commit.sum(dim=1).tolist()
    share = 1 - (1 - (1 - 1e-3) / 2)  # of times 1, 0.5005
    assert taken == [int(4 * share), int(12 * share)]


def test_confidences_are_float32_in_any_precision():
    """bfloat16 knows 0.8984 and 0.9023 but nothing between: thresholds near 0.9 would jump."""
    seen = []

    def remember(logits):
        seen.append(logits.dtype)
        return logits

    engine = new_engine(remember)
    engine.model.to(torch.bfloat16)
    half = Engine(engine.model, engine.info)
    half.manager.model = lambda packed, kv: remember(engine.model(packed, kv))
    answer = half.generate(PROMPT, max_new_tokens=8, stop="none", trace=True)
    confs = [c for event in answer.trace if event.type == "commit" for c in event.conf]
    assert set(seen) == {torch.float32}
    assert any(float(torch.tensor(c).bfloat16()) != c for c in confs)


def test_thresholds_are_closed_or_open_as_published():
    """Fast-dLLM commits at the threshold itself, SDAR above it."""
    c = [[0.5, 0.75, 0.875]]
    closed, strict = Threshold(0.75), Dynamic(0.75, 3)
    assert closed.propose(make_view(closed, c)).commit.tolist() == [[False, True, True]]
    assert strict.propose(make_view(strict, c)).commit.tolist() == [[False, False, True]]


def test_a_block_has_its_least_length():
    newline = 10
    for least, end in ((1, 1), (4, 4)):
        rule = AdaBlock(length=8, window=1.0, min_length=least).bind(replace(INFO))
        view = make_view(rule, [[0.9] + [0.1] * 11], token=[[newline] + [5] * 11], opening=True)
        assert rule.block_end(view).tolist() == [end]


@pytest.mark.parametrize("others", [0.0, 9.0])
@pytest.mark.parametrize(
    ("order", "entropy", "count"),
    [
        ("entropy", [0.5, 1.0, 1.5, 2.0], 2),
        ("confidence", [2.0, 0.5, 0.25, 0.25], 4),
        ("margin", [0.5, 1.5, 0.5, 2.0], 3),
    ],
)
def test_the_largest_entropy_is_looked_for_along_the_ranks(order, entropy, count, others):
    """So far it is the last, the first, or one between; what other rows have does not matter."""
    ranked = [0.9, 0.8, 0.7, 0.6]
    rule, mates = EntropyBound(1.0, order), [others] * 4
    view = make_view(rule, [ranked] * 3, entropy=[mates, entropy, mates], margin=ranked)
    assert rule.propose(view).commit[1].tolist() == [rank < count for rank in range(4)]


def test_the_entropy_bound_leaves_the_largest_term_out():
    """With it one position alone would be beyond the bound, and two of 0.5 just within it."""
    rule = EntropyBound(1.0)
    view = make_view(rule, [[0.5] * 3] * 2, entropy=[[0.5, 0.5, 0.5], [3.0, 4.0, 5.0]])
    assert rule.propose(view).commit.sum(dim=1).tolist() == [3, 1]


@pytest.mark.parametrize("rule", [TopK("entropy", steps=3), EntropyBound(0.0), LowEntropy(0.0)])
def test_the_lowest_entropy_is_the_most_certain(rule):
    view = make_view(rule, [[0.9, 0.1, 0.5]], entropy=[[3.0, 0.5, 2.0]])
    assert rule.propose(view).commit.tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    "unmask",
    ["topk('entropy')", "topk('entropy', 'cosine')", "entropy_bound(0.0)", "low_entropy(0.0)"],
)
def test_what_the_model_is_surest_of_is_committed_first(unmask):
    """Of the entropies that the engine reads from the logits."""
    engine = new_engine()
    options = {"unmask": unmask, "blocks": "whole", "stop": "none", "trace": True}
    answer = engine.generate(PROMPT, max_new_tokens=12, **options)
    logp = engine.logits(torch.tensor([[*PROMPT, *[63] * 12]]))[0].log_softmax(dim=1)
    entropy = -(logp.exp() * logp).sum(dim=1)[len(PROMPT) :]
    first = next(event for event in answer.trace if event.type == "commit")
    assert first.pos == (len(PROMPT) + int(entropy.argmin()),)
