"""The fields of the `dlm` object that ask for a search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import dlm
from dlm.errors import shown
from dlm.search.budget import SearchBudget
from dlm.search.searcher import parse_policy
from dlm.search.verifier import whole
from dlm.search.verifiers.parsing import parse_verifier
from dlm.serve.errors import api_error, refused
from dlm.serve.extents import check_extent
from dlm.serve.fields import Sampling


class SearchField(NamedTuple):
    """A field about a search.

    type: of its value, in words
    default: the value of a search without it, in words
    meaning: its effect
    """

    type: str
    default: str
    meaning: str


SEARCH_FIELDS: Final[Mapping[str, SearchField]] = MappingProxyType(
    {
        "search": SearchField("policy", "none", "the way to search for the answer"),
        "verifier": SearchField(
            "verifiers", "as the policy needs", "the judge of answers; a list is an ensemble"
        ),
        "budget": SearchField(
            "map",
            "`nfe` as the server allows",
            "bounds by name: `nfe`, `token_forwards`, `seconds`",
        ),
        "target": SearchField("number", "the highest", "a score at which the search ends"),
    }
)
"""The fields, by name."""

BOUNDS: Final = ("nfe", "token_forwards", "seconds")
PARAMS: Final[Mapping[str, str]] = MappingProxyType(
    {name: f"dlm.{name}" for name in (*SEARCH_FIELDS, *(f"budget.{name}" for name in BOUNDS))}
)
"""For an option of a search, the field of the body that sets it."""


def search_of(
    extension: dict[str, Any], body: Sampling, *, run_programs: bool
) -> dlm.SearchOptions | None:
    """Take the fields of a search out of a `dlm` object; None where it asks for none.

    Policies and verifiers are registered names alone, and verifiers that run the code of answers
    need `run_programs`. Raises `ApiError` 400 that names the field.
    """
    taken = {name: extension.pop(name, None) for name in SEARCH_FIELDS}
    given = {name: value for name, value in taken.items() if value is not None}
    if not given:
        return None
    for name, value in given.items():
        check_extent(f"dlm.{name}", value)
    if "search" not in given:
        param = f"dlm.{next(iter(given))}"
        raise refused(param, f"`{param}` needs `dlm.search`, the way to search")
    if body.n is not None and body.n > 1:
        rule = "must be 1 beside `dlm.search`, which gives one answer"
        raise refused("n", f"`n` {rule}, got {body.n}")
    asked = dlm.SearchOptions(**given, trusted=False)
    with _blaming("search"):
        parse_policy(asked.search, trusted=False)
    with _blaming("verifier"):
        verifier = parse_verifier(asked.verifier, trusted=False)
    if verifier and not run_programs and any(one.runs_programs for one in whole(verifier)):
        rule = "runs the code of answers, which this server does not: start it with --run-programs"
        raise refused("dlm.verifier", f"`dlm.verifier` {rule}")
    with _blaming("budget"):
        SearchBudget.from_options(asked.budget)
    target = asked.target
    if target is not None and (isinstance(target, bool) or not isinstance(target, int | float)):
        raise refused("dlm.target", f"`dlm.target` must be a number, got {shown(target)}")
    return asked


@contextmanager
def _blaming(name: str) -> Iterator[None]:
    """Blame a field for what is wrong with an argument of its part. Raises `ApiError` 400."""
    try:
        yield
    except dlm.InvalidRequest as error:
        if error.param.partition(": ")[0] not in PARAMS:
            error = dlm.InvalidRequest(f"{name}: {error.param}", error.message)
        raise api_error(error, PARAMS) from error


def within(asked: dlm.SearchOptions, most_nfe: int, most_rows: int) -> dlm.SearchOptions:
    """A search that spends and holds no more than a server allows. Raises `ApiError` 400.

    most_nfe: forwards; most_rows: rows at a time
    """
    budget = dict(asked.budget or {})
    if budget.setdefault("nfe", most_nfe) > most_nfe:
        rule = f"must be at most {most_nfe} (`--max-search-nfe` of this server)"
        raise refused("dlm.budget.nfe", f"`dlm.budget.nfe` {rule}, got {shown(budget['nfe'])}")
    return replace(asked, budget=budget, most_rows=most_rows)
