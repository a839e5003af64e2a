"""Particle Gibbs: a Markov chain over whole ways of decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from dlm.config.checks import require_integer
from dlm.search.policies.particles import Particle, drawn
from dlm.search.policies.smc import SMC
from dlm.search.policy import Context
from dlm.search.work import Drop, Run


@dataclass(frozen=True, slots=True)
class Gibbs(SMC):
    """`gibbs(n, sweeps=...)`: repeat `smc` with the way of the last answer among its rows.

    Each sweep draws one of its rows by their weights; in the next one the states that this row
    went through take a slot and are never lost, and the others may fork from them. So the target
    `p(x) exp(lam * score(x))` is left as it is by every sweep, with as few as two rows. Particle
    Gibbs for discrete diffusion (PG-DLM, arXiv 2507.08390); the paper finds more sweeps of few rows
    better than more rows. A sweep after the first costs n - 1 rows.

    Resampling is multinomial, as the proof of invariance asks for (Andrieu et al. 2010).

    n, segments, ess, pick, potential, lam, lookahead, guesses: as in `smc`
    sweeps: runs, the first one included
    """

    n: int = 4
    ess: float = 1.0
    sweeps: int = 4

    parks = True

    def __post_init__(self) -> None:
        SMC.__post_init__(self)
        require_integer("n", self.n, 2)

    def run(self, search: Context) -> Run:
        """See `Policy`."""
        reference: list[Particle] = []
        for sweep in range(self.sweeps):
            cloud = yield from self.filtered(search, reference, sweep)
            if self.settled(search):
                break
            reference = lineage(drawn(cloud, search.rng("reference", sweep)))
            kept = {one.node.number for one in reference}
            yield [Drop(node) for node in cloud.nodes if node.number not in kept]
        return search.best if self.pick == "best" else reference[-1].answer

    def ancestors(self, weights: Sequence[float], rng: Random, *, pinned: bool) -> list[int]:
        """See `Particles`: independent draws; the reference goes on from itself."""
        found = rng.choices(range(self.n), weights, k=self.n)
        return [0, *found[1:]] if pinned else found


def lineage(last: Particle) -> list[Particle]:
    """A particle at all points that it went through, from the first to its end."""
    found = [last]
    while (earlier := found[-1].past) is not None:
        found.append(earlier)
    return found[::-1]
