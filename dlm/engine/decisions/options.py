"""`DecisionOptions`: how questions are put and their labels scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, Self

from dlm.config.checks import require_integer, require_number
from dlm.engine.decisions.questions import MOST_CHOICES
from dlm.engine.decisions.template import QuestionTemplate
from dlm.errors import InvalidRequest, shown, unknown_name

Scoring = Literal["chain", "pseudo", "first"]
SCORINGS: Final = ("chain", "pseudo", "first")
COLDEST: Final = 1e-3


@dataclass(frozen=True, slots=True)
class DecisionOptions:
    """Options of `Engine.decide`.

    joint: put all questions on one canvas, where they see each other's holes; else each has its
        own, and neither the order of the questions nor their company matters
    rotations: average over this many orders in which options are listed, at most as many as an
        order has; levels of scores have one order
    temperature: of the distribution over the labels
    template: the words around input, questions and holes
    scoring: of labels of several tokens: `chain`, the probability of all their tokens; `pseudo`,
        that of each among the others; `first`, that of the first ones, which must differ
    """

    joint: bool = False
    rotations: int = 1
    temperature: float = 1.0
    template: QuestionTemplate = field(default_factory=QuestionTemplate)
    scoring: Scoring = "chain"

    def __post_init__(self) -> None:
        """Raises `InvalidRequest` for a wrong value."""
        if not isinstance(self.joint, bool):
            raise InvalidRequest("joint", f"must be True or False, got {shown(self.joint)}")
        require_integer("rotations", self.rotations, 1, MOST_CHOICES)
        require_number("temperature", self.temperature, low=COLDEST)
        if not isinstance(self.template, QuestionTemplate):
            rule = f"must be a QuestionTemplate or its fields, got {shown(self.template)}"
            raise InvalidRequest("template", rule)
        if not isinstance(self.scoring, str) or self.scoring not in SCORINGS:
            raise unknown_name("scoring", str(self.scoring), SCORINGS)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """The options of a mapping; None stands for a default, a mapping for a template.

        Raises `InvalidRequest` for an unknown name and a wrong value.
        """
        known = {one.name for one in fields(cls)}
        for name in options:
            if name not in known:
                raise unknown_name("options", str(name), known)
        given = {name: value for name, value in options.items() if value is not None}
        if isinstance(given.get("template"), Mapping):
            given["template"] = QuestionTemplate.from_options(given["template"])
        return cls(**given)
