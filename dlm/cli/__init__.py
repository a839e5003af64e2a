"""The command line: `dlm generate`, `dlm info`. Help and wrong arguments answer without torch."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main", "run"]


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. See `dlm.cli.app.run`."""
    from dlm.cli.app import run as run_command

    return run_command(arguments)


def main() -> None:
    """The entry point of the command `dlm`.

    Nothing is imported before Ctrl-C is provided for: importing takes most of a short run.
    """
    try:
        from dlm.cli.interrupts import leave_at_once

        leave_at_once()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    from dlm.cli.app import main as main_command

    main_command()
