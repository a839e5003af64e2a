"""The network that `train_bundled.py` trains, the state of a run, and one step of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bundled_data import Batch
from bundled_export import Training
from bundled_muon import Muon
from bundled_objectives import lesson
from torch import nn

from dlm.model.decoder import Decoder
from dlm.model.loading import load_model
from dlm.model.spec import ModelSpec

EMA_DECAY = 0.998
FINAL_DECAY = 0.45  # share of the time over which the learning rate falls to zero


@dataclass
class Run:
    """Everything that a checkpoint holds, and the averaged weights that are exported."""

    net: Decoder
    average: Decoder
    optimizers: list[torch.optim.Optimizer]
    seconds: float = 0.0
    step: int = 0
    tokens: int = 0
    earlier: Training = field(default_factory=Training)
    losses: list[float] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the state; the file is replaced as a whole or not at all."""
        state = {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": [self.seconds, self.step, self.tokens],
            "earlier": [self.earlier.minutes, self.earlier.tokens],
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self, path: Path) -> None:
        """Restore a saved state."""
        state = torch.load(path)
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.seconds, self.step, self.tokens = state["progress"]
        self.earlier = Training(*state["earlier"])

    def start_from(self, folder: Path) -> None:
        """Take what an exported folder has of this network's weights, the first layers of a deeper
        one; what they were trained on counts as earlier.
        """
        found = load_model(folder, device="cpu", dtype="float32").state_dict()
        own = self.net.state_dict()
        shared = {k: v for k, v in found.items() if k in own and own[k].shape == v.shape}
        assert "embedding.weight" in shared, f"{folder} is of another width or vocabulary"
        # What is new adds nothing at first: a layer whose projections into the residual are zero.
        silent = ("attention.out.weight", "mlp.down.weight")
        new = {k: torch.zeros_like(v) for k, v in own.items() if k.endswith(silent)}
        self.net.load_state_dict(new | shared, strict=False)
        self.average.load_state_dict(self.net.state_dict())
        self.earlier = Training.read(folder)

    @property
    def training(self) -> Training:
        """Time and tokens of all sittings."""
        return self.earlier.plus(self.seconds / 60, self.tokens)


def new_run(spec: ModelSpec, seed: int) -> Run:
    """A freshly initialised network with Muon for its matrices and AdamW for the rest."""
    torch.manual_seed(seed)
    net = Decoder(spec)
    matrices, rest = [], []
    for name, parameter in net.named_parameters():
        if parameter.dim() == 2 and not name.startswith(("embedding", "head")):
            into_residual = name.endswith(("out.weight", "down.weight"))
            std = parameter.shape[1] ** -0.5 * (0.5 if into_residual else 1.0)
            nn.init.normal_(parameter, std=std)
            matrices.append(parameter)
        else:
            rest.append(parameter)
    nn.init.normal_(net.embedding.weight, std=0.02)
    muon = Muon(matrices, lr=0.0, weight_decay=0.05)
    adamw = torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)
    return Run(net, copy.deepcopy(net).requires_grad_(False), [muon, adamw])


def learning_rate(peak: float, step: int, done: float) -> float:
    """Warm up over 60 steps, stay, then fall to zero; `done` is the share of the time spent."""
    return peak * min(1.0, (step + 1) / 60) * min(1.0, max(0.0, 1 - done) / FINAL_DECAY)


def train_step(run: Run, hidden: Any, batch: Batch, generator: torch.Generator, lr: float) -> None:
    """One update of the weights and of their average."""
    asked = lesson(run.net.spec, batch, generator)
    states = hidden(asked.seen, asked.mask, asked.positions)[asked.scored]
    errors = F.cross_entropy(run.net.head(states), asked.target[asked.scored], reduction="none")
    loss = (errors * asked.weight[asked.scored]).sum() / asked.count
    loss.backward()
    nn.utils.clip_grad_norm_(run.net.parameters(), 1.0)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    run.step += 1
    run.tokens += batch.ids.numel()
    run.losses.append(loss.item())
    decay = min(EMA_DECAY, run.step / (run.step + 10))
    averages = [parameter.data for parameter in run.average.parameters()]
    torch._foreach_lerp_(averages, [p.data for p in run.net.parameters()], 1 - decay)
