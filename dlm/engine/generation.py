"""`Generation`: the result of a request."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

from dlm.core import Event, HostCanvas, Kind
from dlm.core.canvas import first_end
from dlm.engine.stats import Stats, stats_of
from dlm.errors import InvalidRequest
from dlm.text import Text
from dlm.text.stream import StopStringWatcher

if TYPE_CHECKING:
    from dlm.engine.row import RowState


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
    top_logprobs: of each id, the most likely ids at its commit with their log-probabilities, as in
        `logprobs` (an empty tuple: it was given), where the request asks for them.
    commit_steps: of each id, the forward of the row that committed it, from 1 (0: it was given).
    search: score, costs and end of the search that found it (None: there was none).
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
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = field(default=(), repr=False)
    commit_steps: tuple[int, ...] = field(default=(), repr=False)
    search: Mapping[str, Any] | None = None


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
    canvas, start = state.canvas, state.canvas.prompt
    return Generation(
        text=shown,
        ids=tuple(answer),
        finish_reason=str(canvas.reason),
        stats=stats_of(state.ledger, _generated(state, len(answer)), state.seconds, state.started),
        prompt_ids=state.prompt,
        canvas=tuple(canvas.ids),
        logprobs=logs_of(canvas.conf, canvas, len(answer)),
        proposal_logprobs=logs_of(canvas.drawn, canvas, len(answer)),
        top_logprobs=_top_logs(state, len(answer)),
        commit_steps=tuple(canvas.born[start : start + len(answer)]),
        holes=() if text is None else tuple(map(text.decode_inside, hole_ids(state, len(answer)))),
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
    start = len(state.prompt)
    pieces = _pieces(state.canvas.ids[start:], state.canvas.kinds[start:])
    return "".join(
        mask * len(ids) if is_open else text.decode_inside(ids) for is_open, ids in pieces
    )


def draft_text(
    state: RowState, ids: Sequence[int], kinds: Sequence[Kind], text: Text, mask: str
) -> str:
    """The text of an unfinished answer up to its first end id, `mask` for each open position."""
    most, found = first_end(ids, kinds, state.end_ids), ""
    for at, (is_open, run) in enumerate(_pieces(ids[:most], kinds[:most])):
        spelled = text.decode_inside(run) if at else decoded(state, run, text)
        found += mask * len(run) if is_open else spelled
    return found


def _pieces(ids: Sequence[int], kinds: Sequence[Kind]) -> Iterator[tuple[bool, list[int]]]:
    """Stretches of positions that are all open or all filled: True if open, and their ids."""
    places = zip(kinds, ids, strict=True)
    for is_open, run in groupby(places, lambda place: place[0] >= Kind.MASK):
        yield is_open, [token for _, token in run]


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


def hole_spans(pinned: Sequence[int | None]) -> list[tuple[int, int]]:
    """The start and the end of each stretch of open positions."""
    spans = []
    for is_open, run in groupby(enumerate(pinned), lambda place: place[1] is None):
        places = [at for at, _ in run]
        if is_open:
            spans.append((places[0], places[-1] + 1))
    return spans


def hole_ids(state: RowState, count: int) -> list[list[int]]:
    """The ids of each hole of `infill` among the first `count` ids of the answer."""
    answer = state.canvas.ids[len(state.prompt) : len(state.prompt) + count]
    return [answer[start:end] for start, end in hole_spans(state.pinned)]


def logs_of(values: Sequence[float | None], canvas: HostCanvas, count: int) -> tuple[float, ...]:
    """Logarithms of the `values` of the first `count` generated positions."""
    return tuple(map(log_of, values[canvas.prompt : canvas.prompt + count]))


def _top_logs(state: RowState, count: int) -> tuple[tuple[tuple[int, float], ...], ...]:
    """The most likely ids at the commits of the first `count` generated positions."""
    if not state.bound.config.top_logprobs:
        return ()
    canvas, places = state.canvas, range(state.canvas.prompt, state.canvas.prompt + count)
    return tuple(tuple((i, log_of(p)) for i, p in canvas.top.get(at, ())) for at in places)


def log_of(probability: float | None) -> float:
    """The logarithm; NaN of None, and of zero that of the least number."""
    return math.nan if probability is None else math.log(max(probability, 1e-45))
