"""A bounded queue: who is refused, for how long, and the counts of those who run and wait."""

import pytest
import torch

import dlm
from dlm import Engine, GenerationConfig, InvalidRequest, Unavailable
from dlm.config import parse_part
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

OPTIONS = {"max_new_tokens": 16, "stop": "none", "unmask": "topk", "blocks": "whole"}


def new_engine(**sizes):
    spec = tiny_spec()
    return Engine(random_decoder(spec), info_of(spec), **sizes)


def test_a_full_queue_refuses_and_says_for_how_long():
    engine = new_engine(max_rows=2, max_waiting=1)
    running = [engine.submit([5, 6], **OPTIONS) for _ in range(3)]
    with pytest.raises(Unavailable, match="queue is full") as refused:
        engine.submit([5, 6], **OPTIONS)
    assert refused.value.retry_after is None  # nothing has run yet
    engine.step()
    assert (engine.live, engine.waiting) == (2, 1)
    with pytest.raises(Unavailable) as refused:
        engine.submit([5, 6], **OPTIONS)
    first = refused.value.retry_after
    with pytest.raises(Unavailable) as refused:
        engine.submit([5, 6], **OPTIONS, n=3)
    assert 0 < first < refused.value.retry_after
    with pytest.raises(Unavailable) as refused:
        engine.submit([5, 6], **OPTIONS, n=4)
    assert refused.value.retry_after is None  # never: more than the engine may hold
    for _ in range(15):
        engine.step()
    late = engine.submit([5, 6], **OPTIONS)
    assert len({request.result().ids for request in (*running, late)}) == 1
    assert (engine.live, engine.waiting) == (0, 0)


def test_a_refused_request_leaves_nothing_behind():
    engine = new_engine(max_rows=1, max_waiting=0)
    with pytest.raises(Unavailable):
        engine.generate([[5], [6]], **OPTIONS)
    assert engine.waiting == 0
    assert engine.generate([5], **OPTIONS).finish_reason == "length"
    kept = engine.submit([5], **OPTIONS)
    kept.abort()
    assert engine.generate([5], **OPTIONS).finish_reason == "length"
    assert kept.result().finish_reason == "abort"


def test_map_waits_for_room():
    engine, prompts = new_engine(max_rows=2, max_waiting=1), [[5 + i] for i in range(9)]
    found = [answer.ids for answer in engine.map(iter(prompts), **OPTIONS)]
    assert found == [answer.ids for answer in new_engine().generate(prompts, **OPTIONS)]


def test_a_request_is_checked_once_however_many_choices(monkeypatch):
    engine, calls = new_engine(), []
    check = engine.scheduler.check
    monkeypatch.setattr(engine.scheduler, "check", lambda state: calls.append(check(state)))
    engine.generate([5, 6], **OPTIONS, n=5)
    assert len(calls) == 1


@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_the_bound_is_a_count(value):
    with pytest.raises(InvalidRequest, match="max_waiting"):
        new_engine(max_waiting=value)


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        ({"unmask": "tests.rules.guided:Dictated()"}, "unmask", "trusted code alone"),
        ({"stop": ["eos", "os:system"]}, "stop", "trusted code alone"),
        ({"guide": ["bias(((1, 2),))", "colections:Counter"]}, "guide", "trusted code alone"),
        ({"cache": {"name": "dual"}}, "cache", "registered name"),
        ({"unmask": parse_part("unmask", "topk")}, "unmask", "registered name"),
        ({"unmask": "topkk"}, "unmask", "did you mean 'topk'"),
        ({"unmaks": "topk"}, "option", "did you mean 'unmask'"),
    ],
)
def test_options_of_strangers_import_nothing(options, param, words, monkeypatch):
    monkeypatch.setattr("dlm.registry.Registry.load_path", None)
    with pytest.raises(InvalidRequest, match=words) as refused:
        GenerationConfig.from_options(options, trusted=False)
    assert refused.value.param == param
    with pytest.raises(InvalidRequest, match=words) as refused:
        GenerationConfig.check_untrusted(options)
    assert refused.value.param == param


OPENAI = {"max_new_tokens", "temperature", "top_p", "top_k", "seed", "n", "logit_bias"} | {
    "top_logprobs"
}


def test_options_with_a_field_of_openai_are_set_there_alone():
    """By our name or another one, whatever their value; the rest is taken."""
    names = {alias: name for name, field in dlm.FIELDS.items() for alias in field.aliases}
    values = {"integer": 8, "number": 0.5, "flag": True, "name": "x", "ids": [1]}
    for name in dlm.FIELDS:
        names[name] = name
    for given, name in names.items():
        kind = getattr(dlm.FIELDS[name].aliases.get(given), "type", "integer")
        if name in OPENAI:
            assert not dlm.FIELDS[name].http
            with pytest.raises(InvalidRequest, match="has a field of its own") as refused:
                GenerationConfig.check_untrusted({given: values[kind]})
            assert refused.value.param == given
        else:
            assert dlm.FIELDS[name].http
    taken = {"unmask": "topk", "steps": 4, "trace": True, "infill": "a[[mask:3]]", "alg_temp": None}
    GenerationConfig.check_untrusted({**taken, "block_length": 8, "preset": None})


def test_options_of_strangers_mean_the_same():
    options = {
        "threshold": 0.8,
        "block_length": 16,
        "use_cache": True,
        "cfg_scale": 1.5,
        "stop": ["eos", "two words", dlm.StopString("none")],
        "edit": "none",
        "seed": 3,
    }
    assert GenerationConfig.from_options(options, trusted=False) == GenerationConfig.from_options(
        options
    )


def test_ids_without_a_partner_are_known_on_the_host():
    from dlm.decode.auxiliary import Auxiliary

    spec = tiny_spec()
    engine = new_engine()
    aux = Auxiliary("ar", engine.model, engine.kv, spec.max_length, torch.tensor([0, -1, 2, -1]))
    assert aux.lacks == {1, 3}
    aux.check_ids("prompt", [0, 2])
    with pytest.raises(InvalidRequest, match=r"no partner for the ids \[3, 1\]"):
        aux.check_ids("prompt", [3, 0, 1])
