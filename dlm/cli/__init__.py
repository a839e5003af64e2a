"""The command line: `dlm generate`, `dlm info`. Help and wrong arguments answer without torch."""

from dlm.cli.app import main, run

__all__ = ["main", "run"]
