"""`HostCanvas`: the host's copy of a canvas, built by replaying its events."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence

from dlm.core.event import Event
from dlm.core.rows import Kind
from dlm.errors import EngineError


def first_end(ids: Sequence[int], kinds: Sequence[Kind], end_ids: Collection[int]) -> int:
    """The position of the first committed end id of a canvas; its length if there is none."""
    written = enumerate(zip(ids, kinds, strict=True))
    ends = (at for at, (one, kind) in written if kind == Kind.COMMITTED and one in end_ids)
    return next(ends, len(ids))


class HostCanvas:
    """One row's canvas, built by applying its events in order.

    `ids`, `kinds` run over the positions; an open position holds the mask. `conf` holds the
    confidence of each last commit (None: never), `drawn` the probability with which its id was
    drawn (1: it was not drawn), `born` its step (0: it was given, or the canvas opened with it).
    `top` holds, by position, the most likely ids at its commit, where the events tell them.
    `settled`: how many leading positions will not change any more, as the `settle` events said.
    `reason` is the finish reason once `done` came.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.kinds: list[Kind] = []
        self.conf: list[float | None] = []
        self.drawn: list[float | None] = []
        self.born: list[int] = []
        self.top: dict[int, tuple[tuple[int, float], ...]] = {}
        self.open_kind = Kind.MASK
        self.prompt = self.settled = 0
        self.reason: str | None = None

    def fill(self, ids: list[int], kinds: list[Kind], prompt: int) -> None:
        """Become a new canvas, of which nothing but the prompt is settled."""
        self.ids, self.kinds = ids, kinds
        self.conf, self.drawn = [None] * len(ids), [None] * len(ids)
        self.born, self.top = [0] * len(ids), {}
        self.open_kind, self.prompt, self.settled = max(Kind.MASK, *kinds), prompt, prompt
        self.reason = None

    def restart(self) -> None:
        """Settle nothing but the prompt; what was left open when the row ended is open again."""
        self.settled, self.reason = self.prompt, None
        self.kinds = [self.open_kind if kind == Kind.PAD else kind for kind in self.kinds]

    def apply(self, event: Event) -> None:
        """Take one event. Raises `EngineError` for one that cannot follow what came before."""
        if event.type == "open":
            kinds = [Kind(kind) for kind in event.data["kinds"]]
            self.fill(list(event.ids), kinds, int(event.data["prompt"]))
            self.settled = int(event.data["settled"])
        elif event.type in ("commit", "replace"):
            drawn = event.drawn or (1.0,) * len(event.pos)
            for at, token, *odds in zip(event.pos, event.ids, event.conf, drawn, strict=True):
                self._require(at, event, is_open=event.type == "commit")
                self.ids[at], self.kinds[at] = token, Kind.COMMITTED
                self.conf[at], self.drawn[at] = odds
                self.born[at] = event.step
            if event.top or self.top:
                self.top |= zip(event.pos, event.top or [()] * len(event.pos), strict=True)
        elif event.type in ("remask", "renoise"):
            for pos, token in zip(event.pos, event.ids, strict=True):
                self._require(pos, event, is_open=event.type == "renoise")
                self.ids[pos], self.kinds[pos] = token, self.open_kind
        elif event.type == "settle":
            self.settled = event.pos[0]
        elif event.type == "done":
            self.kinds = [Kind.PAD if kind >= Kind.MASK else kind for kind in self.kinds]
            self.reason = str(event.data["reason"])
        elif event.type != "block":
            raise EngineError(f"cannot replay an event of type {event.type!r}")

    def opened(self, row: int, step: int) -> Event:
        """The event that starts a canvas as this one is now."""
        data = {
            "prompt": self.prompt,
            "settled": self.settled,
            "kinds": [int(kind) for kind in self.kinds],
        }
        return Event("open", row, step, ids=tuple(self.ids), data=data)

    def fork(self) -> HostCanvas:
        """A copy that goes its own way."""
        twin = HostCanvas()
        twin.ids, twin.kinds = self.ids[:], self.kinds[:]
        twin.conf, twin.drawn, twin.born = self.conf[:], self.drawn[:], self.born[:]
        twin.top = dict(self.top)
        twin.open_kind, twin.prompt = self.open_kind, self.prompt
        twin.settled, twin.reason = self.settled, self.reason
        return twin

    def _require(self, pos: int, event: Event, *, is_open: bool) -> None:
        kind = self.kinds[pos]
        if kind < Kind.MASK if is_open else kind != Kind.COMMITTED:
            raise EngineError(f"{event.type} in step {event.step} at {pos}, which is {kind.name}")

    def front(self) -> int:
        """The number of leading positions that are filled."""
        at = self.settled
        while at < len(self.kinds) and self.kinds[at] < Kind.MASK:
            at += 1
        return at


class Mailbox(deque[Event]):
    """The events of a row that its reader has not taken yet: `most` of them.

    When they are more, the canvas as it is then takes the place of all: replaying what the reader
    gets still gives the final canvas. It is to be filled before the canvas is changed.
    """

    def __init__(self, canvas: HostCanvas, most: int) -> None:
        super().__init__()
        self._canvas, self._most = canvas, most

    def append(self, event: Event) -> None:
        """Add an event."""
        if len(self) >= self._most:
            self.clear()
            super().append(self._canvas.opened(event.row, event.step))
        super().append(event)


def replay(events: Iterable[Event]) -> dict[int, HostCanvas]:
    """The final canvas of every row that the events tell of."""
    canvases: dict[int, HostCanvas] = {}
    for event in events:
        canvases.setdefault(event.row, HostCanvas()).apply(event)
    return canvases
