"""Anchored remasking: every step ranks all tokens anew, and the best stay as anchors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Final, Literal, Self

import torch
from torch import Tensor

from dlm.core import Editor, Kind, ModelInfo, Proposal, ScratchSpec, StepView, Unmasker, bound
from dlm.errors import InvalidRequest, shown, unknown_name
from dlm.unmasking.edit.tilts import CURRENT, Tilt, Tilted, untilted
from dlm.unmasking.schedules import (
    SCHEDULES,
    Schedule,
    require_schedule,
    scheduled_count,
    steps_of_block,
)
from dlm.unmasking.scores import top
from dlm.unmasking.unmask.threshold import CommitAll

Informative = Literal["symbols"] | tuple[int, ...] | tuple[tuple[int, float], ...]
SCORE: Final = "anchored.score"
_LEAST: Final = -1e300
"""A score that can be multiplied by 0."""


@dataclass(frozen=True, slots=True)
class Anchored(Editor):
    """Anchored remasking (the rule of APS, arXiv 2510.02291, for text): every step ranks all
    positions anew, earlier tokens too, and the best stay as anchors.

    Used with `unmask="everything"`: all open positions are filled, then the lowest scores of the
    row, or with `scope="block"` of the block, are reopened, so that as many stay open as the
    schedule still owes. The score is the log-probability that the model gives now to a drawn or a
    standing token, the latter times `eta`: with nothing else set this is P2 (arXiv 2502.03540) that
    plans by itself. `scores="stored"` ranks a token by the score of its commit: RCR's rule (arXiv
    2508.13148). A `tilt` (`CandidateReward`, `GradientReward`; in Python alone) bends scores and
    choices towards a reward. An anchor is not reopened for `hold` steps. `informative` tokens
    (ADLM's anchors come first, arXiv 2505.18456) are "symbols", those with a digit, an operator or
    a bracket; ids; or pairs of an id and a weight, such as an IDF table: weight times `gamma` is
    added to the score, and weight times `informative_hold` to the steps. `steps` is for the whole
    answer, `power` of the schedule of that name.
    """

    tier = "T2"

    steps: int | None = None
    schedule: Schedule = "linear"
    power: float = 2.0
    scope: Literal["row", "block"] = "row"
    _: KW_ONLY
    scores: Literal["fresh", "stored"] = "fresh"
    eta: float = 1.0
    hold: int = 0
    informative: Informative = ()
    gamma: float = 0.0
    informative_hold: int = 0
    tilt: Tilt | None = None
    weights: tuple[tuple[int, float], ...] = bound(())

    clock = True
    one_block = True
    scratch = (ScratchSpec(SCORE, "token", torch.float64),)

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES or self.schedule == "eps":
            known = (s for s in SCHEDULES if s != "eps")
            raise unknown_name("edit: schedule", str(self.schedule), known)
        require_schedule("edit", self.steps, power=self.power)
        _require_choice("scope", self.scope, ("row", "block"))
        _require_choice("scores", self.scores, ("fresh", "stored"))
        for name in ("eta", "gamma", "hold", "informative_hold"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise InvalidRequest("edit", f"`{name}` must be at least 0, got {value!r}")
        if self.tilt is not None and not isinstance(self.tilt, Tilt):
            raise InvalidRequest(
                "edit",
                "`tilt` must be a dlm.CandidateReward or a dlm.GradientReward, "
                f"got {shown(self.tilt)}",
            )
        _weights_of(self.informative)

    @property
    def tier_as_set(self) -> str:
        """T2 for P2's and RCR's ranking; the rest is known from abstracts."""
        plain = self.tilt is None and not (self.hold or self.informative)
        return "T2" if plain else "T3"

    @property
    def needs(self) -> frozenset[str]:
        """The probability of the tokens that stand, where it reads that."""
        if self.tilt is not None:
            return self.tilt.needs
        return CURRENT if self.scores == "fresh" else frozenset()

    def bind(self, info: ModelInfo) -> Self:
        """The informative ids with their weights, in order."""
        if self.tilt is not None:
            self.tilt.check_vocabulary(info.vocab_size)
        if self.informative == "symbols":
            if not info.symbols:
                raise InvalidRequest(
                    "edit",
                    "`informative` 'symbols' are read from the tokenizer, and this model came "
                    "without one, or with one that has none: give ids",
                )
            pairs: Sequence[tuple[int, float]] = [(token, 1.0) for token in info.symbols]
        else:
            pairs = _weights_of(self.informative)
        info.check_ids("edit: informative", (token for token, _ in pairs))
        return replace(self, weights=tuple(sorted(pairs)))

    def refuses(self, unmask: Unmasker) -> str | None:
        """It reopens positions that `everything` has filled."""
        if isinstance(unmask, CommitAll):
            return None
        return (
            "Anchored reopens what is too much after all open positions were filled: "
            "use 'everything'"
        )

    def steps_for(self, masks: int, total: int) -> int | None:
        """Those of the schedule."""
        return steps_of_block(self, masks, total)

    def edit(self, view: StepView, proposal: Proposal) -> Proposal:
        """Reopen the lowest scores; as many stay open as the block's schedule still owes."""
        count = scheduled_count(
            view, self.schedule, None if self.steps is None else view.params.steps, view.params
        )
        owed = view.eligible.sum(dim=1, keepdim=True) - count
        filled = self._filled(view)
        tilted = (untilted if self.tilt is None else self.tilt)(view, filled & view.scored)
        score = torch.where(filled, self._standing(view, tilted), tilted.score)
        written = filled | proposal.commit
        rank = torch.where(filled, view.params.eta * score.clamp_min(_LEAST), score)
        hold = view.params.hold
        if self.weights:
            weight = _weight_of(torch.where(filled, view.ids, tilted.token), view.params.weights)
            rank = rank + view.params.gamma * weight
            hold = hold + view.params.informative_hold * weight
        immune = filled & (view.last.born >= 0)
        immune &= view.row.step[:, None] - view.last.born <= hold
        if proposal.remask is not None:  # what another editor takes back goes first
            rank, immune = rank.masked_fill(proposal.remask, -torch.inf), immune & ~proposal.remask
        at = torch.where(written, view.pos, view.window.spare)
        return proposal._replace(
            token=proposal.token if self.tilt is None else tilted.token,
            remask=top(-rank, written & ~immune, owed),
            scratch={
                **(proposal.scratch or {}),
                SCORE: view.scratch[SCORE].scatter(1, at, score),
            },
        )

    def _filled(self, view: StepView) -> Tensor:
        """`[R, W]`: the committed positions that it ranks."""
        filled = view.kind == Kind.COMMITTED
        if self.scope == "row":
            return filled
        return filled & view.window.inside & (view.pos >= view.in_block(view.blocks.start))

    def _standing(self, view: StepView, tilted: Tilted) -> Tensor:
        """`[R, W]` float64: the scores of committed tokens: as the model sees them now, or as
        remembered, of their commit or where the step has no logits.
        """
        remembered = view.scratch[SCORE].gather(1, view.pos)
        if self.scores == "stored":
            return remembered
        return torch.where(view.scored, tilted.score, remembered)


def _weight_of(token: Tensor, pairs: Tensor) -> Tensor:
    """The weight of each token `[R, W]` in a table `[n, 2]` of ids, ascending, and weights."""
    ids = pairs[:, 0].contiguous().long()
    at = torch.searchsorted(ids, token).clamp_max(len(ids) - 1)
    return torch.where(ids[at] == token, pairs[at, 1], 0.0)


def _weights_of(informative: Informative) -> list[tuple[int, float]]:
    """Ids and weights of a list of ids or of pairs. Raises `InvalidRequest`."""
    if informative == "symbols":
        return []
    if not isinstance(informative, tuple):
        raise _not_informative(informative)
    pairs: list[tuple[int, float]] = []
    for item in informative:
        token, weight = item if isinstance(item, tuple) and len(item) == 2 else (item, 1.0)
        if not isinstance(token, int) or not 0 <= weight < math.inf:
            raise _not_informative(item)
        pairs.append((token, float(weight)))
    if len({token for token, _ in pairs}) < len(pairs):
        raise InvalidRequest("edit", "`informative` must name each id once")
    return pairs


def _not_informative(value: object) -> InvalidRequest:
    rule = "'symbols', a tuple of ids, or a tuple of pairs of an id and a weight >= 0"
    return InvalidRequest("edit", f"`informative` must be {rule}, got {shown(value)}")


def _require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidRequest(
            "edit", f"`{name}` must be {' or '.join(map(repr, choices))}, got {shown(value)}"
        )
