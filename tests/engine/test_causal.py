"""The autoregressive row: the tokens that transformers' greedy search gives, and honest counts."""

import pytest
import torch

import dlm
from dlm.engine.autoregressive import CausalEngine
from dlm.errors import CheckpointError, InvalidRequest
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
    assert engine.kv.pages.in_use == 0


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
        ({"max_new_tokens": 0}, "`max_new_tokens`: must be an integer of at least 1, got 0"),
        ({"max_new_tokens": 5000}, "limit of the model is 1024"),
        ({"temperature": -1.0}, "`temperature`: must be a finite number"),
        (
            {"unmask": "topk"},
            "`unmask`: is no option of a causal model, which takes max_new_tokens",
        ),
        ({"n": 2}, "`n`: is no option of a causal model"),
        ({"nope": 2}, "`option`: must be one of"),
        ({"max_new_tokens": "5"}, "`max_new_tokens`: must be an integer"),
        ({"max_new_tokens": None}, "`max_new_tokens`: must be an integer of at least 1, got None"),
        ({"temperature": "warm"}, "`temperature`: must be a finite number"),
        ({"top_p": 2.0}, "`top_p`: must be a finite number between 0 and 1"),
        ({"stop": "eos('block')"}, "`stop`: takes texts alone for a causal model, got the rule"),
        ({"stop": ["x", "max_nfe(5)"]}, "got the rule 'max_nfe(5)'"),
        ({"stop": "."}, "`stop`: a stop string needs a tokenizer"),
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


@pytest.fixture(scope="module")
def talker():
    """The bundled causal model."""
    return dlm.load_causal("tiny-ar", device="cpu")


def test_a_batch_is_answered_in_order():
    engine, _ = engine_of(1)
    prompts = [PROMPT, [7, 8], [3] * 9]
    alone = [engine.generate(prompt, max_new_tokens=9) for prompt in prompts]
    together = engine.generate(prompts, max_new_tokens=9)
    assert [a.canvas for a in together] == [a.canvas for a in alone]
    assert engine.generate([PROMPT], max_new_tokens=9)[0].canvas == alone[0].canvas
    with pytest.raises(InvalidRequest, match="ids must be between"):
        engine.generate([PROMPT, [99]])
    assert engine.kv.pages.in_use == 0


def test_a_stream_tells_what_happens_and_ends_with_the_answer(talker):
    events = [*talker.stream("What is 12 + 30?", max_new_tokens=24)]
    answer = events[-1].result
    again = talker.generate("What is 12 + 30?", max_new_tokens=24)
    assert (answer.text, answer.ids, answer.finish_reason) == (
        again.text,
        again.ids,
        again.finish_reason,
    )
    assert [e.type for e in events[:3]] == ["open", "commit", "settle"]
    assert events[-1].type == "done"
    canvas = dlm.replay(events)[0]
    first = len(answer.prompt_ids)
    assert tuple(canvas.ids[first : first + len(answer.ids)]) == answer.ids
    assert canvas.settled == first + len(answer.ids)
    assert canvas.reason == answer.finish_reason


def test_leaving_a_stream_frees_its_memory(talker):
    stream = talker.stream("hello", max_new_tokens=24)
    assert next(stream).type == "open"
    assert talker.kv.pages.in_use
    stream.close()
    assert talker.kv.pages.in_use == 0
    with pytest.raises(InvalidRequest, match="max_new_tokens"):
        talker.stream("hello", max_new_tokens=0)


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_nothing_after_a_stop_string_is_settled_or_returned(talker, cut):
    prompt = "Count from 3 to 9."
    whole = talker.generate(prompt, max_new_tokens=40).text
    assert len(whole) > 8
    stop = whole[len(whole) // 2 : len(whole) // 2 + cut]
    events = [*talker.stream(prompt, max_new_tokens=40, stop=[stop, "never in it"])]
    answer = events[-1].result
    assert answer.text == whole[: whole.index(stop)]
    assert answer.finish_reason == "stop"
    settled = [e.pos[0] for e in events if e.type == "settle"]
    first = len(answer.prompt_ids)
    assert settled == sorted(settled)
    for end in settled:
        shown = talker.text.decode(dlm.replay(events)[0].ids[first:end])
        assert answer.text.startswith(shown)


def test_a_text_named_like_a_rule_can_stop_it(talker):
    answer = talker.generate("hello", max_new_tokens=8, stop=dlm.StopString("eos"))
    assert answer.text == talker.generate("hello", max_new_tokens=8).text


def test_requests_wait_for_their_turn():
    engine, _ = engine_of(3)
    first, second = (engine.submit([9 + i], max_new_tokens=6) for i in range(2))
    assert not first.done
    assert engine.kv.pages.in_use == 0
    assert second.result().canvas == engine.generate([10], max_new_tokens=6).canvas
    assert first.done
    third = engine.submit([12], max_new_tokens=6)
    engine.step()
    third.abort()
    third.abort()
    found = third.result()
    assert (found.finish_reason, len(found.ids)) == ("abort", 1)
    assert engine.kv.pages.in_use == 0


def test_filters_of_the_draw_apply():
    engine, _ = engine_of(2)
    warm = {"max_new_tokens": 12, "temperature": 1.5}
    greedy = engine.generate(PROMPT, max_new_tokens=12).ids
    assert engine.generate(PROMPT, **warm, top_k=1).ids == greedy
    assert engine.generate(PROMPT, **warm, top_p=1e-9).ids == greedy
    assert engine.generate(PROMPT, **warm).ids != greedy


def test_logits_predict_their_own_position():
    engine, decoder = engine_of(0)
    ids = torch.tensor([[5, 9, 33, 12, 40]])
    raw = logits(decoder, ids, block_mask(5, 1))
    assert torch.allclose(engine.logits(ids)[:, 1:], raw[:, :-1], atol=1e-5)
    padded = torch.tensor([[0, 0, 5, 9, 33, 12, 40]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1]])
    assert torch.allclose(engine.logits(padded, mask)[0, 2:], engine.logits(ids)[0], atol=1e-4)


def test_broken_weights_are_the_checkpoints_fault():
    engine, decoder = engine_of(0)
    with torch.no_grad():
        decoder.norm.weight[2] = torch.nan
    for call in (engine.generate, lambda ids: list(engine.stream(ids))):
        with pytest.raises(CheckpointError, match="logits are not finite in step 1"):
            call(PROMPT)
    assert engine.kv.pages.in_use == 0


def test_corrections_reach_a_causal_model():
    plain = dlm.load_causal("tiny-ar", device="cpu")
    other = dlm.load_causal("tiny-ar", device="cpu", overrides={"rope_theta": 50.0, "eos_ids": 9})
    assert 9 in other.eos_ids
    assert other.model.spec.rope_theta == 50.0
    ids = [[5, 9, 33, 12, 40, 7]]
    assert not torch.allclose(plain.logits(ids), other.logits(ids))
    with pytest.raises(InvalidRequest, match="must be one of 'attention'"):
        dlm.load_causal("tiny-ar", overrides={"nope": 1})
    with pytest.raises(AttributeError, match="`model` of an engine cannot be changed"):
        plain.model = other.model


def test_causal_models_can_be_looked_at():
    found = dlm.inspect("tiny-ar")
    assert (found.info.attention, found.info.mask_id) == ("causal", None)
    with pytest.raises(InvalidRequest, match=r"use `dlm\.load_causal`"):
        found.explain(max_new_tokens=8)
    with pytest.raises(InvalidRequest, match=r"use `dlm\.load_causal`"):
        dlm.load("tiny-ar")
