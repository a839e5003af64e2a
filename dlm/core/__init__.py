"""The nouns everybody shares. Imported from here, never redefined."""

from dlm.core.blocks import BLOCK_COLUMNS, BlockTable, Level, Phase
from dlm.core.bundle import Parts, is_number
from dlm.core.event import EVENT_VERSION, Event, EventType
from dlm.core.info import ModelInfo
from dlm.core.parts import (
    ArmedGuide,
    BlockScheduler,
    CacheManager,
    Editor,
    Guide,
    Model,
    Part,
    Scratched,
    StopRule,
    Unmasker,
)
from dlm.core.plan import NOTHING, AttentionGroup, ForwardPlan, Packed, Segment, pack, span
from dlm.core.rows import HostRows, Kind, Rows, ScratchSpec
from dlm.core.view import Frame, Progress, Proposal, StepView, Stop, Window, first_true, is_one_of

__all__ = [
    "BLOCK_COLUMNS",
    "EVENT_VERSION",
    "NOTHING",
    "ArmedGuide",
    "AttentionGroup",
    "BlockScheduler",
    "BlockTable",
    "CacheManager",
    "Editor",
    "Event",
    "EventType",
    "ForwardPlan",
    "Frame",
    "Guide",
    "HostRows",
    "Kind",
    "Level",
    "Model",
    "ModelInfo",
    "Packed",
    "Part",
    "Parts",
    "Phase",
    "Progress",
    "Proposal",
    "Rows",
    "ScratchSpec",
    "Scratched",
    "Segment",
    "StepView",
    "Stop",
    "StopRule",
    "Unmasker",
    "Window",
    "first_true",
    "is_number",
    "is_one_of",
    "pack",
    "span",
]
