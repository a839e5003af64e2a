"""The verb `search` of engines, and the nouns of its answers.

An engine decodes rows; the policies that decide which rows are worth it live in `dlm.search`, above
it. They are found by name, as parts are, so that no engine needs to know them.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import isfinite
from typing import Any, Final, Self

from dlm.core import ModelInfo
from dlm.engine.generation import Generation
from dlm.engine.scheduler import Scheduler
from dlm.engine.search_job import SearchJob
from dlm.errors import Interrupted, InvalidRequest
from dlm.registry import Registry
from dlm.text import Text
from dlm.text.prompts import Prompt, is_batch, plain

SEARCHER: Final = Registry("search", {"searcher": "dlm.search.searcher:Searcher"})
"""The class that prepares a search."""


@dataclass(frozen=True, slots=True)
class SearchCosts:
    """The costs of a search.

    nfe: all forwards: those of rows, and those of verifiers in forwards of the model
    row_forwards: forwards of rows; the first one of equal rows counts once
    shared_forwards: forwards that rows took part in and that an equal row was billed for
    launches: calls of the model in which rows of the search took part
    token_forwards: positions computed for rows
    verifier_forwards: forwards of verifiers
    verifier_nfe: the same in forwards of the model: those of another model count by its size
    verifier_calls: answers that verifiers have judged
    verifier_errors: verdicts that raised an exception, which count as the lowest score
    seconds: wall time
    """

    nfe: float = 0
    row_forwards: int = 0
    shared_forwards: int = 0
    launches: int = 0
    token_forwards: int = 0
    verifier_forwards: int = 0
    verifier_nfe: float = 0
    verifier_calls: int = 0
    verifier_errors: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finished answer of a search.

    number: from 0, in the order in which answers were judged, which depends on the batch
    node: the number of the node it is the answer of
    score: given by the verifier; NaN where it was not judged
    feedback: the verifier's words (empty: none)
    spans: positions of the canvas that the verifier points to, as (start, end)
    answer: the answer itself
    nfe: forwards that the search had spent when it was judged
    """

    number: int
    node: int
    answer: Generation
    score: float = float("nan")
    feedback: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    nfe: float = 0

    @property
    def text(self) -> str:
        """The text of the answer; empty without a tokenizer."""
        return self.answer.text or ""


@dataclass(frozen=True, slots=True)
class Improvement:
    """A point of the curve of a search: from `nfe` forwards on, this was the best answer.

    candidate: its `Candidate.number`, which is no place in the list of candidates
    """

    nfe: float
    score: float
    text: str
    candidate: int


@dataclass(frozen=True, slots=True)
class TreeNode:
    """A node of a search as its tree shows it.

    number: from 0, in the order of their making
    parent: the node that it was forked from (None: it started from the prompt)
    edge: its number among its parent's children
    work: what was done on it, as pairs of a verb and the forwards of the row after it
    text: the canvas, `_` at open positions
    score: of its answer (NaN: not judged)
    nfe: forwards of its own
    """

    number: int
    parent: int | None
    edge: int
    work: tuple[tuple[str, int], ...] = ()
    text: str = ""
    score: float = float("nan")
    nfe: int = 0


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer of a search, with all that it has tried.

    best: the answer
    score: its score (NaN: no verifier was asked)
    candidates: all finished answers, in the order of the work that asked for them: answer j of
        `best_of` is number j, whichever was there first
    costs: of the whole search
    curve: the best answer against the forwards spent
    reason: `done`, `target` (a score that cannot be improved), `budget` or `abort`
    oracle: the verifier has seen what no answer may know; for analysis only
    tree: all nodes
    verifier: the name of the verifier, its own default included; empty where there is none
    """

    best: Generation
    score: float
    candidates: tuple[Candidate, ...] = field(repr=False)
    costs: SearchCosts
    curve: tuple[Improvement, ...] = field(repr=False)
    reason: str
    oracle: bool = False
    tree: tuple[TreeNode, ...] = field(default=(), repr=False)
    verifier: str = ""

    @property
    def text(self) -> str | None:
        """The text of the best answer; None without a tokenizer."""
        return self.best.text

    def answer(self) -> Generation:
        """The best answer with a summary of the search."""
        return replace(self.best, search=self.summary())

    def summary(self) -> dict[str, Any]:
        """Score (None: there is none, or no finite one), costs and reason as JSON values."""
        return {
            "score": self.score if isfinite(self.score) else None,
            "reason": self.reason,
            "candidates": len(self.candidates),
            "oracle": self.oracle,
            **asdict(self.costs),
        }


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Options of a search; `None` stands for the choice of the policy.

    search: the policy, an object or a spec string such as `"best_of(8)"`
    verifier: the judge of answers: an object, a name, a spec string, a function of a text, or a
        list of them, which is an ensemble by ranks
    budget: bounds by name: `nfe`, `token_forwards`, `seconds`; the search ends at the first
    target: a score at which the search ends (None: the highest that the verifier can give)
    allow_oracle: take verifiers that know the right answer, for analysis
    on_improve: called with every `Improvement`
    trusted: False takes registered names alone as `search` and `verifier`, for those of strangers
    words: the user's words, for verifiers (None: as the prompt has them)
    most_rows: rows that it may hold at a time (None: any number); one more ends it with an error
    """

    search: Any = "best_of"
    verifier: Any = None
    budget: Mapping[str, float] | None = None
    target: float | None = None
    allow_oracle: bool = False
    on_improve: Callable[[Improvement], object] | None = None
    trusted: bool = True
    words: str | None = None
    most_rows: int | None = None

    @classmethod
    def taken(cls, search: Any, options: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """The options of a search among others, and those others."""
        names = {one.name for one in fields(cls)} - {"search", "trusted", "words", "most_rows"}
        own = {name: value for name, value in options.items() if name in names}
        rest = {name: value for name, value in options.items() if name not in names}
        return cls(search, **own), rest


class Searching:
    """Gives an engine the verb `search`."""

    info: ModelInfo
    text: Text | None
    scheduler: Scheduler
    lock: threading.RLock

    @abstractmethod
    def step(self) -> None:
        """Advance every live row."""

    def search(
        self,
        prompt: Prompt,
        search: Any = "best_of",
        *,
        verifier: Any = None,
        budget: Mapping[str, float] | None = None,
        target: float | None = None,
        allow_oracle: bool = False,
        on_improve: Callable[[Improvement], object] | None = None,
        **options: Any,
    ) -> SearchResult:
        """Answer one prompt by a search over the ways of unmasking it.

        `search` is a policy and `verifier` the judge of its answers, as `SearchOptions` has them;
        `options` are those of `generate`. Raises `InvalidRequest` before any work starts, and the
        error of a row that fails. Ctrl-C ends the search; `Interrupted` carries what there is.
        """
        given = SearchOptions(search, verifier, budget, target, allow_oracle, on_improve)
        job = self.prepare_search(prompt, given, options)
        try:
            for _ in self.search_steps(job):
                pass
        except KeyboardInterrupt as stop:
            if job.best is None:
                raise
            raise Interrupted(job.result()) from stop
        return job.result()

    def search_steps(self, job: SearchJob) -> Iterator[SearchJob]:
        """Drive a prepared search; yields it after every step, to look at its costs and its best.

        Leaving the loop early ends the search; `job.result` then has what there is.
        """
        try:
            while not job.done:
                with self.lock:
                    job.advance()
                if job.runnable:
                    self.step()
                elif not job.done:
                    job.wait()
                yield job
        finally:
            with self.lock:
                job.abort()

    def _searched(
        self, prompts: Sequence[Prompt], options: Mapping[str, Any], *, batch: bool
    ) -> Generation | list[Generation]:
        """The best answer of a search for each prompt (`batch` False: of the one), with a summary.

        Raises `Interrupted` with those that there are.
        """
        found: list[Generation] = []
        for prompt in prompts:
            try:
                result = self.search(prompt, **options)
            except KeyboardInterrupt as stop:
                if isinstance(partial := getattr(stop, "partial", None), SearchResult):
                    found.append(partial.answer())
                if not found:
                    raise
                raise Interrupted(found if batch else found[0]) from stop
            found.append(result.answer())
        return found if batch else found[0]

    def prepare_search(
        self, prompt: Prompt, given: SearchOptions, options: Mapping[str, Any]
    ) -> SearchJob:
        """A checked search that has not begun, made in any thread. Errors as in `search`."""
        asked = plain(prompt)
        if is_batch(asked):
            raise InvalidRequest("prompt", f"must be one prompt for a search, got {len(asked)}")
        searcher: Any = SEARCHER.load("searcher")
        job: SearchJob = searcher(self, asked, given, dict(options)).job()
        return job
