"""Speed, measured as ratios in one run: what a step costs beyond its forward."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlm import Engine


@dataclass(frozen=True, slots=True)
class StepOverhead:
    """Medians over interleaved pairs (whole step, bare model call of the same plan), microseconds.

    `wall` and `cpu` are (step, forward) by the wall clock and by the thread's CPU clock; the latter
    leaves out what other programs took. `phases`: CPU microseconds of each phase of a step.
    """

    wall: tuple[float, float]
    cpu: tuple[float, float]
    phases: dict[str, float]
    pairs: int
    load: float

    @property
    def ratio(self) -> float:
        """Whole step over bare forward, CPU time."""
        return self.cpu[0] / self.cpu[1]

    def __str__(self) -> str:
        (step, forward), (wall_step, wall_forward) = self.cpu, self.wall
        lines = [
            f"step / forward  {self.ratio:.3f}  (wall {wall_step / wall_forward:.3f})   "
            f"{self.pairs} pairs, load {self.load:.2f}",
            f"step            {step:7.0f} us",
            f"forward         {forward:7.0f} us",
            f"outside         {step - forward:7.0f} us, by phase:",
        ]
        lines += [f"  {name:13} {micros:7.0f} us" for name, micros in self.phases.items()]
        rest = step - forward - sum(self.phases.values())
        lines.append(f"  {'frame, sync':13} {rest:7.0f} us")
        return "\n".join(lines)


def step_overhead(
    engine: Engine, *, prompt_tokens: int = 64, window: int = 32, repeats: int = 10, **options: Any
) -> StepOverhead:
    """Decode one block of `window` positions token by token, timing each step against its forward.

    Every step that recomputes the block alone is followed at once by the bare model call on the
    same packed plan, so both see the same machine.
    """
    prompt = [10 + i % (engine.info.vocab_size - 20) for i in range(prompt_tokens)]
    pairs: list[tuple[float, float, float, float]] = []
    asked = {"cache": "dual", "unmask": "topk", "stop": "none", **options}
    for _ in range(repeats):
        events = engine.stream(prompt, max_new_tokens=window, blocks=f"fixed({window})", **asked)
        with recorded_calls(engine) as calls, torch.inference_mode():
            while next(events).type != "commit":  # past the step that opens the block
                pass
            while engine.scheduler.live:  # from here on the loop is driven by hand
                pairs.append(_pair(engine, calls))
    columns = [statistics.median(column) * 1e6 for column in zip(*pairs, strict=True)]
    return StepOverhead(
        wall=(columns[0], columns[1]),
        cpu=(columns[2], columns[3]),
        phases=_phases(engine, prompt, window, asked),
        pairs=len(pairs),
        load=os.getloadavg()[0],
    )


@contextmanager
def recorded_calls(engine: Engine) -> Iterator[list[Any]]:
    """Record the arguments of the latest model call; the call itself is unchanged."""
    model, calls = engine.manager.model, [None]

    def recorded(packed: Any, kv: Any) -> Tensor:
        calls[0] = packed
        return model(packed, kv)

    engine.manager.model = recorded
    try:
        yield calls
    finally:
        engine.manager.model = model


def _pair(engine: Engine, calls: list[Any]) -> tuple[float, float, float, float]:
    """Wall and CPU seconds of one step and of the forward it made: (wall, wall, cpu, cpu)."""
    start = time.perf_counter(), time.thread_time()
    engine.scheduler.step()
    middle = time.perf_counter(), time.thread_time()
    engine.model(calls[0], engine.kv.store)
    end = time.perf_counter(), time.thread_time()
    return middle[0] - start[0], end[0] - middle[0], middle[1] - start[1], end[1] - middle[1]


PHASES = (
    "forward", "guide", "view", "consult", "open", "restrict", "propose", "edit", "apply", "stop",
)  # fmt: skip
"""The phases of a step, each a method of the manager."""


def _phases(
    engine: Engine, prompt: list[int], window: int, options: dict[str, Any]
) -> dict[str, float]:
    """Median CPU microseconds of each phase of the iteration manager, the model call left out.

    A step without a phase counts as 0.
    """
    taken: dict[str, list[float]] = {}
    manager = engine.manager

    def timed(name: str, function: Any) -> Any:
        def run(*args: Any) -> Any:
            start = time.thread_time()
            result = function(*args)
            taken.setdefault(name, []).append(time.thread_time() - start)
            return result

        return run

    plain = {f"_{name}": getattr(manager, f"_{name}") for name in PHASES}
    model = manager.model
    try:
        manager.model = timed("model", model)
        for name, method in plain.items():
            setattr(manager, name, timed(name.removeprefix("_"), method))
        engine.generate(prompt, max_new_tokens=window, blocks=f"fixed({window})", **options)
    finally:
        manager.model = model
        for name in plain:
            delattr(manager, name)
    steps, medians = len(taken["forward"]), {}
    for name in (*PHASES, "model"):
        values = taken.get(name, [])
        medians[name] = statistics.median(values + [0.0] * (steps - len(values))) * 1e6
    medians["forward"] -= medians.pop("model")
    return medians
