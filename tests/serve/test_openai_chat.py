"""OpenAI's client: chat completions of a running server."""

from __future__ import annotations

import pytest

from tests.serve.live import frames

ASK = [{"role": "user", "content": "Sort these words: wolf, cow, cat."}]
SUM = [{"role": "user", "content": "12+5=?"}]
EXACT = {"unmask": "topk", "blocks": "fixed(32)"}


def ask(client, messages=ASK, **fields):
    return client.chat.completions.create(model="tiny", messages=messages, **fields)


def test_an_answer_with_its_usage_and_costs(client, engine):
    answer = ask(client, max_tokens=48, temperature=0)
    alone = engine.generate(ASK, max_new_tokens=48)
    (choice,) = answer.choices
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "tiny"
    assert choice.message.role == "assistant"
    assert choice.message.content == alone.text
    assert choice.finish_reason == "stop"
    assert choice.logprobs is None
    assert answer.usage.prompt_tokens == len(alone.prompt_ids)
    assert answer.usage.completion_tokens == len(alone.ids)
    assert answer.usage.total_tokens == len(alone.prompt_ids) + len(alone.ids)
    assert answer.dlm["nfe"] == alone.stats.nfe
    assert answer.dlm["token_forwards"] == alone.stats.token_forwards
    assert answer.dlm["finish_reason"] == "stop"
    assert answer.dlm["tokens_per_forward"] == pytest.approx(
        alone.stats.tokens_per_forward, abs=1e-4
    )


def test_deltas_are_the_answer(client):
    whole = ask(client, max_tokens=64, seed=1)
    chunks = list(ask(client, max_tokens=64, seed=1, stream=True))
    first, last = chunks[0], chunks[-1]
    assert first.choices[0].delta.role == "assistant"
    assert first.choices[0].delta.content == ""
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert last.choices[0].finish_reason == "stop"
    assert last.dlm["nfe"] == whole.dlm["nfe"]
    assert {chunk.id for chunk in chunks} == {first.id}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {(chunk.created, chunk.model) for chunk in chunks} == {(first.created, "tiny")}
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_in_a_chunk_of_its_own(client):
    stream = ask(client, max_tokens=32, stream=True, stream_options={"include_usage": True})
    *chunks, last = list(stream)
    whole = ask(client, max_tokens=32)
    assert last.choices == []
    assert last.usage.to_dict() == whole.usage.to_dict()
    assert all(len(chunk.choices) == 1 and chunk.usage is None for chunk in chunks)


def test_several_answers_with_seeds(client, engine):
    fields = {"max_tokens": 24, "temperature": 1.0, "n": 3, "seed": 7}
    answers = [ask(client, SUM, **fields) for _ in range(2)]
    texts = [[choice.message.content for choice in answer.choices] for answer in answers]
    alone = engine.generate(SUM, max_new_tokens=24, temperature=1.0, n=3, seed=7)
    assert texts[0] == texts[1] == [choice.text for choice in alone.choices]
    assert len(set(texts[0])) > 1
    assert [choice.index for choice in answers[0].choices] == [0, 1, 2]
    assert answers[0].dlm["seed"] == 7
    assert len(answers[0].dlm["choices"]) == 3
    streamed = ["", "", ""]
    for chunk in ask(client, SUM, **fields, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts[0]


def test_a_seed_that_was_chosen_is_told(client):
    drawn = ask(client, SUM, max_tokens=24, temperature=1.0)
    again = ask(client, SUM, max_tokens=24, temperature=1.0, seed=drawn.dlm["seed"])
    assert again.choices[0].message.content == drawn.choices[0].message.content


def test_stop_strings_end_the_text(client):
    whole = ask(client, max_tokens=48, extra_body={"dlm": EXACT}).choices[0].message.content
    stop = whole[4:6]
    fields = {"max_tokens": 48, "stop": ["never there", stop], "extra_body": {"dlm": EXACT}}
    cut = ask(client, **fields)
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].stop_reason == stop
    streamed = list(ask(client, **fields, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert text == cut.choices[0].message.content
    shown = {**fields, "extra_body": {"dlm": EXACT, "include_stop_str_in_output": True}}
    assert ask(client, **shown).choices[0].message.content == whole[: whole.index(stop)] + stop
    streamed = list(ask(client, **shown, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert text == whole[: whole.index(stop)] + stop


def test_a_short_limit_ends_with_length(client):
    answer = ask(client, max_completion_tokens=2)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 2
    newer = ask(client, max_completion_tokens=2, max_tokens=40)
    assert newer.usage.completion_tokens == 2, "the newer name goes first"


def test_logprobs_with_alternatives_and_steps(client):
    answer = ask(client, SUM, max_tokens=32, logprobs=True, top_logprobs=3)
    (choice,) = answer.choices
    content = choice.logprobs.content
    assert "".join(entry.token for entry in content) == choice.message.content
    assert len(content) == answer.usage.completion_tokens
    for entry in content:
        assert entry.logprob <= 0
        assert bytes(entry.bytes).decode() == entry.token
        assert len(entry.top_logprobs) == 3
        logs = [other.logprob for other in entry.top_logprobs]
        assert logs == sorted(logs, reverse=True)
        assert entry.step >= 1
        assert len({other.token for other in entry.top_logprobs}) == 3
        # at temperature 0 the token is the best one
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob, abs=1e-4)
    *_, last = ask(client, SUM, max_tokens=32, logprobs=True, top_logprobs=3, stream=True)
    streamed = last.choices[0].logprobs.content
    assert [entry.token for entry in streamed] == [entry.token for entry in content]


def test_alternatives_without_text_have_names(client):
    """Control tokens by their spelling, parts of characters by their ids: none is like another."""
    answer = ask(client, SUM, max_tokens=32, logprobs=True, top_logprobs=20)
    found = [[other.token for other in e.top_logprobs] for e in answer.choices[0].logprobs.content]
    assert all(len(set(tokens)) == 20 and "" not in tokens for tokens in found)
    assert any("<|endoftext|>" in tokens for tokens in found)


def test_logprobs_without_alternatives(client):
    content = ask(client, SUM, max_tokens=32, logprobs=True).choices[0].logprobs.content
    assert all(entry.top_logprobs == [] for entry in content)


def test_ids_in_and_out(client, engine):
    extra = {"return_token_ids": True, "dlm": {"unmask": "topk"}}
    (choice,) = ask(client, SUM, max_tokens=24, extra_body=extra).choices
    alone = engine.generate(SUM, max_new_tokens=24, unmask="topk")
    assert tuple(choice.token_ids) == alone.ids
    assert tuple(choice.prompt_token_ids) == alone.prompt_ids
    assert choice.token_logprobs == pytest.approx(list(alone.logprobs), abs=1e-4)
    assert len(choice.commit_steps) == len(choice.proposal_logprobs) == len(alone.ids)
    assert sorted(choice.commit_steps)[0] >= 1


def test_a_final_message_of_the_assistant_is_gone_on_with(client, engine):
    talk = [*SUM, {"role": "assistant", "content": "12+5"}]
    answer = ask(client, talk, max_tokens=24)
    assert answer.choices[0].message.content == engine.generate(talk, max_new_tokens=24).text
    more = {"continue_final_message": True, "add_generation_prompt": False}
    same = ask(client, talk, max_tokens=24, extra_body=more)
    assert same.choices[0].message.content == answer.choices[0].message.content


def test_parts_and_developer_messages(client, engine):
    parts = [{"type": "text", "text": "12+"}, {"type": "text", "text": "5=?"}]
    talk = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    answer = ask(client, talk, max_tokens=24)
    plain = [{"role": "system", "content": "Be brief."}, *SUM]
    assert answer.choices[0].message.content == engine.generate(plain, max_new_tokens=24).text
    assert answer.dlm["warnings"], "the bundled model's template shows no system message"


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh", "max"])
def test_effort_is_forwards(client, effort):
    answer = ask(client, SUM, max_tokens=64, reasoning_effort=effort)
    assert answer.choices[0].message.content
    if effort in ("high", "xhigh", "max"):
        tokens = answer.usage.completion_tokens
        assert answer.dlm["nfe"] >= tokens, "one token a step"


def test_the_dlm_object_holes_and_trace(client, engine):
    template = "[[mask:8]]=17"
    extra = {"dlm": {"infill": template, "trace": True}}
    answer = ask(client, SUM, extra_body=extra)
    alone = engine.generate(SUM, infill=template)
    assert answer.choices[0].message.content == alone.text
    assert answer.dlm["holes"] == list(alone.holes)
    assert answer.dlm["trace"][0]["type"] == "open"
    assert answer.dlm["trace"][-1]["type"] == "done"


def test_neutral_and_unknown_fields_are_taken(client):
    answer = ask(
        client,
        max_tokens=16,
        frequency_penalty=0,
        presence_penalty=0,
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        user="somebody",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        parallel_tool_calls=True,
        extra_body={"repetition_penalty": 1.0, "something_new": {"a": [1]}},
    )
    assert answer.choices[0].message.content


def test_raw_responses_have_their_headers(client):
    raw = client.chat.completions.with_raw_response.create(
        model="tiny", messages=ASK, max_tokens=16, extra_headers={"X-Request-Id": "mine-7"}
    )
    assert raw.http_response.status_code == 200
    assert raw.headers["content-type"].startswith("application/json")
    assert raw.headers["x-request-id"] == "mine-7"
    assert raw.parse().choices[0].message.content
    with client.chat.completions.with_streaming_response.create(
        model="tiny", messages=SUM, max_tokens=16, stream=True
    ) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.headers["cache-control"] == "no-cache"
        assert frames(raw.iter_lines())[-1]["choices"][0]["finish_reason"] == "stop"


def test_the_stream_helper_builds_the_answer(client):
    whole = ask(client, max_tokens=48, n=2, temperature=0.8, seed=3, logprobs=True)
    with client.chat.completions.stream(
        model="tiny",
        messages=ASK,
        max_tokens=48,
        n=2,
        temperature=0.8,
        seed=3,
        logprobs=True,
        stream_options={"include_usage": True},
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == [
        choice.message.content for choice in whole.choices
    ]
    assert [choice.finish_reason for choice in final.choices] == [
        choice.finish_reason for choice in whole.choices
    ]
    for ours, theirs in zip(final.choices, whole.choices, strict=True):
        assert len(ours.logprobs.content) == len(theirs.logprobs.content)
        assert ours.message.role == "assistant"
    assert final.usage.to_dict() == whole.usage.to_dict()
    kinds = {event.type for event in events}
    assert {"chunk", "content.delta", "content.done"} <= kinds


def test_frames_of_a_diffusing_canvas(client):
    whole = ask(client, max_tokens=64, extra_body={"dlm": EXACT})
    stream = ask(client, max_tokens=64, stream=True, extra_body={"dlm": EXACT, "diffusing": True})
    *chunks, closing = list(stream)
    shown = [chunk for chunk in chunks if chunk.choices[0].delta.content]
    metas = [chunk.diffusion_meta for chunk in shown]
    assert all(meta["diffusion_content"] is True for meta in metas)
    progress = [meta["diffusion_progress"] for meta in metas]
    assert progress == sorted(progress)
    assert 0 <= progress[0] < 1 == progress[-1]
    assert "░" in shown[0].choices[0].delta.content
    assert shown[-1].choices[0].delta.content == whole.choices[0].message.content
    assert shown[-1].choices[0].finish_reason == "stop"
    assert closing.choices[0].delta.content is None
    assert closing.dlm["nfe"] == whole.dlm["nfe"]


def test_models(client):
    (card,) = client.models.list().data
    assert (card.id, card.object, card.owned_by) == ("tiny", "model", "dlm")
    assert card.max_model_len == 1024
    assert client.models.retrieve("tiny") == card


def test_tokens_of_a_filled_template_join_to_its_text(client):
    """Given parts included, whose tokens go on with a text."""
    answer = ask(
        client,
        logprobs=True,
        extra_body={"dlm": {"infill": " cat, [[mask:2]] wolf"}},
    )
    (choice,) = answer.choices
    assert choice.message.content.startswith(" cat, ")
    assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content
