"""The mix of a load: requests of many lengths and strategies, drawn from a seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from random import Random
from typing import Any, Final, Literal

import dlm
from dlm.evals.items import bundled_items
from dlm.evals.tasks import TASKS

Form = Literal["text", "diffusing", "events"]
Fault = Literal["none", "leaves", "slow"]

STRATEGIES: Final[tuple[tuple[Mapping[str, Any], int], ...]] = (
    ({"preset": "fast"}, 4),
    ({"preset": "adaptive"}, 2),
    ({"preset": "leap"}, 2),
    ({"unmask": "topk", "blocks": "fixed(32)", "cache": "dual"}, 1),
    ({"preset": "revise", "steps": 16}, 1),
)
"""Options of the engine, and how often they come."""
LENGTHS: Final = (16, 32, 64, 96, 128)
STOPS: Final = ("\n", "=1", "boxed", "    return")
LEAVING, SLOW = 0.10, 0.05
"""Shares of clients that disconnect in the middle, and that read slowly."""
ITEMS: Final = 200
"""Problems of each task that prompts are taken from."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a load.

    prompt: of a user
    chat: asked as a talk, else as a text that is continued
    options: of the engine
    form: of its stream
    fault: of its client
    patience: frames that a client reads before it leaves
    stops: stop strings
    limits: `max_tokens` and the other options that OpenAI has fields for
    """

    number: int
    prompt: str
    chat: bool
    options: Mapping[str, Any]
    form: Form = "text"
    fault: Fault = "none"
    patience: int = 0
    stops: tuple[str, ...] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The endpoint that is asked."""
        return "/v1/chat/completions" if self.chat else "/v1/completions"

    def body(self) -> bytes:
        """The request as JSON."""
        given: dict[str, Any] = {**self.limits, "dlm": dict(self.options)}
        given |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.chat:
            given["messages"] = [{"role": "user", "content": self.prompt}]
        else:
            given["prompt"] = self.prompt
        if self.stops:
            given["stop"] = list(self.stops)
        if self.form == "diffusing":
            given["diffusing"] = True
        elif self.form == "events":
            given["dlm"]["events"] = True
        return json.dumps(given).encode()

    def submit(self, engine: dlm.Engine) -> dlm.Request:
        """Queue the same request in an engine, without events."""
        assert engine.text is not None
        limits = dict(self.limits)
        limits["max_new_tokens"] = limits.pop("max_tokens")
        stops = {"stop": [dlm.StopString(text) for text in self.stops]} if self.stops else {}
        prompt = engine.text.encode_prompt(self.prompt, chat=self.chat)
        request = engine.submit(prompt, **self.options, **limits, **stops)
        request.ignore_events()
        return request


def asks(seed: int) -> Iterator[Ask]:
    """Requests without end; the same ones for the same seed."""
    rng = Random(f"load {seed}")
    prompts = [item.prompt for task in TASKS for item in bundled_items(task, "test", ITEMS)]
    strategies = [options for options, _ in STRATEGIES]
    weights = [weight for _, weight in STRATEGIES]
    number = 0
    while True:
        limits = {
            "max_tokens": rng.choice(LENGTHS),
            "temperature": rng.choice((0, 0, 0.7)),
            "seed": rng.getrandbits(31),
            "n": 2 if rng.random() < 0.1 else 1,
        }
        chance = rng.random()
        yield Ask(
            number=number,
            prompt=rng.choice(prompts),
            chat=rng.random() < 0.8,
            options=rng.choices(strategies, weights)[0],
            form=rng.choices(("text", "diffusing", "events"), (18, 1, 1))[0],
            fault="leaves" if chance < LEAVING else "slow" if chance < LEAVING + SLOW else "none",
            patience=rng.randint(1, 8),
            stops=tuple(rng.sample(STOPS, rng.randint(1, 2))) if rng.random() < 0.2 else (),
            limits=limits,
        )
        number += 1


def plain_asks(seed: int, count: int) -> list[Ask]:
    """The first requests of a seed, from clients that read all of their text at once."""
    return [replace(ask, form="text", fault="none") for ask in islice(asks(seed), count)]
