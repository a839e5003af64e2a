"""The nouns everybody shares. Imported from here, never redefined."""

from dlm.core.blocks import BLOCK_COLUMNS, BlockTable, Level, Phase
from dlm.core.bundle import Parts, is_number
from dlm.core.event import EVENT_VERSION, Event, EventType
from dlm.core.info import ModelInfo
from dlm.core.packing import AttentionGroup, Packed, pack
from dlm.core.parts import (
    ArmedGuide,
    BlockScheduler,
    Budget,
    CacheManager,
    Editor,
    Extender,
    Filler,
    Guide,
    Model,
    Part,
    Scratched,
    StopRule,
    Unmasker,
    bound,
)
from dlm.core.plan import NOTHING, Extra, ForwardPlan, Segment, span
from dlm.core.process import Absorbing, Process, Uniform
from dlm.core.rows import HostRows, Kind, Rows, ScratchSpec
from dlm.core.view import (
    STATISTICS,
    AuxView,
    Frame,
    Progress,
    Proposal,
    StepView,
    Stop,
    Window,
    is_one_of,
)

__all__ = [
    "BLOCK_COLUMNS",
    "EVENT_VERSION",
    "NOTHING",
    "STATISTICS",
    "Absorbing",
    "ArmedGuide",
    "AttentionGroup",
    "AuxView",
    "BlockScheduler",
    "BlockTable",
    "Budget",
    "CacheManager",
    "Editor",
    "Event",
    "EventType",
    "Extender",
    "Extra",
    "Filler",
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
    "Process",
    "Progress",
    "Proposal",
    "Rows",
    "ScratchSpec",
    "Scratched",
    "Segment",
    "StepView",
    "Stop",
    "StopRule",
    "Uniform",
    "Unmasker",
    "Window",
    "bound",
    "is_number",
    "is_one_of",
    "pack",
    "span",
]
