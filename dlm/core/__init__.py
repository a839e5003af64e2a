"""The nouns everybody shares. Imported from here, never redefined."""

from dlm.core.blocks import BLOCK_COLUMNS, BlockTable, Level, Phase
from dlm.core.canvas import HostCanvas, replay
from dlm.core.event import EVENT_VERSION, Event, EventType
from dlm.core.guide import Guide
from dlm.core.info import ModelInfo
from dlm.core.packed import AttentionGroup, Packed, RaggedGroup, Shared
from dlm.core.parts import Parts, is_number
from dlm.core.plan import (
    INT64_MAX,
    NO_POSITIONS,
    Extra,
    Flags,
    ForwardPlan,
    Ints,
    Segment,
    SharedPrefix,
    span,
)
from dlm.core.process import Absorbing, Process, Uniform
from dlm.core.proposal import Entries, Fill, Guided, Progress, Proposal, Stop, is_one_of
from dlm.core.protocols import (
    BlockScheduler,
    Budget,
    CacheManager,
    EarlyCommit,
    Editor,
    Model,
    Part,
    Scheduled,
    StopRule,
    Unmasker,
    bound,
    missing_members,
)
from dlm.core.rows import HostRows, Kind, Rows, ScratchSpec
from dlm.core.view import (
    MIN_LOGIT,
    STATISTICS,
    AuxView,
    Frame,
    LastCommit,
    RowInfo,
    SamplingStats,
    Statistics,
    StepView,
)
from dlm.core.window import Window

__all__ = [
    "BLOCK_COLUMNS",
    "EVENT_VERSION",
    "INT64_MAX",
    "MIN_LOGIT",
    "NO_POSITIONS",
    "STATISTICS",
    "Absorbing",
    "AttentionGroup",
    "AuxView",
    "BlockScheduler",
    "BlockTable",
    "Budget",
    "CacheManager",
    "EarlyCommit",
    "Editor",
    "Entries",
    "Event",
    "EventType",
    "Extra",
    "Fill",
    "Flags",
    "ForwardPlan",
    "Frame",
    "Guide",
    "Guided",
    "HostCanvas",
    "HostRows",
    "Ints",
    "Kind",
    "LastCommit",
    "Level",
    "Model",
    "ModelInfo",
    "Packed",
    "Part",
    "Parts",
    "Phase",
    "Process",
    "Progress",
    "Proposal",
    "RaggedGroup",
    "RowInfo",
    "Rows",
    "SamplingStats",
    "Scheduled",
    "ScratchSpec",
    "Segment",
    "Shared",
    "SharedPrefix",
    "Statistics",
    "StepView",
    "Stop",
    "StopRule",
    "Uniform",
    "Unmasker",
    "Window",
    "bound",
    "is_number",
    "is_one_of",
    "missing_members",
    "replay",
    "span",
]
