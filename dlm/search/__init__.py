"""Test-time search: policies over rows, judges of answers, and the executor between them.

What a policy or a verifier of one's own needs is found here.
"""

from dlm.search.policy import Context, Policy, finish, sample
from dlm.search.verifier import Question, Verdict, Verifier
from dlm.search.work import (
    END,
    Advance,
    Branch,
    Complete,
    Drop,
    Guess,
    Point,
    Remask,
    Run,
    Score,
    SearchNode,
    Start,
)

__all__ = [
    "END",
    "Advance",
    "Branch",
    "Complete",
    "Context",
    "Drop",
    "Guess",
    "Point",
    "Policy",
    "Question",
    "Remask",
    "Run",
    "Score",
    "SearchNode",
    "Start",
    "Verdict",
    "Verifier",
    "finish",
    "sample",
]
