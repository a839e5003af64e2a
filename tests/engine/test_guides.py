"""Guides over whole decodes: against textbook twins, alone as in company, forked and parked."""

from dataclasses import dataclass

import pytest
import torch

import dlm
from dlm.core import Entries, Guide, Guided, ScratchSpec
from dlm.errors import RuleError
from tests.engine import guide_twins
from tests.engine.harness import Bench
from tests.engine.test_hard_cases import VOCAB, assert_same, decoder_of, prompt_of
from tests.engine.test_nodes import new_engine

NEW, BLOCK = 20, 10
PLAIN = {"max_new_tokens": NEW, "blocks": f"fixed({BLOCK})", "stop": "none", "cache": "none"}


# credit


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("alpha", "beta", "gamma"), [(0.7, 0.8, 0.2), (3.0, 0.5, 1.0), (5.0, 1.0, 0.0)]
)
def test_credit_equals_the_twin_with_a_number_for_every_id(alpha, beta, gamma, seed):
    decoder, prompt = decoder_of(seed), prompt_of(5 + seed, seed)
    rule = f"credit({alpha}, {beta}, {gamma}, keep={NEW})"
    options = {**PLAIN, "unmask": "threshold(0.4)"}
    trace = Bench(decoder).decode(prompt, **options, guide=rule)
    change = guide_twins.credited(alpha, beta, gamma)
    run = guide_twins.decoded(decoder, prompt, NEW, BLOCK, 0.4, change)
    assert_same(trace, run)


def test_credit_changes_what_is_decoded():
    """Were it without effect on these models, the twins would prove nothing."""
    canvases, steps = set(), set()
    for guide in (None, "credit(3.0, 0.8, 0.2)", "credit(3.0, 0.3, 0.2)", "credit(3.0, 0.8, 2.0)"):
        trace = Bench(decoder_of(1)).decode(
            prompt_of(6, 1), **PLAIN, unmask="threshold(0.4)", guide=guide
        )
        canvases.add(tuple(trace.canvases[-1]))
        steps.add(len(trace.forwards))
    assert len(canvases) > 2
    assert len(steps) > 1


def test_few_places_are_enough_unless_ids_change_often():
    """With one place a position remembers its last id alone; with many, nothing changes."""
    finals = [
        Bench(decoder_of(2)).decode(
            prompt_of(6, 1), **PLAIN, unmask="topk", guide=f"credit(5.0, 1.0, 0.0, keep={keep})"
        )
        for keep in (1, 8, NEW, VOCAB)
    ]
    assert finals[1].canvases == finals[2].canvases == finals[3].canvases
    assert finals[0].canvases != finals[3].canvases


@pytest.mark.parametrize("unroll", [1, 3])
def test_rows_in_company_keep_their_own_credit(unroll):
    """Other numbers, other lengths, late rows, and rows that end early, step by step."""
    decoder = decoder_of(3)
    settings = [(5, 2.0, 0.8), (12, 0.5, 0.3), (8, 4.0, 1.0)]
    options = {**PLAIN, "unmask": "threshold(0.4)"}
    bench = Bench(decoder, unroll=unroll)
    states = [
        bench.state(prompt_of(n, n), **options, guide=f"credit({alpha}, {beta}, keep={NEW})")
        for n, alpha, beta in settings
    ]
    bench.run(*states, after={1: 2, 2: 3})
    for state, (n, alpha, beta) in zip(states, settings, strict=True):
        change = guide_twins.credited(alpha, beta, 0.2)
        run = guide_twins.decoded(decoder, prompt_of(n, n), NEW, BLOCK, 0.4, change)
        assert state.canvas.ids == run.ids
        assert state.ledger.nfe == run.nfe.total()


GUIDES = {
    "credit": "credit(4.0, 0.9, keep=3)",
    "credit of two inputs": ["cfg(0.5)", "credit(4.0, 0.9)"],
}


@pytest.mark.parametrize("guide", GUIDES.values(), ids=GUIDES)
def test_what_a_guide_keeps_is_forked_and_parked(guide):
    prompt, options = (
        (7, 3, 9, 21),
        {
            "max_new_tokens": 24,
            "blocks": "fixed(12)",
            "unmask": "threshold(0.9)",
            "stop": "none",
            "guide": guide,
            "temperature": 2.0,
        },
    )
    engine, _ = new_engine({})
    wanted = engine.generate(prompt, **options)
    node = engine.start(prompt, **options)
    engine.resume(node, steps=3)
    mate = engine.start((5, 6), **options)
    engine.resume([node, mate], steps=2)
    again, other = engine.fork(node, node.path), engine.fork(node, 1)
    engine.resume([again, mate, other])
    engine.resume(node)
    assert node.result().canvas == again.result().canvas == wanted.canvas
    assert other.result().canvas != wanted.canvas
    assert node.result().stats.nfe == wanted.stats.nfe


@dataclass(frozen=True)
class FailsInCompany(dlm.Unmasker):
    """Raises once, in the fourth step of rows that are decoded together."""

    def propose(self, view):
        if len(view.row.step) > 1 and bool((view.row.step == 3).any()):
            raise RuntimeError("not in company")
        return dlm.Proposal(view.eligible & (view.confidence > 0.4))


@pytest.mark.parametrize("guide", GUIDES.values(), ids=GUIDES)
def test_a_step_that_fails_leaves_nothing_of_itself(guide):
    options = {**PLAIN, "guide": guide}
    bench = Bench(decoder_of(2))
    states = [bench.state(prompt_of(6, n), **options, unmask=FailsInCompany()) for n in (1, 2)]
    bench.run(*states)
    for state, n in zip(states, (1, 2), strict=True):
        alone = Bench(decoder_of(2))
        wanted = alone.state(prompt_of(6, n), **options, unmask="threshold(0.4)")
        alone.run(wanted)
        assert state.error is None
        assert state.canvas.ids == wanted.canvas.ids


# somebody's own guide with scratch


@dataclass(frozen=True)
class Stubborn(Guide):
    """Never lets a position be read as the id that it was read as in the step before."""

    wrong: str = ""

    scratch = (ScratchSpec("stubborn_last", "token", torch.long, fill=-1),)

    def __call__(self, logits, frame, params):
        window, last = frame.window, frame.scratch["stubborn_last"]
        flat = window.row * last.shape[1] + window.pos.take(window.slot)
        before = last.flatten().take(flat)
        barred = logits[0].scatter(1, before.clamp_min(0)[:, None], -1e4)
        barred = torch.where((before >= 0)[:, None], barred, logits[0])
        best = Entries(flat, barred.argmax(dim=1))
        kept = {
            "": {"stubborn_last": best},
            "name": {"stubborn": best},
            "shape": {"stubborn_last": Entries(flat, torch.zeros(1))},
            "map": best,
        }
        return Guided(barred[None] if self.wrong != "logits" else None, kept.get(self.wrong, {}))


def test_a_guide_of_ones_own_may_keep_something():
    decoder, prompt = decoder_of(1), prompt_of(5, 1)
    trace = Bench(decoder).decode(prompt, **PLAIN, unmask="threshold(1.0)", guide=Stubborn())
    last = {}

    def change(run, rows, inside):
        found = {p: rows[p].clone() for p in run.open.intersection(inside)}
        for p, row in found.items():
            if p in last:
                row[last[p]] = -1e4
            last[p] = int(row.argmax())
        return found

    run = guide_twins.decoded(decoder, prompt, NEW, BLOCK, 1.0, change)
    assert_same(trace, run)
    plain = Bench(decoder).decode(prompt, **PLAIN, unmask="threshold(1.0)")
    assert plain.canvases != trace.canvases


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("name", r"must give declared `scratch` \('stubborn_last'\), got 'stubborn'"),
        ("shape", r"must give the scratch 'stubborn_last' as \[\d+\], got float32 \[1\]"),
        ("map", r"must give `scratch` as a map from names to tensors"),
        ("logits", r"must return logits \[1, \d+, 64\], got None"),
    ],
)
def test_what_it_keeps_wrongly_is_told(wrong, message):
    with pytest.raises(RuleError, match=message):
        new_engine({})[0].generate((4, 5), max_new_tokens=8, guide=Stubborn(wrong))


# allowed ids


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("at", [None, (0, 3, 11)])
def test_allowed_ids_alone_are_written(at, seed):
    decoder, prompt = decoder_of(seed), prompt_of(5 + seed, seed)
    allowed = (4, 9, 17, 40, 41)
    options = {**PLAIN, "unmask": "threshold(0.5)", "guide": f"allow({allowed}, at={at})"}
    trace = Bench(decoder).decode(prompt, **options)
    places = None if at is None else set(at)
    change = guide_twins.others_alone(set(allowed), places, len(prompt))
    assert_same(trace, guide_twins.decoded(decoder, prompt, NEW, BLOCK, 0.5, change))
    written = dict(enumerate(trace.canvases[-1][len(prompt) :]))
    assert all(written[i] in allowed for i in (written if at is None else at))
