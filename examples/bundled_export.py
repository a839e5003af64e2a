"""Write a trained network as an ordinary checkpoint folder that any loader of its family reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import sentencepiece as spm
import torch
from bundled_data import (
    ASSISTANT,
    BOS,
    BUCKETS,
    CONTROL,
    EOS,
    EOT,
    MASK,
    PAD,
    SYSTEM,
    UNKNOWN,
    USER,
)
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from torch import Tensor

import dlm
from dlm.evals.bands import FILE, verdicts
from dlm.evals.reconstruction import rows_of, score
from dlm.evals.soundness import write_record
from dlm.model.decoder import Decoder
from dlm.model.families import FAMILIES
from dlm.model.loading import parameter_count
from dlm.model.spec import ModelSpec
from dlm.model.weight_map import weight_map

SPACE = "\u2581"  # sentencepiece's visible space
CHAT_TEMPLATE = (
    "{% set last = namespace(at=0) %}{% for message in messages %}"
    "{% if message['role'] not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('role must be system, user or assistant, got ' ~ message['role']) }}"
    "{% elif message['role'] == 'user' %}{% set last.at = loop.index0 %}{% endif %}{% endfor %}"
    "{{ bos_token }}{% for message in messages[last.at:] %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|eot|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""The last question alone: the models have learned from single questions."""


HOW = {
    "full": "one token a step, most confident first, blocks of 8, dual cache",
    "block_causal": "one token a step, most confident first",
    "causal": "the likeliest token at a time",
}
KINDS = {
    "full": "A masked diffusion language model of LLaDA's shape with full bidirectional attention",
    "block_causal": "A block diffusion language model of SDAR's shape with blocks of 8",
    "causal": "An autoregressive language model of Llama's shape, to assist and to compare with,",
}
LOSSES = {
    "full": """cross-entropy over t on tokens masked with probability t, two fifths of the examples
seen as in block decoding, a fifth with a tenth of the visible tokens swapped (so that rules that
revise tokens read trained probabilities).""",
    "block_causal": """cross-entropy over t on the tokens of each block masked with its own
probability t, given the clean blocks before it.""",
    "causal": "cross-entropy of each token of the answer given all before it.",
}
CARD = """\
# {name}

{kind}
with {parameters:.2f} M parameters ({layers} layers, width {width}, {heads} heads, vocabulary
{vocabulary}). It ships with `dlm` so that everything runs on a fresh machine without a download,
and so that strategies, caches and search have something to be compared on. It knows the tasks below
and nothing else of the world.

## What it answers
Arithmetic drills, word problems with worked steps and `\\boxed{{}}`, short Python functions from a
signature and a docstring, Countdown with three or four numbers, 4x4 Sudoku, small formats
(greetings, bullets, JSON, sorting, sequences), whether a worked answer is correct, and questions on
a ledger of up to 61 lines. One user turn:
`<|startoftext|><|user|>{{text}}<|assistant|>`; the chat template leaves out what stands before the
last question. Answers end in `<|endoftext|>`, and so does every position of the canvas behind them.

## How it was trained
`examples/train_bundled.py`: {training}.
The problems (`dlm.evals.tasks`) are generated without an end. Their structures are split by hash
into 94% train, 3% dev, 3% test; crowded stories and functions of more than five operations stand in
no training at all. The weights are exported in bfloat16.

Loss: {loss}

## Measured
{table}
## Tokenizer
Sentencepiece BPE with byte fallback (`tokenizer.model`), and the same as `tokenizer.json` for
`AutoTokenizer`. `tokenizer.model` never makes control tokens (`<|mask|>`, `<|user|>` ...) of text;
`AutoTokenizer` does, as its chat template needs it, unless it is given `split_special_tokens=True`.

## Limits
Sequences up to {longest} tokens were seen in training.{canvas} It is a test bed, not an assistant.
"""
CANVAS = """ A short answer had a canvas
of at most {canvas} tokens: on longer ones it comes out shortened or empty."""


@dataclass(frozen=True, slots=True)
class Training:
    """What a checkpoint was trained for, over all sittings; kept beside its weights.

    `minutes` by where they were spent; `canvas`: the longest canvas that short answers had, None
    where an answer does not depend on it.
    """

    minutes: Mapping[str, float] = field(default_factory=dict)
    tokens: int = 0
    canvas: int | None = None

    def plus(self, place: str, minutes: float, tokens: int) -> Training:
        """This and a further sitting."""
        spent = {**self.minutes, place: self.minutes.get(place, 0.0) + minutes}
        return replace(
            self, minutes={name: m for name, m in spent.items() if m}, tokens=self.tokens + tokens
        )

    def write(self, folder: Path) -> None:
        """Write `training.json`."""
        minutes = {place: round(spent, 2) for place, spent in self.minutes.items()}
        facts = asdict(replace(self, minutes=minutes))
        write_json(folder / "training.json", {k: v for k, v in facts.items() if v is not None})

    def __str__(self) -> str:
        places = (f"{spent:.0f} minutes on one {place}" for place, spent in self.minutes.items())
        return f"{' and '.join(places) or 'no time'}, {self.tokens / 1e6:.0f} M tokens"

    @classmethod
    def read(cls, folder: Path) -> Training:
        """Read `training.json`; a folder without one counts as untrained."""
        path = folder / "training.json"
        return cls(**json.loads(path.read_text())) if path.exists() else cls()


def write_card(
    folder: Path,
    spec: ModelSpec,
    training: Training,
    figures: Mapping[str, tuple[int, int]],
) -> None:
    """Write the folder's README and, when there are some, its figures.

    `figures` maps "task rung" to right answers and items.
    """
    lines = [
        f"Test split, greedy, {HOW[spec.attention]}.\n",
        "| task and rung | right | items |",
        "|---|---|---|",
        *(f"| {rung} | {ok / n:.0%} | {n} |" for rung, (ok, n) in sorted(figures.items())),
    ]
    if spec.attention == "full":  # rules are compared on this one
        bands = (f"* {band}{'' if band.kept else ' (missed)'}" for band in verdicts(figures))
        title = "Bands that it should lie in, so that comparisons of decoding rules mean something:"
        lines += ["", f"{title}\n", *bands]
    if figures:
        write_json(folder / FILE, {name: list(counts) for name, counts in figures.items()})
    card = CARD.format(
        name=folder.name,
        kind=KINDS[spec.attention],
        loss=LOSSES[spec.attention],
        parameters=parameter_count(spec) / 1e6,
        layers=spec.layers,
        width=spec.hidden_size,
        heads=spec.heads,
        longest=BUCKETS[-1],
        canvas=CANVAS.format(canvas=training.canvas) if training.canvas else "",
        vocabulary=spec.vocab_size,
        training=training,
        table="\n".join(lines) + "\n" if figures else "Not yet.\n",
    )
    (folder / "README.md").write_text(card)


def write_checkpoint(folder: Path, net: Decoder, pieces: spm.SentencePieceProcessor) -> None:
    """Write weights (bfloat16), configs, both forms of the tokenizer, and what verifies them."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file(weights_of(net), weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    write_json(folder / "config.json", config_of(net.spec))
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": BOS, "eos_token_id": [EOS, EOT], "pad_token_id": PAD},
    )
    (folder / "tokenizer.model").write_bytes(pieces.serialized_model_proto())
    fast_tokenizer(pieces).save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", tokenizer_config(net.spec, pieces))
    load: Any = dlm.load_causal if net.spec.attention == "causal" else dlm.load
    engine = load(folder, device="cpu")
    write_record(folder, score(engine, rows_of(engine, tasks=False)).tolist())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write indented JSON and a final newline."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def weights_of(net: Decoder) -> dict[str, Tensor]:
    """The weights under their family's names, fused projections taken apart, in bfloat16."""
    state, names = net.state_dict(), FAMILIES[net.spec.family].names
    return {
        key: state[slot.parameter][slot.part].to(torch.bfloat16).contiguous()
        for key, slot in weight_map(net.spec, names).items()
    }


def config_of(spec: ModelSpec) -> dict[str, Any]:
    """The `config.json` of the spec's family."""
    return llada_config(spec) if spec.family == "llada" else hf_config(spec)


def hf_config(spec: ModelSpec) -> dict[str, Any]:
    """The `config.json` of a Llama, or of an SDAR with its trained blocks."""
    is_block = spec.attention == "block_causal"
    config: dict[str, Any] = {
        "architectures": ["SDARForCausalLM" if is_block else "LlamaForCausalLM"],
        "model_type": spec.family,
        "attention_bias": False,
        "bos_token_id": spec.bos_id,
        "eos_token_id": EOS,
        "head_dim": spec.head_dim,
        "hidden_act": "silu",
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "max_position_embeddings": spec.max_length,
        "num_attention_heads": spec.heads,
        "num_hidden_layers": spec.layers,
        "num_key_value_heads": spec.kv_heads,
        "pad_token_id": spec.pad_id,
        "rms_norm_eps": spec.norm_eps,
        "rope_scaling": None,
        "rope_theta": spec.rope_theta,
        "tie_word_embeddings": spec.tied_head,
        "torch_dtype": "bfloat16",
        "vocab_size": spec.vocab_size,
    }
    return config | ({"block_size": spec.block_length, "mask_token_id": MASK} if is_block else {})


def llada_config(spec: ModelSpec) -> dict[str, Any]:
    """The `config.json` of a LLaDA model: OLMo's field names, everything written out."""
    return {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "activation_type": "silu",
        "alibi": False,
        "attention_dropout": 0.0,
        "attention_layer_norm": False,
        "bias_for_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "bos_token_id": spec.bos_id,
        "d_model": spec.hidden_size,
        "embedding_dropout": 0.0,
        "embedding_size": spec.vocab_size,
        "eos_token_id": EOS,
        "flash_attention": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "init_device": "cpu",
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "mask_token_id": spec.mask_id,
        "max_sequence_length": spec.max_length,
        "mlp_hidden_size": spec.intermediate_size,
        "mlp_ratio": 4,
        "multi_query_attention": None,
        "n_heads": spec.heads,
        "n_kv_heads": spec.kv_heads,
        "n_layers": spec.layers,
        "pad_token_id": spec.pad_id,
        "residual_dropout": 0.0,
        "rms_norm_eps": spec.norm_eps,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": spec.rope_theta,
        "scale_logits": False,
        "torch_dtype": "bfloat16",
        "use_cache": False,
        "vocab_size": spec.vocab_size,
        "weight_tying": spec.tied_head,
    }


def tokenizer_config(spec: ModelSpec, pieces: spm.SentencePieceProcessor) -> dict[str, Any]:
    """What `AutoTokenizer` needs to know beside `tokenizer.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_eos_token": False,
        "bos_token": pieces.id_to_piece(BOS),
        "eos_token": pieces.id_to_piece(EOS),
        "pad_token": pieces.id_to_piece(PAD),
        "unk_token": pieces.id_to_piece(UNKNOWN),
        "mask_token": pieces.id_to_piece(MASK),
        "additional_special_tokens": [
            pieces.id_to_piece(i) for i in (USER, ASSISTANT, SYSTEM, EOT)
        ],
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": spec.max_length,
        "padding_side": "left",
    }


def fast_tokenizer(pieces: spm.SentencePieceProcessor) -> Tokenizer:
    """The sentencepiece model as a `tokenizers` BPE that encodes alike.

    Sentencepiece merges the adjacent pair whose joined piece has the lowest id; so the merges are
    all ways to split each piece, in the order of ids. The newline and the byte pieces take part in
    no merge. There is no pre-tokenizer: pieces never cross what the vocabulary does not join.
    """
    ids = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    mergeable = {
        piece: i
        for piece, i in ids.items()
        if not (pieces.is_control(i) or pieces.is_byte(i) or pieces.is_unknown(i))
    }
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(mergeable, key=mergeable.__getitem__)
        for cut in range(1, len(piece))
        if piece[:cut] in mergeable and piece[cut:] in mergeable
    ]
    tokenizer = Tokenizer(
        BPE(vocab=ids, merges=merges, unk_token=pieces.id_to_piece(UNKNOWN), byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = [pieces.id_to_piece(i) for i in (PAD, BOS, EOS)]
    tokenizer.add_special_tokens(
        [AddedToken(piece, special=True, normalized=False) for piece in (*special, *CONTROL)]
    )
    return tokenizer
