"""The share of an answer that is open, at which rows are parked, ends at the first end id."""

from __future__ import annotations

import pytest

import dlm
from dlm.core import Kind
from dlm.engine.node import Node

PROMPT = "Countdown: use 3 7 2 to make 19."
OPTIONS = {"temperature": 1.0, "unmask": "topk", "blocks": "whole", "seed": 1}


@pytest.fixture(scope="module")
def engine():
    return dlm.load("tiny", device="cpu", max_rows=4)


def text_share(node: Node) -> float:
    """The share of the positions before the first end id that is open, counted one by one."""
    still_open = written = 0
    for token, kind in zip(node.ids, node.kinds, strict=True):
        if kind == Kind.COMMITTED and token in node.end_ids:
            break
        still_open += kind >= Kind.MASK
        written += kind == Kind.COMMITTED
    return still_open / max(still_open + written, 1)


@pytest.mark.parametrize("length", [32, 64, 128])
@pytest.mark.parametrize("share", [0.75, 0.5, 0.25])
def test_a_row_is_parked_where_that_share_of_its_text_is_open(engine, length, share):
    once = engine.start(PROMPT, max_new_tokens=length, **OPTIONS)
    twin = engine.fork(once, once.path)
    engine.resume(once, open_ratio=share)
    while not twin.done and text_share(twin) > share:
        engine.resume(twin, steps=1)
    assert not once.done, "the text is longer than that"
    assert once.ids == twin.ids
    assert once.nfe == twin.nfe
    once.close()
    twin.close()


def test_end_ids_alone_park_no_row(engine):
    """Committed end ids say how long the text will be, and nothing of it is there yet."""
    node = engine.start(PROMPT, max_new_tokens=64, **OPTIONS)
    engine.resume(node, open_ratio=0.5)
    ends = sum(
        kind == Kind.COMMITTED and token in node.end_ids
        for token, kind in zip(node.ids, node.kinds, strict=True)
    )
    assert node.nfe - ends >= 5, "tokens of the text"
    node.close()


def test_what_is_given_counts_where_it_can_change(engine):
    """Committed tokens of a canvas are part of the answer; pinned ones are not."""
    ids = engine.text.vocabulary.encode("7-3=4\n", control=False, begin=False)
    canvas = [*ids, *[None] * len(ids)]
    node = engine.start(PROMPT, canvas, **OPTIONS)
    engine.resume(node, open_ratio=0.5)
    assert (node.nfe, len(node.open)) == (0, len(ids))
    node.close()
