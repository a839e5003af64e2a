"""Bounds of log-likelihoods against sums over all maskings, and how they vary."""

import itertools
import math

import numpy as np
import pytest
import torch

import dlm
from dlm.errors import InvalidRequest
from dlm.evals.harness import likelihood
from dlm.evals.harness.likelihood import Likelihood, Pair, maskings
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

CONTEXT, REST = (5, 9, 12, 3, 7), (20, 21, 22, 23, 24)
FAMILIES = {
    "full": {},
    "shifted": {"shift": True},
    "blocks": {"attention": "block_causal", "block_length": 4},
}


def engine_of(family="full"):
    decoder = random_decoder(tiny_spec(**FAMILIES[family]))
    return dlm.Engine(decoder, info_of(decoder.spec))


def log_bounds(engine, pairs, how):
    """The bounds in the order of the pairs."""
    found = {number: bound for number, bound, _ in likelihood.log_bounds(engine, pairs, how)}
    return [found[number] for number in range(len(pairs))]


def bound_by_hand(engine, context, rest, cfg_scale=0.0):
    """The expectation over all maskings, one canvas a forward."""
    ids, n = [*context, *rest], len(rest)
    total = 0.0
    for k in range(1, n + 1):
        sums = []
        for chosen in itertools.combinations(range(n), k):
            canvas = list(ids)
            for i in chosen:
                canvas[len(context) + i] = engine.info.mask_id
            logits = engine.logits([canvas])[0].double()
            if cfg_scale:
                blind = [engine.info.mask_id] * len(context) + canvas[len(context) :]
                without = engine.logits([blind])[0].double()
                logits = without + (1 + cfg_scale) * (logits - without)
            logp = torch.log_softmax(logits, -1)
            sums.append(sum(logp[len(context) + i, rest[i]].item() for i in chosen))
        total += (n / k) * (sum(sums) / len(sums)) / n
    return total


@pytest.mark.parametrize(("length", "draws"), [(1, 1), (3, 7), (5, 31), (9, 16), (40, 8), (2, 1)])
def test_every_position_counts_once_in_the_mean(length, draws):
    many = [maskings(length, draws, (seed,)) for seed in range(400 if draws < 2**length - 1 else 1)]
    counted = np.zeros((len(many), length))
    for row, sets in enumerate(many):
        for chosen, weight in sets:
            counted[row, list(chosen)] += weight
            assert len(set(chosen)) == len(chosen)
            assert set(chosen) <= set(range(length))
    if len(many) == 1:
        assert counted == pytest.approx(1.0)
    else:
        off = counted.mean(0) - 1
        assert (abs(off) < 5 * counted.std(0) / math.sqrt(len(many)) + 1e-12).all()


def test_numbers_that_are_masked_are_stratified():
    counts = sorted(len(chosen) for chosen, _ in maskings(20, 40, (3,)))
    assert counts == sorted([*range(1, 21)] * 2)


def test_continuations_of_one_context_share_their_maskings():
    """The order in which the first positions are masked does not depend on what follows them."""
    short, long = (maskings(n, 16, (7, 1)) for n in (13, 26))
    for (one, _), (other, _) in zip(short, long, strict=True):
        both = set(one) & set(other)
        rest = set(range(13)) - set(one)
        assert all(i not in other for i in rest) or both == set(one)
    assert maskings(13, 16, (7, 1)) == short
    assert maskings(13, 16, (8, 1)) != short


@pytest.mark.parametrize("family", ["full", "shifted"])
@pytest.mark.parametrize("cfg_scale", [0.0, 1.5])
def test_short_continuations_are_summed_up(family, cfg_scale):
    engine = engine_of(family)
    how = Likelihood(draws=31, batch=3, cfg_scale=cfg_scale)
    ((number, found, canvases),) = likelihood.log_bounds(engine, [Pair(CONTEXT, REST)], how)
    by_hand = bound_by_hand(engine, CONTEXT, REST, cfg_scale)
    assert found == pytest.approx(by_hand, abs=1e-4)
    assert (number, canvases) == (0, 31)


def test_the_estimate_is_unbiased():
    engine = engine_of()
    exact = bound_by_hand(engine, CONTEXT, REST)
    pairs = [Pair(CONTEXT, REST, seed) for seed in range(300)]
    found = np.array(log_bounds(engine, pairs, Likelihood(draws=4, batch=256)))
    assert found.std() > 0
    assert abs(found.mean() - exact) < 4 * found.std() / math.sqrt(len(found))


def test_one_token_is_its_log_probability():
    engine = engine_of()
    logits = engine.logits([[*CONTEXT, engine.info.mask_id]])[0, -1].double()
    (found,) = log_bounds(engine, [Pair(CONTEXT, (20,))], Likelihood(draws=128))
    assert found == pytest.approx(torch.log_softmax(logits, -1)[20].item(), abs=1e-5)


def test_pairs_of_other_lengths_do_not_matter(monkeypatch):
    monkeypatch.setattr(likelihood, "MOST_LOGITS", 9)  # few canvases a forward
    engine = engine_of()
    pairs = [Pair(CONTEXT, REST), Pair((1,), (2, 3)), Pair((), REST), Pair(CONTEXT * 4, (8,))]
    pairs += [Pair(CONTEXT, ()), Pair((3,), tuple(range(20, 40)))]
    together = log_bounds(engine, pairs, Likelihood(draws=40, batch=7))
    alone = [log_bounds(engine, [pair], Likelihood(draws=40, batch=1))[0] for pair in pairs]
    assert together == pytest.approx(alone, abs=1e-4)


def test_trained_blocks_are_scored_one_after_the_other():
    engine = engine_of("blocks")
    size = engine.info.alignment
    context, rest = tuple(range(1, size)), tuple(range(30, 33 + size))
    (whole,) = log_bounds(engine, [Pair(context, rest)], Likelihood(draws=128))
    cuts = [0, 1, 1 + size, len(rest)]
    parts = [
        log_bounds(engine, [Pair(context + rest[:a], rest[a:b])], Likelihood(draws=128))[0]
        for a, b in itertools.pairwise(cuts)
    ]
    assert whole == pytest.approx(sum(parts), abs=1e-4)


def test_what_is_refused():
    engine = engine_of()
    long = tuple([5] * engine.info.max_length)
    with pytest.raises(InvalidRequest, match=r"`context`: and continuation are \d+ tokens"):
        log_bounds(engine, [Pair(long, REST)], Likelihood())
    with pytest.raises(InvalidRequest, match="nothing predicts"):
        log_bounds(engine_of("shifted"), [Pair((), REST)], Likelihood())
    for name, value in [("draws", 0), ("batch", 0), ("draws", "64"), ("seed", -1), ("batch", 2.0)]:
        with pytest.raises(InvalidRequest, match=f"`{name}`: must be an integer of at least"):
            Likelihood(**{name: value})
    for value in (-1.0, "0.5", math.inf):
        with pytest.raises(InvalidRequest, match="`cfg_scale`: must be a number of at least 0"):
            Likelihood(cfg_scale=value)


def test_the_bundled_model_prefers_right_answers():
    engine = dlm.load("tiny", device="cpu")
    context = tuple(engine.text.encode_prompt("Compute 8+5."))
    right, wrong = (tuple(engine.text.encode(f"8+5={n}")) for n in (13, 14))
    found = log_bounds(engine, [Pair(context, right), Pair(context, wrong)], Likelihood())
    assert found[0] > found[1] + 2
