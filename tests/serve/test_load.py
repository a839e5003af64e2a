"""Many clients at once, some of which leave or read slowly: nothing is lost and nothing stays."""

import asyncio
import time
from dataclasses import replace
from itertools import islice

import pytest

import dlm
from dlm.evals.load.clients import run_clients
from dlm.evals.load.measure import drain, engine_round
from dlm.evals.load.mix import asks
from dlm.evals.load.process import ServerProcess

CLIENTS = 24
REQUESTS = 72
FLAGS = ("--model", "tiny", "--device", "cpu", "--dtype", "float64")
"""In float64 no two logits are so near that the batch decides between them."""


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """The last test of this file ends it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        log = tmp_path_factory.mktemp("load") / "log"
        with ServerProcess([*FLAGS, "--drain", "600"], log) as started:
            yield started


def asked():
    """The mix of a load, with more faults, and short."""
    faults = ("none", "none", "leaves", "slow")
    return [
        replace(
            ask,
            fault=faults[ask.number % 4],
            limits={**ask.limits, "max_tokens": min(ask.limits["max_tokens"], 32)},
        )
        for ask in islice(asks(5), REQUESTS)
    ]


@pytest.mark.slow
def test_a_load_leaves_nothing_and_its_answers_are_the_engines(process):
    asyncio.run(run_clients(process.address, islice(asks(1), 4), 4))
    time.sleep(1)  # connections of it are closed
    before = process.held()
    outcomes = asyncio.run(run_clients(process.address, iter(asked()), CLIENTS))
    after = process.held_at_rest(before)

    assert [one.error for one in outcomes if one.error] == []
    assert sum(one.left for one in outcomes) > REQUESTS // 8
    assert {one.ask.form for one in outcomes} == {"text", "diffusing", "events"}
    assert (after.running, after.waiting, after.kv_usage) == (0, 0, 0)
    assert after.tasks <= before.tasks
    assert after.files <= before.files + 1  # the connection that asks may still be there

    engine = dlm.load("tiny", device="cpu", dtype="float64")
    _, texts = engine_round(engine, asked(), CLIENTS)
    found = {one.ask.number: one.texts for one in outcomes if not one.left}
    assert len(found) > REQUESTS // 2
    assert found == {number: texts[number] for number in found}


@pytest.mark.slow
def test_sigterm_lets_what_runs_end_and_refuses_the_rest(process):
    found = drain(process, clients=8, seconds=2, seed=3)
    assert found["running_at_signal"] == found["of_these_finished"] > 0
    assert found["errors"] == []
    assert found["new"] > 0
    assert found["of_these_503"] + found["of_these_connections_refused"] == found["new"]
    assert found["exit_code"] == 0
