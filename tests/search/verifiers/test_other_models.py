"""Verifiers with models of their own: a causal model, a reward model; and what they bill."""

from __future__ import annotations

import shutil
from math import inf
from pathlib import Path

import pytest
import torch

import dlm
from dlm.engine.autoregressive import CausalEngine
from dlm.errors import InvalidRequest
from dlm.search.verifiers.causal import CausalLikelihood
from dlm.search.verifiers.other import batches
from dlm.search.verifiers.parsing import parse_verifier
from tests.helpers import random_decoder, tiny_spec
from tests.search.verifiers.answers import STRANGE, question_of, scores_of, verdicts_of

PROMPT = "Compute 13+24."
BUNDLED = Path(dlm.__file__).parent / "model" / "bundled"


@pytest.fixture(scope="module")
def causal():
    return dlm.load_causal("tiny-ar", device="cpu")


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """Random classifiers of one output and of three, with the bundled tokenizer."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    found = []
    for labels in (1, 3):
        folder = tmp_path_factory.mktemp(f"labels{labels}")
        torch.manual_seed(labels)
        config = LlamaConfig(
            vocab_size=1024,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            num_labels=labels,
            pad_token_id=0,
        )
        model = LlamaForSequenceClassification(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(8)
        model.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(BUNDLED / "tiny" / name, folder)
        found.append((str(folder), model))
    return found


# a causal model


def test_the_likelihood_of_a_causal_model(engine, causal):
    texts = ["13+24=37", "13+24=38", "x"]
    rows = []
    hook = causal.model.register_forward_hook(lambda *_: rows.append(1))
    verdicts, spent = verdicts_of(engine, CausalLikelihood(causal), PROMPT, texts, canvas=32)
    hook.remove()
    before = causal.text.encode_prompt(PROMPT)
    positions, canvas = 0, len(question_of(engine, PROMPT).ids) + 32
    for text, verdict in zip(texts, verdicts, strict=True):
        ids = [*before, *causal.text.encode_inside(text), causal.eos_ids[0]]
        logp = causal.logits([ids])[0].double().log_softmax(1)
        own = [float(logp[at, ids[at]]) for at in range(len(before), len(ids))]
        assert verdict.score == pytest.approx(sum(own) / len(own), abs=1e-4)
        positions += len(ids)
    assert verdicts[0].score > verdicts[1].score, "the right sum is more likely"
    assert spent.forwards == len(texts)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (causal.model, engine.model)]
    assert spent.nfe == pytest.approx(positions * sizes[0] / (canvas * sizes[1]))


def test_it_is_loaded_by_name(engine, causal):
    by_name = scores_of(engine, "causal_lm('tiny-ar', device='cpu')", PROMPT, ["13+24=37"])
    assert by_name == scores_of(engine, CausalLikelihood(causal), PROMPT, ["13+24=37"])
    assert parse_verifier("causal_lm('tiny-ar')", trusted=False), "it ships"
    for source in ("/nowhere", "some/model"):
        with pytest.raises(InvalidRequest):
            parse_verifier(f"causal_lm({source!r})", trusted=False)


@pytest.mark.parametrize("text", STRANGE)
def test_no_text_makes_a_causal_model_fall_over(engine, causal, text):
    verdicts, spent = verdicts_of(engine, CausalLikelihood(causal), PROMPT, [text, "37"])
    too_long = len(text) > 4000
    assert (verdicts[0].score == -inf) == too_long
    assert verdicts[1].score > -inf
    assert spent.errors == too_long
    assert spent.forwards == 2 - too_long


def test_what_is_no_causal_model_is_refused(engine, tmp_path):
    question = question_of(engine, PROMPT)
    bare = CausalEngine(random_decoder(tiny_spec(attention="causal", mask_id=None)), (1,))
    for model in ("tiny", str(tmp_path), engine, bare, 3):
        with pytest.raises(InvalidRequest):
            CausalLikelihood(model).bind(question)


# a reward model


def test_the_reward_of_a_classifier(engine, classifiers):
    texts = ["13+24=37", "13", ""]
    (one, reference), (three, of_three) = classifiers
    verdicts, spent = verdicts_of(engine, f"reward_model({one!r})", PROMPT, texts, canvas=32)
    labelled = scores_of(engine, f"reward_model({three!r}, label=2)", PROMPT, texts)
    total = 0
    for text, verdict, label in zip(texts, verdicts, labelled, strict=True):
        turns = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": text}]
        ids = chat_ids(one, turns)
        total += len(ids)
        with torch.no_grad():
            expected = float(reference(torch.tensor([ids])).logits[0, 0])
            several = of_three(torch.tensor([ids])).logits[0].double().log_softmax(0)
        assert verdict.score == pytest.approx(expected, abs=1e-4)
        assert label == pytest.approx(float(several[2]), abs=1e-4)
    assert spent.forwards == len(texts)
    canvas = len(question_of(engine, PROMPT).ids) + 32
    sizes = [sum(p.numel() for p in model.parameters()) for model in (reference, engine.model)]
    assert spent.nfe == pytest.approx(total * sizes[0] / (canvas * sizes[1]))


def chat_ids(folder, turns):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", STRANGE)
def test_no_text_makes_a_reward_model_fall_over(engine, classifiers, text):
    verdicts, spent = verdicts_of(
        engine, f"reward_model({classifiers[0][0]!r})", PROMPT, [text, "7"]
    )
    too_long = len(text) > 4000
    assert (verdicts[0].score == -inf) == too_long
    assert verdicts[1].score > -inf
    assert spent.errors == too_long


def test_what_is_no_reward_model_is_refused(engine, classifiers, tmp_path):
    question, (_, (three, _)) = question_of(engine, PROMPT), classifiers
    (tmp_path / "config.json").write_text("{}")
    for spec in (
        f"reward_model({three!r})",
        f"reward_model({three!r}, label=3)",
        "reward_model('/nowhere')",
        f"reward_model({str(tmp_path)!r})",
    ):
        with pytest.raises(InvalidRequest):
            parse_verifier(spec).bind(question)
    with pytest.raises(InvalidRequest):
        parse_verifier(f"reward_model({three!r}, label=1)", trusted=False)


@pytest.mark.parametrize(
    ("lengths", "most", "found"),
    [
        ([], 10, []),
        ([3, 5, 4], 10, [[1, 2], [0]]),
        ([30], 10, [[0]]),
        ([2, 2, 2, 9], 9, [[3], [0, 1, 2]]),
    ],
)
def test_batches_are_bounded(lengths, most, found):
    assert list(batches(lengths, most)) == found
