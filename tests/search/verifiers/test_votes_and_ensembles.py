"""Verifiers that compare: votes, ranks of several verifiers, and the jury that asks them anew."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf
from typing import Any, ClassVar

import pytest

from dlm.errors import InvalidRequest
from dlm.search import Policy, Verdict, Verifier
from dlm.search.verifiers.ensemble import Ensemble, ranks
from dlm.search.verifiers.majority import Majority
from dlm.search.verifiers.parsing import parse_verifier
from dlm.search.work import Advance, Complete, Point, Score, Start
from tests.search.verifiers.answers import STRANGE, scores_of, verdicts_of

PROMPT = "What is 3+4?"


@dataclass(frozen=True)
class Table(Verifier):
    """Scores of texts from a table, which counts what it is asked."""

    scores: dict[str, float]
    asked: list[str]
    blocks: ClassVar[bool] = False

    def score(self, answers, question):
        self.asked.extend(answer.text for answer in answers)
        question.spent.add(len(answers), 0.5 * len(answers))
        return [Verdict(self.scores[a.text], f"words of {a.text}") for a in answers]


@dataclass(frozen=True)
class Fails(Verifier):
    def score(self, answers, question):
        raise RuntimeError("no")


def test_a_vote_is_a_share_of_all_answers(engine):
    texts = ["it is 7", "7", "seven", "so 8", "= 7"]
    assert scores_of(engine, "majority('number')", PROMPT, texts) == [0.6, 0.6, 0, 0.2, 0.6]
    assert scores_of(engine, Majority(lambda t: t[:1]), PROMPT, texts) == [0.2, 0.2, 0.4, 0.4, 0.2]


def test_an_extractor_that_raises_gives_no_vote_and_is_counted(engine):
    verdicts, spent = verdicts_of(engine, Majority(lambda t: t[3]), PROMPT, ["abcd", "a", "xyzd"])
    assert [verdict.score for verdict in verdicts] == pytest.approx([2 / 3, 0, 2 / 3])
    assert spent.errors == 1


@pytest.mark.parametrize("name", ["no_such", 3, ""])
def test_an_unknown_extractor_is_refused(name):
    with pytest.raises(InvalidRequest) as refused:
        Majority(name)
    assert "extract" in refused.value.param


def test_votes_are_weighed_by_another_verifier(engine):
    table = Table({"7": -1.0, "8": -0.1, "so 7": -2.0}, [])
    scores = scores_of(engine, Majority(weight=table), PROMPT, ["7", "8", "so 7"])
    total = exp(-1) + exp(-0.1) + exp(-2)
    seven, eight = (exp(-1) + exp(-2)) / total, exp(-0.1) / total
    assert scores == pytest.approx([seven, eight, seven])
    failing = scores_of(engine, Majority(weight=Fails()), PROMPT, ["7", "8", "so 7"])
    assert failing == pytest.approx([2 / 3, 1 / 3, 2 / 3]), "equal weights"


@pytest.mark.parametrize("text", STRANGE)
@pytest.mark.parametrize("spec", ["majority", ["majority", "confidence"]])
def test_no_text_makes_a_vote_fall_over(engine, spec, text):
    verdicts, spent = verdicts_of(engine, spec, PROMPT, [text, "7"])
    assert all(0 <= verdict.score <= 1 for verdict in verdicts)
    assert spent.errors == 0


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([3, 1, 2], [1, 0, 0.5]),
        ([1, 1], [0.5, 0.5]),
        ([5], [0]),
        ([], []),
        ([-inf, 0, 0, 9], [0, 0.5, 0.5, 1]),
    ],
)
def test_a_rank_is_the_share_of_lower_scores(scores, expected):
    assert ranks(scores) == expected


def test_an_ensemble_is_the_mean_of_ranks_whatever_the_scales(engine):
    one = Table({"a": 1e6, "b": 0.0, "c": 2.0}, [])
    other = Table({"a": -3.0, "b": -1.0, "c": -2.0}, [])
    texts = ["a", "b", "c"]
    assert scores_of(engine, [one, other], PROMPT, texts) == [0.5, 0.5, 0.5]
    assert scores_of(engine, Ensemble((one, other), how="min"), PROMPT, texts) == [0, 0, 0.5]
    assert scores_of(engine, [one, one, other], PROMPT, texts) == pytest.approx([2 / 3, 1 / 3, 0.5])


def test_a_member_that_fails_is_counted_and_the_others_rank(engine):
    one = Table({"a": 1.0, "b": 2.0}, [])
    verdicts, spent = verdicts_of(engine, [one, Fails()], PROMPT, ["a", "b"])
    assert [verdict.score for verdict in verdicts] == [0.25, 0.75]
    assert spent.errors == 2


def test_words_and_spans_of_all_members_are_told(engine):
    verdicts, _ = verdicts_of(
        engine,
        [lambda t: Verdict(1.0, "x", ((1, 2),)), lambda t: Verdict(0.0, "y", ((1, 2), (4, 5)))],
        PROMPT,
        ["a"],
    )
    assert verdicts[0].feedback == "x\ny"
    assert verdicts[0].spans == ((1, 2), (4, 5))


def test_members_are_parsed_with_the_trust_of_the_request():
    parsed = parse_verifier("ensemble(('confidence', 'majority'), how='min')", trusted=False)
    assert isinstance(parsed, Ensemble)
    assert [type(member).__name__ for member in parsed.members] == ["Confidence", "Majority"]
    for spec in (
        "ensemble(('os:path',))",
        ["confidence", "builtins:object"],
        "majority(weight='os:path')",
        ["confidence", ["causal_lm('/some/where')"]],
        "majority(weight='reward_model(\"/some/where\")')",
    ):
        with pytest.raises(InvalidRequest):
            parse_verifier(spec, trusted=False)


def test_traits_and_costs_are_those_of_the_members(engine):
    inner = parse_verifier(["confidence", "path_entropy", "self_verify", "pll(0.5)"])
    assert inner.cost == 3
    assert inner.options == parse_verifier("path_entropy").options
    with pytest.raises(InvalidRequest, match="allow_oracle"):
        engine.search(
            PROMPT, "best_of(2)", verifier=["confidence", "exact_answer('7')"], temperature=1.0
        )
    found = engine.search(
        PROMPT,
        "best_of(2)",
        verifier=["confidence", "exact_answer('7')"],
        temperature=1.0,
        allow_oracle=True,
    )
    assert found.oracle


def test_each_answer_of_a_search_is_asked_once_and_compared_with_all(engine):
    table = Table({}, [])

    @dataclass(frozen=True)
    class Length(Verifier):
        def score(self, answers, question):
            table.asked.extend(answer.text for answer in answers)
            question.spent.add(len(answers), 0.5 * len(answers))
            return [Verdict(float(sum(map(ord, answer.text)))) for answer in answers]

    points = []
    found = engine.search(
        "Write a poem of many words.",
        "best_of(8, width=2)",
        verifier=[Length(), "confidence"],
        temperature=2.0,
        seed=5,
        max_new_tokens=24,
        on_improve=points.append,
    )
    texts = [candidate.text for candidate in found.candidates]
    assert sorted(table.asked) == sorted(texts)
    assert len(texts) == 8
    lengths = ranks([float(sum(map(ord, text))) for text in texts])
    sure = ranks([sum(c.answer.logprobs) / len(c.answer.logprobs) for c in found.candidates])
    expected = [(a + b) / 2 for a, b in zip(lengths, sure, strict=True)]
    assert [c.score for c in found.candidates] == pytest.approx(expected), "among all of them"
    best = max(range(8), key=lambda at: (expected[at], -at))
    assert found.best is found.candidates[best].answer
    assert found.score == pytest.approx(expected[best])
    assert {n.score for n in found.tree} >= {c.score for c in found.candidates}
    assert points == list(found.curve)
    assert points[-1].candidate == found.candidates[best].number
    assert [p.candidate for p in points[1:]] != [p.candidate for p in points[:-1]]
    assert (found.costs.verifier_forwards, found.costs.verifier_nfe) == (8, 4.0)


@dataclass(frozen=True)
class Guessing(Policy):
    """Judges guesses at two answers before it judges both of them."""

    seen: list[Any]

    def run(self, search):
        nodes = yield [Start(0), Start(1)]
        yield [Advance(node, Point(steps=2)) for node in nodes]
        drafts = yield [Complete(node) for node in nodes]
        self.seen.extend((yield [Score(nodes, drafts, keep=False)])[0])
        yield [Advance(node) for node in nodes]
        yield [Score(nodes)]
        self.seen.extend((yield [Score(nodes, drafts, keep=False)])[0])


def test_guesses_are_compared_and_are_no_candidates(engine):
    policy = Guessing([])
    found = engine.search(
        "Compute 7468*5387.",
        policy,
        verifier=["confidence", "path_logprob"],
        temperature=2.0,
        seed=1,
        max_new_tokens=24,
    )
    assert len(found.candidates) == 2
    assert found.costs.verifier_calls == 6
    assert sum(c.score for c in found.candidates) == pytest.approx(1), "ranks of two"
    first, second = policy.seen[:2], policy.seen[2:]
    assert sum(c.score for c in first) == pytest.approx(1), "there was nothing else"
    assert all(0 <= c.score <= 1 for c in second)
    assert [c.score * 3 for c in second] != [c.score for c in first], "among four"


def test_the_majority_of_a_search_is_that_of_all_its_answers(engine):
    found = engine.search(
        "Compute 7468*5387.",
        "best_of(12)",
        verifier="majority",
        temperature=2.0,
        seed=1,
        max_new_tokens=32,
    )
    verdicts, _ = verdicts_of(engine, "majority", PROMPT, [c.text for c in found.candidates])
    assert [c.score for c in found.candidates] == pytest.approx([v.score for v in verdicts])
    assert found.score == max(verdict.score for verdict in verdicts) < 1
