"""Answers over HTTP are those of the engine, whatever runs beside; events replay to them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import Counter

import httpx2
import pytest
import torch

import dlm
from tests.serve.live import PATIENCE, frames
from tests.serve.requests import Asked, random_requests

AT_ONCE = 32
NEAR = 1e-4
"""Logits closer than this may change places in a batch of another shape."""
TRIES = 8


async def collect(server, requests):
    """The choices of each request, as `choices_of` tells them."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(client, asked):
        async with gate:
            answer = await client.post(server.url + asked.path, json=asked.body)
            assert answer.status_code == 200, (asked, answer.text)
            if asked.mode == "whole":
                return answer.json()["choices"]
            return streamed(asked, frames(answer.text.splitlines()))

    limits = httpx2.Limits(max_connections=AT_ONCE)
    async with httpx2.AsyncClient(timeout=PATIENCE, limits=limits) as client:
        return await asyncio.gather(*(one(client, asked) for asked in requests))


def streamed(asked, chunks):
    """The choices of a stream in the form of a whole answer; deltas and events must give them."""
    texts, ends, events = Counter(), {}, []
    texts = dict.fromkeys(range(asked.body.get("n", 1)), "")
    for chunk in chunks:
        if event := chunk.get("dlm", {}).get("event"):
            events.append(dlm.Event.from_json(event))
        for choice in chunk["choices"]:
            delta = choice["delta"].get("content") if "delta" in choice else choice["text"]
            number = choice["index"]
            if asked.mode == "diffusing" and delta is not None and "diffusion_meta" in chunk:
                texts[number] = delta
            elif asked.mode != "diffusing":
                texts[number] += delta or ""
            if choice["finish_reason"]:
                ends[number] = choice
    found = []
    for number, end in sorted(ends.items()):
        found.append({**end, "text": texts[number]})
    if asked.mode == "events":
        canvases = dlm.replay(events)
        for number, end in enumerate(found):
            ids, whole = end["token_ids"], canvases[number].ids
            start = len(end["prompt_token_ids"])
            assert whole[start : start + len(ids)] == ids
            end["canvas"] = tuple(whole)
    return found


def text_of(choice):
    return choice["text"] if "text" in choice else choice["message"]["content"]


def differs(choices, local):
    """The first difference between the choices of an answer and those of the engine."""
    wanted = local.choices or (local,)
    assert len(choices) == len(wanted)
    for choice, own in zip(choices, wanted, strict=True):
        if tuple(choice["token_ids"]) != own.ids:
            return f"ids {choice['token_ids']} for {own.ids}"
        if text_of(choice) != own.text:
            return f"text {text_of(choice)!r} for {own.text!r}"
        if "canvas" in choice and choice["canvas"] != own.canvas:
            return "canvas"
        reason = "stop" if own.finish_reason == "stop" else "length"
        if choice["finish_reason"] != reason:
            return f"reason {choice['finish_reason']} for {own.finish_reason}"
    return None


def shaken(seed):
    """The model with logits that are off by less than `NEAR`."""
    engine = dlm.load(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    head = engine.model.head
    weight = next(head.parameters()) if isinstance(head, torch.nn.Module) else None
    assert weight is not None
    with torch.no_grad():
        noise = torch.randn(weight.shape, generator=generator)
        weight += noise * weight.std() * NEAR / 10
    return engine


def is_near_tie(asked, local):
    """Tiny noise on the logits changes the answer, too."""
    for seed in range(TRIES):
        other = shaken(seed).generate(asked.prompt, **asked.options)
        pairs = zip(other.choices or (other,), local.choices or (local,), strict=True)
        if any(one.ids != two.ids for one, two in pairs):
            return True
    return False


def check(server, engine, count, seed):
    """All answers equal the local ones but for near-ties, which are counted."""
    requests = random_requests(engine, count, seed)
    answers = asyncio.run(collect(server, requests))
    near = []
    for asked, choices in zip(requests, answers, strict=True):
        local = engine.generate(asked.prompt, **asked.options)
        if difference := differs(choices, local):
            told = json.dumps(dataclasses.asdict(asked), default=str)
            assert is_near_tie(asked, local), f"{told}: {difference}"
            near.append(difference)
    print(f"{count} requests, {len(near)} part at a near-tie")
    assert len(near) <= 1 + count // 50, near
    return requests


@pytest.mark.slow
def test_mixed_strategies_thirty_two_at_a_time(server, engine):
    requests = check(server, engine, 150, seed=1)
    used = Counter(name for asked in requests for name in asked.body["dlm"])
    assert {"preset", "unmask", "blocks", "cache", "edit", "guide", "stop", "infill"} <= set(used)
    assert {asked.mode for asked in requests} == {"whole", "stream", "events", "diffusing"}


@pytest.mark.parametrize("mode", ["stream", "events", "diffusing"])
def test_answers_that_end_in_the_middle_of_a_character(server, engine, mode):
    """No delta ends in a broken character, wherever the text is cut."""
    ids = list(engine.text.encode("日本 ✓"))
    body = {"messages": [{"role": "user", "content": "12+5=?"}], "return_token_ids": True}
    for cut in range(1, len(ids) + 1):
        own = {"infill": [*ids[:cut], None, None]}
        asked = Asked(
            "/v1/chat/completions",
            {
                **body,
                "stream": True,
                "seed": 0,
                "diffusing": mode == "diffusing",
                "dlm": {**own, "events": True} if mode == "events" else own,
            },
            body["messages"],
            {**own, "seed": 0},
            mode,
        )
        (choices,) = asyncio.run(collect(server, [asked]))
        assert differs(choices, engine.generate(asked.prompt, **asked.options)) is None
