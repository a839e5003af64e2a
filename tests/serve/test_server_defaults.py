"""The server's defaults beside what a request asks for itself, and what is cut off at the end."""

import pytest

import dlm
from dlm.serve.errors import ApiError
from dlm.serve.fields import check_supported
from dlm.serve.options import asked_of
from dlm.serve.schemas import ChatRequest
from dlm.serve.service import Places

TALK = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def tiny():
    return dlm.load(device="cpu")


def asked(engine, defaults, **body):
    talk = ChatRequest.model_validate({"messages": TALK, **body})
    return asked_of(talk, engine.info, defaults).options


def test_a_default_seed_holds(tiny):
    assert asked(tiny, {"seed": 5})["seed"] == 5
    assert asked(tiny, {"seed": 5}, seed=7)["seed"] == 7
    assert asked(tiny, {})["seed"] != asked(tiny, {})["seed"]


@pytest.mark.parametrize("own", [{"unmask": "threshold(0.5)"}, {"blocks": "fixed(8)"}], ids=str)
def test_default_steps_give_way_to_a_rule_of_the_request(tiny, own):
    defaults = {"unmask": "topk", "steps": 8}
    options = asked(tiny, defaults, dlm=own)
    assert "steps" not in options
    tiny.prepare([5, 6], dlm.GenerationConfig.from_options(options))
    assert asked(tiny, defaults)["steps"] == 8
    assert asked(tiny, defaults, dlm={**own, "steps": 4})["steps"] == 4


def test_default_stop_strings_give_way(tiny):
    defaults = {"stop": ["eos", "44"]}
    assert asked(tiny, defaults)["stop"] == ["eos", "44"]
    assert asked(tiny, defaults, stop=["25"])["stop"] == ["eos", "25"]
    assert asked(tiny, defaults, stop=[])["stop"] == ["eos"]


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"unmask": "threshold(foo=1)"}, "dlm.unmask", "an argument of threshold must be one of"),
        ({"foo": 1}, "dlm.foo", "'events'"),
        ({"seed": 1}, "dlm.seed", "field of its own"),
        ({"stop": "stabel"}, "dlm.stop", "did you mean 'stable'?"),
    ],
    ids=str,
)
def test_faults_of_the_extension_name_their_field(tiny, given, param, words):
    with pytest.raises(ApiError) as caught:
        asked(tiny, {}, dlm=given)
    assert caught.value.param == param
    assert words in caught.value.message
    assert "StopString" not in caught.value.message


def test_a_refusal_tells_rule_and_value():
    body = ChatRequest.model_validate({"messages": TALK, "frequency_penalty": 1.5})
    with pytest.raises(ApiError) as caught:
        check_supported(body)
    assert "must be 0 or left out, got 1.5: it depends" in caught.value.message


def test_answers_that_have_ended_hold_no_place():
    places, ended = Places(4), [0]
    with places.take(3, 30) as held:
        held.ended = lambda: ended[0]
        assert places.taken == 3
        with pytest.raises(ApiError, match="queue is full"), places.take(2, 1):
            pass
        ended[0] = 2
        assert places.taken == 1
        with places.take(3, 1):
            assert places.taken == 4
    assert places.taken == 0
