"""A reward of the caller's own tilts the logits."""

import math

import pytest
import torch

from dlm.config.spec_strings import parse_part
from dlm.errors import InvalidRequest, RuleError, culprit_of
from dlm.guidance.tilt import Tilt
from tests.engine import guide_twins
from tests.engine.harness import Bench
from tests.engine.test_guides import BLOCK, NEW, PLAIN
from tests.engine.test_hard_cases import VOCAB, assert_same, decoder_of, prompt_of
from tests.engine.test_nodes import new_engine


def near_the_left(frame, logits):
    """Ids near that of the position before are welcome; MASK there says nothing."""
    flat, first = frame.window.slot, frame.window.slot % frame.ids.shape[1] == 0
    left = frame.ids.take((flat - 1).clamp_min(0))[:, None]
    ids = torch.arange(logits.shape[1], device=logits.device)
    bonus = -0.1 * (ids - left).abs().float()
    return torch.where((first | (left[:, 0] == VOCAB - 1))[:, None], 0.0, bonus)


def small(frame, logits, ids):
    return -0.05 * ids.float()


def twin_near(run, rows, inside):
    found = {}
    for p in run.open.intersection(inside):
        left = run.ids[p - 1]
        said = p > inside[0] and left != run.mask
        found[p] = torch.tensor(
            [x - 2.0 * 0.1 * abs(i - left) * said for i, x in enumerate(rows[p].tolist())]
        )
    return found


def twin_small(run, rows, inside):
    """The five most likely ids but MASK, each 0.05 times its number worse."""
    found = {}
    for p in run.open.intersection(inside):
        row = rows[p].tolist()
        ranked = sorted((-x, i) for i, x in enumerate(row) if i != run.mask)
        run.decided(ranked[5][0] - ranked[4][0])
        for _, i in ranked[:5]:
            row[i] -= 3.0 * 0.05 * i
        found[p] = torch.tensor(row)
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("guide", "change"),
    [(Tilt(near_the_left, 2.0), twin_near), (Tilt(small, 3.0, candidates=5), twin_small)],
    ids=["all ids", "candidates"],
)
def test_a_tilted_row_equals_its_twin_alone_and_in_company(guide, change, seed):
    decoder = decoder_of(seed)
    options = {**PLAIN, "unmask": "threshold(0.6)"}
    bench = Bench(decoder)
    prompts = [prompt_of(n, seed + n) for n in (5, 9)]
    states = [bench.state(prompt, **options, guide=guide) for prompt in prompts]
    plain = bench.state(prompts[0], **options)
    traces = bench.run(*states, plain, after={1: 2})
    for prompt, trace in zip(prompts, traces, strict=False):
        run = guide_twins.decoded(decoder, prompt, NEW, BLOCK, 0.6, change)
        assert_same(trace, run)
    assert plain.canvas.ids != states[0].canvas.ids


def test_an_id_may_be_barred():
    def no_end(frame, logits):
        return torch.zeros_like(logits).index_fill_(1, torch.tensor([1, 2]), -math.inf)

    engine, _ = new_engine({})
    barred = engine.generate((4, 5), max_new_tokens=16, guide=Tilt(no_end, 0.5))
    assert (
        barred.canvas == engine.generate((4, 5), max_new_tokens=16, guide="forbid((1, 2))").canvas
    )


def test_what_the_reward_does_to_its_logits_does_not_matter():
    def careless(frame, logits):
        logits.zero_()
        return torch.zeros_like(logits)

    engine, _ = new_engine({})
    plain = engine.generate((4, 5), max_new_tokens=16)
    assert engine.generate((4, 5), max_new_tokens=16, guide=Tilt(careless)).canvas == plain.canvas


def test_a_row_whose_reward_raises_ends_alone_and_says_whose_fault_it_is():
    def moody(frame, logits):
        if bool(((frame.row.prompt == 3) & (frame.row.step == 2)).any()):
            raise LookupError("no reward for this one")
        return torch.zeros_like(logits)

    engine, _ = new_engine({})
    guide, options = Tilt(moody), {"max_new_tokens": 16, "unmask": "topk", "stop": "none"}
    good, bad = (engine.submit(p, guide=guide, **options) for p in ((4, 5), (4, 5, 6)))
    with pytest.raises(LookupError, match="no reward") as raised:
        bad.result()
    told = culprit_of(raised.value)
    assert told is not None
    assert "Tilt by" in str(told)
    assert "moody" in str(told)
    assert "test_tilt.py" in str(told)
    assert good.result().canvas == engine.generate((4, 5), **options).canvas
    engine.scheduler.check_integrity()
    assert engine.kv.pages.in_use == 0


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda frame, logits: None, r"must return a tensor \[\d+, 64\] on cpu, got None"),
        (lambda frame, logits: logits[:, :3], r"must return a tensor \[\d+, 64\] .* \[\d+, 3\]"),
        (lambda frame, logits: logits * math.nan, "must leave every position an id, with no NaN"),
        (lambda frame, logits: logits - math.inf, "must leave every position an id"),
        (lambda frame, logits: logits.abs() * math.inf, "no [+]inf"),
    ],
)
def test_what_is_no_reward_is_told(reward, message):
    engine, _ = new_engine({})
    with pytest.raises(RuleError, match=message):
        engine.generate((4, 5), max_new_tokens=8, guide=Tilt(reward))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tilt("os:system"), "`reward` must be a callable, which only Python can give"),
        (lambda: Tilt(small, 0.0), "`strength` must be above 0"),
        (lambda: Tilt(small, candidates=0), "`candidates` must be at least 1"),
        (lambda: Tilt(small, candidates=64), "`candidates` must be at most 63, got 64"),
        (lambda: "tilt('os:system')", "`reward` must be a callable, which only Python can give"),
        (lambda: "tilt", "lacks 'reward'"),
    ],
)
def test_what_cannot_be_asked_is_refused(make, message):
    with pytest.raises(InvalidRequest, match=message):
        new_engine({})[0].submit((4, 5), guide=make())


def test_no_text_names_a_reward():
    """Nothing that a request over HTTP may say becomes a callable."""
    for spec in ("tilt('builtins:print')", "tilt(reward='print')", "tilt((1,))", "tilt(None)"):
        with pytest.raises(InvalidRequest, match="only Python can give"):
            parse_part("guide", spec, trusted=False)
