"""`Engine` as its callers see it: prompts of every kind, streams, stops, logits, explanations."""

from dataclasses import dataclass

import pytest
import torch

import dlm
from dlm.engine.engine import Engine
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

FAMILIES = {
    "full": {},
    "shifted": {"shift": True, "qkv_bias": True},
    "block_causal": {"attention": "block_causal", "block_length": 4, "qk_norm": True},
}
PROMPT = (5, 9, 33, 12, 7, 40)


def engine_of(family="full", **options):
    """Random weights and no tokenizer."""
    decoder = random_decoder(tiny_spec(**FAMILIES[family]))
    return Engine(decoder, info_of(decoder.spec), **options)


@pytest.fixture(scope="module")
def engine():
    return dlm.load()


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(request):
    """After each test no page of the shared engine is in use."""
    yield
    if "engine" in request.fixturenames:
        assert_idle(request.getfixturevalue("engine"))


def assert_idle(engine):
    assert engine.scheduler.live == 0
    engine.scheduler.check_integrity()
    assert engine.kv.pages.in_use == 0


def refused(call, *args, **options):
    with pytest.raises(dlm.InvalidRequest) as caught:
        call(*args, **options)
    return str(caught.value)


# prompts


def test_text_messages_and_ids_are_the_same_prompt(engine):
    text = "Say the word lion two times."
    messages = [{"role": "user", "content": text}]
    ids = engine.text.encode_prompt(text)
    answers = [engine.generate(p, max_new_tokens=24) for p in (text, messages, ids, tuple(ids))]
    assert {a.prompt_ids for a in answers} == {tuple(ids)}
    assert {a.canvas for a in answers} == {answers[0].canvas}
    assert answers[0].text == engine.text.decode(answers[0].ids)
    assert len(answers[0].ids) == len(answers[0].logprobs) == answers[0].stats.tokens


def test_a_list_of_prompts_is_answered_in_order_as_one_batch(engine):
    prompts = [
        "hello",
        [{"role": "user", "content": "Sort these words: wolf, cow, cat."}],
        engine.text.encode_prompt("Say the word lion two times."),
    ]
    batch = engine.generate(prompts, max_new_tokens=24)
    assert [b.canvas for b in batch] == [
        engine.generate(p, max_new_tokens=24).canvas for p in prompts
    ]
    assert engine.generate([]) == []
    assert [b.text for b in engine.generate(["hello"], max_new_tokens=24)] == [batch[0].text]


@pytest.mark.parametrize("prompt", [None, 5, 0.5, {"role": "user"}, [None], ["a", 5]])
def test_what_is_no_prompt(engine, prompt):
    assert refused(engine.generate, prompt).startswith("`prompt`")


def test_wrong_prompts(engine):
    assert "`prompt`: ids must be between 0 and 1023" in refused(engine.generate, [5, 1024])
    assert "`prompt`: ids must be between 0 and 1023" in refused(engine.generate, [-1])
    assert "`prompt`: must not be empty" in refused(engine.generate, [()])
    assert "role" in refused(engine.generate, [{"role": "robot", "content": "x"}])
    assert "the limit of the model is 1024" in refused(
        engine.generate, "hello", max_new_tokens=1024
    )


def test_one_wrong_prompt_refuses_the_batch_before_any_work(engine):
    long = [7] * 1000
    assert "the limit of the model" in refused(engine.generate, ["hello", long])
    assert engine.scheduler.live == 0


def test_without_a_tokenizer():
    engine = engine_of()
    assert "give token ids" in refused(engine.generate, "hello")
    assert "stop strings need a tokenizer" in refused(engine.generate, PROMPT, stop="end")
    answer = engine.generate(PROMPT, max_new_tokens=8)
    assert answer.text is None
    assert answer.prompt_ids == PROMPT


# choices and seeds


def test_choices_come_from_seed_paths_in_order(engine):
    warm = {"max_new_tokens": 16, "guide": "forbid", "temperature": 1.5, "seed": 3}
    three = engine.generate("hello", n=3, **warm)
    two = engine.generate("hello", n=2, **warm)
    assert len({c.ids for c in three.choices}) == 3
    assert [c.ids for c in three.choices[:2]] == [c.ids for c in two.choices]
    one = engine.generate("hello", **warm)
    assert one.choices == ()
    assert one.ids == three.ids == three.choices[0].ids
    assert engine.generate("hello", **warm | {"seed": 4}).ids != one.ids


def test_choices_of_several_prompts(engine):
    batch = engine.generate(["hello", "hello"], n=2, max_new_tokens=8, temperature=1.0)
    assert [len(b.choices) for b in batch] == [2, 2]
    assert [c.ids for c in batch[0].choices] == [c.ids for c in batch[1].choices]


# streams


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_events_replay_to_the_answer(engine, cache):
    options = {"max_new_tokens": 40, "cache": cache, "guide": "forbid"}
    answer = engine.generate("hello", trace=True, **options)
    events = list(engine.stream("hello", **options))
    assert tuple(events) == answer.trace
    assert [events[0].type, events[-1].type] == ["open", "done"]
    assert events[-1].data == {"reason": answer.finish_reason}
    assert events[-1].step == answer.stats.nfe
    (canvas,) = dlm.replay(events).values()
    assert tuple(canvas.ids) == answer.canvas
    text = engine.text.decode(canvas.ids[canvas.prompt :])
    assert text == answer.text
    restored = [dlm.Event.from_json(event.to_json()) for event in events]
    assert restored == events


@pytest.mark.parametrize("family", FAMILIES)
def test_events_of_every_family_replay_to_the_answer(family):
    engine = engine_of(family)
    answer = engine.generate(PROMPT, max_new_tokens=13, stop="none", trace=True)
    (canvas,) = dlm.replay(answer.trace).values()
    assert tuple(canvas.ids) == answer.canvas
    ids = tuple(canvas.ids[canvas.prompt : canvas.prompt + 13])
    assert ids[: len(answer.ids)] == answer.ids
    assert engine.info.mask_id not in ids
    assert len(answer.canvas) % engine.info.alignment == 0


def test_without_trace_no_events_are_kept(engine):
    assert engine.generate("hello", max_new_tokens=8).trace == ()


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_leaving_a_stream_frees_its_pages(engine, steps):
    stream = engine.stream("hello", max_new_tokens=32, guide="forbid")
    for event in stream:
        if event.step >= steps:
            break
    assert engine.kv.pages.in_use > 0 or steps == 0
    stream.close()
    assert_idle(engine)


def test_a_stream_that_is_never_started_holds_nothing(engine):
    stream = engine.stream("hello", max_new_tokens=32)
    assert_idle(engine)
    stream.close()
    assert "`unmask`" in refused(engine.stream, "hello", unmask="nope")
    assert "`n`: must be 1 for a stream, got 2" in refused(engine.stream, "hello", n=2)


def test_two_streams_in_turns_and_a_generation_between(engine):
    options = {"max_new_tokens": 24, "guide": "forbid"}
    alone = [engine.generate(p, trace=True, **options) for p in ("hello", "good morning")]
    streams = [engine.stream(p, **options) for p in ("hello", "good morning")]
    seen = [[next(s) for _ in range(4)] for s in streams]
    assert engine.generate("hello", **options).ids == alone[0].ids
    for events, stream, answer in zip(seen, streams, alone, strict=True):
        events += stream
        assert [e for e in events if e.type != "settle"] == [
            e for e in answer.trace if e.type != "settle"
        ]


@dataclass(frozen=True, slots=True)
class Failing(dlm.Unmasker):
    """Raises in the third step."""

    error: type[BaseException]

    def propose(self, view):
        if int(view.row.step[0]) >= 2:
            raise self.error
        return dlm.Proposal(view.eligible & False)


def test_a_rule_that_fails_leaves_the_engine_usable(engine):
    with pytest.raises(ZeroDivisionError):
        engine.generate("hello", max_new_tokens=8, unmask=Failing(ZeroDivisionError))
    assert_idle(engine)
    assert engine.generate("hello", max_new_tokens=8).finish_reason in ("stop", "length")


def test_ctrl_c_gives_what_there_is(engine):
    options = {"max_new_tokens": 8, "guide": "forbid", "unmask": Failing(KeyboardInterrupt)}
    with pytest.raises(dlm.Interrupted) as caught:
        engine.generate("hello", trace=True, **options)
    partial = caught.value.partial
    assert partial.finish_reason == "abort"
    assert sum(event.type == "commit" for event in partial.trace) == 2
    assert partial.stats.seconds > 0
    with pytest.raises(dlm.Interrupted) as caught:
        engine.generate(["hello"] * 40, **options)
    assert len(caught.value.partial) == 40
    assert_idle(engine)


# where an answer ends


def test_finish_reasons(engine):
    full = engine.generate("hello", max_new_tokens=12, guide="forbid('eos')")
    assert (full.finish_reason, len(full.ids)) == ("length", 12)
    end = engine.info.eos_ids[0]
    empty = engine.generate("hello", max_new_tokens=12, logit_bias={end: 1000})
    assert (empty.finish_reason, empty.text, empty.ids) == ("stop", "", ())
    assert empty.stats.tokens == 0
    unstopped = engine.generate("hello", max_new_tokens=12, logit_bias={end: 1000}, stop="none")
    assert (unstopped.finish_reason, unstopped.ids) == ("stop", ())
    assert unstopped.canvas[-12:] == (end,) * 12


@pytest.mark.parametrize("blocks", ["fixed(4)", "fixed(32)", "whole"])
def test_a_stop_string_cuts_the_text(engine, blocks):
    options = {"max_new_tokens": 32, "guide": "forbid", "blocks": blocks}
    text = engine.generate("hello", **options).text
    stop = text[len(text) // 2 :][:2]
    answer = engine.generate("hello", stop=["§§", stop], **options)
    assert answer.text == text[: text.index(stop)]
    assert answer.finish_reason == "stop"
    assert engine.generate("hello", stop=stop, **options).text == answer.text
    whole = engine.generate("hello", stop="§§", **options)
    assert (whole.text, whole.finish_reason) == (text, "length")


def test_a_stop_string_ends_the_work_too(engine):
    options = {"max_new_tokens": 64, "guide": "forbid", "blocks": "fixed(8)"}
    full = engine.generate("hello", **options)
    answer = engine.generate("hello", stop=full.text[:2], **options)
    assert answer.stats.nfe < full.stats.nfe


# logits


def test_logit_bias(engine):
    biased = engine.generate("hello", max_new_tokens=8, logit_bias={500: 1000.0})
    assert biased.ids == (500,) * 8
    free = engine.generate("hello", max_new_tokens=8, guide="forbid")
    banned = {token: -1000.0 for token in free.ids}
    again = engine.generate("hello", max_new_tokens=8, guide="forbid", logit_bias=banned)
    assert not set(again.ids) & set(free.ids)
    assert "must be between 0 and 1023" in refused(engine.generate, "hello", logit_bias={1024: 1})


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_agree_with_the_first_step(family):
    engine = engine_of(family)
    events = engine.stream(PROMPT, max_new_tokens=10, unmask="everything", blocks="fixed(8)")
    opened = next(e for e in events if e.type == "open")
    first = next(e for e in events if e.type == "commit")
    logits = engine.logits([opened.ids])
    assert logits.shape == (1, len(opened.ids), engine.info.vocab_size)
    probs = logits.softmax(dim=-1)[0, list(first.pos)]
    probs[:, engine.info.mask_id] = 0
    best = probs.max(dim=1)
    assert tuple(best.indices.tolist()) == first.ids
    assert torch.allclose(best.values, torch.tensor(first.conf), atol=1e-5)


def test_logits_of_padded_rows_and_of_shifted_families():
    engine = engine_of()
    ids = torch.tensor([PROMPT, (*PROMPT[:4], 0, 0)])
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    padded = engine.logits(ids, attention_mask=mask)
    assert torch.allclose(padded[1, :4], engine.logits(ids[1:, :4])[0], atol=1e-4)
    assert torch.allclose(padded[0], engine.logits([PROMPT])[0], atol=1e-4)
    shifted = engine_of("shifted").logits([PROMPT])
    assert torch.equal(shifted[0, 0], shifted[0, 1])
    where = torch.tensor([[True, False, True, True, False, True], [False, True] * 3])
    for family in FAMILIES:
        engine = engine_of(family)
        some = engine.logits(ids, attention_mask=mask, where=where)
        assert torch.allclose(some, engine.logits(ids, attention_mask=mask)[where], atol=1e-5)
    assert "`where`: must have shape [2, 6]" in refused(engine.logits, ids, None, where[:1])
    assert "`ids`: must have shape [B, L], got [6]" in refused(engine.logits, PROMPT)


# options and explanations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 5}, "must be one of 'blocks', 'cache'"),
        ({"max_tokens": 5}, "got 'max_tokens'; did you mean 'max_new_tokens'?"),
        ({"unmask": "nope"}, "must be one of 'ancestral', 'dynamic'"),
        ({"unmask": 5}, "'wide_in' or a part, got 5"),
        ({"unmask": "topk('best')"}, "'confidence', 'entropy', 'margin', 'random'"),
        ({"cache": "block_causal"}, "use 'none', 'prefix' or 'dual'"),
        ({"guide": ["forbid", "nope"]}, "'bias'"),
        ({"stop": ""}, "`stop`: a stop string must not be empty"),
        ({"max_new_tokens": True}, "`max_new_tokens`: must be an integer"),
        ({"temperature": "hot"}, "`temperature`: must be a"),
        ({"seed": 1.5}, "`seed`: must be a 64-bit integer, got 1.5"),
        ({"logit_bias": [1]}, "`logit_bias`: must map token ids to"),
    ],
)
def test_invalid_options_name_the_choices(engine, options, message):
    assert message in refused(engine.generate, "hello", **options)
    assert message in refused(engine.stream, "hello", **options)
    assert message in refused(engine.explain, **options)


def test_explain(engine):
    plain = engine.explain()
    assert plain.exact
    assert [note.kind for note in plain.parts] == ["blocks", "unmask", "stop", "cache"]
    options = {"unmask": "topk", "steps": 8, "guide": "forbid", "cache": "dual"}
    told = str(engine.explain(max_new_tokens=64, **options))
    assert "TopK" in told
    assert "steps=8" in told
    assert "[T1]" in told
    assert "approximate" in told
    assert "64 new tokens, full attention" in told
    assert "[own rule]" in str(engine.explain(unmask=Failing(ZeroDivisionError)))
    aligned = engine_of("block_causal").explain()
    assert aligned.exact
    assert "rounded up to whole blocks of 4" in aligned.canvas


def test_texts_end_an_answer_that_no_rule_ends(engine):
    """Beside `none`, and whatever rule they spell."""
    free = engine.generate("Compute 3+5.", max_new_tokens=48, stop="none")
    cut = engine.generate("Compute 3+5.", max_new_tokens=48, stop=["none", "="])
    assert cut.text == free.text.split("=")[0]
    assert cut.finish_reason == "stop"
    asked = engine.generate("Say the word eos two times.", max_new_tokens=48)
    word = dlm.StopString("eos" if "eos" in asked.text else asked.text[:1])
    ended = engine.generate("Say the word eos two times.", max_new_tokens=48, stop=word)
    assert ended.text == asked.text.split(word)[0]
    config = dlm.GenerationConfig(stop=["eos", dlm.StopString("eos"), "END", "none"])
    assert config.stop_strings() == ("eos", "END")
