"""`Generation` and its costs: the result of a request."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

from dlm.core import Event, HostCanvas, Kind
from dlm.errors import InvalidRequest
from dlm.text import Text
from dlm.text.stream import StopStringWatcher

if TYPE_CHECKING:
    from dlm.engine.row import RowState


@dataclass(frozen=True, slots=True)
class Stats:
    """The costs of a generation.

    `nfe`: forwards of this row (refresh, prefill, store and step count one each, fused ones one
    together) · `tokens`: generated before the first end id · `token_forwards`: positions computed ·
    `arm_forwards`: extra model inputs (CFG) · `idle_forwards`: run after the row had ended, until
    the host looked · `forwards` by purpose · `aux_forwards`, `aux_tokens`: forwards of auxiliary
    models by name, and the tokens they computed · `seconds`: wall time from admission to the end,
    shared with the batch mates · `reused`: positions of the prompt whose keys an earlier request
    has computed · `kv_bytes`: size of the keys and values that the row held, in whole pages ·
    `staleness`: how many steps old the oldest key was that a step reused (0: every key was fresh,
    or could not be out of date).
    """

    nfe: int
    tokens: int
    token_forwards: int
    arm_forwards: int
    idle_forwards: int
    forwards: Mapping[str, int]
    aux_forwards: Mapping[str, int]
    aux_tokens: Mapping[str, int]
    seconds: float
    reused: int = 0
    kv_bytes: int = 0
    staleness: int = 0

    @property
    def tokens_per_forward(self) -> float:
        """TPF: generated tokens before the first end id, per forward."""
        return self.tokens / self.nfe if self.nfe else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens before the first end id, per second of wall time."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer, with its canvas and the reason why it ended.

    text: the answer (None without a tokenizer).
    ids: those before its end id.
    finish_reason: `stop` (end id or stop string), `length`, the reason of the rule or budget that
        ended the row, or `abort`; of nodes also `parked` and `draft`.
    stats: its costs.
    prompt_ids: the prompt.
    canvas: the prompt and all that follows it, to the last position.
    logprobs: of each id, at its commit, at temperature 1 over all ids (nan: it was given).
    holes: the text that each hole of `infill` was filled with (empty without one, or without a
        tokenizer).
    trace: the events, when asked for.
    choices: all n answers of the request, this one first (empty when there is one).
    proposal_logprobs: of each id, in the distribution that it was drawn from: tempered, filtered,
        without MASK (0: it was not drawn, nan: it was given; empty where a model does not tell).
    """

    text: str | None
    ids: tuple[int, ...]
    finish_reason: str
    stats: Stats
    prompt_ids: tuple[int, ...] = field(repr=False)
    canvas: tuple[int, ...] = field(repr=False)
    logprobs: tuple[float, ...] = field(repr=False)
    holes: tuple[str, ...] = ()
    trace: tuple[Event, ...] = field(default=(), repr=False)
    choices: tuple[Generation, ...] = field(default=(), repr=False)
    proposal_logprobs: tuple[float, ...] = field(default=(), repr=False)


class Handle(Protocol):
    """A request that is being answered."""

    def result(self) -> Generation:
        """Wait, and return the answer."""
        ...

    def abort(self) -> None:
        """End what still runs."""
        ...


def answer_of(
    canvas: HostCanvas, limit: int, end_ids: Collection[int], start: int | None = None
) -> tuple[list[int], bool]:
    """The ids from `start` (None: from the end of the prompt) to `limit`, up to the first end id or
    open position.

    The second value is True if an end id came; one that was given does not count.
    """
    answer: list[int] = []
    first = canvas.prompt if start is None else start
    for pos in range(first, min(limit, len(canvas.kinds))):
        if canvas.kinds[pos] > Kind.COMMITTED:
            return answer, False
        if canvas.kinds[pos] == Kind.COMMITTED and canvas.ids[pos] in end_ids:
            return answer, True
        answer.append(canvas.ids[pos])
    return answer, False


def generation_of(state: RowState, text: Text | None) -> Generation:
    """The answer of a row as it is now, and all of it once the row has ended."""
    shown, answer = text_of(state, text)
    return Generation(
        text=shown,
        ids=tuple(answer),
        finish_reason=str(state.canvas.reason),
        stats=stats_of(state.ledger, _generated(state, len(answer)), state.seconds),
        prompt_ids=state.prompt,
        canvas=tuple(state.canvas.ids),
        logprobs=logs_of(state.canvas.conf, state.canvas, len(answer)),
        proposal_logprobs=logs_of(state.canvas.drawn, state.canvas, len(answer)),
        holes=() if text is None else tuple(map(text.decode_inside, _holes(state, len(answer)))),
        trace=tuple(state.trace),
    )


def text_of(state: RowState, text: Text | None) -> tuple[str | None, list[int]]:
    """The text of a row's answer (None without a tokenizer) and its ids.

    A complete stop string ends the text; the ids are then those that the text needs.
    """
    answer, _ = answer_of(state.canvas, state.limit, state.end_ids)
    if text is None:
        return None, answer
    if isinstance(state.watch, StopStringWatcher) and state.watch.text is not None:
        shown = state.watch.text
        while answer and len(decoded(state, answer[:-1], text)) >= len(shown):
            answer.pop()
        return shown, answer
    return decoded(state, answer, text), answer


def canvas_text(state: RowState, text: Text | None, mask: str) -> str | None:
    """The text after a row's prompt, `mask` for each open position; None without a tokenizer."""
    if text is None:
        return None
    start, pieces = len(state.prompt), []
    answer = zip(state.canvas.kinds[start:], state.canvas.ids[start:], strict=True)
    for is_open, run in groupby(answer, lambda place: place[0] >= Kind.MASK):
        ids = [token for _, token in run]
        pieces.append(mask * len(ids) if is_open else text.decode_inside(ids))
    return "".join(pieces)


def decoded(state: RowState, ids: Sequence[int], text: Text) -> str:
    """The text of ids of a row's answer: by themselves; with `infill`, whose texts come back as
    they are, as part of a longer text.
    """
    return text.decode_inside(ids) if state.pinned else text.decode(ids)


def shown_ids(state: RowState, text: Text | None) -> list[int]:
    """Ids of a row's answer that spell its text and nothing after it.

    Those of the answer, but for a last token that a stop string cuts: the text before it is
    encoded anew, or left out where no ids spell it.
    """
    shown, answer = text_of(state, text)
    if text is None or state.watch is None or shown == decoded(state, answer, text):
        return answer
    whole = answer[: state.watch.clear]
    rest = (shown or "")[len(decoded(state, whole, text)) :]
    try:
        spelled = [*whole, *text.encode_inside(rest)]
    except InvalidRequest:
        return whole
    return spelled if decoded(state, spelled, text) == shown else whole


def _generated(state: RowState, count: int) -> int:
    """The number of the first `count` ids of the answer that were not pinned."""
    kinds = state.canvas.kinds[len(state.prompt) : len(state.prompt) + count]
    return sum(kind == Kind.COMMITTED for kind in kinds)


def _holes(state: RowState, count: int) -> Iterator[list[int]]:
    """The ids of each stretch of open positions among the first `count` ids of the answer."""
    start = len(state.prompt)
    for is_open, run in groupby(enumerate(state.pinned), lambda place: place[1] is None):
        places = [at for at, _ in run]
        if is_open:
            yield state.canvas.ids[start + places[0] : start + min(places[-1] + 1, count)]


def stats_of(ledger: Ledger, tokens: int, seconds: float) -> Stats:
    """The ledger as a result shows it."""
    return Stats(
        ledger.nfe,
        tokens,
        ledger.token_forwards,
        ledger.arm_forwards,
        ledger.idle_forwards,
        dict(ledger.forwards),
        dict(ledger.aux_forwards),
        dict(ledger.aux_tokens),
        seconds,
        ledger.reused,
        ledger.kv_bytes,
        ledger.staleness,
    )


def logs_of(values: Sequence[float | None], canvas: HostCanvas, count: int) -> tuple[float, ...]:
    """Logarithms of the `values` of the first `count` generated positions."""
    return tuple(map(log_of, values[canvas.prompt : canvas.prompt + count]))


def log_of(probability: float | None) -> float:
    """The logarithm; NaN of None, and of zero that of the least number."""
    return math.nan if probability is None else math.log(max(probability, 1e-45))


@dataclass(slots=True)
class Ledger:
    """Counts of one row.

    `nfe`: forwards of the row; a refresh, prefill or store that is fused with a step counts once.
    `forwards` counts them by what they were for (`step`, `refresh step`, `store step`, ...).
    `arm_forwards`: those of further model inputs (CFG), which nfe leaves out. `token_forwards`:
    positions computed, in all inputs. `idle_forwards`: those after the row's end that an
    unrolled sync interval still ran. `aux_forwards`, `aux_tokens`: forwards of each auxiliary model
    and the tokens it computed. `inherited`: the part of `nfe` that a fork did not pay. `reused`:
    positions of the prompt whose keys an earlier request has computed. `kv_bytes`: size of the keys
    and values that the row holds. `staleness`: how many steps old the oldest key was that a step
    reused, 0 where keys are never out of date.
    """

    nfe: int = 0
    arm_forwards: int = 0
    token_forwards: int = 0
    forwards: Counter[str] = field(default_factory=Counter)
    idle_forwards: int = 0
    aux_forwards: Counter[str] = field(default_factory=Counter)
    aux_tokens: Counter[str] = field(default_factory=Counter)
    inherited: int = 0
    reused: int = 0
    kv_bytes: int = 0
    staleness: int = 0

    def record(self, purpose: str, positions: int, arms: int = 1, *, idle: bool = False) -> None:
        """One forward of the row over `arms` model inputs; `idle`: it had ended before."""
        self.token_forwards += positions
        if idle:
            self.idle_forwards += 1
            return
        self.nfe += 1
        self.arm_forwards += arms - 1
        self.forwards[purpose] += 1

    def record_aux(self, name: str, tokens: int) -> None:
        """One forward of the auxiliary model `name` over `tokens` of the row's tokens."""
        self.aux_forwards[name] += tokens > 0
        self.aux_tokens[name] += tokens

    def fork(self) -> Ledger:
        """The ledger of a forked row: the same counts, marked as spent by its ancestor."""
        return replace(
            self,
            forwards=Counter(self.forwards),
            aux_forwards=Counter(self.aux_forwards),
            aux_tokens=Counter(self.aux_tokens),
            inherited=self.nfe,
        )
