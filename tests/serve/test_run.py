"""The process of a server: ready line, drain, second signal, watchdog, wrong addresses."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest

from dlm.errors import InvalidRequest
from dlm.serve.protocol import HEAD, MOST_HEADERS
from dlm.serve.server import listening_socket, url_of
from dlm.serve.settings import ServerSettings
from tests.serve.processes import PATIENCE, ROOT, running

SMALL = "tests.serve.small_server"


def small(**settings):
    """The small app in a process, on a free port; one of the tests starts Python for it."""
    given = {"port": 0, "drain": PATIENCE} | settings
    pairs = (f"{name}={json.dumps(value)}" for name, value in given.items())
    return running(*pairs, module=SMALL, forked=True)


@pytest.fixture
def client():
    with httpx2.Client(timeout=PATIENCE) as one:
        yield one


# the orderly end


def test_it_says_where_it_is_and_stops_with_0(client):
    with running("port=0", module=SMALL) as server:
        assert client.get(f"{server.url}/ready").status_code == 200
        server.signal()
        code, err = server.ended()
    assert code == 0
    assert "closed in order" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_stream_end_and_refuses_new_requests(client, number):
    with small() as server, client.stream("GET", f"{server.url}/v1/slow") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "part 0"
        server.signal(number)
        server.logged("asked to stop")
        with httpx2.Client(timeout=PATIENCE) as other:
            assert other.get(f"{server.url}/ready").status_code == 503
            refused = other.get(f"{server.url}/v1/slow")
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert other.get(f"{server.url}/v1/finish").status_code == 200
        *parts, last = lines
        assert parts == [f"part {number}" for number in range(1, 1 + len(parts))]
        assert last == "the end"
        assert server.ended()[0] == 0


def test_a_stream_is_cut_when_its_time_is_over(client):
    with small(drain=0.2) as server:
        with client.stream("GET", f"{server.url}/v1/slow") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "part 0"
            server.signal()
            with pytest.raises(httpx2.HTTPError):
                list(lines)
        assert server.logged("requests are cut off: their time is over")["running"] == 1
        assert server.ended()[0] == 0


def test_a_second_signal_ends_it_at_once(client):
    with small() as server, client.stream("GET", f"{server.url}/v1/slow") as stream:
        assert next(stream.iter_lines()) == "part 0"
        server.signal()
        server.logged("asked to stop")
        server.signal()
        assert server.ended()[0] == 128 + signal.SIGTERM


def test_idle_connections_are_closed_when_it_drains(client):
    with small() as server, client.stream("GET", f"{server.url}/v1/slow") as stream:
        lines = stream.iter_lines()
        next(lines)
        with server.connect() as idle:
            idle.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in idle.recv(65536)
            server.signal()
            while idle.recv(65536):
                pass  # the rest of the answer, then the end
        assert httpx2.get(f"{server.url}/v1/finish", timeout=PATIENCE).status_code == 200
        assert [*lines][-1] == "the end"
        assert server.ended()[0] == 0


def test_the_death_of_the_engine_ends_it_with_1(client):
    with small() as server:
        client.get(f"{server.url}/v1/die")
        code, err = server.ended()
    assert code == 1
    assert "the engine's thread has died" in err


def test_an_app_that_cannot_start_ends_it_with_1():
    """What `small` waits for never comes; the log has the reason."""
    done = subprocess.run(
        [sys.executable, "-m", SMALL, "port=0", 'model_id="broken"'],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "it cannot start" in done.stderr


# what a client may send


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * (HEAD + 300_000),
        b"GET /" + b"a" * (HEAD + 300_000),
        b"GET / HTTP/1.1\r\n" + b"X-Many: 1\r\n" * (MOST_HEADERS + 10),
        b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\na\r\n0\r\nX-Trailer: " + b"a" * (HEAD + 300_000),
        b"nonsense\r\n\r\n",
    ],
    ids=["header", "path", "headers", "trailer", "nonsense"],
)
def test_headers_without_end_are_refused(sent):
    with small() as server, server.connect() as connection:
        answer = b""
        try:
            connection.sendall(sent)
            while more := connection.recv(65536):
                answer += more
        except ConnectionError:
            pass  # it was closed while we wrote
        if answer:
            assert answer.startswith(b"HTTP/1.1 400 ")
        assert httpx2.get(f"{server.url}/ready", timeout=PATIENCE).status_code == 200


def test_a_body_that_is_too_large_is_answered_over_a_socket(client):
    with small(max_body_bytes=1024) as server:
        whole = client.post(f"{server.url}/v1/echo", content=b"a" * 2_000_000)
        parts = client.post(f"{server.url}/v1/echo", content=(b"a" * 1000 for _ in range(2000)))
        assert [whole.status_code, parts.status_code] == [413, 413]
        assert client.post(f"{server.url}/v1/echo", content=b"a" * 1024).json() == {"bytes": 1024}


# clients that stall


def received(connection):
    """All that comes until the server closes the connection: status line, headers, body."""
    answer = b""
    while more := connection.recv(65536):
        answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    return status, {h.split(": ")[0].lower(): h.split(": ")[1] for h in headers}, body


HALF_HEAD = b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nX-Half: "
HALF_BODY = b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf"
CHUNKS = b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhal"


@pytest.mark.parametrize("sent", [HALF_HEAD, HALF_BODY, CHUNKS], ids=["head", "body", "chunks"])
def test_a_half_sent_request_gets_408(sent):
    with small(stall=0.3) as server, server.connect() as connection:
        connection.sendall(sent)
        status, headers, body = received(connection)
        assert status == "HTTP/1.1 408 Request Timeout"
        assert headers["connection"] == "close"
        error = json.loads(body)["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["type"], error["code"]) == ("invalid_request_error", "request_timeout")
        if sent != HALF_HEAD:
            line = server.logged("a request")
            assert line["request_id"] == headers["x-request-id"]
            assert (line["status"], line["code"]) == (408, "request_timeout")


def test_headers_that_never_end_get_408():
    """However often a byte comes."""
    with small(stall=1) as server, server.connect() as connection:
        connection.sendall(HALF_HEAD)
        connection.settimeout(0.05)
        answer = b""
        while not answer:
            try:
                connection.sendall(b"a")
                answer = connection.recv(65536)
            except TimeoutError:
                pass
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_connection_without_a_request_is_closed():
    with small(stall=0.3) as server, server.connect() as connection:
        assert connection.recv(65536) == b""


def test_a_half_sent_second_request_gets_408():
    with small(stall=1) as server, server.connect() as connection:
        connection.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"{}"):
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        connection.sendall(HALF_HEAD)
        assert received(connection)[0].startswith("HTTP/1.1 408 ")


def test_a_body_that_nobody_reads_is_not_waited_for():
    with small(stall=0.3, api_keys=["key"]) as server, server.connect() as connection:
        connection.sendall(HALF_BODY)
        assert received(connection)[0].startswith("HTTP/1.1 401 ")


def test_a_slow_body_that_goes_on_is_read():
    with small(stall=3) as server, server.connect() as connection:
        connection.sendall(HALF_BODY)
        for _ in range(12):  # longer in all than the limit
            time.sleep(0.3)
            connection.sendall(b"12345678")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_the_limit_does_not_cut_an_answer(client):
    with small(stall=0.2) as server, client.stream("GET", f"{server.url}/v1/slow") as stream:
        lines = stream.iter_lines()
        for number in range(20):  # a second
            assert next(lines) == f"part {number}"
        assert httpx2.get(f"{server.url}/v1/finish", timeout=PATIENCE).status_code == 200
        assert [*lines][-1] == "the end"


# addresses


def test_a_wide_open_address_is_refused_before_anything_is_bound():
    with pytest.raises(InvalidRequest, match="no API key"):
        listening_socket(ServerSettings(host="0.0.0.0", port=0))


def test_an_address_that_cannot_be_had_is_told():
    with listening_socket(ServerSettings(port=0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidRequest, match="is used by another program") as caught:
            listening_socket(ServerSettings(port=port))
        assert caught.value.param == "port"
    for host in ("203.0.113.7", "no.such.host.invalid", "a" * 70):
        with pytest.raises(InvalidRequest) as caught:
            listening_socket(ServerSettings(host=host, port=0, api_keys=("k",)))
        assert caught.value.param == "host"


def test_urls():
    with listening_socket(ServerSettings(port=0)) as one:
        port = one.getsockname()[1]
        assert url_of("127.0.0.1", one) == f"http://127.0.0.1:{port}"
        assert url_of("0.0.0.0", one) == f"http://127.0.0.1:{port}"
        assert url_of("::", one) == f"http://[::1]:{port}"
        assert url_of("my.machine", one) == f"http://my.machine:{port}"


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6():
    try:
        with listening_socket(ServerSettings(host="::1", port=0)) as one:
            assert one.getsockname()[0] == "::1"
    except InvalidRequest:
        pytest.skip("this machine has no IPv6 address")
