"""`dlm chat`: a conversation in the terminal, each answer seen as it is unmasked."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Mapping
from typing import Any, Final, cast

from rich.console import Console

import dlm
from dlm.cli.frames import DecodeToken
from dlm.cli.interrupts import Catching
from dlm.cli.screen import Screen, counted
from dlm.errors import InvalidRequest

HELP: Final = (
    "/new starts over; /quit or Ctrl-D ends; Ctrl-C stops an answer, pressed twice it ends the chat"
)
ALONE: Final = "this model is shown the last question alone, as its chat template says"
PROMPT: Final = "you> "


def token_decoder(engine: dlm.Engine) -> DecodeToken:
    """The text of a token of this engine; its number if there is no tokenizer."""
    text = engine.text
    return (
        (lambda token: f"{token} ") if text is None else (lambda token: text.decode_inside([token]))
    )


def watched(
    engine: dlm.Engine, prompt: Any, options: Mapping[str, Any], *, transient: bool = False
) -> tuple[dlm.Generation, bool]:
    """Decode one prompt on the screen; also return True if Ctrl-C has ended it.

    `transient`: the picture is wiped at the end.
    """
    request = engine.submit(prompt, **options)
    if len(request.states) > 1:
        request.abort()
        raise InvalidRequest("n", f"must be 1 to be watched, got {len(request.states)}")
    interrupted = False
    try:
        with Catching(), Screen(token_decoder(engine), transient=transient) as screen:
            screen.show(request.events())
    except KeyboardInterrupt:
        interrupted = True
    finally:
        request.abort()
    return request.result(), interrupted


def talk(
    engine: dlm.Engine, system: str | None, options: Mapping[str, Any], *, plain: bool
) -> None:
    """Read turns until the end of input; every answer is part of the next prompt."""
    console = Console(stderr=True, highlight=False)
    plain = plain or not console.is_terminal
    console.print(f"{engine.name}: {HELP}", style="dim")
    if forgets(engine):
        console.print(ALONE, style="dim")
        warnings.filterwarnings("ignore", "the chat template does not show")  # told once
    opening = [] if system is None else [{"role": "system", "content": system}]
    messages, stopped = list(opening), False
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are no text: told as such
    while True:
        try:
            line = input(PROMPT if console.is_terminal else "").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            if stopped:
                raise
            stopped = True
            console.print(f"\n({HELP})", style="dim")
            continue
        stopped = False
        if line in ("/quit", "/exit"):
            return
        if line == "/new":
            messages = list(opening)
        elif line.startswith("/"):
            console.print(HELP, style="dim")
        elif line:
            messages = _turn(engine, messages, line, options, console, plain=plain)


def forgets(engine: dlm.Engine) -> bool:
    """True if the chat template drops the messages before the last question."""
    if engine.text is None or engine.text.vocabulary.template is None:
        return False
    turns = (("user", "an earlier question"), ("assistant", "its answer"), ("user", "the last one"))
    return bool(engine.text.left_out([{"role": role, "content": text} for role, text in turns]))


def _turn(
    engine: dlm.Engine,
    messages: list[dict[str, str]],
    question: str,
    options: Mapping[str, Any],
    console: Console,
    *,
    plain: bool,
) -> list[dict[str, str]]:
    """One question and its answer; a wrong question is reported and forgotten."""
    turns = [*messages, {"role": "user", "content": question}]
    try:
        if plain:
            answer, interrupted = engine.generate(turns, **options), False
        else:
            answer, interrupted = watched(engine, turns, options, transient=True)
    except dlm.Interrupted as stop:
        answer, interrupted = cast("dlm.Generation", stop.partial), True
    except (dlm.InvalidRequest, dlm.Unavailable) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return messages
    text = answer.text or ""
    print(text, flush=True)
    stats = answer.stats
    spent = counted(stats.nfe, "forward")
    cost = f"{spent}, {stats.tokens_per_forward:.2f} tokens each, {stats.seconds:.2f} s"
    console.print("(stopped)" if interrupted else f"({cost})", style="dim")
    return [*turns, {"role": "assistant", "content": text}]
