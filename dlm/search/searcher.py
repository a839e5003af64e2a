"""`Searcher`: a search as a user asks for it, checked and bound to its engine."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from dlm.config import GenerationConfig
from dlm.config.checks import require_number
from dlm.config.spec_strings import parse_with
from dlm.engine.binding import prompt_ids
from dlm.engine.rereading import Reader
from dlm.engine.searching import SearchOptions
from dlm.errors import InvalidRequest, shown
from dlm.search.budget import SearchBudget
from dlm.search.executor import Executor
from dlm.search.job import Job
from dlm.search.names import POLICIES
from dlm.search.policy import Policy
from dlm.search.verifier import Question, Spent, whole
from dlm.search.verifiers.parsing import parse_verifier
from dlm.text.prompts import Prompt


class Searcher:
    """A checked request for a search. Raises `InvalidRequest` for what is wrong with it.

    policy, verifier, budget: bound to the request
    """

    def __init__(
        self, engine: Reader, prompt: Prompt, given: SearchOptions, options: Mapping[str, Any]
    ) -> None:
        self._engine, self._prompt, self._given = engine, prompt, given
        config = GenerationConfig.from_options(options)
        if config.n != 1:
            raise InvalidRequest("n", f"must be 1: a search gives one answer, got {config.n}")
        self._seed = config.seed
        self.policy = parse_policy(given.search, trusted=given.trusted)
        if self.policy.diverse and config.temperature == 0:
            name = type(self.policy).__name__
            rule = f"must be above 0 for {name}, whose answers would all be the same"
            raise InvalidRequest("temperature", f"{rule}, got {config.temperature:g}")
        if self.policy.reads_text and engine.text is None:
            rule = "reads texts, and this model has no tokenizer"
            raise InvalidRequest("search", f"{type(self.policy).__name__} {rule}")
        self.budget = SearchBudget.from_options(given.budget)
        if given.target is not None:
            require_number("target", given.target, low=-inf)
        verifier = self.policy.judge(parse_verifier(given.verifier, trusted=given.trusted))
        if verifier is None and self.policy.judges:
            verifier = parse_verifier("confidence")
        if verifier is not None and not given.allow_oracle:
            for one in whole(verifier):
                if one.oracle:
                    rule = "knows the right answer: it is for analysis, with `allow_oracle=True`"
                    raise InvalidRequest("verifier", f"{type(one).__name__} {rule}")
        self._ids = prompt_ids(prompt, engine.text, engine.info, ())
        needed = {} if verifier is None else verifier.options
        self._options = {**options, **needed}
        words = words_of(prompt) if given.words is None else given.words
        longest = config.max_new_tokens or 0
        self._question = Question(prompt, words, self._ids, engine, Spent(), longest)
        self.verifier = None if verifier is None else verifier.bind(self._question)

    def job(self) -> Job:
        """The search, before its first step. Raises what `start` raises."""
        executor = Executor(
            self._engine,
            self._prompt,
            self._options,
            most_rows=self._given.most_rows,
            trusted=self._given.trusted,
        )
        return Job(
            self._engine,
            executor,
            self.policy,
            self.verifier,
            self._question,
            self.budget,
            self._given,
            self._seed,
        )


def parse_policy(spec: Any, *, trusted: bool = True) -> Policy:
    """The policy that a spec means. Raises `InvalidRequest`."""
    policy = parse_with(POLICIES, spec, trusted=trusted)
    if not isinstance(policy, Policy):
        rule = "is no search policy: inherit dlm.search.Policy"
        raise InvalidRequest("search", f"{type(policy).__name__} {rule}")
    return policy.resolve(lambda inner: parse_policy(inner, trusted=trusted))


def words_of(prompt: Prompt) -> str | None:
    """The user's words in a prompt: the text, or the user's last message; None for ids."""
    if isinstance(prompt, str):
        return prompt
    if not prompt or not isinstance(prompt[0], Mapping):
        return None
    said = [m["content"] for m in prompt if isinstance(m, Mapping) and m.get("role") == "user"]
    return said[-1] if said and isinstance(said[-1], str) else shown(prompt)
