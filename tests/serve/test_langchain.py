"""LangChain's ChatOpenAI against a running server."""

from __future__ import annotations

import asyncio

import pytest

langchain = pytest.importorskip("langchain_openai", reason="needs langchain-openai")

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage  # noqa: E402

QUESTIONS = ["12+5=?", "Sort these words: wolf, cow, cat.", "Compute 12-5, 3*7."]


@pytest.fixture
def model(server):
    return langchain.ChatOpenAI(
        model="tiny", base_url=server.v1, api_key="none", max_tokens=48, temperature=0
    )


def local(engine, question):
    return engine.generate(question, max_new_tokens=48).text


def test_invoke(model, engine):
    answer = model.invoke(QUESTIONS[0])
    assert answer.content == local(engine, QUESTIONS[0])
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == "tiny"
    usage = answer.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0


def test_a_talk(model, engine):
    talk = [SystemMessage("Be brief."), HumanMessage("a"), AIMessage("b"), HumanMessage("12+5=?")]
    plain = [
        {"role": role, "content": message.content}
        for role, message in zip(("system", "user", "assistant", "user"), talk, strict=True)
    ]
    assert model.invoke(talk).content == engine.generate(plain, max_new_tokens=48).text


def test_stream(model, engine):
    chunks = list(model.stream(QUESTIONS[1]))
    assert "".join(chunk.content for chunk in chunks) == local(engine, QUESTIONS[1])
    told = list(model.stream(QUESTIONS[1], stream_usage=True))
    whole = sum(told[1:], start=told[0])
    assert whole.usage_metadata["output_tokens"] > 0


def test_batch(model, engine):
    answers = model.batch(QUESTIONS)
    assert [answer.content for answer in answers] == [local(engine, q) for q in QUESTIONS]


def test_asyncio(model, engine):
    async def work():
        one = await model.ainvoke(QUESTIONS[0])
        parts = [chunk.content async for chunk in model.astream(QUESTIONS[1])]
        many = await model.abatch(QUESTIONS)
        return one.content, "".join(parts), [answer.content for answer in many]

    one, streamed, many = asyncio.run(work())
    wanted = [local(engine, question) for question in QUESTIONS]
    assert (one, streamed, many) == (wanted[0], wanted[1], wanted)


def test_stop_and_more(model):
    answer = model.bind(stop=["="], extra_body={"dlm": {"unmask": "topk"}}).invoke(QUESTIONS[0])
    assert "=" not in answer.content
    several = model.generate([[HumanMessage(QUESTIONS[0])]], n=2, temperature=1.0)
    assert len(several.generations[0]) == 2
    logs = model.bind(logprobs=True, top_logprobs=2).invoke(QUESTIONS[0])
    assert logs.response_metadata["logprobs"]["content"]


def test_its_form_of_responses(server, engine):
    model = langchain.ChatOpenAI(
        model="tiny", base_url=server.v1, api_key="none", max_tokens=48, use_responses_api=True
    )
    assert model.invoke(QUESTIONS[0]).text == local(engine, QUESTIONS[0])
    assert "".join(c.text for c in model.stream(QUESTIONS[0])) == local(engine, QUESTIONS[0])
