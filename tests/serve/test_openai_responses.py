"""OpenAI's client: responses of a running server."""

from __future__ import annotations

import openai
import pytest

ASK = "Sort these words: wolf, cow, cat."
TALK = [{"role": "user", "content": ASK}]


def respond(client, given=ASK, **fields):
    return client.responses.create(model="tiny", input=given, **fields)


def test_a_text_is_answered(client, engine):
    answer = respond(client, max_output_tokens=48)
    local = engine.generate(TALK, max_new_tokens=48)
    assert answer.output_text == local.text
    assert (answer.object, answer.status, answer.model) == ("response", "completed", "tiny")
    assert answer.usage.input_tokens == len(local.prompt_ids)
    assert answer.usage.output_tokens == len(local.ids)
    assert answer.usage.total_tokens == len(local.prompt_ids) + len(local.ids)
    assert answer.dlm["nfe"] == local.stats.nfe
    assert answer.error is None
    assert answer.output[0].status == "completed"


def test_messages_and_instructions(client, engine):
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": ASK}]},
        {"role": "assistant", "content": "cat"},
        {"role": "user", "content": "12+5=?"},
    ]
    answer = respond(client, items, instructions="Be brief.", max_output_tokens=24)
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": ASK},
        {"role": "assistant", "content": "cat"},
        {"role": "user", "content": "12+5=?"},
    ]
    assert answer.output_text == engine.generate(talk, max_new_tokens=24).text
    assert answer.instructions == "Be brief."


def test_the_output_of_one_is_the_input_of_the_next(client):
    first = respond(client, max_output_tokens=24)
    items = [*TALK, *(item.to_dict() for item in first.output), {"role": "user", "content": ASK}]
    assert respond(client, items, max_output_tokens=24).status == "completed"


def test_a_short_limit_is_incomplete(client):
    answer = respond(client, max_output_tokens=2)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    *_, last = respond(client, max_output_tokens=2, stream=True)
    assert last.type == "response.incomplete"
    assert last.response.output_text == answer.output_text


def test_events_of_a_stream(client):
    whole = respond(client, max_output_tokens=48, temperature=0.5)
    events = list(
        respond(
            client,
            max_output_tokens=48,
            temperature=0.5,
            stream=True,
            extra_body={"seed": whole.dlm["seed"]},
        )
    )
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    text = "".join(event.delta for event in events if event.type.endswith("text.delta"))
    assert text == whole.output_text == events[-1].response.output_text == events[-4].text


def test_the_stream_helper(client):
    whole = respond(client, max_output_tokens=48)
    with client.responses.stream(model="tiny", input=ASK, max_output_tokens=48) as stream:
        text = ""
        for event in stream:
            if event.type == "response.output_text.delta":
                text += event.delta
                assert event.snapshot == text
        final = stream.get_final_response()
    assert final.output_text == text == whole.output_text
    assert final.usage.to_dict() == whole.usage.to_dict()
    assert final.dlm["nfe"] == whole.dlm["nfe"]


def test_events_of_the_canvas(client):
    extra = {"dlm": {"events": True}}
    events = list(respond(client, max_output_tokens=32, stream=True, extra_body=extra))
    kinds = [event.event["type"] for event in events if event.type == "response.dlm.event"]
    assert (kinds[0], kinds[-1]) == ("open", "done")
    text = "".join(event.delta for event in events if event.type.endswith("text.delta"))
    assert text == events[-1].response.output_text


def test_logprobs(client):
    include = ["message.output_text.logprobs"]
    answer = respond(client, max_output_tokens=24, include=include, top_logprobs=2)
    (part,) = answer.output[0].content
    assert "".join(entry.token for entry in part.logprobs) == answer.output_text
    assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)


@pytest.mark.parametrize("effort", ["none", "low", "medium", "high", "xhigh"])
def test_effort(client, effort):
    answer = respond(client, max_output_tokens=32, reasoning={"effort": effort})
    assert answer.output_text
    assert answer.reasoning.effort == effort


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]"),
        ({"input": [{"type": "item_reference", "id": "a"}]}, "input[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0]",
        ),
    ],
)
def test_what_needs_a_store_or_tools_is_refused(client, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": "tiny", "input": ASK, **fields})
    assert caught.value.param == param


def test_stored_responses_are_not_found(client):
    for call in (
        lambda: client.responses.retrieve("resp_1"),
        lambda: client.responses.delete("resp_1"),
        lambda: client.responses.cancel("resp_1"),
        lambda: client.responses.input_items.list("resp_1"),
    ):
        with pytest.raises(openai.NotFoundError, match="stores no responses"):
            call()
