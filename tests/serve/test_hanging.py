"""An engine whose step does not end: who waits is told, probes fail, the process ends with 1."""

import json
import threading

import httpx2
import pytest
from starlette.testclient import TestClient

import dlm
from dlm.serve import ServerSettings, create_app
from tests.serve.live import frames
from tests.serve.processes import PATIENCE, running

PARTS = {"unmask": "topk", "blocks": "fixed(8)"}
LONG = {"prompt": "hello", "max_tokens": 200, "ignore_eos": True, "dlm": PARTS}  # 200 forwards


def test_a_forward_that_blocks_ends_the_process():
    with running("hang", module="tests.serve.dying_server", forked=True) as server:
        url, answers = f"{server.url}/v1/completions", []

        def ask():
            answers.append(httpx2.post(url, json=LONG, timeout=PATIENCE))

        asker = threading.Thread(target=ask)
        asker.start()
        ids = {"X-Request-Id": "mine"}
        with httpx2.stream(
            "POST", url, json=LONG | {"stream": True}, headers=ids, timeout=PATIENCE
        ) as stream:
            last = frames(stream.iter_lines())[-1]
        asker.join(PATIENCE)
        assert last["error"]["code"] == "internal"
        assert answers[0].status_code == 500
        code, err = server.ended()
    assert code == 1
    assert "died or hangs" in err
    assert 'dying_server.py", line' in err  # the place at which it hangs
    (line,) = (json.loads(text) for text in err.splitlines() if '"request_id": "mine"' in text)
    assert (line["code"], line["type"]) == ("internal", "server_error")


@pytest.mark.parametrize("max_step", [0.05, 0])
def test_health_while_a_step_runs(max_step):
    """A step beyond the limit is a fault; without a limit it may take its time."""
    engine = dlm.load(device="cpu")
    entered, go = threading.Event(), threading.Event()
    with TestClient(
        create_app(engine, ServerSettings(max_step=max_step)), "http://localhost"
    ) as one:
        service = one.app.state.service

        def block(*_):
            entered.set()
            go.wait(PATIENCE)

        hook = engine.model.register_forward_pre_hook(block)
        asker = threading.Thread(target=one.post, args=("/v1/completions",), kwargs={"json": LONG})
        asker.start()
        assert entered.wait(PATIENCE)
        while not service.engine.busy_seconds > 0.1:
            pass
        expected = 503 if max_step else 200
        assert one.get("/health").status_code == one.get("/ready").status_code == expected
        hook.remove()
        go.set()
        asker.join(PATIENCE)
        assert one.get("/health").status_code == 200  # it was slow
        assert service.engine.busy_seconds == 0
