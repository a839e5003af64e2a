"""Does the suite notice? Known kinds of defects, put in one at a time.

`python -m tests.mutants` runs the tests of the engine, the rules and the model once for each
defect and says whether a test has failed; it ends with 1 if a defect survives. Not part of
`make test`. In the runs themselves this module is a pytest plugin that puts the defect in.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

VARIABLE = "DLM_MUTANT"
SUITE = ("tests/engine", "tests/unmasking", "tests/model")


def threshold_is_strict() -> None:
    from dlm.core import Proposal
    from dlm.unmasking.unmask.threshold import Threshold

    Threshold.propose = lambda self, view: Proposal(  # type: ignore[method-assign]
        view.eligible & (view.confidence > view.params.threshold)
    )


def a_refresh_is_dropped() -> None:
    from dlm.cache import block_freeze as freeze

    real = freeze.Dual.plan

    def plan(self: Any, rows: Any) -> Any:
        first = all(int(s) == 0 for s in rows.step)
        whole = real(self, rows)
        if first:
            return whole
        cut = [s._replace(q_pos=s.predict) if len(s.q_pos) > 1 else s for s in whole.segments]
        object.__setattr__(whole, "segments", tuple(cut))
        return whole

    freeze.Dual.plan = plan  # type: ignore[method-assign]


def gate_and_up_are_swapped() -> None:
    from dlm.model.decoder import MLP

    def forward(self: Any, x: Any) -> Any:
        up, gate = self.gate_up(x).chunk(2, dim=-1)
        return self.down(torch.nn.functional.silu(gate) * up)

    MLP.forward = forward  # type: ignore[method-assign]


def rotation_is_off_by_one() -> None:
    from dlm.model.rotary import Rotary

    real = Rotary.tables

    def tables(self: Any, positions: Any, lengths: Any = None) -> Any:
        return real(self, torch.where(positions > 6, positions + 1, positions), lengths)

    Rotary.tables = tables  # type: ignore[method-assign]


def a_store_is_skipped() -> None:
    from dlm.cache.block_causal import BlockCausal

    BlockCausal._whole_blocks = lambda self, b, start, end: []  # type: ignore[method-assign]


def a_remask_is_not_requeried() -> None:
    from dlm.cache.block_freeze import Dual

    real = Dual._requeries

    def only_open(self: Any, rows: Any, b: Any) -> Any:
        return [s._replace(write=False) for s in real(self, rows, b)]

    Dual._requeries = only_open  # type: ignore[method-assign]


def a_draw_depends_on_the_batch() -> None:
    from dlm.decode import view as viewing

    real = viewing.token_uniforms

    def drawn(seed: Any, path: Any, pos: Any, step: Any) -> Any:
        return real(seed + torch.arange(len(seed)), path, pos, step)

    viewing.token_uniforms = drawn


def the_remainder_goes_last() -> None:
    from dlm.unmasking import scores as selectors
    from dlm.unmasking.unmask import threshold

    def counts(masks: Any, step: Any, steps: Any) -> Any:
        share = torch.div(masks, steps, rounding_mode="floor")
        return share + (step >= steps - (masks - share * steps))

    selectors.even_counts = threshold.even_counts = counts


def mask_leaves_the_denominator() -> None:
    from dlm.decode import view as viewing

    real = viewing.row_stats

    def stats(logits: Any, mask_id: Any, *rest: Any) -> Any:
        if mask_id is not None:
            logits = logits.clone()
            logits[:, mask_id] = -1e9
        return real(logits, mask_id, *rest)

    viewing.row_stats = stats


def an_end_id_ends_too_early() -> None:
    from dlm.core import Kind, Stop, is_one_of
    from dlm.unmasking.stop.end_ids import Eos

    Eos.__call__ = lambda self, rows, view: Stop(  # type: ignore[method-assign]
        ((view.kind == Kind.COMMITTED) & is_one_of(view.ids, self.ids)).any(dim=1)
    )


def a_shared_page_is_written() -> None:
    from dlm.model.pages import PageTable

    PageTable.own = lambda self, pages, whole: (list(pages), [])  # type: ignore[method-assign]


def progress_is_not_forced() -> None:
    from dlm.decode import iteration

    iteration.forced_commits = lambda view, commit: torch.zeros_like(commit)


def keys_of_a_shifted_window_are_missing() -> None:
    from dlm.decode import packing

    real = packing.pack

    def packed(plans: Any, kv: Any, *, shift: bool, **options: Any) -> Any:
        return real(plans, kv, shift=False, **options)

    from dlm.decode import planning

    planning.pack = packed


def a_forward_is_not_billed() -> None:
    from dlm.engine.stats import Ledger

    real = Ledger.record

    def record(self: Any, purpose: str, *rest: Any, **options: Any) -> None:
        if "refresh" not in purpose:
            real(self, purpose, *rest, **options)

    Ledger.record = record  # type: ignore[method-assign]


def a_shadow_sees_its_own_place() -> None:
    from dlm.decode import packing

    real = packing._Run.mask.fget

    def mask(self: Any) -> Any:
        return np.ones_like(self.segment.extra.mask) if self.shadow else real(self)

    packing._Run.mask = property(mask)  # type: ignore[assignment, method-assign]


def an_auxiliary_key_outlives_its_id() -> None:
    from dlm.decode.auxiliary import Auxiliary

    real = Auxiliary._plan

    def plan(self: Any, rows: Any, view: Any, drafted: Any, clean: Any, line: int) -> Any:
        made = rows.scratch[self.kv_ids_spec.name] != -1
        return real(self, rows, view, drafted, clean | made, line)

    Auxiliary._plan = plan  # type: ignore[method-assign]


def a_fork_writes_its_parents_auxiliary_keys() -> None:
    from dlm.decode import auxiliary

    auxiliary.copy_on_write = lambda kv, plan: plan.pages


def a_failed_row_takes_its_mates_along() -> None:
    from dlm.engine.scheduler import Scheduler

    def together(self: Any) -> None:
        for group, states in self._live.groups:
            for state in states if group.error is not None else ():
                state.finish("error", group.error)

    Scheduler._set_apart = together  # type: ignore[method-assign]


def a_fork_does_not_own_its_pages() -> None:
    from dlm.decode.pages import PageManager

    PageManager.share = lambda self, parts, pages: None  # type: ignore[method-assign]


def a_reopened_block_is_not_denoised() -> None:
    from dlm.engine import live

    real = live.skipped_of

    def skipped(state: Any) -> Any:
        return real(state) | (torch.arange(len(state.canvas.kinds) + 1) < state.revise_from + 1)

    live.skipped_of = skipped


def a_guide_forgets() -> None:
    from dlm.decode import iteration

    real = iteration.guided
    iteration.guided = lambda *args: (real(*args)[0], {})


def a_reading_is_never_renewed() -> None:
    from dlm.decode.reference import Reference

    real = Reference.read
    Reference.read = (  # type: ignore[method-assign]
        lambda self, group, window, line, every: real(self, group, window, line, every * 1000)
    )


MUTANTS: Mapping[str, Callable[[], None]] = MappingProxyType(
    {
        mutant.__name__: mutant
        for mutant in (
            threshold_is_strict,
            a_refresh_is_dropped,
            gate_and_up_are_swapped,
            rotation_is_off_by_one,
            a_store_is_skipped,
            a_remask_is_not_requeried,
            a_draw_depends_on_the_batch,
            the_remainder_goes_last,
            mask_leaves_the_denominator,
            an_end_id_ends_too_early,
            a_shared_page_is_written,
            progress_is_not_forced,
            keys_of_a_shifted_window_are_missing,
            a_forward_is_not_billed,
            a_shadow_sees_its_own_place,
            an_auxiliary_key_outlives_its_id,
            a_fork_writes_its_parents_auxiliary_keys,
            a_guide_forgets,
            a_reading_is_never_renewed,
            a_failed_row_takes_its_mates_along,
            a_fork_does_not_own_its_pages,
            a_reopened_block_is_not_denoised,
        )
    }
)


def pytest_configure() -> None:
    """Put the defect in, before any test is collected."""
    if name := os.environ.get(VARIABLE):
        MUTANTS[name]()


def killer(name: str) -> str | None:
    """The first test that fails with the defect, None if none does."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.mutants", *SUITE]
    environment = {**os.environ, VARIABLE: name}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode == 0:
        return None
    if run.returncode != 1:
        raise RuntimeError(f"{name}: pytest ended with {run.returncode}\n{run.stdout[-2000:]}")
    failed = (line for line in run.stdout.splitlines() if line.startswith("FAILED"))
    return next(failed, "FAILED ?").split(" - ")[0].removeprefix("FAILED ")


def main() -> int:
    survivors = 0
    for name in sys.argv[1:] or MUTANTS:
        found = killer(name)
        survivors += found is None
        print(f"{name:40} {'SURVIVES' if found is None else 'killed by ' + found}", flush=True)
    return int(survivors > 0)


if __name__ == "__main__":
    raise SystemExit(main())
