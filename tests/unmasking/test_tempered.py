"""Rules that read the distribution tokens are drawn from, as Dream and SDAR do."""

import itertools
import math

import pytest
import torch

from dlm import Engine
from dlm.core import SamplingStats
from dlm.unmasking.unmask.threshold import Dynamic
from dlm.unmasking.unmask.topk import TopK
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec
from tests.unmasking.views import make_view

PROMPT = (5, 9, 33, 12)
LENGTH, STEPS, EPS = 24, 8, 1e-3
MASK = tiny_spec().mask_id


def new_engine():
    return Engine(random_decoder(tiny_spec()), info_of(tiny_spec()))


def drawn_from(row, temperature, top_p, top_k):
    """Ids and their shares of a row of logits, as Dream's `sample_tokens` leaves them.

    MASK, which Dream's models never say, is struck out before a filter.
    """
    row = row.double() / (temperature or 1.0)
    if top_p < 1 or top_k:
        row[MASK] = -torch.inf
    probs = torch.softmax(row, dim=0)
    shares, ids = probs.sort(descending=True, stable=True)
    before = shares.cumsum(0) - shares
    kept = [n for n in range(len(ids)) if before[n] < top_p and (not top_k or n < top_k)]
    total = float(shares[kept].sum())
    return {int(ids[n]): float(shares[n]) / total for n in kept}


def score_of(alg, probs):
    """Higher falls earlier."""
    if alg == "entropy":
        return sum(p * math.log(p) for p in probs.values())
    first, second, *_ = sorted((*(p for i, p in probs.items() if i != MASK), 0.0, 0.0))[::-1]
    return first - second


@pytest.mark.parametrize("alg", ["entropy", "topk_margin"])
@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(0.0, 1.0, 0), (0.0, 0.6, 0), (0.3, 1.0, 0), (1.7, 0.9, 0), (0.8, 0.7, 4)],
)
def test_dreams_scores_are_of_what_temperature_and_filters_leave(alg, temperature, top_p, top_k):
    """Neither score depends on the token, so the clean logits tell what falls in each step."""
    engine = new_engine()
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": 3}
    out = engine.generate(
        PROMPT, alg=alg, steps=STEPS, max_new_tokens=LENGTH, stop="none", trace=True, **sampling
    )
    ids = [*PROMPT, *[MASK] * LENGTH]
    commits = [e for e in out.trace if e.type == "commit"]
    for step, events in itertools.groupby(commits, key=lambda e: e.step):
        logits = engine.logits(torch.tensor([ids]))[0]
        still_open = [p for p, i in enumerate(ids) if i == MASK]
        probs = {p: drawn_from(logits[p], temperature, top_p, top_k) for p in still_open}
        score = {p: score_of(alg, probs[p]) for p in still_open}
        fell = {p: i for e in events for p, i in zip(e.pos, e.ids, strict=True)}
        now, following = (1 - (1 - EPS) * n / STEPS for n in (step - 1, step))
        count = len(still_open) if step == STEPS else int(len(still_open) * (1 - following / now))
        least = sorted(score.values(), reverse=True)[count - 1] - 1e-6
        assert len(fell) == count
        assert all(score[p] >= least for p in fell)
        for p, i in fell.items():
            ids[p] = i
    assert tuple(ids) == out.canvas


def test_no_temperature_is_too_low():
    engine = new_engine()
    options = {"unmask": "dynamic(0.5, conf_from='tempered')", "max_new_tokens": 8, "stop": "none"}
    assert engine.generate(PROMPT, temperature=1e-40, **options).stats.nfe == 1


def test_a_filter_is_that_of_its_own_row():
    """Beside a filtered row, one without filters keeps MASK in its denominator."""
    options = {"alg": "entropy", "steps": STEPS, "max_new_tokens": LENGTH, "stop": "none"}
    warm = [{"temperature": 0.7, "top_p": p, **options} for p in (1.0, 0.5)]
    alone = [new_engine().generate(PROMPT, **one).canvas for one in warm]
    engine = new_engine()
    requests = [engine.submit(PROMPT, **one) for one in warm]
    assert [request.result().canvas for request in requests] == alone


def taken(rule, c, tempered):
    row = torch.tensor([tempered])
    view = make_view(rule, [c])
    view = view._replace(stats=view.stats._replace(sampling=SamplingStats(row, -row, row)))
    return rule.propose(view).commit[0].tolist()


def test_confidences_are_those_of_the_draw():
    c, tempered = [0.9, 0.2, 0.1], [0.3, 0.4, 0.95]
    assert taken(Dynamic(0.8), c, tempered) == [True, False, False]
    for rule in (Dynamic(0.8, conf_from="tempered"), TopK(conf_from="tempered")):
        assert taken(rule, c, tempered) == [False, False, True]
    for score in ("entropy", "margin"):
        assert taken(TopK(score, conf_from="tempered"), c, tempered) == [False, False, True]


@pytest.mark.parametrize(
    "rule", ["topk('entropy', 'eps'{})", "topk('margin', 'eps'{})", "topk({})", "dynamic(0.6{})"]
)
def test_without_temperature_and_filters_they_are_the_clean_ones(rule):
    clean, tempered = (
        new_engine().generate(PROMPT, unmask=rule.format(more), max_new_tokens=16, stop="none")
        for more in ("", "conf_from='tempered'" if "({" in rule else ", conf_from='tempered'")
    )
    assert clean.ids == tempered.ids
