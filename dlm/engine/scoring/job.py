"""`ScoringJob`: given texts on their way to their log-likelihoods, forward by forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Final, NamedTuple, Protocol

import torch
from torch import Tensor

from dlm.decode.top import most_likely
from dlm.engine.canvas_reader import MOST_POSITIONS, CanvasReader, Holder, Ids, sharing_unit
from dlm.engine.scheduler import Scheduler
from dlm.engine.scoring.rows import ScoredRow, ScoringOptions, scored_rows
from dlm.errors import InvalidRequest, Unavailable

LEAST_SAVED: Final = 256
"""Positions that a forward for shared keys must save."""


@dataclass(frozen=True, slots=True)
class LogLikelihood:
    """The log-likelihood of a text after a prompt.

    logprob: that of the whole text: the sum of `logprobs`, in nats
    logprobs: of each token, at temperature 1 over all ids
    tokens: the ids of the text
    greedy: no other id but MASK is more likely than the token, at any position
    nfe: canvases computed for it; one that texts of a list share counts for the first of them
    top: of each token, the most likely ids at its position with their log-probabilities, where
        they were asked for
    """

    logprob: float
    logprobs: tuple[float, ...]
    tokens: Ids
    greedy: bool
    nfe: int
    top: tuple[tuple[tuple[int, float], ...], ...] = field(default=(), repr=False)


class Scored(Holder, Protocol):
    """The members of an engine that a job uses."""

    scheduler: Scheduler


class _Reading(NamedTuple):
    """The log-probability of a token, the largest one at its position, and the most likely ids."""

    logprob: float
    best: float
    top: tuple[tuple[int, float], ...]


class ScoringJob:
    """Checked texts with the canvases to compute; made in any thread.

    pairs: ids of each prompt and of its text
    rows: the canvases

    A `Job`: `step` does one forward of at most `max_rows` rows and `max_token_forwards` positions.
    `longest` bounds a canvas more than the model does. Errors are those of `Engine.score`.
    """

    def __init__(
        self,
        engine: Scored,
        pairs: Sequence[tuple[Ids, Ids]],
        options: ScoringOptions,
        longest: int | None = None,
    ) -> None:
        self.pairs, self._engine, self._options = pairs, engine, options
        for number, pair in enumerate(pairs):
            _check(engine, pair, longest, f"pairs[{number}]." if len(pairs) > 1 else "")
        self.rows = scored_rows(pairs, engine.info, options)
        self._readings: list[list[_Reading | None]] = [[None] * len(answer) for _, answer in pairs]
        self._nfe, self._left = [0] * len(pairs), len(self.rows)
        self._readers = self._grouped()
        self._reader: CanvasReader[ScoredRow] | None = next(self._readers, None)

    def step(self) -> bool:
        """Do the next forward; False if no other one follows, or the job is closed."""
        try:
            with torch.inference_mode():
                while self._reader is not None and not self._reader.step():
                    self._reader = next(self._readers, None)
        except BaseException:
            self.close()
            raise
        if not self._left:
            self.close()
        return self._reader is not None

    def close(self) -> None:
        """Give pages back and compute nothing more; under the engine's lock."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def result(self) -> list[LogLikelihood]:
        """The log-likelihoods in the order of the pairs, after the last step."""
        found = []
        for (_, answer), readings, nfe in zip(self.pairs, self._readings, self._nfe, strict=True):
            done = [reading for reading in readings if reading is not None]
            assert len(done) == len(answer), "a job that was closed has no result"
            logs = tuple(reading.logprob for reading in done)
            greedy = all(reading.logprob >= reading.best for reading in done)
            top = tuple(one.top for one in done) if self._options.top_logprobs else ()
            found.append(LogLikelihood(fsum(logs), logs, answer, greedy, nfe, top))
        return found

    def _grouped(self) -> Iterator[CanvasReader[ScoredRow]]:
        """Readers of the rows: of those that begin alike, if shared keys pay, and of the rest."""
        engine, unit = self._engine, sharing_unit(self._engine)
        groups: dict[Ids, list[ScoredRow]] = {}
        for row in self.rows:
            first = row.positions[0] - int(engine.info.shift)
            cut = 0 if unit is None else max(first, 0) // unit * unit
            groups.setdefault(row.base[:cut], []).append(row)
        rest: list[ScoredRow] = []
        for beginning, rows in groups.items():
            if (len(rows) - 1) * len(beginning) < LEAST_SAVED:
                rest += rows
            else:
                yield self._reader_of(rows, len(beginning))
        if rest:
            yield self._reader_of(rest, 0)

    def _reader_of(self, rows: Sequence[ScoredRow], shared: int) -> CanvasReader[ScoredRow]:
        """A reader of rows; the forwards for their shared keys count for the first of them."""
        scheduler = self._engine.scheduler
        most = scheduler.max_token_forwards or MOST_POSITIONS
        reader = CanvasReader(
            self._engine, rows, self._note, most, most_rows=scheduler.max_rows, shared=shared
        )
        self._nfe[rows[0].wants[0].pair] += reader.shared_forwards
        return reader

    def _note(self, rows: Sequence[ScoredRow], logits: Tensor) -> None:
        """Write down what is read of rows in `logits [N, V]`."""
        places: list[int] = []
        first = 0
        for row in rows:
            places += [first + want.place for want in row.wants]
            first += len(row.positions)
            self._nfe[row.wants[0].pair] += 1
        wants = [want for row in rows for want in row.wants]
        tokens = torch.tensor([want.token for want in wants], device=logits.device)
        at = torch.tensor(places, device=logits.device)
        total = logits.logsumexp(1).double()
        logs = (logits[at, tokens].double() - total[at]).tolist()
        best = (_largest(logits, rows[0].mask_id).double() - total).tolist()
        top = _top(logits, total, rows[0].mask_id, self._options.top_logprobs)
        for want, place, logprob in zip(wants, places, logs, strict=True):
            reading = _Reading(logprob, best[place], top[place] if top else ())
            self._readings[want.pair][want.at] = reading
        self._left -= len(rows)


def _largest(logits: Tensor, mask_id: int) -> Tensor:
    """The largest of `logits [N, V]` but that of MASK, `[N]`."""
    values, ids = logits.topk(2, dim=1)
    return torch.where(ids[:, 0] == mask_id, values[:, 1], values[:, 0])


def _top(
    logits: Tensor, total: Tensor, mask_id: int, count: int
) -> list[tuple[tuple[int, float], ...]]:
    """The most likely ids of each row of logits with their log-probabilities; none for count 0."""
    if not count:
        return []
    ids = most_likely(logits, mask_id, count)
    logs = logits.gather(1, ids).double() - total[:, None]
    pairs = zip(ids.tolist(), logs.tolist(), strict=True)
    return [tuple(zip(own, values, strict=True)) for own, values in pairs]


def _check(engine: Scored, pair: tuple[Ids, Ids], longest: int | None, where: str) -> None:
    """Raise `InvalidRequest` for a pair that the model cannot score, and `Unavailable` for one
    beyond the key/value budget.
    """
    info, (prompt, answer) = engine.info, pair
    if info.mask_id is None:
        raise InvalidRequest("model", "has no mask, so that no position of a text can be predicted")
    if info.shift and not prompt:
        rule = "must not be empty: nothing predicts this model's first id"
        raise InvalidRequest(f"{where}prompt", rule)
    length = -(-len(prompt + answer) // info.alignment) * info.alignment
    most = engine.scheduler.max_token_forwards
    limits = {"the model": info.max_length, "a canvas": longest, "`max_token_forwards`": most}
    for name, limit in limits.items():
        if limit is not None and length > limit:
            param = "answer" if len(answer) > len(prompt) else "prompt"
            rule = f"of {len(prompt)} tokens and an answer of {len(answer)} need a canvas of"
            raise InvalidRequest(
                f"{where}{param}",
                f"is too long: a prompt {rule} {length}; the limit of {name} is {limit}",
            )
    pages = engine.kv.pages
    if not pages.fits(pages.pages_for(length)):
        raise Unavailable(f"a canvas of {length} positions does not fit the key/value budget")
