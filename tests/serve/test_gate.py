"""The gate: request ids, keys, strangers' web pages, bodies too large, logs, metrics."""

import asyncio
import json
import logging
import re

import pytest
from starlette.testclient import TestClient

from dlm.serve import gate, observe
from dlm.serve.logs import JsonLines
from dlm.serve.settings import ServerSettings
from tests.serve.small_server import small_app

KEYS = ("first-key", "second-key")


@pytest.fixture
def client():
    """A client of the small app with some settings; the lifespan runs."""
    opened = []

    def open_client(host="localhost", **settings):
        app = small_app(ServerSettings(**settings))
        opened.append(TestClient(app, f"http://{host}", raise_server_exceptions=False))
        return opened[-1].__enter__()

    yield open_client
    for one in opened:
        one.__exit__(None, None, None)


@pytest.fixture
def lines(caplog):
    """The fields of the access log so far."""
    caplog.set_level(logging.INFO, "dlm.access")

    def read():
        records = [r for r in caplog.records if r.name == "dlm.access"]
        return [json.loads(JsonLines().format(record)) for record in records]

    return read


def error_of(answer):
    """The error of an answer; its form is OpenAI's."""
    (error,) = answer.json().values()
    assert error.keys() == {"message", "type", "param", "code"}
    return error


# request ids


@pytest.mark.parametrize("given", ["abc-123", "x", "!~", "a" * 128])
def test_a_sane_request_id_is_kept(client, given):
    assert client().get("/ready", headers={"X-Request-Id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "caf\xe9", "a\tb"])
def test_another_request_id_is_replaced(client, given):
    answer = client().get("/ready", headers={"X-Request-Id": given.encode("latin-1")})
    assert re.fullmatch("req-[0-9a-f]{32}", answer.headers["x-request-id"])


def test_each_request_has_an_id_of_its_own(client):
    one = client()
    assert len({one.get("/ready").headers["x-request-id"] for _ in range(5)}) == 5


# keys


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic first-key",
        "first-key",
        "Bearer first-key second-key",
        "Bearer first-keyy",
        "Bearer \xe9",
    ],
)
def test_a_wrong_key_is_refused(client, authorization):
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    answer = client(api_keys=KEYS).get("/v1/items/a", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert error_of(answer)["code"] == "invalid_api_key"
    assert error_of(answer)["type"] == "authentication_error"
    assert not any(key in answer.text for key in KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_each_key_opens(client, key):
    one = client(api_keys=KEYS)
    for scheme in ("Bearer", "bearer"):
        assert one.get("/v1/items/a", headers={"Authorization": f"{scheme} {key}"}).is_success


def test_two_keys_in_one_request_are_none(client):
    headers = [("Authorization", f"Bearer {key}") for key in KEYS]
    assert client(api_keys=KEYS).get("/v1/items/a", headers=headers).status_code == 401


def test_probes_and_preflights_need_no_key(client):
    one = client(api_keys=KEYS)
    assert one.get("/ready").status_code == 200
    assert one.options("/v1/items/a").status_code == 405
    assert one.get("/tokenize").status_code == one.get("/tokenizer_info").status_code == 401
    assert one.get("/v1").status_code == one.get("/v1/unknown").status_code == 401
    assert one.get("/v1beta").status_code == 404


def test_without_keys_every_token_passes(client):
    one = client()
    for value in ("Bearer", "Bearer ", "Bearer anything"):
        assert one.get("/v1/items/a", headers={"Authorization": value}).is_success


# web pages of strangers


def asked(settings, host="localhost", origin=None, address="127.0.0.1", method="GET"):
    """The status and the headers of an answer to a connection that came in at an address."""
    app, sent = small_app(ServerSettings(**settings)), []
    headers = [] if host is None else [(b"host", host.encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    scope = {
        "type": "http",
        "method": method,
        "path": "/ready",
        "raw_path": b"/ready",
        "query_string": b"",
        "headers": headers,
        "server": (address, 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
        "root_path": "",
    }

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"])
def test_a_keyless_server_answers_this_machine(host):
    assert asked({}, host)[0] == 200
    assert asked({}, host, origin=f"http://{host}")[0] == 200


def test_a_probe_without_a_host_is_answered():
    """No browser leaves the header out; load balancers do."""
    assert asked({}, None)[0] == 200
    assert asked({}, None, origin="http://evil.example")[0] == 403


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example:8000", None),  # DNS rebinding
        ("evil.example:8000", "http://evil.example:8000"),
        ("localhost.evil.example", None),
        ("127.0.0.1.evil.example:8000", None),
        ("", None),
        ("localhost:8000", "http://evil.example"),  # a form or a fetch of a page
        ("localhost:8000", "http://localhost:3000"),
        ("localhost:8000", "null"),
    ],
)
def test_a_keyless_server_refuses_web_pages_of_strangers(address, host, origin):
    assert asked({}, host, origin, address)[0] == 403


def test_who_is_let_in_by_a_setting_is_let_in():
    stranger = ("evil.example", "http://evil.example")
    assert asked({"api_keys": KEYS}, *stranger)[0] == 200  # /ready needs no key
    assert asked({"insecure": True}, *stranger)[0] == 200
    friend = {"allowed_origins": ["http://localhost:3000"]}
    status, headers = asked(friend, "localhost:8000", "http://localhost:3000")
    assert status == 200
    assert headers[b"access-control-allow-origin"] == b"http://localhost:3000"
    assert asked(friend, "localhost:8000", "http://localhost:3001")[0] == 403


def test_cors_is_off_unless_origins_are_given(client):
    asks = {"Origin": "http://localhost", "Access-Control-Request-Method": "POST"}
    closed = client().options("/v1/echo", headers=asks)
    assert not [name for name in closed.headers if name.startswith("access-control")]
    one = client(allowed_origins=["http://a.example"], api_keys=KEYS)
    answer = one.options("/v1/echo", headers=asks | {"Origin": "http://a.example"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "http://a.example"
    refused = one.get("/v1/items/a", headers={"Origin": "http://a.example"})
    assert refused.status_code == 401  # readable by the page
    assert refused.headers["access-control-allow-origin"] == "http://a.example"
    assert "access-control-allow-origin" not in one.get("/ready", headers={"Origin": "x"}).headers


# bodies


@pytest.mark.parametrize("size", [0, 1, 1024])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_up_to_the_limit_arrives_whole(client, size, chunked):
    body = b"a" * size
    content = iter([body[:7], body[7:]]) if chunked else body
    assert client(max_body_bytes=1024).post("/v1/echo", content=content).json() == {"bytes": size}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_larger_body_is_refused(client, chunked):
    content = (b"a" * 100 for _ in range(11)) if chunked else b"a" * 1025
    answer = client(max_body_bytes=1024).post("/v1/echo", content=content)
    assert answer.status_code == 413
    assert error_of(answer)["code"] == "request_too_large"
    assert answer.headers["connection"] == "close"
    assert "x-request-id" in answer.headers


def test_a_larger_body_is_read_in_bounds_and_not_kept():
    reads = 0

    async def receive():
        nonlocal reads
        reads += 1
        return {"type": "http.request", "body": bytes(2**20), "more_body": True}

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        raise AssertionError("the body is too large")

    sent, limit = [], 2**20
    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    asyncio.run(gate.BodyLimit(app, limit)(scope, receive, send))
    assert sent[0]["status"] == 413
    assert reads == gate.DISCARDED / 2**20 + 1
    scope["headers"] = [(b"content-length", b"9" * 5000), (b"expect", b"100-continue")]
    reads, sent[:] = 0, []
    asyncio.run(gate.BodyLimit(app, limit)(scope, receive, send))
    assert (sent[0]["status"], reads) == (413, 0)


def test_a_client_that_leaves_within_its_body_reaches_no_app():
    async def receive():
        return {"type": "http.disconnect"}

    async def fail(*_):
        raise AssertionError("nobody is there")

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    asyncio.run(gate.BodyLimit(fail, 10)(scope, receive, fail))


# errors, logs, metrics


def test_a_bug_is_a_500_with_the_request_id_alone(client, lines):
    answer = client().get("/v1/bug", headers={"X-Request-Id": "mine"})
    assert answer.status_code == 500
    error = error_of(answer)
    assert "mine" in error["message"]
    assert (error["type"], error["code"]) == ("server_error", "internal")
    assert "secret" not in answer.text
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"] == "mine"
    assert lines()[-1]["status"] == 500


def test_the_access_log_has_facts_and_no_text(client, lines):
    body = b'{"prompt": "a secret"}'
    headers = {"X-Request-Id": "mine", "Authorization": "Bearer a-secret"}
    client().post("/v1/echo?api_key=a-secret", content=body, headers=headers)
    (line,) = lines()
    assert line.pop("seconds") >= 0
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "dlm.access",
        "message": "a request",
        "request_id": "mine",
        "method": "POST",
        "path": "/v1/echo",
        "status": 200,
        "prompt_tokens": 3,
    }


def test_the_texts_are_logged_when_asked_for(client, lines):
    client(log_prompts=True).post("/v1/echo")
    assert lines()[0]["prompts"] == ["a secret prompt"]


def test_a_path_cannot_forge_a_line_of_the_log(client, lines):
    client().get("/v1/items/a%0A%7B%22level%22%3A1%7D" + "b" * 500)
    (line,) = lines()
    assert line["path"].startswith('/v1/items/a\n{"level":1}')
    assert len(line["path"]) == observe.LONGEST_PATH


def test_requests_are_counted_by_route_and_status(client):
    one = client(api_keys=KEYS)
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    for path in ("/v1/items/a", "/v1/items/b", "/v1/nowhere/1", "/elsewhere/2"):
        one.get(path, headers=headers)
    one.get("/v1/items/c")
    one.request("BREW", "/ready")
    told = one.app.state.metrics.render().decode()
    counts = {}
    pattern = r'dlm:http_requests_total\{method="(\w+)",route="(.+)",status="(\d+)"\} (\d+)'
    for method, route, status, count in re.findall(pattern, told):
        counts[method, route, status] = int(count)
    assert counts == {
        ("GET", "/v1/items/{name}", "200"): 2,
        ("GET", "other", "404"): 2,
        ("GET", "other", "401"): 1,
        ("other", "/ready", "405"): 1,
    }


def test_the_lag_of_the_loop_is_measured_while_the_app_lives(client):
    one = client()
    count = r"dlm:event_loop_lag_seconds_count (\d+)"
    for _ in range(10_000):
        one.get("/ready")
        if int(re.search(count, one.app.state.metrics.render().decode())[1]):
            return
    raise AssertionError("nothing was measured")
