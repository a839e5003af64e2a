"""`Job`: one search on its way, from its first work item to its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import ceil, inf, isnan
from random import Random
from typing import Any, Final, cast

from dlm.core import Event
from dlm.engine.node import Holder
from dlm.engine.searching import Candidate, SearchCosts, SearchOptions, SearchResult
from dlm.errors import Unavailable, rule_error
from dlm.search.budget import SearchBudget
from dlm.search.dealing import Dealer
from dlm.search.executor import Executor
from dlm.search.frames import Frame, run_of
from dlm.search.judging import Jury
from dlm.search.names import called
from dlm.search.policy import Policy, rng_of
from dlm.search.verifier import Question, Verifier, whole
from dlm.search.work import Score, SearchNode

NO_ANSWER: Final = "has ended without an answer: it must start a row, decode it and judge it"


class Job:
    """A search: a policy, its executor and its jury on one engine.

    done: it has ended
    runnable: rows of it wait for steps of the engine
    """

    def __init__(
        self,
        engine: Holder,
        executor: Executor,
        policy: Policy,
        verifier: Verifier | None,
        question: Question,
        budget: SearchBudget,
        given: SearchOptions,
        seed: int,
    ) -> None:
        self._engine, self._executor, self._budget, self._seed = engine, executor, budget, seed
        self._policy = policy
        self._spent_by_verifiers = question.spent
        self._judges = "" if verifier is None else ", ".join(map(called, whole(verifier)))
        self._oracle = verifier is not None and any(one.oracle for one in whole(verifier))
        self.wake: Callable[[], object] = _nobody
        self.has_news = True
        self._jury = Jury(verifier, question, given.target, self._nfe, given.on_improve, self._told)
        cost = 0 if verifier is None else ceil(verifier.cost)
        self._dealer = Dealer(executor, self._jury, budget.nfe, cost, self._dealt)
        self._frame = Frame(policy, run_of(policy, self), executor, self._dealer.judge)
        self._begun, self._seconds = time.perf_counter(), 0.0
        self._reason, self._error = "", None  # type: tuple[str, Exception | None]
        self.done = self.runnable = False

    # for policies

    @property
    def best(self) -> Candidate | None:
        """The answer with the highest score so far; of equals the first."""
        return self._jury.best

    @property
    def candidates(self) -> Sequence[Candidate]:
        """All answers so far, in the order of the work that asked for them."""
        return self._jury.candidates

    @property
    def settled(self) -> bool:
        """True if the best score is the target, or the highest that there is."""
        return self._jury.settled

    @property
    def target(self) -> float:
        """The score that settles the search; infinite where none does."""
        return self._jury.target

    @property
    def free(self) -> bool:
        """True if verdicts take no forwards and are there at once."""
        return self._jury.free

    @property
    def left(self) -> float:
        """Forwards that the search may still spend; infinite without a budget."""
        return self._dealer.left

    def rng(self, *key: int | str) -> Random:
        """Random numbers of the search's seed."""
        return rng_of(self._seed, key)

    def node(self, candidate: Candidate) -> SearchNode:
        """The node that a candidate is the answer of."""
        return cast(SearchNode, self._executor.nodes[candidate.node])

    # for the engine that drives it

    @property
    def rows(self) -> int:
        """The number of rows that it holds: decoded ones and parked ones."""
        return len(self._executor.held())

    def advance(self) -> None:
        """Take note of the rows that rest and go on from there, under the engine's lock."""
        if self.done:
            return
        try:
            if self._executor.tally() or self.has_news:
                self._go_on()
        except Exception as error:
            self._error = error
            self._end("error")
        if not self.done and self._has_stepped and self._budget.spent(self.costs()):
            self._end("budget")
        self.runnable = not self.done and self._executor.moves

    def _go_on(self) -> None:
        """Let the policy go on from what is there, until rows or verdicts are to be waited for."""
        self.has_news = False
        self._frame.move()
        paid = self.done or self._frame.done or self._dealer.deal(self._frame)
        if self.done:
            return
        if self._frame.done:
            best = self.settled and self._chosen is self.best
            self._end("target" if best else "done")
        elif not paid:
            self._end("budget")

    @property
    def seconds_left(self) -> float:
        """Seconds that the search may still take; infinite without a bound, or a step."""
        left = self._begun + self._budget.seconds - time.perf_counter()
        return max(left, 0.0) if self._has_stepped else inf

    @property
    def _has_stepped(self) -> bool:
        """True if a row of it has taken a step that `advance` has taken note of."""
        return self._executor.costs.nfe > 0

    def wait(self) -> None:
        """Wait for the verifier, as long as the search may take."""
        self._jury.wait(self.seconds_left)

    def abort(self) -> None:
        """End the search and free its pages; `result` has what there is."""
        if not self.done:
            self._end("abort")

    @property
    def can_move(self) -> bool:
        """True if it waits for no verdict alone, or for one that is there, or is out of time."""
        return self.has_news or self.runnable or not self.seconds_left

    @property
    def has_events(self) -> bool:
        """True if there are events that nobody has taken yet."""
        return bool(self._jury.fresh)

    def events(self) -> list[Event]:
        """The events `candidate` that nobody has taken yet."""
        fresh, self._jury.fresh = self._jury.fresh, []
        return [_event(candidate) for candidate in fresh]

    def costs(self) -> SearchCosts:
        """The costs up to the last `advance`, and those of verifiers up to now."""
        forwards, shared, positions = self._executor.costs
        rows, spent = forwards - shared, self._spent_by_verifiers
        return SearchCosts(
            nfe=rows + spent.nfe,
            row_forwards=rows,
            shared_forwards=shared,
            launches=self._executor.launches,
            token_forwards=positions,
            verifier_forwards=spent.forwards,
            verifier_nfe=spent.nfe,
            verifier_calls=spent.calls,
            verifier_errors=spent.errors,
            seconds=self._seconds if self.done else time.perf_counter() - self._begun,
        )

    def result(self) -> SearchResult:
        """The answer. Raises the error of a search that has failed."""
        if self._error is not None:
            raise self._error
        chosen = self._chosen
        if chosen is None and self._reason == "abort":
            raise Unavailable("the search has no answer: it was aborted before its first step")
        if chosen is None:
            raise rule_error("search", self._policy, "run", NO_ANSWER)
        return SearchResult(
            best=chosen.answer,
            score=chosen.score,
            candidates=tuple(self._jury.candidates),
            costs=self.costs(),
            curve=tuple(self._jury.curve),
            reason=self._reason,
            oracle=self._oracle,
            verifier=self._judges,
            tree=tuple(one.shown() for one in self._executor.nodes),
        )

    @property
    def _chosen(self) -> Candidate | None:
        """The candidate that the policy has returned, else the best one."""
        value = self._frame.value
        return value if isinstance(value, Candidate) else self.best

    def _told(self) -> None:
        """A verdict is there; told from another thread."""
        self.has_news = True
        self.wake()

    def _nfe(self) -> float:
        return self.costs().nfe

    def _dealt(self) -> float:
        """Forwards in the sense of the budget.

        One that equal rows share counts for each of them, as its sharing depends on the batch.
        """
        return self._executor.costs.nfe + self._spent_by_verifiers.nfe

    def _end(self, reason: str) -> None:
        """End everything; without an answer, the row that has come furthest gives one."""
        self._reason = reason
        try:
            self._executor.tally()
            self._frame.stop()
            if self.best is None and reason != "error":
                self._give_what_there_is()
        except Exception as error:  # of the policy's own end, or of who is told of the answer
            self._error = self._error or error
        finally:
            self._seconds = time.perf_counter() - self._begun
            self.done, self.runnable = True, False
            self._jury.close()
            self._executor.close()

    def _give_what_there_is(self) -> None:
        """Keep the answer of the row that has come furthest, filled with its last draft.

        It is judged where that takes no forward and no time.
        """
        begun = [one for one in self._executor.nodes if one.nfe and not one.dropped]
        if not begun:
            return
        furthest = min(begun, key=lambda one: (len(one.open), one.edges))
        draft = self._executor.draft(furthest)
        if self.free:
            self._jury(Score([cast(SearchNode, furthest)], [draft]), ())
        else:
            self._jury.keep(furthest, draft)


def _event(candidate: Candidate) -> Event:
    """A candidate as an event of its search."""
    score = None if isnan(candidate.score) or abs(candidate.score) == inf else candidate.score
    data: Mapping[str, Any] = {
        "candidate": candidate.number,
        "node": candidate.node,
        "score": score,
        "text": candidate.answer.text,
        "nfe": candidate.nfe,
    }
    return Event("candidate", candidate.node, candidate.answer.stats.nfe, data=data)


def _nobody() -> None:
    """Nobody waits."""
