"""Streamers of transformers, and answers from endless iterables."""

import itertools
import threading

import pytest
import torch

import dlm
from dlm.errors import InvalidRequest

PROMPT = "Say the word lion three times."


@pytest.fixture(scope="module")
def engine():
    return dlm.load("tiny", device="cpu")


class Recorder:
    """Writes down what it is given."""

    def __init__(self):
        self.puts, self.drafts, self.ended = [], [], 0

    def put(self, value):
        assert value.dim() == 1
        assert not self.ended
        self.puts.append(value.tolist())

    def put_draft(self, value):
        self.drafts.append(value.tolist())

    def end(self):
        self.ended += 1


@pytest.mark.parametrize(
    "options",
    [
        {"unmask": "topk", "blocks": "fixed(4)"},
        {"unmask": "threshold(0.6)", "cache": "dual"},
        {"unmask": "everything", "edit": "rcr(16)", "blocks": "fixed(8)"},
        {"unmask": "topk", "stop": ["n l"]},
    ],
)
def test_a_streamer_gets_the_prompt_then_the_answer_once(engine, options):
    recorder = Recorder()
    answer = engine.generate(PROMPT, max_new_tokens=32, streamer=recorder, **options)
    prompt, *parts = recorder.puts
    assert prompt == list(answer.prompt_ids)
    put = [token for part in parts for token in part]
    if "stop" in options:  # it cuts the last token
        assert engine.text.decode(put) == answer.text
    else:
        assert put == list(answer.ids)
    assert recorder.ended == 1
    assert len(recorder.drafts) >= answer.stats.nfe - 1
    assert answer.ids == engine.generate(PROMPT, max_new_tokens=32, **options).ids
    if options.get("blocks") == "fixed(4)":
        assert len(parts) > 1, "what has settled is put before the end"


def test_without_put_draft_there_are_no_drafts(engine):
    class Plain:
        puts, ended = 0, False

        def put(self, value):
            self.puts += 1

        def end(self):
            self.ended = True

    plain = Plain()
    engine.generate(PROMPT, max_new_tokens=16, streamer=plain)
    assert plain.puts >= 2
    assert plain.ended


def test_streamers_of_transformers_work_as_they_are(engine, capsys):
    from transformers import AutoTokenizer, TextIteratorStreamer, TextStreamer

    tokenizer = AutoTokenizer.from_pretrained(dlm.engine.load.BUNDLED / "tiny")
    options = {"max_new_tokens": 32, "unmask": "topk", "blocks": "fixed(4)"}
    answer = engine.generate(PROMPT, **options, streamer=TextStreamer(tokenizer, skip_prompt=True))
    assert capsys.readouterr().out.strip() == answer.text.strip()
    iterated = TextIteratorStreamer(tokenizer, skip_prompt=True)
    thread = threading.Thread(
        target=engine.generate, args=(PROMPT,), kwargs={**options, "streamer": iterated}
    )
    thread.start()
    assert "".join(iterated).strip() == answer.text.strip()
    thread.join()


def test_a_streamer_that_raises_ends_its_row(engine):
    class Broken(Recorder):
        def put_draft(self, value):
            raise RuntimeError("the terminal is gone")

    broken = Broken()
    with pytest.raises(RuntimeError, match="the terminal is gone"):
        engine.generate(PROMPT, max_new_tokens=16, streamer=broken)
    assert broken.ended == 1
    assert engine.kv.pages.in_use == 0


def test_a_streamer_follows_one_answer(engine):
    for prompt, n in (([PROMPT, PROMPT], 1), (PROMPT, 2)):
        with pytest.raises(InvalidRequest, match="follows one answer"):
            engine.generate(prompt, n=n, streamer=Recorder())


def test_map_answers_an_endless_iterable_in_order(engine):
    asked = []

    def prompts():
        for number in itertools.count():
            asked.append(number)
            yield f"Say the word lion {('two', 'three', 'four')[number % 3]} times."

    answers = engine.map(prompts(), in_flight=4, max_new_tokens=24)
    found = [answer.text for answer in itertools.islice(answers, 9)]
    assert len(asked) <= 13
    answers.close()
    assert engine.kv.pages.in_use == 0
    assert engine.scheduler.live == 0
    alone = [engine.generate(p, max_new_tokens=24).text for p in itertools.islice(prompts(), 3)]
    assert found == alone * 3


def test_map_of_nothing_and_of_what_is_wrong(engine):
    assert list(engine.map([], max_new_tokens=8)) == []
    with pytest.raises(
        InvalidRequest, match="`in_flight`: must be an integer of at least 1, got 0"
    ):
        engine.map([PROMPT], in_flight=0)
    with pytest.raises(InvalidRequest, match="ids must be between"):
        list(engine.map([torch.tensor([5000])], max_new_tokens=8))
    assert engine.kv.pages.in_use == 0
