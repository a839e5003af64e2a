"""The tools that load a server: what they ask, how they read, and what they make of figures."""

import asyncio
import json
from contextlib import suppress
from itertools import islice

import pytest

import dlm
from dlm.evals.load.clients import ask_once, figures_of, run_clients, shares
from dlm.evals.load.connection import Broken, Connection
from dlm.evals.load.measure import memory_figures
from dlm.evals.load.mix import LEAVING, STRATEGIES, asks, plain_asks
from dlm.evals.load.process import quantile


def test_the_mix_is_drawn_from_its_seed():
    first, again, other = (list(islice(asks(seed), 400)) for seed in (3, 3, 4))
    assert first == again != other
    assert {ask.fault for ask in first} == {"none", "leaves", "slow"}
    leaving = sum(ask.fault == "leaves" for ask in first) / len(first)
    assert leaving == pytest.approx(LEAVING, abs=0.05)
    assert {json.dumps(ask.options) for ask in first} == {json.dumps(o) for o, _ in STRATEGIES}
    assert {ask.fault for ask in plain_asks(3, 400)} == {"none"}


def test_a_request_is_the_same_over_http_and_in_the_engine():
    from dlm.serve.options import asked_of
    from dlm.serve.schemas import ChatRequest, CompletionRequest

    engine = dlm.load("tiny", device="cpu")
    for ask in islice(asks(2), 40):
        schema = ChatRequest if ask.chat else CompletionRequest
        body = schema.model_validate_json(ask.body())
        options = dict(asked_of(body, engine.info, {}).options) | {
            "max_new_tokens": body.max_tokens
        }
        served = engine.prepare([5], dlm.GenerationConfig.from_options(options))
        ours = ask.submit(engine)
        assert [state.bound.config for state in ours.states] == [served.states[0].bound.config] * (
            body.n
        )
    engine.scheduler.end_all()


class Scripted:
    """A server of one answer, sent in pieces with pauses; it counts connections."""

    def __init__(self, *pieces):
        self.pieces, self.connections = pieces, 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        self.address = self.server.sockets[0].getsockname()
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def answer(self, reader, writer):
        self.connections += 1
        with suppress(asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            await self.go_on(reader, writer)

    async def go_on(self, reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            size = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(size)
            for piece in self.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)
            if b"Connection: close" in self.pieces[0]:
                return writer.close()


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(text, reason=None):
    choice = {"index": 0, "text": text, "delta": {"content": text}, "finish_reason": reason}
    frame = {"choices": [choice], "usage": {"completion_tokens": 7}, "dlm": {"nfe": 3}}
    return b"data: " + json.dumps(frame).encode() + b"\n\n"


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM = chunk(event("ab")) + chunk(b": keep-alive\n\n" + event("c", "stop") + b"data: [DONE]\n\n")


@pytest.mark.parametrize("cut", [1, 7, 64, 10_000])
def test_a_stream_is_read_however_it_is_cut(cut):
    whole = HEAD + STREAM + b"0\r\n\r\n"
    asked = [ask for ask in plain_asks(0, 60) if ask.limits["n"] == 1][:3]

    async def read():
        async with Scripted(*(whole[at : at + cut] for at in range(0, len(whole), cut))) as server:
            return server, await run_clients(server.address[:2], iter(asked), 1)

    server, outcomes = asyncio.run(read())
    assert [(one.texts, one.tokens, one.nfe, one.error) for one in outcomes] == [
        (["abc"], 7, 6, "")
    ] * 3
    assert server.connections == 1
    assert all(0 < one.first <= one.last for one in outcomes)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (HEAD + chunk(event("ab", "stop")) + b"0\r\n\r\n", "without an end"),
        (HEAD + chunk(event("ab")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n", "0 choices"),
        (HEAD + chunk(b'data: {"error": {"message": "no"}}\n\n'), "in the stream"),
        (b"HTTP/1.1 429 No\r\nContent-Length: 4\r\n\r\nfull", "429: b'full'"),
    ],
)
def test_what_is_wrong_is_an_error(answer, error):
    ask = next(ask for ask in plain_asks(0, 60) if ask.limits["n"] == 1)

    async def read():
        async with Scripted(answer) as server:
            return await ask_once(Connection(*server.address[:2]), ask)

    outcome = asyncio.run(read())
    assert error in outcome.error
    assert figures_of([outcome], 1.0).answered == 0


def test_a_connection_that_the_server_has_closed_is_opened_anew():
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

    async def read():
        async with Scripted(answer) as server:
            connection = Connection(*server.address[:2])
            for _ in range(2):
                assert await connection.ask("GET", "/") == 200
                assert await connection.body() == b"ok"
            server.pieces = (b"HTTP/1.1 200 OK\r\n",)
            task = asyncio.create_task(connection.ask("GET", "/"))
            await asyncio.sleep(0.05)
            connection.close()
            task.cancel()
            return server.connections

    assert asyncio.run(read()) == 3


def test_a_server_that_is_not_there_is_an_error():
    with pytest.raises((Broken, OSError)):
        asyncio.run(Connection("127.0.0.1", 9).ask("GET", "/"))


def test_quantiles_of_a_histogram_lie_within_its_buckets():
    bounds = ("0.01", "0.1", "+Inf")
    before = {("lag_bucket", bound): 10.0 for bound in bounds}
    after = {
        ("lag_bucket", bound): 10.0 + n for bound, n in zip(bounds, (50, 90, 100), strict=True)
    }
    found = [quantile(before, after, "lag", share) for share in (0.25, 0.5, 0.7, 0.99)]
    assert found == pytest.approx([0.005, 0.01, 0.055, 0.1])
    assert quantile(after, after, "lag", 0.5) == 0


def test_memory_is_judged_after_its_warm_part():
    growing = [(float(at), 100.0 if at < 20 else 150.0 + 0.1 * at) for at in range(100)]
    found = memory_figures(growing)
    assert found["growth_a_minute"] == pytest.approx(6.0)
    assert (found["first"], found["warm"], found["last"]) == pytest.approx((100.0, 152.0, 159.9))
    assert shares([1.0] * 99 + [2.0])[0] == 1.0
