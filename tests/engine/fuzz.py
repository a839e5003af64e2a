"""Fuzz: configurations drawn blindly, sensible or not. Each is refused with a reason, or it binds,
decodes, ends, and every invariant holds.

`python -m tests.engine.fuzz --configs 20000` runs the long version and prints what it found; the
suite runs a short one.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from dataclasses import dataclass, field, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dlm.config import FIELDS, KINDS, PRESETS
from dlm.config.aliases import ALIASES
from dlm.errors import InvalidRequest
from tests.engine import test_invariants as invariants
from tests.engine.harness import Bench
from tests.helpers import random_decoder, tiny_spec

SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"shift": True},
    {"attention": "block_causal", "block_length": 4},
    {"attention": "block_causal", "block_length": 4, "shift": True},
)
INTEGERS = (-1, 0, 200, *(1, 2, 3, 4, 4, 4, 5, 8, 8, 8, 12, 12, 24) * 2)
NUMBERS = (-0.5, 1.5, 4.0, *(0.0, 0.01, 0.05, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 1.0) * 2)
CHECKS = (
    invariants.check_end,
    invariants.check_tokens,
    invariants.check_replay,
    invariants.check_settled,
    invariants.check_ledger,
    invariants.check_keys,
)


@dataclass
class Tally:
    """What the configurations came to; `refused` counts the options that were named."""

    decoded: int = 0
    forwards: int = 0
    slowest: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)
    parts: Counter[str] = field(default_factory=Counter)


@cache
def model(shape: int, device: str) -> Any:
    return random_decoder(tiny_spec(**SHAPES[shape]), shape).to(device)


def value_of(rng: random.Random, hint: Any) -> Any:
    """A literal of a type, seldom of another one."""
    if rng.random() < 0.02:
        hint = rng.choice((int, float, str, bool, tuple[int, ...]))
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return value_of(rng, rng.choice(arguments))
    if origin is Literal:
        return rng.choice((*arguments, *arguments, "nonsense"))
    if origin is tuple:
        count = rng.randint(0, 3) if Ellipsis in arguments else len(arguments)
        inner = [a for a in arguments if a is not Ellipsis]
        return tuple(value_of(rng, inner[i % len(inner)]) for i in range(count))
    plain = {int: INTEGERS, float: NUMBERS, bool: (True, False), NoneType: (None,)}
    return rng.choice(plain.get(hint, ("eos", "entropy", "confidence", "x")))


def spec_of(rng: random.Random, kind: str) -> str:
    """A registered part with some of its arguments, as a spec string."""
    name = rng.choice(KINDS[kind].names())
    cls = KINDS[kind].load(name)
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls) if not f.metadata.get("bound")]
    given = [n for n in known if rng.random() < 0.3]
    return f"{name}({', '.join(f'{n}={value_of(rng, hints[n])!r}' for n in given)})"


def options_of(rng: random.Random) -> dict[str, Any]:
    """Options of one request."""
    options: dict[str, Any] = {"max_new_tokens": rng.randint(1, 20), "seed": rng.randint(0, 3)}
    for kind, share in (("unmask", 0.8), ("blocks", 0.7), ("cache", 0.6), ("stop", 0.4)):
        if rng.random() < share:
            options[kind] = spec_of(rng, kind)
    if rng.random() < 0.1:
        options["guide"] = [spec_of(rng, "guide") for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.1:
        options |= {"edit": spec_of(rng, "edit"), "unmask": "everything", "cache": "none"}
    if rng.random() < 0.2:
        options["steps"] = rng.choice(INTEGERS)
    if rng.random() < 0.2:
        options |= {"temperature": rng.choice(NUMBERS), "top_p": rng.choice((1.0, 0.9, 0.8, 0.0))}
    if rng.random() < 0.2:
        infill = [rng.choice((None, None, rng.randrange(64))) for _ in range(rng.randint(1, 20))]
        options |= {"infill": infill, "max_new_tokens": rng.choice((None, 20, 21))}
    if rng.random() < 0.1:
        options["preset"] = rng.choice((*PRESETS, "nonsense"))
    if rng.random() < 0.08:  # what ends early, where a step shows more than a block, or less
        early = rng.choice(("stable(99.0)", "stable(2.0, 2)", "prophet", "prophet(1.0, 0.5, 0.0)"))
        window = f"freecache('window', window={rng.randint(1, 8)})"
        options |= {"stop": ["none", early], "max_new_tokens": rng.randint(1, 40)}
        options["cache"] = rng.choice((window, "none", "dual", "block_causal"))
        options["blocks"] = rng.choice(("whole", "fixed", "adaptive(8)", "adaptive", "sliding(4)"))
    if rng.random() < 0.05:
        options[rng.choice(tuple(ALIASES))] = rng.choice((*INTEGERS, *NUMBERS, True, "entropy"))
    return options


def try_one(number: int, seed: int, tally: Tally, device: str) -> None:
    """One configuration. Raises `AssertionError` where it breaks a promise."""
    rng = random.Random(f"{seed} {number}")
    bench = Bench(model(rng.randrange(len(SHAPES)), device), invariants.DELIMITERS)
    options = options_of(rng)
    prompt = [rng.randrange(64) for _ in range(rng.randint(1, 9))]
    try:
        state = bench.state(prompt, rng.randrange(3), **options)
    except InvalidRequest as refused:
        param = refused.param.split(":")[0]
        if param not in {*FIELDS, *ALIASES} or not refused.message:
            raise
        tally.refused[param] += 1
        return
    begun = time.perf_counter()
    try:
        (trace,) = bench.run(state)
        assert state.error is None, state.error
        parts = state.bound.parts
        invariants.check_canvases(state, trace, paced=parts.clock or bool(parts.edit))
        for check in CHECKS:
            check(state, trace)
    except Exception as error:
        raise AssertionError(f"configuration {number} of seed {seed}: {options}") from error
    tally.decoded += 1
    tally.forwards += state.ledger.nfe
    tally.slowest = max(tally.slowest, time.perf_counter() - begun)
    tally.parts.update(type(part).__name__ for part in state.bound.parts.all())


def fuzz(configs: int, seed: int = 0, device: str = "cpu") -> Tally:
    """Try so many configurations."""
    tally = Tally()
    for number in range(configs):
        try_one(number, seed, tally, device)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    tally = fuzz(options.configs, options.seed, options.device)
    print(
        f"{tally.decoded} decoded in {tally.forwards} forwards, the slowest {tally.slowest:.2f} s"
    )
    print(f"{tally.refused.total()} refused: {dict(tally.refused.most_common())}")
    print(f"parts decoded with: {dict(tally.parts.most_common())}")


if __name__ == "__main__":
    main()
