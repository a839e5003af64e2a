"""Allowed ids: the opposite of forbidden ones."""

from dataclasses import dataclass

import pytest
import torch

from dlm import StopRule
from dlm.config import GenerationConfig, bind
from dlm.core import Stop
from dlm.errors import InvalidRequest
from dlm.guidance.logits import Allow
from tests.engine.test_nodes import new_engine
from tests.guidance.frames import called, frame_of
from tests.unmasking.views import INFO


@dataclass(frozen=True)
class Never(StopRule):
    """Waits for no end id."""

    def __call__(self, rows, view):
        return Stop(torch.zeros_like(rows.step, dtype=torch.bool))


EOS = INFO.eos_ids[0]


def bound(**options):
    config = GenerationConfig.from_options({"max_new_tokens": 6, **options})
    return bind(config, INFO)


def test_the_others_have_no_logit():
    logits = torch.arange(6.0 * 64).view(6, 64)
    rule = Allow((4, 9), ends=True).bind(INFO)
    (answer,) = called(rule, logits, frame_of(rule, 3))
    kept = answer.isfinite()
    assert kept.any(dim=0).nonzero().flatten().tolist() == [1, 2, 4, 9]
    assert kept.sum() == 4 * 6
    assert torch.equal(answer[kept], logits[kept])


def test_positions_count_from_the_start_of_the_answer():
    rule = Allow((4,), at=(1,)).bind(INFO)
    frame = frame_of(rule, 3, pos=[[2, 3, 4], [4, 5, 6]], prompt=[2, 5])
    (answer,) = called(rule, torch.zeros(6, 64), frame)
    assert answer.isinf().any(dim=1).tolist() == [False, True, False, False, False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guide": "allow(())"}, "`ids` must hold at least one id"),
        ({"guide": "allow((63, 4))"}, "the id 63 is the mask, which is never part of an answer"),
        ({"guide": "allow((64,))"}, "ids must be between 0 and 63, got 64"),
        ({"guide": "allow((4,), at=())"}, "`at` must hold positions of the answer from 0 on"),
        ({"guide": "allow((4,), at=(-1,))"}, "`at` must hold positions of the answer from 0 on"),
        ({"guide": "allow(4)"}, "`ids` must be"),
        ({"guide": "allow((4, 5))"}, "no end id .1, 2. is among the allowed ids"),
        ({"guide": "allow((4, 5), at=(0, 1, 2, 3, 4, 5))"}, "no end id"),
        (
            {"guide": ["allow((4,), at=(2,))", "allow((5,))"], "stop": "none"},
            "Allow, Allow together leave no id for position 2",
        ),
        (
            {"guide": ["allow((4,), ends=True)", "forbid((4,))", "forbid('eos')"]},
            "together leave no id for position 0",
        ),
    ],
)
def test_what_leaves_nothing_or_no_end_is_refused(options, message):
    with pytest.raises(InvalidRequest, match=message):
        bound(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"guide": "allow((4, 5))", "stop": "none"},
        {"guide": "allow((4, 5))", "stop": Never()},
        {"guide": "allow((4, 5), ends=True)"},
        {"guide": f"allow((4, {EOS}))"},
        {"guide": "allow((4, 5), at=(0, 1, 2, 3, 4))"},
        {"guide": ["allow((4, 5))", "forbid('eos')"]},
        {"guide": ["allow((4, 5), at=(0,))", "forbid((4,), before=1)"]},
    ],
)
def test_what_leaves_something_is_accepted(options):
    bound(**options)


def test_holes_in_which_no_answer_ends_need_an_id_that_is_no_end():
    engine, _ = new_engine({})
    holes = {"infill": [None, None, 7, None], "max_new_tokens": 8}
    with pytest.raises(InvalidRequest, match="leave no id for position 0"):
        engine.submit((5, 6), guide="allow((1,))", **holes)
    answer = engine.generate((5, 6), guide="allow((4, 9), ends=True)", **holes)
    assert set(answer.canvas[2:5]) <= {4, 9, 7}
    assert answer.canvas[4] == 7
