"""Anchored remasking equals a textbook loop of its own, with and without rewards."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from dlm import Engine
from dlm.errors import RuleError, culprit_of
from dlm.unmasking.edit.anchored import Anchored
from dlm.unmasking.edit.tilts import CandidateReward, GradientReward
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = (5, 9, 33, 12)
NEW = 18
SPEC = tiny_spec()
TABLE = torch.rand(SPEC.vocab_size, 6, generator=torch.Generator().manual_seed(4)) - 0.5
BASE: dict[str, Any] = {"unmask": "everything", "max_new_tokens": NEW, "stop": "none"}


@pytest.fixture(scope="module")
def engine():
    return Engine(random_decoder(SPEC, seed=3), info_of(SPEC))


@dataclass
class Twin:
    """The rule on plain lists: what a step reads are log-probabilities of the whole canvas."""

    engine: Engine
    steps: int
    block: int = NEW
    row: bool = True
    stored: bool = False
    eta: float = 1.0
    hold: int = 0
    weights: dict[int, float] = field(default_factory=dict)
    gamma: float = 0.0
    more: int = 0
    bonus: Any = None  # of a token at a position of a draft
    beta: float = 1.0
    candidates: int = 1
    climb: int = 0
    rate: float = 0.0
    natural: bool = False

    def decode(self):
        mask = SPEC.mask_id
        ids, first = [*PROMPT, *[mask] * NEW], len(PROMPT)
        born, score, now, forwards = {}, {}, 0, 0
        for start in range(first, len(ids), self.block):
            end = min(start + self.block, len(ids))
            masks = end - start
            steps = self.steps * masks // NEW
            for step in range(steps):
                forwards += 1
                logits = self.engine.logits([ids])[0].double()
                is_open = [p for p in range(first, end) if ids[p] == mask]
                ranked = range(first if self.row else start, end)
                filled = [p for p in ranked if p not in is_open]
                draft, values = self.tilted(ids, logits, is_open, filled)
                for p in is_open if self.stored else [*is_open, *filled]:
                    score[p] = values[p]
                owed = masks * (steps - step - 1) // steps
                rank = {}
                for p in [*is_open, *filled]:
                    weight = self.weights.get(draft[p], 0.0)
                    held = self.hold + self.more * weight
                    if p in filled and now - born[p] <= held:
                        continue
                    rank[p] = score[p] * (self.eta if p in filled else 1) + self.gamma * weight
                lowest = sorted(rank, key=lambda p: (rank[p], p))[:owed]
                for p in is_open:
                    if p not in lowest:
                        ids[p], born[p] = draft[p], now
                for p in filled:
                    if p in lowest:
                        ids[p] = mask
                now += 1
        return tuple(ids), forwards

    def tilted(self, ids, logits, is_open, filled):
        """The tokens of a step, and the scores of open and filled positions."""
        logp = [row - row.exp().sum().log() for row in logits]
        best = [row.clone() for row in logp]
        for row in best:
            row[SPEC.mask_id] = -math.inf
        draft = list(ids)
        for p in is_open:
            draft[p] = int(best[p].argmax())
        if self.climb:
            return self.climbed(draft, logits.clone(), is_open, filled)
        values = {}
        for p in filled:
            values[p] = float(logp[p][ids[p]]) + self.worth(draft, p, ids[p])
        chosen = list(draft)
        for p in is_open:
            order = sorted(range(len(best[p])), key=lambda v, p=p: -float(best[p][v]))
            among = order[: self.candidates]
            worth = {v: float(logp[p][v]) + self.worth(draft, p, v) for v in among}
            chosen[p] = max(worth, key=lambda v, worth=worth: worth[v])
            values[p] = worth[chosen[p]]
        return chosen, values

    def worth(self, draft, p, token):
        return 0.0 if self.bonus is None else self.beta * self.bonus(draft, p, token)

    def climbed(self, draft, phi, is_open, filled):
        """Gradients by hand of the sum over neighbours of the products of their embeddings."""
        table = TABLE.double()
        for _ in range(self.climb):
            moves = {}
            for p in [*is_open, *filled]:
                inner = phi[p].clone()
                inner[SPEC.mask_id] = -math.inf
                pi = inner.softmax(0)
                pull = table @ sum(
                    (table[draft[q]] for q in (p - 1, p + 1) if 0 <= q < len(draft)),
                    torch.zeros(6, dtype=torch.float64),
                )
                moves[p] = self.rate * (pull - (pi * pull).sum())
                moves[p] *= 1 - torch.eye(len(pi))[SPEC.mask_id] if self.natural else pi
            for p, move in moves.items():
                phi[p] += move
            for p in is_open:
                inner = phi[p].clone()
                inner[SPEC.mask_id] = -math.inf
                draft[p] = int(inner.argmax())
        return draft, {p: float(phi[p].log_softmax(0)[draft[p]]) for p in [*is_open, *filled]}


def neighbours(draft):
    """The differentiable reward: neighbours with like embeddings."""
    e = draft.embeddings(TABLE)
    return (e[:, 1:] * e[:, :-1]).sum(dim=(1, 2))


def by_place(draft, p, token):
    """The bonus of a token: it differs from place to place, and with the token before."""
    return math.sin(token * (p + 1) + 0.5 * draft[p - 1])


def by_places(draft):
    """The same for the engine."""
    before = draft.canvas.gather(1, (draft.pos - 1).clamp_min(0))[..., None]
    at = draft.pos[..., None] + 1
    return torch.sin(draft.candidates.double() * at + 0.5 * before)


RULES = [
    ({}, {}),
    ({"eta": 0.5}, {"eta": 0.5}),
    ({"eta": 0.0}, {"eta": 0.0}),
    ({"hold": 2}, {"hold": 2}),
    ({"scores": "stored"}, {"stored": True}),
    (
        {"informative": ((7, 0.5), *((i, 1.0) for i in range(20, 40))), "gamma": 1.5},
        {"weights": {7: 0.5, **dict.fromkeys(range(20, 40), 1.0)}, "gamma": 1.5},
    ),
    (
        {"informative": tuple(range(30)), "hold": 1, "informative_hold": 2},
        {"weights": dict.fromkeys(range(30), 1.0), "hold": 1, "more": 2},
    ),
    (
        {"tilt": CandidateReward(by_places, beta=0.7)},
        {"bonus": by_place, "beta": 0.7},
    ),
    (
        {"tilt": CandidateReward(by_places, beta=1.3, candidates=5), "hold": 1},
        {"bonus": by_place, "beta": 1.3, "candidates": 5, "hold": 1},
    ),
    (
        {"tilt": CandidateReward(by_places, beta=2, candidates=3), "scores": "stored"},
        {"bonus": by_place, "beta": 2, "candidates": 3, "stored": True},
    ),
    ({"tilt": GradientReward(neighbours, steps=3, rate=40.0)}, {"climb": 3, "rate": 40.0}),
    (
        {"tilt": GradientReward(neighbours, steps=3, rate=1.5, natural=True)},
        {"climb": 3, "rate": 1.5, "natural": True},
    ),
    (
        {"tilt": GradientReward(neighbours, steps=2, rate=90.0), "hold": 1},
        {"climb": 2, "rate": 90.0, "hold": 1},
    ),
]


@pytest.mark.parametrize(
    ("steps", "block", "scope"), [(6, 18, "row"), (9, 6, "row"), (9, 6, "block")]
)
@pytest.mark.parametrize(("options", "plain"), RULES)
def test_decodes_as_the_textbook_loop(engine, options, plain, steps, block, scope):
    rule = Anchored(scope=scope, **options)
    answer = engine.generate(PROMPT, edit=rule, steps=steps, blocks=f"fixed({block})", **BASE)
    twin = Twin(engine, steps, block, row=scope == "row", **plain)
    assert (answer.canvas, answer.stats.nfe) == twin.decode()


def test_the_rules_differ(engine):
    """So that the comparison above tells them apart."""
    found = {
        engine.generate(PROMPT, edit=Anchored(**options), steps=6, blocks="whole", **BASE).canvas
        for options, _ in RULES
    }
    assert len(found) >= len(RULES) - 2


@pytest.mark.parametrize("steps", [3, 6, 18])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "even"])
@pytest.mark.parametrize(("blocks", "temperature"), [("whole", 0.0), ("fixed(6)", 0.8)])
def test_with_stored_scores_and_nothing_else_it_is_rcr(
    engine, steps, schedule, blocks, temperature
):
    both = [
        engine.generate(
            PROMPT, edit=edit, steps=steps, blocks=blocks, temperature=temperature, **BASE
        )
        for edit in (
            f"rcr(schedule='{schedule}')",
            f"anchored(None, '{schedule}', scores='stored')",
        )
    ]
    assert both[0].canvas == both[1].canvas
    assert both[0].stats.nfe == both[1].stats.nfe


def test_rewards_that_weigh_nothing_change_nothing(engine):
    plain = engine.generate(PROMPT, edit="anchored", steps=6, blocks="whole", **BASE)
    for tilt in (
        CandidateReward(by_places, beta=0.0, candidates=4),
        CandidateReward(lambda draft: torch.full(draft.candidates.shape, 3.0), candidates=4),
        GradientReward(neighbours, rate=0.0),
    ):
        same = engine.generate(PROMPT, edit=Anchored(tilt=tilt), steps=6, blocks="whole", **BASE)
        assert same.canvas == plain.canvas


@pytest.mark.parametrize("cache", ["dual(on_edit='requery')", "delayed", "none"])
@pytest.mark.parametrize("options", [RULES[0][0], RULES[8][0], RULES[10][0]])
def test_ends_within_its_steps_and_leaves_what_is_given(engine, options, cache):
    infill = {4: [21, 22], 11: [23]}
    answer = engine.generate(
        PROMPT,
        edit=Anchored(**options),
        steps=9,
        cache=cache,
        blocks="fixed(6)",
        infill=infill,
        **BASE,
    )
    new = answer.canvas[len(PROMPT) :]
    assert answer.canvas[: len(PROMPT)] == PROMPT
    assert (new[4:6], new[11]) == ((21, 22), 23)
    assert SPEC.mask_id not in answer.canvas
    assert answer.stats.nfe <= 9


def test_a_row_is_the_same_in_a_batch(engine):
    """Rows of one reward share its calls, of several lengths too."""
    tilt = CandidateReward(by_places, beta=1.3, candidates=5)
    options = {"edit": Anchored(tilt=tilt, hold=1), "steps": 6, "blocks": "whole", **BASE}
    prompts = [PROMPT, (3, 4), (8, 8, 8, 8, 8, 8, 8)]
    alone = [engine.generate(prompt, **options).canvas for prompt in prompts]
    assert [answer.canvas for answer in engine.generate(prompts, **options)] == alone


def test_a_temperature_of_the_tilt_draws(engine):
    for tilt in (
        CandidateReward(by_places, candidates=8, temperature=1.0),
        GradientReward(neighbours, steps=1, temperature=1.0),
    ):
        options = {"edit": Anchored(tilt=tilt), "steps": 6, "blocks": "whole", **BASE}
        drawn = {engine.generate(PROMPT, seed=seed, **options).canvas for seed in (1, 2, 1)}
        assert len(drawn) == 2


def test_draws_follow_the_tilted_distribution(engine):
    """One open position: the frequencies of its tokens are those of the tilted softmax."""
    tilt = CandidateReward(by_places, beta=2.0, candidates=4, temperature=0.7)
    options = {**BASE, "edit": Anchored(tilt=tilt), "steps": 1, "max_new_tokens": 1, "n": 500}
    drawn = [choice.ids[0] for choice in engine.generate(PROMPT, **options).choices]
    logp = engine.logits([[*PROMPT, SPEC.mask_id]])[0, -1].double().log_softmax(0)
    logp[SPEC.mask_id] = -math.inf
    best = logp.topk(4).indices.tolist()
    draft = [*PROMPT, best[0]]
    scores = [float(logp[v]) + 2 * by_place(draft, len(PROMPT), v) for v in best]
    expected = torch.tensor(scores).div(0.7).softmax(0).tolist()
    for token, probability in zip(best, expected, strict=True):
        assert drawn.count(token) / len(drawn) == pytest.approx(probability, abs=0.08)


# faults


def at_the_first(draft):
    """A reward that fails on the prompt that begins with 7."""
    if (draft.canvas[:, 0] == 7).any():
        raise ValueError("no such draft")
    if hasattr(draft, "probs"):
        return torch.zeros(len(draft.prompt)) + 0 * draft.probs.sum()
    return torch.zeros(draft.candidates.shape)


@pytest.mark.parametrize("tilt", [CandidateReward(at_the_first), GradientReward(at_the_first)])
def test_an_error_of_a_reward_ends_its_row_alone(engine, tilt):
    good = engine.submit(PROMPT, edit=Anchored(tilt=tilt), steps=6, blocks="whole", **BASE)
    bad = engine.submit((7, 9), edit=Anchored(tilt=tilt), steps=6, blocks="whole", **BASE)
    bad.wait()
    with pytest.raises(ValueError, match="no such draft") as caught:
        bad.result()
    culprit = culprit_of(caught.value)
    assert culprit is not None
    assert (culprit.kind, culprit.name) == ("reward", "at_the_first")
    assert "test_anchored.py" in culprit.line
    good.wait()
    plain = engine.generate(PROMPT, edit="anchored", steps=6, blocks="whole", **BASE)
    assert good.result().canvas == plain.canvas


@pytest.mark.parametrize(
    ("tilt", "message"),
    [
        (CandidateReward(lambda d: 1.0), "must return a number for each candidate"),
        (CandidateReward(lambda d: torch.zeros(3)), "must return a number for each candidate"),
        (CandidateReward(lambda d: d.candidates), "a float tensor"),
        (CandidateReward(lambda d: d.candidates / 0.0), "must give finite bonuses"),
        (GradientReward(lambda d: d.probs), "must return one number a row"),
        (GradientReward(lambda d: torch.zeros(len(d.prompt))), "must depend on `draft.probs`"),
        (
            GradientReward(lambda d: torch.zeros(len(d.prompt)) + d.probs.sum() * math.nan),
            "must have finite gradients",
        ),
    ],
)
def test_wrong_answers_of_a_reward_are_told(engine, tilt, message):
    with pytest.raises(RuleError, match=message) as caught:
        engine.generate(PROMPT, edit=Anchored(tilt=tilt), steps=6, blocks="whole", **BASE)
    assert caught.value.culprit.kind == "reward"
