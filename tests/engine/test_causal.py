"""The autoregressive row: the tokens that transformers' greedy search gives, and honest counts."""

import pytest
import torch

import dlm
from dlm.engine.causal import CausalEngine
from dlm.errors import InvalidRequest
from tests.helpers import block_mask, logits, random_decoder, tiny_spec

PROMPT = [5, 9, 33, 12, 40]


def engine_of(seed, **changes):
    spec = tiny_spec(attention="causal", mask_id=None, **changes)
    decoder = random_decoder(spec, seed)
    return CausalEngine(decoder, spec.eos_ids), decoder


def textbook(decoder, prompt, most, end=1):
    """Argmax of the last row of a dense causal forward, again and again."""
    ids = list(prompt)
    while len(ids) - len(prompt) < most:
        rows = logits(decoder, torch.tensor([ids]), block_mask(len(ids), 1))
        token = int(rows[0, -1].argmax())
        if token == end:
            return ids, True
        ids.append(token)
    return ids, False


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("length", [1, 5, 21])
def test_greedy_decoding_is_the_textbooks(seed, length):
    engine, decoder = engine_of(seed, qkv_bias=seed % 2 == 1, qk_norm=seed % 3 == 1)
    prompt = [(7 * i + seed) % 60 + 3 for i in range(length)]
    answer = engine.generate(prompt, max_new_tokens=20)
    ids, ended = textbook(decoder, prompt, 20)
    assert list(answer.canvas) == ids
    assert answer.finish_reason == ("stop" if ended else "length")
    assert answer.stats.nfe == len(answer.ids) + ended
    assert answer.stats.tokens == len(answer.ids)
    assert answer.stats.token_forwards == length + answer.stats.nfe - 1
    assert len(answer.logprobs) == len(answer.ids)
    assert engine.kv.pages_in_use == 0


def test_greedy_search_of_transformers_gives_the_same(tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=1,
    )
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)
    model.save_pretrained(tmp_path)
    engine = dlm.load_causal(tmp_path, device="cpu")
    for start in range(4):
        prompt = [start + 3, 17, 40 + start]
        theirs = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)
        found = [*engine.generate(prompt, max_new_tokens=24).canvas]
        assert found == [i for i in theirs[0].tolist() if i != 1][: len(found)]


def test_draws_are_keyed_by_their_seed():
    engine, _ = engine_of(2)
    warm = {"max_new_tokens": 16, "temperature": 1.0}
    runs = [engine.generate(PROMPT, **warm, seed=s).ids for s in (0, 0, 1, 2)]
    assert runs[0] == runs[1]
    assert len(set(runs)) > 1
    cold = engine.generate(PROMPT, max_new_tokens=16, temperature=1e-6).ids
    assert cold == engine.generate(PROMPT, max_new_tokens=16).ids


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "`max_new_tokens`: must be at least 1, got 0"),
        ({"max_new_tokens": 5000}, "limit of the model is 1024"),
        ({"temperature": -1.0}, "`temperature`: must be a finite number"),
        ({"unmask": "topk"}, "`unmask`: is no option of a causal model"),
    ],
)
def test_wrong_requests(options, message):
    with pytest.raises(InvalidRequest) as refused:
        engine_of(0)[0].generate(PROMPT, **options)
    assert message in str(refused.value)


def test_wrong_models_and_prompts():
    with pytest.raises(InvalidRequest, match="must be a causal model, 'llada' has full attention"):
        dlm.load_causal("tiny")
    engine, _ = engine_of(0)
    with pytest.raises(InvalidRequest, match="must not be empty"):
        engine.generate([])
    with pytest.raises(InvalidRequest, match="ids must be between 0 and 63"):
        engine.generate([5, 64])
    with pytest.raises(InvalidRequest, match="without a tokenizer"):
        engine.generate("hello")
