"""What the trainer looks at on the way: the loss bound on held-out batches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from bundled_data import Batch, corrupt

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
