"""The registered policies and verifiers: their names for users, and the places of their code."""

from __future__ import annotations

from typing import Final

from dlm.config.spec_strings import GROUP
from dlm.registry import Registry

POLICIES: Final = Registry(
    "search",
    {
        "beam": "dlm.search.policies.beam:Beam",
        "best_of": "dlm.search.policies.sampling:BestOf",
        "blocks_mh": "dlm.search.policies.metropolis:BlocksMH",
        "cascade": "dlm.search.policies.wrappers:Cascade",
        "feedback": "dlm.search.policies.feedback:Feedback",
        "gibbs": "dlm.search.policies.gibbs:Gibbs",
        "hex": "dlm.search.policies.voting:Hex",
        "lookum": "dlm.search.policies.lookum:LookUM",
        "lopa": "dlm.search.policies.lopa:LoPA",
        "neighbours": "dlm.search.policies.neighbours:Neighbours",
        "order": "dlm.search.policies.order:Order",
        "paths": "dlm.search.policies.paths:Paths",
        "prism": "dlm.search.policies.prism:Prism",
        "rollover": "dlm.search.policies.wrappers:Rollover",
        "seeds": "dlm.search.policies.sampling:Seeds",
        "self_smc": "dlm.search.policies.smc:SelfSMC",
        "shortlist": "dlm.search.policies.shortlist:Shortlist",
        "smc": "dlm.search.policies.smc:SMC",
        "temporal_vote": "dlm.search.policies.voting:TemporalVote",
        "tree": "dlm.search.policies.tree:Tree",
        "unmaskfork": "dlm.search.policies.unmaskfork:UnMaskFork",
        "vote": "dlm.search.policies.voting:Vote",
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


def called(part: object) -> str:
    """The name that users give to a policy or verifier; that of its class if it has none."""
    cls = type(part)
    path = f"{cls.__module__}:{cls.__qualname__}"
    known = (*POLICIES.entries.items(), *VERIFIERS.entries.items())
    return next((name for name, place in known if place == path), cls.__name__)
