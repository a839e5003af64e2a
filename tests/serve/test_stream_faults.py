"""Errors in the middle of a stream: the last chunk has them, and the request's line of the log."""

import asyncio
import json
import logging

import pytest
from starlette.testclient import TestClient

import dlm
from dlm.serve import ServerSettings, create_app
from dlm.serve.logs import JsonLines
from tests.serve.live import frames

ASK = {
    "prompt": "hello",
    "max_tokens": 32,
    "ignore_eos": True,
    "stream": True,
    "dlm": {"unmask": "topk", "blocks": "fixed(8)"},
}
SECOND = 16
"""A forward after which a first block has settled, and a later one not yet."""


async def the_loop():
    return asyncio.get_running_loop()


def fail(service, loop):
    raise RuntimeError("a secret detail")


def cut(service, loop):
    loop.call_soon_threadsafe(service.cut_off)


@pytest.mark.parametrize(
    ("happens", "code", "failures"), [(fail, "internal", 1), (cut, "draining", 0)]
)
def test_an_error_in_the_middle_of_a_stream_is_logged(caplog, happens, code, failures):
    caplog.set_level(logging.INFO, "dlm.access")
    engine, forwards = dlm.load(device="cpu"), 0
    with TestClient(create_app(engine, ServerSettings()), "http://localhost") as one:
        service, loop = one.app.state.service, one.portal.call(the_loop)

        def count(*_):
            nonlocal forwards
            forwards += 1
            if forwards == SECOND:
                happens(service, loop)

        engine.model.register_forward_pre_hook(count)
        answer = one.post("/v1/completions", json=ASK, headers={"X-Request-Id": "mine"})
        told = service.metrics.render().decode()
    assert answer.status_code == 200
    error = frames(answer.text.splitlines())[-1]["error"]
    assert error["code"] == code
    assert "secret" not in error["message"]
    lines = [json.loads(JsonLines().format(r)) for r in caplog.records if r.name == "dlm.access"]
    (line,) = (line for line in lines if line["request_id"] == "mine")
    assert (line["status"], line["code"], line["type"]) == (200, code, "server_error")
    assert f"dlm:request_failures_total {failures}.0" in told
