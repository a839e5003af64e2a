"""What decisions cost: `row_stats` beside one `logsumexp` of the same logits, rules on a view.

`OMP_NUM_THREADS=1 python -m tests.engine.costs` prints both: statistics with the shapes of LLaDA's
vocabulary and a block of 32, rules on views of 64 ids, as all but `klass` read no logits. A ratio
is one of medians of interleaved calls.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from dlm import KINDS, Engine
from dlm.core import StepView
from dlm.decode.sampling import row_stats
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

NEEDS = {
    "token, confidence": frozenset[str](),
    "and entropy": frozenset({"entropy"}),
    "and margin": frozenset({"entropy", "margin"}),
}


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def stats_ratio(logits: torch.Tensor, needs: frozenset[str], repeats: int) -> float:
    """`row_stats` over `logsumexp`."""
    calls = (lambda: row_stats(logits, 0, needs)), (lambda: torch.logsumexp(logits, dim=1))
    pairs = [[seconds(call) for call in calls] for _ in range(repeats)]
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return ours / theirs


def propose_micros(rule: str, rows: int, window: int, repeats: int) -> float:
    """A rule on the view of `rows` rows, every second position of each block open."""
    spec = tiny_spec()
    engine = Engine(random_decoder(spec), info_of(spec), max_rows=rows)
    seen: list[StepView] = []
    manager, plain = engine.manager, engine.manager._propose

    def recorded(group: Any, view: StepView) -> Any:
        among = view.eligible & (view.pos % 2 == 0)
        params = group.params("unmask")
        seen.append(view._replace(eligible=among, must_progress=among, params=params))
        return plain(group, view)

    manager._propose = recorded
    options = {"unmask": rule, "blocks": f"fixed({window})", "stop": "none"}
    requests = [engine.submit([3 + r], max_new_tokens=window, **options) for r in range(rows)]
    part = requests[0].states[0].bound.parts.unmask
    engine.step()
    with torch.inference_mode():
        taken = [seconds(lambda: part.propose(seen[0])) for _ in range(repeats)]
    return statistics.median(taken) * 1e6


def timed() -> list[str]:
    """The unmaskers that read nothing but one forward."""
    return [name for name in KINDS["unmask"].names() if name not in ("guided", "verified")]


def report(shape: tuple[int, int], window: int, repeats: int) -> str:
    """Both tables as text."""
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
    lines = [f"row_stats / logsumexp of {list(shape)}, load {os.getloadavg()[0]:.2f}"]
    lines += [f"  {name:18}{stats_ratio(logits, n, repeats):6.2f}" for name, n in NEEDS.items()]
    lines.append(f"{'64 ids, us':20}" + "".join(f"{f'R={rows}':>7}" for rows in (1, 32)))
    for name in timed():
        times = (propose_micros(name, rows, window, 5 * repeats) for rows in (1, 32))
        lines.append(f"  {name:18}" + "".join(f"{micros:7.0f}" for micros in times))
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(report((32, 126_464), 32, 30))
