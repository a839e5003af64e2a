"""OpenAI's client for asyncio: many requests at once, streams, cancelled tasks, timeouts."""

from __future__ import annotations

import asyncio
import re

import openai
import pytest

from tests.serve.live import PATIENCE

SUM = [{"role": "user", "content": "12+5=?"}]
LONG = {"max_tokens": 900, "extra_body": {"ignore_eos": True, "dlm": {"unmask": "topk"}}}
"""Nine hundred steps: far longer than any test waits."""


def with_client(server, work, **options):
    """The result of `await work(client)`."""

    async def whole():
        fields = {"base_url": server.v1, "api_key": "none", "max_retries": 0, "timeout": PATIENCE}
        async with openai.AsyncOpenAI(**fields | options) as client:
            return await work(client)

    return asyncio.run(whole())


def ask(client, messages=SUM, **fields):
    return client.chat.completions.create(model="tiny", messages=messages, **fields)


def test_sixteen_at_once(server, engine):
    async def work(client):
        jobs = [ask(client, max_tokens=24, temperature=1.0, seed=seed) for seed in range(16)]
        return await asyncio.gather(*jobs)

    found = [answer.choices[0].message.content for answer in with_client(server, work)]
    wanted = [
        engine.generate(SUM, max_new_tokens=24, temperature=1.0, seed=seed).text
        for seed in range(16)
    ]
    assert found == wanted


def test_streams_of_all_kinds(server):
    async def work(client):
        chat = ""
        async for chunk in await ask(client, max_tokens=32, stream=True):
            chat += chunk.choices[0].delta.content or ""
        text = ""
        stream = await client.completions.create(
            model="tiny", prompt="12+5=", max_tokens=16, stream=True
        )
        async for chunk in stream:
            text += chunk.choices[0].text
        async with client.chat.completions.stream(
            model="tiny", messages=SUM, max_tokens=32
        ) as helper:
            final = await helper.get_final_completion()
        async with client.responses.stream(
            model="tiny", input="12+5=?", max_output_tokens=32
        ) as helper:
            response = await helper.get_final_response()
        plain = await ask(client, max_tokens=32)
        (card,) = (await client.models.list()).data
        return chat, text, final, response, plain, card

    chat, text, final, response, plain, card = with_client(server, work)
    assert chat == final.choices[0].message.content == plain.choices[0].message.content
    assert response.output_text == chat
    assert text
    assert card.id == "tiny"


def test_a_cancelled_task_frees_its_row(server):
    async def work(client):
        task = asyncio.create_task(ask(client, **LONG))
        while server.get("/load")["running"] == 0:
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before, counted = disconnects(server), aborted(server)
    with_client(server, work)
    server.until_idle()
    assert disconnects(server) == before + 1
    assert aborted(server) == counted + 1


def test_a_stream_that_is_left_frees_its_row(server):
    async def work(client):
        async with await ask(client, **LONG, stream=True) as stream:
            seen = 0
            async for _ in stream:
                seen += 1
                if seen == 5:
                    return

    before, counted = disconnects(server), aborted(server)
    with_client(server, work)
    server.until_idle()
    assert disconnects(server) == before + 1
    assert aborted(server) == counted + 1


def test_a_timeout_of_the_client_frees_its_row(server):
    async def work(client):
        with pytest.raises(openai.APITimeoutError):
            await ask(client, **LONG)

    before = disconnects(server)
    with_client(server, work, timeout=1.0)
    server.until_idle()
    assert disconnects(server) == before + 1


def test_company_of_those_that_leave_is_unharmed(server, engine):
    async def work(client):
        leaving = [asyncio.create_task(ask(client, **LONG)) for _ in range(4)]
        staying = [
            asyncio.create_task(ask(client, max_tokens=48, seed=seed, temperature=1.0))
            for seed in range(4)
        ]
        await asyncio.sleep(0.3)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        return await asyncio.gather(*staying)

    answers = with_client(server, work)
    for seed, answer in enumerate(answers):
        local = engine.generate(SUM, max_new_tokens=48, seed=seed, temperature=1.0)
        assert answer.choices[0].message.content == local.text


def aborted(server):
    """The answers of clients that have left, as the metrics count them."""
    line = r'^dlm:request_success_total\{finished_reason="abort"\} (\S+)$'
    found = re.search(line, server.text("/metrics"), re.M)
    return float(found[1]) if found else 0


def disconnects(server):
    """The clients that have left, as the metrics count them."""
    lines = server.text("/metrics").splitlines()
    (found,) = [line for line in lines if line.startswith("dlm:client_disconnects_total")]
    return float(found.split()[-1])
