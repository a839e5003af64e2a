import pickle

import pytest

from dlm.errors import (
    CheckpointError,
    DlmError,
    EngineError,
    InvalidRequest,
    Unavailable,
    unknown_name,
)


def test_invalid_request_names_the_parameter():
    error = InvalidRequest("steps", "must be at least 1, got 0")
    assert (error.param, error.message) == ("steps", "must be at least 1, got 0")
    assert str(error) == "`steps`: must be at least 1, got 0"
    assert isinstance(error, DlmError)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("n", "must be positive"),
        Unavailable("full", 2.5),
        EngineError("bug"),
        CheckpointError("not finite"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_unavailable_says_when_to_come_back():
    assert str(Unavailable("the queue is full", retry_after=1.5)) == "the queue is full"
    assert Unavailable("the queue is full", retry_after=1.5).retry_after == 1.5
    assert Unavailable("the queue is full").retry_after is None


@pytest.mark.parametrize(
    ("given", "choices", "text"),
    [
        (
            "Entrpy",
            ["margin", "entropy"],
            "must be one of 'entropy', 'margin', got 'Entrpy'; did you mean 'entropy'?",
        ),
        ("LEAP", ["Leap"], "must be one of 'Leap', got 'LEAP'; did you mean 'Leap'?"),
        ("xyz", {"entropy": 1}, "must be one of 'entropy', got 'xyz'"),
        ("xyz", [], "has no known names, got 'xyz'"),
    ],
)
def test_unknown_name_lists_the_choices_and_the_nearest(given, choices, text):
    error = unknown_name("unmask", given, choices)
    assert (error.param, error.message) == ("unmask", text)
