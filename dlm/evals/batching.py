"""Measure the gain of batching: rows decoded together beside the machine's matrix products, and
requests that arrive at any time beside batches that wait for each other.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dlm import Engine
from dlm.evals.speed import recorded_calls
from dlm.evals.statistics import percentile


@dataclass(frozen=True, slots=True)
class BatchSpeed:
    """Speed of a number of rows at once over ragged prompts.

    rows: in flight at once
    ceiling: tokens a second if a forward took no longer than its matrix products
    positions: mean positions of a forward
    calls: mean attention calls of a layer
    padding: share of computed positions that belong to no row
    """

    rows: int
    tokens_per_second: float
    ceiling: float
    positions: float
    calls: float
    padding: float


def batch_speed(
    engine: Engine, prompts: Sequence[str], rows: int, options: Mapping[str, Any]
) -> BatchSpeed:
    """Decode all prompts, at most `rows` of them at a time."""
    engine.scheduler.max_rows = rows
    requests = [engine.submit(prompt, **options) for prompt in prompts]
    for request in requests:
        request.ignore_events()
    sizes: list[tuple[int, int, int, int]] = []
    seconds = 0.0
    with recorded_calls(engine) as calls, torch.inference_mode():
        while not all(request.done for request in requests):
            start = time.perf_counter()
            engine.scheduler.step()
            seconds += time.perf_counter() - start
            sizes.append(_shape(calls[0]))
    stats = [request.result().stats for request in requests]
    tokens, wanted = sum(s.tokens for s in stats), sum(s.token_forwards for s in stats)
    computed, predicted, groups, attended = (sum(column) for column in zip(*sizes, strict=True))
    mean = computed / len(sizes)
    floor = gemm_seconds(engine, round(mean), round(predicted / len(sizes)))
    return BatchSpeed(
        rows,
        tokens / seconds,
        tokens / (floor * len(sizes)),
        mean,
        groups / len(sizes),
        max(computed, attended) / wanted - 1,
    )


def _shape(packed: Any) -> tuple[int, int, int, int]:
    """Positions and logits of a forward, its attention calls, and the queries that they take."""
    attended = sum(group.end - group.start for group in packed.groups)
    return len(packed.ids), len(packed.logit_rows), len(packed.groups), attended


def gemm_seconds(engine: Engine, tokens: int, predicted: int, repeats: int = 15) -> float:
    """Seconds of all matrix products of a forward over `tokens` positions and the given logits."""
    spec = engine.model.spec
    width, inner = spec.hidden_size, spec.heads * spec.head_dim
    fused = (spec.heads + 2 * spec.kv_heads) * spec.head_dim
    feed = spec.intermediate_size
    layer = ((width, fused), (inner, width), (width, 2 * feed), (feed, width))
    taken = [spec.layers * _product(tokens, *shape, repeats) for shape in layer]
    return sum(taken) + _product(max(predicted, 1), width, spec.vocab_size, repeats)


def _product(rows: int, inner: int, columns: int, repeats: int) -> float:
    left, right = torch.randn(rows, inner), torch.randn(columns, inner)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.nn.functional.linear(left, right)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


@dataclass(frozen=True, slots=True)
class Service:
    """Requests that arrive at random: tokens a second from the first arrival to the last end,
    seconds from arrival to end, and from the first arrival to the last end.
    """

    name: str
    requests: int
    tokens_per_second: float
    p50: float
    p95: float
    last: float


def alone(engine: Engine, prompts: Sequence[str], options: Sequence[Mapping[str, Any]]) -> Service:
    """Each request by itself: what no queue and no batch mate delays."""
    each = [
        serve(engine, [prompt], [0.0], [chosen], static=False)
        for prompt, chosen in zip(prompts, options, strict=True)
    ]
    seconds = [one.p50 for one in each]
    tokens = sum(one.tokens_per_second * one.p50 for one in each)
    ends = percentile(seconds, 0.5), percentile(seconds, 0.95)
    return Service("each alone", len(each), tokens / sum(seconds), *ends, sum(seconds))


def arrivals(count: int, rate: float, seed: int) -> list[float]:
    """Times of `count` Poisson arrivals, `rate` a second."""
    rng = random.Random(seed)
    times, now = [], 0.0
    for _ in range(count):
        now += rng.expovariate(rate)
        times.append(now)
    return times


def serve(
    engine: Engine,
    prompts: Sequence[str],
    times: Sequence[float],
    options: Sequence[Mapping[str, Any]],
    *,
    static: bool,
    clock: Callable[[], float] = time.perf_counter,
) -> Service:
    """Answer prompts as they arrive. `static`: a batch is filled with all that waits, and the next
    one begins when its last row has ended.
    """
    begun, waiting = clock(), list(zip(times, prompts, options, strict=True))
    live: list[tuple[float, Any]] = []
    spent, tokens = [], 0
    with torch.inference_mode():
        while waiting or live:
            now = clock() - begun
            if not (static and live):
                while waiting and waiting[0][0] <= now and len(live) < engine.scheduler.max_rows:
                    at, prompt, chosen = waiting.pop(0)
                    request = engine.submit(prompt, **chosen)
                    request.ignore_events()
                    live.append((at, request))
            if not live:
                time.sleep(max(0.0, waiting[0][0] - now))
                continue
            engine.scheduler.step()
            for at, request in [entry for entry in live if entry[1].done]:
                spent.append(clock() - begun - at)
                tokens += request.result().stats.tokens
            live = [entry for entry in live if not entry[1].done]
    total = clock() - begun - times[0]
    name = "static batches" if static else "continuous"
    ends = percentile(spent, 0.5), percentile(spent, 0.95)
    return Service(name, len(prompts), tokens / total, *ends, total)
