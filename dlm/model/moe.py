"""Mixture-of-experts feed-forward: router, stacked experts, shared experts.

Two published routers: softmax over all experts, then the top k (Qwen3-MoE, arXiv 2505.09388;
LLaDA-MoE, 2509.24389), and sigmoid scores with a selection bias and group-limited top k
(DeepSeek-V3, arXiv 2412.19437 section 2.1.2; LLaDA2). Every token is routed by itself, so its
result does not depend on its batch mates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlm.model.spec import MoESpec


class MoE(nn.Module):
    """The feed-forward of a sparse layer: `per_token` experts a token, plus the shared ones.

    Weights are stacked: `gate_up [E, 2I, D]`, `down [E, D, I]`. `router [E, D]` and
    `selection_bias [E]` are `FLOAT32`: the loader keeps them so, and scores are float32 always.
    """

    FLOAT32 = ("router", "selection_bias")

    def __init__(self, hidden_size: int, spec: MoESpec) -> None:
        super().__init__()
        self.spec = spec
        inner, shared = spec.intermediate_size, spec.intermediate_size * spec.shared_experts
        self.router = _weight(spec.experts, hidden_size)
        self.gate_up = _weight(spec.experts, 2 * inner, hidden_size)
        self.down = _weight(spec.experts, hidden_size, inner)
        bias = nn.Parameter(torch.zeros(spec.experts), requires_grad=False)
        self.selection_bias = bias if spec.selection_bias else None
        self.shared_gate_up = _weight(2 * shared, hidden_size) if shared else None
        self.shared_down = _weight(hidden_size, shared) if shared else None

    def forward(self, x: Tensor) -> Tensor:
        """`x [T, D]` -> `[T, D]`."""
        weights, experts = self.route(x)
        order = experts.flatten().argsort(stable=True)  # [T k], assignments grouped by expert
        numbers = torch.arange(self.spec.experts, device=x.device)
        assigned = experts.flatten()[order]
        ends = torch.searchsorted(assigned, numbers, right=True, out_int32=True)  # [E]
        grouped = x.is_cuda and x.dtype == torch.bfloat16
        run = self._run_grouped if grouped else self._run_each
        by_expert = run(x[order // self.spec.per_token], ends)  # [T k, D]
        by_token = torch.empty_like(by_expert)
        by_token[order] = by_expert
        outputs = by_token.view(*experts.shape, x.shape[-1]).float()  # [T, k, D]
        out = (outputs * weights.unsqueeze(-1)).sum(dim=1).to(x.dtype)
        if self.shared_gate_up is not None and self.shared_down is not None:
            out = out + F.linear(_swiglu(F.linear(x, self.shared_gate_up)), self.shared_down)
        return out

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`x [T, D]` -> weights `[T, k]` in float32 and expert indices `[T, k]`.

        Bias and groups decide only who is selected; the weights come from the plain scores.
        """
        logits = F.linear(x.float(), self.router.float())  # [T, E]
        scores = logits.sigmoid() if self.spec.score == "sigmoid" else logits.softmax(dim=-1)
        rank = scores if self.selection_bias is None else scores + self.selection_bias.float()
        experts = self._within_groups(rank).topk(self.spec.per_token, dim=-1).indices
        weights = scores.gather(-1, experts)
        if self.spec.normalize:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return weights * self.spec.scale, experts

    def _within_groups(self, rank: Tensor) -> Tensor:
        """Rule out all but the `groups_kept` best groups; a group counts its two best experts."""
        if self.spec.groups == 1:
            return rank
        size = self.spec.experts // self.spec.groups
        grouped = rank.view(-1, self.spec.groups, size)  # [T, groups, E / groups]
        best = grouped.topk(min(2, size), dim=-1).values.sum(dim=-1)  # [T, groups]
        kept = best.topk(self.spec.groups_kept, dim=-1).indices
        dropped = torch.ones_like(best, dtype=torch.bool).scatter(-1, kept, False)
        return grouped.masked_fill(dropped.unsqueeze(-1), -torch.inf).flatten(-2)

    def _run_each(self, x: Tensor, ends: Tensor) -> Tensor:
        """`x [T k, D]` by expert, `ends [E]` -> `[T k, D]`: a product for each expert hit."""
        out, start = torch.empty_like(x), 0
        for expert, end in enumerate(ends.tolist()):
            if end > start:
                hidden = _swiglu(F.linear(x[start:end], self.gate_up[expert]))
                out[start:end] = F.linear(hidden, self.down[expert])
            start = end
        return out

    def _run_grouped(self, x: Tensor, ends: Tensor) -> Tensor:
        """As `_run_each` in two grouped products: no host sync; for bfloat16 on CUDA (SM80)."""
        hidden = _swiglu(F.grouped_mm(x, self.gate_up.transpose(1, 2), offs=ends))
        out: Tensor = F.grouped_mm(hidden, self.down.transpose(1, 2), offs=ends)
        return out


def _swiglu(gate_up: Tensor) -> Tensor:
    """`[..., 2I]` -> `[..., I]`."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def _weight(*shape: int) -> nn.Parameter:
    """A weight with the uniform init of `nn.Linear`: bound 1 / sqrt(fan in)."""
    bound = shape[-1] ** -0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
