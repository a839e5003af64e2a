"""OpenAI's client: text completions of a running server."""

from __future__ import annotations

import pytest

PROMPT = "12+5="
OTHER = "Write a function that adds two numbers.\n"


def complete(client, prompt=PROMPT, **fields):
    return client.completions.create(model="tiny", prompt=prompt, **fields)


def alone(engine, prompt, **options):
    """The local answer to a prompt that is no talk."""
    ids = engine.text.encode_prompt(prompt, chat=False) if isinstance(prompt, str) else prompt
    return engine.generate(ids, **options)


def test_the_four_shapes_of_prompts(client, engine):
    ids = [engine.text.encode_prompt(text, chat=False) for text in (PROMPT, OTHER)]
    wanted = [alone(engine, text, max_new_tokens=24).text for text in (PROMPT, OTHER)]
    for prompt in (PROMPT, list(ids[0])):
        answer = complete(client, prompt, max_tokens=24)
        assert answer.object == "text_completion"
        assert [choice.text for choice in answer.choices] == wanted[:1]
    for prompt in ([PROMPT, OTHER], [list(one) for one in ids]):
        answer = complete(client, prompt, max_tokens=24)
        assert [choice.text for choice in answer.choices] == wanted
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert answer.usage.prompt_tokens == sum(map(len, ids))


def test_sixteen_tokens_where_none_are_asked(client, engine):
    answer = complete(client, OTHER, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 16
    assert answer.choices[0].finish_reason == "length"


def test_answers_of_several_prompts(client, engine):
    fields = {"max_tokens": 16, "n": 2, "temperature": 1.0, "seed": 5}
    answer = complete(client, [PROMPT, OTHER], **fields)
    wanted = [
        choice.text
        for prompt in (PROMPT, OTHER)
        for choice in alone(engine, prompt, max_new_tokens=16, n=2, temperature=1.0, seed=5).choices
    ]
    assert [choice.text for choice in answer.choices] == wanted
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [""] * 4
    for chunk in complete(client, [PROMPT, OTHER], **fields, stream=True):
        assert chunk.object == "text_completion"
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == wanted


def test_a_gap_before_a_suffix(client, engine):
    prompt, suffix = "12+5=", "\n\\boxed{17}"
    answer = complete(client, prompt, suffix=suffix, max_tokens=6)
    ids = list(engine.text.encode_prompt(prompt, chat=False))
    infill = [None] * 6 + list(engine.text.encode_inside(suffix, "suffix"))
    local = engine.generate(ids, infill=infill)
    assert answer.choices[0].text == local.holes[0]
    assert answer.usage.completion_tokens <= 6, "the suffix is no part of the answer"
    extra = {"return_token_ids": True}
    told = complete(client, prompt, suffix=suffix, max_tokens=6, logprobs=1, extra_body=extra)
    assert "".join(told.choices[0].logprobs.tokens) == local.holes[0]
    assert tuple(told.choices[0].token_ids) == local.ids[: len(told.choices[0].token_ids)]
    assert len(told.choices[0].token_ids) == told.usage.completion_tokens
    extra = {"diffusing": True}
    shown = complete(client, prompt, suffix=suffix, max_tokens=6, stream=True, extra_body=extra)
    texts = [chunk.choices[0].text for chunk in shown]
    assert not any("boxed" in text for text in texts)
    assert texts[-1] == local.holes[0]
    streamed = complete(client, prompt, suffix=suffix, max_tokens=6, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == local.holes[0]
    fim = client.post(
        "/fim/completions",
        body={"model": "tiny", "prompt": prompt, "suffix": suffix, "max_tokens": 6},
        cast_to=object,
    )
    assert fim["choices"][0]["text"] == local.holes[0]
    assert fim["object"] == "text_completion"


def test_the_prompt_is_echoed(client, engine):
    plain = complete(client, [PROMPT, OTHER], max_tokens=16)
    for prompt in (
        [PROMPT, OTHER],
        [list(engine.text.encode_prompt(text, chat=False)) for text in (PROMPT, OTHER)],
    ):
        echoed = complete(client, prompt, max_tokens=16, echo=True)
        for one, other, text in zip(echoed.choices, plain.choices, (PROMPT, OTHER), strict=True):
            assert one.text == text + other.text
        texts = ["", ""]
        for chunk in complete(client, prompt, max_tokens=16, echo=True, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].text
        assert texts == [choice.text for choice in echoed.choices]


def test_logprobs_at_the_commit(client, engine):
    answer = complete(client, max_tokens=24, logprobs=2)
    logs = answer.choices[0].logprobs
    assert "".join(logs.tokens) == answer.choices[0].text
    local = alone(engine, PROMPT, max_new_tokens=24)
    assert logs.token_logprobs == pytest.approx(list(local.logprobs), abs=1e-4)
    assert [len(best) for best in logs.top_logprobs] == [2] * len(logs.tokens)
    assert logs.text_offset == [len("".join(logs.tokens[:at])) for at in range(len(logs.tokens))]
    assert len(logs.steps) == len(logs.tokens)
    zero = complete(client, max_tokens=24, logprobs=0).choices[0].logprobs
    assert zero.token_logprobs == logs.token_logprobs
    assert not zero.top_logprobs


def test_biased_logits(client, engine):
    first = alone(engine, PROMPT, max_new_tokens=8).ids[0]
    answer = complete(
        client,
        max_tokens=8,
        logit_bias={str(first): -100},
        extra_body={"return_token_ids": True},
    )
    assert first not in answer.choices[0].token_ids
    local = alone(engine, PROMPT, max_new_tokens=8, logit_bias={first: -100})
    assert tuple(answer.choices[0].token_ids) == local.ids


def test_ends(client, engine):
    """Stop ids, end ids that are ignored, and least numbers of tokens."""
    own = {"dlm": {"unmask": "topk"}, "return_token_ids": True}
    free = complete(client, max_tokens=24, extra_body={**own, "ignore_eos": True})
    ids = free.choices[0].token_ids
    assert free.usage.completion_tokens == len(ids) == 24
    assert free.choices[0].finish_reason == "length"
    assert not set(engine.info.eos_ids) & set(ids)
    forbidden = f"forbid({engine.info.eos_ids!r})"
    local = alone(engine, PROMPT, max_new_tokens=24, unmask="topk", guide=forbidden)
    assert tuple(ids) == local.ids
    stop = next(token for token in ids if ids.index(token) >= 3)
    extra = {**own, "ignore_eos": True, "stop_token_ids": [stop]}
    (choice,) = complete(client, max_tokens=24, extra_body=extra).choices
    assert choice.token_ids == ids[: ids.index(stop)]
    assert (choice.finish_reason, choice.stop_reason) == ("stop", stop)
    short = complete(client, max_tokens=32)
    least = short.usage.completion_tokens + 4
    longer = complete(client, max_tokens=32, extra_body={"min_tokens": least})
    assert longer.usage.completion_tokens >= least


def test_events_and_frames_of_texts(client):
    whole = complete(client, max_tokens=32, seed=1)
    extra = {"dlm": {"events": True}}
    text, kinds = "", []
    for chunk in complete(client, max_tokens=32, seed=1, stream=True, extra_body=extra):
        text += chunk.choices[0].text
        if chunk.model_extra.get("dlm", {}).get("event"):
            kinds.append(chunk.dlm["event"]["type"])
    assert text == whole.choices[0].text
    assert (kinds[0], kinds[-1]) == ("open", "done")
    extra = {"diffusing": True}
    chunks = list(complete(client, max_tokens=32, seed=1, stream=True, extra_body=extra))
    shown = [chunk.choices[0].text for chunk in chunks if "diffusion_meta" in chunk.model_extra]
    assert shown[-1] == whole.choices[0].text


def test_usage_chunk(client):
    stream = complete(client, max_tokens=8, stream=True, stream_options={"include_usage": True})
    *chunks, last = list(stream)
    assert last.choices == []
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks)
