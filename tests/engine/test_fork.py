"""Forked rows: shared pages, copies on write, and the same results alone and together."""

import pytest
import torch

from dlm.config import GenerationConfig, bind
from dlm.core.canvas import replay
from dlm.decode.iteration import IterationManager
from dlm.engine.row import RowState
from dlm.engine.scheduler import Scheduler
from dlm.errors import InvalidRequest, Unavailable
from dlm.model.kv_store import KVPool
from tests.engine.harness import CPU, info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = (7, 3, 9, 21, 14)
CASES = {
    "no cache": ({}, {}),
    "dual": ({"cache": "dual", "blocks": "fixed(16)"}, {}),
    "two arms": ({"cache": "dual", "blocks": "fixed(16)", "guide": "cfg(0.5)"}, {}),
    "block-causal": ({}, {"attention": "block_causal", "block_length": 8}),
    "row editor": (
        {"unmask": "everything", "edit": "rcr(16)", "cache": "dual(on_edit='requery')"},
        {},
    ),
    "anchors": (
        {"unmask": "everything", "edit": "anchored(16)", "cache": "dual(on_edit='requery')"},
        {},
    ),
}


class Bench:
    """A scheduler over a tiny random model, and the canvases it ends with."""

    def __init__(self, spec_changes, max_bytes=None):
        spec = tiny_spec(**spec_changes)
        self.info = info_of(spec)
        self.kv = KVPool(spec, device=CPU, dtype=torch.float32, max_bytes=max_bytes, page_size=4)
        manager = IterationManager(random_decoder(spec), self.kv, self.info, CPU)
        self.scheduler = Scheduler(manager, max_rows=8)

    def start(self, options, steps):
        """A row that has taken `steps` steps."""
        config = GenerationConfig.from_options(
            {"max_new_tokens": 32, "unmask": "topk", "stop": "none", **options}
        )
        state = RowState(PROMPT, bind(config, self.info), 0)
        self.scheduler.submit(state)
        for _ in range(steps):
            self.step()
        return state

    def step(self):
        with torch.inference_mode():
            self.scheduler.step()
        self.scheduler.check_integrity()

    def finish(self, *states):
        while not all(t.done for t in states):
            self.step()
        return [tuple(t.canvas.ids) for t in states]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("steps", [1, 6, 13])
def test_a_fork_on_the_same_path_repeats_its_parent(case, steps):
    options, changes = CASES[case]
    bench = Bench(changes)
    parent = bench.start({"temperature": 0.8, **options}, steps)
    child = bench.scheduler.fork(parent, choice=1, row=1, path=0)
    together = bench.finish(parent, child)
    solo = Bench(changes)
    alone = solo.finish(solo.start({"temperature": 0.8, **options}, 0))
    assert together == [alone[0], alone[0]]
    assert child.ledger.inherited == steps + 1, "its first forward is its parent's"
    assert child.ledger.nfe == parent.ledger.nfe
    assert bench.kv.pages.in_use == 0


@pytest.mark.parametrize("case", CASES)
def test_children_go_their_own_ways_alone_and_together(case):
    options, changes = CASES[case]
    options = {"temperature": 1.0, **options}

    def run(*paths):
        bench = Bench(changes)
        parent = bench.start(options, 5)
        children = [bench.scheduler.fork(parent, choice=p, row=p, path=p) for p in paths]
        bench.scheduler.abort(parent)
        bench.scheduler.check_integrity()
        return bench.finish(*children)

    one, two = run(1), run(2)
    assert run(1, 2) == [*one, *two]
    assert one != two


@pytest.mark.parametrize("case", CASES)
def test_forks_of_forks_leave_each_other_alone(case):
    options, changes = CASES[case]
    bench = Bench(changes)
    rows = [bench.start({"temperature": 1.0, **options}, 3)]
    for generation in range(1, 4):
        for row in list(rows):
            choice = len(rows)
            rows.append(bench.scheduler.fork(row, choice=choice, row=choice, path=choice))
        if generation == 2:
            bench.scheduler.abort(rows.pop(1))
        bench.step()
    bench.finish(*rows)
    for row in rows:
        assert all(kind < 3 for kind in row.canvas.kinds)
    assert bench.kv.pages.in_use == 0


def test_a_fork_shares_pages_until_somebody_writes():
    bench = Bench({"attention": "block_causal", "block_length": 8})
    parent = bench.start({}, 9)
    before = bench.kv.pages.in_use
    child = bench.scheduler.fork(parent, choice=1, row=1, path=1)
    assert bench.kv.pages.in_use == before
    bench.step()
    grown = bench.kv.pages.in_use - before
    assert 0 < grown < before, "only the open block's pages are copied; the prefix stays shared"
    bench.finish(parent, child)


def test_a_fork_that_could_run_out_of_pages_is_refused_with_the_numbers():
    spec = tiny_spec()
    page = spec.kv_bytes_per_token(4) * 4
    bench = Bench({}, max_bytes=16 * page)
    parent = bench.start({}, 2)
    with pytest.raises(Unavailable, match=r"10 of 15|more pages"):
        bench.scheduler.fork(parent, choice=1, row=1, path=1)
    bench.scheduler.check_integrity()
    bench.finish(parent)


def test_a_fork_tells_its_whole_canvas_and_replays_to_it():
    from dlm.core.canvas import replay

    bench = Bench({})
    parent = bench.start({"temperature": 1.0}, 6)
    child = bench.scheduler.fork(parent, choice=3, row=3, path=3)
    bench.finish(parent, child)
    assert replay(child.events)[3].ids == child.canvas.ids
    assert replay(child.events)[3].kinds == child.canvas.kinds


def test_a_fork_knows_what_its_parent_was_sure_of():
    bench = Bench({})
    parent = bench.start({}, 6)
    child = bench.scheduler.fork(parent, choice=1, row=1, path=1)
    assert child.canvas.conf == parent.canvas.conf
    assert sum(conf is not None for conf in child.canvas.conf) == 6
    assert replay(child.events)[1].ids == parent.canvas.ids


def test_a_row_that_waits_cannot_be_forked():
    bench = Bench({})
    state = bench.start({}, 0)
    with pytest.raises(InvalidRequest, match="a row that waits cannot be forked"):
        bench.scheduler.fork(state, choice=1, row=1, path=1)
    bench.finish(state)


def test_a_fork_of_an_ended_row_has_its_canvas_and_no_pages():
    bench = Bench({})
    state = bench.start({}, 2)
    bench.finish(state)
    child = bench.scheduler.fork(state, choice=0, row=1, path=1)
    assert child.done
    assert child.canvas.ids == state.canvas.ids
    assert bench.kv.pages.in_use == 0
