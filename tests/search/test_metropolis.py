"""`blocks_mh`: its moves leave the power of the model's distribution as it is."""

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev

import pytest

from dlm.errors import InvalidRequest
from dlm.search.policies.metropolis import BlocksMH
from dlm.search.searcher import parse_policy
from tests.search.joint import LENGTH, Tabular, by_level, excess, powered
from tests.search.tabular import Rule, search
from tests.search.test_neighbours import searched

MODEL = Tabular(3, sharpness=0.4)
RUNS = 1_200


def last_states(policy, rule):
    """The last states of independent chains."""
    runs = (search(policy, MODEL, lambda x: 0.0, seed, rule=rule) for seed in range(RUNS))
    return [run.answer.answer.ids for run in runs]


def three(x):
    """Three of the six tokens."""
    return x[0], x[2], x[5]


def distance(states):
    """Total variation over three tokens in that of independent samples of p^2, and the distance
    of the mean log-probability from that under p^2 in standard errors.
    """
    target = powered(MODEL, 2.0)
    logs = [math.log(MODEL.joint[x]) for x in states]
    exact = sum(p * math.log(MODEL.joint[x]) for x, p in target.items())
    off = abs(fmean(logs) - exact) / (stdev(logs) / math.sqrt(len(logs)))
    return excess([three(x) for x in states], by_level(target, three)), off


CASES = [("left", 1.0, 0), ("random", 0.8, 3)]


@pytest.mark.parametrize(("order", "temperature", "segments"), CASES)
def test_a_chain_comes_to_the_power_of_the_model(order, temperature, segments):
    policy = BlocksMH(alpha=2.0, moves=30, early=1, segments=segments, pick="last")
    variation, off = distance(last_states(policy, Rule(order, temperature)))
    assert variation < 1.3
    assert off < 3.5


@dataclass(frozen=True, slots=True)
class WithoutProposals(BlocksMH):
    """Takes no account of the distribution that tokens are drawn from."""

    def _weight(self, end, point):
        return sum(self.alpha * end.logprobs[at] for at in point.open)


def test_a_chain_without_the_ratio_of_proposals_is_found_out():
    policy = WithoutProposals(alpha=2.0, moves=30, early=1, pick="last")
    variation, off = distance(last_states(policy, Rule("left", 1.0)))
    assert variation > 2
    assert off > 6


def test_with_the_model_as_target_every_move_is_taken():
    policy = BlocksMH(alpha=1.0, moves=5, early=0, pick="last")
    for seed in range(20):
        found = search(policy, MODEL, lambda x: 0.0, seed)
        assert found.answer is found.candidates[-1]


def test_a_move_costs_what_it_decodes():
    policy = BlocksMH(moves=30, early=0, segments=LENGTH)
    found = search(policy, MODEL, lambda x: 0.0, 1)
    spent = [one.nfe for one in found.candidates]
    costs = {after - before for before, after in pairwise(spent)}
    assert costs == set(range(1, LENGTH + 1))


@pytest.mark.parametrize("attention", ["full", "block_causal"])
@pytest.mark.parametrize("segments", [0, 3])
def test_a_chain_on_an_engine_is_billed_for_each_forward(attention, segments):
    policy = BlocksMH(moves=4, segments=segments)
    blocks = "fixed(8)"
    found, spy = searched(policy, max_rows=1, attention=attention, blocks=blocks, target=99.0)
    assert found.costs.nfe == spy.forwards
    assert len(found.candidates) == 5


def test_arguments_out_of_range_are_refused():
    for spec in ("blocks_mh(alpha=-1)", "blocks_mh(moves=-1)", "blocks_mh(pick='first')"):
        with pytest.raises(InvalidRequest, match="must be"):
            parse_policy(spec)
