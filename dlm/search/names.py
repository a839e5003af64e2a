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
        "gibbs": "dlm.search.policies.gibbs:Gibbs",
        "lookum": "dlm.search.policies.lookum:LookUM",
        "lopa": "dlm.search.policies.lopa:LoPA",
        "order": "dlm.search.policies.order:Order",
        "self_smc": "dlm.search.policies.smc:SelfSMC",
        "smc": "dlm.search.policies.smc:SMC",
        "tree": "dlm.search.policies.tree:Tree",
        "unmaskfork": "dlm.search.policies.unmaskfork:UnMaskFork",
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
