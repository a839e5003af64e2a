"""KLASS against its definition, decoded by hand on a tiny model."""

import pytest
import torch

from dlm import Engine
from dlm.errors import InvalidRequest
from dlm.rng import Stream, uniforms
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec
from tests.rules.reopening import ReopensFirst

PROMPT = (5, 9, 33, 12)
LENGTH = 14
MASK = tiny_spec().mask_id


def new_engine(**options):
    spec = tiny_spec()
    return Engine(random_decoder(spec), info_of(spec), **options)


def by_hand(engine, threshold, kl, history, block=LENGTH, ahead=0, temperature=0.0, seed=0):
    """arXiv 2511.05664 block by block: all that is sure and calm, else the surest.

    A block's first step looks `ahead` so many positions, the others at the block alone. At any
    temperature, calm and confidence are of the distribution at temperature 1.
    """
    ids = [*PROMPT, *[MASK] * LENGTH]
    still_open = set(range(len(PROMPT), len(ids)))
    last, calm, steps, together = {}, [0] * len(ids), 0, 0
    for start in range(len(PROMPT), len(ids), block):
        end, opening = min(start + block, len(ids)), True
        while not still_open.isdisjoint(range(start, end)):
            logp = torch.log_softmax(engine.logits(torch.tensor([ids]))[0].double(), dim=1)
            logp[:, MASK] = -torch.inf
            token = drawn(logp, temperature, seed, steps)
            c = logp.gather(1, token[:, None])[:, 0].exp()
            for p in range(start, min(start + ahead, len(ids)) if opening and ahead else end):
                moved = torch.inf
                if p in last:
                    terms = logp[p].exp() * (logp[p] - last[p])
                    moved = float(terms.nan_to_num(nan=0.0).sum())
                calm[p] = calm[p] + 1 if moved < kl else 0
                last[p] = logp[p]
            inside = still_open.intersection(range(start, end))
            ready = {p for p in inside if calm[p] >= history and c[p] > threshold}
            together += len(ready) > 1
            if not ready:
                ready = {max(inside, key=lambda p: (float(c[p]), -p))}
            for p in ready:
                ids[p] = int(token[p])
            still_open -= ready
            steps, opening = steps + 1, False
    return tuple(ids), steps, together


def drawn(logp, temperature, seed, step):
    """The best ids; of a temperature, those where the cumulated probabilities pass a uniform."""
    if temperature == 0:
        return logp.argmax(dim=1)
    ends = (logp / temperature).softmax(dim=1).cumsum(dim=1)
    key = torch.tensor([seed]), torch.tensor([0]), torch.arange(len(logp)), torch.tensor([step])
    u = uniforms(*key, Stream.DRAW)[0]
    return (ends <= u[:, None]).sum(dim=1)


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


@pytest.mark.parametrize("block", [5, 7])
@pytest.mark.parametrize(
    ("threshold", "kl", "history"), [(0.0, 0.6, 1), (0.05, 2.0, 2), (0.0, 2.5, 3), (0.2, 1.0, 1)]
)
def test_every_block_waits_for_its_own_calm(threshold, kl, history, block):
    engine = new_engine()
    options = {"unmask": f"klass({threshold}, {kl}, {history})", "stop": "none"}
    answer = engine.generate(PROMPT, max_new_tokens=LENGTH, blocks=f"fixed({block})", **options)
    canvas, steps, together = by_hand(engine, threshold, kl, history, block)
    assert (answer.canvas, answer.stats.nfe) == (canvas, steps)
    assert together > 0


@pytest.mark.parametrize("history", [2, 3, 4])
def test_what_is_reopened_must_be_calm_anew(history):
    """Nothing ever moves, so that a block takes one more step than the history is long. What is
    committed before the block has no logits; reopened there, the least confident position of all
    is committed for nothing but its calm.
    """
    engine = new_engine()

    def unmoved(packed, kv):
        logits = torch.zeros(len(packed.logit_rows), tiny_spec().vocab_size)
        logits[:, 10] = 1 + packed.positions[packed.logit_rows] / 10
        return logits

    engine.manager.model = unmoved
    reopened, first = history + 3, len(PROMPT)  # in the second step of the second block
    options = {
        "unmask": f"klass(0.0, 0.01, {history})",
        "blocks": "fixed(7)",
        "cache": "dual(on_edit='requery')",
        "edit": ReopensFirst(reopened - 1),
        "stop": "none",
    }
    answer = engine.generate(PROMPT, max_new_tokens=LENGTH, trace=True, **options)
    steps = [e.step for e in answer.trace if e.type in ("commit", "remask") and first in e.pos]
    assert steps == [history + 1, reopened, reopened + history]


@pytest.mark.parametrize("kl", [0.3, 2.0, 5.0])
def test_a_block_that_opens_remembers_what_was_seen_ahead(kl):
    """AdaBlock scores the whole canvas where a block opens; no delimiter is sure enough here."""
    engine = new_engine()
    blocks = "adaptive(4, window=1.0, threshold=1.0, delimiters=(10,))"
    options = {"unmask": f"klass(0.0, {kl}, 1)", "blocks": blocks, "stop": "none"}
    answer = engine.generate(PROMPT, max_new_tokens=LENGTH, **options)
    canvas, steps, _ = by_hand(engine, 0.0, kl, 1, block=4, ahead=LENGTH)
    assert (answer.canvas, answer.stats.nfe) == (canvas, steps)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize(("threshold", "kl", "history"), [(0.0, 0.3, 1), (0.1, 0.6, 2)])
def test_calm_and_sure_are_of_the_clean_distribution_at_any_temperature(
    threshold, kl, history, temperature, seed
):
    engine = new_engine()
    warm = {"temperature": temperature, "seed": seed}
    options = {"unmask": f"klass({threshold}, {kl}, {history})", "blocks": "fixed(7)", **warm}
    answer = engine.generate(PROMPT, max_new_tokens=LENGTH, stop="none", **options)
    canvas, steps, _ = by_hand(engine, threshold, kl, history, block=7, **warm)
    assert (answer.canvas, answer.stats.nfe) == (canvas, steps)


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
