"""The bundled tokenizer restores every text, in both its forms alike, and keeps control ids."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece as spm
from jinja2 import TemplateError

import dlm.model
from dlm.evals.tasks import TASKS, sample

FOLDER = Path(dlm.model.__file__).parent / "bundled" / "tiny"
CONTROL = ("<|startoftext|>", "<|endoftext|>", "<|pad|>", "<|mask|>", "<|user|>", "<|assistant|>")
ALPHABET = "aabcdetu   \n\n\t=+*-0123456789(){}[]'\"\\$é漢🙂<|>\r\x00_.,"

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="no bundled checkpoint")


@pytest.fixture(scope="module")
def pieces() -> spm.SentencePieceProcessor:
    return spm.SentencePieceProcessor(model_file=str(FOLDER / "tokenizer.model"))


@pytest.fixture(scope="module")
def fast() -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


def texts(count: int) -> Iterator[str]:
    """Sampled prompts and answers, the same with a few characters changed, and noise."""
    rng = random.Random(11)
    for index in range(count):
        example = sample(rng, "train")
        text = example.prompt + "\n" + example.answer
        if index % 4 == 1:
            text = "".join(rng.choice(ALPHABET) if rng.random() < 0.05 else c for c in text)
        elif index % 4 == 2:
            text = "".join(rng.choices(ALPHABET, k=rng.randint(0, 40)))
        elif index % 4 == 3:
            parts = (" " * 7, "  ", "the", "def f(xs):", "\n    ", "oooo", "漢字", "\n\n", "x")
            text = "".join(rng.choices(parts, k=rng.randint(0, 12)))
        yield text


@pytest.mark.parametrize("task", TASKS)
def test_round_trip(pieces: spm.SentencePieceProcessor, task: str):
    rng = random.Random(5)
    for _ in range(200):
        example = sample(rng, "train", task)
        for text in (example.prompt, example.answer):
            assert pieces.decode(pieces.encode(text)) == text


def test_newline_and_digits_stay_alone(pieces: spm.SentencePieceProcessor):
    assert pieces.encode("12\n\n345", out_type=str) == ["1", "2", "\n", "\n", "3", "4", "5"]


def test_fast_tokenizer_encodes_and_decodes_alike(pieces: spm.SentencePieceProcessor, fast: Any):
    for text in texts(2000):
        ids = pieces.encode(text)
        assert fast(text, add_special_tokens=False)["input_ids"] == ids, repr(text)
        assert fast.decode(ids) == pieces.decode(ids) == text, repr(text)


def test_control_ids_do_not_come_from_text(pieces: spm.SentencePieceProcessor, fast: Any):
    control = {pieces.piece_to_id(piece) for piece in (*CONTROL, "<|system|>", "<|eot|>")}
    assert control == {0, *range(2, 9)}
    for piece in CONTROL:
        text = f"say {piece} or {piece}"
        ids = pieces.encode(text)
        assert not control & set(ids)
        assert fast(text, split_special_tokens=True)["input_ids"] == ids
        assert pieces.decode(ids) == text


def test_chat_template(pieces: spm.SentencePieceProcessor, fast: Any):
    """The last question alone."""
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "3+4?\nNow"},
    ]
    ids = fast.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    bos, mask, user, assistant, eot = 2, 4, 5, 6, 8
    assert mask == fast.mask_token_id
    assert ids == [bos, user, *pieces.encode("3+4?\nNow"), assistant]
    whole = fast.apply_chat_template(turns[1:3], return_dict=False)
    answered = [*pieces.encode("Hi"), assistant, *pieces.encode("Hello!"), eot]
    assert whole == [bos, user, *answered]
    stranger = [{"role": "tool", "content": "1"}, *turns]
    with pytest.raises(TemplateError, match="role must be system, user or assistant, got tool"):
        fast.apply_chat_template(stranger)
