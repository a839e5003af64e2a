"""lm-evaluation-harness over `dlm`: its tasks by the command `dlm-lm-eval`, or from Python.

The harness has no hook for other packages' models, so `dlm-lm-eval` registers the model `dlm` and
then is `lm_eval`, with the same options:

    dlm-lm-eval --model dlm --model_args pretrained=tiny,preset=fast --tasks my_task

`--model_args` are those of `dlm.load`, of `Likelihood`, and every option of `engine.generate`; what
holds commas is given as JSON (`'{"pretrained": "tiny", "unmask": "leap(0.99, 0.95)"}'`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dlm
from dlm.errors import DlmError, InvalidRequest, needs_extra
from dlm.evals.harness.likelihood import Likelihood

__all__ = ["Likelihood", "evaluate", "main"]

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def evaluate(
    engine: dlm.Engine,
    tasks: Sequence[Any],
    *,
    options: Mapping[str, Any] = NO_OPTIONS,
    likelihood: Likelihood | None = None,
    rows: int = 16,
    escape_until: bool = False,
    include_path: Path | str | None = None,
    apply_chat_template: bool = False,
    num_fewshot: int | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """The results of harness tasks, as `lm_eval.simple_evaluate` gives them.

    tasks: names, or task configurations as dicts
    options: of `engine.generate`; they win over a task's own
    likelihood: the scoring of continuations
    rows: requests in flight
    escape_until: True to ignore a task's stop strings, which cut up the answers of chat models
    include_path: a folder with tasks of your own

    The other arguments are the harness' own. The cost is in the entry `["config"]["dlm"]`. Raises
    `InvalidRequest` without the harness, and for unknown options.
    """
    lm_eval = _needed()
    from dlm.evals.harness.model import DLM

    model = DLM(engine, options, likelihood or Likelihood(), rows, escape_until=escape_until)
    folder = None if include_path is None else str(include_path)
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model=model,
        tasks=list(tasks),
        num_fewshot=num_fewshot,
        limit=limit,
        apply_chat_template=apply_chat_template,
        fewshot_as_multiturn=apply_chat_template,
        task_manager=lm_eval.tasks.TaskManager(include_path=folder),
    )
    return found


def main() -> None:
    """`dlm-lm-eval`: the harness' own command, which knows the model `dlm`."""
    try:
        _needed()
        from lm_eval.__main__ import cli_evaluate

        from dlm.evals.harness import model  # noqa: F401  (registers it)

        cli_evaluate()
    except DlmError as error:
        print(f"dlm-lm-eval: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _needed() -> Any:
    """The harness. Raises `InvalidRequest` when it is not installed."""
    try:
        import lm_eval
        import lm_eval.tasks
    except ImportError as error:
        raise InvalidRequest("tasks", needs_extra(error.name or "lm_eval", "harness")) from error
    return lm_eval


if __name__ == "__main__":
    main()
