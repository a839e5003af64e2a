"""Storms: random submits, aborts and forks on a small key/value budget.

`python -m tests.engine.storms --storms 100 --requests 200` runs the long version and prints what it
found; `--plot FILE.png` draws the memory along the way. The suite runs a short one.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

from dlm import Engine
from dlm.engine.request import Request
from dlm.errors import Unavailable
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

SHAPES: tuple[dict[str, Any], ...] = ({}, {"attention": "block_causal", "block_length": 4})
CACHES = (
    (
        *("none", "prefix", "dual", "dual(every=3)", "vicinity(2, 3, 1)", "delayed(4)"),
        *("freecache('token')", "freecache('block', 4)", "delayed_blocks(4)"),
        *("dual(frozen_prompt=True)", "freecache('prompt', frozen_prompt=8)"),
    ),
    ("none", "block_causal", "block_causal"),
)
RULES = ("threshold(0.6)", "threshold(0.9)", "topk", "dynamic(0.7)")
DISTINCT = 60
"""Different requests a storm draws from, so that each is decoded alone only once."""


@dataclass
class Tally:
    """What the storms came to."""

    survived: int = 0
    aborted: int = 0
    forked: int = 0
    refused: int = 0
    differ: list[str] = field(default_factory=list)
    memory: list[tuple[float, float, float]] = field(default_factory=list)
    """MiB after each round: of the process, of the pool, of the pages that rows and kept prefixes
    hold."""


def order(shape: int, number: int) -> tuple[list[int], dict[str, Any]]:
    """Prompt and options of one of the distinct requests."""
    rng = random.Random(1000 * shape + number)
    prompt = [rng.randrange(3, 60) for _ in range(rng.randint(1, 24))]
    options: dict[str, Any] = {
        "max_new_tokens": rng.randint(1, 32),
        "blocks": f"fixed({rng.choice((4, 8, 16))})",
        "unmask": rng.choice(RULES),
        "cache": rng.choice(CACHES[shape]),
        "temperature": rng.choice((0.0, 0.8)),
        "seed": number,
    }
    if shape == 0 and rng.random() < 0.2:
        options |= {"unmask": "everything", "edit": "rcr", "cache": "dual(on_edit='requery')"}
    if rng.random() < 0.2:
        options["guide"] = "cfg(0.5)"
    return prompt, options


def new_engine(shape: int, unroll: int, pages: int | None = None) -> Engine:
    spec = tiny_spec(**SHAPES[shape])
    budget = None if pages is None else pages * 16 * spec.kv_bytes_per_token(4)
    bounds = {} if pages is None else {"prefix_bytes": budget, "max_token_forwards": 300}
    decoder = random_decoder(spec, 1)
    return Engine(decoder, info_of(spec), unroll=unroll, max_rows=12, kv_bytes=budget, **bounds)


@cache
def alone(shape: int, number: int) -> tuple[int, ...]:
    prompt, options = order(shape, number)
    return new_engine(shape, 1).generate(prompt, **options).canvas


def storm(seed: int, requests: int, tally: Tally) -> None:
    """One storm. Raises when a page is lost; notes results that differ from the solo run."""
    rng = random.Random(seed)
    shape, unroll = seed % 2, rng.choice((1, 1, 3))
    engine = new_engine(shape, unroll, pages=40)
    live: list[tuple[int, Request]] = []
    left = requests
    while left or live:
        while left and len(live) < 24 and rng.random() < 0.7:
            number = rng.randrange(DISTINCT)
            prompt, options = order(shape, number)
            live.append((number, engine.submit(prompt, **options)))
            left -= 1
        for _ in range(rng.randint(1, 4)):
            engine.step()
        if live and rng.random() < 0.3:
            live.pop(rng.randrange(len(live)))[1].abort()
            tally.aborted += 1
        if live and rng.random() < 0.3:
            fork(engine, rng.choice(live), tally)
        engine.scheduler.check_integrity()
        tally.memory.append(memory_of(engine))
        for number, request in [pair for pair in live if pair[1].done]:
            tally.survived += 1
            for state in request.states:
                if tuple(state.canvas.ids) != alone(shape, number):
                    tally.differ.append(f"storm {seed}, request {number}")
        live = [pair for pair in live if not pair[1].done]
    engine.scheduler.check_integrity()
    engine.manager.page_manager.prefixes.clear()
    assert engine.kv.pages.in_use == 0


def memory_of(engine: Engine) -> tuple[float, float, float]:
    """As `Tally.memory` has it."""
    resident = psutil.Process().memory_info().rss
    pool, held = engine.kv.store.storage.nbytes, engine.kv.pages.in_use * engine.kv.pages.page_bytes
    return resident / 2**20, pool / 2**20, held / 2**20


def draw(tally: Tally, path: Path) -> None:
    """The memory over the rounds of all storms."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    process, pool, held = zip(*tally.memory, strict=True)
    upper.plot(process, lw=0.8)
    upper.set(ylabel="process, MiB", ylim=(0, 1.1 * max(process)))
    lower.plot(held, lw=0.4, label="held by rows and kept prefixes")
    lower.plot(pool, lw=1, label="the pool")
    lower.set(ylabel="keys and values, MiB", xlabel="rounds of 1 to 4 steps", ylim=(0, None))
    lower.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def fork(engine: Engine, chosen: tuple[int, Request], tally: Tally) -> None:
    """Fork a live row on its own path: the child must end like its parent."""
    state = chosen[1].states[0]
    if state.done or state.ledger.nfe == 0 or len(chosen[1].states) > 3:
        return
    try:
        chosen[1].states.append(engine.scheduler.fork(state, choice=0, row=0, path=state.choice))
        tally.forked += 1
    except Unavailable:
        tally.refused += 1


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--storms", type=int, default=100)
    options.add_argument("--requests", type=int, default=200)
    options.add_argument("--plot", type=Path)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    tally = Tally()
    for seed in range(chosen.storms):
        storm(seed, chosen.requests, tally)
    if chosen.plot is not None:
        draw(tally, chosen.plot)
    process = [memory[0] for memory in tally.memory]
    tenth = len(process) // 10
    print(
        f"memory of the process: {max(process[:tenth]):.0f} MiB at most in the first tenth of "
        f"{len(process)} rounds, {max(process[-tenth:]):.0f} in the last"
    )
    print(
        f"{chosen.storms} storms of {chosen.requests} requests: {tally.survived} ended by "
        f"themselves, {tally.aborted} aborted, {tally.forked} forks, {tally.refused} refused; "
        f"no page lost; {len(tally.differ)} results differ from the solo run {tally.differ[:5]}"
    )


if __name__ == "__main__":
    main()
