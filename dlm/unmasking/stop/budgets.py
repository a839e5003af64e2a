"""Budgets: bounds of a row's cost, checked by the host after every step."""

from __future__ import annotations

from dataclasses import dataclass

from dlm.core import Budget
from dlm.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class MaxNFE(Budget):
    """End the row after `forwards` of its forwards, whatever is open."""

    tier = "T2"

    forwards: int

    reason = "max_nfe"

    def __post_init__(self) -> None:
        if self.forwards < 1:
            raise InvalidRequest("stop", f"`forwards` must be at least 1, got {self.forwards}")

    @property
    def most_forwards(self) -> int:
        """Its own."""
        return self.forwards

    def spent(self, nfe: int, seconds: float) -> bool:
        """True if the forwards are used up."""
        return nfe >= self.forwards


@dataclass(frozen=True, slots=True)
class MaxSeconds(Budget):
    """End the row at the first step after `seconds` of wall time, whatever is open.

    The time runs from admission, not while the request waits. Results depend on the machine.
    """

    tier = "T2"

    seconds: float

    reason = "max_seconds"

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise InvalidRequest("stop", f"`seconds` must be greater than 0, got {self.seconds}")

    def spent(self, nfe: int, seconds: float) -> bool:
        """True if the time is over."""
        return seconds >= self.seconds
