"""`dlm` decodes diffusion language models.

`dlm.load()` gives an `Engine`; `engine.generate(prompt)` answers, `engine.stream(prompt)` tells
how. Names are imported when they are first used: `import dlm` alone does not load torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dlm.config import FIELDS, KINDS, PRESETS, GenerationConfig, StopString
    from dlm.core import (
        BlockScheduler,
        Budget,
        CacheManager,
        EarlyCommit,
        Editor,
        Event,
        Guide,
        HostCanvas,
        Kind,
        ModelInfo,
        Part,
        Proposal,
        StepView,
        StopRule,
        Unmasker,
        replay,
    )
    from dlm.engine.async_engine import AsyncEngine
    from dlm.engine.async_request import AsyncRequest, AsyncStream
    from dlm.engine.async_search import AsyncSearch
    from dlm.engine.autoregressive import CausalEngine
    from dlm.engine.decisions import (
        Answer,
        Choice,
        ChoiceAnswer,
        DecisionCosts,
        DecisionOptions,
        Decisions,
        Level,
        Option,
        Predicate,
        PredicateAnswer,
        Question,
        QuestionTemplate,
        Score,
        ScoreAnswer,
        question_of,
    )
    from dlm.engine.engine import Engine
    from dlm.engine.generation import Generation
    from dlm.engine.load import (
        Inspection,
        bundled_names,
        inspect,
        load,
        load_causal,
        trained_canvas,
    )
    from dlm.engine.node import Node
    from dlm.engine.readers import DeltaReader, SnapshotReader
    from dlm.engine.request import Request, Stream
    from dlm.engine.scoring import LogLikelihood, ScoringJob, ScoringOptions
    from dlm.engine.search_job import SearchJob
    from dlm.engine.searching import (
        Candidate,
        Improvement,
        SearchCosts,
        SearchOptions,
        SearchResult,
        TreeNode,
    )
    from dlm.engine.stats import Stats
    from dlm.errors import (
        CheckpointError,
        DlmError,
        EngineError,
        Interrupted,
        InvalidRequest,
        RuleError,
        Unavailable,
    )
    from dlm.search.policy import Policy
    from dlm.search.verifier import Verdict, Verifier
    from dlm.text import IncrementalDecoder, Text
    from dlm.unmasking.edit.anchored import Anchored
    from dlm.unmasking.edit.rewards import HardDraft, SoftDraft
    from dlm.unmasking.edit.tilts import CandidateReward, GradientReward

__version__ = "0.1.0"

__all__ = [
    "FIELDS",
    "KINDS",
    "PRESETS",
    "Anchored",
    "Answer",
    "AsyncEngine",
    "AsyncRequest",
    "AsyncSearch",
    "AsyncStream",
    "BlockScheduler",
    "Budget",
    "CacheManager",
    "Candidate",
    "CandidateReward",
    "CausalEngine",
    "CheckpointError",
    "Choice",
    "ChoiceAnswer",
    "DecisionCosts",
    "DecisionOptions",
    "Decisions",
    "DeltaReader",
    "DlmError",
    "EarlyCommit",
    "Editor",
    "Engine",
    "EngineError",
    "Event",
    "Generation",
    "GenerationConfig",
    "GradientReward",
    "Guide",
    "HardDraft",
    "HostCanvas",
    "Improvement",
    "IncrementalDecoder",
    "Inspection",
    "Interrupted",
    "InvalidRequest",
    "Kind",
    "Level",
    "LogLikelihood",
    "ModelInfo",
    "Node",
    "Option",
    "Part",
    "Policy",
    "Predicate",
    "PredicateAnswer",
    "Proposal",
    "Question",
    "QuestionTemplate",
    "Request",
    "RuleError",
    "Score",
    "ScoreAnswer",
    "ScoringJob",
    "ScoringOptions",
    "SearchCosts",
    "SearchJob",
    "SearchOptions",
    "SearchResult",
    "SnapshotReader",
    "SoftDraft",
    "Stats",
    "StepView",
    "StopRule",
    "StopString",
    "Stream",
    "Text",
    "TreeNode",
    "Unavailable",
    "Unmasker",
    "Verdict",
    "Verifier",
    "__version__",
    "bundled_names",
    "inspect",
    "load",
    "load_causal",
    "question_of",
    "replay",
    "trained_canvas",
]

_HOMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "BlockScheduler": "dlm.core",
        "CacheManager": "dlm.core",
        "Editor": "dlm.core",
        "Guide": "dlm.core",
        "StopRule": "dlm.core",
        "Unmasker": "dlm.core",
        "Budget": "dlm.core",
        "Anchored": "dlm.unmasking.edit.anchored",
        "CandidateReward": "dlm.unmasking.edit.tilts",
        "GradientReward": "dlm.unmasking.edit.tilts",
        "HardDraft": "dlm.unmasking.edit.rewards",
        "SoftDraft": "dlm.unmasking.edit.rewards",
        "EarlyCommit": "dlm.core",
        "Part": "dlm.core",
        "FIELDS": "dlm.config",
        "KINDS": "dlm.config",
        "PRESETS": "dlm.config",
        "AsyncEngine": "dlm.engine.async_engine",
        "AsyncRequest": "dlm.engine.async_request",
        "AsyncStream": "dlm.engine.async_request",
        "CausalEngine": "dlm.engine.autoregressive",
        "Answer": "dlm.engine.decisions",
        "Question": "dlm.engine.decisions",
        "Choice": "dlm.engine.decisions",
        "ChoiceAnswer": "dlm.engine.decisions",
        "DecisionCosts": "dlm.engine.decisions",
        "DecisionOptions": "dlm.engine.decisions",
        "Decisions": "dlm.engine.decisions",
        "Level": "dlm.engine.decisions",
        "Option": "dlm.engine.decisions",
        "Predicate": "dlm.engine.decisions",
        "PredicateAnswer": "dlm.engine.decisions",
        "QuestionTemplate": "dlm.engine.decisions",
        "Score": "dlm.engine.decisions",
        "ScoreAnswer": "dlm.engine.decisions",
        "CheckpointError": "dlm.errors",
        "DeltaReader": "dlm.engine.readers",
        "DlmError": "dlm.errors",
        "Engine": "dlm.engine.engine",
        "EngineError": "dlm.errors",
        "Event": "dlm.core",
        "Generation": "dlm.engine.generation",
        "GenerationConfig": "dlm.config",
        "HostCanvas": "dlm.core",
        "IncrementalDecoder": "dlm.text",
        "Inspection": "dlm.engine.load",
        "Interrupted": "dlm.errors",
        "InvalidRequest": "dlm.errors",
        "Kind": "dlm.core",
        "ModelInfo": "dlm.core",
        "LogLikelihood": "dlm.engine.scoring",
        "Node": "dlm.engine.node",
        "Proposal": "dlm.core",
        "Request": "dlm.engine.request",
        "RuleError": "dlm.errors",
        "ScoringJob": "dlm.engine.scoring",
        "ScoringOptions": "dlm.engine.scoring",
        "SnapshotReader": "dlm.engine.readers",
        "Stats": "dlm.engine.stats",
        "StepView": "dlm.core",
        "StopString": "dlm.config",
        "Stream": "dlm.engine.request",
        "Text": "dlm.text",
        "Unavailable": "dlm.errors",
        "AsyncSearch": "dlm.engine.async_search",
        "Candidate": "dlm.engine.searching",
        "Improvement": "dlm.engine.searching",
        "SearchCosts": "dlm.engine.searching",
        "SearchJob": "dlm.engine.search_job",
        "SearchOptions": "dlm.engine.searching",
        "SearchResult": "dlm.engine.searching",
        "TreeNode": "dlm.engine.searching",
        "Policy": "dlm.search.policy",
        "Verdict": "dlm.search.verifier",
        "Verifier": "dlm.search.verifier",
        "bundled_names": "dlm.engine.load",
        "inspect": "dlm.engine.load",
        "load": "dlm.engine.load",
        "load_causal": "dlm.engine.load",
        "question_of": "dlm.engine.decisions",
        "replay": "dlm.core",
        "trained_canvas": "dlm.engine.load",
    }
)


def __getattr__(name: str) -> Any:
    """Import a public name from its room."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dlm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
