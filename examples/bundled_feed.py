"""Endless lessons for `train_bundled.py`, made in this process or in several others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sentencepiece as spm
import torch
from bundled_data import batches
from bundled_objectives import Lesson, lesson
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from dlm.model.spec import ModelSpec

APART = 1_000_003  # between the seeds of two processes: far more than a run has steps


@dataclass(frozen=True)
class Lessons(IterableDataset[Lesson]):
    """What one process makes: each its own problems. `emphasis`: see `batches`."""

    spec: ModelSpec
    pieces: spm.SentencePieceProcessor
    seed: int
    tokens: int
    emphasis: Mapping[str, float]

    def __iter__(self) -> Iterator[Lesson]:
        worker = get_worker_info()
        seed = self.seed + APART * (worker.id if worker else 0)
        generator = torch.Generator().manual_seed(seed)
        drawn = batches(self.pieces, seed, tokens=self.tokens, emphasis=self.emphasis)
        return (lesson(self.spec, batch, generator) for batch in drawn)


def feed(lessons: Lessons, workers: int, *, pinned: bool) -> Iterator[Lesson]:
    """Lessons from `workers` processes in turn; from this one when there are none."""
    loader = DataLoader(lessons, batch_size=None, num_workers=workers, pin_memory=pinned)
    return iter(loader)
