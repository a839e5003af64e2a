"""Rules that leave to chance which positions fall: what they draw, and that it is repeatable."""

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from dlm.config.aliases import resolve_aliases
from dlm.core import Kind
from dlm.errors import InvalidRequest
from dlm.unmasking.unmask.ancestral import Ancestral
from dlm.unmasking.unmask.topk import TopK
from tests.unmasking.views import INFO, make_view

DRAWS = 4000


def draws(rule, c, **options):
    """What a rule takes of one row under so many seeds."""
    view = make_view([rule] * DRAWS, [c] * DRAWS, seed=list(range(DRAWS)), **options)
    return [tuple(row) for row in rule.propose(view).commit.tolist()]


@pytest.mark.parametrize("temperature", [0.1, 0.5, 5.0])
def test_positions_are_drawn_without_replacement(temperature):
    """softmax(score / T), one after the other: the probability of every set of two, written out."""
    c, count = [0.9, 0.5, 0.6, 0.2], 2
    rule = TopK(schedule="even", steps=2, temperature=temperature).bind(INFO)
    found = Counter(draws(rule, c))
    weight = [math.exp(x / temperature) for x in c]
    expected = Counter()
    for first, second in itertools.permutations(range(len(c)), count):
        share = weight[first] / sum(weight)
        share *= weight[second] / (sum(weight) - weight[first])
        expected[tuple(i in (first, second) for i in range(len(c)))] += share
    assert set(found) <= set(expected)
    names = [name for name, share in expected.items() if share * DRAWS >= 5]
    rare = max(1e-9, 1 - sum(expected[name] for name in names))
    counts = [*(found[name] for name in names), DRAWS - sum(found[name] for name in names)]
    shares = [*(expected[name] for name in names), rare]
    assert chisquare(counts, [DRAWS * s / sum(shares) for s in shares]).pvalue > 1e-3


def test_a_low_temperature_takes_the_best():
    c = [0.3, 0.9, 0.2, 0.8]
    warm = TopK(schedule="even", steps=2, temperature=1e-6).bind(INFO)
    assert set(draws(warm, c)) == {(False, True, False, True)}


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=8), st.integers(1, 9))
def test_open_positions_alone_are_drawn(c, steps):
    kinds = [Kind.MASK if i % 3 else Kind.COMMITTED for i in range(len(c))]
    rule = TopK(score="entropy", schedule="eps", steps=steps, temperature=0.3).bind(INFO)
    view = make_view([rule], [c], kind=[kinds], entropy=[c], step=steps - 1)
    commit = rule.propose(view).commit[0].tolist()
    assert commit == [kind == Kind.MASK for kind in kinds], "the last step takes all"


def test_a_row_draws_the_same_in_any_batch():
    rule = TopK(temperature=0.5).bind(INFO)
    c = torch.rand(6, 5).tolist()
    together = rule.propose(make_view([rule] * 6, c, seed=list(range(6)), path=list(range(6))))
    for n in range(6):
        alone = rule.propose(make_view([rule], [c[n]], seed=n, path=n))
        assert alone.commit[0].tolist() == together.commit[n].tolist()


@pytest.mark.parametrize(("step", "steps"), [(0, 4), (2, 4), (3, 8), (0, 10)])
def test_each_position_falls_by_itself(step, steps):
    """With t from 1 to eps: P(fall) = 1 - s / t, independent of the others and of confidence."""
    rule = Ancestral(steps=steps)
    found = draws(rule, [0.9, 0.0, 0.4], step=step)
    times = [1 + (1e-3 - 1) * i / steps for i in range(steps + 1)]
    share = 1 - times[step + 1] / times[step]
    for place in range(3):
        fell = sum(row[place] for row in found)
        assert binomtest(fell, DRAWS, share).pvalue > 1e-3
    both = sum(row[0] and row[1] for row in found)
    assert binomtest(both, DRAWS, share**2).pvalue > 1e-3


def test_the_last_step_takes_all():
    rule = Ancestral(steps=3)
    assert set(draws(rule, [0.1, 0.2], step=2)) == {(True, True)}
    assert set(draws(rule, [0.1, 0.2], step=7)) == {(True, True)}


def test_dreams_names():
    given = {"alg": "entropy", "alg_temp": 0.2, "eps": 0.01}
    drawn = "conf_from='tempered'"
    entropy = f"topk('entropy', 'eps', eps=0.01, temperature=0.2, {drawn})"
    assert resolve_aliases(given)["unmask"] == entropy
    assert resolve_aliases({"alg": "origin"})["unmask"] == "ancestral()"
    assert resolve_aliases({"alg": "origin", "eps": 0.1})["unmask"] == "ancestral(eps=0.1)"
    deterministic = {"alg": "maskgit_plus", "alg_temp": 0}
    assert resolve_aliases(deterministic)["unmask"] == f"topk('confidence', 'eps', {drawn})"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopK(temperature=0.0), "`temperature` must be greater than 0, got 0.0"),
        (lambda: Ancestral(steps=0), "`steps` must be at least 1, got 0"),
        (lambda: Ancestral(eps=1.0), r"`eps` must be in \(0, 1\), got 1.0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InvalidRequest, match=message):
        make()
