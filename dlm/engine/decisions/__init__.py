"""Decisions: typed questions about one input, answered as probabilities of labels in holes."""

from dlm.engine.decisions.answers import (
    Answer,
    ChoiceAnswer,
    DecisionCosts,
    Decisions,
    PredicateAnswer,
    ScoreAnswer,
)
from dlm.engine.decisions.job import DecisionJob
from dlm.engine.decisions.options import DecisionOptions
from dlm.engine.decisions.questions import (
    Choice,
    Level,
    Option,
    Predicate,
    Question,
    Score,
    question_of,
)
from dlm.engine.decisions.template import QuestionTemplate

__all__ = [
    "Answer",
    "Choice",
    "ChoiceAnswer",
    "DecisionCosts",
    "DecisionJob",
    "DecisionOptions",
    "Decisions",
    "Level",
    "Option",
    "Predicate",
    "PredicateAnswer",
    "Question",
    "QuestionTemplate",
    "Score",
    "ScoreAnswer",
    "question_of",
]
