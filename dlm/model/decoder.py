"""One decoder for every dense family.

Pre-norm RMSNorm, RoPE (half-split), SwiGLU, fused projections.

The layer loop does not know how attention finds its keys: it hands (layer, q, k, v) to an `Attend`
callable. `forward` attends through the paged store (`attention.PackedAttend`), `dense` attends
inside a plain padded batch (training, reference logits). Both run the same layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlm.model.attention import Attend, DenseAttend, PackedAttend, kernels
from dlm.model.moe import MoE
from dlm.model.rotary import Rotary
from dlm.model.spec import ModelSpec

if TYPE_CHECKING:
    from dlm.core import Packed
    from dlm.model.kv_store import KVStore


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """`x [..., D]` -> `[..., D]` in the dtype of `x`."""
        wide = F.rms_norm(x.float(), x.shape[-1:], eps=self.eps)
        return wide.to(x.dtype) * self.weight


class Embedding(nn.Embedding):
    """`nn.Embedding`, which draws no weights without memory.

    Torch draws normal numbers on the meta device by code whose import takes a second.
    """

    def reset_parameters(self) -> None:
        """Draw the weights, where there are any."""
        if not self.weight.is_meta:
            super().reset_parameters()


class Attention(nn.Module):
    """Self-attention of one layer; `attend` finds the keys.

    Fused q/k/v projection, optional per-head norm, rotation, `attend`, output projection.
    """

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.kv_heads = layer, spec.heads, spec.kv_heads
        self.head_dim, self.rotary_dim = spec.head_dim, spec.rotary_dim or spec.head_dim
        width = (spec.heads + 2 * spec.kv_heads) * spec.head_dim
        self.qkv = nn.Linear(spec.hidden_size, width, bias=spec.qkv_bias)
        self.out = nn.Linear(spec.heads * spec.head_dim, spec.hidden_size, bias=False)
        self.q_norm = RMSNorm(spec.head_dim, spec.norm_eps) if spec.qk_norm else None
        self.k_norm = RMSNorm(spec.head_dim, spec.norm_eps) if spec.qk_norm else None

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        """`x [T, D]` -> `[T, D]`."""
        # [T, H + 2 Hkv, Dh]
        fused = self.qkv(x).view(-1, self.heads + 2 * self.kv_heads, self.head_dim)
        qk, v = fused.split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split((self.heads, self.kv_heads), dim=1)
            qk = torch.cat((self.q_norm(q), self.k_norm(k)), dim=1)
        q, k = self._rotate(qk, *rotation).split((self.heads, self.kv_heads), dim=1)
        mixed: Tensor = self.out(attend(self.layer, q, k, v))
        return mixed

    def _rotate(self, x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
        """Rotate the first `rotary_dim` dims of each head.

        `x [T, h, Dh]`, tables `[T, 1, rotary_dim]`.
        """
        turned, rest = x.split((self.rotary_dim, self.head_dim - self.rotary_dim), dim=-1)
        first, second = turned.chunk(2, dim=-1)
        swapped = torch.cat((second, first), dim=-1)
        turned = torch.addcmul(turned * cos, swapped, signed_sin).to(x.dtype)
        return turned if rest.shape[-1] == 0 else torch.cat((turned, rest), dim=-1)


class MLP(nn.Module):
    """SwiGLU feed-forward with gate and up projections fused."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.down = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x [..., D]` -> `[..., D]`."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        mixed: Tensor = self.down(F.silu(gate) * up)
        return mixed


class Layer(nn.Module):
    """Attention and feed-forward, each after a norm and added to the residual stream."""

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(spec.hidden_size, spec.norm_eps)
        self.attention = Attention(spec, layer)
        self.mlp_norm = RMSNorm(spec.hidden_size, spec.norm_eps)
        if spec.moe is not None and spec.is_moe(layer):
            self.mlp: nn.Module = MoE(spec.hidden_size, spec.moe)
        else:
            self.mlp = MLP(spec.hidden_size, spec.intermediate_size)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        """`x [T, D]` -> `[T, D]`."""
        x = x + self.attention(self.attention_norm(x), rotation, attend)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class Decoder(nn.Module):
    """ids -> logits. Knows nothing of masks, blocks or decoding."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.rotary = Rotary(spec)
        self.embedding = Embedding(spec.vocab_size, spec.hidden_size)
        self.layers = nn.ModuleList(Layer(spec, i) for i in range(spec.layers))
        self.norm = RMSNorm(spec.hidden_size, spec.norm_eps)
        self.head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)
        if spec.tied_head:
            self.head.weight = self.embedding.weight

    def forward(self, packed: Packed, kv: KVStore) -> Tensor:
        """Packed queries -> `logits [N, V]` in float32, one row for each of `packed.logit_rows`."""
        return self.logits_of(self.hidden(packed, kv))

    def hidden(self, packed: Packed, kv: KVStore) -> Tensor:
        """Packed queries -> normed hidden states `[N, D]` of `packed.logit_rows`."""
        with kernels(packed):
            turns = self.rotary.tables(packed.positions, packed.lengths)
            hidden = self._run(self.embedding(packed.ids), turns, PackedAttend(packed, kv))
        out: Tensor = self.norm(hidden.index_select(0, packed.logit_rows))
        return out

    def logits_of(self, hidden: Tensor) -> Tensor:
        """Normed hidden states `[N, D]` -> `logits [N, V]` in float32."""
        logits: Tensor = self.head(hidden)
        return logits.float()

    def dense(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        lengths: Tensor | None = None,
        inputs: Tensor | None = None,
    ) -> Tensor:
        """Plain batch `ids [B, L]` -> normed hidden states `[B, L, D]`.

        `inputs [B, L, D]`: embeddings in place of those of the ids; gradients flow through them.
        `mask` is boolean, True where a query may look, and broadcasts to `[B, H, L, L]`; None is
        full attention. `positions [L]`: those of the tokens of each row; None is in order.
        `lengths [B]`: the length of each row's text; None is `L`.
        """
        batch, length = ids.shape
        if positions is None:
            positions = torch.arange(length, device=ids.device)
        if lengths is None:
            lengths = torch.full((batch,), length, device=ids.device)
        turns = self.rotary.tables(positions.repeat(batch), lengths.repeat_interleave(length))
        x = self.embedding(ids) if inputs is None else inputs
        hidden = self._run(x.flatten(0, 1), turns, DenseAttend(batch, mask))
        out: Tensor = self.norm(hidden).view(batch, length, -1)
        return out

    def _run(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        """The layer loop: embeddings `x [T, D]` and the rotary tables of their positions -> hidden
        states `[T, D]` before the final norm.
        """
        for layer in self.layers:
            x = layer(x, rotation, attend)
        return x
