"""`SearchBudget`: the bounds of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import inf
from typing import Any, Self

from dlm.config.checks import is_finite, require_integer
from dlm.engine.searching import SearchCosts
from dlm.errors import InvalidRequest, shown, unknown_name


@dataclass(frozen=True, slots=True)
class SearchBudget:
    """Bounds of a search, which ends at the first that it meets, after one step at the earliest.

    nfe: forwards of rows and verifiers; dealt out to rows beforehand and never exceeded
    token_forwards: positions computed for rows; exceeded by no more than the last step
    seconds: wall time, likewise
    """

    nfe: float = inf
    token_forwards: float = inf
    seconds: float = inf

    @classmethod
    def from_options(cls, given: Mapping[str, Any] | None) -> Self:
        """The bounds of a mapping. Raises `InvalidRequest` for an unknown or wrong one."""
        if given is None:
            return cls()
        if not isinstance(given, Mapping):
            names = ", ".join(repr(one.name) for one in fields(cls))
            rule = f"must map names ({names}) to numbers, as {{'nfe': 400}}"
            raise InvalidRequest("budget", f"{rule}, got {shown(given)}")
        known = [one.name for one in fields(cls)]
        for name, value in given.items():
            if name not in known:
                raise unknown_name("budget", str(name), known)
            if name == "seconds":
                if not is_finite(value) or value <= 0:
                    rule = "must be a finite number above 0"
                    raise InvalidRequest("budget.seconds", f"{rule}, got {shown(value)}")
            else:
                require_integer(f"budget.{name}", value, 1)
        return cls(**given)

    def spent(self, costs: SearchCosts) -> bool:
        """True if the positions or the time are spent."""
        return costs.token_forwards >= self.token_forwards or costs.seconds >= self.seconds
