"""What no client should send is answered in OpenAI's shape, at little cost, and leaves nothing."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.serve.hostile import CHAT, MIB, POSTS, SUM, cases
from tests.serve.live import PATIENCE

ROOT = re.escape(str(Path(__file__).parents[2]))
LEAKS = re.compile(rf'Traceback|File "|\.py\b|{ROOT}/|/usr/|site-packages|0x[0-9a-f]{{6}}')
QUICK = 0.5
"""Seconds of CPU for a request of at most a MiB: five times what an idle machine takes at most."""
GROWTH = 48 * MIB
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
)


def check_error(case, answer):
    """The shape of an error; nothing of the server's inside, little of what was sent."""
    told = answer.json()
    assert set(told) == {"error"}, case
    error = told["error"]
    assert set(error) == {"message", "type", "param", "code"}, case
    assert isinstance(error["message"], str), case
    assert error["message"], case
    assert error["type"] in ("invalid_request_error", "rate_limit_error"), case
    assert error["param"] is None or isinstance(error["param"], str), case
    assert isinstance(error["code"], str), case
    assert not LEAKS.search(error["message"]), error
    assert len(answer.content) < 3000, f"{case}: {len(answer.content)} bytes"


def shown(case):
    path, body, allowed = case
    return path, body[:120], len(body), allowed


def ask(server, client, case):
    """The response to one case, which must be one of those allowed, and its cost."""
    path, body, allowed = case
    before = server.cpu()
    answer = client.post(path, content=body)
    cost = server.cpu() - before
    assert answer.status_code in allowed, (shown(case), answer.text[:300])
    if answer.status_code != 200:
        check_error(shown(case), answer)
    return answer, cost


@pytest.fixture
def web(server):
    head = {"Content-Type": "application/json"}
    with httpx2.Client(base_url=server.url, headers=head, timeout=PATIENCE) as client:
        yield client


@pytest.mark.slow
def test_two_thousand_of_them(server, web):
    """Each is answered at bounded cost; after a first round memory no longer grows."""
    every, slow = cases(), []
    for round_number in range(2):
        for case in every:
            answer, cost = ask(server, web, case)
            if len(case[1]) <= MIB + 1000 and answer.status_code != 200 and cost > QUICK:
                _, cost = ask(server, web, case)  # another time, alone
                if cost > QUICK:
                    slow.append((*shown(case), round(cost, 2)))
            assert cost < 2.0, (shown(case), cost)
        if round_number == 0:
            held = server.memory()
    assert not slow
    assert len(every) * 2 >= 2000
    assert server.memory() - held < GROWTH
    assert web.post(CHAT, json={"messages": SUM, "max_tokens": 8}).status_code == 200


def test_a_sample_of_them(server, web):
    for case in cases()[::17]:
        ask(server, web, case)


FORMS = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "")


@pytest.mark.parametrize("path", POSTS)
def test_other_media_types_are_415(server, path):
    body = json.dumps({"messages": SUM, "prompt": "a", "input": "a", "tokens": []}).encode()
    for kind in (*FORMS, "application/jsonp", "json", "x" * 1000):
        answer = httpx2.post(
            server.url + path, content=body, headers={"Content-Type": kind}, timeout=PATIENCE
        )
        assert answer.status_code == 415, kind
        check_error((path, kind), answer)


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json"]
)
def test_other_spellings_of_json_are_taken(server, kind):
    body = json.dumps({"messages": SUM, "max_tokens": 4}).encode()
    head = {"Content-Type": kind}
    answer = httpx2.post(server.url + CHAT, content=body, headers=head, timeout=PATIENCE)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1/embeddings",
        "/v1/chat",
        "/v1/chat/completions/",
        "/v1/chat/completions/x",
        "/v1//chat/completions",
        "/V1/chat/completions",
        "/v2/chat/completions",
        "/api/generate",
        "/nothing",
        "/page/../../../etc/passwd",
        "/page/%2e%2e/%2e%2e/etc/passwd",
        "/page/..%2f..%2fsecret",
        "/page/secret",
        "/page/%00",
        "/.env",
        "/v1/models/%2e%2e/secret",
        "/v1/models/" + "a" * 20_000,
        "/v1/models/%00",
        "/v1/models/%ff%fe",
        "/v1/models/tiny%0d%0aX-Evil:%20yes",
        "/" + "x" * 20_000,
        "/%ed%a0%80",
    ],
)
def test_unknown_routes_are_404(server, path):
    for method in ("GET", "POST", "DELETE"):
        answer = httpx2.request(
            method,
            server.url + path,
            headers={"Content-Type": "application/json"},
            content=b"{}" if method == "POST" else None,
            timeout=PATIENCE,
        )
        assert answer.status_code in ((404,) if method == "GET" else (404, 405)), path[:60]
        check_error(path[:60], answer)
        assert "x-evil" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_405(server, method):
    for path in POSTS:
        answer = httpx2.request(method, server.url + path, timeout=PATIENCE)
        assert answer.status_code == 405, (method, path)
        check_error((method, path), answer)
        assert "POST" in answer.headers["allow"]
    for path in ("/v1/models", "/health", "/load", "/metrics", "/v1/dlm/strategies"):
        if method != "GET":
            assert httpx2.request(method, server.url + path, timeout=PATIENCE).status_code == 405


def link(server):
    parts = urlsplit(server.url)
    found = socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE)
    found.settimeout(PATIENCE)
    return found


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


def test_a_chunked_body_over_the_limit(server):
    """Its size is not told before; the server stops reading at the limit."""
    with link(server) as one:
        one.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        try:
            for _ in range(80):  # 5 MiB
                one.sendall(piece)
            one.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered before all was sent
        assert status_of(one.recv(65536)) == 413


def test_a_length_over_the_limit_is_answered_before_the_body(server):
    """To a client that asks before it sends, as curl does."""
    with link(server) as one:
        one.sendall(HEAD + b"Content-Length: 9999999999\r\nExpect: 100-continue\r\n\r\n")
        assert status_of(one.recv(65536)) == 413


@pytest.mark.parametrize(
    "lines",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"BREW /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
        b"Content-Length: 6\r\n\r\nabcdef",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 5000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 300,
    ],
)
def test_what_is_no_http_is_400(server, lines):
    with link(server) as one:
        try:
            one.sendall(lines)
            answer = one.recv(65536)
        except ConnectionResetError:
            answer = b""
        assert not answer or status_of(answer) in (400, 413, 431)
        assert not LEAKS.search(answer.decode("latin-1"))


def test_a_body_that_ends_early_leaves_nothing(server):
    for _ in range(20):
        with link(server) as one:
            one.sendall(HEAD + b'Content-Length: 500\r\n\r\n{"messages": [')
    assert server.get("/load")["running"] == 0


def test_requests_that_never_end_hold_up_nobody(server, web):
    """Two hundred half requests are open while others are served."""
    links = [link(server) for _ in range(200)]
    try:
        for number, one in enumerate(links):
            one.sendall(HEAD + (b"Content-Length: 100\r\n\r\n{" if number % 2 else b"X-Slow: "))
        before = server.cpu()
        answer = web.post(CHAT, json={"messages": SUM, "max_tokens": 8})
        assert answer.status_code == 200
        assert server.get("/load")["running"] == 0
        assert server.cpu() - before < 5
    finally:
        for one in links:
            one.close()


def test_an_error_shows_little_of_what_was_sent(server, web):
    """Of a body of megabytes, a few hundred characters at most come back."""
    secret = "s3cr3t" * (MIB // 3)
    for body in (
        {"messages": [{"role": secret, "content": "a"}]},
        {"messages": [{"role": "user", "content": [{"type": secret}]}]},
        {"messages": SUM, "model": secret[:200]},
        {"messages": SUM, "temperature": secret},
        {"messages": SUM, "reasoning_effort": secret},
        {"messages": SUM, "dlm": {secret[:100_000]: 1}},
        {"messages": SUM, "dlm": {"unmask": secret}},
        {"messages": SUM, "dlm": {"infill": [secret]}},
        {"messages": [{"role": "x"}] * 1000},
    ):
        answer = web.post(CHAT, json=body)
        assert answer.status_code in (400, 404)
        assert len(answer.content) < 1500
