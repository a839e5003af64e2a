"""Saved searches: a JSON object with the nodes, candidates, curve and costs of one search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import inf, isnan, nan
from typing import Any, Final

from dlm.engine.searching import Improvement, SearchCosts, SearchResult, TreeNode

VERSION: Final = 1
FAILED: Final = "-inf"
"""The score of an answer whose judgement has failed, as JSON has no infinite numbers."""


@dataclass(frozen=True, slots=True)
class SavedCandidate:
    """A finished answer of a saved search; the fields are those of `Candidate`, with its text."""

    number: int
    node: int
    score: float
    text: str
    nfe: float
    feedback: str = ""
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class SavedRequest:
    """The request of a saved search; with the policy and the judge it gives the same search again.

    prompt: the user's words
    system: the system message; None for none
    raw: the chat template was left out
    budget: bounds by name
    target: a score at which it ended; None for the highest possible
    options: those of generation that were given, and `seed` and `temperature`
    """

    prompt: str = ""
    system: str | None = None
    raw: bool = False
    budget: Mapping[str, float] = field(default_factory=dict)
    target: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SavedSearch:
    """A search as it was saved.

    model: its name
    search, verifier: the policy and the judge, as they were asked for; a default one by its name
    text, score: the answer
    reason, oracle, costs, curve: as in `SearchResult`
    candidates: all finished answers
    nodes: all nodes, as `SearchResult.tree` has them
    request: all else that was asked for; empty in files that lack it
    """

    model: str
    search: str
    verifier: str
    text: str
    score: float
    reason: str
    oracle: bool
    costs: SearchCosts
    curve: tuple[Improvement, ...]
    candidates: tuple[SavedCandidate, ...]
    nodes: tuple[TreeNode, ...]
    request: SavedRequest = SavedRequest()

    @classmethod
    def of(
        cls,
        result: SearchResult,
        *,
        model: str = "",
        search: str = "",
        verifier: str = "",
        request: SavedRequest = SavedRequest(),
    ) -> SavedSearch:
        """The parts of a result that are saved."""
        candidates = tuple(
            SavedCandidate(c.number, c.node, c.score, c.text, c.nfe, c.feedback, c.spans)
            for c in result.candidates
        )
        return cls(
            model=model,
            search=search,
            verifier=verifier or result.verifier,
            text=result.text or "",
            score=result.score,
            reason=result.reason,
            oracle=result.oracle,
            costs=result.costs,
            curve=result.curve,
            candidates=candidates,
            nodes=result.tree,
            request=request,
        )

    @property
    def best(self) -> int | None:
        """The number of the node of the answer; None where no candidate is the answer."""
        for one in self.candidates:
            if one.text == self.text and _written(one.score) == _written(self.score):
                return one.node
        return None

    def to_json(self) -> dict[str, Any]:
        """JSON values: a score is null where there is none, and "-inf" where a judgement failed."""
        told: dict[str, Any] = {"v": VERSION, "type": "search", **asdict(self)}
        for item in (told, *told["curve"], *told["candidates"], *told["nodes"]):
            item["score"] = _written(item["score"])
        return told

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> SavedSearch:
        """The inverse of `to_json`. Raises `ValueError` for what is none, naming the field."""
        if not isinstance(record, Mapping) or record.get("type") != "search":
            raise ValueError("must be an object of the type 'search'")
        if record.get("v") != VERSION:
            raise ValueError(f"its version must be {VERSION}, got {record.get('v')!r}")
        own = {name: record[name] for name in (one.name for one in fields(cls)) if name in record}
        try:
            return cls(
                **own
                | {
                    "score": _read(own["score"]),
                    "costs": SearchCosts(**own["costs"]),
                    "curve": tuple(Improvement(**_scored(one)) for one in own["curve"]),
                    "candidates": tuple(map(_candidate, own["candidates"])),
                    "nodes": tuple(map(_node, own["nodes"])),
                    "request": SavedRequest(**own.get("request", {})),
                }
            )
        except KeyError as error:
            raise ValueError(f"must have a field {error.args[0]!r}") from error
        except (TypeError, AttributeError) as error:
            raise ValueError(f"has a field of a wrong form: {error}") from error


def _candidate(record: Mapping[str, Any]) -> SavedCandidate:
    spans = tuple((start, end) for start, end in record["spans"])
    return SavedCandidate(**_scored(record) | {"spans": spans})


def _node(record: Mapping[str, Any]) -> TreeNode:
    work = tuple((verb, nfe) for verb, nfe in record["work"])
    return TreeNode(**_scored(record) | {"work": work})


def _scored(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record, "score": _read(record["score"])}


def _written(score: float) -> float | str | None:
    return None if isnan(score) else str(score) if abs(score) == inf else score


def _read(score: Any) -> float:
    return nan if score is None else float(score)
