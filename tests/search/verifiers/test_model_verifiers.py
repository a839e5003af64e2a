"""Verifiers that ask the model that decodes, and what they bill."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, inf

import pytest
import torch

import dlm
from dlm.core import ModelInfo
from dlm.engine.generation import Generation
from dlm.engine.stats import Stats
from dlm.errors import InvalidRequest
from dlm.search.verifiers.parsing import parse_verifier
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec
from tests.search.verifiers.answers import (
    STRANGE,
    answer_of,
    pointed,
    question_of,
    scores_of,
    verdicts_of,
)

PROMPT = "Compute 13+24."
NOTHING = Stats(0, 0, 0, 0, 0, {}, {}, {}, 0.0)


# the model itself


def test_self_verification_is_the_probability_of_yes(engine, computed):
    texts = ["13+24=37", "13+24=38", "37", ""]
    verdicts, spent = verdicts_of(engine, "self_verify", PROMPT, texts)
    rows, expected = sum(computed), []
    template = dlm.QuestionTemplate(user="{input}\n{questions}", question="{instructions}")
    for text in texts:
        asked = dlm.Predicate(None, "Is it correct?")
        source = f"{PROMPT}\nAnswer: {text}"
        found = engine.decide(source, asked, template=template, scoring="first")
        expected.append(found.answers[0].probability)
    assert [verdict.score for verdict in verdicts] == pytest.approx(expected)
    assert len(set(expected)) == len(texts)
    assert spent.forwards == spent.nfe == rows == len(texts) * parse_verifier("self_verify").cost


def test_the_words_of_the_judge_are_the_users(engine):
    spec = "self_verify(form='{answer} to {question}', ask='Right?')"
    one, other = scores_of(engine, spec, PROMPT, ["{question}", "13"])
    assert one != other
    assert 0 <= one <= 1
    with pytest.raises(InvalidRequest, match="answer"):
        parse_verifier("self_verify(form='{question}')")
    with pytest.raises(InvalidRequest, match="equations"):
        parse_verifier("self_verify(of='lines')")


def test_each_equation_is_judged_as_the_bundled_models_were_taught(engine, computed):
    """A right chain and a wrong one; an equation that both hold is asked about once."""
    question = question_of(engine, "Countdown: use 20 5 2 to make 13.")
    verifier = parse_verifier("self_verify(of='equations')").bind(question)
    texts = ["20-5=15\n15-2=13", "20-5=15\n15-2=12", "20-5=14\n15-2=13", "no sum", "1+2+3=6"]
    answers = [answer_of(question, text) for text in texts]
    verdicts = verifier.score(answers, question)
    right, second, first, none, chain = (verdict.score for verdict in verdicts)
    assert right > 0.5 > max(first, second)
    assert none == chain == 0
    assert question.spent.nfe == sum(computed) == 4 <= verifier.cost
    spans = [pointed(question, *pair) for pair in zip(answers[1:3], verdicts[1:3], strict=True)]
    assert spans == ["15-2=12", "20-5=14"]
    assert all(verdicts[number].spans == () for number in (0, 3, 4))


def test_a_long_answer_takes_no_more_than_it_costs(engine, computed):
    text = "\n".join(f"{n}+1={n + 1}" for n in range(30))
    _, spent = verdicts_of(engine, "self_verify(of='equations')", PROMPT, [text])
    assert spent.nfe == sum(computed) == parse_verifier("self_verify(of='equations')").cost


def by_hand(engine, question, answer, rate, count):
    """The mean log-probability of the first `count` positions, set by set, from dense logits."""
    from dlm.engine.scoring.rows import position_sets

    start, logs = len(question.ids), {}
    after = answer.canvas[start:]
    for chosen in position_sets(len(after), rate, 0):
        canvas = torch.tensor([answer.canvas])
        canvas[0, [start + at for at in chosen]] = engine.info.mask_id
        logp = engine.logits(canvas)[0].double().log_softmax(1)
        logs |= {at: float(logp[start + at, after[at]]) for at in chosen}
    return sum(logs[at] for at in range(count)) / count


@pytest.mark.parametrize("rate", [0.25, 0.4, 1.0])
def test_pll_is_the_mean_over_the_answer_and_its_end(engine, computed, rate):
    question = question_of(engine, PROMPT)
    texts = ["13+24=37", "13+24=38", ""]
    answers = [answer_of(question, text, canvas=32) for text in texts]
    verifier = parse_verifier(f"pll({rate})").bind(question)
    verdicts = verifier.score(answers, question)
    assert question.spent.forwards == question.spent.nfe == sum(computed)
    assert sum(computed) == len(texts) * verifier.cost == len(texts) * ceil(1 / rate)
    for answer, verdict in zip(answers, verdicts, strict=True):
        expected = by_hand(engine, question, answer, rate, len(answer.ids) + 1)
        assert verdict.score == pytest.approx(expected, abs=1e-4)
    assert verdicts[0].score > verdicts[1].score, "the right sum is more likely"


def test_pll_reads_an_answer_that_is_still_open_as_far_as_it_goes(engine):
    question = question_of(engine, PROMPT)
    mask = engine.info.mask_id
    cut = answer_of(question, "13+24=37", ended=False)
    opened = replace(cut, canvas=(*cut.canvas, mask, mask))
    verifier = parse_verifier("pll").bind(question)
    first, second = verifier.score([cut, opened], question)
    assert first.score == pytest.approx(second.score, abs=1e-6)


def test_the_chain_from_left_to_right(engine, computed):
    question = question_of(engine, PROMPT)
    answer = answer_of(question, "13+24=37", canvas=32)
    (verdict,) = parse_verifier("pll(method='chain')").bind(question).score([answer], question)
    ids = (*answer.ids, engine.info.eos_ids[0])
    found = engine.score(PROMPT, ids)
    assert verdict.score == pytest.approx(found.logprob / len(ids), abs=1e-4)
    assert question.spent.nfe == len(ids)
    assert sum(computed) == 2 * len(ids), "here, and by the engine alone"


def asked_of(engine, start, longest):
    """A question of `start` ids, and the answer of a given number of ids to it."""
    size, eos = engine.info.alignment, engine.info.eos_ids[0]
    ids = tuple(10 + at % 40 for at in range(start))
    question = replace(question_of(engine, ids), longest=longest)

    def answered(count):
        after = [10 + at % 40 for at in range(count)]
        canvas = (*ids, *after, *[eos] * (-(start + count) % size))
        return Generation(
            None, tuple(after), "length", NOTHING, prompt_ids=ids, canvas=canvas, logprobs=()
        )

    return question, answered


ROOMS = [(5, 19), (8, 8), (3, 45), (40, 24), (96, 32), (199, 57)]
"""Lengths of prompts and of answers that end with a block."""


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize(("start", "longest"), ROOMS)
@pytest.mark.parametrize("spec", ["pll(1.0)", "pll(0.001)", "pll(method='chain')"])
def test_a_block_causal_model_takes_the_forwards_that_are_declared(start, longest, spec, shift):
    """Blocks are read one by one; keys that they share are computed where that pays."""
    engine = causal_engine(shift=shift)
    question, answered = asked_of(engine, start, longest)
    verifier = parse_verifier(spec).bind(question)
    verifier.score([answered(longest)], question)
    assert question.spent.nfe == question.spent.forwards == verifier.cost
    assert verifier.cost >= -(-longest // 8)


@pytest.mark.parametrize("attention", ["full", "block_causal"])
@pytest.mark.parametrize("rate", [0.15, 0.25, 0.4])
def test_no_answer_takes_more_than_is_declared(rate, attention):
    engine = causal_engine(attention=attention)
    dearest = 0
    for start, longest in ROOMS[1::2]:
        for count in (longest, longest // 2, 1):
            question, answered = asked_of(engine, start, longest)
            verifier = parse_verifier(f"pll({rate})").bind(question)
            verifier.score([answered(count)], question)
            assert question.spent.nfe <= verifier.cost
            dearest = max(dearest, question.spent.nfe / verifier.cost)
    assert dearest == 1


def test_a_search_knows_the_longest_answer():
    engine = causal_engine()
    for nfe in (30, 60, 200):
        found = engine.search(
            [7, 3, 9, 21, 14],
            "best_of(6)",
            verifier="pll(0.5)",
            budget={"nfe": nfe},
            temperature=1.0,
            max_new_tokens=19,
        )
        assert found.costs.verifier_nfe > 2, "more than with full attention"
        assert found.costs.nfe <= nfe


def causal_engine(attention="block_causal", **traits):
    spec = tiny_spec(attention=attention, block_length=8, **traits)
    return dlm.Engine(random_decoder(spec, 1), info_of(spec))


@pytest.mark.parametrize("spec", ["self_verify", "self_verify(of='equations')", "pll"])
@pytest.mark.parametrize("text", [text for text in STRANGE if len(text) < 400])
def test_no_text_makes_them_fall_over(engine, spec, text):
    (verdict,), spent = verdicts_of(engine, spec, PROMPT, [text])
    assert verdict.score > -inf
    assert spent.errors == 0


def test_a_text_beyond_the_model_fails_alone_and_is_counted(engine):
    texts = ["37", "7" * 20_000]
    verdicts, spent = verdicts_of(engine, "self_verify", PROMPT, texts)
    assert verdicts[0].score > 0
    assert verdicts[1].score == -inf
    assert spent.errors == 1


def test_the_forwards_of_a_search_are_all_counted(engine, computed):
    found = engine.search(
        "Compute 4713+2489.",
        "best_of(8)",
        verifier=["self_verify", "pll(0.5)"],
        temperature=2.0,
        seed=2,
        max_new_tokens=24,
    )
    canvases = {one.answer.canvas for one in found.candidates}
    verdicts = len(canvases) * (1 + 2)
    assert 1 < len(canvases) < 8 == found.costs.verifier_calls, "equal ones are judged once"
    assert found.costs.verifier_forwards == found.costs.verifier_nfe == verdicts
    assert found.costs.nfe == found.costs.row_forwards + verdicts
    assert sum(computed) >= found.costs.nfe


def test_a_model_without_a_mask_is_refused():
    spec = tiny_spec(mask_id=None, family="gidd")
    info = ModelInfo(spec.family, spec.vocab_size, None, spec.eos_ids, 0, spec.max_length)
    engine = dlm.Engine(random_decoder(spec), info)
    with pytest.raises(InvalidRequest, match="mask"):
        parse_verifier("pll").bind(question_of(engine, [5, 6]))


def test_pll_needs_no_tokenizer():
    spec = tiny_spec()
    engine = dlm.Engine(random_decoder(spec), info_of(spec))
    found = engine.search([7, 3, 9], "best_of(3)", verifier="pll", temperature=1.0)
    assert max(c.score for c in found.candidates) == found.score > -inf
    with pytest.raises(InvalidRequest, match="tokenizer"):
        engine.search([7, 3, 9], "best_of(3)", verifier="self_verify", temperature=1.0)
