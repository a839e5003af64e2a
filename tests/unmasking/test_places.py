"""Rules that look at places and at entropies, against their definitions written out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlm.core import BlockTable, Kind, Phase
from dlm.errors import InvalidRequest
from dlm.unmasking.blocks.adaptive import AdaBlock
from dlm.unmasking.blocks.fixed import Sliding, SubBlocks
from dlm.unmasking.unmask.entropy import EntropyBound, LowEntropy
from dlm.unmasking.unmask.local_leap import Hierarchical, Leap
from dlm.unmasking.unmask.threshold import RunningMean
from tests.unmasking.views import make_view

GRID = st.integers(0, 8).map(lambda n: n / 8)  # exact in float32, with many ties
OPEN, DONE, GIVEN = Kind.MASK, Kind.COMMITTED, Kind.PROMPT


@st.composite
def rows(draw):
    """Positions with gaps, their kinds, confidences, and confidences of their commits."""
    width = draw(st.integers(1, 12))
    steps = draw(st.lists(st.integers(1, 3), min_size=width, max_size=width))
    column = st.lists(GRID, min_size=width, max_size=width)
    kinds = st.lists(st.sampled_from([OPEN, OPEN, DONE, GIVEN]), min_size=width, max_size=width)
    pos = [sum(steps[: n + 1]) for n in range(width)]
    return pos, draw(kinds), draw(column), draw(column)


def chosen(rule, row, **options):
    """What a rule takes of one row. A second row of other numbers must not matter."""
    pos, kinds, c, conf = row
    view = make_view(
        [rule, type(rule)()], [c, c], pos=[pos, pos], kind=[kinds, kinds], conf_prev=conf, **options
    )
    return rule.propose(view).commit[0].tolist()


THRESHOLDS = st.tuples(GRID, GRID).map(sorted)


@given(rows(), THRESHOLDS, st.integers(0, 5), st.booleans(), st.booleans())
def test_leap_relaxes_around_anchors(row, thresholds, radius, committed, decay):
    """arXiv 2510.07081: an anchor within the radius makes the lower threshold do."""
    relaxed, threshold = thresholds
    rule = Leap(threshold, relaxed, radius, committed=committed, decay=decay)
    pos, kinds, c, conf = row
    anchors = [
        p
        for p, kind, now, then in zip(pos, kinds, c, conf, strict=True)
        if (kind == OPEN and now >= threshold) or (committed and kind == DONE and then >= threshold)
    ]

    def bar(p):
        gap = min((abs(p - a) for a in anchors), default=math.inf)
        if gap > radius:
            return threshold
        if decay:
            return relaxed + (threshold - relaxed) * (max(0, gap - 1) / max(1, radius))
        return relaxed

    expected = [k == OPEN and x >= bar(p) for p, k, x in zip(pos, kinds, c, strict=True)]
    assert chosen(rule, row) == expected


@given(rows(), THRESHOLDS, st.integers(0, 5), st.booleans())
def test_a_chain_of_leaps_goes_on_until_nothing_is_admitted(row, thresholds, radius, committed):
    relaxed, threshold = thresholds
    rule = Leap(threshold, relaxed, radius, committed=committed, chain=True)
    pos, kinds, c, conf = row
    cells = list(zip(pos, kinds, c, conf, strict=True))
    anchors = {p for p, k, now, _ in cells if k == OPEN and now >= threshold}
    if committed:
        anchors |= {p for p, k, _, then in cells if k == DONE and then >= threshold}
    while True:
        more = {
            p
            for p, k, now, _ in cells
            if k == OPEN and now >= relaxed and any(abs(p - a) <= radius for a in anchors)
        }
        if more <= anchors:
            break
        anchors |= more
    assert chosen(rule, row) == [k == OPEN and p in anchors for p, k, _, _ in cells]


@given(rows(), GRID)
def test_a_leap_without_relaxation_is_the_threshold_rule(row, threshold):
    expected = [k == OPEN and x >= threshold for k, x in zip(row[1], row[2], strict=True)]
    for rule in (Leap(threshold, threshold), Leap(threshold, threshold, chain=True)):
        assert chosen(rule, row) == expected


@given(rows(), THRESHOLDS)
def test_hierarchical_takes_the_best_of_every_run_of_masks(row, thresholds):
    """arXiv 2510.08666: runs are neighbours on the canvas, not in the window."""
    low, threshold = thresholds
    pos, kinds, c, _ = row
    runs, last = [], None
    for index, (p, kind) in enumerate(zip(pos, kinds, strict=True)):
        if kind == OPEN:
            if last == p - 1:
                runs[-1].append(index)
            else:
                runs.append([index])
            last = p
    best = {max(run, key=lambda i: (c[i], -i)) for run in runs}
    expected = [
        k == OPEN and (x > threshold or (i in best and x > low))
        for i, (k, x) in enumerate(zip(kinds, c, strict=True))
    ]
    assert chosen(Hierarchical(threshold, low), row) == expected


ENTROPIES = st.integers(0, 12).map(lambda n: n / 8)


@given(rows(), st.data(), ENTROPIES, st.sampled_from(["entropy", "confidence", "margin"]))
def test_the_entropy_bound_takes_the_largest_prefix(row, data, bound, order):
    """arXiv 2505.24857: the summed entropy less its largest term stays within the bound."""
    _, kinds, c, margin = row
    entropy = data.draw(st.lists(ENTROPIES, min_size=len(c), max_size=len(c)))
    score = {"entropy": [-h for h in entropy], "confidence": c, "margin": margin}[order]
    ranks = [i for i in sorted(range(len(c)), key=lambda i: (-score[i], i)) if kinds[i] == OPEN]
    count = 0
    for n in range(1, len(ranks) + 1):
        taken = [entropy[i] for i in ranks[:n]]
        if sum(taken) - max(taken) <= bound:
            count = n
    rule = EntropyBound(bound, order)
    assert rule.needs == {"entropy"} | ({"margin"} if order == "margin" else set())
    view = make_view(rule, [c], pos=[row[0]], kind=kinds, entropy=entropy, margin=margin)
    found = rule.propose(view).commit[0].tolist()
    assert found == [i in ranks[:count] for i in range(len(c))]
    assert count >= 1 or not ranks


@given(rows(), st.data(), ENTROPIES)
def test_low_entropy_takes_what_is_certain_or_the_most_certain(row, data, threshold):
    """arXiv 2601.07568."""
    _, kinds, c, _ = row
    entropy = data.draw(st.lists(ENTROPIES, min_size=len(c), max_size=len(c)))
    open_now = [i for i, kind in enumerate(kinds) if kind == OPEN]
    taken = {i for i in open_now if entropy[i] <= threshold}
    if open_now and not taken:
        taken = {min(open_now, key=lambda i: (entropy[i], i))}
    rule = LowEntropy(threshold)
    view = make_view(rule, [c], pos=[row[0]], kind=kinds, entropy=entropy)
    assert rule.propose(view).commit[0].tolist() == [i in taken for i in range(len(c))]


def test_low_entropy_forces_nothing_in_blocks_that_may_wait():
    rule = LowEntropy(0.1)
    view = make_view(rule, [[0.5, 0.5]], entropy=[1.0, 0.5])
    waiting = view._replace(must_progress=torch.zeros_like(view.must_progress))
    assert rule.propose(view).commit.tolist() == [[False, True]]
    assert rule.propose(waiting).commit.tolist() == [[False, False]]


@given(rows(), st.integers(1, 4))
def test_the_running_mean_asks_for_more_than_the_block_had(row, quota):
    """arXiv 2510.18165: above the mean confidence of the block's commits; the quota at least."""
    pos, kinds, c, conf = row
    start = pos[len(pos) // 2]  # the block: what stands before it does not count
    kinds = [k if p >= start else min(k, DONE) for p, k in zip(pos, kinds, strict=True)]
    kinds = [GIVEN if p < start and k == OPEN else k for p, k in zip(pos, kinds, strict=True)]
    inside = [x for p, k, x in zip(pos, kinds, conf, strict=True) if k == DONE and start <= p]
    open_now = [i for i, k in enumerate(kinds) if k == OPEN]
    taken = set(sorted(open_now, key=lambda i: (-c[i], i))[:quota])
    if inside:
        taken |= {i for i in open_now if c[i] > sum(inside) / len(inside)}
    view = make_view(RunningMean(quota), [c], pos=[pos], kind=kinds, conf_prev=conf, start=start)
    found = RunningMean(quota).propose(view).commit[0].tolist()
    assert found == [i in taken for i in range(len(c))]


def test_the_running_mean_is_that_of_each_block_of_a_pipeline():
    c, conf = [0.0, 0.7, 0.8, 0.0, 0.45, 0.35], [0.75, 0, 0, 0.4, 0, 0]
    view = make_view(RunningMean(1), [c], kind=[DONE, OPEN, OPEN] * 2, conf_prev=conf)
    table = BlockTable.empty(1)
    table.start[0, :2], table.end[0, :2] = torch.tensor([0, 3]), torch.tensor([3, 6])
    table.phase[0, :2] = Phase.OPEN
    window = view.window._replace(block=torch.tensor([[0, 0, 0, 1, 1, 1]]))
    found = RunningMean(1).propose(view._replace(blocks=table, window=window)).commit[0]
    assert found.tolist() == [False, False, True, False, True, False]


@given(rows(), st.integers(1, 6))
def test_a_sliding_window_starts_at_the_first_open_position(row, width):
    pos, kinds, c, _ = row
    first = min((p for p, k in zip(pos, kinds, strict=True) if k == OPEN), default=0)
    view = make_view(Sliding(width), [c], pos=[pos], kind=kinds)
    assert Sliding(width).restrict(view)[0].tolist() == [
        k == OPEN and p < first + width for p, k in zip(pos, kinds, strict=True)
    ]


@given(rows(), st.integers(1, 6))
def test_a_window_of_open_positions_leaves_out_what_is_filled(row, width):
    pos, kinds, c, _ = row
    rule = Sliding(width, "open")
    view = make_view(rule, [c], pos=[pos], kind=kinds)
    first = [i for i, k in enumerate(kinds) if k == OPEN][:width]
    assert rule.restrict(view)[0].nonzero()[:, 0].tolist() == first


@given(rows(), st.integers(1, 5))
def test_sub_blocks_are_filled_one_after_the_other(row, sub):
    pos, kinds, c, _ = row
    numbers = [(p - pos[0]) // sub for p in pos]
    first = min((n for n, k in zip(numbers, kinds, strict=True) if k == OPEN), default=0)
    rule = SubBlocks(64, sub=sub)
    view = make_view(rule, [c], pos=[pos], kind=kinds)
    assert rule.restrict(view)[0].tolist() == [
        k == OPEN and n == first for n, k in zip(numbers, kinds, strict=True)
    ]


@given(rows(), st.data(), st.sampled_from([0.25, 0.5, 1.0]), GRID, st.integers(1, 5))
def test_adablock_ends_behind_open_positions_alone(row, data, share, threshold, least):
    """arXiv 2509.26432: a delimiter that is given or committed in the window closes nothing."""
    pos, kinds, c, _ = row
    token = data.draw(st.lists(st.sampled_from([5, 10]), min_size=len(c), max_size=len(c)))
    start, length = pos[0], pos[-1] + 1
    behind = start + int(share * (length - start))
    found = [i for i, p in enumerate(pos) if kinds[i] == OPEN and token[i] == 10 and p < behind]
    best = max(found, key=lambda i: (c[i], -i), default=None)
    end = start + 3
    if best is not None and c[best] >= threshold:
        end = max(pos[best] + 1, start + least)
    rule = AdaBlock(3, share, threshold, (10,), least)
    view = make_view(rule, [c], pos=[pos], kind=kinds, token=token, prompt=start, opening=True)
    assert rule.block_end(view).tolist() == [min(end, length)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Leap(0.5, 0.7), "`relaxed` and `threshold` must be 0 <= relaxed"),
        (lambda: Leap(radius=-1), "`radius` must be at least 0, got -1"),
        (lambda: Leap(chain=True, decay=True), "exclude each other"),
        (lambda: Hierarchical(0.5, 0.7), "`low` and `threshold` must be 0 <= low"),
        (lambda: EntropyBound(-0.1), "`bound` must be at least 0"),
        (lambda: EntropyBound(order="random"), "one of entropy, confidence, margin"),
        (lambda: RunningMean(0), "`quota` must be at least 1"),
        (lambda: Sliding(0), "`width` must be at least 1"),
        (lambda: Sliding(4, "all"), "`by` must be 'position' or 'open', got 'all'"),
        (lambda: SubBlocks(8, sub=0), "`sub` must be at least 1"),
        (lambda: LowEntropy(math.nan), "`threshold` must be at least 0, got nan"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InvalidRequest, match=message):
        make()
