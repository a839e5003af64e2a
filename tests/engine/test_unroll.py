"""Several device steps between two looks of the host change nothing but what idles."""

import random
from dataclasses import dataclass

import pytest
import torch

from dlm import Editor, Engine
from dlm.core import Entries, Kind, ScratchSpec
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

FULL = [
    {"unmask": "topk", "steps": 24, "cache": "dual", "blocks": "fixed(8)"},
    {"unmask": "threshold(0.6)", "temperature": 0.9, "blocks": "fixed(16)"},
    {"unmask": "threshold(0.9)", "blocks": "adaptive(8, delimiters=(4, 9))", "cache": "prefix"},
    {"unmask": "everything", "edit": "rcr(24)", "blocks": "fixed(12)"},
    {"unmask": "everything", "edit": "anchored(24, hold=1)", "blocks": "fixed(12)"},
    {"unmask": "topk(schedule='eps')", "steps": 30, "blocks": "whole"},
    {"unmask": "topk", "guide": "cfg(0.7)", "stop": "none", "temperature": 0.4},
]
CAUSAL = [
    {"unmask": "dynamic(0.7, 4)", "temperature": 0.8},
    {"unmask": "threshold(0.8)", "blocks": "pipeline(add=0.2)"},
    {"unmask": "topk", "blocks": "fixed(8)", "stop": "eos('block')"},
]


def run(unroll, mix, changes, abort_at=None):
    """Results and events of a mixed batch; rows submitted in two waves, one of them aborted."""
    spec = tiny_spec(**changes)
    engine = Engine(random_decoder(spec, 3), info_of(spec), unroll=unroll, max_rows=6)
    rng = random.Random(7)
    requests = []
    for seed, options in enumerate(mix * 2):
        prompt = [rng.randrange(3, 60) for _ in range(rng.randint(1, 14))]
        options = {"max_new_tokens": 24, "seed": seed, **options}
        requests.append(engine.submit(prompt, **options))
    if abort_at is not None:
        for _ in range(abort_at):
            engine.step()
        requests.pop(0).abort()
    events = [list(request.events()) for request in requests]
    results = [request.result() for request in requests]
    engine.scheduler.check_integrity()
    assert engine.kv.pages.in_use == 0
    return results, events


@pytest.mark.parametrize("unroll", [2, 3, 8])
@pytest.mark.parametrize(
    ("mix", "changes"), [(FULL, {}), (CAUSAL, {"attention": "block_causal", "block_length": 4})]
)
def test_k_steps_a_sync_equal_one(unroll, mix, changes):
    one, one_events = run(1, mix, changes)
    several, several_events = run(unroll, mix, changes)
    assert [r.canvas for r in several] == [r.canvas for r in one]
    assert [r.finish_reason for r in several] == [r.finish_reason for r in one]
    assert [r.stats.nfe for r in several] == [r.stats.nfe for r in one]
    assert several_events == one_events
    assert all(r.stats.idle_forwards == 0 for r in one)


def test_rows_that_end_early_idle_until_the_host_looks():
    options = {"unmask": "threshold(0.5)", "blocks": "fixed(8)", "cache": "dual"}
    several, _ = run(8, [options], {})
    assert any(r.stats.idle_forwards for r in several)


def test_an_abort_between_syncs_leaves_the_others_alone():
    one, _ = run(1, FULL, {})
    several, _ = run(4, FULL, {}, abort_at=2)
    assert [r.canvas for r in several] == [r.canvas for r in one[1:]]


@dataclass(frozen=True)
class Doubt(Editor):
    """Reopens what the model no longer believes, four times a position at the most."""

    threshold: float = 0.4

    scope = "block"
    needs = frozenset({"prob_current"})
    scratch = (ScratchSpec("doubted", "token", torch.long),)

    def edit(self, view, proposal):
        times = view.scratch["doubted"]
        doubted = (
            (view.kind == Kind.COMMITTED) & view.scored & (view.stats.prob_current < self.threshold)
        )
        doubted = doubted & (view.pos >= view.row.prompt[:, None]) & (times.gather(1, view.pos) < 4)
        counted = times.scatter_add(1, view.pos, doubted.long())
        return proposal._replace(remask=doubted, scratch={"doubted": counted})


@dataclass(frozen=True)
class DoubtByEntry(Doubt):
    """The same; it writes the entries of what the step shows alone."""

    def edit(self, view, proposal):
        proposal = Doubt.edit(self, view, proposal)
        times = proposal.scratch["doubted"]
        row = torch.arange(len(times))[:, None]
        at = (row * times.shape[1] + view.pos)[view.valid]
        return proposal._replace(scratch={"doubted": Entries(at, times.take(at))})


@pytest.mark.parametrize("unroll", [2, 5])
@pytest.mark.parametrize("doubt", [Doubt(), DoubtByEntry()])
def test_editors_leave_rows_alone_that_wait_for_the_host(unroll, doubt):
    """A row that has filled its block idles beside rows that go on; nothing of it may be reopened,
    as nobody would tell.
    """
    base = {"edit": doubt, "stop": "none", "blocks": "fixed(8)"}
    mix = [base | {"unmask": f"threshold({t})"} for t in (0.2, 0.35, 0.5, 0.9)]
    one, one_events = run(1, mix, {})
    several, several_events = run(unroll, mix, {})
    whole, _ = run(unroll, [options | {"edit": Doubt()} for options in mix], {})
    assert [r.canvas for r in several] == [r.canvas for r in one] == [r.canvas for r in whole]
    assert several_events == one_events
    assert any(e.type == "remask" for events in one_events for e in events)
    assert any(r.stats.idle_forwards for r in several)
