"""Saved traces: JSONL files of events, shown again in the terminal, as a page or as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dlm
from dlm.cli.files import read_text
from dlm.cli.frames import DecodeToken, Frame, frames_of
from dlm.errors import InvalidRequest, shown

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Trace:
    """Events of one request, the model's name, and the text of every id in them."""

    events: Sequence[dlm.Event]
    model: str = ""
    texts: Mapping[int, str] | None = None

    def decode_token(self, token: int) -> str:
        """The text of a token; its number if the file lacks it."""
        return f"{token} " if self.texts is None else self.texts.get(token, f"{token} ")

    @property
    def rows(self) -> list[int]:
        """The choices that the trace holds."""
        return sorted({event.row for event in self.events})

    def check_row(self, row: int) -> None:
        """Raise `InvalidRequest` if the trace lacks a choice."""
        if row not in self.rows:
            known = ", ".join(map(str, self.rows)) or "none"
            raise InvalidRequest("row", f"must be one of the trace's rows, {known}, got {row}")

    def frames(self, row: int) -> list[Frame]:
        """Build the frames of one choice. Raises `InvalidRequest` if the trace lacks the choice."""
        self.check_row(row)
        return list(frames_of((e for e in self.events if e.row == row), self.decode_token))


def write_trace(
    path: Path, events: Iterable[dlm.Event], model: str, decode_token: DecodeToken | None
) -> None:
    """Write a header line with the texts of all ids, then a line for each event."""
    told = list(events)
    ids = sorted({token for event in told for token in event.ids})
    texts = None if decode_token is None else {token: decode_token(token) for token in ids}
    lines = trace_lines(told, model, texts)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def trace_lines(
    events: Iterable[dlm.Event], model: str, texts: Mapping[int, str] | None
) -> list[dict[str, Any]]:
    """The lines of a trace file as JSON objects: the header, then the events."""
    header: dict[str, Any] = {"v": VERSION, "type": "trace", "model": model}
    if texts is not None:
        header["texts"] = {str(token): text for token, text in texts.items()}
    return [header, *(event.to_json() for event in events)]


def read_trace(path: Path) -> Trace:
    """A saved trace. Raises `InvalidRequest` naming the line that is wrong."""
    model, texts, events = "", None, []
    lines = read_text("trace", path).splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError(f"must be an object, got {shown(record)}")
            if record["type"] == "trace":
                model = str(record.get("model", ""))
                texts = {int(i): str(text) for i, text in record.get("texts", {}).items()} or None
            else:
                events.append(dlm.Event.from_json(record))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidRequest("trace", f"{path}, line {number}: {_fault(error)}") from error
    if not events:
        raise InvalidRequest("trace", f"{path} holds no events")
    return Trace(events, model, texts)


def _fault(error: Exception) -> str:
    """The words for an exception that a line of a trace has caused."""
    match error:
        case json.JSONDecodeError():
            return f"is no JSON: {error.msg}"
        case KeyError():
            return f"must have a field {error.args[0]!r}: an event of a trace has one"
        case ValueError():
            return str(error)
    return f"has a field of a wrong form: {error}"


def require_matplotlib() -> None:
    """Raise `ModuleNotFoundError` if pictures cannot be drawn, before anything is written."""
    import matplotlib.figure  # noqa: F401  (whether it is there is all that is asked)


def write_picture(trace: Trace, row: int, path: Path) -> None:
    """The canvas over the steps as a picture: a column a position, a row a step.

    Needs `matplotlib`, which the `evals` extra brings.
    """
    from matplotlib.figure import Figure

    frames = trace.frames(row)
    width = len(frames[0].cells)
    start = frames[0].cells[0].pos if width else 0
    figure = Figure(
        figsize=(min(16.0, 2 + 0.22 * width), min(12.0, 1.6 + 0.26 * len(frames))),
        layout="constrained",
    )
    panel = figure.subplots()
    image = panel.imshow(
        [[_value(cell.conf) for cell in frame.cells] for frame in frames],
        aspect="auto",
        interpolation="none",
        cmap="viridis",
        vmin=0.0,
        vmax=1.0,
    )
    for y, frame in enumerate(frames):
        for x, cell in enumerate(frame.cells):
            if cell.state in ("fresh", "reopened"):
                shown = "x" if cell.state == "reopened" else _label(cell.text)
                bright = cell.conf is None or cell.conf > 0.6
                panel.text(
                    x, y, shown[:6], ha="center", va="center", fontsize=5.5,
                    color="black" if bright else "white", parse_math=False,
                )  # fmt: skip
    for border in frames[-1].borders:
        panel.axvline(border - start - 0.5, color="gray", linewidth=0.8)
    panel.set_xlabel("position of the answer")
    panel.set_ylabel("forward")
    panel.set_yticks(range(len(frames)), [str(frame.step) for frame in frames], fontsize=6)
    figure.colorbar(image, label="confidence at the commit")
    figure.savefig(path, dpi=120)


def _label(text: str) -> str:
    """A token in a small square."""
    return text.strip() or ("⏎" if "\n" in text else "·")


def _value(conf: float | None) -> float:
    return float("nan") if conf is None else conf
