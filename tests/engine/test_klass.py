"""KLASS against its definition, decoded by hand on a tiny model."""

import pytest
import torch

from dlm import Engine
from dlm.errors import InvalidRequest
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = (5, 9, 33, 12)
LENGTH = 14
MASK = tiny_spec().mask_id


def new_engine(**options):
    spec = tiny_spec()
    return Engine(random_decoder(spec), info_of(spec), **options)


def by_hand(engine, threshold, kl, history):
    """arXiv 2511.05664 on a whole canvas: all that is sure and calm, else the surest."""
    ids = [*PROMPT, *[MASK] * LENGTH]
    still_open = set(range(len(PROMPT), len(ids)))
    last, calm, steps, together = None, [0] * len(ids), 0, 0
    while still_open:
        logp = torch.log_softmax(engine.logits(torch.tensor([ids]))[0].double(), dim=1)
        logp[:, MASK] = -torch.inf
        c, token = logp.exp().max(dim=1)
        for p in range(len(ids)):
            moved = torch.inf
            if last is not None:
                terms = logp[p].exp() * (logp[p] - last[p])
                moved = float(terms.nan_to_num(nan=0.0).sum())
            calm[p] = calm[p] + 1 if moved < kl else 0
        ready = {p for p in still_open if calm[p] >= history and c[p] > threshold}
        together += len(ready) > 1
        if not ready:
            ready = {max(still_open, key=lambda p: (float(c[p]), -p))}
        for p in ready:
            ids[p] = int(token[p])
        still_open -= ready
        last, steps = logp, steps + 1
    return tuple(ids), steps, together


@pytest.mark.parametrize("unroll", [1, 3])
@pytest.mark.parametrize(
    ("threshold", "kl", "history"),
    [(0.0, 0.15, 2), (0.05, 0.3, 1), (0.05, 0.3, 2), (0.0, 0.6, 3), (0.9, 0.01, 2)],
)
def test_sure_and_calm_positions_are_committed(threshold, kl, history, unroll):
    engine = new_engine(unroll=unroll)
    rule = f"klass({threshold}, {kl}, {history})"
    answer = engine.generate(
        PROMPT, max_new_tokens=LENGTH, unmask=rule, blocks="whole", stop="none"
    )
    canvas, steps, together = by_hand(engine, threshold, kl, history)
    assert answer.canvas == canvas
    assert answer.stats.nfe == steps
    assert bool(together) == (threshold < 0.9)


def test_rows_of_different_lengths_remember_their_own():
    engine = new_engine()
    options = {"unmask": "klass(0.0, 0.3, 1)", "blocks": "fixed(6)", "stop": "none"}
    wanted = [(PROMPT, 9), (PROMPT[:2], 20), (PROMPT[:3], 14)]
    requests = [engine.submit(p, max_new_tokens=n, **options) for p, n in wanted]
    for request, (prompt, count) in zip(requests, wanted, strict=True):
        alone = new_engine().generate(prompt, max_new_tokens=count, **options)
        assert request.result().canvas == alone.canvas
        assert request.result().stats.nfe == alone.stats.nfe


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("klass(1.5)", "`threshold` must be between 0 and 1"),
        ("klass(kl=-1.0)", "`kl` must be at least 0"),
        ("klass(history=0)", "`history` must be at least 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(rule, message):
    with pytest.raises(InvalidRequest, match=message):
        new_engine().submit(PROMPT, unmask=rule)
