"""What a plan says of its steps is so, and what dlm's own rules propose needs no cutting."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm import Engine
from dlm.config import KINDS
from dlm.decode.sampling import SMALL, row_stats
from dlm.decode.view import read_together
from dlm.errors import InvalidRequest
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = (5, 9, 33, 7)
UNMASKERS = sorted(KINDS["unmask"].names())
VARIANTS = (
    "topk(schedule='cosine', steps=4)",
    "topk(demote='eos', renormalise=True)",
    "topk(temperature=0.5, first_alone=True)",
    "threshold(conf_from='tempered')",
    "threshold(shares=3, first_alone=True)",
    "dynamic(block_steps=2, order='left')",
    "factor(last_passes=True)",
    "leap(committed=True, decay=True)",
    "leap(chain=True)",
    "rcr",
    "remdm(eta=0.3)",
    "psi(0.3)",
    "p2(eta=2.0)",
)
EDITS = ("rcr", "remdm(eta=0.3)", "psi(0.3)", "p2(eta=2.0)")
SETTINGS = (
    {"blocks": "fixed(8)", "cache": "dual"},
    {"blocks": "pipeline(4)", "cache": "none"},
    {"blocks": "sliding(5)", "cache": "prefix"},
    {"blocks": "adaptive", "cache": "none"},
    {"blocks": "fixed(8)", "cache": "none", "guide": "cfg(1.0)", "temperature": 0.8},
)


def checked_window(view):
    """The facts of a window, found anew from the view."""
    window = view.window
    inside = window.valid & (window.pos < view.in_block(view.blocks.end))
    assert torch.equal(window.inside, inside)
    assert window.one_block == bool((window.live.sum(dim=1) <= 1).all())
    if window.dense:
        assert bool(window.scored.all())
        assert window.logit_row.ravel().tolist() == list(range(window.pos.numel()))
    assert torch.equal(window.columns, torch.arange(window.pos.shape[1]))
    assert bool((window.pos[~window.valid] == window.spare).all())
    assert not bool((view.must_progress & ~view.eligible).any())
    assert not bool((view.eligible & ~(window.scored & window.inside)).any())


@pytest.mark.parametrize("options", SETTINGS, ids=lambda o: f"{o['blocks']} {o['cache']}")
def test_own_unmaskers_propose_eligible_positions(options):
    """In every step of every rule that may be combined with the blocks; the plan's facts hold."""
    info = info_of(tiny_spec(), delimiters=(3,))
    engine = Engine(random_decoder(tiny_spec(), seed=4), info, unroll=3)
    manager, plain, seen = engine.manager, engine.manager._propose, set()

    def recorded(group, view):
        checked_window(view)
        ((propose, params),) = group.calls["unmask"]
        proposal = propose(view._replace(params=params))
        assert not bool((proposal.commit & ~view.eligible).any())
        seen.add(type(group.parts.unmask).__name__)
        return plain(group, view)

    manager._propose = recorded
    for rule in (*UNMASKERS, *VARIANTS):
        own = {"edit": rule, "unmask": "everything"} if rule in EDITS else {"unmask": rule}
        try:
            engine.generate(PROMPT, max_new_tokens=16, stop="none", **own, **options)
        except InvalidRequest:  # it does not suit these blocks
            continue
    assert len(seen) >= 8, seen


NEEDS = st.sets(st.sampled_from(["argmax", "entropy", "margin", "logit_margin"]))


class Plan:
    """The part of a plan that reading together looks at."""

    def __init__(self, needs):
        self.joint_needs = None if needs is None else frozenset(needs)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.none() | NEEDS, st.integers(0, 4)), min_size=2, max_size=5),
    st.sampled_from([9, SMALL + 7]),
    st.sampled_from([None, 3]),
)
def test_statistics_read_together_equal_those_read_apart(groups, ids, mask):
    sizes = [size for _, size in groups]
    generator = torch.Generator().manual_seed(len(groups))
    logits = torch.randn(sum(sizes), ids, generator=generator).mul(4).round()  # with ties
    found = read_together([Plan(needs) for needs, _ in groups], logits, sizes, mask)
    for part, (needs, _), joint in zip(logits.split(sizes), groups, found, strict=True):
        if needs is None:
            assert joint is None
            continue
        apart = row_stats(part, mask, frozenset(needs))
        for mine, own in zip(joint, apart, strict=True):
            assert (mine is None) == (own is None)
            assert mine is None or torch.equal(mine, own)
