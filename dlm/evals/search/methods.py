"""The methods that are compared: ways to search, and what they are measured against."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import dlm
from dlm.errors import InvalidRequest, unknown_name
from dlm.evals.search.problems import ladder_of
from dlm.evals.settings import Setting, parse_setting

OWN: Final = ("search", "verifier", "endless")
"""Options of a method beside those of generation."""
BEST_OF: Final = "best_of"
FIXED: Final = "best_of to its end"
VOTE: Final = "vote"
VOTE_FIXED: Final = "vote to its end"
REFERENCE: Final = 16
"""Answers of the baseline that others are to match."""
MOST: Final = 64
"""Answers of the longest baseline by default, whose forwards are the budget of all methods."""
SEARCHES: Final[Mapping[str, str]] = MappingProxyType(
    {
        BEST_OF: "search=best_of({most}, width=1)",
        FIXED: f"search=best_of({REFERENCE}, width=1), endless=True",
        "neighbours": "search=neighbours(rounds=1000)",
        "tree": "search=tree(rollouts=1000, parallel=1)",
        "smc": "search=smc(8, sweeps=1000)",
        "restart": "search=neighbours(rounds=1000, fraction=1.0)",
        "more steps": "search=best_of({most}, width=1), unmask=topk",
    }
)
"""Name -> options of the methods that are compared by default: searches, then controls."""
LISTS: Final[Mapping[str, str]] = MappingProxyType({"shortlist": "search=shortlist(rows=1000)"})
"""The same where verdicts take no time: searches that ask for hundreds of them."""
VOTES: Final[Mapping[str, str]] = MappingProxyType(
    {
        VOTE: f"search=vote({REFERENCE}), verifier=None",
        VOTE_FIXED: f"search=best_of({REFERENCE}, width=1), verifier=majority",
        "hex": "search=hex(), verifier=None",
        "temporal_vote": "search=temporal_vote(), verifier=None",
    }
)
"""The same where answers are short, so that they can vote, and nothing but the model can judge: the
first two are the baselines there.
"""


@dataclass(frozen=True, slots=True)
class Endless(dlm.Verifier):
    """A verifier whose scores never settle a search, so that it takes no early stop.

    judge: the verifier itself, or what it is parsed from
    """

    judge: Any

    @property
    def parts(self) -> tuple[dlm.Verifier, ...]:
        """See `Verifier`."""
        return (self.judge,)

    @property
    def by_text(self) -> bool:  # type: ignore[override]  # that of what it wraps
        """See `Verifier`."""
        return bool(self.judge.by_text)

    def resolve(self, parse: Any) -> dlm.Verifier:
        """See `Verifier`."""
        return Endless(parse(self.judge))

    def bind(self, question: Any) -> dlm.Verifier:
        """See `Verifier`."""
        return Endless(self.judge.bind(question))

    def score(self, answers: Sequence[dlm.Generation], question: Any) -> Sequence[dlm.Verdict]:
        """See `Verifier`."""
        found: Sequence[dlm.Verdict] = self.judge.score(answers, question)
        return found


def baselines(task: str) -> tuple[str, str]:
    """The names of the methods that others are measured against on a task: the one with an early
    stop, and the one of `REFERENCE` answers without. Raises `InvalidRequest` as `ladder_of`.
    """
    return (VOTE, VOTE_FIXED) if ladder_of(task).votes else (BEST_OF, FIXED)


def parse_method(text: str) -> Setting:
    """`"name: search=best_of(4), verifier=rules, temperature=1.0"` as a method.

    Raises `InvalidRequest` as `parse_setting` does, and for one that names no search.
    """
    method = parse_setting(text, OWN)
    if "search" not in method.options:
        raise InvalidRequest("method", f"must name its `search`, got {text!r}")
    return method


def default_methods(
    task: str,
    sampler: str,
    names: Collection[str] = (),
    *,
    few: bool = False,
    most: int = MOST,
) -> list[Setting]:
    """The methods that are compared on a task by default.

    sampler: options of generation that all of them have, as `parse_setting` reads them
    names: of the methods beside the baselines (none: all; with `few`: none)
    most: answers of the longest baseline

    Raises `InvalidRequest` for an unknown name.
    """
    ladder = ladder_of(task)
    known = {
        **(VOTES if ladder.votes else {}),
        **SEARCHES,
        **(LISTS if ladder.verifier == "rules" else {}),
    }
    if ladder.votes:
        del known[FIXED]  # nothing settles a search there, so it is `best_of`
    for name in names:
        if name not in known:
            raise unknown_name("only", name, known)
    wanted = {*baselines(task), *(names or (() if few else known))}
    return [
        with_sampler(
            Setting(name, parse_method(f"x: {_sized(options, most)}").options), task, sampler
        )
        for name, options in known.items()
        if name in wanted
    ]


def _sized(options: str, most: int) -> str:
    """The options of a method with the size of the longest baseline filled in."""
    return options.replace("{most}", str(most))


def with_sampler(method: Setting, task: str, sampler: str) -> Setting:
    """A method with the options of a sampler, and the verifier of a task, if it has none."""
    shared = parse_setting(f"x: {sampler}").options
    judge = {"verifier": ladder_of(task).verifier}
    return replace(method, options={**judge, **shared, **method.options})


def panel(task: str, sampler: str, verifiers: Sequence[str] = ()) -> Setting:
    """The method whose answers verifiers judge by themselves: those given, else a task's own."""
    judges = list(verifiers or ladder_of(task).verifiers)
    shared = parse_setting(f"x: {sampler}").options
    search = f"best_of({REFERENCE}, width={REFERENCE})"
    return Setting("verifiers", {**shared, "search": search, "verifier": judges})


def search_options(method: Setting) -> dict[str, Any]:
    """The options of a method as `AsyncEngine.search` takes them."""
    options = {name: value for name, value in method.options.items() if name != "endless"}
    if method.options.get("endless"):
        options["verifier"] = Endless(options.get("verifier", "confidence"))
    return options
