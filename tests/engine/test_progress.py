"""Every composition of parts comes to an end, with the right reason, whatever editors take back."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm import Editor, Engine, Kind, Proposal, Unmasker, replay
from dlm.rng import uniforms
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = (5, 9, 33)
MASK = tiny_spec().mask_id


@dataclass(frozen=True)
class TakesAllBack(Editor):
    """Reopens each position in the step that commits it."""

    scope = "row"

    def edit(self, view, proposal):
        return proposal._replace(remask=proposal.commit)


@dataclass(frozen=True)
class Capricious(Editor):
    """Reopens, overwrites and holds by chance, and takes commits back."""

    back: float = 0.5
    remask: float = 0.5
    replace: float = 0.5
    hold: float = 0.5

    scope = "row"

    def edit(self, view, proposal):
        row = view.row

        def chance(share, stream):
            return uniforms(row.seed, row.path, view.pos, row.step, 10 + stream) < share

        filled = view.kind == Kind.COMMITTED
        return proposal._replace(
            remask=(proposal.commit & chance(self.back, 0)) | (filled & chance(self.remask, 1)),
            token=torch.where(filled, (view.ids + 1) % MASK, view.token),
            replace=filled & chance(self.replace, 2),
            hold=chance(self.hold, 3).all(dim=1),
        )


@dataclass(frozen=True)
class CapriciousInBlock(Capricious):
    """The same in live blocks alone."""

    scope = "block"

    def edit(self, view, proposal):
        proposal = Capricious.edit(self, view, proposal)
        inside = view.pos >= view.in_block(view.blocks.start)
        return proposal._replace(remask=proposal.remask & inside, replace=proposal.replace & inside)


@dataclass(frozen=True)
class Waits(Unmasker):
    """An unmasker on a schedule that never commits."""

    clock = True

    def propose(self, view):
        return Proposal(torch.zeros_like(view.eligible))


def new_engine():
    spec = tiny_spec()
    return Engine(random_decoder(spec, seed=3), info_of(spec))


def ended(answer, length):
    """All of the answer is filled, and the events lead to it."""
    assert answer.finish_reason in ("length", "stop")
    assert MASK not in answer.canvas
    canvas = replay(answer.trace)[0]
    assert tuple(canvas.ids) == answer.canvas
    assert all(kind < Kind.MASK for kind in canvas.kinds)


@pytest.mark.parametrize("unmask", ["threshold(0.5)", "topk", "topk(steps=3)", "everything"])
def test_an_editor_that_takes_all_back_slows_nothing_but_itself(unmask):
    answer = new_engine().generate(
        PROMPT, max_new_tokens=12, unmask=unmask, edit=TakesAllBack(), stop="none", trace=True
    )
    ended(answer, 12)


def test_of_commits_that_are_taken_back_the_best_one_stays():
    """Without a schedule every step commits its best position: one forward a token."""
    options = {"max_new_tokens": 12, "stop": "none"}
    engine = new_engine()
    edited = engine.generate(PROMPT, unmask="threshold(0.1)", edit=TakesAllBack(), **options)
    plain = engine.generate(PROMPT, unmask="topk", **options)
    assert (edited.canvas, edited.stats.nfe) == (plain.canvas, 12)


def test_a_foreign_schedule_that_never_commits_ends():
    answer = new_engine().generate(
        PROMPT, max_new_tokens=6, unmask=Waits(), stop="none", trace=True
    )
    ended(answer, 6)


SHARES = st.sampled_from([0.0, 0.3, 0.9, 1.0])


@settings(max_examples=20, deadline=None)
@given(
    SHARES,
    SHARES,
    SHARES,
    SHARES,
    st.booleans(),
    st.sampled_from(["threshold(0.9)", "topk", "topk(steps=2)", "everything", "klass", "leap"]),
    st.sampled_from(["fixed(4)", "whole", "sliding(width=3)", "pipeline(4)"]),
    st.sampled_from(["none", "dual(on_edit='requery')"]),
    st.integers(0, 3),
)
def test_rows_end_whatever_an_editor_does(
    back, remask, replace, hold, block, unmask, blocks, cache, seed
):
    if cache != "none" or (blocks != "whole" and not block):
        blocks = "fixed(4)"
    kind = CapriciousInBlock if block else Capricious
    if blocks == "pipeline(4)" and unmask.startswith(("topk(", "klass")):
        unmask = "threshold(0.9)"
    answer = new_engine().generate(
        PROMPT,
        max_new_tokens=8,
        unmask=unmask,
        edit=kind(back, remask, replace, hold),
        blocks=blocks,
        cache=cache,
        stop="none",
        seed=seed,
        trace=True,
    )
    ended(answer, 8)
