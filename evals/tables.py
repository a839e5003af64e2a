"""The committed tables: which settings they compare, on what, and how to make them again.

    python evals/tables.py            # the names
    python evals/tables.py first      # writes evals/results/first
    python evals/tables.py orders -- --device cuda --rows 256

What follows `--` is passed on to `dlm eval`.
Each is one run of `dlm eval`, so it goes on where it was interrupted. Speeds are those of
one thread with one request at a time; the load of the machine is in `run.json`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

RESULTS: Final = Path(__file__).parent / "results"
BLOCKS: Final = "blocks=fixed(8)"
ONE: Final = f"unmask=topk, {BLOCKS}"
TWO: Final = f"unmask='dynamic(1.0, block_steps=4)', {BLOCKS}"
WIDE: Final = "blocks=fixed(32), cache=dual"
LEAP: Final = "unmask='leap(0.99, 0.95)'"
EVERYTHING: Final = "math,code,drill,countdown,format,sudoku,judge,long"
CHEAP: Final = ("one a step, dual", "threshold 0.9, dual", "threshold 0.8, dual")


def rules() -> dict[str, str]:
    """The rules of the first table, each with every cache."""
    found = {"one a step": ONE, "two a step": TWO}
    found |= {f"threshold {t}": f"unmask=threshold({t}), {BLOCKS}" for t in (0.95, 0.9, 0.8)}
    caches = ("none", "prefix", "dual")
    return {
        f"{name}, {cache}": f"{options}, cache={cache}"
        for name, options in found.items()
        for cache in caches
    }


def settings(options: Mapping[str, str]) -> list[str]:
    """As `--config` takes them."""
    return [part for name, text in options.items() for part in ("--config", f"{name}: {text}")]


def orders() -> list[str]:
    """One token a step, in four orders."""
    scores = {"low confidence": "confidence", "entropy": "entropy", "left to right": "left"}
    scores |= {"random order": "random"}
    return settings(
        {name: f"unmask=topk({score!r}), {BLOCKS}, cache=dual" for name, score in scores.items()}
    )


def warm() -> list[str]:
    """One token a step, drawn at several temperatures."""
    return settings(
        {f"temperature {t}": f"{ONE}, cache=dual, temperature={t}" for t in (0.3, 0.7, 1.0, 1.5)}
    )


SHORT: Final = ("--config", "short: max_new_tokens=96, steps=96")
BENCHMARKS: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "humaneval-fastdllm": ["humaneval", "--protocol", "fastdllm", "--rows", "16"],
        "mbpp-dream": ["mbpp", "--protocol", "dream", "--limit", "100", "--rows", "16", *SHORT],
        "math500-d1": ["math500", "--protocol", "d1", "--limit", "30", "--rows", "16"],
        "gsm8k-d1": ["gsm8k", "--protocol", "d1", "--limit", "50", "--rows", "16"],
        "countdown-d1": ["countdown", "--protocol", "d1", "--limit", "30", "--rows", "16"],
        "sudoku-d1": ["sudoku", "--protocol", "d1", "--limit", "30", "--rows", "16"],
    }
)
"""Of the bundled model, which knows none of them; all but HumanEval are fetched first."""
FIXED: Final = "fixed 4,fixed 8,fixed 16,fixed 32,fixed 64"
TABLES: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "orders": ["bundled", "--tasks", "math,code,sudoku", "--rows", "16", *orders()],
        "orders-others": [
            *("bundled", "--tasks", "drill,countdown,format,judge,long"),
            *("--limit", "200", "--rows", "16"),
            *orders(),
        ],
        "pass16": [
            *("bundled", "--tasks", "math,countdown,code", "--rungs", "crowded,3-numbers,7-op"),
            *("--limit", "100", "--samples", "16", "--rows", "16"),
            *warm(),
        ],
        "pass16-8op": [
            *("bundled", "--tasks", "code", "--rungs", "8-op", "--limit", "100"),
            *("--samples", "16", "--rows", "16"),
            *settings({f"t{t}": f"{ONE}, cache=dual, temperature={t}" for t in (0.7, 1.5)}),
        ],
        "first": [
            *("bundled", "--tasks", EVERYTHING, "--limit", "200", "--causal", "tiny-ar"),
            *settings(rules()),
        ],
        "first-1000": [
            *("bundled", "--tasks", "math,code,sudoku", "--causal", "tiny-ar", "--rows", "16"),
            *settings({name: rules()[name] for name in CHEAP}),
        ],
        "caches": ["caches", "--tasks", "math,code,sudoku,long", "--limit", "200"],
        "caches-block": ["caches", "--model", "tiny-block", "--limit", "200"],
        "strategies-dev": ["strategies", "--limit", "200"],
        "strategies": ["strategies", "--split", "test", "--limit", "200"],
        "leap-dev": ["strategies", "--limit", "300", "--sweeps", "leap"],
        "leap": ["strategies", "--split", "test", "--tasks", "math,code", "--sweeps", "leap"],
        "leap-blocks": [
            *("bundled", "--tasks", "math,code", "--rows", "16"),
            *settings(
                {
                    "one a step": f"unmask=topk, {WIDE}",
                    "leap": f"{LEAP}, {WIDE}",
                    "careful leap": f"unmask='leap(0.999, 0.99)', {WIDE}",
                    "leap, adaptive blocks": f"{LEAP}, blocks=adaptive, cache=dual",
                    "leap, blocks of 16": f"{LEAP}, blocks=fixed(16), cache=dual",
                }
            ),
        ],
        "leap-check": [
            *("bundled", "--split", "dev", "--tasks", "math,code", "--rows", "16"),
            *settings(
                {
                    "one a step": f"unmask=topk, {WIDE}",
                    "careful leap": f"unmask='leap(0.999, 0.99)', {WIDE}",
                }
            ),
        ],
        "adaptive": [
            *("strategies", "--split", "test", "--tasks", "math,code"),
            *("--sweeps", f"adaptive,{FIXED}"),
        ],
    }
    | {f"benchmarks/{name}": options for name, options in BENCHMARKS.items()}
)

if __name__ == "__main__":
    names, more = sys.argv[1:], []
    if "--" in names:
        cut = names.index("--")
        names, more = names[:cut], names[cut + 1 :]
    if unknown := [name for name in names if name not in TABLES]:
        print(f"no table is called {unknown[0]!r}: {', '.join(TABLES)}", file=sys.stderr)
        raise SystemExit(2)
    if not names:
        print(f"tables: {', '.join(TABLES)}")
    for name in names:
        subcommand, *options = TABLES[name]
        program = [sys.executable, "-m", "dlm", "eval", subcommand]
        command = [*program, "--out", str(RESULTS / name), *options, *more]
        if code := subprocess.run(command, check=False).returncode:
            raise SystemExit(code)
