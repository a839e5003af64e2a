"""Rules on hand-made views: what each says of boundaries, ties and quotas."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlm.core import BlockTable, HostRows, Kind, Phase, Progress, Proposal
from dlm.errors import InvalidRequest
from dlm.unmasking.blocks.adaptive import AdaBlock
from dlm.unmasking.blocks.fixed import Fixed, Whole
from dlm.unmasking.edit.rcr import RCR
from dlm.unmasking.schedules import SCHEDULES
from dlm.unmasking.stop.end_ids import Eos
from dlm.unmasking.unmask.threshold import CommitAll, Dynamic, Factor, Threshold
from dlm.unmasking.unmask.topk import TopK
from tests.unmasking.views import INFO, MASK, make_view, part_params

GRID = st.integers(0, 16).map(lambda n: n / 16)  # exact in float32, with many ties
CONFIDENCES = st.lists(GRID, min_size=1, max_size=12)
OPEN, DONE, GIVEN = Kind.MASK, Kind.COMMITTED, Kind.PROMPT


def chosen(rule, view):
    return rule.propose(view).commit.tolist()


def best(scores, count):
    """The `count` highest of a list, the leftmost of equals."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return [i in order[:count] for i in range(len(scores))]


# threshold


@given(CONFIDENCES, GRID, GRID)
def test_threshold_takes_what_reaches_it(c, one, other):
    """Each row by its own number."""
    rules = [Threshold(one), Threshold(other)]
    expected = [[x >= rule.threshold for x in c] for rule in rules]
    assert chosen(rules[0], make_view(rules, [c, c])) == expected


def test_threshold_takes_only_what_is_eligible():
    kinds = [OPEN, DONE, GIVEN, OPEN, OPEN]
    view = make_view(Threshold(0.5), [[1.0] * 5], kind=kinds, end=4)
    assert chosen(Threshold(0.5), view) == [[True, False, False, True, False]]


@given(CONFIDENCES, st.sampled_from([0.05, 0.5, 1.0, 1.6, 3.0, 9.0]))
def test_factor_takes_ranks_until_one_fails(c, factor):
    """The n-th best passes at 1 - factor / (n + 1); what comes after a failure is not looked at."""
    count = 0
    for n, confidence in enumerate(sorted(c, reverse=True), start=1):
        if confidence < 1 - factor / (n + 1):
            break
        count = n
    assert chosen(Factor(factor), make_view(Factor(factor), [c])) == [best(c, count)]


def test_factor_does_not_pass_the_last_rank_unseen():
    """The reference code commits all of these; its defect is known (c = .99, .98, .1 and f = 1)."""
    assert chosen(Factor(1.0), make_view(Factor(1.0), [[0.99, 0.98, 0.1]])) == [[True, True, False]]
    defect = Factor(1.0, last_passes=True)
    assert chosen(defect, make_view(defect, [[0.99, 0.98, 0.1]])) == [[True, True, True]]
    assert chosen(defect, make_view(defect, [[0.9, 0.2]])) == [[True, True]]


@given(CONFIDENCES, GRID, st.integers(1, 6), st.integers(0, 8))
def test_dynamic_takes_all_above_the_threshold_or_the_quota(c, threshold, steps, step):
    rule = Dynamic(threshold, steps)
    now = min(step, steps - 1)
    quota = len(c) // steps + (now < len(c) % steps)
    above = [x > threshold for x in c]
    expected = above if sum(above) >= quota else best(c, quota)
    assert chosen(rule, make_view(rule, [c], step=step)) == [expected]


def test_dynamic_quota_shares_the_whole_block_out():
    """Prompt positions in the block count, as in SDAR, though they cannot be taken."""
    rule = Dynamic(1.0, 2)
    view = make_view(rule, [[0.9, 0.1, 0.5, 0.3]], kind=[GIVEN, OPEN, OPEN, OPEN])
    assert chosen(rule, view) == [[False, False, True, True]]


@pytest.mark.parametrize("info", [INFO, replace(INFO, attention="block_causal", block_length=4)])
def test_dynamic_without_steps_takes_one_a_step(info):
    rule = Dynamic(1.0).bind(info)
    view = make_view(rule, [[0.5 + n / 256 for n in range(64)]])
    assert sum(chosen(rule, view)[0]) == 1


def test_everything_takes_all_that_is_eligible():
    view = make_view(CommitAll(), [[0.0, 0.0, 0.0]], kind=[OPEN, DONE, OPEN])
    assert chosen(CommitAll(), view) == [[True, False, True]]


# top-k and its schedules


def counts_of(rule, masks, steps):
    """How many positions a rule takes in each step of a block, until the block is clean."""
    kinds, counts = [OPEN] * masks, []
    while OPEN in kinds:
        c = [((7 * n) % masks + 1) / (masks + 1) for n in range(masks)]
        view = make_view(rule, [c], kind=kinds, step=len(counts), masks=masks)
        (taken,) = chosen(rule, view)
        kinds = [DONE if t else k for t, k in zip(taken, kinds, strict=True)]
        counts.append(sum(taken))
        assert len(counts) <= steps, "the schedule does not end"
    return counts


def textbook_counts(schedule, masks, steps, power, eps):
    """The same by the formulas of the papers."""
    if schedule == "even":
        return [masks // steps + (n < masks % steps) for n in range(steps)]
    if schedule == "eps":
        counts = []
        for n in range(steps):
            t, s = (1 - (1 - Fraction(str(eps))) * m / steps for m in (n, n + 1))
            left = masks - sum(counts)
            counts.append(left if n == steps - 1 else int(left * (1 - s / t)))
        return counts
    gamma = {
        "linear": lambda r: 1 - Fraction(r),
        "cosine": lambda r: math.cos(r * math.pi / 2) + 1e-9,
        "power": lambda r: 1 - float(r) ** power + 1e-9,
    }[schedule]
    left = [math.floor(masks * gamma(Fraction(n, steps))) for n in range(steps)] + [0]
    return [before - after for before, after in itertools.pairwise(left)]


@given(
    st.sampled_from(SCHEDULES),
    st.integers(1, 30),
    st.integers(1, 45),
    st.sampled_from([1.5, 2.0, 3.0]),
    st.sampled_from([1e-3, 0.05]),
)
def test_schedules_share_all_masks_out(schedule, masks, steps, power, eps):
    rule = TopK(schedule=schedule, steps=steps, power=power, eps=eps)
    counts = counts_of(rule, masks, steps)
    expected = textbook_counts(schedule, masks, steps, power, eps)
    assert counts == expected[: len(counts)]
    assert sum(counts) == masks


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_clock_that_has_run_out_takes_all_that_is_left(schedule):
    rule = TopK(schedule=schedule, steps=3)
    view = make_view(rule, [[0.5] * 6], kind=[DONE, OPEN, OPEN, OPEN, DONE, OPEN], step=3, masks=6)
    assert sum(chosen(rule, view)[0]) == 4


def test_a_clock_that_has_run_out_takes_what_editors_reopened_too():
    """More may be open than the block had masks: reopened positions before it."""
    rule = TopK(steps=3)
    view = make_view(rule, [[0.5] * 9], start=6, step=3, masks=3)
    assert sum(chosen(rule, view)[0]) == 9


def test_steps_are_shared_out_to_the_blocks_by_length():
    """12 steps for 24 positions: 4 for a block of 8, 2 for one of 4."""
    rule = TopK(steps=12)
    for width, count in ((8, 2), (4, 2), (24, 2)):
        view = make_view(rule, [[0.5] * width], prompt=3, length=27)
        assert sum(chosen(rule, view)[0]) == count
    without = TopK()
    assert sum(chosen(without, make_view(without, [[0.5] * 8], length=24))[0]) == 1


@given(CONFIDENCES, st.integers(1, 12), st.sampled_from(["confidence", "margin", "entropy"]))
def test_topk_takes_the_best_by_score_and_the_leftmost_of_equals(scores, steps, score):
    rule = TopK(score, steps=steps)
    given = [-x for x in scores] if score == "entropy" else scores
    data = (
        {"confidence": scores}
        if score == "confidence"
        else {"confidence": [0.5] * len(scores), score: given}
    )
    view = make_view(rule, [data.pop("confidence")], **data)
    count = math.ceil(len(scores) / steps)
    assert chosen(rule, view) == [best(scores, count)]


def test_demoted_ids_are_taken_last_but_taken_when_nothing_else_is_left():
    rule = TopK(steps=4, demote="eos").bind(INFO)
    c, token = [0.9, 0.2, 0.8, 0.1, 0.3, 0.95, 0.05, 0.4], [1, 7, 2, 8, 9, 1, 7, 8]
    assert chosen(rule, make_view(rule, [c], token=token)) == [
        [False, False, False, False, True, False, False, True]
    ]
    ends_only = make_view(rule, [c[:4]], token=[1, 2, 1, 2], length=4)
    assert chosen(
        replace(rule, steps=2), ends_only._replace(params=part_params([TopK(steps=2)]))
    ) == [[True, False, True, False]]


def test_demoted_ids_keep_their_order():
    rule = TopK(steps=2, demote=(1,))
    view = make_view(rule, [[0.5001, 0.5002]], token=1)
    assert chosen(rule, view) == [[False, True]]


@pytest.mark.parametrize("temperature", [1e-6, 1.0])
def test_demoted_ids_come_last_however_far_the_scores_lie_apart(temperature):
    rule = TopK("left", temperature=temperature, demote=(1,))
    for step in range(20):
        view = make_view(rule, [[0.9, 0.9, 0.9]], token=[1, 7, 1], row_step=step)
        assert chosen(rule, view) == [[False, True, False]]


def test_random_order_depends_on_seed_and_path_but_not_on_the_batch():
    rule = TopK("random", steps=5)
    c = [[0.5] * 40] * 4
    view = make_view(rule, c, seed=[0, 0, 1, 0], path=[0, 1, 0, 0], row_step=[3, 3, 3, 4])
    together = chosen(rule, view)
    assert len({tuple(row) for row in together}) == 4
    assert all(sum(row) == 8 for row in together)
    for seed, path, step, row in zip(
        [0, 0, 1, 0], [0, 1, 0, 0], [3, 3, 3, 4], together, strict=True
    ):
        alone = make_view(rule, c[:1], seed=seed, path=path, row_step=step)
        assert chosen(rule, alone) == [row]
    restrict = make_view(rule, [[0.5] * 20], pos=range(20, 40), seed=0, row_step=3)
    wide = make_view(rule, [[0.5] * 40], seed=0, row_step=3)
    assert best_of(rule, restrict) == best_of(rule, wide, among=range(20, 40))


def best_of(rule, view, among=None):
    """The position that a random order puts first among some."""
    kinds = view.kind.clone()
    if among is not None:
        kinds[0, [p not in among for p in view.pos[0].tolist()]] = DONE
    eligible = view.eligible & (kinds >= OPEN)
    one = view._replace(eligible=eligible, params=part_params([replace(rule, steps=10**6)]))
    one.blocks.masks[:] = eligible.sum()
    (row,) = replace(rule, steps=10**6).propose(one).commit.tolist()
    return view.pos[0][row.index(True)].item()


# AdaBlock

ADA = AdaBlock(6, window=0.5, threshold=0.5, delimiters=(10, 11))  # 16 positions: a window of 8


def closes(rule, c, token, *, start=0, prompt=0, length=16):
    (end,) = rule.block_end(
        make_view(
            rule,
            [c],
            token=token,
            pos=range(start, start + len(c)),
            prompt=prompt,
            length=length,
            opening=True,
        )
    ).tolist()
    return end


def test_adablock_ends_behind_the_most_confident_delimiter_not_the_first():
    token = [5, 10, 5, 5, 11, 5, 10, 5]
    assert closes(ADA, [0.9, 0.6, 0.9, 0.9, 0.8, 0.9, 0.7, 0.9], token) == 5
    assert closes(ADA, [0.9, 0.6, 0.9, 0.9, 0.6, 0.9, 0.6, 0.9], token) == 2, "leftmost of equals"


def test_adablock_threshold_is_reached_by_equality():
    assert closes(ADA, [0.9, 0.9, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9], [5, 5, 10, 5, 5, 5, 5, 5]) == 3
    assert closes(ADA, [0.9, 0.9, 0.49, 0.9, 0.9, 0.9, 0.9, 0.9], [5, 5, 10, 5, 5, 5, 5, 5]) == 6


def test_adablock_without_a_delimiter_takes_its_length():
    assert closes(ADA, [1.0] * 8, 5) == 6
    assert closes(ADA, [1.0] * 4, 5, start=12) == 16, "at the most to the end of the canvas"


def test_adablock_window_is_a_share_of_the_whole_answer():
    token = [5] * 8 + [10, 5]
    assert closes(ADA, [0.9] * 10, token, length=16) == 6, "a delimiter behind the window"
    assert closes(ADA, [0.9] * 10, token, length=18) == 9
    assert closes(ADA, [0.9] * 10, token, start=4, prompt=2, length=20) == 13
    assert closes(ADA, [0.9] * 10, token, start=4, prompt=4, length=20) == 10


def test_adablock_keeps_a_minimum():
    token = [10, 5, 5, 5, 5, 5, 5, 5]
    assert closes(ADA, [0.9] * 8, token) == 1
    assert closes(replace(ADA, min_length=3), [0.9] * 8, token) == 3
    assert closes(replace(ADA, min_length=30), [0.9] * 8, token) == 16


@pytest.mark.parametrize("rule", [ADA, replace(ADA, min_length=12), replace(ADA, length=14)])
def test_adablock_never_ends_behind_its_reach(rule):
    """Only what was planned up to the reach has logits in the opening step."""
    host = host_of(prompt=2, length=22)
    (max_end,) = rule.max_end(SimpleNamespace(host=host), part_params([rule])).tolist()
    for token in ([10] + [5] * 19, [5] * 20):
        assert closes(rule, [0.9] * 20, token, start=2, prompt=2, length=22) <= min(max_end, 22)


def test_adablock_reads_rows_by_their_own_numbers():
    rules = [ADA, replace(ADA, threshold=0.95), replace(ADA, length=3, threshold=0.95)]
    view = make_view(rules, [[0.9] * 8] * 3, token=[5, 5, 5, 5, 10, 5, 5, 5], length=16)
    assert ADA.block_end(view).tolist() == [5, 6, 3]


# stop rules


def stops(rule, ids, kinds, **options):
    """On the view after the step; all that is open now was eligible before it."""
    view = make_view(rule, [[0.5] * len(ids)], ids=ids, kind=kinds, **options)
    return rule(rows_of(view), view).done.tolist() == [True]


def rows_of(view):
    """Rows whose whole canvas the view shows."""
    return SimpleNamespace(
        ids=view.ids,
        kind=view.kind,
        limit=view.row.limit,
        capacity=view.ids.shape[1],
        device=view.ids.device,
    )


def test_eos_prefix_waits_for_what_is_before_the_end_id():
    rule = Eos("prefix").bind(INFO)
    assert stops(rule, [5, 1, MASK, MASK], [DONE, DONE, OPEN, OPEN])
    assert not stops(rule, [MASK, 1, MASK, 5], [OPEN, DONE, OPEN, DONE])
    assert not stops(rule, [5, 5, MASK, 5], [DONE, DONE, OPEN, DONE])
    assert stops(rule, [5, 1, MASK, 2], [DONE, DONE, OPEN, DONE])
    assert not stops(rule, [1, 5, MASK, 5], [GIVEN, DONE, OPEN, DONE]), "an end id of the prompt"


def test_eos_block_waits_for_the_whole_block():
    rule = Eos("block").bind(INFO)
    assert not stops(rule, [5, 1, MASK, 5], [DONE, DONE, OPEN, DONE])
    assert stops(rule, [5, 1, 7, 5], [DONE, DONE, DONE, DONE])
    assert not stops(rule, [5, 7, 7, 5], [DONE, DONE, DONE, DONE])
    assert stops(rule, [5, 1, MASK, MASK], [DONE, DONE, OPEN, OPEN], end=2, length=4), "next block"


@pytest.mark.parametrize("when", ["prefix", "block"])
def test_eos_sees_what_this_step_reopened(when):
    """`eligible` is of before the step, when the position was not open."""
    rule = Eos(when).bind(INFO)
    before = make_view(rule, [[0.5] * 4], ids=[5, 6, MASK, 1], kind=[DONE, DONE, OPEN, DONE])
    after = before._replace(
        ids=torch.tensor([[5, MASK, 7, 1]]),
        kind=torch.tensor([[DONE, OPEN, DONE, DONE]], dtype=torch.int8),
    )
    assert rule(rows_of(after), after).done.tolist() == [False]


def test_eos_block_looks_at_closed_blocks_while_later_ones_are_open():
    """The end id's own block, positions 0 and 1, has left the window of a pipeline."""
    rule = Eos("block").bind(INFO)
    view = make_view(rule, [[0.5] * 2], ids=[7, MASK], kind=[DONE, OPEN], pos=[2, 3], length=4)
    for first, done in ((DONE, True), (OPEN, False)):
        rows = SimpleNamespace(
            ids=torch.tensor([[5, 1, 7, MASK]]),
            kind=torch.tensor([[first, DONE, DONE, OPEN]], dtype=torch.int8),
            limit=view.row.limit,
            capacity=4,
            device=view.ids.device,
        )
        assert rule(rows, view).done.tolist() == [done]


def test_eos_ids_come_from_the_model_the_rule_or_the_rule_alone():
    assert Eos().bind(INFO).ids == (1, 2)
    assert set(Eos(ids=(9,)).bind(INFO).ids) == {1, 2, 9}
    assert Eos(ids=(9,), only=True).bind(INFO).ids == (9,)
    with pytest.raises(InvalidRequest, match="end ids"):
        Eos().bind(replace(INFO, eos_ids=()))


# RCR


def reopened(rule, view):
    everything = Proposal(view.eligible)
    return rule.edit(view, everything).remask.tolist()[0]


def test_rcr_reopens_the_least_confident_of_the_row():
    """8 masks in 4 steps: after the first, 6 stay open; ranked by the confidence at the commit."""
    rule = RCR(steps=4)
    kinds = [DONE, DONE, *[OPEN] * 8]
    view = make_view(
        rule,
        [[0.0, 0.0, 0.9, 0.2, 0.3, 0.4, 0.8, 0.5, 0.6, 0.7]],
        kind=kinds,
        conf_prev=[0.1, 0.95, *[0.99] * 8],
        start=2,
        prompt=2,
        length=10,
        masks=8,
    )
    assert reopened(rule, view) == [n in (0, 3, 4, 5, 7, 8) for n in range(10)]
    two_left = view.eligible & (view.pos > 7)
    last = view._replace(eligible=two_left, blocks=replace(view.blocks, step=view.blocks.step + 3))
    assert not any(reopened(rule, last))


def test_rcr_does_not_take_a_confidence_of_zero_for_certainty():
    """The reference marks untouched positions by a stored confidence of 0."""
    rule = RCR(steps=2)
    view = make_view(rule, [[0.5, 0.0, 0.25, 0.75]])
    assert reopened(rule, view) == [False, True, True, False]
    kinds = [DONE, DONE, OPEN, OPEN]
    view = make_view(
        rule, [[0.0, 0.0, 0.25, 0.75]], kind=kinds, conf_prev=[0.0, 0.5, 0, 0], start=2
    )
    assert reopened(
        rule, view._replace(row=view.row._replace(initial_masks=view.row.initial_masks - 2))
    ) == [
        True,
        False,
        False,
        False,
    ]


def test_rcr_leaves_prompt_and_open_positions_alone():
    rule = RCR(steps=2)
    kinds = [GIVEN, DONE, OPEN, OPEN, OPEN, OPEN]
    view = make_view(rule, [[0.0, 0.9, 0.1, 0.2, 0.3, 0.0]], kind=kinds, conf_prev=0.9, end=5)
    assert reopened(rule, view) == [False, False, True, False, False, False]


def test_rcr_ties_go_leftmost():
    rule = RCR(steps=2)
    assert reopened(rule, make_view(rule, [[0.5] * 4])) == [True, True, False, False]


# blocks


def host_of(prompt, length, blocks=None, pinned=()):
    one = torch.ones(1, dtype=torch.long)
    blocks = BlockTable.empty(1) if blocks is None else blocks
    given = torch.arange(length + 1)[None] < prompt
    given[:, list(pinned)] = True
    pages = torch.zeros(1, 1, 1).long()
    made = torch.zeros_like(given, dtype=torch.long)
    return HostRows(
        one * prompt, one * length, one * 0, given, one * 0, one * 0, made, blocks, pages
    )


def blocks_of(rule, prompt, length, *, stores, pinned=()):
    """The bounds of all blocks in turn, each filled as soon as it is open; with the phases that
    the table goes through.
    """
    host, bounds, phases = host_of(prompt, length, pinned=pinned), [], []
    for _ in range(200):
        max_end = rule.max_end(SimpleNamespace(host=host), part_params([rule]))
        left = torch.zeros(1, 8, dtype=torch.long)
        bounds_now = (max_end, host.length, host.prompt, host.next_unopened)
        progress = Progress(left, *bounds_now, torch.tensor([True]), stores)
        table = rule.advance(host.blocks, progress, part_params([rule]))
        phases.append(table.phase[0, :3].tolist())
        if not bool(table.live.any()):
            return bounds, phases
        ((row, column),) = table.live.nonzero().tolist()
        bounds.append((int(table.start[row, column]), int(table.end[row, column])))
        if stores:  # the forward that opens a block stores the clean one before it
            clean = table.phase == Phase.CLEAN
            table = replace(table, phase=torch.where(clean, int(Phase.STORED), table.phase))
        host = host_of(prompt, length, table, pinned)
    raise AssertionError("blocks do not end")


@given(st.integers(0, 20), st.integers(1, 40), st.integers(1, 12), st.booleans())
def test_fixed_blocks_tile_the_answer(prompt, new, width, stores):
    bounds, _ = blocks_of(Fixed(width).bind(INFO), prompt, prompt + new, stores=stores)
    starts = range(prompt, prompt + new, width)
    assert bounds == [(s, min(s + width, prompt + new)) for s in starts]


@given(st.integers(0, 20), st.integers(1, 10), st.integers(1, 3))
def test_fixed_blocks_start_at_trained_borders(prompt, blocks, factor):
    info = replace(INFO, attention="block_causal", block_length=4)
    first = prompt // 4 * 4
    length = first + 4 * blocks
    if length <= prompt:
        return
    bounds, phases = blocks_of(Fixed(4 * factor).bind(info), prompt, length, stores=True)
    starts = range(first, length, 4 * factor)
    assert bounds == [(s, min(s + 4 * factor, length)) for s in starts]
    if len(bounds) > 1:
        assert phases[1][:2] == [Phase.CLEAN, Phase.OPENING]


@given(st.integers(0, 12), st.sets(st.integers(0, 39)), st.sampled_from([1, 4]))
def test_blocks_start_at_what_is_to_be_filled(prompt, pinned, alignment):
    length = 40
    info = INFO if alignment == 1 else replace(INFO, attention="block_causal", block_length=4)
    bounds, _ = blocks_of(Fixed(8).bind(info), prompt, length, stores=False, pinned=pinned)
    initial_masks = [at for at in range(prompt, length) if at not in pinned]
    assert (
        sorted(at for s, e in bounds for at in range(s, e) if at in initial_masks) == initial_masks
    )
    for start, end in bounds:
        first = next(at for at in initial_masks if at >= start)
        assert start == first // alignment * alignment, "a block waits for nothing"
        assert end == min(start + 8, length)


def test_whole_is_one_block():
    assert blocks_of(Whole().bind(INFO), 5, 30, stores=False)[0] == [(5, 30)]


def test_a_block_stays_open_while_something_is_left():
    rule = Fixed(4)
    table = BlockTable.empty(2)
    table.end[:, 0], table.phase[:, 0] = 4, Phase.OPENING
    left = torch.zeros(2, 8, dtype=torch.long)
    left[0, 0] = 1
    eights, both = torch.tensor([8, 8]), torch.tensor([True, True])
    progress = Progress(left, eights, eights, eights * 0, torch.tensor([4, 4]), both, False)
    after = rule.advance(table, progress, part_params([rule, rule]))
    assert after.phase[0].tolist()[:2] == [Phase.OPEN, Phase.STORED]
    assert after.live.sum(dim=1).tolist() == [1, 1]
    assert after.start.masked_select(after.live).tolist() == [0, 4]
    gone = progress._replace(live=torch.tensor([False, False]))
    stopped = rule.advance(table, gone, part_params([rule, rule]))
    assert stopped.live.sum(dim=1).tolist() == [1, 0], "a row that ends opens nothing"


def test_bounds_that_a_model_forbids():
    causal = replace(INFO, attention="block_causal", block_length=4)
    for rule in (Whole(), Fixed(6), AdaBlock()):
        with pytest.raises(InvalidRequest, match="trained block"):
            rule.bind(causal)
    assert Fixed().bind(causal).length == 4
    assert Fixed().bind(INFO).length == 32
    with pytest.raises(InvalidRequest, match="delimiters"):
        AdaBlock().bind(replace(INFO, delimiters=()))
