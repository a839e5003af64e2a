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
                updates = orthogonal(torch.stack(self._nesterov(matrices, group["momentum"])))
                scale = 0.2 * max(shape) ** 0.5
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(matrices, updates.unbind(), alpha=-group["lr"] * scale)

    def _nesterov(self, matrices: list[nn.Parameter], momentum: float) -> tuple[Tensor, ...]:
        """The gradients, looked at from where their momenta are going."""
        gradients = [matrix.grad for matrix in matrices]
        for matrix in matrices:
            if "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        momenta = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        return torch._foreach_lerp(gradients, momenta, momentum)


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
