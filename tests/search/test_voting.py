"""Votes: of texts with an early end, of block sizes, of the steps of one row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest

import dlm
from dlm.errors import InvalidRequest
from dlm.search.extract import extract
from dlm.search.policies.voting import TemporalVote, undecided
from tests.search.searches import new_engine, require_empty

ANSWERS = ("a", "b", None)
PROMPT = "Tom has 3 apples and buys 4 more. How many apples does Tom have?"
OPTIONS: dict[str, Any] = {"max_new_tokens": 24, "temperature": 1.0, "seed": 1}


@pytest.fixture(scope="module")
def engine() -> Iterator[dlm.Engine]:
    engine = dlm.load("tiny", device="cpu")
    yield engine
    require_empty(engine)


def winner(votes: tuple[str | None, ...]) -> str | None:
    """The answer with the most votes; of equals the one that was there first."""
    there = [one for one in votes if one is not None]
    return max(there, key=there.count, default=None)


@cache
def winners(votes: tuple[str | None, ...], n: int) -> frozenset[str | None]:
    """All answers that may still win; `new` is one that nobody has given yet."""
    if len(votes) == n:
        return frozenset({winner(votes)})
    return frozenset().union(*(winners((*votes, one), n) for one in (*ANSWERS, "new")))


@cache
def fewest(votes: tuple[str | None, ...], n: int) -> int:
    """Votes after which the winner can be certain at the earliest."""
    if len(winners(votes, n)) == 1 or len(votes) == n:
        return 0
    return 1 + min(fewest((*votes, one), n) for one in (*ANSWERS, "new"))


@pytest.mark.parametrize("n", range(1, 7))
def test_a_vote_is_undecided_as_long_as_another_answer_can_win(n: int) -> None:
    for length in range(n + 1):
        for votes in product(ANSWERS, repeat=length):
            assert undecided(votes, n) == fewest(votes, n), votes


@pytest.mark.parametrize("seed", range(4))
def test_a_vote_that_ends_early_has_the_winner_of_all(engine: dlm.Engine, seed: int) -> None:
    options = OPTIONS | {"seed": seed, "temperature": 0.7}
    every = engine.search(PROMPT, "seeds(9)", **options)
    short = engine.search(PROMPT, "vote(9)", **options)
    texts = [one.text for one in every.candidates]
    assert [one.text for one in short.candidates] == texts[: len(short.candidates)]
    found = tuple(map(extract("auto"), texts))
    assert extract("auto")(short.text or "") == winner(found)
    assert short.text == texts[found.index(winner(found))]
    assert undecided(found[: len(short.candidates)], 9) == 0
    assert undecided(found[: len(short.candidates) - 1], 9) == 1
    assert short.score == found[: len(short.candidates)].count(winner(found)) / sum(
        one is not None for one in found[: len(short.candidates)]
    )


def test_answers_that_agree_end_a_vote_when_half_of_them_are_there(engine: dlm.Engine) -> None:
    found = engine.search(PROMPT, "vote(12, extract='text')", **OPTIONS | {"temperature": 1e-6})
    assert len(found.candidates) == 6
    assert found.score == 1.0


def test_votes_may_be_weighed(engine: dlm.Engine) -> None:
    found = engine.search(PROMPT, "vote(5, weigh=True)", verifier="confidence", **OPTIONS)
    assert len(found.candidates) == 5
    assert 0 < found.score <= 1


@pytest.mark.parametrize(
    ("spec", "options", "told"),
    [
        ("vote(4)", {"verifier": "confidence"}, "weigh=True"),
        ("vote(4, weigh=True)", {}, "must be given"),
        ("vote(0)", {}, "at least 1"),
        ("vote(4, extract='nubmer')", {}, "number"),
        ("hex((8, 0))", {}, "at least 1"),
        ("hex(seeds=2)", {"temperature": 0.0}, "must be above 0"),
        ("vote(2)", {"temperature": 0.0}, "must be above 0"),
        ("temporal_vote(alpha=-1)", {}, "at least|between"),
    ],
)
def test_wrong_votes_are_refused(
    engine: dlm.Engine, spec: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidRequest, match=told):
        engine.search(PROMPT, spec, **OPTIONS | options)


@pytest.mark.parametrize("spec", ["vote", "hex", "temporal_vote"])
def test_votes_need_texts(spec: str) -> None:
    engine, _ = new_engine()
    with pytest.raises(InvalidRequest, match="no tokenizer"):
        engine.search([5, 6], spec, temperature=1.0)


def test_hex_decodes_with_each_block_size(engine: dlm.Engine) -> None:
    options = OPTIONS | {"temperature": 0.0, "max_new_tokens": 32}
    found = engine.search(PROMPT, "hex(extract='text')", **options)
    alone = [
        engine.generate(PROMPT, **options, blocks=f"fixed({size})").text
        for size in (1, 2, 4, 8, 16)
    ]
    texts = [one.text for one in found.candidates]
    assert texts == alone[: len(texts)]
    short = extract("text")
    assert short(found.text or "") == winner(tuple(short(one or "") for one in alone))


def test_hex_draws_anew_for_each_seed(engine: dlm.Engine) -> None:
    found = engine.search(PROMPT, "hex((8, 16), seeds=3, extract='text')", **OPTIONS)
    assert [one.edge for one in found.tree] == list(range(len(found.tree)))


def drafts(*texts: str) -> list[Any]:
    return [(step, SimpleNamespace(text=text)) for step, text in enumerate(texts, start=1)]


def elected(policy: TemporalVote, *texts: str) -> int:
    """The number of the draft that wins, from 1."""
    given = drafts(*texts)
    chosen = policy._elected(given)
    return next(step for step, draft in given if draft is chosen)


def test_steps_vote_with_weights_that_grow() -> None:
    texts = ("7", "is 7", "no", "8")
    assert elected(TemporalVote(alpha=0.0), *texts) == 2, "two against one"
    assert elected(TemporalVote(alpha=10.0), *texts) == 4, "the last one counts more"
    assert elected(TemporalVote(alpha=0.0, extract="number"), "7", "8", "8", "7") == 4
    assert elected(TemporalVote(extract="number"), "", "no") == 2, "nobody votes"


def test_an_answer_that_was_overwritten_can_win(engine: dlm.Engine) -> None:
    options = OPTIONS | {"blocks": "whole"}
    alone = engine.generate(PROMPT, **options)
    for alpha in (0, 5):
        found = engine.search(PROMPT, f"temporal_vote({alpha})", **options)
        assert found.candidates[0].text == alone.text
        assert found.costs.row_forwards == alone.stats.nfe
        assert len(found.candidates) == 1 + (found.text != alone.text)
    late = engine.search(PROMPT, "temporal_vote(100)", **options)
    assert extract("auto")(late.text or "") == extract("auto")(alone.text or "")


def test_blocks_that_end_leave_no_draft(engine: dlm.Engine) -> None:
    options = OPTIONS | {"blocks": "fixed(4)", "unmask": "everything"}
    found = engine.search(PROMPT, "temporal_vote", **options)
    assert found.candidates[0].text == engine.generate(PROMPT, **options).text


def test_policies_are_values() -> None:
    assert replace(TemporalVote(), alpha=1.0) == TemporalVote(1.0)
