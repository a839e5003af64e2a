"""Particle Gibbs on a known joint: every sweep leaves the target as it is."""

from dataclasses import dataclass

import pytest

from dlm.search.policies.gibbs import Gibbs
from dlm.search.policies.smc import SMC
from tests.search.joint import Tabular, by_level, excess, tilted, variation
from tests.search.tabular import search

MODEL = Tabular()
RUNS = 1000


def reward(x):
    """Half a point for each token 0."""
    return x.count(0) / 2


TARGET = tilted(MODEL, reward, 1.0)
LEVELS = by_level(TARGET, lambda x: x.count(0))


def draws(policy):
    return [search(policy, MODEL, reward, seed=s).answer.answer.ids for s in range(RUNS)]


def counts(answers):
    return [x.count(0) for x in answers]


def test_a_few_sweeps_draw_the_target():
    found = draws(Gibbs(4, 2, sweeps=5, lam=1.0, pick="draw"))
    assert excess(found, TARGET) < 1.2
    assert excess(counts(found), LEVELS) < 2


def test_carried_weights_draw_it_too():
    found = draws(Gibbs(4, 2, 0.5, sweeps=5, lam=1.0, pick="draw", potential="sum"))
    assert excess(counts(found), LEVELS) < 2


def test_the_bias_falls_with_the_sweeps():
    bias = [
        variation(counts(draws(Gibbs(2, 2, sweeps=sweeps, lam=1.0, pick="draw"))), LEVELS)
        for sweeps in (1, 4, 12)
    ]
    assert bias[0] > 1.5 * bias[1] > 1.5 * bias[2]


@dataclass(frozen=True, slots=True)
class Forgetful(Gibbs):
    """Every sweep begins anew, without a reference."""

    def filtered(self, search, reference=(), sweep=0):
        return (yield from Gibbs.filtered(self, search, (), sweep))


@dataclass(frozen=True, slots=True)
class Greedy(Gibbs):
    """The best row is taken where one is to be drawn."""

    def ancestors(self, weights, rng, *, pinned):
        best = weights.index(max(weights))
        return [0] * pinned + [best] * (self.n - pinned)


@pytest.mark.parametrize("wrong", [Greedy, Forgetful])
def test_a_wrong_chain_is_found_out(wrong):
    found = draws(wrong(4, 2, sweeps=5, lam=1.0, pick="draw"))
    assert excess(counts(found), LEVELS) > 2


def test_a_sweep_costs_all_rows_but_the_reference():
    table = search(Gibbs(4, 3, sweeps=3), MODEL, reward, seed=2)
    assert table.forwards == (4 + 3 + 3) * 6


def test_the_first_sweep_is_smc_with_independent_draws():
    first = search(Gibbs(4, 3, sweeps=1), MODEL, reward, seed=5)
    assert first.forwards == search(SMC(4, 3), MODEL, reward, seed=5).forwards


def test_rows_of_earlier_sweeps_are_let_go():
    table = search(Gibbs(4, 3, sweeps=6), MODEL, reward, seed=3)
    assert sum(not node.dropped for node in table.nodes) <= 3
