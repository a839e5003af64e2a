"""Quick checks of a network in training: the loss bound on held-out batches, and a plain decoder.

The figures that count are measured through `dlm.load(...).generate(...)`; this is what the trainer
looks at on the way.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from bundled_data import EOS, MASK, Batch, corrupt
from torch import Tensor

from dlm.model.decoder import Decoder


@torch.inference_mode()
def validate(net: Decoder, held_out: dict[str, Batch]) -> dict[str, list[float]]:
    """For each task: the loss bound per token and the accuracy on masked tokens (dev split)."""
    result = {}
    for task, batch in held_out.items():
        generator = torch.Generator().manual_seed(1)
        view = corrupt(batch, generator, block_share=0.0, edit_share=0.0)
        logits = net.head(net.dense(view.seen)[view.masked])
        wanted = batch.ids[view.masked]
        errors = F.cross_entropy(logits, wanted, reduction="none") * view.weight[view.masked]
        accuracy = (logits.argmax(-1) == wanted).float().mean()
        result[task] = [
            round(float(errors.sum() / view.response.sum()), 4),
            round(float(accuracy), 3),
        ]
    return result


@torch.inference_mode()
def quick_decode(
    net: Decoder, prompts: list[list[int]], canvas: int, block: int = 8
) -> list[list[int]]:
    """The trainer's quick check: one token a step, most confident first, in blocks, all masks seen.

    Prompts are grouped by length, so that no padding is needed. Returns ids up to the first EOS.
    """
    answers: dict[int, list[int]] = {}
    for length in sorted({len(prompt) for prompt in prompts}):
        rows = [row for row, prompt in enumerate(prompts) if len(prompt) == length]
        ids = torch.tensor([prompts[row] + [MASK] * canvas for row in rows])
        for step in range(canvas):
            end = length + (step // block + 1) * block
            start = end - block
            logits = net.head(net.dense(ids)[:, start:end])  # [B, block, V]
            logits[..., MASK] = -torch.inf
            confidence, token = logits.softmax(-1).max(-1)
            confidence[ids[:, start:end] != MASK] = -1
            best = confidence.argmax(-1, keepdim=True)
            ids.scatter_(1, best + start, token.gather(1, best))
            if step % block == block - 1 and bool((ids[:, length:end] == EOS).any(-1).all()):
                break
        answers |= {row: until_eos(ids[i, length:]) for i, row in enumerate(rows)}
    return [answers[row] for row in range(len(prompts))]


def until_eos(ids: Tensor) -> list[int]:
    """The ids before the first EOS."""
    values = [int(value) for value in ids]
    return values[: values.index(EOS)] if EOS in values else values
