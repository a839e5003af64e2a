"""The bytes of streams: chunk boundaries, keep-alives, slow readers, two forms of errors."""

from __future__ import annotations

import json
import socket
import time
from urllib.parse import urlsplit

import pytest

import dlm
from tests.serve.live import PATIENCE, LiveServer, frames

SUM = [{"role": "user", "content": "12+5=?"}]


def connect(server, small=False):
    """A plain socket to a server; a small one takes little before it has been read."""
    parts = urlsplit(server.url)
    found = socket.socket()
    if small:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found.settimeout(PATIENCE)
    found.connect((parts.hostname, parts.port))
    return found


def send(link, body, path="/v1/chat/completions"):
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    link.sendall(f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)


def read(link, size=65536):
    """All bytes up to the end of the connection."""
    return b"".join(iter(lambda: link.recv(size), b""))


def body_of(answer):
    """The body of a chunked response."""
    at = answer.index(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in answer[:at].lower()
    at, parts = at + 4, []
    while True:
        start = answer.index(b"\r\n", at) + 2
        count = int(answer[at:start], 16)
        if not count:
            return b"".join(parts)
        parts.append(answer[start : start + count])
        at = start + count + 2


def test_frames_read_byte_by_byte(server, engine):
    """A character may be cut by the reader's buffer; the lines still hold valid JSON."""
    body = {"messages": SUM, "stream": True, "dlm": {"infill": "日本[[mask:4]]✓é"}}
    with connect(server) as link:
        send(link, body)
        answer = read(link, size=1)
    found = frames(body_of(answer).decode().split("\n"))
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in found)
    local = engine.generate(SUM, infill="日本[[mask:4]]✓é")
    assert text == local.text
    assert text.startswith("日本")
    for block in body_of(answer).split(b"\n\n")[:-1]:
        assert block.startswith((b"data: ", b": "))
        assert b"\n" not in block


@pytest.mark.slow
def test_a_line_without_news_is_kept_alive(tmp_path):
    """A rule that revises the whole row settles nothing before the end."""
    with LiveServer(tmp_path, "--keep-alive", "0.1") as live:
        body = {
            "messages": SUM,
            "stream": True,
            "max_tokens": 600,
            "ignore_eos": True,
            "dlm": {"preset": "revise", "steps": 50},
        }
        with connect(live) as link:
            send(link, body)
            answer = body_of(read(link))
    assert answer.count(b": keep-alive\n\n") >= 3
    assert frames(answer.decode().split("\n"))[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.slow
def test_a_slow_reader_gets_the_canvas_anew(tmp_path, engine):
    """Events that nobody fetches are replaced by one that carries the canvas; text is joined.

    The model has a name of 40,000 letters, so that the kernel's buffers hold few chunks.
    """
    own = {"unmask": "topk", "cache": "delayed_blocks(8)", "blocks": "fixed(1)"}
    fields = {"max_tokens": 400, "ignore_eos": True, "temperature": 0.5, "seed": 4}
    body = {"messages": SUM, "stream": True, "return_token_ids": True, **fields}
    with (
        LiveServer(tmp_path, "--model-id", "x" * 40_000) as live,
        connect(live, small=True) as link,
    ):
        send(link, {**body, "dlm": {**own, "events": True}})
        assert link.recv(4) == b"HTTP"
        until = time.monotonic() + PATIENCE
        while live.get("/load")["running"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        found = frames(body_of(read(link)).decode().split("\n"))
    events = [dlm.Event.from_json(c["dlm"]["event"]) for c in found if "event" in c.get("dlm", {})]
    assert sum(event.type == "open" for event in events) > 1
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in found)
    end = found[-1]["choices"][0]
    forbidden = f"forbid({engine.info.eos_ids!r})"
    local = engine.generate(
        SUM, max_new_tokens=400, guide=forbidden, temperature=0.5, seed=4, **own
    )
    assert tuple(end["token_ids"]) == local.ids
    assert text == local.text
    assert tuple(dlm.replay(events)[0].ids) == local.canvas


def test_text_of_events_is_that_of_the_ids(server, engine):
    with connect(server) as link:
        send(link, {"messages": SUM, "stream": True, "max_tokens": 24, "dlm": {"events": True}})
        found = frames(body_of(read(link)).decode().split("\n"))
    events = [chunk["dlm"]["event"] for chunk in found if "event" in chunk.get("dlm", {})]
    first = events[0]
    assert first["type"] == "open"
    assert first["data"]["prompt"] == len(engine.generate(SUM, max_new_tokens=1).prompt_ids)
    assert len(first["data"]["kinds"]) == len(first["ids"]) == len(first["text"])
    for event in events:
        if event.get("ids"):
            assert event["text"] == [engine.text.decode_inside([token]) for token in event["ids"]]
    for chunk in found:
        (choice,) = chunk["choices"]
        assert choice["index"] == 0
