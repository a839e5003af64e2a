"""Searches on models of random weights, with a spy that counts what the model computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from dlm.engine.engine import Engine
from dlm.engine.generation import Generation
from dlm.engine.searching import SearchResult
from dlm.search import Question, Verdict, Verifier
from dlm.search.names import POLICIES
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = [7, 3, 9, 21, 14]
CAUSAL = {"attention": "block_causal", "block_length": 8}
OPTIONS: Mapping[str, Any] = {
    "max_new_tokens": 16,
    "temperature": 1.0,
    "unmask": "threshold(0.5)",
    "seed": 3,
}
READ_TEXT = ("vote", "hex", "temporal_vote")
SMALL: Mapping[str, tuple[str, ...]] = {
    "beam": ("beam(width=2)", "beam(width=2, remask=0.3, guesses=True)"),
    "blocks_mh": ("blocks_mh(moves=4)",),
    "feedback": ("feedback(rounds=4, words=False)",),
    "lookum": ("lookum(2)",),
    "lopa": ("lopa(2)",),
    "order": ("order(width=2)",),
    "paths": ("paths(width=2)",),
    "prism": ("prism(6, keep=2)",),
    "best_of": ("best_of(6, width=3)", "best_of(5, width=1)"),
    "seeds": ("seeds(5)",),
    "shortlist": ("shortlist(rows=3, guesses=20)", "shortlist(rows=2, guesses=5, steps=1)"),
    "neighbours": ("neighbours(starts=2, width=2, rounds=4)", "neighbours(rounds=5, patience=2)"),
    "gibbs": ("gibbs(3, sweeps=2)",),
    "smc": ("smc(4)", "smc(3, segments=0)"),
    "self_smc": ("self_smc(4)",),
    "tree": ("tree(rollouts=6, parallel=3)",),
    "unmaskfork": ("unmaskfork(rollouts=5)",),
    "rollover": ("rollover(starts=3, quota=2)", "rollover(segments=0)"),
    "cascade": ("cascade(('best_of(3)', 'neighbours(rounds=3)', 'tree(rollouts=3)'))",),
}
"""Searches of a few rows by each policy; one that is not named here runs as it is by default."""


def specs() -> list[str]:
    """Searches by all registered policies that read no text."""
    names = [name for name in POLICIES.names() if name not in READ_TEXT]
    return [spec for name in names for spec in SMALL.get(name, (name,))]


@dataclass(frozen=True, slots=True)
class Remainder(Verifier):
    """A few scores that no decoding rule knows of, so that many answers are equal.

    top: no score is above it
    """

    top: int = 6

    @property
    def highest(self) -> float:
        return float(self.top)

    def score(self, answers: Sequence[Generation], question: Question) -> list[Verdict]:
        return [Verdict(float(sum(answer.ids) % (self.top + 1))) for answer in answers]


@dataclass(frozen=True, slots=True)
class Aside(Remainder):
    """The same, asked in another thread."""

    blocks: ClassVar[bool] = True


class Spy:
    """A decoder that counts its calls, the rows in them and the positions that it computes.

    rows are right where each has one query at the first position, as without a cache
    """

    def __init__(self, decoder: Any) -> None:
        self.decoder, self.calls, self.rows, self.positions = decoder, 0, 0, 0

    def __call__(self, packed: Any, kv: Any) -> torch.Tensor:
        self.calls += 1
        self.rows += int((packed.positions == 0).sum())
        self.positions += len(packed.positions)
        found: torch.Tensor = self.decoder(packed, kv)
        return found


def new_engine(attention: str = "full", **options: Any) -> tuple[Engine, Spy]:
    """An engine whose model is watched."""
    spec = tiny_spec(**(CAUSAL if attention == "block_causal" else {}))
    engine = Engine(random_decoder(spec, 1), info_of(spec), **options)
    engine.manager.model = spy = Spy(engine.model)
    return engine, spy


def require_empty(engine: Engine) -> None:
    """Nothing of a search is left on an engine."""
    if engine.waiting or engine.scheduler._watched:
        engine.step()  # it finds that its rows have ended
    engine.scheduler.check_integrity()
    assert not engine.live
    assert not engine.waiting
    assert not engine.kv.pages.in_use
    assert not engine.scheduler._parked.groups
    assert not engine.scheduler._watched


def edges_of(found: SearchResult, node: int | None) -> tuple[int, ...]:
    """The edges from the prompt to a node."""
    if node is None:
        return ()
    one = found.tree[node]
    return (*edges_of(found, one.parent), one.edge)


def seen(found: SearchResult) -> dict[str, Any]:
    """The facts of a result that no batch may change."""
    return {
        "best": (found.best.ids, found.best.canvas, repr(found.score)),
        "reason": found.reason,
        "candidates": [
            (edges_of(found, one.node), one.answer.canvas, repr(one.score))
            for one in found.candidates
        ],
        "rows": sorted((edges_of(found, one.number), one.work) for one in found.tree),
        "forwards": found.costs.row_forwards + found.costs.shared_forwards,
        "verdicts": found.costs.verifier_calls,
    }
