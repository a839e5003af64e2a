"""What `explain` says of the forwards is what a generation takes."""

import re

import pytest

from dlm import Engine, InvalidRequest
from dlm.config import PRESETS
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

SHAPES = {
    "full": {},
    "shifted": {"shift": True},
    "blocks": {"attention": "block_causal", "block_length": 4},
}
RULES = [
    *({"unmask": f"topk({a})"} for a in ("", "steps=8", "steps=40")),
    *({"unmask": f"topk('entropy', 'eps'{a})"} for a in ("", ", steps=8")),
    *({"unmask": f"topk('margin', {s!r}, steps=8)"} for s in ("cosine", "linear", "power")),
    {"unmask": "topk('confidence', 'power', power=0.3)"},
    {"unmask": "threshold(0.9)"},
    {"unmask": "dynamic(0.9, 2)"},
    {"unmask": "everything", "edit": "rcr(8)", "cache": "none"},
    {"unmask": "everything", "edit": "rcr", "cache": "none"},
    {"unmask": "everything", "edit": "rcr(6, 'cosine')", "cache": "none"},
    *({"preset": name} for name in PRESETS),
]
BLOCKS = ({}, {"blocks": "fixed(8)"}, {"blocks": "whole"})
INFILL = [None, None, 5, 6, *[None] * 5, 7, *[None] * 4]


@pytest.fixture(scope="module", params=SHAPES)
def engine(request):
    spec = tiny_spec(**SHAPES[request.param])
    return Engine(random_decoder(spec), info_of(spec))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_forwards_that_are_named_are_those_that_run(engine, rule):
    for number, blocks in enumerate(BLOCKS):
        for canvas in ({"max_new_tokens": 13}, {"infill": INFILL}):
            lengths = (1, 6) if "infill" not in canvas else (6 if number % 2 else 1,)
            options = {"stop": "none", **rule, **blocks, **canvas}
            try:
                cost = engine.explain(**options).cost
            except InvalidRequest:
                continue
            about, least, most = re.match(r"(about )?(\d+)(?: to (\d+))? forwards", cost).groups()
            taken = {engine.generate([5] * n, **options).stats.nfe for n in lengths}
            assert about is None, "the blocks are known"
            assert int(least) <= min(taken), options
            assert max(taken) <= int(most or least), options


def test_a_budget_is_told_beside_it(engine):
    cost = engine.explain(unmask="topk", stop=["none", "max_nfe(3)"], max_new_tokens=16).cost
    assert "3 at the most" in cost
