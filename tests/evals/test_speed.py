"""The overhead benchmark runs, and its parts add up."""

from dlm import Engine
from dlm.evals.speed import PHASES, step_overhead
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec


def test_step_overhead_measures_steps_and_phases():
    spec = tiny_spec()
    engine = Engine(random_decoder(spec), info_of(spec))
    found = step_overhead(engine, prompt_tokens=8, window=6, repeats=2)
    assert found.pairs == 2 * 5, "all steps but the one that opens the block"
    assert min(found.cpu) > 0
    assert set(found.phases) == set(PHASES)
    assert "step / forward" in str(found)
    assert engine.kv.pages.in_use == 0
