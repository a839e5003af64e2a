"""Fields of other endpoints, lengths, ids and odd bodies: each answered by the field at fault."""

from __future__ import annotations

import gzip
import json

import pytest

from dlm.serve.endpoints import ENDPOINTS
from dlm.serve.fields import Ignored, Neutral, Sampling
from tests.serve.live import LiveServer

CHAT, TEXT, FIM = "/v1/chat/completions", "/v1/completions", "/v1/fim/completions"
RESPONSES, DECISIONS = "/v1/responses", "/v1/decisions"
SUM = [{"role": "user", "content": "12+5=?"}]
MASK = 4
BODIES = {
    CHAT: {"messages": SUM, "max_tokens": 2},
    TEXT: {"prompt": "12+5=", "max_tokens": 2},
    FIM: {"prompt": "12+5=", "max_tokens": 2},
    RESPONSES: {"input": "12+5=?", "max_output_tokens": 2},
    DECISIONS: {"input": "12", "questions": [{"type": "predicate", "instructions": "is it?"}]},
}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A server with a canvas of 64 positions."""
    with LiveServer(tmp_path_factory.mktemp("narrow"), "--max-canvas", "64") as live:
        yield live


def error_of(server, path, body, status=400, **headers):
    answer = server.post(path, body, **headers)
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "fields", "taker"),
    [
        (TEXT, {"messages": SUM}, CHAT),
        (TEXT, {"max_completion_tokens": 4}, CHAT),
        (TEXT, {"top_logprobs": 2}, CHAT),
        (TEXT, {"input": "x"}, RESPONSES),
        (CHAT, {"prompt": "x"}, TEXT),
        (CHAT, {"suffix": "x"}, FIM),
        (CHAT, {"echo": True}, TEXT),
        (CHAT, {"input": "x"}, RESPONSES),
        (CHAT, {"instructions": "x"}, RESPONSES),
        (CHAT, {"questions": [1]}, DECISIONS),
        (FIM, {"echo": True}, TEXT),
        (RESPONSES, {"max_tokens": 4}, CHAT),
        (RESPONSES, {"messages": SUM}, CHAT),
        (DECISIONS, {"messages": SUM}, CHAT),
        (DECISIONS, {"stream": True}, "generate"),
    ],
    ids=str,
)
def test_a_field_of_another_endpoint_is_refused(server, path, fields, taker):
    (name,) = fields
    error = error_of(server, path, BODIES[path] | fields)
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")
    assert error["message"].startswith(f"`{name}` is no field of this endpoint, but of ")
    assert taker in error["message"]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (TEXT, {"messages": None, "tools": [], "tool_choice": "auto", "store": True}),
        (TEXT, {"parallel_tool_calls": True, "truncation": "disabled", "verbosity": "medium"}),
        (CHAT, {"echo": False, "suffix": "", "previous_response_id": None, "background": False}),
        (CHAT, {"chat_id": "x", "num_ctx": 5, "options": {"a": 1}, "model_config": 1}),
        (DECISIONS, {"user": "u", "metadata": {"a": "b"}, "service_tier": "auto", "store": True}),
    ],
    ids=str,
)
def test_what_asks_for_nothing_and_what_nobody_knows_is_left_alone(server, path, fields):
    assert server.post(path, BODIES[path] | fields).status_code == 200


def test_a_field_that_no_endpoint_honours_is_refused_as_there(server):
    for path in (TEXT, CHAT):
        error = error_of(server, path, BODIES[path] | {"tools": [{"type": "function"}]})
        assert error["param"] == "tools"
        assert "it asks for tools" in error["message"]
    error = error_of(server, CHAT, BODIES[CHAT] | {"previous_response_id": "r"})
    assert "it needs stored state" in error["message"]


@pytest.mark.parametrize("path", [CHAT, TEXT, FIM, RESPONSES, DECISIONS])
def test_every_honoured_field_of_the_table_is_refused_elsewhere(server, path):
    """The rule follows the schemas: no list of names is kept by hand."""
    own = ENDPOINTS[path].model_fields
    names = [
        name
        for schema in ENDPOINTS.values()
        for name, field in schema.model_fields.items()
        if name not in own and not any(isinstance(m, Neutral | Ignored) for m in field.metadata)
    ]
    names = [name for name in dict.fromkeys(names) if not ignored_somewhere(name)]
    assert names
    for name in names if path == TEXT else names[:3]:
        assert error_of(server, path, BODIES[path] | {name: 7})["param"] == name


def ignored_somewhere(name):
    fields = (schema.model_fields.get(name) for schema in (Sampling, *ENDPOINTS.values()))
    return any(isinstance(mark, Ignored) for field in fields if field for mark in field.metadata)


LONG = "cat dog " * 60


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"messages": [{"role": "user", "content": LONG}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": LONG}], "max_tokens": 5}, "messages"),
        (CHAT, {"messages": SUM, "max_completion_tokens": 64}, "max_completion_tokens"),
        (RESPONSES, {"input": LONG}, "input"),
        (RESPONSES, {"input": LONG * 200}, "input"),
        (RESPONSES, {"input": "a", "max_output_tokens": 64}, "max_output_tokens"),
        (TEXT, {"prompt": LONG}, "prompt"),
        (TEXT, {"prompt": [5] * 70}, "prompt"),
        (TEXT, {"prompt": ["a", LONG]}, "prompt"),
        (TEXT, {"prompt": "a", "suffix": LONG}, "suffix"),
        (FIM, {"prompt": "a", "suffix": "b", "max_tokens": 63}, "max_tokens"),
        (TEXT, {"prompt": "a", "dlm": {"infill": "[[mask:200]]"}}, "dlm.infill"),
        (TEXT, {"prompt": "a", "dlm": {"infill": [None] * 80}}, "dlm.infill"),
        (TEXT, {"prompt": LONG, "dlm": {"infill": "[[mask:5]]"}}, "prompt"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_canvas_that_is_too_short_blames_what_is_too_long(narrow, path, body, param):
    error = error_of(narrow, path, body)
    assert (error["param"], error["code"]) == (param, "context_length_exceeded")
    if len(str(body)) < 10_000:  # else its tokens are not counted
        assert "more than the 64 positions of a canvas (`--max-canvas`" in error["message"]
    narrow.until_idle()


def test_a_gap_without_a_length_leaves_room_for_its_suffix(narrow):
    answer = narrow.post(FIM, {"prompt": "ab", "suffix": "cat dog", "ignore_eos": True}).json()
    assert answer["usage"]["completion_tokens"] < 62


def test_a_template_beyond_the_model_is_blamed_itself(server):
    body = BODIES[CHAT] | {"dlm": {"infill": "[[mask:2000]]"}}
    del body["max_tokens"]
    assert error_of(server, CHAT, body)["param"] == "dlm.infill"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {str(MASK): 5}}, "logit_bias"),
        ({"logit_bias": {"05": 5, "5": 7}}, "logit_bias"),
        ({"stop_token_ids": [MASK]}, "stop_token_ids"),
        ({"dlm": {"stop": f"eos(ids=({MASK},))"}}, "dlm.stop"),
        ({"dlm": {"guide": f"forbid(({MASK},))"}}, "dlm.guide"),
        ({"dlm": {"guide": f"bias((({MASK}, 5.0),))"}}, "dlm.guide"),
        ({"dlm": {"unmask": f"topk(demote=({MASK},))"}}, "dlm.unmask"),
        ({"dlm": {"blocks": f"adaptive(delimiters=({MASK},))"}}, "dlm.blocks"),
        ({"stop": ["a"], "max_tokens": 5, "dlm": {"infill": "a[[mask:3]]b"}}, "stop"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
    ],
    ids=str,
)
def test_ids_that_no_answer_has_and_other_faults_name_their_field(server, fields, param):
    error = error_of(server, CHAT, BODIES[CHAT] | fields)
    assert error["param"] == param
    assert "StopString" not in error["message"]


def test_a_byte_order_mark_is_left_out_and_a_compressed_body_refused(server):
    body = json.dumps(BODIES[CHAT]).encode()
    assert server.post(CHAT, b"\xef\xbb\xbf" + body).status_code == 200
    assert server.post(CHAT, body, **{"Content-Encoding": "identity"}).status_code == 200
    head = {"Content-Encoding": "gzip"}
    error = error_of(server, CHAT, gzip.compress(body), 415, **head)
    assert error["code"] == "unsupported_encoding"
    assert "'gzip'" in error["message"]
