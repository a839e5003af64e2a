"""`SearchJob`: a search on its way, as an engine sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from dlm.core import Event

if TYPE_CHECKING:
    from dlm.engine.searching import Candidate, SearchCosts, SearchResult


class SearchJob(Protocol):
    """A search on its way; `advance` moves it between the steps of the engine that decode its rows.

    done: it has ended
    wake: called from another thread when a verdict is there
    """

    done: bool
    wake: Callable[[], object]

    @property
    def best(self) -> Candidate | None:
        """The answer with the highest score so far; None before the first one."""
        ...

    @property
    def candidates(self) -> Sequence[Candidate]:
        """All finished answers so far."""
        ...

    @property
    def rows(self) -> int:
        """The number of rows that it holds: decoded ones and parked ones."""
        ...

    def costs(self) -> SearchCosts:
        """The costs so far."""
        ...

    @property
    def can_move(self) -> bool:
        """True if it waits for no verdict alone, or for one that is there, or is out of time."""
        ...

    @property
    def has_events(self) -> bool:
        """True if there are events that nobody has taken yet."""
        ...

    @property
    def runnable(self) -> bool:
        """True if rows of it wait for steps of the engine; else it waits for a verifier."""
        ...

    def advance(self) -> None:
        """Take note of the rows that rest and go on from there, under the engine's lock."""
        ...

    @property
    def seconds_left(self) -> float:
        """Seconds that it may still take; infinite without a bound."""
        ...

    def wait(self) -> None:
        """Wait for the verifier, as long as it may take."""
        ...

    def abort(self) -> None:
        """End the search and free its pages; `result` has what there is."""
        ...

    def events(self) -> list[Event]:
        """The events `candidate` that nobody has taken yet."""
        ...

    def result(self) -> SearchResult:
        """The answer. Raises the error of a search that has failed."""
        ...
