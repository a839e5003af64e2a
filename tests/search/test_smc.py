"""Particles on a known joint draw their target, and wrong weights are found out."""

from dataclasses import dataclass, replace
from math import exp
from statistics import mean, stdev

import pytest

from dlm.search.policies.particles import Particle
from dlm.search.policies.smc import SMC, SelfSMC
from tests.search.joint import Tabular, by_level, excess, powered, tilted, variation
from tests.search.tabular import Rule, Table, search

MODEL = Tabular()
RUNS = 1000


def reward(x):
    """Half a point for each token 0; the mean is about 1."""
    return x.count(0) / 2


def draws(policy, runs=RUNS, **more):
    return [search(policy, MODEL, reward, seed=s, **more).answer.answer.ids for s in range(runs)]


def levels(answers, target):
    """The distance of samples from a target in the counts of token 0, against independent ones."""
    return excess([x.count(0) for x in answers], by_level(target, lambda x: x.count(0)))


@pytest.mark.parametrize("potential", ["difference", "max", "sum"])
def test_smc_draws_the_tilted_distribution(potential):
    target = tilted(MODEL, reward, 1.0)
    found = draws(SMC(8, 3, potential=potential, lam=1.0, pick="draw"))
    assert excess(found, target) < 1.2
    assert levels(found, target) < 2


@dataclass(frozen=True, slots=True)
class Uncorrected(SMC):
    """The end is weighed by the highest score, with no regard to what was paid before."""

    def _weighed(self, one: Particle, score: float) -> Particle:
        if one.answer is None:
            return SMC._weighed(self, one, score)
        highest = max(score, one.state)
        return one.given(self.lam * highest, highest)


@dataclass(frozen=True, slots=True)
class Tripled(SMC):
    """The last potential is paid three times."""

    def _weighed(self, one: Particle, score: float) -> Particle:
        right = SMC._weighed(self, one, score)
        return right if one.answer is None else one.given(3 * right.gain)


@pytest.mark.parametrize(
    "wrong",
    [Uncorrected(8, 3, potential="max", lam=1.0), Tripled(8, 3, lam=1.0), SMC(8, 3, lam=1.5)],
)
def test_a_wrong_weight_is_found_out(wrong):
    found = draws(replace(wrong, pick="draw"))
    target = tilted(MODEL, reward, 1.0)
    assert excess(found, target) > 1.2 or levels(found, target) > 2


def test_the_bias_falls_with_the_particles():
    target = by_level(tilted(MODEL, reward, 2.0), lambda x: x.count(0))
    bias = [
        variation([x.count(0) for x in draws(SMC(n, 3, lam=2.0, pick="draw"))], target)
        for n in (1, 3, 9)
    ]
    assert bias[0] > 2 * bias[1] > 2 * 1.5 * bias[2]


@pytest.mark.parametrize("potential", ["difference", "max", "sum"])
@pytest.mark.parametrize("ess", [0.5, 1.0])
def test_the_estimate_of_the_constant_is_unbiased(potential, ess):
    policy = SMC(4, 3, ess, potential=potential, lam=1.0)
    exact = sum(p * exp(reward(x)) for x, p in MODEL.joint.items())
    assert_unbiased(policy, exact)


@pytest.mark.parametrize(
    ("alpha", "temperature", "order"),
    [(2.0, 1.0, "left"), (1.5, 0.7, "random"), (0.5, 1.3, "confident")],
)
def test_self_smc_has_exact_proposal_ratios(alpha, temperature, order):
    exact = sum(p**alpha for p in MODEL.joint.values())
    assert_unbiased(SelfSMC(8, 3, alpha=alpha), exact, rule=Rule(order, temperature))


def test_self_smc_draws_the_power_of_the_joint():
    found = draws(SelfSMC(16, 3, alpha=1.5, pick="draw"), rule=Rule("left", 0.8))
    assert excess(found, powered(MODEL, 1.5)) < 1.2


def test_the_papers_weight_at_another_temperature_is_another_target():
    @dataclass(frozen=True, slots=True)
    class Paper(SelfSMC):
        def _log_weight(self, one):
            return sum(p for p in one.node.logprobs if p == p)

    exact = sum(p**2 for p in MODEL.joint.values())
    with pytest.raises(AssertionError):
        assert_unbiased(Paper(8, 3), exact, rule=Rule("left", 0.7))


def test_a_guess_that_cannot_be_judged_leaves_the_target_alone():
    def picky(x):
        return reward(x) if x[0] == x[5] else -float("inf")

    exact = sum(p * exp(picky(x)) for x, p in MODEL.joint.items())
    constants = []
    for seed in range(600):
        table = Table(MODEL, picky, seed)
        constants.append(exp(table.run(SMC(8, 3, lam=1.0).filtered(table)).evidence))
    assert abs(mean(constants) - exact) < 3 * stdev(constants) / len(constants) ** 0.5


def test_rows_are_moved_once_and_forks_cost_nothing():
    table = search(SMC(8, 3, lam=5.0), MODEL, reward, seed=4)
    assert table.forwards == 8 * 6
    assert len(table.candidates) <= 8
    assert table.answer.score == max(c.score for c in table.candidates)
    assert len(table.nodes) > 8


def test_a_settled_search_stops():
    table = search(SMC(8, 3), MODEL, lambda x: 1.0, seed=4, target=1.0, rule=Rule("random"))
    assert table.forwards == 48
    again = search(SMC(8, 3), MODEL, reward, seed=4, target=0.0)
    assert again.settled


def test_one_row_is_a_plain_sample():
    one = search(SMC(1, 3), MODEL, reward, seed=4)
    assert one.forwards == 6
    assert len(one.candidates) == 1


def test_more_lookahead_costs_forwards():
    table = search(SMC(4, 3, lookahead=1), MODEL, reward, seed=1)
    assert table.forwards == 4 * 6 + 4 * 2


def assert_unbiased(policy, exact, runs=600, **more):
    """The mean of the estimates lies within 3 standard errors of the constant, which are small."""
    found = []
    for seed in range(runs):
        table = Table(MODEL, reward, seed, **more)
        found.append(exp(table.run(policy.filtered(table)).evidence))
    error = stdev(found) / runs**0.5
    assert error < 0.1 * exact
    assert abs(mean(found) - exact) < 3 * error


def test_guesses_are_answers_where_they_are_asked_for():
    plain = search(SMC(4, 6, lam=1.0), MODEL, reward, seed=6)
    guesses = search(SMC(4, 6, lam=1.0, guesses=True), MODEL, reward, seed=6)
    assert guesses.forwards == plain.forwards
    assert len(guesses.candidates) == len(plain.candidates) + 4 * 5
    assert guesses.best.score >= plain.best.score


@pytest.mark.parametrize("policy", [SMC(4, 3), SelfSMC(4, 3)])
def test_sweeps_follow_each_other_and_draw_anew(policy):
    one, three = (search(replace(policy, sweeps=n), MODEL, reward, seed=5) for n in (1, 3))
    texts = [found.answer.ids for found in three.candidates]
    assert texts[:4] == [found.answer.ids for found in one.candidates]
    assert len(texts) == 12
    assert len(set(texts)) > len(set(texts[:4]))


def test_sweeps_end_where_the_search_is_settled():
    table = search(SMC(4, 3, sweeps=1000), MODEL, reward, target=1.5, seed=1)
    assert table.answer.score >= 1.5
    assert len(table.candidates) < 400
