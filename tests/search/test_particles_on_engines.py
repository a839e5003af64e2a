"""Particles, trees and beams on engines: batches change nothing, budgets hold, pages come back."""

from __future__ import annotations

from typing import Any

import pytest

from dlm.engine.engine import Engine
from dlm.search.policies.beam import Beam
from dlm.search.policies.gibbs import Gibbs
from dlm.search.policies.lookum import LookUM
from dlm.search.policies.lopa import LoPA
from dlm.search.policies.order import Order
from dlm.search.policies.smc import SMC, SelfSMC
from dlm.search.policies.tree import Tree
from dlm.search.policies.unmaskfork import UnMaskFork
from dlm.search.policy import Policy
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = [7, 3, 9, 21, 14]
POLICIES = (
    SMC(4),
    SMC(4, 0, potential="max", lookahead=1),
    SelfSMC(4),
    Gibbs(3, sweeps=3),
    Tree(8),
    Tree(8, 2, "mean", parallel=4),
    UnMaskFork(6, 3),
    Beam(2, 2),
    Beam(2, 2, 0, remask=0.3, siblings=1),
    Order(2, segments=3),
    LookUM(3),
    LoPA(2),
)
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bidirectional": ({}, {"blocks": "fixed(8)", "unmask": "threshold(0.3)"}),
    "cached": ({}, {"blocks": "fixed(8)", "cache": "prefix", "unmask": "topk(steps=12)"}),
    "block-causal": ({"attention": "block_causal", "block_length": 8}, {}),
}


def ids_of(policy: Policy) -> str:
    return f"{type(policy).__name__}{POLICIES.index(policy)}"


def searched(model: str, policy: Policy, max_rows: int = 16, **more: Any) -> tuple[Engine, Any]:
    changes, options = MODELS[model]
    spec = tiny_spec(**changes)
    engine = Engine(random_decoder(spec, 1), info_of(spec), max_rows=max_rows)
    asked = {"max_new_tokens": 24, "temperature": 1.0, "seed": 5, **options, **more}
    return engine, engine.search(PROMPT, policy, **asked)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("policy", POLICIES, ids=ids_of)
def test_answers_do_not_depend_on_batches(model: str, policy: Policy) -> None:
    engine, found = searched(model, policy, max_new_tokens=16)
    _, alone = searched(model, policy, max_rows=1, max_new_tokens=16)
    assert found.best.ids == alone.best.ids
    assert sorted(c.answer.canvas for c in found.candidates) == sorted(
        c.answer.canvas for c in alone.candidates
    )
    assert engine.kv.pages.in_use == 0
    assert found.best.finish_reason in ("stop", "length")


@pytest.mark.parametrize("most", [1, 9, 40])
@pytest.mark.parametrize("policy", POLICIES, ids=ids_of)
def test_budgets_hold(policy: Policy, most: int) -> None:
    engine, found = searched("bidirectional", policy, budget={"nfe": most})
    assert found.costs.nfe <= most
    assert engine.kv.pages.in_use == 0
