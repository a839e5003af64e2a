"""Scoring: log-likelihoods of given texts."""

from dlm.engine.scoring.job import LogLikelihood, ScoringJob
from dlm.engine.scoring.rows import ScoringOptions

__all__ = ["LogLikelihood", "ScoringJob", "ScoringOptions"]
