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
        "confidence": "dlm.search.verifiers.free:Confidence",
    },
    GROUP,
)
"""The registered judges of answers."""
