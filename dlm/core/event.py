"""Events: the changes of a canvas. Replaying them gives the final canvas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EVENT_VERSION = 1

EventType = Literal[
    "open",
    "commit",
    "remask",
    "replace",
    "renoise",
    "shift",
    "block",
    "settle",
    "candidate",
    "done",
]


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one row in one step.

    type: `open` carries the whole canvas and its kinds; `block` the bounds of an opened block in
        `pos`; `settle` one position, before which nothing will change or be cut by a stop string
    row: number of the choice in its request
    step: forwards of the row so far, from 1
    pos, ids, conf: in parallel, the positions touched, their new ids, the confidences of commits
    drawn: of commits, the probability of each id where it was drawn from (empty: all are greedy)
    top: of commits, where the request asks for them, the most likely ids of each position and their
        probabilities, first the most likely
    data: of `open` and `done`; `done` carries the finish reason
    result: in a stream, the `Generation` of a `done` (None where the row has failed); neither part
        of the JSON nor compared
    """

    type: EventType
    row: int
    step: int
    pos: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    conf: tuple[float, ...] = ()
    drawn: tuple[float, ...] = ()
    top: tuple[tuple[tuple[int, float], ...], ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    result: Any = field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary without empty fields, for one line of JSONL."""
        out: dict[str, Any] = {
            "v": EVENT_VERSION,
            "type": self.type,
            "row": self.row,
            "step": self.step,
        }
        for name in ("pos", "ids", "conf", "drawn"):
            if value := getattr(self, name):
                out[name] = list(value)
        if self.top:
            out["top"] = [[list(entry) for entry in likely] for likely in self.top]
        if self.data:
            out["data"] = dict(self.data)
        return out

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Event:
        """The inverse of `to_json`. Raises `ValueError` on an unknown version."""
        if record.get("v") != EVENT_VERSION:
            raise ValueError(f"event version must be {EVENT_VERSION}, got {record.get('v')!r}")
        return cls(
            record["type"],
            record["row"],
            record["step"],
            tuple(record.get("pos", ())),
            tuple(record.get("ids", ())),
            tuple(record.get("conf", ())),
            tuple(record.get("drawn", ())),
            tuple(tuple((i, p) for i, p in likely) for likely in record.get("top", ())),
            dict(record.get("data", {})),
        )
