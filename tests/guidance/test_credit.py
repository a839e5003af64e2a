"""The credit of positions, step by step."""

import math

import pytest
import torch

from dlm.core import Kind
from dlm.errors import InvalidRequest
from dlm.guidance.credit import Credit
from tests.engine.test_nodes import new_engine
from tests.guidance.frames import called, frame_of
from tests.unmasking.views import INFO, MASK

OPEN, DONE = int(Kind.MASK), int(Kind.COMMITTED)


def sharp(*best):
    """`[N, V]`: one id a position has the logit 2, all others 0."""
    logits = torch.zeros(len(best), INFO.vocab_size)
    logits[torch.arange(len(best)), torch.tensor(best)] = 2.0
    return logits


def p_of(logits, token):
    return float(logits.double().softmax(0)[token])


def kept(answer, frame):
    """Write the answer's scratch, and tell `{id: credit}` of each place in `[R, L]`."""
    for name, entries in answer.scratch.items():
        frame.scratch[name].flatten(0, 1).index_copy_(0, entries.at, entries.values)
    ids, credit = (frame.scratch[n].flatten(0, 1).tolist() for n in ("credit_ids", "credit"))
    return [
        {i: c for i, c in zip(*own, strict=True) if c > 0} for own in zip(ids, credit, strict=True)
    ]


def test_credit_decays_and_grows_as_the_formula_says():
    rule = Credit(alpha=2.0, beta=0.5, gamma=0.5).bind(INFO)
    frame = frame_of(rule, OPEN)
    first, second = sharp(4, 5, 6, 7, 8, 9), sharp(4, 10, 6, 7, 8, 9)
    g = p_of(first[0], 4) ** 0.5
    kept(called(rule, first, frame), frame)
    answer = called(rule, second, frame)
    told = kept(answer, frame)
    assert told[0] == pytest.approx({4: 0.5 * g + g})
    assert told[1] == pytest.approx({5: 0.5 * g, 10: g})
    raised = (answer.logits[0] - second)[1]
    assert float(raised[5]) == pytest.approx(2.0 * math.log(1 + 0.5 * g))
    assert float(raised[10]) == pytest.approx(2.0 * math.log(1 + g))
    assert int((raised != 0).sum()) == 2


def test_mask_gains_nothing():
    rule = Credit().bind(INFO)
    frame = frame_of(rule, OPEN)
    logits = sharp(MASK, MASK, 4, 4, 4, 4)
    logits[:, 20] = 1.0
    told = kept(called(rule, logits, frame), frame)
    assert list(told[0]) == [20]
    assert told[0][20] == pytest.approx(p_of(logits[0], 20) ** 0.2)


def test_what_is_committed_is_left_as_it_is_and_decays():
    rule = Credit(beta=0.5).bind(INFO)
    logits = sharp(4, 5, 6, 7, 8, 9)
    frame = frame_of(rule, OPEN)
    before = kept(called(rule, logits, frame), frame)
    later = frame._replace(kind=torch.tensor([[DONE, OPEN, OPEN], [OPEN, OPEN, DONE]]))
    answer = called(rule, logits, later)
    told = kept(answer, later)
    assert torch.equal(answer.logits[0, [0, 5]], logits[[0, 5]])
    assert told[0][4] == pytest.approx(0.5 * before[0][4])
    assert told[1][5] == pytest.approx(1.5 * before[1][5])


def test_shadow_tokens_gain_nothing():
    rule = Credit(alpha=5.0).bind(INFO)
    frame = frame_of(rule, OPEN)
    window = frame.window
    frame = frame._replace(
        window=window._replace(
            shadow=torch.tensor([1, 4]), row=torch.cat((window.row, torch.tensor([0, 1])))
        )
    )
    logits = sharp(4, 5, 6, 7, 8, 9, 10, 11)
    answer = called(rule, logits, frame)
    told = kept(answer, frame)
    assert torch.equal(answer.logits[0, 6:], logits[6:])
    assert not torch.equal(answer.logits[0, :6], logits[:6])
    assert all(10 not in own and 11 not in own for own in told)


def test_a_row_forgets_everything_when_nothing_is_open():
    rule = Credit().bind(INFO)
    frame = frame_of(rule, OPEN)
    kept(called(rule, sharp(4, 5, 6, 7, 8, 9), frame), frame)
    filled = torch.tensor([[DONE] * 4, [OPEN] + [DONE] * 3], dtype=torch.int8)
    later = frame._replace(kind=filled[:, 1:], canvas_kind=filled)
    told = kept(called(rule, sharp(4, 5, 6, 7, 8, 9), later), later)
    assert not any(told[:3])
    assert all(told[4:7]), "the other row still has an open position, in a later block"


def test_one_place_holds_the_last_id():
    rule = Credit(beta=1.0, keep=1).bind(INFO)
    frame = frame_of(rule, OPEN)
    for token in (4, 11, 4):
        told = kept(called(rule, sharp(token, 5, 6, 7, 8, 9), frame), frame)
        assert list(told[0]) == [token]
        assert told[0][token] == pytest.approx(p_of(sharp(token)[0], token) ** 0.2)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("credit(alpha=-1.0)", "`alpha` must be between 0 and 10000, got -1.0"),
        ("credit(beta=1.5)", "`beta` must be between 0 and 1, got 1.5"),
        ("credit(gamma=-0.1)", "`gamma` must be at least 0, got -0.1"),
        ("credit(keep=0)", "`keep` must be at least 1, got 0"),
        ("credit(keep=65)", "`keep` must be at most the size of the vocabulary, 64, got 65"),
        ("credit(keep=1.5)", "`keep` must be an integer, got 1.5"),
        (["credit", "credit"], "would share the memory 'credit_ids'"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(rule, message):
    with pytest.raises(InvalidRequest, match=message):
        new_engine({})[0].submit((4, 5), guide=rule)
