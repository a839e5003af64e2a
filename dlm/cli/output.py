"""Output of `dlm generate`: text, status, JSON, events."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import typer

import dlm
from dlm.cli.chat import token_decoder
from dlm.cli.screen import counted
from dlm.cli.streams import is_unicode
from dlm.cli.trace import write_trace
from dlm.errors import InvalidRequest


def answer(
    generation: dlm.Generation,
    model: str,
    config: dlm.GenerationConfig,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print a generation: its text (each choice under a line of its own) or one JSON object."""
    choices = generation.choices or (generation,)
    if as_json:
        document = record(generation)
        if generation.choices:
            document["choices"] = [record(choice) for choice in choices]
        document |= {"model": model, "config": settings(config)}
        show_json(document)
    else:
        for number, choice in enumerate(choices, start=1):
            if len(choices) > 1:
                print(f"--- {number} of {len(choices)}: {choice.finish_reason}")
            print(shown(choice))
    sys.stdout.flush()
    if not quiet:
        typer.secho(status([choice.stats for choice in choices], generation), err=True, dim=True)


def long_canvas(engine: dlm.Engine, config: dlm.GenerationConfig) -> None:
    """Say on stderr that a bundled model was not made for a canvas this long."""
    canvas, asked = dlm.trained_canvas(engine.name), config.max_new_tokens
    if canvas is not None and asked is not None and canvas < asked <= engine.info.max_length:
        hint = (
            f"dlm: {engine.name} was trained on canvases of up to {canvas} tokens, this one has "
            f"{asked}: short answers may come out shortened or empty (--max-new-tokens)"
        )
        typer.secho(hint, err=True, dim=True)


def shown(generation: dlm.Generation) -> str:
    """The text, or the ids of a model without a tokenizer, in what stdout can show."""
    text = generation.text
    if text is None:
        text = " ".join(map(str, generation.ids))
    coding = sys.stdout.encoding or "utf-8"
    return text.encode(coding, errors="replace").decode(coding)


def status(stats: Sequence[dlm.Stats], generation: dlm.Generation) -> str:
    """One line: forwards, tokens per forward, tokens, seconds, finish reason (of the first)."""
    nfe, tokens = sum(s.nfe for s in stats), sum(s.tokens for s in stats)
    seconds = max(s.seconds for s in stats)
    rate = tokens / nfe if nfe else 0.0
    arms = sum(s.arm_forwards for s in stats)
    extra = f" (and {arms} for guidance)" if arms else ""
    return (
        f"{counted(nfe, 'forward')}{extra} · {rate:.2f} tokens per forward · "
        f"{counted(tokens, 'token')} · {seconds:.2f} s · {generation.finish_reason}"
    )


def record(generation: dlm.Generation) -> dict[str, Any]:
    """One choice as plain data."""
    stats = generation.stats
    found = {
        "text": generation.text,
        "finish_reason": generation.finish_reason,
        "ids": list(generation.ids),
        "holes": list(generation.holes),
        "stats": asdict(stats) | {"tokens_per_forward": stats.tokens_per_forward},
    }
    return found | ({"top_logprobs": generation.top_logprobs} if generation.top_logprobs else {})


def settings(config: dlm.GenerationConfig) -> dict[str, Any]:
    """The config as plain data; null: what suits the model."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    infill = dict(config.infill) if isinstance(config.infill, Mapping) else config.infill
    bias = {str(k): v for k, v in config.logit_bias.items()}
    return values | {"logit_bias": bias, "infill": infill}


def explanation(what: Any, *, as_json: bool) -> None:
    """Print an explanation of `Engine.explain`."""
    if as_json:
        show_json(asdict(what))
    else:
        print(what)


def show_json(document: dict[str, Any]) -> None:
    """One object on one line."""
    print(json.dumps(document, ensure_ascii=not is_unicode()))


def check_file(param: str, path: Path | None) -> None:
    """Raise `InvalidRequest` naming `param` for a file that could not be written later."""
    if path is None:
        return
    if path.is_dir():
        raise InvalidRequest(param, f"must be a file, but {path} is a folder")
    if not path.parent.is_dir():
        raise InvalidRequest(param, f"{path} cannot be written: its folder does not exist")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidRequest(param, f"{path} cannot be written")


def events(generation: dlm.Generation, path: Path | None, engine: dlm.Engine) -> None:
    """Write the events of every choice, one JSON object a line."""
    if path is not None:
        written = [e for choice in generation.choices or (generation,) for e in choice.trace]
        write_trace(path, written, engine.name, token_decoder(engine))
