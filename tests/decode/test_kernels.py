"""The operations of a step, bit for bit beside the plainest way to write them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from dlm.core import BLOCK_COLUMNS, StepView
from dlm.decode.apply import count_per_block, forced_commits
from dlm.unmasking.scores import top
from dlm.unmasking.unmask.topk import TopK
from tests.unmasking.views import make_view

SCORES = st.sampled_from([0.0, 0.125, 0.5, 0.5, 1.0, float("nan"), float("-inf")])  # many ties


@st.composite
def masks(draw, rows, width):
    """A mask `[R, W]`."""
    row = st.lists(st.booleans(), min_size=width, max_size=width)
    return torch.tensor(draw(st.lists(row, min_size=rows, max_size=rows)))


@st.composite
def scored(draw, scores=SCORES):
    """Scores `[R, W]` and two masks of their shape."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    row = st.lists(scores, min_size=width, max_size=width)
    score = torch.tensor(draw(st.lists(row, min_size=rows, max_size=rows)))
    return score, draw(masks(rows, width)), draw(masks(rows, width))


def best_by_sorting(score, among, count):
    """Ranks by a stable sort, written to their places."""
    order = score.masked_fill(~among, -torch.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(score.shape[1]).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    return among & (rank < count)


@given(scored(), st.lists(st.integers(-1, 10), min_size=3, max_size=3))
def test_the_best_positions(case, counts):
    score, among, _ = case
    count = torch.tensor(counts[: len(score)])[:, None]
    assert torch.equal(top(score, among, count), best_by_sorting(score, among, count))


@given(scored())
def test_one_best_position(case):
    score, among, _ = case
    assert torch.equal(top(score, among, 1), best_by_sorting(score, among, torch.tensor(1)))


def forced_by_hand(view: StepView, commit):
    """Block by block: the most confident position that must progress, the leftmost of equals."""
    found = torch.zeros_like(commit)
    for r, (must, block) in enumerate(zip(view.must_progress, view.block, strict=True)):
        for column in range(BLOCK_COLUMNS):
            own = must & (block == column)
            if bool(own.any()) and not bool((commit[r] & own).any()):
                c = view.confidence[r].nan_to_num(0.0).masked_fill(~own, -1.0)
                found[r, (c == c.amax()).nonzero()[0]] = True
    return found


CONFIDENCES = st.sampled_from([0.0, 0.25, 0.5, 0.5, 1.0, float("nan")])


@given(scored(CONFIDENCES), st.booleans(), st.data())
def test_forced_commits(case, one_block, data):
    c, must, commit = case
    view = make_view(TopK(), c.tolist())
    block = torch.zeros_like(view.block)
    if not one_block:
        block[:, data.draw(st.integers(0, c.shape[1])) :] = 1
    window = view.window._replace(block=block, one_block=one_block)
    view = view._replace(window=window, must_progress=must)
    assert torch.equal(forced_commits(view, commit), forced_by_hand(view, commit))
    if one_block:  # the general form, too
        general = view._replace(window=window._replace(one_block=False))
        assert torch.equal(forced_commits(general, commit), forced_by_hand(view, commit))


@given(scored())
def test_positions_of_each_block_are_counted(case):
    _, mask, _ = case
    block = torch.randint(0, BLOCK_COLUMNS, mask.shape, generator=torch.Generator().manual_seed(1))
    counts = [
        [int((mask[r] & (block[r] == column)).sum()) for column in range(BLOCK_COLUMNS)]
        for r in range(len(mask))
    ]
    assert count_per_block(mask, block).tolist() == counts
