"""Events and their replay: the host's picture of every canvas is made of nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dlm.core import Event, Kind
from dlm.errors import EngineError


class HostCanvas:
    """One row's canvas, built by applying its events in order.

    `ids`, `kinds` run over the positions; an open position holds the mask. `conf` holds the
    confidence of each last commit (None: never). `settled`: how many leading positions will not
    change any more, as the `settle` events said. `reason` is the finish reason once `done` came.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.kinds: list[Kind] = []
        self.conf: list[float | None] = []
        self.prompt = 0
        self.settled = 0
        self.reason: str | None = None

    def apply(self, event: Event) -> None:
        """Take one event. Raises `EngineError` for one that cannot follow what came before."""
        if event.type == "open":
            self.ids = list(event.ids)
            self.kinds = [Kind(kind) for kind in event.data["kinds"]]
            self.conf = [None] * len(self.ids)
            self.prompt = int(event.data["prompt"])
            self.settled = int(event.data["settled"])
        elif event.type == "commit":
            for pos, token, conf in zip(event.pos, event.ids, event.conf, strict=True):
                self._require(pos, Kind.MASK, event)
                self.ids[pos], self.kinds[pos], self.conf[pos] = token, Kind.COMMITTED, conf
        elif event.type == "remask":
            for pos, token in zip(event.pos, event.ids, strict=True):
                self._require(pos, Kind.COMMITTED, event)
                self.ids[pos], self.kinds[pos] = token, Kind.MASK
        elif event.type == "settle":
            self.settled = event.pos[0]
        elif event.type == "done":
            self.reason = str(event.data["reason"])
            self.kinds = [Kind.PAD if k == Kind.MASK else k for k in self.kinds]
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
        twin.ids, twin.kinds, twin.conf = self.ids[:], self.kinds[:], self.conf[:]
        twin.prompt, twin.settled, twin.reason = self.prompt, self.settled, self.reason
        return twin

    def _require(self, pos: int, kind: Kind, event: Event) -> None:
        if self.kinds[pos] != kind:
            raise EngineError(
                f"{event.type} in step {event.step} at {pos}, which is {self.kinds[pos].name}"
            )

    def front(self) -> int:
        """How many leading positions are filled."""
        at = self.settled
        while at < len(self.kinds) and self.kinds[at] < Kind.MASK:
            at += 1
        return at


def replay(events: Iterable[Event]) -> dict[int, HostCanvas]:
    """The final canvas of every row that the events tell of."""
    canvases: dict[int, HostCanvas] = {}
    for event in events:
        canvases.setdefault(event.row, HostCanvas()).apply(event)
    return canvases


def commits_of(
    row: int, step: int, changes: Sequence[tuple[int, int, float | None]]
) -> list[Event]:
    """The commit and remask events of one step of a row."""
    events = []
    new = [(p, i, c) for p, i, c in changes if c is not None]
    gone = [(p, i) for p, i, c in changes if c is None]
    if new:
        pos, ids, conf = zip(*new, strict=True)
        events.append(Event("commit", row, step, pos, ids, conf))
    if gone:
        pos, ids = zip(*gone, strict=True)
        events.append(Event("remask", row, step, pos, ids))
    return events
