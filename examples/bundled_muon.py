"""Muon in the precision of the weights.

`torch.optim.Muon` orthogonalises in bfloat16, which takes most of a training step on a CPU that has
no such arithmetic. Here all matrices of one shape are orthogonalised together, in float32.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Momentum whose update is replaced by the nearest orthogonal matrix (Jordan et al. 2024).

    The update is scaled to the root mean square of AdamW's (arXiv 2502.16982, section 2.2), so that
    both take the same learning rate. For matrices only.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """One update of all matrices that have a gradient."""
        for group in self.param_groups:
            of_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    of_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, matrices in of_shape.items():
                updates = torch.stack([self._nesterov(m, group["momentum"]) for m in matrices])
                scale = 0.2 * max(shape) ** 0.5
                for matrix, update in zip(matrices, orthogonal(updates), strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(update, alpha=-group["lr"] * scale)

    def _nesterov(self, matrix: nn.Parameter, momentum: float) -> Tensor:
        """The gradient, looked at from where the momentum is going."""
        state, gradient = self.state[matrix], matrix.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum_buffer"], momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """`[n, A, B]`: the singular values of each matrix become about 1 (0.7 to 1.2).

    A quintic Newton-Schulz iteration: x <- a x + (b g + c g g) x, where g = x x'.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
