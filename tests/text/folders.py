"""Checkpoint folders with small tokenizers of every layout; each builder fills one folder."""

import json
import shutil
from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ODD = "\U00012000"  # a character that no vocabulary has
SPECIAL = ("<|mask|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")
CORPUS = (
    "The quick wolf sat on the mat and sorted the pack. Hello world, say the word again!",
    "12 + 30 = 42, naive cafe; f(x) = [a, b] | {c} < d > e\n\n  if x:\n    return 'no'",
    "A user asked: <|mask|>? The assistant answered: <s> or [MASK] or </s> -- what else.",
    "worldwide world wo rld lion lions oh pack wolf wolves",
) * 6


def write(folder: Path, name: str, content):
    (folder / name).write_text(json.dumps(content))


def settings(folder: Path, cls=None, **more):
    """`tokenizer_config.json` with the chat tokens and template that all folders share."""
    told = {"eos_token": "<|im_end|>", "mask_token": "<|mask|>", "chat_template": CHATML}
    told |= {"tokenizer_class": cls} if cls else {}
    write(
        folder, "tokenizer_config.json", {k: v for k, v in (told | more).items() if v is not None}
    )


def added(first: int, special=True):
    """`added_tokens_decoder` of the shared tokens from the id `first` on."""
    return {
        str(first + n): {"content": token, "special": special, "normalized": False}
        for n, token in enumerate(SPECIAL)
    }


def trained(model, trainer, special=True, **parts):
    """A tokenizer of the `tokenizers` library with the shared tokens."""
    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokens = [AddedToken(token, special=special, normalized=False) for token in SPECIAL]
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(tokens)
    return tokenizer


def byte_bpe(prefix=False, special=True):
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(
        models.BPE(),
        trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False),
        special,
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=prefix),
        decoder=decoders.ByteLevel(),
    )


def piece_bpe(scheme=None, special=True):
    """A BPE with byte fallback that marks spaces; `scheme` None: the older way of Llama's files."""
    letters = sorted(set("".join(CORPUS)) - {" "})
    known = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    merges = [("w", "o"), ("r", "l"), ("rl", "d"), ("wo", "rld"), ("▁", "wo"), ("▁wo", "rld")]
    merges += [("▁", "t"), ("h", "e"), ("▁t", "he"), ("▁", "l"), ("▁l", "i"), ("o", "n")]
    known += ["".join(pair) for pair in merges]
    vocabulary = {token: index for index, token in enumerate(known)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    if scheme is None:
        prepend = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        tokenizer.normalizer = normalizers.Sequence(prepend)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    strip = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    tokens = [AddedToken(token, special=special, normalized=False) for token in SPECIAL]
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(tokens)
    return tokenizer


def unigram(scheme="always", special=True):
    return trained(
        models.Unigram(),
        trainers.UnigramTrainer(
            vocab_size=200, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
        ),
        special,
        pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme=scheme),
        decoder=decoders.Metaspace(prepend_scheme=scheme),
    )


def word_piece():
    return trained(
        models.WordPiece(unk_token="[UNK]"),
        trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]"], show_progress=False),
        normalizer=normalizers.BertNormalizer(lowercase=True),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.WordPiece(),
    )


def as_json(tokenizer, cls="PreTrainedTokenizerFast"):
    """A builder: `tokenizer.json` alone, and its settings unless `cls` is None."""

    def build(folder):
        tokenizer().save(str(folder / "tokenizer.json"))
        if cls is not None:
            settings(folder, cls)

    return build


def as_merges(cls, **more):
    """A builder: `vocab.json` and `merges.txt` for the class `cls`."""

    def build(folder):
        whole = json.loads(byte_bpe().to_str())
        vocabulary = whole["model"]["vocab"]
        named = [v for k, v in more.items() if k.endswith("_token") and v not in vocabulary]
        vocabulary |= {token: len(vocabulary) + n for n, token in enumerate(dict.fromkeys(named))}
        write(folder, "vocab.json", vocabulary)
        merges = "\n".join(" ".join(pair) for pair in whole["model"]["merges"])
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
        settings(folder, cls, added_tokens_decoder=added(len(vocabulary)), **more)

    return build


def as_pieces(kind, cls=None, name="tokenizer.model", trainer=None, **more):
    """A builder: a model of sentencepiece, and added tokens behind it."""

    def build(folder):
        import sentencepiece

        corpus, prefix = folder / "corpus", folder / "trained"
        corpus.write_text("\n".join(CORPUS))
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=str(prefix), model_type=kind, vocab_size=380,
            byte_fallback=True, character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
            **(trainer or {}),
        )  # fmt: skip
        corpus.unlink()
        prefix.with_suffix(".vocab").unlink()
        shutil.move(prefix.with_suffix(".model"), folder / name)
        size = sentencepiece.SentencePieceProcessor(model_file=str(folder / name)).get_piece_size()
        settings(folder, cls, added_tokens_decoder=added(size), **more)

    return build


def nothing(folder):
    """ByT5 needs no file."""
    settings(folder, "ByT5Tokenizer", eos_token=None, mask_token=None)


T5_IDS = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
FOLDERS = {
    "json alone": as_json(byte_bpe, None),
    "json": as_json(byte_bpe),
    "json, prefixed bytes": as_json(lambda: byte_bpe(prefix=True)),
    "json, metaspace first": as_json(lambda: piece_bpe("first")),
    "json, metaspace always": as_json(lambda: piece_bpe("always")),
    "json, metaspace never": as_json(lambda: piece_bpe("never")),
    "json, prepended": as_json(piece_bpe),
    "json, unigram": as_json(unigram),
    "json, unigram first": as_json(lambda: unigram("first")),
    "json, word pieces": as_json(word_piece),
    "json, Qwen2": as_json(byte_bpe, "Qwen2Tokenizer"),
    "merges, GPT2": as_merges("GPT2Tokenizer", bos_token="<s>", eos_token="</s>"),
    "merges, Qwen2": as_merges("Qwen2TokenizerFast"),
    "merges, Roberta": as_merges("RobertaTokenizer", bos_token="<s>", eos_token="</s>"),
    "merges, Bart": as_merges("BartTokenizer", bos_token="<s>", eos_token="</s>"),
    "pieces": as_pieces("bpe"),
    "pieces, Llama": as_pieces("bpe", "LlamaTokenizer"),
    "pieces, old Llama": as_pieces("bpe", "LlamaTokenizer", legacy=True),
    "pieces, Llama without": as_pieces("bpe", "LlamaTokenizer", add_prefix_space=False),
    "pieces, Gemma": as_pieces("bpe", "GemmaTokenizer"),
    "unigram, T5": as_pieces(
        "unigram", "T5Tokenizer", "spiece.model", T5_IDS, extra_ids=0, eos_token="</s>"
    ),
    "unigram, slow": as_pieces("unigram", "SpeechT5Tokenizer", "spm_char.model"),
    "nothing, ByT5": nothing,
}
