"""curl with the lines of the documentation, and the calls of Open WebUI, on a running server."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.serve.live import PATIENCE, frames

PAGE = Path(__file__).parents[2] / "docs" / "server.md"
FENCE = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def curl_lines():
    """Each curl command of the page; a command ends where its quotes and backslashes do."""
    found = []
    for block in FENCE.findall(PAGE.read_text()):
        command = ""
        for line in block.splitlines():
            command += line + "\n"
            try:
                words = shlex.split(command, comments=True)
            except ValueError:
                continue  # inside quotes
            if line.endswith("\\"):
                continue
            if words and words[0] == "curl":
                found.append(words)
            command = ""
    return found


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("words", curl_lines(), ids=lambda words: words[-1][:40].strip())
def test_the_lines_of_the_page(server, words):
    """Every one is answered with 200; those that ask for a stream get a whole one."""
    known = ("http://127.0.0.1:8000", "http://localhost:8000")
    for address in known:
        words = [word.replace(address, server.url) for word in words]
    command = [*words, "-sS", "--max-time", str(PATIENCE), "-w", "\n%{http_code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    assert status == "200", body
    if "data: " in body:
        assert frames(body.splitlines())


def test_there_are_lines():
    assert len(curl_lines()) >= 1


def test_the_calls_of_open_webui(server, engine):
    """A check of the connection, a talk with usage, then a title and tags without a stream."""
    head = {"Authorization": "Bearer sk-anything", "Content-Type": "application/json"}
    with httpx2.Client(base_url=server.v1, headers=head, timeout=PATIENCE) as client:
        (card,) = client.get("/models").json()["data"]
        talk = {
            "model": card["id"],
            "messages": [{"role": "user", "content": "12+5=?"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "metadata": {"chat_id": "a", "variables": {"{{USER_NAME}}": "x"}, "features": {}},
            "chat_id": "b-1",
            "session_id": "c",
            "background_tasks": {"title_generation": True},
            "params": {},
            "features": {"web_search": False},
        }
        with client.stream("POST", "/chat/completions", json=talk) as answer:
            assert answer.status_code == 200
            *chunks, last = frames(answer.iter_lines())
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert text == engine.generate("12+5=?", max_new_tokens=128).text
        assert last["usage"]["total_tokens"] > 0
        title = {
            "model": card["id"],
            "messages": [{"role": "user", "content": "Title for: 12+5=?"}],
            "stream": False,
            "max_completion_tokens": 50,
            "metadata": {"task": "title_generation", "task_body": talk},
        }
        answer = client.post("/chat/completions", json=title)
        assert answer.status_code == 200
        assert isinstance(answer.json()["choices"][0]["message"]["content"], str)


@pytest.mark.parametrize("bearer", ["Bearer ", "Bearer", "Bearer x", "Basic eA==", ""])
def test_any_key_is_taken_where_none_is_set(server, bearer):
    """lm-eval sends an empty one."""
    parts = urlsplit(server.url)
    link = HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE)
    link.request("GET", "/v1/models", headers={"Authorization": bearer} if bearer else {})
    assert link.getresponse().status == 200
    link.close()


def test_probes_and_strategies(server):
    assert server.status("/health") == server.status("/ready") == 200
    assert set(server.get("/load")) == {"running", "waiting", "max"}
    assert server.get("/version")["version"]
    told = server.get("/v1/dlm/strategies")
    assert told["object"] == "dlm.strategies"
    assert {"unmask", "blocks", "edit", "guide", "stop", "cache"} <= set(told["kinds"])
    assert told["effort"]["medium"] == "adaptive"
    json.dumps(told, allow_nan=False)
    names = {option["name"] for option in told["options"]}
    assert {"unmask", "infill", "preset", "trace"} <= names
    assert not {"temperature", "max_new_tokens", "seed", "n"} & names
