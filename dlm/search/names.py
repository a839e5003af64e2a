"""The registered policies and verifiers: their names for users, and the places of their code."""

from __future__ import annotations

from typing import Final

from dlm.config.spec_strings import GROUP
from dlm.registry import Registry

POLICIES: Final = Registry(
    "search",
    {
        "best_of": "dlm.search.policies.sampling:BestOf",
        "blocks_mh": "dlm.search.policies.metropolis:BlocksMH",
        "feedback": "dlm.search.policies.feedback:Feedback",
        "neighbours": "dlm.search.policies.neighbours:Neighbours",
        "paths": "dlm.search.policies.paths:Paths",
        "prism": "dlm.search.policies.prism:Prism",
        "gibbs": "dlm.search.policies.gibbs:Gibbs",
        "self_smc": "dlm.search.policies.smc:SelfSMC",
        "smc": "dlm.search.policies.smc:SMC",
    },
    GROUP,
)
"""The registered ways to search."""

VERIFIERS: Final = Registry(
    "verifier",
    {
        "causal_lm": "dlm.search.verifiers.causal:CausalLikelihood",
        "confidence": "dlm.search.verifiers.free:Confidence",
        "countdown": "dlm.search.verifiers.rules:Countdown",
        "ensemble": "dlm.search.verifiers.ensemble:Ensemble",
        "exact_answer": "dlm.search.verifiers.oracles:ExactAnswer",
        "hidden_tests": "dlm.search.verifiers.programs:HiddenTests",
        "majority": "dlm.search.verifiers.majority:Majority",
        "path_entropy": "dlm.search.verifiers.free:PathEntropy",
        "path_logprob": "dlm.search.verifiers.free:PathLogprob",
        "pll": "dlm.search.verifiers.itself:PseudoLikelihood",
        "reward_model": "dlm.search.verifiers.reward:RewardModel",
        "rules": "dlm.search.verifiers.rules:TaskRules",
        "self_verify": "dlm.search.verifiers.itself:SelfVerify",
        "sudoku": "dlm.search.verifiers.rules:Sudoku",
        "tests": "dlm.search.verifiers.programs:PublicTests",
    },
    GROUP,
)
"""The registered judges of answers."""
