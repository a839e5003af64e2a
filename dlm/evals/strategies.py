"""Decoding rules as sweeps: each along the number that makes it commit more in a step.

Unless a rule sets the ends of blocks, all share blocks of 32 and the dual cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from dlm.errors import InvalidRequest, unknown_name
from dlm.evals.benchmarks import Protocol
from dlm.evals.settings import Setting, parse_setting

BASELINE: Final = "one a step"
COMMON: Final = "blocks=fixed(32), cache=dual"
CERTAIN: Final = (0.98, 0.95, 0.9, 0.8, 0.6)
"""Thresholds along which block schedules are compared."""


def _rules(name: str, *arguments: str) -> dict[str, str]:
    """Settings of one unmasker."""
    return {f"{name}({a})" if a else name: f"unmask={name}({a}), {COMMON}" for a in arguments}


def _blocks(blocks: str, cache: str = "dual") -> dict[str, str]:
    """A block schedule along thresholds."""
    return {
        f"{blocks}, {t}": f"unmask=threshold({t}), blocks={blocks}, cache={cache}" for t in CERTAIN
    }


def _stops(name: str, *arguments: str) -> dict[str, str]:
    """An early end of one token a step."""
    return {f"{name}({a})": f"unmask=topk, stop={name}({a}), {COMMON}" for a in arguments}


WIDE: Final = "blocks=fixed(32), cache=none"
"""The setting of editors and their twins without an editor: nothing is reused."""


def _edited(name: str, unmask: str, edit: str | None, *arguments: str) -> dict[str, str]:
    """An unmasker along its own number, with an editor or without one."""
    edits = f"edit={edit}, " if edit else ""
    return {f"{name}({a})": f"unmask={unmask}({a}), {edits}{WIDE}" for a in arguments}


def _ranked(name: str, edit: str) -> dict[str, str]:
    """An editor that ranks all tokens anew, along the number of steps."""
    return {
        f"{name}, {n} steps": f"unmask=everything, edit={edit}, steps={n}, blocks=whole, cache=none"
        for n in STEPS
    }


STEPS: Final = (12, 24, 48, 96)
"""Numbers of steps along which editors on a schedule are compared."""

SWEEPS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        BASELINE: {BASELINE: f"unmask=topk, {COMMON}"},
        "threshold": _rules("threshold", "0.98", "0.95", "0.9", "0.8", "0.7", "0.5"),
        "even": _rules("dynamic", *(f"1.0, block_steps={n}" for n in (16, 8, 4))),
        "factor": _rules("factor", "0.25", "0.5", "1.0", "2.0"),
        "leap": _rules("leap", "0.99, 0.95", "0.98, 0.9", "0.95, 0.85", "0.9, 0.75", "0.9, 0.6"),
        "hierarchical": _rules("hierarchical", "0.98, 0.8", "0.92, 0.62", "0.85, 0.45", "0.7, 0.3"),
        "entropy bound": _rules("entropy_bound", "0.02", "0.1", "0.3", "1.0"),
        "low entropy": _rules("low_entropy", "0.05", "0.15", "0.45", "1.0"),
        "klass": _rules("klass", "0.9, 0.01", "0.8, 0.02", "0.6, 0.05", "0.4, 0.1"),
        "running mean": _rules("running_mean", "1", "2", "4"),
        "backtrack": _edited("backtrack", "running_mean", "backtrack", "2", "4", "8"),
        "wide in": _edited("wide in", "wide_in", None, "0.9", "0.7", "0.5", "0.3"),
        "wino": _edited("wino", "wide_in", "narrow_out", "0.9", "0.7", "0.5", "0.3"),
        "bold": _edited("bold", "threshold", None, "0.9", "0.7", "0.5", "0.3"),
        "t2m": _edited("t2m", "threshold", "t2m", "0.9", "0.7", "0.5", "0.3"),
        "rewrite": _edited("rewrite", "threshold", "rewrite(0.5)", "0.9", "0.7", "0.5", "0.3"),
        "rcr": _ranked("rcr", "rcr"),
        "p2": _ranked("p2", "p2"),
        "p2, no reopening": _ranked("p2, no reopening", "p2(eta=0.0)"),
        "anchored": _ranked("anchored", "anchored(hold=1)"),
        "remdm": _ranked("remdm", "remdm(eta=0.2)"),
        "psi": _ranked("psi", "psi(kappa=0.5)"),
        "remdm, no reopening": _ranked("remdm, no reopening", "remdm(eta=0.0)"),
        "freedave": _rules("freedave", "2", "4", "8"),
        "slowfast": _rules("slowfast", "0.98", "0.9", "0.8", "0.6"),
        "by chance": _rules("topk", "'random'") | _rules("ancestral", ""),
        "fixed 4": _blocks("fixed(4)"),
        "fixed 8": _blocks("fixed(8)"),
        "fixed 16": _blocks("fixed(16)"),
        "fixed 32": _blocks("fixed(32)"),
        "fixed 64": _blocks("fixed(64)"),
        "adaptive": _blocks("adaptive"),
        "sub-blocks": _blocks("sub_blocks(32, 8)"),
        "sliding": _blocks("sliding(16)"),
        "whole": _blocks("whole"),
        "pipeline": _blocks("pipeline(16)", """dual(on_edit="requery")"""),
        "prophet": _stops("prophet", "10.0, 7.5, 5.0", "7.5, 5.0, 2.5", "5.0, 3.0, 1.5"),
        "stable": _stops("stable", "0.005", "0.05", "0.2"),
    }
)
"""Sweep -> name of a setting -> its options, as `--config` takes them."""


def threshold_sweep(protocol: Protocol, thresholds: Iterable[float]) -> list[Setting]:
    """Build a setting for each threshold: a protocol that commits every confident token at once.

    Models of trained blocks take `dynamic`, as their protocols do. Raises `InvalidRequest` for
    thresholds that are none.
    """
    rule = "dynamic" if str(protocol.options.get("unmask")).startswith("dynamic") else "threshold"
    settings = []
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise InvalidRequest("sweep", f"must be numbers in (0, 1], got {threshold}")
        options = {"unmask": f"{rule}({threshold})", "steps": None}
        settings.append(Setting(f"{rule} {threshold}", options, sweep=rule))
    return settings


def sweep_settings(names: Iterable[str] = ()) -> list[Setting]:
    """The settings of some sweeps, or of all, the baseline first.

    Raises `InvalidRequest` for an unknown name.
    """
    chosen = list(names) or list(SWEEPS)
    for name in chosen:
        if name not in SWEEPS:
            raise unknown_name("sweeps", name, SWEEPS)
    found = []
    for sweep in dict.fromkeys((BASELINE, *chosen)):
        for name, options in SWEEPS[sweep].items():
            found.append(Setting(name, parse_setting(f"x: {options}").options, sweep=sweep))
    return found
