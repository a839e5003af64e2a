"""Data for `train_bundled.py`: the tokenizer, encoded examples and batches."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import sentencepiece as spm
import torch
from torch import Tensor

from dlm.evals.tasks import MIX, TASKS, Split, sample

PAD, UNKNOWN, BOS, EOS, MASK, USER, ASSISTANT, SYSTEM, EOT = range(9)
CONTROL = ("<|mask|>", "<|user|>", "<|assistant|>", "<|system|>", "<|eot|>")
BUCKETS = (48, 64, 80, 112, 144, 176, 240, 320, 640)
LONG_BUCKET, LONG_SHARE = 176, 0.03
PLAIN_ENGLISH = (
    "Hello, how are you today? I am a small diffusion language model.",
    "What can you do? I can answer short questions, solve word problems and play Sudoku.",
    "Thank you! You are welcome. Goodbye, and have a nice day.",
    "The quick brown fox jumps over the lazy dog.",
    "Please write a short story about a cat that lives in a house by the sea.",
    "This is because there would have been more of them than they could which about their time.",
    "def class return import from for while if elif else try except with as lambda in not and or",
    "print(range(len(str(int(list(dict(set(True, False, None)))))))) self.append yield pass break",
)


def train_tokenizer(path: Path, examples: int, seed: int = 1) -> None:
    """Train the BPE pieces on sampled examples and write a sentencepiece model to `path`."""
    rng = random.Random(seed)

    def sentences() -> Iterator[str]:
        for _ in range(examples):
            example = sample(rng, "train")
            yield example.prompt
            yield example.answer
        for _ in range(50):
            yield from PLAIN_ENGLISH

    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=sentences(),
        model_writer=model,
        model_type="bpe",
        vocab_size=1024,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        allow_whitespace_only_pieces=True,
        character_coverage=1.0,
        pad_id=PAD,
        unk_id=UNKNOWN,
        bos_id=BOS,
        eos_id=EOS,
        pad_piece="<|pad|>",
        bos_piece="<|startoftext|>",
        eos_piece="<|endoftext|>",
        control_symbols=list(CONTROL),
        user_defined_symbols=["\n"],
        num_threads=1,
        minloglevel=1,
    )
    path.write_bytes(model.getvalue())


def load_tokenizer(path: Path) -> spm.SentencePieceProcessor:
    """Read a sentencepiece model and check that its control pieces are where they must be."""
    tokenizer = spm.SentencePieceProcessor(model_file=str(path))
    ids = [tokenizer.piece_to_id(piece) for piece in CONTROL]
    assert ids == [MASK, USER, ASSISTANT, SYSTEM, EOT], ids
    return tokenizer


def prompt_ids(tokenizer: spm.SentencePieceProcessor, prompt: str) -> list[int]:
    """The chat template: one user turn, then the assistant's."""
    return [BOS, USER, *tokenizer.encode(prompt), ASSISTANT]


class Batch(NamedTuple):
    """Clean ids `[B, L]` and the number of prompt ids of each row `[B]`."""

    ids: Tensor
    prompt_lengths: Tensor


def batches(
    tokenizer: spm.SentencePieceProcessor,
    seed: int,
    split: Split = "train",
    task: str | None = None,
    tokens: int = 4096,
    emphasis: Mapping[str, float] = MappingProxyType({}),
) -> Iterator[Batch]:
    """Endless batches of about `tokens` ids, each of one length bucket so that shapes repeat.

    The tail after the answer is EOS, without any padding mask. A third of the short examples go
    one bucket further than they must: otherwise full-canvas decoding would fill EOS first; a few
    get a tail as long as that of a generous `max_new_tokens`. Every example fits in the last
    bucket. `emphasis`: factors of the weights that tasks have in the mix.
    """
    rng = random.Random(seed)
    weights = [weight * emphasis.get(each.name, 1.0) for each, weight in MIX]
    rows = {length: -(-tokens // length) for length in BUCKETS}
    waiting: dict[int, list[tuple[list[int], int]]] = {length: [] for length in BUCKETS}
    while True:
        drawn = task or rng.choices(TASKS, weights=weights)[0]
        example = sample(rng, split, drawn)
        prompt = prompt_ids(tokenizer, example.prompt)
        ids = [*prompt, *tokenizer.encode(example.answer), EOS]
        length, *further = (length for length in BUCKETS if length >= len(ids))
        if length < LONG_BUCKET and rng.random() < LONG_SHARE:
            length = LONG_BUCKET
        elif further and further[0] < LONG_BUCKET and rng.random() < 1 / 3:
            length = further[0]
        ids += [EOS] * (length - len(ids))
        waiting[length].append((ids, len(prompt)))
        if len(waiting[length]) == rows[length]:
            full, lengths = zip(*waiting[length], strict=True)
            waiting[length] = []
            yield Batch(torch.tensor(full), torch.tensor(lengths))
