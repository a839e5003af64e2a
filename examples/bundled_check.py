"""What the trainer looks at: the loss bound on held-out batches, and answers of a causal model."""

from __future__ import annotations

import sentencepiece as spm
import torch
import torch.nn.functional as F
from bundled_data import EOS, Batch, prompt_ids
from bundled_objectives import lesson

from dlm.model.decoder import Decoder


@torch.inference_mode()
def validate(net: Decoder, held_out: dict[str, Batch]) -> dict[str, list[float]]:
    """For each task: the loss bound per token and the accuracy on masked tokens (dev split)."""
    result, device = {}, net.embedding.weight.device
    for task, batch in held_out.items():
        asked = lesson(net.spec, batch, torch.Generator().manual_seed(1), plain=True).to(device)
        states = net.dense(asked.seen, asked.mask, asked.positions)[asked.masked]
        logits, wanted = net.head(states), asked.target[asked.masked]
        errors = F.cross_entropy(logits, wanted, reduction="none") * asked.weight[asked.masked]
        accuracy = (logits.argmax(-1) == wanted).float().mean()
        result[task] = [round(float(errors.sum() / asked.count), 4), round(float(accuracy), 3)]
    return result


@torch.inference_mode()
def go_on_greedily(net: Decoder, pieces: spm.SentencePieceProcessor, prompt: str, most: int) -> str:
    """The answer of an autoregressive model, the likeliest token at a time."""
    ids = prompt_ids(pieces, prompt)
    start = len(ids)
    while len(ids) - start < most:
        at = torch.arange(len(ids))
        states = net.dense(torch.tensor([ids]), at[:, None] >= at[None, :])
        token = int(net.head(states[0, -1]).argmax())
        if token == EOS:
            break
        ids.append(token)
    text: str = pieces.decode(ids[start:])
    return text
