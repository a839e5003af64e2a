"""Anchored remasking: what is refused, what binds, what a reward sees."""

import math

import pytest
import torch

import dlm
from dlm.config import GenerationConfig, bind
from dlm.errors import InvalidRequest
from dlm.unmasking.edit.anchored import Anchored, _weight_of
from dlm.unmasking.edit.rewards import SoftDraft
from dlm.unmasking.edit.tilts import CandidateReward, GradientReward
from tests.engine.harness import info_of
from tests.helpers import tiny_spec
from tests.unmasking.views import INFO

FULL = info_of(tiny_spec())
BLOCKS = info_of(tiny_spec(attention="block_causal", block_length=4))
BASE = {"max_new_tokens": 16, "unmask": "everything", "blocks": "whole"}


def refused(edit, info=FULL, /, **options):
    with pytest.raises(InvalidRequest) as caught:
        bind(GenerationConfig.from_options({**BASE, "edit": edit, **options}), info)
    return str(caught.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("anchored(steps=0)", "`steps` must be at least 1, got 0"),
        ("anchored(schedule='eps')", "`edit: schedule`: must be one of 'cosine', 'even'"),
        ("anchored(power=0.0, schedule='power')", "`power` must be greater than 0"),
        ("anchored(scope='all')", "`scope` must be one of 'row', 'block', got 'all'"),
        ("anchored(scores='old')", "`scores` must be one of 'fresh', 'stored', got 'old'"),
        ("anchored(eta=-1.0)", "`eta` must be at least 0, got -1.0"),
        ("anchored(gamma=-0.5)", "`gamma` must be at least 0, got -0.5"),
        ("anchored(hold=-1)", "`hold` must be at least 0, got -1"),
        ("anchored(hold=1.5)", "`hold` must be an integer, got 1.5"),
        ("anchored(informative_hold=-1)", "`informative_hold` must be at least 0"),
        ("anchored(informative='numbers')", "`informative` must be"),
        ("anchored(informative=(1, 1))", "`informative` must name each id once"),
        ("anchored(informative=((1, -2.0),))", "`informative` must be 'symbols', a tuple of ids"),
        ("anchored(informative=(99,))", "ids must be between 0 and 63"),
        ("anchored(informative='symbols')", "read from the tokenizer"),
        ("anchored(tilt='reward')", "`tilt` must be a dlm.CandidateReward or a dlm.GradientReward"),
        ("anchored(weights=())", "an argument of anchored must be one of"),
        (Anchored(tilt=CandidateReward(len, candidates=64)), "`candidates` must be at most 63"),
    ],
)  # fmt: skip
def test_wrong_arguments(edit, message):
    assert message in refused(edit)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CandidateReward("len"), "`reward` must be a function, got 'len'"),
        (lambda: GradientReward(dict), "`reward` must be a function"),
        (lambda: CandidateReward(len, beta=math.nan), "`beta` must be a finite number, got nan"),
        (lambda: CandidateReward(len, candidates=0), "`candidates` must be an integer of 1"),
        (lambda: CandidateReward(len, candidates=2.0), "`candidates` must be an integer of 1"),
        (lambda: CandidateReward(len, temperature=-1), "`temperature` must be a finite number >="),
        (lambda: GradientReward(len, steps=0), "`steps` must be an integer of 1 or more"),
        (lambda: GradientReward(len, rate=math.inf), "`rate` must be a finite number, got inf"),
    ],
)  # fmt: skip
def test_wrong_arguments_of_a_tilt(make, message):
    with pytest.raises(InvalidRequest) as caught:
        make()
    assert message in str(caught.value)


def test_what_cannot_go_together():
    assert "use 'everything'" in refused("anchored", unmask="topk")
    assert "has frozen: use cache 'none', 'delayed' or" in refused("anchored", cache="prefix")
    assert "denoises several blocks at once" in refused("anchored", blocks="pipeline(8)")
    assert "would share the memory 'anchored.score'" in refused(["anchored", "anchored"])
    for scope in ("row", "block"):
        found = refused(f"anchored(scope='{scope}')", blocks="sub_blocks(8, 4)")
        assert "weighs all open positions of a block against each other" in found
    options = {"cache": "block_causal", "blocks": "fixed"}
    assert "use cache 'none'" in refused("anchored", BLOCKS, **options)
    for edit, info, more in (
        ("anchored(scope='block')", FULL, {"cache": "dual", "blocks": "fixed(8)"}),
        ("anchored(scope='block')", BLOCKS, options),
        ("anchored", FULL, {"cache": "dual(on_edit='requery')", "blocks": "fixed(8)"}),
    ):
        bind(GenerationConfig.from_options({**BASE, "edit": edit, **more}), info)


def test_a_reward_never_comes_over_http():
    for spec in ("dlm.unmasking.edit.anchored:Anchored()", Anchored(tilt=CandidateReward(len))):
        with pytest.raises(InvalidRequest, match="must be"):
            dlm.config.spec_strings.parse_part("edit", spec, trusted=False)


def test_the_tier_is_that_of_what_is_set():
    for rule in (Anchored(), Anchored(eta=0.5), Anchored(scores="stored")):
        assert rule.tier_as_set == "T2"
    for rule in (Anchored(hold=1), Anchored(informative=(3,)), Anchored(tilt=GradientReward(len))):
        assert rule.tier_as_set == "T3"


def test_symbols_are_bound_from_the_tokenizer():
    info = dlm.load().info
    text = dlm.load().text
    found = dict(Anchored(informative="symbols").bind(info).weights)
    assert set(found.values()) == {1.0}
    for piece, symbol in (("7", True), ("+", True), ("=", True), ("lion", False)):
        ids = text.encode_inside(piece, "text")
        assert [token in found for token in ids] == [symbol] * len(ids)


def test_weights_are_looked_up():
    pairs = Anchored(informative=((40, 0.5), (3, 2.0), (9, 1.0))).bind(INFO).weights
    assert pairs == ((3, 2.0), (9, 1.0), (40, 0.5))
    tokens = torch.tensor([[3, 4, 9], [40, 63, 0]])
    found = _weight_of(tokens, torch.tensor(pairs, dtype=torch.float64))
    assert found.tolist() == [[2.0, 0.0, 1.0], [0.5, 0.0, 0.0]]


def test_a_soft_draft_is_hard_but_at_its_soft_positions():
    generator = torch.Generator().manual_seed(2)
    canvas = torch.tensor([[1, 2, 3], [4, 0, 2]])
    table = torch.rand(5, 4, generator=generator)
    probs = torch.rand(2, 5, generator=generator)
    row, pos = torch.tensor([0, 1]), torch.tensor([2, 0])
    draft = SoftDraft(canvas, torch.ones(2), torch.ones(2), row, pos, probs)
    one_hot = draft.one_hot()
    assert torch.equal(one_hot[0, 2], probs[0])
    assert torch.equal(one_hot[1, 0], probs[1])
    for at, token in (((0, 0), 1), ((0, 1), 2), ((1, 1), 0), ((1, 2), 2)):
        assert one_hot[at].nonzero().flatten().tolist() == [token]
    assert torch.allclose(draft.embeddings(table), one_hot @ table)
