"""Protocols: how a named evaluation asks, decodes, finds the answer and judges it.

A protocol is a frozen record that goes into every run's header; a run that departs from one in
anything is called custom.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np

from dlm.evals.benchmarks import prompts
from dlm.evals.benchmarks.files import SHIPPED, locate
from dlm.evals.benchmarks.problems import LOADERS, shown_examples
from dlm.evals.items import Item

MBPP_TEST: Final = range(11, 511)
MBPP_SHOTS: Final = (2, 3, 4)
D1_PUZZLES: Final = 256
D1_SEED: Final = 42
HARNESS_SEED: Final = 1234
"""By which lm-evaluation-harness draws its examples."""
SDAR_MBPP: Final = slice(7, 264)


@dataclass(frozen=True, slots=True)
class Protocol:
    """One evaluation on one benchmark.

    data: the file of its problems
    ask: problem and solved examples -> the prompt
    grader: name of a rule, with its version
    options: of the decoding
    source: the publication of all this
    choose: all problems of the file -> (solved examples, those that are asked)
    solved: another file and the number of its problems that are drawn anew for each question, as
        lm-evaluation-harness does
    shown: file of examples that ship
    begin: True if a text to continue has the tokenizer's first token before it in any case
    note: the remaining differences to the source
    """

    name: str
    benchmark: str
    data: str
    ask: prompts.Ask
    grader: str
    options: Mapping[str, Any]
    source: str
    choose: Callable[[Sequence[Item]], tuple[Sequence[Item], Sequence[Item]]] = lambda items: (
        (),
        items,
    )
    solved: tuple[str, int] | None = None
    shown: str = ""
    begin: bool = False
    note: str = ""

    def as_data(self) -> dict[str, Any]:
        """Plain data for a run's header."""
        return {
            "name": self.name,
            "benchmark": self.benchmark,
            "data": self.data,
            "prompt": self.ask.__name__,
            "shots": self.shown or (list(self.solved) if self.solved else ""),
            "grader": self.grader,
            "options": dict(self.options),
            "source": self.source,
            "note": self.note,
        }


def benchmark_items(
    protocol: Protocol, *, limit: int | None = None, file: Path | None = None
) -> list[Item]:
    """The problems of a protocol as it asks them, the first `limit`.

    Raises `InvalidRequest` if the file of problems is missing or another one.
    """
    problems = list(LOADERS[protocol.data](locate(protocol.data, file)))
    shots, chosen = protocol.choose(problems)
    if protocol.shown:
        shots = shown_examples(SHIPPED / "shots" / f"{protocol.shown}.jsonl")
    if protocol.solved is None:
        return [_asked(protocol, item, shots) for item in chosen[:limit]]
    name, count = protocol.solved
    pool, rng = list(LOADERS[name](locate(name))), Random(HARNESS_SEED)
    return [_asked(protocol, item, rng.sample(pool, count)) for item in chosen[:limit]]


def _asked(protocol: Protocol, item: Item, shots: Sequence[Item]) -> Item:
    asked = protocol.ask(item, shots)
    meta = {**item.meta, "grader": protocol.grader}
    if protocol.begin:
        meta["begin"] = True
    return replace(item, prompt=asked.prompt, raw=asked.raw, meta=meta)


def first(count: int) -> Callable[[Sequence[Item]], tuple[Sequence[Item], Sequence[Item]]]:
    """The first problems are solved examples, the rest is asked."""
    return lambda items: (items[:count], items[count:])


def mbpp_test(items: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]]:
    """Tasks 2, 3 and 4 are solved examples, the test split is asked."""
    shots = [item for item in items if item.meta["number"] in MBPP_SHOTS]
    return shots, [item for item in items if item.meta["number"] in MBPP_TEST]


def sdar_mbpp(items: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]]:
    """The 257 tasks of the sanitized file that OpenCompass asks."""
    return (), items[SDAR_MBPP]


def d1_sample(items: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]]:
    """The 256 puzzles that d1 drew, in its order."""
    picked = np.random.RandomState(D1_SEED).choice(len(items), D1_PUZZLES, replace=False)
    return (), [items[int(index)] for index in picked]
