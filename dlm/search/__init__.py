"""Test-time search: policies over rows, judges of answers, and the executor between them."""

from dlm.search.policy import Context, Policy
from dlm.search.verifier import Question, Verdict, Verifier

__all__ = ["Context", "Policy", "Question", "Verdict", "Verifier"]
