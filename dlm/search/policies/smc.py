"""Sequential Monte Carlo towards a distribution tilted by scores, or by the model's likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan
from typing import Literal

from dlm.config.checks import require_integer, require_number
from dlm.search.policies.particles import Particle, Particles
from dlm.search.work import Complete, Run, Score


@dataclass(frozen=True, slots=True)
class SMC(Particles):
    """`smc(n, lam=...)`: Feynman-Kac steering towards `p(x) exp(lam * score(x))`.

    Rows are weighed by the score of the answer that they would be, filled as they stand, and
    resampled. Feynman-Kac Diffusion Steering (arXiv 2501.06848), section 3, with its three
    potentials; whatever they were on the way, the last one makes their product `exp(lam * score)`.

    The reference weighs the end by `exp(lam * R)` with R the highest or summed score, starts that
    maximum at 0 (scores below it do nothing), forgets weights when it does not resample, and
    resamples multinomially; here the weights are exact and the resampling is systematic.

    n: rows
    segments: parts of the answer, by the share that is open; rows are weighed at the end of each
        (0: at the end of every block)
    ess: rows are resampled where the effective number of them is below this share of n
    pick: the answer: `best` has the highest score, `draw` is drawn by the weights from the rows of
        the last sweep, as a sample of the target
    sweeps: independent runs one after the other, until the search is settled
    potential: of a row with the scores r_1 ... r_t so far: `difference` exp(lam (r_t - r_{t-1})),
        `max` exp(lam max r), `sum` exp(lam sum r)
    lam: the strength of the score
    lookahead: forwards that fill a row for its score; 0 takes the tokens of its last step
    guesses: rows that were filled for their scores are answers of the search, too: right where the
        verifier checks answers, not where it rates them by likelihood
    """

    potential: Literal["difference", "max", "sum"] = "difference"
    lam: float = 10.0
    lookahead: int = 0
    guesses: bool = False

    tier = "T2"

    def __post_init__(self) -> None:
        Particles.__post_init__(self)
        require_number("lam", self.lam, low=0.0)
        require_integer("lookahead", self.lookahead, 0)

    def weigh(self, swarm: Sequence[Particle]) -> Run:
        """See `Particles`."""
        rows = [one.node for one in swarm if one.answer is None]
        filled = yield [Complete(node, self.lookahead) for node in rows]
        guesses = iter((yield [Score(rows, filled, keep=self.guesses)])[0] if rows else ())
        return [self._weighed(one, (one.answer or next(guesses)).score) for one in swarm]

    def _weighed(self, one: Particle, score: float) -> Particle:
        """A particle with its next potential; a guess that nobody could judge changes nothing."""
        if one.answer is not None:
            return one.given(self.lam * score - one.paid)
        if score == -inf or isnan(score):
            return one.given(0.0, one.state)
        match self.potential:
            case "difference":
                return one.given(self.lam * score - one.paid)
            case "max":
                highest = score if one.state is None else max(one.state, score)
                return one.given(self.lam * highest, highest)
            case "sum":
                total = (one.state or 0.0) + score
                return one.given(self.lam * total, total)


@dataclass(frozen=True, slots=True)
class SelfSMC(Particles):
    """`self_smc(n, alpha=...)`: sequential Monte Carlo towards `p(x)^alpha`, without a verifier.

    A row's weight grows by `alpha log p - log q` for each token that it commits: p is the model at
    temperature 1, q the distribution that the token was drawn from. Self-Rewarding SMC (arXiv
    2602.01849) adds `log p` whatever the temperature, which is `alpha = 2` at temperature 1 alone.
    It takes the row with the highest likelihood, as `best` does with the verifier `confidence`.

    Exact where the rule that picks positions does not look at the tokens drawn there (`left`,
    `random`, `entropy`, thresholds on the model's certainty) and commits one at a time; otherwise p
    and q are those of the decoder's steps.

    n, segments, ess, pick, sweeps: as in `smc`; the paper resamples at the end of blocks
        (`segments=0`)
    alpha: the exponent
    """

    alpha: float = 2.0

    tier = "T2"

    def __post_init__(self) -> None:
        Particles.__post_init__(self)
        require_number("alpha", self.alpha, low=0.0)

    def weigh(self, swarm: Sequence[Particle]) -> Run:
        """See `Particles`."""
        return [one.given(self._log_weight(one) - one.paid) for one in swarm]
        yield

    def _log_weight(self, one: Particle) -> float:
        """`alpha log p - log q` of all that a row has drawn."""
        drawn = zip(one.node.logprobs, one.node.proposal_logprobs, strict=True)
        return sum(self.alpha * p - q for p, q in drawn if not (isnan(p) or isnan(q)))
