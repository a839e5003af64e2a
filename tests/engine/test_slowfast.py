"""SlowFast against its definition, decoded by hand on a tiny model."""

import pytest
import torch

from dlm import Engine
from dlm.errors import InvalidRequest
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = (5, 9, 33, 12)
MASK = tiny_spec().mask_id
NUMBERS = [(0.9, 0.3, 6), (0.5, 0.3, 2), (0.25, 0.2, 3), (0.3, 0.05, 1), (0.0, 0.0, 4)]
LIMITED = [(0.9, 0.5, 1), (0.9, 0.5, 2), (0.9, 0.4, 3)]
"""Here estimates disagree until `explore` steps are over."""


def new_engine(seed=0, **options):
    spec = tiny_spec()
    return Engine(random_decoder(spec, seed), info_of(spec), **options)


def by_hand(engine, prompt, new, block, threshold, low, explore):
    """arXiv 2506.10848: explore the rest of the block until two ends agree, then fill up to it."""
    ids = [*prompt, *[MASK] * new]
    steps, phases = 0, []
    for start in range(len(prompt), len(ids), block):
        still_open = set(range(start, min(start + block, len(ids))))
        while still_open:
            ends, cycle = [], set()
            while still_open and not cycle:  # slow
                c, token = look(engine, ids)
                certain = [p for p in still_open if c[p] >= low]
                ends.append(max(certain, default=min(still_open)) + 1)
                agreed = len(ends) > 1 and abs(ends[-1] - ends[-2]) <= 1
                take(ids, still_open, still_open, c, token, threshold)
                steps += 1
                phases.append("slow")
                if agreed or len(ends) == explore:
                    cycle = {p for p in still_open if p < ends[-1]}
                    if not cycle:
                        ends = []
            while cycle:  # fast
                c, token = look(engine, ids)
                take(ids, still_open, cycle, c, token, threshold)
                cycle &= still_open
                steps += 1
                phases.append("fast")
    return tuple(ids), steps, phases


def look(engine, ids):
    probs = torch.softmax(engine.logits(torch.tensor([ids]))[0].double(), dim=1)
    probs[:, MASK] = -1
    return [values.tolist() for values in probs.max(dim=1)]


def take(ids, still_open, among, c, token, threshold):
    sure = {p for p in among if c[p] >= threshold}
    if len(sure) < 2:
        sure = {max(among, key=lambda p: (c[p], -p))}
    for p in sure:
        ids[p] = token[p]
    still_open -= sure


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("block", [6, 18])
@pytest.mark.parametrize("numbers", NUMBERS + LIMITED)
def test_phases_take_turns(numbers, block, seed):
    engine = new_engine(seed)
    rule = f"slowfast{numbers}"
    answer = engine.generate(
        PROMPT, max_new_tokens=18, unmask=rule, blocks=f"fixed({block})", stop="none"
    )
    canvas, steps, _ = by_hand(engine, PROMPT, 18, block, *numbers)
    assert answer.canvas == canvas
    assert answer.stats.nfe == steps


def test_the_definition_knows_both_phases():
    phases = [by_hand(new_engine(), PROMPT, 18, 18, *numbers)[2] for numbers in NUMBERS]
    assert any("fast" in found and "slow" in found for found in phases)


@pytest.mark.parametrize(("threshold", "low", "explore"), LIMITED)
def test_the_definition_ends_an_exploration_that_finds_no_agreement(threshold, low, explore):
    """One more step of exploring would make another decoding of it."""

    def phases(seed, most):
        return by_hand(new_engine(seed), PROMPT, 18, 18, threshold, low, most)[2]

    assert any(phases(seed, explore) != phases(seed, explore + 1) for seed in range(3))


def test_rows_have_phases_of_their_own():
    engine = new_engine()
    options = {"unmask": "slowfast(0.3, 0.2, 3)", "blocks": "fixed(9)", "stop": "none"}
    wanted = [(PROMPT, 9), (PROMPT[:2], 20), (PROMPT[:3], 14)]
    requests = [engine.submit(p, max_new_tokens=n, **options) for p, n in wanted]
    for request, (prompt, count) in zip(requests, wanted, strict=True):
        alone = new_engine(unroll=3).generate(prompt, max_new_tokens=count, **options)
        assert request.result().canvas == alone.canvas
        assert request.result().stats.nfe == alone.stats.nfe


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("slowfast(0.3, 0.5)", "0 <= low <= threshold <= 1, got 0.5 and 0.3"),
        ("slowfast(explore=0)", "`explore` must be at least 1, got 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(rule, message):
    with pytest.raises(InvalidRequest, match=message):
        new_engine().submit(PROMPT, unmask=rule)
