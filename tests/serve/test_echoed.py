"""`echo` beside `logprobs`: prompts with the log-probabilities of their tokens."""

import asyncio
import json
import re

import pytest
from starlette.testclient import TestClient

from dlm.engine.scoring import ScoringJob
from dlm.serve import ServerSettings, create_app
from tests.engine.test_scoring import engine_of, ids_of

PROMPT = "12+5=17\n\\boxed{17}"
OTHER = "Say it: "


@pytest.fixture(scope="module")
def local(engine):
    """The app in this process."""
    with TestClient(create_app(engine)) as one:
        yield one


def posted(app, prompt, status=200, **fields):
    body = {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 0, **fields}
    answer = app.post("/v1/completions", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_prompt_alone(local, engine):
    found = posted(local, PROMPT, logprobs=3)
    ids = engine.text.encode_prompt(PROMPT, chat=False)
    own = engine.score([], ids, top_logprobs=3)
    (choice,) = found["choices"]
    assert choice["text"] == PROMPT
    assert choice["finish_reason"] == "length"
    logs = choice["logprobs"]
    assert "".join(logs["tokens"]) == PROMPT
    assert logs["text_offset"] == [len("".join(logs["tokens"][:n])) for n in range(len(ids))]
    assert logs["token_logprobs"] == pytest.approx(list(own.logprobs), rel=1e-6)
    assert logs["steps"] == [0] * len(ids)
    name = local.app.state.service.token_text
    for token, logprob, best, top in zip(
        ids, own.logprobs, own.top, logs["top_logprobs"], strict=True
    ):
        wanted = {name(other): value for other, value in best} | {name(token): logprob}
        assert top == pytest.approx(wanted, rel=1e-6)
    assert found["usage"]["prompt_tokens"] == len(ids)
    assert found["usage"]["completion_tokens"] == 0
    assert found["dlm"]["prompt_nfe"] == own.nfe == len(ids)
    assert found["dlm"]["nfe"] == 0


@pytest.mark.parametrize("n", [1, 2])
def test_a_prompt_and_its_answer(local, engine, n):
    fields = {"max_tokens": 16, "n": n, "seed": 3, "temperature": 0.5}
    plain = posted(local, [PROMPT, OTHER], echo=False, **fields)
    found = posted(local, [PROMPT, OTHER], **fields)
    scores = [posted(local, text)["choices"][0]["logprobs"] for text in (PROMPT, OTHER)]
    for number, (one, other) in enumerate(zip(found["choices"], plain["choices"], strict=True)):
        text, logs = (PROMPT, OTHER)[number // n], one["logprobs"]
        before = scores[number // n]
        count, made = len(before["tokens"]), len(other["logprobs"]["tokens"])
        assert one["text"] == text + other["text"]
        assert one["finish_reason"] == other["finish_reason"]
        assert logs["token_logprobs"][:count] == pytest.approx(before["token_logprobs"], rel=1e-6)
        for name in ("tokens", "token_logprobs", "top_logprobs", "steps"):
            assert logs[name][count : count + made] == (other["logprobs"][name] or [])
        offsets = [len(text) + at for at in other["logprobs"]["text_offset"]]
        assert logs["text_offset"][count : count + made] == offsets
        assert len({len(column) for column in logs.values()}) == 1
        rest = logs["token_logprobs"][count + made :]
        assert rest == [None] * (one["finish_reason"] == "stop")
    assert found["usage"] == plain["usage"]
    assert found["dlm"]["nfe"] == plain["dlm"]["nfe"]
    assert found["dlm"]["prompt_nfe"] > 0


def test_one_token_is_one_entry_even_where_it_ends_the_answer(local, engine):
    """Clients drop the last entry as the generated one."""
    for prompt in (PROMPT, OTHER, "12+5=", "1"):
        logs = posted(local, prompt, max_tokens=1)["choices"][0]["logprobs"]
        count = len(engine.text.encode_prompt(prompt, chat=False))
        assert len(logs["token_logprobs"]) == count + 1
        assert None not in logs["token_logprobs"][:-1]


def test_texts_and_ids_are_one(local, engine):
    ids = [list(engine.text.encode_prompt(text, chat=False)) for text in (PROMPT, OTHER)]
    one, other = posted(local, [PROMPT, OTHER]), posted(local, ids)
    assert one["choices"] == other["choices"]
    assert [choice["index"] for choice in one["choices"]] == [0, 1]


def test_without_log_probabilities_a_prompt_comes_back_as_it_is(local):
    found = posted(local, [PROMPT, OTHER], logprobs=None)
    assert [choice["text"] for choice in found["choices"]] == [PROMPT, OTHER]
    assert [choice["logprobs"] for choice in found["choices"]] == [None, None]
    assert "prompt_nfe" not in found["dlm"]
    logs = posted(local, PROMPT, logprobs=0)["choices"][0]["logprobs"]
    assert logs["top_logprobs"] is None
    assert len(logs["token_logprobs"]) == len(logs["tokens"])


@pytest.mark.parametrize("family", ["full", "shifted", "block_causal", "shifted_blocks"])
def test_the_first_token_of_families_with_a_shift_has_none(family):
    engine, ids = engine_of(family), ids_of(1, 21)
    first = int(engine.info.shift)
    own = engine.score(ids[:first], ids[first:])
    with TestClient(create_app(engine)) as app:
        logs = posted(app, ids, max_tokens=1)["choices"][0]["logprobs"]
        assert logs["token_logprobs"][:first] == logs["top_logprobs"][:first] == [None] * first
        found = logs["token_logprobs"][first : len(ids)]
        assert found == pytest.approx(list(own.logprobs), rel=1e-5)
        one = posted(app, ids[:1])["choices"][0]["logprobs"]["token_logprobs"]
        assert (one == [None]) == engine.info.shift
    assert engine.kv.pages.in_use == 0


def test_refusals(local):
    assert posted(local, PROMPT, 400, echo=False)["error"]["param"] == "max_tokens"
    assert posted(local, [[5], [4, 5]], 400)["error"]["param"] == "prompt[1]"
    error = posted(local, [5] * 1025, 400)["error"]
    assert (error["param"], error["code"]) == ("prompt", "context_length_exceeded")
    for field in ("stream", "diffusing"):
        error = posted(local, PROMPT, 400, **{field: True})["error"]
        assert (error["param"], error["code"]) == (field, "unsupported_parameter")


def test_prompts_take_places(engine):
    """One each beside those of the answers; a full queue is told, an impossible body refused."""
    app = create_app(engine, ServerSettings(max_rows=2, max_waiting=2))
    with TestClient(app) as one:
        places = app.state.service.places
        assert posted(one, [PROMPT] * 5, 400)["error"]["param"] == "prompt"
        assert posted(one, [PROMPT] * 2, 400, max_tokens=1, n=2)["error"]["param"] == "prompt"
        posted(one, [PROMPT] * 4)
        with places.take(3, 0):
            assert posted(one, [PROMPT] * 2, 429)["error"]["code"] == "queue_full"
            assert posted(one, PROMPT, 429, max_tokens=1)["error"]["code"] == "queue_full"
            posted(one, PROMPT)
        assert places.taken == 0


def test_a_client_that_leaves_frees_everything(engine, monkeypatch):
    """Within a step: the app is called as a server does, and told that the client has gone."""
    app, sent, steps = create_app(engine), [], []
    gone, compute = asyncio.Event(), ScoringJob.step
    monkeypatch.setattr("dlm.engine.scoring.job.MOST_POSITIONS", 1)

    async def main():
        loop = asyncio.get_running_loop()

        def stepped(job):
            steps.append(1)
            more = compute(job)
            if len(steps) == 3:
                loop.call_soon_threadsafe(gone.set)
            return more

        monkeypatch.setattr(ScoringJob, "step", stepped)
        data = {"prompt": [11] * 500, "echo": True, "logprobs": 1, "max_tokens": 0}
        messages = [{"type": "http.request", "body": json.dumps(data).encode()}]

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "http_version": "1.1",
            "asgi": {"version": "3.0"},
            "method": "POST",
            "scheme": "http",
            "path": "/v1/completions",
            "raw_path": b"/v1/completions",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)
            assert app.state.service.places.taken == 0

    asyncio.run(main())
    assert sent[0]["status"] == 499
    assert len(steps) < 50
    assert engine.kv.pages.in_use == 0


def test_forwards_are_measured(local):
    """Those of scores, and all with those of the answer."""

    def measured():
        told = local.get("/metrics").text
        names = (r'forward_passes_total\{kind="score"\}', "nfe_total")
        found = (re.search(rf"^dlm:{name} (\S+)$", told, re.M) for name in names)
        return [float(one[1]) if one else 0 for one in found]

    before = measured()
    costs = posted(local, PROMPT, max_tokens=4)["dlm"]
    grown = [b - a for a, b in zip(before, measured(), strict=True)]
    assert grown == [costs["prompt_nfe"], costs["prompt_nfe"] + costs["nfe"]]
    assert costs["prompt_nfe"] > 0


def test_openai_s_client_reads_it(client, engine):
    found = client.completions.create(
        model="tiny", prompt=PROMPT, echo=True, logprobs=2, max_tokens=1
    )
    ids = engine.text.encode_prompt(PROMPT, chat=False)
    logs = found.choices[0].logprobs
    own = engine.score([], ids)
    assert logs.token_logprobs[: len(ids)] == pytest.approx(list(own.logprobs), abs=1e-4)
    assert found.dlm["prompt_nfe"] == len(ids)
