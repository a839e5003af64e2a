"""What goes wrong stays with the row it belongs to, and ends."""

import weakref
from dataclasses import dataclass

import pytest
import torch

from dlm import Editor, Engine, StopRule, Unmasker
from dlm.core import Entries, Kind, Proposal, ScratchSpec, Stop
from dlm.engine.admission import new_group
from dlm.errors import EngineError, InvalidRequest, Unavailable, culprit_of
from dlm.unmasking.blocks.fixed import Fixed
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = (5, 9, 33, 12)
PLAIN = {"max_new_tokens": 16, "unmask": "topk", "stop": "none"}


def new_engine(**options):
    spec = tiny_spec()
    return Engine(random_decoder(spec), info_of(spec), **options)


@dataclass(frozen=True)
class Raises(Unmasker):
    after: int = 3

    def propose(self, view):
        if int(view.row.step.max()) >= self.after:
            raise RuntimeError("my rule is broken")
        return Proposal(torch.zeros_like(view.eligible))


@dataclass(frozen=True)
class Never(Unmasker):
    clock = True

    def propose(self, view):
        return Proposal(torch.zeros_like(view.eligible))


@dataclass(frozen=True)
class Own(Unmasker):
    """Writes a token of its own choice everywhere, whether asked to or not."""

    token: int = 7

    def propose(self, view):
        everywhere = torch.ones_like(view.eligible)
        return Proposal(everywhere, token=torch.full_like(view.token, self.token))


@dataclass(frozen=True)
class Grabs(Editor):
    """An editor that commits what was never eligible."""

    scope = "block"

    def edit(self, view, proposal):
        return proposal._replace(commit=torch.ones_like(proposal.commit))


def idle(engine):
    engine.scheduler.check_integrity()
    return engine.kv.pages.in_use == 0


@pytest.mark.parametrize("after", range(5))
def test_a_rule_that_raises_ends_its_own_rows_only(after):
    alone = new_engine().generate(PROMPT, **PLAIN)
    engine = new_engine()
    bad = engine.submit(PROMPT, **{**PLAIN, "unmask": Raises(after)})
    good = engine.submit(PROMPT, **PLAIN)
    assert good.result().canvas == alone.canvas
    assert good.result().stats.nfe == alone.stats.nfe
    with pytest.raises(RuntimeError, match="my rule is broken"):
        bad.result()
    assert idle(engine)


def test_a_schedule_that_never_commits_is_taken_over():
    """Once its clock has had time enough, every step commits the best position."""
    engine = new_engine()
    answer = engine.generate(PROMPT, **{**PLAIN, "unmask": Never()})
    assert answer.finish_reason == "length"
    assert len(answer.ids) == PLAIN["max_new_tokens"]
    assert idle(engine)


def test_a_rule_may_write_its_own_token_but_never_the_mask():
    engine = new_engine()
    answer = engine.generate(PROMPT, **{**PLAIN, "unmask": Own(7)})
    assert answer.ids == (7,) * 16
    logp = torch.log_softmax(engine.logits([[*PROMPT, *[63] * 16]])[0, 4:, :], -1)[:, 7]
    assert torch.allclose(torch.tensor(answer.logprobs), logp, atol=1e-3)
    with pytest.raises(
        EngineError, match=r"no end after .* MASK, which is never written"
    ) as caught:
        engine.generate(PROMPT, **{**PLAIN, "unmask": Own(63)})
    assert culprit_of(caught.value).name == "Own"
    assert idle(engine)


def test_an_editor_cannot_commit_what_is_given():
    engine = new_engine()
    requests = [
        engine.submit(PROMPT[:n], **{**PLAIN, "edit": Grabs(), "stop": "none"}) for n in (1, 4)
    ]
    for request, n in zip(requests, (1, 4), strict=True):
        request.wait()
        (state,) = request.states
        assert tuple(state.canvas.ids[:n]) == PROMPT[:n]
        assert set(state.canvas.kinds[:n]) == {Kind.PROMPT}
    assert idle(engine)


def test_a_canvas_beyond_the_budget_is_refused_and_a_waiting_one_is_served():
    spec = tiny_spec()
    engine = new_engine(kv_bytes=3 * 16 * spec.kv_bytes_per_token(4))
    with pytest.raises(Unavailable, match="does not fit"):
        engine.submit(PROMPT, **{**PLAIN, "max_new_tokens": 60})
    results = engine.generate([PROMPT, PROMPT[:2], PROMPT[:3]], **PLAIN)
    assert len(results) == 3
    assert idle(engine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": "eoss('block')"}, "did you mean 'eos'"),
        ({"stop": "nowhere.at.all:Budget(5)"}, "nowhere"),
        ({"unmask": Never}, "got the class Never: give Never()"),
        ({"unmask": object()}, "or a part"),
        ({"guide": ["forbid('eos')", "cfg(1.0)"]}, "must come first"),
        ({"guide": "bias(())"}, "at least one"),
        ({"unmask": "topk(power=0.0, schedule='power')"}, "`power` must be greater than 0"),
        ({"unmask": "topk(demote=(999,))"}, "ids must be between 0 and 63, got 999"),
        ({"unmask": "topk(steps=3)", "blocks": "fixed(4)"}, "multiple of the number of blocks, 4"),
        ({"stop": "eos(ids=(999,))"}, "ids must be between 0 and 63, got 999"),
        ({"edit": "rcr(4)"}, "everything"),
        ({"edit": "rcr(4)", "unmask": "everything", "stop": "eos"}, "eos('block')"),
    ],
)
def test_what_cannot_work_is_refused_before_it_starts(options, message):
    with pytest.raises(InvalidRequest) as refused:
        new_engine().generate(PROMPT, **{**PLAIN, **options})
    assert message in str(refused.value)


@pytest.mark.parametrize("value", [{"max_rows": 0}, {"unroll": 0}])
def test_an_engine_that_could_do_nothing_is_refused(value):
    with pytest.raises(InvalidRequest, match="at least 1, got 0"):
        new_engine(**value)


def test_prompts_may_come_from_iterators_and_arrays():
    engine = new_engine()
    expected = engine.generate(PROMPT, **PLAIN).canvas
    for prompt in (torch.tensor(PROMPT), iter(PROMPT), list(PROMPT)):
        assert engine.generate(prompt, **PLAIN).canvas == expected
    (one,) = engine.generate((p for p in [PROMPT]), **PLAIN)
    assert one.canvas == expected
    with pytest.raises(InvalidRequest, match="must be a text"):
        engine.generate(b"bytes", **PLAIN)


def test_tiny_temperatures_are_nearly_greedy():
    engine = new_engine()
    greedy = engine.generate(PROMPT, **PLAIN).canvas
    assert engine.generate(PROMPT, **PLAIN, temperature=1e-40).canvas == greedy


def test_a_trace_survives_that_somebody_reads_the_events():
    engine = new_engine()
    request = engine.submit(PROMPT, **PLAIN, trace=True)
    events = list(request.events())
    assert request.result().trace == tuple(events)


def test_an_end_id_behind_the_limit_is_not_an_end():
    spec = tiny_spec(attention="block_causal", block_length=8)
    engine = Engine(random_decoder(spec), info_of(spec))
    free = engine.generate(PROMPT, max_new_tokens=5, stop="none", unmask="topk")
    surplus = set(free.canvas[9:]) - set(free.canvas[4:9])
    assert surplus, "the case needs a token that stands in the surplus alone"
    end = f"eos(ids=({surplus.pop()},), only=True)"
    cut = engine.generate(PROMPT, max_new_tokens=5, stop=end, unmask="topk")
    assert (cut.ids, cut.finish_reason) == (free.ids, "length")


# a row that fails in a batch of its like


@dataclass(frozen=True)
class Dislikes(Unmasker):
    """Raises for a row of this length, else commits the best position of each row."""

    length: int = -1
    clock = True

    def propose(self, view):
        if bool((view.row.prompt == self.length).any()):
            raise ValueError("I do not like this row")
        best = view.confidence.masked_fill(~view.eligible, -1).argmax(dim=1, keepdim=True)
        return Proposal(torch.zeros_like(view.eligible).scatter(1, best, True) & view.eligible)


@dataclass(frozen=True)
class Stops(StopRule):
    """A stop rule that raises for a row of this length, once its third step is done."""

    length: int = -1
    waits_for_clean_block = True

    def __call__(self, rows, view):
        if bool(((view.row.prompt == self.length) & (view.row.step >= 2)).any()):
            raise ValueError("I do not like this row")
        return Stop(torch.zeros_like(view.row.step, dtype=torch.bool))


@dataclass(frozen=True)
class Blocks(Fixed):
    """Opens no second block for a row of this length."""

    hated: int = -1

    def advance(self, table, progress, params):
        if bool(((progress.prompt == self.hated) & (table.front > 0)).any()):
            raise ValueError("I do not like this row")
        return Fixed.advance(self, table, progress, params)


HATES = [
    {"unmask": Dislikes(3)},
    {"stop": Stops(3)},
    {"blocks": Blocks(8, hated=3)},
]


@pytest.mark.parametrize("unroll", [1, 4])
@pytest.mark.parametrize("hates", HATES, ids=["unmask", "stop", "blocks"])
def test_the_row_that_a_part_dislikes_ends_alone(hates, unroll):
    """The rows share every call of the part, which cannot say whose fault it is."""
    options = {**PLAIN, "blocks": "fixed(8)", **hates}
    prompts = [PROMPT[:n] for n in (2, 3, 4)]
    engine = new_engine(unroll=unroll)
    requests = [engine.submit(p, **options) for p in prompts]
    late = None
    for step in range(60):
        engine.step()
        if step == 3:
            late = engine.submit(PROMPT[:1], **options)
    for request, prompt in zip([*requests, late], [*prompts, PROMPT[:1]], strict=True):
        assert request.done
        if len(prompt) == 3:
            with pytest.raises(ValueError, match="I do not like this row"):
                request.result()
        else:
            assert request.result().canvas == new_engine().generate(prompt, **options).canvas
    assert idle(engine)


class Small:
    """A model on a device whose memory holds `limit` tokens a forward."""

    def __init__(self, decoder, limit):
        self.decoder, self.limit, self.largest = decoder, limit, 0

    def __call__(self, packed, kv):
        if len(packed.ids) > self.limit:
            raise torch.OutOfMemoryError("no room for the activations")
        self.largest = max(self.largest, len(packed.ids))
        return self.decoder(packed, kv)


@pytest.mark.parametrize("limit", [20, 45, 90])
@pytest.mark.parametrize("unroll", [1, 3])
def test_a_forward_without_memory_is_tried_with_fewer_rows(limit, unroll):
    """A row of 20 positions fits alone; one of 50 fits with the largest limit only."""
    engine = new_engine(unroll=unroll)
    engine.manager.model = small = Small(engine.model, limit)
    options = {**PLAIN, "cache": "none"}
    long = engine.submit(PROMPT, **options | {"max_new_tokens": 46})
    requests = [engine.submit(PROMPT, **options, seed=n, temperature=1.0) for n in range(4)]
    for seed, request in enumerate(requests):
        alone = new_engine().generate(PROMPT, **options, seed=seed, temperature=1.0)
        assert request.result().canvas == alone.canvas
        assert request.result().stats.nfe == alone.stats.nfe
    if limit < 50:
        with pytest.raises(torch.OutOfMemoryError):
            long.result()
    else:
        assert (
            long.result().canvas
            == new_engine().generate(PROMPT, **options | {"max_new_tokens": 46}).canvas
        )
    assert small.largest <= limit
    assert idle(engine)


def test_what_a_failed_forward_held_is_free_before_the_next_one():
    """Else half the rows would not fit either: the error's frames hold the activations."""
    engine = new_engine()

    class Hungry(Small):
        held = None

        def __call__(self, packed, kv):
            assert self.held is None or self.held() is None
            activations = torch.zeros(len(packed.ids), 8)
            if len(packed.ids) > self.limit:
                self.held = weakref.ref(activations)
                raise torch.OutOfMemoryError("no room for the activations")
            return super().__call__(packed, kv)

    engine.manager.model = model = Hungry(engine.model, 30)
    results = engine.generate([PROMPT] * 3, **PLAIN, cache="none")
    assert [result.finish_reason for result in results] == ["length"] * 3
    assert model.held is not None
    assert idle(engine)


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("place", ["dlm.engine.scheduler.new_group", "admit"])
def test_an_interrupt_while_a_row_is_admitted_gives_back_its_pages(place, before, monkeypatch):
    """`before`: rows that the same step has admitted already."""
    engine = new_engine()
    first = engine.submit(PROMPT, **PLAIN)
    engine.step()
    works, done = engine.manager.admit if place == "admit" else new_group, []

    def interrupted(*args):
        if len(done) == before:
            raise KeyboardInterrupt
        done.append(args)
        return works(*args)

    if place == "admit":
        monkeypatch.setattr(engine.manager, "admit", interrupted)
    else:
        monkeypatch.setattr(place, interrupted)
    others = [engine.submit(PROMPT[:2], **PLAIN) for _ in range(4)]
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    monkeypatch.undo()
    assert len(done) == before
    assert first.done
    assert all(other.done for other in others)
    assert idle(engine)
    assert len(engine.generate(PROMPT, **PLAIN).ids) == 16


def test_a_pool_that_cannot_grow_makes_rows_wait(monkeypatch):
    """Two rows fit; the third is served when one of them has gone."""
    engine = new_engine()
    most, zeros = 6 * engine.kv.pages.page_bytes, torch.zeros

    def small(*shape, **options):
        out = zeros(*shape, **options)
        if out.dim() == 5 and engine.kv.store.storage.nbytes + out.nbytes > most:
            raise torch.OutOfMemoryError("no room for keys")
        return out

    monkeypatch.setattr("dlm.model.kv_store.torch.zeros", small)
    results = engine.generate([PROMPT, PROMPT[:2], PROMPT[:3]], **PLAIN)
    assert [len(r.ids) for r in results] == [16, 16, 16]
    with pytest.raises(Unavailable, match="the device has no memory for"):
        engine.generate(PROMPT, **PLAIN | {"max_new_tokens": 200})
    assert idle(engine)


@dataclass(frozen=True)
class RaisesOnce(Editor):
    """An editor that fails for a row of three ids in one of its steps."""

    at: int = 0
    scope = "block"

    def edit(self, view, proposal):
        if bool(((view.row.prompt == 3) & (view.row.step == self.at)).any()):
            raise ValueError("I do not like this row")
        return proposal


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("cache", ["none", "dual", "dual(on_edit='requery')"])
@pytest.mark.parametrize("schedule", ["even", "linear", "cosine"])
def test_clocks_stand_still_while_a_part_fails(schedule, cache, at):
    """The batch mates' schedules and blocks go on where they were, also on the opening step."""
    options = {
        **{"max_new_tokens": 32, "stop": "none", "blocks": "fixed(16)", "cache": cache},
        **{"unmask": f"topk(schedule={schedule!r})", "steps": 12, "edit": RaisesOnce(at)},
    }
    engine = new_engine()
    first, bad, last = (engine.submit(PROMPT[:n], **options, trace=True) for n in (2, 3, 4))
    for request, n in ((first, 2), (last, 4)):
        alone = new_engine().generate(PROMPT[:n], **options, trace=True)
        found = request.result()
        assert told(found) == told(alone)
    with pytest.raises(ValueError, match="I do not like this row"):
        bad.result()
    assert idle(engine)


def told(generation):
    """The events without their steps: a forward whose decisions failed is billed."""
    return [(e.type, e.pos, e.ids) for e in generation.trace]


@pytest.mark.parametrize("broken", [1, 2, 5, 9, 13])
@pytest.mark.parametrize("unroll", [1, 4])
def test_a_forward_that_fails_once_changes_nothing(broken, unroll):
    """Rows of different caches and rules, forked and reopened tokens among them."""
    mix = [
        {"unmask": "everything", "edit": "rcr(12)", "cache": "dual(on_edit='requery')"},
        {"unmask": "threshold(0.6)", "cache": "dual", "temperature": 0.8},
        {"unmask": "threshold(0.6)", "cache": "dual", "temperature": 0.8, "seed": 5},
        {"unmask": "topk", "cache": "prefix"},
    ]
    base = {"max_new_tokens": 24, "blocks": "fixed(12)", "stop": "none"}
    engine = new_engine(unroll=unroll)
    model, calls = engine.model, []

    def flaky(packed, kv):
        out = model(packed, kv)
        calls.append(1)
        if len(calls) == broken:
            raise torch.OutOfMemoryError("no room")
        return out

    engine.manager.model = flaky
    requests = [engine.submit(PROMPT, **base | options) for options in mix]
    for request, options in zip(requests, mix, strict=True):
        alone = new_engine(unroll=unroll).generate(PROMPT, **base | options)
        assert request.result().canvas == alone.canvas
        assert request.result().stats.nfe == alone.stats.nfe
    assert idle(engine)


@dataclass(frozen=True)
class WrongScratch(Editor):
    """Gives back scratch of a shape that fits one row, but not several."""

    scope = "block"
    scratch = (ScratchSpec("counts", "row", torch.long),)

    def edit(self, view, proposal):
        return proposal._replace(scratch={"counts": proposal.commit.sum(dim=1)[:1]})


@dataclass(frozen=True)
class WrongEntries(WrongScratch):
    """Gives back as many values as there are in one row, for the places of all."""

    scratch = (ScratchSpec("counts", "token", torch.long),)

    def edit(self, view, proposal):
        at = torch.arange(len(view.pos)) * view.scratch["counts"].shape[1]
        return proposal._replace(scratch={"counts": Entries(at, proposal.commit[:1, 0].long())})


@pytest.mark.parametrize("editor", [WrongScratch(), WrongEntries()])
def test_scratch_of_a_wrong_shape_is_an_error_before_anything_is_written(editor):
    engine = new_engine()
    options = {**PLAIN, "edit": editor}
    requests = [engine.submit(PROMPT[:n], **options) for n in (2, 3)]
    for request, n in zip(requests, (2, 3), strict=True):
        assert request.result().canvas == new_engine().generate(PROMPT[:n], **PLAIN).canvas
    assert idle(engine)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "eps"])
def test_a_schedule_of_many_steps_is_no_endless_row(schedule):
    answer = new_engine().generate(
        PROMPT,
        **PLAIN | {"max_new_tokens": 8, "unmask": f"topk(schedule={schedule!r})", "steps": 256},
    )
    assert len(answer.ids) == 8
    assert answer.stats.nfe > 200
