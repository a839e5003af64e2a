"""Graders: from an item and a text to marks, by `grade`.

1. `by_name.py` looks up the rule that the item names, by name and version.
2. The rule finds the answer in the text and compares it with the item's reference, by pure
   functions of the other modules (`numbers`, `maths`, `code`, `grid`, ...).
3. Programs and `math-verify` run with the resources of a `Judge` (`judge.py`).
4. The verdict is a `Marks`; `dlm.evals.verdicts` keeps those of a run in its files.
"""

from dlm.evals.graders.by_name import grade
from dlm.evals.graders.judge import Judge, Marks, check_grader, sandbox_for_code

__all__ = ["Judge", "Marks", "check_grader", "grade", "sandbox_for_code"]
