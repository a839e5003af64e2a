"""`/v1/decisions` and `/v1/systemone`: wire forms, refusals, and OpenAI's own client."""

import asyncio
import json
import logging
import re
from pathlib import Path

import openai
import pytest
from starlette.testclient import TestClient

import dlm
from dlm.serve import ServerSettings, create_app
from dlm.serve.logs import JsonLines
from tests.serve.live import PATIENCE

ROOT = Path(__file__).parents[2]
JUDGED = "Compute 3+4.\nAnswer: 3+4=7"
FORM = {
    "user": "{input}\n{questions}",
    "question": "{instructions}",
    "answer": "[[mask:7]]=7? {hole}",
}
QUESTIONS = [
    {"type": "predicate", "name": "right", "instructions": "Is it correct?"},
    {
        "type": "choice",
        "name": "kind",
        "instructions": [{"type": "input_text", "text": "Which is it?"}],
        "choices": [
            {"value": "true", "description": "an addition"},
            {"value": True},
            {"value": "product"},
        ],
    },
    {
        "type": "score",
        "instructions": "How sure?",
        "levels": [{"label": "low"}, {"label": "high", "description": "certain"}],
    },
]
ASKED = [
    dlm.Predicate("right", "Is it correct?"),
    dlm.Choice("kind", "Which is it?", [dlm.Option("true", "an addition"), True, "product"]),
    dlm.Score(None, "How sure?", ["low", dlm.Level("high", "certain")]),
]


@pytest.fixture(scope="module")
def local(engine):
    """The app in this process."""
    with TestClient(create_app(engine)) as one:
        yield one


def forwards(local, kind):
    """The forwards of a kind, all forwards, and all positions, as the metrics tell them."""
    told = local.get("/metrics").text
    names = (rf'forward_passes_total\{{kind="{kind}"\}}', "nfe_total", "token_forwards_total")
    found = (re.search(rf"^dlm:{name} (\S+)$", told, re.M) for name in names)
    return [float(one[1]) if one else 0 for one in found]


def body(**changes):
    given = {"model": "tiny", "input": JUDGED, "questions": QUESTIONS} | changes
    return {name: value for name, value in given.items() if value is not None}


def answered(response):
    assert response.status_code == 200, response.text
    return response.json()


def refused(response, param, status=400):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["param"] == param, error
    assert error["type"] == "invalid_request_error"
    return error["message"]


# /v1/decisions


def test_answers_are_those_of_the_engine_in_openais_form(local, engine):
    found = answered(local.post("/v1/decisions", json=body()))
    expected = engine.decide(JUDGED, ASKED)
    assert found["answers"] == [answer.to_json() for answer in expected]
    right, kind, sure = found["answers"]
    assert set(right) == {"name", "type", "probability", "x_label_mass"}
    assert [one["value"] for one in kind["probabilities"]] == ["true", True, "product"]
    assert sure["name"] is None
    assert [(one["value"], one["label"]) for one in sure["probabilities"]] == [
        (0, "low"),
        (1, "high"),
    ]
    costs = expected.costs
    assert found["model"] == "tiny"
    assert found["usage"] == {
        "input_tokens": costs.input_tokens,
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": costs.input_tokens,
    }
    assert found["dlm"]["nfe"] == costs.nfe
    assert found["dlm"]["token_forwards"] == costs.token_forwards


@pytest.mark.parametrize(
    "options",
    [
        {"joint": True, "template": {"yes": "1", "no": "2"}},
        {"rotations": 3},
        {"temperature": 2.5},
        {"scoring": "pseudo"},
        {"template": FORM},
    ],
)
def test_options_of_the_engine(local, engine, options):
    found = answered(local.post("/v1/decisions", json=body(dlm=options)))
    expected = engine.decide(JUDGED, ASKED, **options)
    assert found["answers"] == [answer.to_json() for answer in expected]


def test_unknown_fields_and_bookkeeping_are_ignored(local):
    more = {
        "prompt_cache_key": "k",
        "prompt_cache_options": {"mode": "implicit"},
        "safety_identifier": "s",
        "a_new_field": 3,
    }
    assert answered(local.post("/v1/decisions", json=body(**more)))["answers"]


def test_messages_calls_and_json_are_shown_as_a_transcript(local, engine):
    items = [
        {"role": "system", "content": "Be brief."},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "The weather?"},
                {"type": "input_json", "data": {"place": "Kiel"}},
            ],
        },
        {"type": "function_call", "name": "weather", "call_id": "c1", "arguments": '{"at": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "custom_tool_call", "name": "look", "call_id": "c2", "input": "up"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "clouds"}],
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "It rains."}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No more."}]},
    ]
    told = (
        'system: Be brief.\n\nuser: The weather?\n{"place": "Kiel"}\n\n'
        'assistant called weather: {"at": 1}\n\nweather returned: rain\n\n'
        "assistant called look: up\n\nlook returned: clouds\n\n"
        "assistant: It rains.\n\nassistant: No more."
    )
    found = answered(local.post("/v1/decisions", json=body(input=items)))
    expected = engine.decide(told, ASKED)
    assert found["answers"] == [answer.to_json() for answer in expected]


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}


@pytest.mark.parametrize(
    ("param", "changes"),
    [
        ("input", {"input": None}),
        ("input", {"input": []}),
        ("questions", {"questions": None}),
        ("questions", {"questions": []}),
        ("questions", {"questions": QUESTIONS[:1] * 401}),
        ("questions[1].name", {"questions": QUESTIONS[:1] * 2}),
        ("questions[0].type", {"questions": [QUESTIONS[0] | {"type": "noul"}]}),
        ("questions[1].choices", {"questions": [QUESTIONS[0], QUESTIONS[1] | {"choices": None}]}),
        ("questions[0].choices", {"questions": [QUESTIONS[1] | {"choices": [{"value": "x"}]}]}),
        (
            "questions[0].choices[1].value",
            {"questions": [QUESTIONS[1] | {"choices": [{"value": "x"}] * 2}]},
        ),
        (
            "questions[0].choices[1].value",
            {"questions": [QUESTIONS[1] | {"choices": [{"value": "x"}, {"value": ""}]}]},
        ),
        ("questions[0].levels", {"questions": [QUESTIONS[2] | {"levels": [{"label": "x"}] * 11}]}),
        ("questions[0].instructions[0]", {"questions": [QUESTIONS[0] | {"instructions": [IMAGE]}]}),
        ("input[0].content[0]", {"input": [{"role": "user", "content": [IMAGE]}]}),
        ("input[0].content", {"input": [{"role": "user"}]}),
        ("input[0].role", {"input": [{"content": "x"}]}),
        ("input[0].type", {"input": [{"type": "reasoning"}]}),
        (
            "input[0].call_id",
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
        ),
        ("input", {"input": "word " * 3000}),
        ("dlm.joint", {"dlm": {"joint": 1}}),
        ("dlm.rotations", {"dlm": {"rotations": 0}}),
        ("dlm.temperature", {"dlm": {"temperature": 0}}),
        ("dlm.scoring", {"dlm": {"scoring": "best"}}),
        ("dlm.jiont", {"dlm": {"jiont": True}}),
        ("dlm.template", {"dlm": {"template": {"anser": "{hole}"}}}),
        ("dlm.template.answer", {"dlm": {"template": {"answer": "Yes"}}}),
    ],
)
def test_refusals_name_the_field(local, param, changes):
    refused(local.post("/v1/decisions", json=body(**changes)), param)


CHOICE = {"type": "choice", "instructions": "x"}
AB = {"choices": ["a", "b"]}


@pytest.mark.parametrize(
    ("question", "param", "hint"),
    [
        (CHOICE | {"options": ["a", "b"]}, ".options", "did you mean 'choices'?"),
        (CHOICE | AB | {"foo": 1}, ".foo", "'choices', 'instructions', 'name', 'type'"),
        (CHOICE | AB | {"levels": ["a", "b"]}, ".levels", "is no field of a choice"),
        (QUESTIONS[0] | AB, ".choices", "is no field of a predicate"),
        (QUESTIONS[0] | {"instruction": "y"}, ".instruction", "did you mean 'instructions'?"),
        (CHOICE | {"choices": ["a", {"value": "b", "descripton": "c"}]}, ".choices[1].descripton",
         "did you mean 'description'?"),
        (QUESTIONS[2] | {"levels": ["a", {"label": "b", "value": 1}]}, ".levels[1].value",
         "is no field of a level"),
        (CHOICE | {"choices": ["a", 5]}, ".choices[1]", "must be a text, a boolean, or an object"),
        (QUESTIONS[2] | {"levels": ["a", True]}, ".levels[1]", "must be a text, or an object"),
        (QUESTIONS[0] | {"instructions": " "}, ".instructions", "must not be empty"),
    ],
)  # fmt: skip
def test_what_a_question_lacks_is_refused_with_what_it_has(local, question, param, hint):
    response = local.post("/v1/decisions", json=body(questions=[question]))
    assert hint in refused(response, f"questions[0]{param}")


def test_texts_stand_for_choices_and_levels(local):
    plain = [
        CHOICE | {"choices": ["a", True, "c"]},
        QUESTIONS[2] | {"levels": ["low", "high"], "choices": None},
    ]
    long = [
        CHOICE | {"choices": [{"value": "a"}, {"value": True}, {"value": "c"}]},
        QUESTIONS[2] | {"levels": [{"label": "low"}, {"label": "high"}]},
    ]
    found, expected = (
        answered(local.post("/v1/decisions", json=body(questions=questions)))
        for questions in (plain, long)
    )
    assert found["answers"] == expected["answers"]


def nested(levels):
    data = {"x": 1}
    for _ in range(levels - 1):
        data = {"x": data}
    return data


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (nested(32), 200),
        (nested(33), 400),
        ({"x": list(range(600))}, 400),  # too long for the model, not for JSON
        ({"x": [0] * 10_000}, 400),
        ({"x": "y" * 256 * 1024}, 400),
    ],
)
def test_json_parts_are_bounded(local, data, status):
    items = [{"role": "user", "content": [{"type": "input_json", "data": data}]}]
    response = local.post("/v1/decisions", json=body(input=items, questions=QUESTIONS[:1]))
    assert response.status_code == status, response.text


def test_a_model_of_another_name_is_not_found(local):
    refused(local.post("/v1/decisions", json=body(model="gpt-6-luna")), "model", 404)


def test_the_servers_bound_of_a_canvas_counts(engine):
    with TestClient(create_app(engine, ServerSettings(max_canvas=32))) as local:
        message = refused(local.post("/v1/decisions", json=body()), "input")
    assert "32" in message


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": "word " * 3000}, "input"),
        ({"dlm": {"template": {"answer": "[[mask:4000]]{hole}"}}}, "dlm.template.answer"),
        ({"dlm": {"template": {"user": "so " * 3000 + "{questions}"}}}, "dlm.template.user"),
        (
            {"questions": [QUESTIONS[0] | {"instructions": "word " * 3000}]},
            "questions[0].instructions",
        ),
        (
            {"questions": [QUESTIONS[0], CHOICE | {"choices": [f"{n} pears" for n in range(250)]}]},
            "questions[1].choices",
        ),
        (
            {"questions": [QUESTIONS[2] | {"levels": [f"{n} " + "a b " * 99 for n in range(9)]}]},
            "questions[0].levels",
        ),
    ],
)
def test_a_canvas_that_is_too_large_blames_what_takes_most_of_it(local, changes, param):
    message = refused(local.post("/v1/decisions", json=body(**changes)), param)
    assert "; the limit of the model is 1024" in message


def test_a_client_that_leaves_frees_everything(engine):
    """The app is called as a server does, and told that the client has gone."""
    app = create_app(engine)
    sent = []

    async def main():
        many = [QUESTIONS[0] | {"name": str(n), "instructions": f"Is it {n}?"} for n in range(400)]
        data = json.dumps(body(questions=many)).encode()
        messages = [{"type": "http.request", "body": data}]

        async def receive():
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "http_version": "1.1",
            "asgi": {"version": "3.0"},
            "method": "POST",
            "scheme": "http",
            "path": "/v1/decisions",
            "raw_path": b"/v1/decisions",
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
    assert engine.kv.pages.in_use == 0


def test_the_access_log_tells_numbers_and_faults_but_no_text(local, engine, caplog):
    caplog.set_level(logging.INFO, "dlm.access")
    found = answered(local.post("/v1/decisions", json=body()))
    refused(local.post("/v1/decisions", json=body(input=[{"role": "SECRET"}])), "input[0].role")
    ask = {"messages": [{"role": "user", "content": "SECRET"}], "max_tokens": 8, "seed": 3, "n": 2}
    told = answered(local.post("/v1/chat/completions", json=ask))
    local.post("/v1/nowhere")
    decided, wrong, chat, nowhere = (vars(record) for record in caplog.records)
    assert (decided["nfe"], decided["prompt_tokens"]) == (
        found["dlm"]["nfe"],
        found["usage"]["input_tokens"],
    )
    assert (wrong["param"], wrong["code"]) == ("input[0].role", "invalid_value")
    assert "code" not in decided
    assert (chat["seed"], chat["answer_tokens"]) == (3, told["usage"]["completion_tokens"])
    assert chat["finish_reasons"] == [cost["finish_reason"] for cost in told["dlm"]["choices"]]
    assert chat["nfe"] == sum(cost["nfe"] for cost in told["dlm"]["choices"])
    assert nowhere["code"] == "not_found"
    assert "SECRET" not in "".join(JsonLines().format(record) for record in caplog.records)


# /v1/systemone


SYSTEM_ONE = {
    "right": {
        "type": "noul",
        "instructions": "Is it correct?",
        "criteria": {"true": "the value is right", "false": None},
    },
    "kind": {"type": "choice", "criteria": {"sum": "an addition", "product": None}},
    "sure": {"type": "score", "instructions": {"ask": "How sure?"}, "criteria": ["low", {"p": 1}]},
}


def system_one(**changes):
    return {"model": "tiny", "state": JUDGED, "questions": SYSTEM_ONE} | changes


def test_system_one_answers_in_its_own_form(local, engine):
    found = answered(local.post("/v1/systemone", json=system_one()))
    asked = [
        dlm.Predicate("right", "Is it correct?", "the value is right"),
        dlm.Choice("kind", "", [dlm.Option("sum", "an addition"), "product"]),
        dlm.Score("sure", '{"ask": "How sure?"}', ["low", '{"p": 1}']),
    ]
    right, kind, sure = engine.decide(JUDGED, asked)
    assert found["answers"] == {
        "right": {
            "type": "noul",
            "noul": right.probability,
            "x_label_mass": right.label_mass,
        },
        "kind": {
            "type": "choice",
            "choice": kind.choice,
            "confidence": kind.confidence,
            "probabilities": dict(kind.probabilities),
            "x_label_mass": kind.label_mass,
        },
        "sure": {
            "type": "score",
            "score": sure.score,
            "confidence": sure.confidence,
            "legend": {"0": "low", "1": {"p": 1}},
            "probabilities": {"0": sure.probabilities[0], "1": sure.probabilities[1]},
            "x_label_mass": sure.label_mass,
        },
    }
    assert list(found["answers"]) == list(SYSTEM_ONE)
    assert found["usage"]["output_tokens"] == 0


def test_a_state_may_be_any_json(local, engine):
    state = [{"from": "a", "text": "hello"}, 3]
    found = answered(local.post("/v1/systemone", json=system_one(state=state)))
    shown = '[{"from": "a", "text": "hello"}, 3]'
    right = engine.decide(shown, dlm.Predicate("right", "Is it correct?", "the value is right"))
    assert found["answers"]["right"]["noul"] == pytest.approx(right["right"].probability, rel=1e-4)


@pytest.mark.parametrize(
    ("param", "changes"),
    [
        ("state", {"state": 3}),
        ("state", {"state": "word " * 3000}),
        ("questions", {"questions": {}}),
        ("questions.q.type", {"questions": {"q": {"type": "predicate"}}}),
        ("questions.q.criteria", {"questions": {"q": {"type": "choice"}}}),
        ("questions.q.criteria", {"questions": {"q": {"type": "choice", "criteria": {"a": None}}}}),
        ("questions.q.criteria", {"questions": {"q": {"type": "choice", "criteria": ["a", "b"]}}}),
        ("questions.q.criteria", {"questions": {"q": {"type": "score", "criteria": {"a": "b"}}}}),
        ("questions.q.criteria", {"questions": {"q": {"type": "score", "criteria": ["a"]}}}),
        ("questions.q.criteria", {"questions": {"q": {"type": "score", "criteria": ["a", None]}}}),
        ("questions.q.criteria", {"questions": {"q": {"type": "noul", "criteria": {"yes": "b"}}}}),
        ("questions.q.choices", {"questions": {"q": {"type": "noul", "choices": ["a", "b"]}}}),
        ("assets", {"assets": {"img": {"type": "image"}}}),
        ("dlm.rotations", {"dlm": {"rotations": 256}}),
        ("dlm.top_k", {"dlm": {"top_k": 1}}),
    ],
)
def test_system_one_refusals_name_the_field(local, param, changes):
    refused(local.post("/v1/systemone", json=system_one(**changes)), param)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "\ud800"},
        {"state": {"a": ["\ud800"]}},
        {"questions": {"q": {"type": "noul", "instructions": "\ud800"}}},
        {"questions": {"\ud800": {"type": "noul"}}},
    ],
)
def test_lone_surrogates_are_refused(local, changes):
    text = json.dumps(system_one(**changes))  # which writes them as escapes
    response = local.post(
        "/v1/systemone", content=text, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400, response.text


@pytest.mark.parametrize("depth", [200, 900, 2000, 100_000])
def test_deep_nesting_is_no_fault_of_the_server(local, depth):
    text = json.dumps(system_one(state="STATE")).replace('"STATE"', "[" * depth + "]" * depth)
    headers = {"content-type": "application/json"}
    response = local.post("/v1/systemone", content=text, headers=headers)
    assert response.status_code in (200, 400), response.text


def test_the_bodies_of_the_documentation_are_answered(local):
    text = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    found = answered(local.post("/v1/decisions", json=json.loads(first)))
    assert [answer["name"] for answer in found["answers"]] == ["refund", "team", "anger"]
    found = answered(local.post("/v1/systemone", json=json.loads(second)))
    assert list(found["answers"]) == ["refund", "team", "anger"]


# OpenAI's client against a process


def test_openais_client_reads_the_answers(server, engine):
    with openai.OpenAI(base_url=server.v1, api_key="none", timeout=PATIENCE) as sdk:
        found = sdk.decisions.create(
            model="tiny",
            input=JUDGED,
            questions=QUESTIONS,
            extra_body={"dlm": {"template": FORM}},
        )
        right, kind, sure = found.answers
        assert (right.type, right.name) == ("predicate", "right")
        assert right.probability > 0.9
        assert kind.choice in ("true", True, "product")
        assert [type(one.value) for one in kind.probabilities] == [str, bool, str]
        assert [one.label for one in sure.probabilities] == ["low", "high"]
        assert found.usage.total_tokens == found.usage.input_tokens > 0
        assert right.x_label_mass > 0.5
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.decisions.create(model="tiny", input=JUDGED, questions=[])
        assert caught.value.param == "questions"
        with pytest.raises(openai.NotFoundError):
            sdk.decisions.create(model="gpt-6-luna", input=JUDGED, questions=QUESTIONS)


def test_openais_asynchronous_client_decides_beside_answers(server, engine):
    async def main():
        async with openai.AsyncOpenAI(base_url=server.v1, api_key="none", timeout=PATIENCE) as sdk:
            asked = {"model": "tiny", "input": JUDGED, "questions": QUESTIONS}
            talk = [{"role": "user", "content": "Compute 3+4."}]
            return await asyncio.gather(
                *(sdk.decisions.create(**asked) for _ in range(4)),
                sdk.chat.completions.create(model="tiny", messages=talk, max_tokens=24),
            )

    *decided, answer = asyncio.run(main())
    expected = engine.decide(JUDGED, ASKED[0]).answers[0].probability
    for found in decided:
        assert found.answers[0].probability == pytest.approx(expected, rel=1e-4)
    assert "7" in answer.choices[0].message.content


def test_forwards_are_measured(local):
    for path, given in (("/v1/decisions", body()), ("/v1/systemone", system_one())):
        before = forwards(local, "decide")
        costs = local.post(path, json=given).json()["dlm"]
        grown = [b - a for a, b in zip(before, forwards(local, "decide"), strict=True)]
        assert grown == [costs["nfe"], costs["nfe"], costs["token_forwards"]]
        assert costs["nfe"] > 0
