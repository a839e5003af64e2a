"""`Searcher`: a search as a user asks for it, checked and bound to its engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from dlm.config import GenerationConfig
from dlm.config.checks import is_finite
from dlm.config.spec_strings import parse_with
from dlm.engine.binding import prompt_ids
from dlm.engine.rereading import Reader
from dlm.engine.searching import SearchOptions
from dlm.errors import InvalidRequest, shown
from dlm.search.budget import SearchBudget
from dlm.search.executor import Executor
from dlm.search.job import Job
from dlm.search.names import POLICIES, called
from dlm.search.policy import Policy
from dlm.search.verifier import Question, Spent, Verifier, whole
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
        self.budget = SearchBudget.from_options(given.budget)
        if given.target is not None and not is_finite(given.target):
            rule = f"must be a finite number, got {shown(given.target)}"
            raise InvalidRequest("target", rule)
        if given.on_improve is not None and not callable(given.on_improve):
            rule = f"must be a function, got {shown(given.on_improve)}"
            raise InvalidRequest("on_improve", rule)
        verifier = _judge_of(self.policy, given)
        if self.policy.diverse and config.temperature == 0:
            rule = f"must be above 0 for {called(self.policy)}, whose answers would all be the same"
            raise InvalidRequest("temperature", f"{rule}: 1 is a good value, got 0")
        if self.policy.reads_text and engine.text is None:
            rule = "reads texts, and this model has no tokenizer"
            raise InvalidRequest("search", f"{called(self.policy)} {rule}")
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

    def parse(inner: Any) -> Policy:
        try:
            return parse_policy(inner, trusted=trusted)
        except InvalidRequest as error:
            rule = f"in {_place(policy, inner)}: {error.message}"
            raise InvalidRequest("search", rule) from error

    return policy.resolve(parse)


def _place(policy: Policy, inner: Any) -> str:
    """The argument of a policy that holds a spec, in words."""
    for one in fields(cast(Any, policy)):
        value = getattr(policy, one.name)
        if isinstance(value, tuple) and inner in value:
            return f"`{one.name}` of {called(policy)}"
    return called(policy)


def _judge_of(policy: Policy, given: SearchOptions) -> Verifier | None:
    """The verifier of a search, not yet bound. Raises `InvalidRequest`."""
    verifier = policy.judge(parse_verifier(given.verifier, trusted=given.trusted))
    if verifier is None and policy.judges:
        verifier = parse_verifier("confidence")
    for one in () if verifier is None or given.allow_oracle else whole(verifier):
        if one.oracle:
            how = ": allow it with `allow_oracle=True` (`--allow-oracle`)" if given.trusted else ""
            rule = f"knows the right answer, so it is for analysis alone{how}"
            raise InvalidRequest("verifier", f"{called(one)} {rule}")
    return verifier


def words_of(prompt: Prompt) -> str | None:
    """The user's words in a prompt: the text, or the user's last message; None for ids."""
    if isinstance(prompt, str):
        return prompt
    if not prompt or not isinstance(prompt[0], Mapping):
        return None
    said = [m["content"] for m in prompt if isinstance(m, Mapping) and m.get("role") == "user"]
    return said[-1] if said and isinstance(said[-1], str) else shown(prompt)
