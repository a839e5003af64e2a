"""`top_logprobs`: the most likely ids at each commit, for those who ask and for nobody else."""

import json
import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import dlm
from dlm import Engine, Guide, InvalidRequest, Proposal, Unmasker
from dlm.decode import iteration, top
from dlm.decode.top import most_likely
from dlm.unmasking.edit.wino import NarrowOut
from dlm.unmasking.unmask.wide_in import WideIn
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec
from tests.rules.reopening import ReopensFirst

SEEN = {}  # (seed, step of the row, position) -> its logits
RULES = (
    {"unmask": "topk", "blocks": "whole"},
    {"unmask": "threshold(0.3)", "blocks": "fixed(8)", "cache": "dual"},
    {"unmask": "everything", "blocks": "fixed(8)", "edit": "rcr(6)"},
    {"unmask": WideIn(), "blocks": "fixed(8)", "edit": NarrowOut()},
    {"unmask": "topk", "blocks": "fixed(8)", "edit": ReopensFirst(5)},
    {"unmask": "leap", "blocks": "fixed(8)", "cache": "prefix"},
    {"unmask": "klass", "blocks": "fixed(8)"},
    {"edit": "rewrite(0.2, post_steps=4)", "blocks": "fixed(8)"},
    {"unmask": "topk", "stop": "prophet(0.5, 0.4, 0.3)"},
)


@dataclass(frozen=True)
class Spy(Guide):
    """The last guide: notes the logits of each position and changes nothing."""

    def __call__(self, logits, frame, params):
        window = frame.window
        for row, column in window.scored.nonzero().tolist():
            at = int(window.pos[row, column])
            key = int(frame.row.seed[row]), int(frame.row.step[row]) + 1, at
            SEEN[key] = logits[0, int(window.logit_row[row, column])].clone()
        return logits


@dataclass(frozen=True)
class TakesSecond(Unmasker):
    """Commits an id that is not the most likely one."""

    def propose(self, view):
        second = most_likely(view.logits, view.mask_id, 2)[:, 1]
        first = view.eligible & (view.eligible.cumsum(1) == 1)
        return Proposal(first, token=second[view.logit_row])


def new_engine(vocab=64, **options):
    unroll = options.pop("unroll", 1)
    spec = tiny_spec(vocab_size=vocab, **options)
    return Engine(random_decoder(spec), info_of(spec), unroll=unroll)


@pytest.fixture(scope="module")
def engine():
    return new_engine()


@pytest.fixture(scope="module")
def causal():
    return new_engine(attention="block_causal", block_length=8)


# the ids


@settings(max_examples=200)
@given(st.data())
def test_the_most_likely_ids_are_those_of_a_sort(data):
    size = data.draw(st.integers(3, 40))
    values = st.sampled_from([0.0, -0.0, 1.5, -1.5, 1e-45, -torch.inf, 30.0, -2.0, 1e38, -1e38])
    rows = data.draw(st.lists(st.lists(values, min_size=size, max_size=size), max_size=6))
    mask_id = data.draw(st.sampled_from([None, 0, size - 1]))
    count = data.draw(st.integers(1, 20))
    logits = torch.tensor(rows).view(len(rows), size)
    kept = [i for i in range(size) if i != mask_id]
    expected = [sorted(kept, key=lambda i, row=row: (-row[i], i))[:count] for row in rows]
    before = logits.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top, "KEYS", data.draw(st.sampled_from([1, 2 * size, 1 << 24])))
        assert most_likely(logits, mask_id, count).tolist() == expected
    assert torch.equal(logits, before)


# what an answer tells


def check(choice, count, mask_id, size, seed=None, given=0):
    """The lists of an answer, beside its log-probabilities, events and what a `Spy` has seen."""
    ids, found, start = choice.ids, choice.top_logprobs, len(choice.prompt_ids)
    assert len(found) == len(ids)
    for at, (token, logprob, step, likely) in enumerate(
        zip(ids, choice.logprobs, choice.commit_steps, found, strict=True)
    ):
        if not step:
            assert likely == ()
            continue
        assert len(likely) == min(count, size - 1)
        values = dict(likely)
        assert len(values) == len(likely)
        assert mask_id not in values
        assert values.get(token, logprob) == logprob, "the same number as in `logprobs`"
        assert likely[0][1] == max(values.values())
        assert all(a[1] >= b[1] - 1e-6 for a, b in pairwise(likely))
        if seed is not None:
            logits = SEEN[seed, step, start + at]
            if at < given:  # a guide that comes last forbids the end id before what is given
                logits = logits.index_fill(0, torch.tensor([1]), -torch.inf)
            logp = torch.log_softmax(logits.double(), 0).clamp_min(math.log(1e-45))
            assert list(values) == most_likely(logits[None], mask_id, count)[0].tolist()
            assert [p for _, p in likely] == pytest.approx(logp[list(values)].tolist(), abs=1e-5)
    (canvas,) = dlm.replay(
        dlm.Event.from_json(json.loads(json.dumps(event.to_json()))) for event in choice.trace
    ).values()
    told = [canvas.top.get(start + at, ()) for at in range(len(ids))]
    assert [[i for i, _ in likely] for likely in told] == [[i for i, _ in ls] for ls in found]
    for event in choice.trace:
        assert len(event.top) == (len(event.pos) if event.type in ("commit", "replace") else 0)


def options_of(data):
    return {
        **data.draw(st.sampled_from(RULES)),
        "seed": data.draw(st.integers(0, 99)),
        "temperature": data.draw(st.sampled_from([0.0, 0.8])),
        "trace": True,
    } | data.draw(
        st.sampled_from(
            [{"max_new_tokens": 20}, {"max_new_tokens": 9}, {"infill": [None] * 6 + [7, 9, None]}]
        )
    )


GUIDES = ([], ["cfg(1.5)"], ["forbid((5, 9))"], ["cfg(0.5)", "bias(((7, 3.0),))"])


@settings(max_examples=30)
@given(st.data())
def test_the_list_of_a_commit_is_that_of_the_guided_logits_of_its_step(engine, data):
    SEEN.clear()
    options, count = options_of(data), data.draw(st.integers(1, 20))
    options["guide"] = [*data.draw(st.sampled_from(GUIDES)), Spy()]
    answer = engine.generate([5, 9, 33], **options, top_logprobs=count)
    given = 8 if "infill" in options else 0
    check(answer, count, engine.info.mask_id, 64, options["seed"], given)


@settings(max_examples=30)
@given(st.data())
def test_block_causal_models_tell_it_too(causal, data):
    SEEN.clear()
    rule = data.draw(st.sampled_from(["topk", "threshold(0.3)", "dynamic"]))
    seed, count = data.draw(st.integers(0, 9)), data.draw(st.integers(1, 20))
    answer = causal.generate(
        [5, 9, 33], unmask=rule, max_new_tokens=20, seed=seed, guide=Spy(), trace=True,
        top_logprobs=count,
    )  # fmt: skip
    check(answer, count, causal.info.mask_id, 64, seed)


def test_a_small_vocabulary_gives_what_it_has():
    small = new_engine(vocab=8)
    answer = small.generate([3, 4], max_new_tokens=6, top_logprobs=20, trace=True)
    check(answer, 20, small.info.mask_id, 8)
    logs = torch.tensor([[p for _, p in likely] for likely in answer.top_logprobs])
    assert bool((logs.exp().sum(1) < 1).all()), "MASK has its share, too"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_id_that_a_rule_brings_does_not_change_the_list(engine, temperature):
    answer = engine.generate(
        [5, 9], unmask=TakesSecond(), max_new_tokens=8, stop="none", top_logprobs=3, trace=True,
        temperature=temperature,
    )  # fmt: skip
    check(answer, 3, engine.info.mask_id, 64)
    for token, logprob, likely in zip(
        answer.ids, answer.logprobs, answer.top_logprobs, strict=True
    ):
        assert likely[1] == (token, logprob)


# with others, and for others


def same(one, other):
    """Whether two answers tell the same, but for the rounding of a forward of another size."""
    tops = [[p for likely in a.top_logprobs for _, p in likely] for a in (one, other)]
    ids = [[i for likely in a.top_logprobs for i, _ in likely] for a in (one, other)]
    return (
        (one.ids, one.canvas, one.commit_steps) == (other.ids, other.canvas, other.commit_steps)
        and one.logprobs == pytest.approx(other.logprobs, abs=1e-4, nan_ok=True)
        and tops[0] == pytest.approx(tops[1], abs=1e-4)
        and sum(a != b for a, b in zip(*ids, strict=True)) <= 2  # near-ties
    )


@settings(max_examples=30)
@given(st.data())
def test_answers_are_the_same_alone_and_in_company(engine, data):
    asked = [
        options_of(data) | {"top_logprobs": data.draw(st.sampled_from([0, 0, 1, 5, 20]))}
        for _ in range(data.draw(st.integers(2, 6)))
    ]
    alone = [engine.generate([5, 9, 33], **options) for options in asked]
    requests = []
    for options in asked:
        requests.append(engine.submit([5, 9, 33], **options))
        for _ in range(data.draw(st.integers(0, 3))):
            engine.step()
    together = [request.result() for request in requests]
    assert all(map(same, alone, together))
    for options, answer in zip(asked, together, strict=True):
        if options["top_logprobs"]:
            check(answer, options["top_logprobs"], engine.info.mask_id, 64)
        else:
            assert answer.top_logprobs == ()
            assert not any(event.top for event in answer.trace)


@settings(max_examples=20)
@given(st.data())
def test_nothing_but_the_lists_depends_on_the_option(engine, data):
    """To the last bit: of rows of one rule, some of which ask."""
    rule = options_of(data)
    asks = data.draw(st.lists(st.sampled_from([0, 1, 20]), min_size=1, max_size=4))
    answers = []
    for counts in ([0] * len(asks), asks):
        requests = [
            engine.submit([5, 9, 33], **rule | {"seed": seed, "top_logprobs": count})
            for seed, count in enumerate(counts)
        ]
        answers.append([request.result() for request in requests])
    for free, told in zip(*answers, strict=True):
        assert free.canvas == told.canvas
        assert free.stats.nfe == told.stats.nfe
        if len(asks) > 1 and 0 in asks and any(asks):  # two groups: the order in a forward differs
            continue
        bare = [{k: v for k, v in event.to_json().items() if k != "top"} for event in told.trace]
        assert bare == [event.to_json() for event in free.trace]


def test_a_rare_look_of_the_host_changes_nothing(engine):
    rare = new_engine(unroll=4)
    options = {"max_new_tokens": 24, "unmask": "topk", "stop": "none", "top_logprobs": 4}
    one, other = (e.generate([5, 9], **options, trace=True) for e in (engine, rare))
    assert same(one, other)


def test_choices_have_lists_of_their_own(engine):
    answer = engine.generate(
        [5, 9], max_new_tokens=8, n=3, temperature=1.0, top_logprobs=2, trace=True
    )
    for choice in answer.choices:
        check(choice, 2, engine.info.mask_id, 64)


# its cost


class Ops(TorchDispatchMode):
    """Counts operations."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_it_is_one_call_for_the_rows_that_ask_and_none_for_others(engine, monkeypatch):
    calls, read = [], iteration.read_top

    def counted(view, count):
        calls.append((len(view.pos), count))
        return read(view, count)

    monkeypatch.setattr(iteration, "read_top", counted)
    options = {"max_new_tokens": 16, "unmask": "topk", "stop": "none"}
    requests = [engine.submit([5, 9], **options, top_logprobs=k) for k in (0, 3, 0, 7, 1)]
    for _ in range(4):
        calls.clear()
        engine.step()
        assert calls == [(3, 7)]
    for request in requests:
        request.abort()


def test_a_step_of_rows_that_do_not_ask_has_not_one_operation_more(monkeypatch):
    options = {"max_new_tokens": 16, "unmask": "topk", "stop": "none"}
    counts = []
    for patched in (False, True):
        engine = new_engine()
        if patched:
            monkeypatch.setattr(iteration, "read_top", None)
        request = engine.submit([5, 9], **options)
        engine.step()
        engine.step()
        with Ops() as ops:
            engine.step()
        counts.append(ops.count)
        request.abort()
    assert counts[0] == counts[1]


# the face


@pytest.mark.parametrize("value", [-1, 21, 1.5, True, "3", None])
def test_a_wrong_number_is_refused(engine, value):
    with pytest.raises(InvalidRequest, match="`top_logprobs`: must be an integer"):
        engine.generate([5], top_logprobs=value)


def test_traces_of_before_are_read():
    line = {"v": 1, "type": "commit", "row": 0, "step": 2, "pos": [4], "ids": [7], "conf": [0.5]}
    event = dlm.Event.from_json(line)
    assert event.top == ()
    assert event.to_json() == line


def test_a_fork_has_the_lists_of_its_ancestor(engine):
    node = engine.start([5, 9], max_new_tokens=8, unmask="topk", stop="none", top_logprobs=2)
    engine.resume(node, steps=4)
    twin = engine.fork(node, 3)
    engine.resume([node, twin])
    one, other = node.result(), twin.result()
    assert one.top_logprobs == other.top_logprobs
    assert all(len(likely) == 2 for likely in one.top_logprobs)
    engine.reopen(node, [node._state.canvas.prompt])
    assert len(node.result().top_logprobs) == len(node.result().ids)
    for found in (node, twin):
        found.close()
