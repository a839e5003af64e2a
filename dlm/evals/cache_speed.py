"""Measure the saving of caches: whole answers beside the bare forwards of the same plans."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from dlm import Engine
from dlm.evals.speed import recorded_calls

RULE: Final[Mapping[str, Any]] = {"unmask": "topk", "stop": "none"}
BLOCK: Final = 32


@dataclass(frozen=True, slots=True)
class AnswerCost:
    """Seconds of an answer's steps and of the bare forwards they made; forwards and positions."""

    steps: float
    forwards: float
    nfe: int
    positions: int


@dataclass(frozen=True, slots=True)
class CacheSpeed:
    """A cache beside none, on the same prompt: medians of answers that were decoded in turn.

    `speedup` of whole answers, `bare` of their forwards alone, `positions` by how much fewer are
    computed; `outside`: microseconds a step spends beyond its forward.
    """

    cache: str
    prompt: int
    seconds: float
    nfe: int
    speedup: float
    bare: float
    positions: float
    outside: float

    @property
    def kept(self) -> float:
        """The share of the bare forwards' speed-up that is left in whole answers."""
        return self.speedup / self.bare


def cache_speeds(
    engine: Engine,
    caches: Sequence[str],
    *,
    prompt_tokens: int,
    new_tokens: int = 256,
    steps: int = 64,
    repeats: int = 3,
) -> list[CacheSpeed]:
    """`none` and `caches` in turn, `repeats` times, after one answer of each to warm up."""
    prompt = [10 + i % (engine.info.vocab_size - 20) for i in range(prompt_tokens)]
    options = {**RULE, "max_new_tokens": new_tokens, "steps": steps}
    if engine.info.attention == "full":
        options["blocks"] = f"fixed({BLOCK})"
    names = ("none", *caches)
    costs: dict[str, list[AnswerCost]] = {name: [] for name in names}
    for turn in range(repeats + 1):
        for name in names:
            cost = answer_cost(engine, prompt, {**options, "cache": name})
            if turn:
                costs[name].append(cost)
    base = _median(costs["none"])
    return [_beside(name, prompt_tokens, _median(costs[name]), base) for name in names]


def answer_cost(engine: Engine, prompt: Sequence[int], options: Mapping[str, Any]) -> AnswerCost:
    """Decode one answer; each step is followed by the bare model call on its packed plan."""
    request = engine.submit(prompt, **options)
    request.ignore_events()
    steps = forwards = 0.0
    with recorded_calls(engine) as calls, torch.inference_mode():
        while not request.done:
            start = time.perf_counter()
            engine.scheduler.step()
            middle = time.perf_counter()
            if calls[0] is not None:
                engine.model(calls[0], engine.kv.store)
            steps, forwards = steps + middle - start, forwards + time.perf_counter() - middle
    stats = request.result().stats
    return AnswerCost(steps, forwards, stats.nfe, stats.token_forwards)


def _median(costs: Sequence[AnswerCost]) -> AnswerCost:
    steps, forwards = (
        statistics.median(getattr(c, name) for c in costs) for name in ("steps", "forwards")
    )
    return AnswerCost(steps, forwards, costs[0].nfe, costs[0].positions)


def _beside(cache: str, prompt: int, cost: AnswerCost, base: AnswerCost) -> CacheSpeed:
    return CacheSpeed(
        cache,
        prompt,
        cost.steps,
        cost.nfe,
        base.steps / cost.steps,
        base.forwards / cost.forwards,
        base.positions / cost.positions,
        1e6 * (cost.steps - cost.forwards) / cost.nfe,
    )


def lines(speeds: Sequence[CacheSpeed]) -> list[str]:
    """A Markdown table."""
    head = (
        *("prompt", "cache", "s", "forwards", "speed-up", "of bare forwards", "kept"),
        *("fewer positions", "us outside a forward"),
    )
    rows = [
        (
            f"{s.prompt}",
            s.cache,
            f"{s.seconds:.2f}",
            f"{s.nfe}",
            f"{s.speedup:.2f}",
            f"{s.bare:.2f}",
            f"{100 * s.kept:.0f}%",
            f"{s.positions:.2f}",
            f"{s.outside:.0f}",
        )
        for s in speeds
    ]
    table = [head, ("---",) * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in table]


def machine() -> dict[str, Any]:
    """Describe the machine: version of torch, threads, load."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
    }
