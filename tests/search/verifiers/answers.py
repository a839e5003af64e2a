"""Answers and questions made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dlm
from dlm.engine.binding import prompt_ids
from dlm.engine.generation import Generation
from dlm.engine.stats import Ledger, stats_of
from dlm.search.searcher import words_of
from dlm.search.verifier import Question, Spent, Verdict
from dlm.search.verifiers.parsing import parse_verifier

STRANGE = (
    "",
    " ",
    "\n\n",
    "\t\n \n",
    "0",
    "=",
    "1+1=2\n" * 3000,
    "7" * 20_000,
    "é世界🙂\u202e",
    "\u0661+\u0662=\u0663",  # Arabic digits
    "\x00",
    "'" * 9,
    "```\n```",
    "Traceback (most recent call last):",
)
"""Texts that a model could write, and that no verifier may fall over."""


def question_of(engine: dlm.Engine, prompt: Any) -> Question:
    """A question as a search makes it."""
    ids = prompt_ids(prompt, engine.text, engine.info)
    return Question(prompt, words_of(prompt), ids, engine, Spent())


def answer_of(
    question: Question, text: str, *, canvas: int = 0, ended: bool = True, **fields: Any
) -> Generation:
    """An answer of this text, its end id at all positions after it, on a canvas of this length."""
    engine = question.engine
    ids = tuple(engine.text.encode_inside(text))
    rest = max(canvas - len(ids), int(ended))
    after = (*ids, *engine.info.eos_ids[:1] * rest)
    values = {
        "text": text,
        "ids": ids,
        "finish_reason": "stop" if ended else "length",
        "stats": stats_of(Ledger(nfe=1), len(ids), seconds=0.0, started=0.0),
        "prompt_ids": question.ids,
        "canvas": (*question.ids, *after),
        "logprobs": (-0.5,) * len(ids),
    }
    return Generation(**values | fields)


def verdicts_of(
    engine: dlm.Engine, spec: Any, prompt: Any, texts: Sequence[str], **fields: Any
) -> tuple[list[Verdict], Spent]:
    """The verdicts of a verifier on texts, with scores among each other, and what it has spent."""
    question = question_of(engine, prompt)
    parsed = parse_verifier(spec)
    assert parsed is not None
    verifier = parsed.bind(question)
    answers = [answer_of(question, text, **fields) for text in texts]
    verdicts = list(verifier.score(answers, question))
    if verifier.relative:
        scores = verifier.compare(answers, verdicts)
        verdicts = [v._replace(score=s) for v, s in zip(verdicts, scores, strict=True)]
    return verdicts, question.spent


def scores_of(engine: dlm.Engine, spec: Any, prompt: Any, texts: Sequence[str]) -> list[float]:
    """The scores alone."""
    return [verdict.score for verdict in verdicts_of(engine, spec, prompt, texts)[0]]


def pointed(question: Question, answer: Generation, verdict: Verdict) -> str:
    """The text at the positions that a verdict points to."""
    engine = question.engine
    at = {at for start, end in verdict.spans for at in range(start, end)}
    return engine.text.decode_inside([answer.canvas[i] for i in sorted(at)])
