"""Estimate the time that a run's missing answers will take."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import dlm
from dlm.errors import InvalidRequest
from dlm.evals.endpoint import Endpoint
from dlm.evals.sampling import Runner, answers, read_samples
from dlm.evals.settings import Setting

if TYPE_CHECKING:
    from dlm.evals.run import Run


def chosen(
    setting: Setting, engine: dlm.Engine | Endpoint, causal: dlm.CausalEngine | None
) -> Runner:
    """The engine that answers under a setting."""
    if not setting.causal:
        return engine
    if causal is None:
        raise InvalidRequest("causal", f"the setting {setting.name!r} needs a causal model")
    return causal


def estimate(
    engine: dlm.Engine | Endpoint, run: Run, causal: dlm.CausalEngine | None = None, probe: int = 2
) -> float:
    """Seconds that the missing answers will take, from `probe` answers of each cell.

    The probed answers are not kept; they also warm the machine up.
    """
    seconds = 0.0
    for setting, task in run.cells:
        plan, runner = run.plan(setting, task), chosen(setting, engine, causal)
        left = len(plan.wanted) - len(read_samples(run.path(setting, task, "samples")))
        if left <= 0:
            continue
        probed = replace(plan, items=plan.items[:probe], samples=1)
        drawn = list(answers(runner, probed, probed.wanted))
        seconds += left * sum(sample.seconds for sample in drawn) / len(drawn)
    return seconds
