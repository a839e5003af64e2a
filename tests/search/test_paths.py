"""`paths` and `prism`: canvases are compared before they are full."""

import pytest

from dlm.errors import InvalidRequest
from dlm.search.policies.paths import Paths
from dlm.search.policies.prism import Prism
from dlm.search.policies.sampling import BestOf
from dlm.search.searcher import parse_policy
from tests.search.joint import LENGTH, Tabular
from tests.search.tabular import search
from tests.search.test_neighbours import searched

MODEL = Tabular(2)


def large(x):
    """The share of the largest sum."""
    return sum(x) / (3 * LENGTH)


def begins_large(x):
    """The share of the largest sum of the first three tokens, which are decided first."""
    return sum(x[:3]) / 9


def mean_score(policy, reward=large, seeds=60):
    runs = [search(policy, MODEL, reward, seed) for seed in range(seeds)]
    return (
        sum(run.best.score for run in runs) / seeds,
        sum(run.forwards for run in runs) / seeds,
    )


def test_paths_beat_as_many_forwards_of_independent_answers():
    score, forwards = mean_score(Paths(width=2, copies=3, start=0.5, back=0.17, forward=0.34))
    rounds = forwards / LENGTH
    other, spent = mean_score(BestOf(round(rounds + 0.5), width=1))
    assert spent >= forwards
    assert score > other + 0.02


def test_a_copy_is_opened_by_its_share_and_filled_by_another():
    found = search(Paths(width=1, copies=2, start=0.5, back=1 / 6, forward=2 / 6), MODEL, large, 3)
    # two rows of 3 forwards, then three rounds of copies: one position is opened, two are filled
    assert found.forwards == 2 * 3 + 3 * 2 * 2
    assert all(node.done for node in found.nodes[-2:])


def test_the_width_of_prism_shrinks_by_its_schedule():
    policy = Prism(n=16, keep=4, decay=1.8, begin=3)
    assert [policy.width(step) for step in (3, 4, 8, 12)] == [16, 9, 4, 4]


def test_prism_costs_what_its_schedule_says():
    policy = Prism(n=8, keep=2, survivors=2, decay=2.0, begin=1, interval=2, remask=0)
    # 8 rows of 2 forwards, 4 rows of 2 more, 2 rows of 2 more
    found = search(policy, MODEL, large, 4)
    assert found.forwards == 16 + 8 + 4
    assert len(found.candidates) == 2


def test_prism_beats_as_many_forwards_of_independent_answers():
    policy = Prism(n=8, keep=2, survivors=2, decay=2.0, begin=1, interval=2, remask=1)
    score, forwards = mean_score(policy, begins_large)
    other, spent = mean_score(BestOf(round(forwards / LENGTH + 0.5), width=1), begins_large)
    assert spent >= forwards
    assert score > other + 0.02


def test_copies_differ_from_the_survivors_by_what_was_opened():
    found = search(Prism(n=8, keep=5, survivors=1, begin=2, remask=1), MODEL, large, 4)
    children = [node for node in found.nodes if node.parent is not None]
    assert {child.parent.number for child in children} == {children[0].parent.number}
    assert len(children) == 4  # width 5 at step 3: the survivor and four copies


POLICIES = [
    Paths(width=2, copies=2),
    Paths(width=1, copies=3, start=1.0, back=0.0, forward=0.5),
    Prism(n=6, keep=2, begin=1, interval=1),
    Prism(n=4, keep=4),
]


@pytest.mark.parametrize("attention", ["full", "block_causal"])
@pytest.mark.parametrize("policy", POLICIES)
def test_on_an_engine_answers_do_not_depend_on_the_batch(policy, attention):
    (alone, spy), (together, _) = (
        searched(policy, max_rows=rows, attention=attention, target=99.0) for rows in (1, 16)
    )
    assert alone.best.ids == together.best.ids
    assert alone.costs.nfe == spy.forwards, "with one row, each call of the model is a forward"
    assert alone.costs.nfe == together.costs.nfe + together.costs.shared_forwards


@pytest.mark.parametrize("policy", POLICIES)
def test_a_bound_on_forwards_is_kept(policy):
    for most in (3, 20):
        found, _ = searched(policy, target=99.0, budget={"nfe": most})
        assert found.costs.nfe <= most


@pytest.mark.parametrize(
    "spec",
    ["paths(width=0)", "paths(back=0.5, forward=0.5)", "prism(keep=20)", "prism(decay=1.0)"],
)
def test_wrong_arguments_are_refused(spec):
    with pytest.raises(InvalidRequest, match="must be"):
        parse_policy(spec)
