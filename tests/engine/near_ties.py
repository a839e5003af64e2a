"""Comparing what two runs of one row did: they may part at a near-tie, and only there.

Kernels of different shapes round differently, so a batch may take the other side where two choices
are closer than 1e-4. That is told by trying: small noise on the logits then changes the run, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlm.core import Packed
from dlm.model.decoder import Decoder
from dlm.model.kv import KVPool
from tests.engine.harness import Bench

NEAR = 1e-4
TRIES = 30


class Noisy(Bench):
    """A bench whose logits are off by less than `NEAR`."""

    def __init__(self, decoder: Decoder, delimiters: tuple[int, ...], seed: int) -> None:
        super().__init__(decoder, delimiters)
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, packed: Packed, kv: KVPool) -> Tensor:
        logits = super().__call__(packed, kv)
        return logits + NEAR * (2 * torch.rand(logits.shape, generator=self.generator) - 1)


def parting(ours: Sequence[Any], theirs: Sequence[Any]) -> int | None:
    """The first step in which two runs differ, or None."""
    for step, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return step
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs))


class Comparison:
    """Counts the runs that were compared, and those that part at a near-tie."""

    def __init__(self, delimiters: tuple[int, ...]) -> None:
        self.delimiters = delimiters
        self.counts: Counter[str] = Counter()

    def same(
        self,
        decoder: Decoder,
        request: Mapping[str, Any],
        ours: Sequence[Any],
        theirs: Sequence[Any],
    ) -> None:
        """Two lists of canvases are the same, or differ from a near-tie on; `request` alone on
        `decoder` gives the second.
        """
        self.counts["all"] += 1
        step = parting(ours, theirs)
        if step is not None:
            assert self._is_near_tie(decoder, request, theirs, step), f"step {step} differs"
            self.counts["near-ties"] += 1

    def close(self) -> None:
        """At the most 1 in 500."""
        assert self.counts["near-ties"] <= 1 + self.counts["all"] // 500

    def _is_near_tie(
        self, decoder: Decoder, request: Mapping[str, Any], canvases: Sequence[Any], step: int
    ) -> bool:
        for seed in range(TRIES):
            bench = Noisy(decoder, self.delimiters, seed)
            (trace,) = bench.run(bench.state(**request))
            parted = parting(trace.canvases, canvases)
            if parted is not None and parted <= step:
                return True
        return False
