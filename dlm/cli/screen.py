"""Shots in a terminal: masks, tokens coloured by confidence, block borders, a line of figures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

import dlm
from dlm.cli.frames import END, Cell, DecodeToken, Frame, FrameBuilder
from dlm.errors import InvalidRequest

MASK: Final = "░"
BORDER: Final = "┊"
PAUSE: Final = 0.05
"""Least seconds between two pictures in a terminal: drawing costs more than a small model."""
LEGEND: Final = ((0.3, "red"), (0.6, "yellow"), (0.9, "cyan"), (1.01, "green"))
"""Colours of confidences below each bound."""


def colour(conf: float | None) -> str:
    """The colour of a confidence; none where there was no commit."""
    return "" if conf is None else next((name for bound, name in LEGEND if conf < bound), "")


def picture(frame: Frame) -> Text:
    """The answer as text: new tokens are bold, tokens that were taken back inverted."""
    text = Text(overflow="fold")
    for cell in frame.cells:
        if cell.pos in frame.borders:
            text.append(BORDER, style="dim")
        text.append(*_drawn(cell))
    return text


def _drawn(cell: Cell) -> tuple[str, str]:
    """Return the text drawn for a cell and its style."""
    if cell.state == "open":
        return MASK, "dim"
    if cell.state == "reopened":
        return MASK, "reverse magenta"
    if cell.state == "dead":
        return "", ""
    if cell.state == "given":
        return cell.text, "dim"
    shown = cell.text.replace("\n", "⏎\n")
    style = "dim" if cell.text == END else colour(cell.conf)
    return shown, f"bold {style}" if cell.state == "fresh" else style


def counted(number: int, noun: str) -> str:
    """`1 forward`, `2 forwards`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def figures(frame: Frame, seconds: float) -> str:
    """Forwards, tokens per forward, tokens a second; the reason at the end."""
    rate = f"{frame.tokens / seconds:.0f} tokens/s" if seconds > 0 else ""
    parts = [
        counted(frame.step, "forward"),
        f"{frame.tokens / max(1, frame.step):.2f} tokens per forward",
        counted(frame.tokens, "token"),
        rate,
        frame.reason or "",
    ]
    return " · ".join(part for part in parts if part)


def one_line(frame: Frame) -> str:
    """A frame without colours, for files and dumb terminals."""
    text = picture(frame).plain.replace("⏎\n", "⏎").rstrip(END + MASK)
    return f"{frame.step:4} {text}"


class Screen:
    """Shows a row while it is decoded; a context manager.

    In a terminal the picture is drawn over itself; elsewhere one line is written for each step.
    Everything goes to `console`, by default stderr: stdout is for the answer. `transient`: the
    picture is wiped at the end.
    """

    def __init__(
        self, decode_token: DecodeToken, console: Console | None = None, *, transient: bool = False
    ) -> None:
        self._builder, self._begun = FrameBuilder(decode_token), time.perf_counter()
        self._console = console or Console(stderr=True, highlight=False)
        self._transient = transient
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=self._transient,
                vertical_overflow="visible",
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the last picture on the screen."""
        if self._live is not None:
            self._live.stop()

    def show(self, events: Iterable[dlm.Event]) -> None:
        """Draw all events as they come, in a terminal no faster than the eye can follow."""
        drawn = 0.0
        for event in events:
            frame = self._builder.take(event)
            now = time.perf_counter()
            if frame is not None and (not self.moves or now - drawn > PAUSE):
                self.draw(frame)
                drawn = now
        self.draw(self._builder.frame())

    @property
    def moves(self) -> bool:
        """True if each frame is drawn over the one before (a terminal)."""
        return self._live is not None

    def draw(self, frame: Frame) -> None:
        """Draw one frame."""
        status = figures(frame, time.perf_counter() - self._begun)
        if self._live is None:
            self._console.print(one_line(frame), soft_wrap=True, markup=False)
        else:
            self._live.update(Group(picture(frame), Text(status, style="dim")), refresh=True)


def replay(frames: Sequence[Frame], speed: float) -> None:
    """Draw the frames of a saved trace on stdout, `speed` of them a second; at once into a file."""
    if not speed > 0:
        raise InvalidRequest("speed", f"must be greater than 0, got {speed}")
    with Screen(str, Console(highlight=False)) as screen:
        for frame in frames:
            screen.draw(frame)
            if screen.moves:
                time.sleep(1 / speed)
