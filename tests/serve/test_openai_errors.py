"""OpenAI's client: errors of a running server are the right classes, with their fields."""

from __future__ import annotations

import threading
import time

import openai
import pytest

from tests.serve.field_table import fields_table
from tests.serve.live import PATIENCE, LiveServer

SUM = [{"role": "user", "content": "12+5=?"}]
SLOW = {"ignore_eos": True, "dlm": {"unmask": "topk"}}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A server with a key and room for one answer."""
    flags = ["--max-rows", "1", "--max-waiting", "0"]
    env = {"DLM_API_KEY": "secret-1,secret-2"}
    with LiveServer(tmp_path_factory.mktemp("small"), *flags, env=env) as live:
        yield live


def client_of(server, key="secret-1", retries=0):
    return openai.OpenAI(base_url=server.v1, api_key=key, max_retries=retries, timeout=PATIENCE)


def ask(client, **fields):
    return client.chat.completions.create(**{"model": "tiny", "messages": SUM, **fields})


BAD_CHATS = [
    ({"temperature": 3}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"n": True}, "n"),
    ({"seed": 2**63}, "seed"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": 5000}, "max_tokens"),
    ({"max_completion_tokens": 5000}, "max_completion_tokens"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": 5}, "stop"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"logit_bias": {"cat": 1}}, "logit_bias"),
    ({"logit_bias": {"99999": 1}}, "logit_bias"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"presence_penalty": 0.5}, "presence_penalty"),
    ({"logprobs": 5}, "logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"reasoning_effort": "huge"}, "reasoning_effort"),
    ({"modalities": ["audio"]}, "modalities"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0]",
    ),
    ({"messages": [*SUM, {"role": "assistant", "tool_calls": [{}]}]}, "messages[1].tool_calls"),
    ({"extra_body": {"min_p": 0.1}}, "min_p"),
    ({"extra_body": {"stop_token_ids": [99999]}}, "stop_token_ids"),
    ({"extra_body": {"stop_token_ids": [-1]}}, "stop_token_ids"),
    ({"extra_body": {"stop_token_ids": [10**30]}}, "stop_token_ids"),
    ({"max_tokens": 8, "extra_body": {"min_tokens": 9}}, "min_tokens"),
    ({"extra_body": {"dlm": {"stop": "eos(ids=(99999,))"}}}, "dlm.stop"),
    ({"extra_body": {"repetition_penalty": 1.1}}, "repetition_penalty"),
    ({"extra_body": {"best_of": 2}}, "best_of"),
    ({"extra_body": {"top_k": -2}}, "top_k"),
    ({"extra_body": {"diffusing": True, "stream": False}}, "diffusing"),
    ({"extra_body": {"dlm": 5}}, "dlm"),
    ({"extra_body": {"dlm": {"unmask": "nothing"}}}, "dlm.unmask"),
    ({"extra_body": {"dlm": {"unmask": "topk(steps=)"}}}, "dlm.unmask"),
    ({"extra_body": {"dlm": {"unmask": "os:system"}}}, "dlm.unmask"),
    ({"extra_body": {"dlm": {"mystery": 1}}}, "dlm.mystery"),
    ({"extra_body": {"dlm": {"temperature": 1}}}, "dlm.temperature"),
    ({"extra_body": {"dlm": {"max_new_tokens": 8}}}, "dlm.max_new_tokens"),
    ({"extra_body": {"dlm": {"preset": "slow"}}}, "dlm.preset"),
    ({"extra_body": {"dlm": {"steps": 0}}}, "dlm.steps"),
    ({"extra_body": {"dlm": {"events": True}}}, "dlm.events"),
    ({"extra_body": {"dlm": {"events": 1}}, "stream": True}, "dlm.events"),
    ({"extra_body": {"dlm": {"infill": 7}}}, "dlm.infill"),
    ({"reasoning_effort": "low", "extra_body": {"dlm": {"preset": "fast"}}}, "reasoning_effort"),
]


@pytest.mark.parametrize(("fields", "param"), BAD_CHATS)
def test_a_bad_field_is_named(client, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **fields)
    error = caught.value
    assert error.status_code == 400
    assert error.param == param
    assert error.type == "invalid_request_error"
    assert error.code in ("invalid_value", "unsupported_parameter", "context_length_exceeded")
    assert f"`{param.partition('[')[0].partition('.')[0]}" in error.body["message"]
    assert len(error.body["message"]) <= 600


BAD_TEXTS = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [""]}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": [5, "a"]}, "prompt[1]"),
    ({"prompt": [99999]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": ["a"] * 65}, "prompt"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ({"prompt": "a", "logprobs": 21}, "logprobs"),
    ({"prompt": "a", "logprobs": 1, "echo": True, "stream": True}, "stream"),
    ({"prompt": "a", "max_tokens": 0, "echo": True, "stream": True}, "stream"),
    ({"prompt": "a", "logprobs": 1, "echo": True, "suffix": "b"}, "suffix"),
    ({"prompt": [[5, 6], [5, 4]], "logprobs": 1, "echo": True}, "prompt[1]"),
    ({"prompt": [4], "logprobs": 1, "echo": True, "max_tokens": 0}, "prompt"),
    ({"prompt": [5] * 1025, "logprobs": 1, "echo": True, "max_tokens": 0}, "prompt"),
    ({"prompt": [5] * 1024, "logprobs": 1, "echo": True, "max_tokens": 1}, "prompt"),
    ({"prompt": ["a"] * 64, "n": 16, "logprobs": 1, "echo": True}, "prompt"),
    ({"prompt": "a", "best_of": 3}, "best_of"),
    ({"prompt": "a", "suffix": "b", "extra_body": {"dlm": {"infill": "[[mask:3]]"}}}, "suffix"),
    ({"prompt": "a", "suffix": "b" * 5000, "max_tokens": 4}, "suffix"),
    ({"prompt": "a b " * 1000}, "prompt"),
    ({"prompt": ["a", "a b " * 1000], "max_tokens": 4}, "prompt"),
    ({"prompt": "a", "max_tokens": 1024}, "max_tokens"),
    ({"prompt": "a" * 100_000}, "prompt"),
]


@pytest.mark.parametrize(("fields", "param"), BAD_TEXTS)
def test_a_bad_field_of_a_completion_is_named(client, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{"model": "tiny", **fields})
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": ["a", 5]}, "`prompt[1]` must be a string, got 5"),
        ({"prompt": [5, "a"]}, "`prompt[1]` must be a valid integer, got 'a'"),
        ({"prompt": [[5], [6, "a"]]}, "`prompt[1][1]` must be a valid integer, got 'a'"),
        ({"prompt": ["hi"] * 65}, "`prompt` must have at most 64 items, got 65"),
        ({"prompt": {"a": 1}}, "`prompt` must be a string or must be a list, got an object"),
        ({"prompt": "a", "stop": [1]}, "`stop[0]` must be a string, got 1"),
        ({"prompt": "a", "stop": ["a"] * 17}, "`stop` must have at most 16 items, got 17"),
    ],
)
def test_of_several_forms_the_one_that_was_meant_is_told(client, fields, message):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", **fields)
    assert caught.value.body["message"] == message


def test_the_table_of_fields_tells_the_bounds(client):
    table = fields_table()
    assert "list of at most 16 strings of at most 256 characters |" in table
    assert "list of at most 64 strings, or" in table
    client.completions.create(model="tiny", prompt="a", stop=["b" * 256] * 16, max_tokens=1)
    with pytest.raises(openai.BadRequestError, match="at most 256 characters"):
        client.completions.create(model="tiny", prompt="a", stop=["b" * 257], max_tokens=1)
    assert "tokens of each answer at most; left out: 16; 0: `echo` alone |" in table
    told = client.completions.create(model="tiny", prompt="a", extra_body={"ignore_eos": True})
    assert told.usage.completion_tokens == 16


def test_a_prompt_that_is_too_long_tells_both_numbers(client):
    with pytest.raises(
        openai.BadRequestError, match=r"of \d+ tokens and 500 new .* 1024"
    ) as caught:
        ask(client, messages=[{"role": "user", "content": "cat " * 800}], max_tokens=500)
    assert caught.value.code == "context_length_exceeded"


def test_unknown_models_and_routes(client):
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, model="gpt-9/turbo")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("a/b/c")
    assert caught.value.code == "model_not_found"
    for call in (
        lambda: client.embeddings.create(model="tiny", input="a"),
        lambda: client.images.generate(prompt="a"),
        lambda: client.files.list(),
        lambda: client.moderations.create(input="a"),
        lambda: client.batches.list(),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert caught.value.code == "not_found"
        assert caught.value.type == "invalid_request_error"


def test_an_error_before_a_stream_is_no_stream(client):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, stream=True, temperature=3)
    assert caught.value.param == "temperature"


def test_keys(small):
    for key in ("sk-other", "secret", "secret-11"):
        with pytest.raises(openai.AuthenticationError) as caught:
            ask(client_of(small, key))
        assert caught.value.status_code == 401
        assert caught.value.code == "invalid_api_key"
        assert caught.value.response.headers["www-authenticate"] == "Bearer"
        assert key.strip() not in caught.value.body["message"]
    for key in ("secret-1", "secret-2"):
        assert ask(client_of(small, key), max_tokens=8).choices
    with pytest.raises(openai.AuthenticationError):
        client_of(small, "wrong").models.list()
    assert small.get("/version")["version"], "probes need no key"


def hold(client, tokens, begun):
    """Occupy the only row for as many steps as tokens."""
    stream = ask(client, max_tokens=tokens, stream=True, extra_body=SLOW)
    begun.set()
    for _ in stream:
        pass


def test_a_full_queue_is_a_rate_limit(small):
    client = client_of(small)
    with ask(client, max_tokens=600, stream=True, extra_body=SLOW) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client)
        error = caught.value
        assert (error.status_code, error.code, error.type) == (
            429,
            "queue_full",
            "rate_limit_error",
        )
        assert 1 <= int(error.response.headers["retry-after"]) <= 120
        with pytest.raises(openai.RateLimitError):
            ask(client, stream=True)
    small.until_idle()
    assert ask(client, max_tokens=8).choices, "there is room again"


def test_more_answers_than_a_server_has_room_for(small):
    """Retrying would not help: two answers never fit."""
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client_of(small), n=2, max_tokens=8)
    assert caught.value.param == "n"


def test_the_client_tries_again_as_told(small):
    begun = threading.Event()
    thread = threading.Thread(target=hold, args=(client_of(small), 120, begun))
    thread.start()
    try:
        assert begun.wait(PATIENCE)
        since = time.monotonic()
        answer = ask(client_of(small, retries=60), max_tokens=8)
        assert answer.choices
        assert time.monotonic() - since >= 1, "Retry-After is at least one second"
    finally:
        thread.join()


@pytest.mark.slow
def test_a_server_that_ends_refuses_and_finishes(tmp_path):
    with LiveServer(tmp_path, "--drain", str(PATIENCE)) as live:
        client = client_of(live)
        with ask(client, max_tokens=200, stream=True, extra_body=SLOW) as stream:
            next(iter(stream))
            live.process.terminate()
            until = time.monotonic() + PATIENCE
            while live.status("/ready") != 503:
                assert time.monotonic() < until
                time.sleep(0.02)
            with pytest.raises(openai.InternalServerError) as caught:
                ask(client_of(live))
            assert caught.value.status_code == 503
            assert caught.value.code == "draining"
            assert int(caught.value.response.headers["retry-after"]) >= 1
            *_, last = list(stream)
            assert last.choices[0].finish_reason == "length"
        assert live.process.wait(PATIENCE) == 0
