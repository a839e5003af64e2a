"""Events: what happened to a canvas. Replaying them gives the final canvas."""

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
    """One thing that happened to one row in one step.

    `pos`, `ids`, `conf` run in parallel where they apply: the canvas positions touched, the ids now
    there, and the confidences of commits. `row` numbers the choices of a request; `step` counts its
    forwards from 1. `open` carries the whole canvas and its kinds, `block` the bounds of an opened
    block in `pos`, `settle` one position: nothing before it will change, and none of it stands
    behind a stop string. `done` carries the finish reason in `data` and, in a stream, the answer
    as `result`, a `Generation` (None where the row has failed); that is not part of the JSON and
    not compared.
    """

    type: EventType
    row: int
    step: int
    pos: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    conf: tuple[float, ...] = ()
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
        for name in ("pos", "ids", "conf"):
            if value := getattr(self, name):
                out[name] = list(value)
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
            dict(record.get("data", {})),
        )
