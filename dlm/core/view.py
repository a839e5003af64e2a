"""The view of one step that a rule reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from dlm.core.blocks import BlockTable
from dlm.core.rows import Kind, Rows
from dlm.core.window import Window


class RowInfo(NamedTuple):
    """Numbers of each row that a rule may read; all `[R]` int64.

    prompt: positions of the prompt
    length: positions of the canvas
    limit: the answer ends before this position; the canvas may be longer
    initial_masks: positions that were open at first
    step: steps that the row has taken
    seed: of the request's draws
    path: of the row's draws, another one for each choice and fork
    """

    prompt: Tensor
    length: Tensor
    limit: Tensor
    initial_masks: Tensor
    step: Tensor
    seed: Tensor
    path: Tensor


@dataclass(frozen=True, slots=True)
class LastCommit:
    """The last commit of the positions `pos [R, W]`, gathered from the rows when a rule reads it.

    Stop rules see the commits of the step itself.
    """

    rows: Rows
    pos: Tensor

    @property
    def conf(self) -> Tensor:
        """Its confidence (NaN: never committed), `[R, W]`."""
        return self.rows.conf.gather(1, self.pos)

    @property
    def born(self) -> Tensor:
        """Its step (-1: never), `[R, W]`."""
        return self.rows.born.gather(1, self.pos)

    @property
    def edits(self) -> Tensor:
        """The number of revisions of the position since, `[R, W]`."""
        return self.rows.edits.gather(1, self.pos)


class Frame(NamedTuple):
    """The part of a view that is known before the logits are read.

    window: the positions that the step shows
    ids, kind: of these positions, `[R, W]`
    row: numbers of each row
    blocks: the block table
    canvas_kind: the kinds of the whole canvases, `[R, L]`
    scratch: declared tensors by name
    references: log-probabilities of a second masked model by its name, `[N, V]` without shadow
        tokens, where a guide's `needs` asks for it; -inf for ids that it lacks
    """

    window: Window
    ids: Tensor
    kind: Tensor
    row: RowInfo
    blocks: BlockTable
    canvas_kind: Tensor
    scratch: Mapping[str, Tensor]
    references: Mapping[str, Tensor] = MappingProxyType({})


MIN_LOGIT: Final = -1e4
"""In place of minus infinity: so far below another a logit has no probability in float32, but 0
times it is a number.
"""
STATISTICS: Final = frozenset(
    {"argmax", "entropy", "margin", "logit_margin", "prob_current", "sampling"}
)
"""What a part's `needs` may name; any other name is that of an auxiliary model."""


class SamplingStats(NamedTuple):
    """Statistics `[R, W]` of the distributions that tokens are drawn from: tempered, filtered by
    top-p and top-k, and normalised. MASK is in the denominator unless a filter is there, which
    drops it first.

    confidence: the probability of the drawn token
    entropy: in nats
    margin: first minus second probability
    """

    confidence: Tensor
    entropy: Tensor
    margin: Tensor


class Statistics(NamedTuple):
    """Statistics of the guided logits, `[R, W]`; each is None unless a part's `needs` names it.

    logsumexp: logarithms of the normalisers of the logits, `[N]` (always there)
    drawn: probability of the token in the distribution that it was drawn from, 1 in greedy rows
        (always there; None where all rows are greedy)
    argmax: the most likely id but MASK
    entropy: in nats
    margin: first minus second probability
    logit_margin: first minus second logit
    prob_current: probability of the id on the canvas, as a shadow token sees it where there is one
    sampling: of the distributions that tokens are drawn from
    """

    logsumexp: Tensor
    drawn: Tensor | None = None
    argmax: Tensor | None = None
    entropy: Tensor | None = None
    margin: Tensor | None = None
    logit_margin: Tensor | None = None
    prob_current: Tensor | None = None
    sampling: SamplingStats | None = None


class AuxView(NamedTuple):
    """The report of an auxiliary model on the tokens that were drawn in a step.

    It has read the canvas with `StepView.token` at every open position. All `[R, W]` but `logits`.

    scored: open positions with logits
    token: its most likely id
    confidence: the probability of that id
    draft_confidence: its probability of the drawn token
    logit_row: row of the logits of each position
    logits: normalised, over the ids of the diffusion model, `[N, V]`
    """

    scored: Tensor
    token: Tensor
    confidence: Tensor
    draft_confidence: Tensor
    logit_row: Tensor
    logits: Tensor


class Branches(NamedTuple):
    """Copies of the canvas in which a draft is filled in, as the model sees them: in copy b the
    first b + 1 tokens of the row's draft (`Rows.draft`).

    token, confidence: as in a view, `[R, B, W]`
    scored: positions with logits, `[R, B, W]`
    logit_row: row of the logits of each, `[R, B, W]`
    logits: guided, of the canvas itself and then of the copies, `[N + S, V]`
    logsumexp: logarithms of their normalisers, `[N + S]`
    """

    token: Tensor
    confidence: Tensor
    scored: Tensor
    logit_row: Tensor
    logits: Tensor
    logsumexp: Tensor


class StepView(NamedTuple):
    """A step as a rule sees it: the frame, the drawn tokens and the statistics that it needs.

    window: the positions that the step shows, `[R, W]`
    ids, kind: of these positions, `[R, W]`
    row: numbers of each row, `[R]`
    blocks: the block table, `[R, 8]`
    eligible: open positions with logits before the end of a live block, `[R, W]`
    must_progress: eligible positions of blocks that must progress, `[R, W]`
    token: the drawn id (at temperature 0 the most likely one), never MASK, `[R, W]`
    confidence: its probability in the clean float32 softmax, MASK in the denominator, `[R, W]`
    stats: the statistics that `needs` names
    last: the last commit of each position
    params: numbers of the part that is called, each `[R, 1]`
    scratch: declared tensors by name
    aux: reports of auxiliary models by name, where `needs` asks for them
    logits: guided, `[N, V]`; the row of a position is `logit_row`
    mask_id: of MASK, None where the model has none
    branches: copies of the canvas with drafted tokens, where a part has planned some
    """

    window: Window
    ids: Tensor
    kind: Tensor
    row: RowInfo
    blocks: BlockTable
    eligible: Tensor
    must_progress: Tensor
    token: Tensor
    confidence: Tensor
    stats: Statistics
    last: LastCommit
    params: Any
    scratch: dict[str, Tensor]
    aux: Mapping[str, AuxView]
    logits: Tensor
    mask_id: int | None
    branches: Branches | None = None

    @property
    def pos(self) -> Tensor:
        """Canvas positions, ascending."""
        return self.window.pos

    @property
    def valid(self) -> Tensor:
        """Columns that show a position."""
        return self.window.valid

    @property
    def scored(self) -> Tensor:
        """Columns with logits."""
        return self.window.scored

    @property
    def logit_row(self) -> Tensor:
        """Row of the logits of each scored column."""
        return self.window.logit_row

    @property
    def block(self) -> Tensor:
        """Column of the block table."""
        return self.window.block

    @property
    def open_inside(self) -> Tensor:
        """Open positions before the end of their block, with logits or without."""
        return (self.kind >= Kind.MASK) & self.window.inside

    def in_block(self, table: Tensor) -> Tensor:
        """Spread a number of each block, `[R, 8]`, over the positions of the blocks: `[R, W]`."""
        return table.gather(1, self.block)

    def with_token(self, token: Tensor) -> StepView:
        """The view with another id `[R, W]` for each position, and the probability of that id."""
        logp = self.logits[self.logit_row, token] - self.stats.logsumexp[self.logit_row]
        stats, drawn = self.stats, self.stats.drawn
        if drawn is not None:
            stats = stats._replace(drawn=torch.where(token == self.token, drawn, 1.0))
        return self._replace(
            token=token,
            confidence=torch.where(self.scored, logp.exp(), self.confidence),
            stats=stats,
        )

    def seen_from(self, branch: Tensor) -> StepView:
        """The view with the tokens and logits of a branch `[R, W]` at each position; 0 is the
        canvas itself.
        """
        if self.branches is None:
            return self
        token, confidence, _, logit_row, logits, logsumexp = self.branches
        own = (self.token, self.confidence, self.logit_row)
        copies, at = (token, confidence, logit_row), branch[:, None]
        token, confidence, logit_row = (
            torch.cat((mine[:, None], theirs), dim=1).gather(1, at)[:, 0]
            for mine, theirs in zip(own, copies, strict=True)
        )
        return self._replace(
            window=self.window._replace(logit_row=logit_row, dense=False),
            token=token,
            confidence=confidence,
            stats=self.stats._replace(logsumexp=logsumexp),
            logits=logits,
        )

    def log_probs(self) -> Tensor:
        """`[N, V]`: the normalised logits, MASK struck out; a copy, made at each call."""
        logp = self.logits - self.stats.logsumexp[:, None]
        if self.mask_id is not None:
            logp.select(1, self.mask_id).fill_(-torch.inf)
        return logp

    def of_first_block(self, *tables: Tensor) -> tuple[Tensor, ...]:
        """The entries of `tables [R, 8]` for the block of the first eligible position.

        Each is `[R, 1]`.
        """
        column = self.block.gather(1, self.eligible.int().argmax(dim=1, keepdim=True))
        return tuple(table.gather(1, column) for table in tables)
