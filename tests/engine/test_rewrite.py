"""Tokens that are overwritten while their block is open, and blocks that stay open for it."""

import itertools

import pytest
import torch

from dlm import Engine
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = (5, 9, 33, 12, 40)
LENGTH, BLOCK = 19, 4  # with the prompt six blocks


def new_engine():
    spec = tiny_spec(attention="block_causal", block_length=BLOCK)
    return Engine(random_decoder(spec, seed=3), info_of(spec)), spec.mask_id


def twin(engine, mask, threshold, editing, most):
    """LLaDA2.1's loop, block by block on plain logits; the canvas and how many forwards it took."""
    ids = torch.tensor([*PROMPT, *[mask] * LENGTH])
    forwards = 0
    for start in range(len(PROMPT) // BLOCK * BLOCK, len(ids), BLOCK):
        block, post = range(start, start + BLOCK), 0
        while True:
            is_open = [p for p in block if ids[p] == mask]
            post += not is_open
            if post > most:
                break
            logits = engine.logits(ids[None, : start + BLOCK])[0].clone()
            forwards += 1
            c = logits.softmax(dim=1)
            c[:, mask] = 0
            best, token = c.max(dim=1)
            sure = [p for p in is_open if best[p] > threshold]
            new = sure or sorted(is_open, key=lambda p: -float(best[p]))[:1]
            edits = [p for p in block if p >= len(PROMPT) and p not in is_open
                     and best[p] > editing and token[p] != ids[p]]  # fmt: skip
            for p in (*new, *edits):
                ids[p] = token[p]
            if not is_open and not edits:
                break
    return tuple(ids.tolist()), forwards


@pytest.mark.parametrize(("editing", "most"), [(0.3, 16), (0.3, 1), (0.3, 0), (0.6, 3), (1.0, 16)])
@pytest.mark.parametrize("threshold", [0.2, 0.9])
def test_rewrites_as_the_published_loop(threshold, editing, most):
    engine, mask = new_engine()
    options = {
        "unmask": f"dynamic({threshold})",
        "edit": f"rewrite({editing}, {most})",
        "max_new_tokens": LENGTH,
        "stop": "none",
        "trace": True,
    }
    answer = engine.generate(PROMPT, **options)
    assert (answer.canvas, answer.stats.nfe) == twin(engine, mask, threshold, editing, most)
    rewritten = any(event.type == "replace" for event in answer.trace)
    if editing == 1.0 or most == 16:
        assert rewritten == (editing < 1)


def test_what_may_be_rewritten_is_not_settled():
    engine, _ = new_engine()
    events = list(
        engine.stream(
            PROMPT, unmask="dynamic(0.2)", edit="rewrite(0.3)", max_new_tokens=LENGTH, stop="none"
        )
    )
    settled = itertools.accumulate(
        (event.pos[0] if event.type == "settle" else 0 for event in events), max
    )
    replaced = [(e, s) for e, s in zip(events, settled, strict=True) if e.type == "replace"]
    assert replaced
    assert all(min(event.pos) >= at for event, at in replaced)
    assert sum(event.type == "settle" for event in events) > 2


def test_a_row_ends_after_its_last_edit():
    """The end id may be overwritten until its block has come to rest."""
    engine, mask = new_engine()
    canvas, _ = twin(engine, mask, 0.2, 0.3, 16)
    end = canvas[len(PROMPT) + 4]
    answer = engine.generate(
        PROMPT,
        unmask="dynamic(0.2)",
        edit="rewrite(0.3)",
        max_new_tokens=LENGTH,
        stop=f"eos('block', ({end},), True)",
    )
    behind = canvas[len(PROMPT) :]
    assert answer.ids == behind[: behind.index(end)]
