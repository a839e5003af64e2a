"""The network that `train_bundled.py` trains, the state of a run, and one step of it."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bundled_export import Training
from bundled_muon import Muon
from bundled_objectives import Lesson
from torch import Tensor, nn

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
    place: str
    seconds: float = 0.0
    step: int = 0
    tokens: int = 0
    earlier: Training = field(default_factory=Training)
    losses: list[Tensor] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the state; the file is replaced as a whole or not at all."""
        state = {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": [self.seconds, self.step, self.tokens],
            "earlier": asdict(self.earlier),
            "place": self.place,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self, path: Path) -> None:
        """Restore a saved state."""
        state = torch.load(path, map_location="cpu")
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.seconds, self.step, self.tokens = state["progress"]
        self.earlier, self.place = Training(**state["earlier"]), state["place"]

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
        return self.earlier.plus(self.place, self.seconds / 60, self.tokens)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.net.embedding.weight.device


def place_name(device: torch.device) -> str:
    """What a card calls the place of training."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU thread"


def new_run(spec: ModelSpec, seed: int, device: str = "cpu") -> Run:
    """A freshly initialised network with Muon for its matrices and AdamW for the rest."""
    torch.manual_seed(seed)
    net = Decoder(spec).to(device)
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
    average = copy.deepcopy(net).requires_grad_(False)
    return Run(net, average, [muon, adamw], place_name(net.embedding.weight.device))


def learning_rate(peak: float, step: int, done: float) -> float:
    """Warm up over 60 steps, stay, then fall to zero; `done` is the share of the time spent."""
    return peak * min(1.0, (step + 1) / 60) * min(1.0, max(0.0, 1 - done) / FINAL_DECAY)


def train_step(run: Run, hidden: Any, asked: Lesson, lr: float) -> None:
    """One update of the weights and of their average; on a GPU in bfloat16 and without waiting."""
    picked = asked.scored.flatten().nonzero().squeeze(1).to(run.device)
    asked = asked.to(run.device)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.device.type == "cuda"):
        states = hidden(asked.seen, asked.mask, asked.positions)
        logits = run.net.head(states.flatten(0, 1).index_select(0, picked))
        target = asked.target.flatten().index_select(0, picked)
        errors = F.cross_entropy(logits, target, reduction="none")
    loss = (errors * asked.weight.flatten().index_select(0, picked)).sum() / asked.count
    loss.backward()
    nn.utils.clip_grad_norm_(run.net.parameters(), 1.0)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    run.step += 1
    run.tokens += asked.tokens
    run.losses.append(loss.detach())
    decay = min(EMA_DECAY, run.step / (run.step + 10))
    averages = [parameter.data for parameter in run.average.parameters()]
    torch._foreach_lerp_(averages, [p.data for p in run.net.parameters()], 1 - decay)
