"""Tables of a measured load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def table(found: Mapping[str, Any]) -> str:
    """The figures of `evals/serve_load.py` as Markdown."""
    parts = {"load": _load, "compared": _compared, "drain": _drain}
    rows = [row for name, lines in parts.items() if name in found for row in lines(found[name])]
    return (
        "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]) + "\n"
    )


def _load(load: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "load", f"{load['clients']} clients for {load['seconds']:.0f} s"
    told = f"{load['requests']}, {load['left']} left, {load['slow']} read slowly"
    yield "requests", told
    yield "errors", f"{len(load['errors'])}"
    yield "tokens/s, NFE", f"{load['tokens_per_second']:.0f}, {load['nfe']}"
    yield "first text, p50 p95 p99", _seconds(load["first"])
    yield "end, p50 p95 p99", _seconds(load["last"])
    lag = list(load["lag"].values())
    yield "event loop lag, p50 p95 p99", _seconds(lag, 1000, "ms")
    memory = load["memory"]
    grown = f"{memory['growth_a_minute']:+.2f} a minute"
    yield "memory after warm-up", f"{memory['warm']:.0f} to {memory['last']:.0f} MiB, {grown}"
    held = load["held_after"], load["held_before"]
    for name in held[0]:
        yield f"{name} afterwards (before)", f"{held[0][name]} ({held[1][name]})"


def _compared(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for way, speed in found["tokens_per_second"].items():
        yield f"tokens/s, {way}", f"{speed:.0f}"
    yield "HTTP of the engine alone, tokens/s", f"{found['speed_of_http']:.1%}"
    yield "many clients of one, tokens/s", f"{found['speed_of_many']:.2f}"
    yield "HTTP of the engine alone, CPU per token", f"{found['cpu_of_http']:.3f}"
    differing = sum(row["differing"] for row in found["rounds"] if row["way"] != "engine")
    yield "answers that differ from the engine's", f"{differing}"


def _drain(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    told = f"{found['of_these_finished']} of {found['running_at_signal']} finished"
    yield "running at SIGTERM", told
    yield "new ones after it", f"{found['of_these_503']} of {found['new']} got 503"
    yield "exit", f"code {found['exit_code']} after {found['seconds_to_exit']:.1f} s"


def _seconds(values: Sequence[float], scale: float = 1, unit: str = "s") -> str:
    return ", ".join(f"{value * scale:.3g}" for value in values) + f" {unit}"
