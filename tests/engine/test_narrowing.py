"""Schedulers that offer a step only some of what is open."""

import itertools

import pytest
import torch

from dlm import Engine
from tests.engine.harness import info_of
from tests.helpers import block_mask, logits, random_decoder, tiny_spec

PROMPT = (5, 9, 33, 12)
PLAIN = {"max_new_tokens": 16, "stop": "none", "trace": True}


@pytest.fixture(scope="module")
def engine():
    spec = tiny_spec()
    return Engine(random_decoder(spec), info_of(spec))


def commits(answer, prompt=PROMPT):
    """The positions of the answer that each step has committed."""
    told = [e for e in answer.trace if e.type == "commit"]
    groups = itertools.groupby(told, key=lambda event: event.step)
    return [sorted(p - len(prompt) for e in group for p in e.pos) for _, group in groups]


def test_left_to_right_is_one_position_after_the_other(engine):
    answer = engine.generate(PROMPT, **PLAIN, unmask="topk('left')", blocks="whole")
    assert commits(answer) == [[n] for n in range(16)]


@pytest.mark.parametrize("cache", ["none", "dual"])
@pytest.mark.parametrize("unmask", ["topk", "threshold(0.02)", "topk('random')", "everything"])
def test_sub_blocks_are_clean_before_the_next_begins(engine, unmask, cache):
    options = {**PLAIN, "unmask": unmask, "cache": cache}
    answer = engine.generate(PROMPT, **options, blocks="sub_blocks(8, sub=3)")
    numbers = [{(p // 8, p % 8 // 3) for p in step} for step in commits(answer)]
    assert all(len(step) == 1 for step in numbers)
    order = [number for (number,) in numbers]
    assert order == sorted(order)
    assert answer.stats.forwards.get("refresh step", 0) == (2 if cache == "dual" else 0)
    if unmask == "everything":
        assert len(order) == 6


def test_sub_blocks_of_the_whole_block_change_nothing(engine):
    options = {**PLAIN, "unmask": "threshold(0.02)", "cache": "dual"}
    whole = engine.generate(PROMPT, **options, blocks="fixed(8)")
    assert engine.generate(PROMPT, **options, blocks="sub_blocks(8, sub=8)").canvas == whole.canvas


def test_sub_blocks_share_forwards_with_other_rows(engine):
    """Their numbers are the rows' own."""
    specs = ("sub_blocks(8, sub=2)", "sub_blocks(8, sub=5)", "fixed(8)", "sliding(3)", "sliding(6)")
    specs = (*specs, "sliding(3, 'open')", "sliding(5, 'open')")
    options = {**PLAIN, "unmask": "topk('random')"}
    requests = [engine.submit(PROMPT, **options, blocks=blocks) for blocks in specs]
    for request, blocks in zip(requests, specs, strict=True):
        alone = engine.generate(PROMPT, **options, blocks=blocks)
        assert request.result().canvas == alone.canvas
        assert request.result().stats.nfe == alone.stats.nfe


@pytest.mark.parametrize("width", [1, 3, 16])
def test_a_window_slides_with_the_first_open_position(engine, width):
    answer = engine.generate(PROMPT, **PLAIN, unmask="topk('random')", blocks=f"sliding({width})")
    left = set(range(16))
    for (position,) in commits(answer):
        assert min(left) <= position < min(left) + width
        left.remove(position)
    assert not left


def dsb(decoder, prompt, new, width, threshold, by):
    """arXiv 2602.05992: the end of what may be committed moves one position with each commit, and
    for the constant window stays within its width of the first open position.
    """
    mask = decoder.spec.mask_id
    canvas, done, steps = [*prompt, *[mask] * new], 0, []
    while mask in canvas[len(prompt) :]:
        is_open = [p for p in range(len(prompt), len(canvas)) if canvas[p] == mask]
        end = min(len(prompt) + width + done, len(canvas))
        if by == "position":
            end = min(end, is_open[0] + width)
        probs = logits(decoder, torch.tensor([canvas]), None)[0].softmax(-1)[:, :mask]
        best = {p: float(probs[p].max()) for p in is_open if p < end}
        sure = [p for p, c in best.items() if c >= threshold]
        sure = sure or [max(best, key=lambda p: (best[p], -p))]
        for p in sure:
            canvas[p] = int(probs[p].argmax())
        done += len(sure)
        steps.append(sorted(p - len(prompt) for p in sure))
    return tuple(canvas), steps


@pytest.mark.parametrize("by", ["position", "open"])
@pytest.mark.parametrize(("width", "threshold"), [(1, 0.5), (4, 0.3), (6, 0.6), (16, 0.5)])
def test_both_windows_equal_the_twin(width, threshold, by):
    different = 0
    for seed in range(3):
        decoder = random_decoder(tiny_spec(), seed)
        blocks = f"sliding({width}, {by!r})"
        answer = Engine(decoder, info_of(decoder.spec)).generate(
            PROMPT, **PLAIN, unmask=f"threshold({threshold})", blocks=blocks
        )
        expected = dsb(decoder, PROMPT, 16, width, threshold, by)
        assert (answer.canvas, commits(answer)) == expected
        different += expected != dsb(decoder, PROMPT, 16, width, threshold, "position")
    assert by == "position" or different or width in (1, 16)


def twin(decoder, spec, prompt, new, block, sub, threshold):
    """Fast-dLLM v2 by the book: sub-block after sub-block, everything computed in every step."""
    canvas = [*prompt, *[spec.mask_id] * new]
    total, steps = len(canvas), []
    for start in range(len(prompt), total, sub):
        is_open = set(range(start, min(start + sub, total)))
        end = total if spec.attention == "full" else (start // block + 1) * block
        while is_open:
            mask = None if spec.attention == "full" else block_mask(end, spec.block_length)
            rows = logits(decoder, torch.tensor([canvas[:end]]), mask)[0].softmax(-1)
            seen = {i: rows[i - int(spec.shift)] for i in is_open}
            best = {i: float(p[: spec.mask_id].max()) for i, p in seen.items()}
            sure = {i for i, c in best.items() if c >= threshold}
            sure = sure or {max(best, key=lambda i: (best[i], -i))}
            for i in sure:
                canvas[i] = int(seen[i][: spec.mask_id].argmax())
            is_open -= sure
            steps.append(sorted(i - len(prompt) for i in sure))
    return canvas[len(prompt) :], steps


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize(
    ("attention", "cache"),
    [("full", "none"), ("block_causal", "none"), ("block_causal", "block_causal")],
)
@pytest.mark.parametrize("sub", [2, 4, 8])
def test_sub_blocks_equal_the_twin(attention, cache, shift, sub):
    block = {"block_length": 8} if attention == "block_causal" else {}
    spec = tiny_spec(attention=attention, shift=shift, **block)
    prompt = tuple(range(3, 11))
    for seed in range(3):
        decoder = random_decoder(spec, seed)
        options = {"unmask": "threshold(0.6)", "blocks": f"sub_blocks(8, sub={sub})"}
        engine = Engine(decoder, info_of(spec))
        answer = engine.generate(prompt, **PLAIN, **options, cache=cache)
        ids, steps = twin(decoder, spec, prompt, 16, 8, sub, 0.6)
        assert list(answer.canvas)[-16:] == ids
        assert commits(answer, prompt) == steps
