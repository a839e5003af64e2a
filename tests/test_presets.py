"""Presets: every one binds and decodes on the models it is for; what is said beside it wins."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import dlm
from dlm.config import PRESETS, bind
from dlm.errors import InvalidRequest
from tests.engine.harness import Bench, info_of
from tests.helpers import random_decoder, tiny_spec

FULL, SHIFTED = tiny_spec(), tiny_spec(shift=True)
CAUSAL = tiny_spec(attention="block_causal", block_length=4)
KINDS = {"full": FULL, "shifted": SHIFTED, "block_causal": CAUSAL}
DELIMITERS = (5, 9, 20)
REASONS = {
    "full": "is for models with trained blocks",
    "shifted": "(is for models with trained|rows of this model predict the next)",
    "block_causal": "this model has trained blocks of 4",
}
RESULTS = Path(__file__).parents[1] / "evals" / "results"


def engine_of(spec, **traits):
    info = replace(info_of(spec), delimiters=DELIMITERS, **traits)
    return dlm.Engine(random_decoder(spec, 1), info)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PRESETS)
def test_decodes_within_what_it_says_it_costs(name, kind):
    engine = engine_of(KINDS[kind], eos_ids=())  # a random model may write one
    options = {"preset": name, "max_new_tokens": 40, "stop": "none"}
    if getattr(PRESETS[name], kind) is None:
        with pytest.raises(InvalidRequest, match=f"{REASONS[kind]}.*: use 'quality', 'fast'"):
            engine.explain(**options)
        return
    told = engine.explain(**options)
    assert told.preset.startswith(f"{name}: {PRESETS[name].use}")
    *least, most = (int(n) for n in re.findall(r"\d+", told.cost.split(" forwards")[0]))
    answer = engine.generate([3, 4, 7], **options)
    assert answer.finish_reason == "length"
    assert min([*least, 1]) <= answer.stats.nfe <= most
    assert told.exact == (not told.stale)


@pytest.mark.parametrize("kind", KINDS)
def test_names_the_registered_parts(kind):
    """The bound parts are those of the spec strings, no more and no less."""
    info = replace(info_of(KINDS[kind]), delimiters=DELIMITERS)
    for name, preset in PRESETS.items():
        options = preset.options(info)
        if options is not None:
            config = {"max_new_tokens": 16}
            by_name = bind(dlm.GenerationConfig.from_options(config | {"preset": name}), info)
            by_hand = bind(dlm.GenerationConfig.from_options(config | dict(options)), info)
            assert by_name.parts == by_hand.parts


MEASURED = {"fast": "threshold(0.9)", "leap": "leap(0.9, 0.75)", "adaptive": "adaptive, 0.9"}


@pytest.mark.parametrize("name", MEASURED)
def test_the_evidence_is_that_of_the_committed_table(name):
    found = json.loads((RESULTS / "strategies-dev" / "results.json").read_text())
    tasks = ("math", "code", "sudoku")
    nfe = {(f["setting"], f["task"]): f["nfe"] for f in found["figures"]}
    change = {(c["setting"], c["task"]): c["paired"][0] for c in found["comparisons"]}
    setting, base = MEASURED[name], found["baseline"]
    points = ", ".join(f"{task} {100 * change[setting, task]:+.1f}" for task in tasks)
    shares = ", ".join(f"{100 * nfe[setting, t] / nfe[base, t]:.0f}" for t in tasks)
    assert PRESETS[name].evidence == f"{points} points at {shares}% of its forwards"


def test_what_is_said_beside_it_wins():
    engine = engine_of(FULL)
    told = str(engine.explain(preset="fast", blocks="fixed(8)", cache="none"))
    assert "Fixed(length=8)" in told
    assert "NoCache" in told
    assert "Threshold(threshold=0.9)" in told
    aliased = str(engine.explain(preset="fast", block_length=16, threshold=0.7))
    assert "Fixed(length=16)" in aliased
    assert "Threshold(threshold=0.7)" in aliased


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InvalidRequest, match=r"'adaptive', 'anchored', .* got 'best'"):
        engine_of(FULL).generate([3], preset="best")
    with pytest.raises(InvalidRequest, match="`preset`: must be a name, got 3"):
        engine_of(FULL).generate([3], preset=3)


def test_rows_of_different_presets_share_a_batch():
    bench = Bench(random_decoder(FULL, 1), DELIMITERS)
    names = [name for name, preset in PRESETS.items() if preset.full]
    states = [bench.state([3, 4], max_new_tokens=24, preset=name) for name in names]
    bench.run(*states)
    alone = Bench(random_decoder(FULL, 1), DELIMITERS)
    for name, state in zip(names, states, strict=True):
        solo = alone.state([3, 4], max_new_tokens=24, preset=name)
        alone.run(solo)
        assert state.canvas.ids == solo.canvas.ids


def test_the_description_of_the_option_names_them_all():
    assert dlm.FIELDS["preset"].meaning.endswith(": " + ", ".join(PRESETS))
