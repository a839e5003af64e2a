"""Infill: holes anywhere, pinned positions, and what stands around them."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dlm
from dlm.core import Kind
from dlm.errors import InvalidRequest
from dlm.text import parse_holes
from tests.engine.harness import Bench
from tests.engine.test_hard_cases import assert_same, decoder_of
from tests.helpers import random_decoder, tiny_spec
from tests.twins import Keys, Run, dense

TEMPLATES = st.lists(st.none() | st.integers(0, 63), min_size=1, max_size=20)
PROMPT = [9, 8, 7]


def filled(decoder, prompt, pinned, block, threshold, *, cached):
    """A textbook: fixed blocks that start where the next hole does; with keys that are renewed
    where a block opens, or without a cache.
    """
    run, keys = Run(decoder, prompt, len(prompt) + len(pinned)), Keys(decoder)
    for p, token in enumerate(pinned, start=len(prompt)):
        if token is not None:
            run.ids[p] = token
            run.open.discard(p)
    run.canvases = [list(run.ids)]
    trained = decoder.spec.block_length or 1
    while run.open:
        start = min(run.open) // trained * trained
        end, opening = min(start + block, len(run.ids)), True
        while not run.open.isdisjoint(range(end)):
            if cached:
                look = [start - 1] if decoder.spec.shift and start and not opening else []
                queries = range(len(run.ids)) if opening else range(start, end)
                rows = keys.forward(run.ids, queries, look)
            else:
                rows = dense(decoder, run.ids, trained if trained > 1 else 0)
            kind = "refresh step" if cached and opening else "step"
            guesses = run.guesses(kind, rows, range(end))
            sure = run.above(guesses, threshold)
            run.commit(sure or run.best({p: c for p, (_, c) in guesses.items()}, 1), guesses)
            run.end_step()
            opening = False
    return run


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("cache", ["none", "dual"])
@given(TEMPLATES, st.integers(1, 9), st.sampled_from([0.0, 0.05, 1.0]), st.integers(0, 3))
@settings(max_examples=40)
def test_holes_are_filled_block_by_block(cache, shift, pinned, block, threshold, seed):
    decoder = decoder_of(seed, shift=shift, eos_ids=())
    if None not in pinned:
        return
    options = {"unmask": f"threshold({threshold})", "blocks": f"fixed({block})", "cache": cache}
    trace = Bench(decoder).decode(PROMPT, infill=pinned, stop="none", **options)
    twin = filled(decoder, PROMPT, pinned, block, threshold, cached=cache == "dual")
    assert_same(trace, twin)


@given(TEMPLATES, st.sampled_from([4, 8]), st.integers(0, 3), st.sampled_from([0.0, 0.05, 1.0]))
@settings(max_examples=60)
def test_block_causal_keys_of_given_blocks_are_stored(pinned, block, seed, threshold):
    """What is given between holes is stored with the blocks around it; nothing stays stale."""
    decoder = decoder_of(seed, attention="block_causal", block_length=4, eos_ids=())
    pinned = [*pinned, *[5] * (-(len(PROMPT) + len(pinned)) % 4)]  # whole blocks
    if None not in pinned:
        return
    options = {"unmask": f"threshold({threshold})", "blocks": f"fixed({block})"}
    trace = Bench(decoder).decode(PROMPT, infill=pinned, stop="none", **options)
    assert_same(trace, filled(decoder, PROMPT, pinned, block, threshold, cached=False))
    assert not any(forward.foreign for forward in trace.forwards)


def test_a_block_that_is_given_costs_no_forward():
    decoder = decoder_of(1, attention="block_causal", block_length=4)
    pinned = [None, *[5] * 20, None, None, None]
    trace = Bench(decoder).decode([9] * 4, infill=pinned, unmask="threshold(0.0)", stop="none")
    assert len(trace.forwards) == 2
    assert trace.forwards[1].written >= set(range(4, 28)), "they are stored with the next step"


def test_the_mask_in_prompt_ids_stays():
    engine = dlm.load()
    mask = engine.info.mask_id
    answer = engine.generate([2, 5, mask, 40, 6], infill=[40, None], unmask="topk")
    assert answer.prompt_ids == answer.canvas[:5] == (2, 5, mask, 40, 6)


@pytest.mark.parametrize(
    ("infill", "same"),
    [
        ([30, 4, None, 31], [30, None, None, 31]),
        ([4, 4, 4], [None] * 3),
        ({1: 4, 2: [30, 4, 31], 6: 40}, {2: 30, 4: 31, 6: 40}),
        (["4", 30], None),
    ],
)
def test_the_mask_among_given_ids_is_a_hole(infill, same):
    engine = dlm.load()
    assert engine.info.mask_id == 4
    if same is None:
        with pytest.raises(InvalidRequest, match="infill"):
            engine.generate("hello", infill=infill)
        return
    options = {"max_new_tokens": 8, "unmask": "topk", "stop": "none"}
    answer, expected = (engine.generate("hello", infill=i, **options) for i in (infill, same))
    assert answer == replace(expected, stats=answer.stats)
    assert 4 not in answer.ids
    told = [engine.explain(infill=i, **options).canvas for i in (infill, same)]
    assert told[0] == told[1]


def test_text_with_holes():
    engine = dlm.load()
    question = "Nina has 3 shells and wins 4. How many has she?"
    answer = engine.generate(question, infill="3+4=[[mask:1]]\n\\boxed{[[mask:1]]}")
    assert answer.text == "3+4=7\n\\boxed{7}"
    assert answer.holes == ("7", "7")
    assert (answer.finish_reason, answer.stats.tokens) == ("stop", 2)
    assert sum(x == x for x in answer.logprobs) == 2, "what is given has no confidence"
    raw = engine.generate("", infill="Dear [[mask:3]],\nhello.\n")
    assert raw.prompt_ids == tuple(engine.text.encode_prompt("", chat=False)), "no turn of a user"
    assert raw.text.startswith("Dear ")
    assert raw.text.endswith(",\nhello.\n")


def test_an_answer_may_go_on_behind_the_template_and_end_there():
    engine = dlm.load()
    answer = engine.generate("Say the word lion four times.", infill="lion[[mask:2]]",
                             max_new_tokens=40)  # fmt: skip
    assert answer.text == "lion lion lion lion"
    assert answer.finish_reason == "stop"
    assert len(answer.canvas) == len(answer.prompt_ids) + 40


def test_constraints_by_offset():
    engine = dlm.load()
    places = {0: "lion", "4": engine.text.encode(" cow"), 9: 40}
    answer = engine.generate("Say the word lion four times.", infill=places, max_new_tokens=16,
                             stop="none")  # fmt: skip
    ids = answer.canvas[len(answer.prompt_ids) :]
    assert list(ids[:2]) == engine.text.encode("lion")
    assert list(ids[4:6]) == engine.text.encode(" cow")
    assert ids[9] == 40


def test_no_answer_ends_inside_a_hole():
    """Ends are struck out up to the last given position, and nowhere else."""
    spec = tiny_spec(eos_ids=tuple(range(1, 60)))
    bench = Bench(random_decoder(spec, 2))
    trace = bench.decode(PROMPT, infill=[None, None, 61, None, 61, None, None, None], unmask="topk")
    answer = trace.canvases[-1][len(PROMPT) :]
    assert not {answer[p] for p in (0, 1, 3)} & set(spec.eos_ids)
    assert answer[5] in spec.eos_ids


def test_the_steps_of_a_schedule_go_to_what_is_open():
    bench = Bench(decoder_of(0))
    pinned = [None] * 4 + [5] * 10 + [None] * 8
    trace = bench.decode(
        PROMPT, infill=pinned, unmask="topk", steps=6, blocks="fixed(8)", stop="none"
    )
    left = [sum(kind == Kind.MASK for kind in kinds) for kinds in trace.kinds]
    assert left == [12, 10, 8, 6, 4, 2, 0]


def test_choices_and_editors_leave_what_is_given():
    engine = dlm.load()
    options = {"infill": "[[mask:6]] lion [[mask:6]]", "temperature": 1.2, "stop": "none"}
    first = engine.generate("hello", n=3, **options)
    edited = engine.generate("hello", unmask="everything", edit="rcr(6)", **options)
    for answer in (*first.choices, edited):
        assert answer.text.count(" lion ") >= 1
        assert len(answer.holes) == 2


@pytest.mark.parametrize(
    ("infill", "tokens", "canvas", "forwards"),
    [
        ([None, 5, 63, None, None], None, "5 positions, 2 of them given", "3 forwards"),
        ([None, 5, None, None], 9, "9 positions, 1 of them given", "8 forwards"),
        ({3: 7, 4: [0, 8]}, 20, "20 positions, 3 of them given", "17 forwards"),
        ([None] * 3, None, "3 positions, 0 of them given", "3 forwards"),
    ],
)
def test_explain_counts_what_is_given_and_what_is_left(infill, tokens, canvas, forwards):
    bench = Bench(decoder_of(0))
    engine = dlm.Engine(bench.decoder, bench.info)
    told = engine.explain(infill=infill, max_new_tokens=tokens, unmask="topk", stop="none")
    assert told.canvas == f"{canvas}, full attention"
    assert told.cost.split(";")[0] == forwards
    answer = engine.generate(
        PROMPT, infill=infill, max_new_tokens=tokens, unmask="topk", stop="none"
    )
    assert f"{answer.stats.nfe} forwards" == forwards


REFUSED = [
    ({"infill": "no hole"}, "must leave something open"),
    ({"infill": ""}, "must leave something open"),
    ({"infill": "[[mask:0]]"}, "at least 1 position"),
    ({"infill": "[[mask:many]]"}, r"written \[\[mask:N\]\]"),
    ({"infill": "[[mask]]"}, r"written \[\[mask:N\]\]"),
    ({"infill": "ab[[mask:9]]", "max_new_tokens": 4}, "at least the 11 positions"),
    ({"infill": {0: "lion", 1: "x"}}, "'x' at 1 overlaps"),
    ({"infill": {300: "lion"}}, "ends the canvas at 128"),
    ({"infill": {-1: "lion"}}, "at least 0, got -1"),
    ({"infill": {0: ""}}, "a text, an id or ids, got ''"),
    ({"infill": {0: 1.5}}, "a text, an id or ids, got 1.5"),
    ({"infill": 7}, "must be a text with holes"),
    ({"infill": [1, "a"]}, "must be a text with holes"),
    ({"infill": [2000, None]}, "between 0 and 1023, got 2000"),
    ({"infill": "a\n[[mask:3]]", "stop": "\n"}, "would end the answer there"),
    ({"infill": "[[mask:9000]]"}, "a canvas of 90"),
]


@pytest.mark.parametrize(("options", "reason"), REFUSED)
def test_refused_with_the_reason(options, reason):
    with pytest.raises(InvalidRequest, match=reason):
        dlm.load().generate("hello", **options)


def test_an_empty_prompt_needs_something_given():
    shifted = Bench(decoder_of(0, shift=True))
    engine = dlm.Engine(shifted.decoder, shifted.info)
    with pytest.raises(InvalidRequest, match="prompt"):
        engine.submit([], infill=[None, 5])
    assert engine.submit([], infill=[5, None], stop="none").result().canvas[0] == 5
    with pytest.raises(InvalidRequest, match="without a tokenizer"):
        engine.generate([5], infill="a[[mask:3]]")


@given(st.lists(st.text("ab\n[]:", max_size=6) | st.integers(1, 99), max_size=6))
def test_parsing_gives_back_what_was_written(parts):
    written = "".join(f"[[mask:{part}]]" if isinstance(part, int) else part for part in parts)
    found = parse_holes("infill", written)
    assert "".join(f"[[mask:{p}]]" if isinstance(p, int) else p for p in found) == written
    assert [p for p in found if isinstance(p, int)] == [p for p in parts if isinstance(p, int)]


def test_infill_is_seen_in_a_batch_as_alone():
    engine = dlm.load()
    prompts = ["Compute 3*7.", "Say the word lion four times."]
    alone = [engine.generate(p, infill="[[mask:3]] and [[mask:5]]") for p in prompts]
    batch = engine.generate(prompts, infill="[[mask:3]] and [[mask:5]]")
    assert [a.ids for a in batch] == [a.ids for a in alone]
