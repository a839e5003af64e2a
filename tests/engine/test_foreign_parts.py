"""Parts that others wrote: what they raise and what they answer wrongly is told as theirs."""

import traceback
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

import dlm
from dlm import Editor, Engine, Guide, Proposal
from dlm.cache.block_freeze import NoCache
from dlm.core import Stop
from dlm.errors import InvalidRequest, RuleError, culprit_of
from dlm.unmasking.blocks.fixed import Fixed, SubBlocks, advance_in_order
from dlm.unmasking.edit.rcr import RCR
from dlm.unmasking.stop.budgets import MaxNFE
from dlm.unmasking.stop.early_commit import Stable
from dlm.unmasking.stop.end_ids import Eos
from dlm.unmasking.unmask.threshold import Threshold
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = (5, 9, 33, 12)
PLAIN = {"max_new_tokens": 16, "unmask": "topk", "stop": "none", "blocks": "fixed(8)"}


@pytest.fixture(scope="module")
def engine():
    spec = tiny_spec()
    return Engine(random_decoder(spec), info_of(spec))


def breaks(base, method, answer):
    """A part like `base` of which one method answers with `answer(what the base says)`."""

    def changed(self, *arguments):
        own = getattr(super(made, self), method)(*arguments)
        return answer(own) if callable(answer) else answer

    made = type(f"Broken{base.__name__}", (base,), {method: changed, "__module__": __name__})
    return made


@dataclass(frozen=True)
class Bias(Guide):
    """A guide that changes nothing; the base of broken ones."""

    def __call__(self, logits, frame, params):
        return logits


@dataclass(frozen=True)
class Shadows(Editor):
    """An editor that changes nothing, with shadow tokens; the base of broken ones."""

    scope = "block"

    def edit(self, view, proposal):
        return proposal

    def extend(self, plan, rows):
        return plan


def oops(*_):
    raise ZeroDivisionError("by my own hand")


METHODS = [
    ("unmask", Threshold, "propose"),
    ("unmask", Threshold, "bind"),
    ("guide", Bias, "__call__"),
    ("guide", Bias, "bind"),
    ("blocks", Fixed, "bind"),
    ("blocks", Fixed, "num_blocks"),
    ("blocks", Fixed, "max_end"),
    ("blocks", Fixed, "block_end"),
    ("blocks", Fixed, "advance"),
    ("blocks", SubBlocks, "restrict"),
    ("edit", Shadows, "edit"),
    ("edit", Shadows, "extend"),
    ("edit", Shadows, "refuses"),
    ("stop", Eos, "__call__"),
    ("stop", Stable, "fill"),
    ("stop", MaxNFE, "spent"),
    ("cache", NoCache, "plan"),
]


def instance(cls):
    return cls(5) if issubclass(cls, MaxNFE) else cls()


@pytest.mark.parametrize(("kind", "base", "method"), METHODS)
@pytest.mark.parametrize("bounded", [False, True], ids=["plain", "bounded"])
def test_what_a_part_raises_arrives_as_it_is_and_names_the_part(kind, base, method, bounded):
    spec = tiny_spec()
    engine = Engine(random_decoder(spec), info_of(spec), max_token_forwards=64 if bounded else None)
    alone = engine.generate(PROMPT, **PLAIN).canvas
    part = instance(breaks(base, method, oops))
    good = engine.submit(PROMPT, **PLAIN)
    with pytest.raises(ZeroDivisionError, match="by my own hand") as caught:
        engine.generate(PROMPT, **{**PLAIN, kind: part})
    culprit = culprit_of(caught.value)
    assert (culprit.kind, culprit.name) == (kind, f"Broken{base.__name__}")
    assert culprit.line.startswith(__file__)
    told = "".join(traceback.format_exception(caught.value))
    assert "oops" in told
    assert str(culprit) in told
    assert good.result().canvas == alone
    engine.scheduler.check_integrity()
    assert engine.kv.pages.in_use == 0


@pytest.mark.parametrize("where", ["__init__", "__post_init__"])
def test_a_part_of_a_spec_string_that_raises_when_it_is_made(engine, where):
    spec = f"tests.engine.test_foreign_parts:Fails{where.title().replace('_', '')}(3)"
    with pytest.raises(TypeError, match="not like that") as caught:
        engine.generate(PROMPT, **{**PLAIN, "unmask": spec})
    assert culprit_of(caught.value).line.startswith(__file__)
    with pytest.raises(InvalidRequest, match="lacks '"):
        engine.generate(PROMPT, **{**PLAIN, "unmask": spec.replace("(3)", "")})


@dataclass(frozen=True)
class FailsPostInit:
    number: int

    def __post_init__(self):
        raise TypeError("not like that")


@dataclass(frozen=True, init=False)
class FailsInit:
    number: int

    def __init__(self, number):
        raise TypeError("not like that")


def wide(tensor):
    return torch.cat((tensor, tensor), dim=-1)


UNMASKING = {
    "none": (None, "must return a Proposal, got None"),
    "tuple": (lambda p: tuple(p), "must return a Proposal, got an object of type tuple"),
    "tensor": (lambda p: p.commit, "must return a Proposal, got an object of type Tensor"),
    "flat": (
        lambda p: p._replace(commit=p.commit[0]),
        r"`commit` as bool \[1, 8\] .* bool \[8\]",
    ),
    "column": (lambda p: p._replace(commit=p.commit[:, :1]), r"`commit` as bool .* bool \[1, 1\]"),
    "wide": (lambda p: p._replace(commit=wide(p.commit)), r"`commit` as bool .* bool \[1, 16\]"),
    "rows": (lambda p: p._replace(commit=p.commit.repeat(2, 1)), r"got bool \[2, 8\]"),
    "numbers": (lambda p: p._replace(commit=p.commit.float()), r"got float32 \[1, 8\]"),
    "integers": (lambda p: p._replace(commit=p.commit.long()), r"got int64 \[1, 8\]"),
    "nothing": (lambda p: p._replace(commit=None), "`commit` as bool .* got None"),
    "list": (lambda p: p._replace(commit=p.commit.tolist()), "got an object of type list"),
    "remask": (lambda p: p._replace(remask=p.commit[0]), r"`remask` as bool .* bool \[8\]"),
    "replace": (lambda p: p._replace(replace=p.commit.int()), r"`replace` as bool .* int32"),
    "renoise": (lambda p: p._replace(renoise=True), "`renoise` as bool .* got an object of type"),
    "token": (lambda p: p._replace(token=p.commit.float()), r"`token` as int64 .* float32"),
    "device": (lambda p: p._replace(commit=p.commit.to("meta")), "on cpu, got bool .* on meta"),
    "beyond": (
        lambda p: p._replace(token=torch.full(p.commit.shape, 64), commit=p.commit | True),
        "`token` as ids from 0 to 63, got 64",
    ),
    "negative": (
        lambda p: p._replace(token=torch.full(p.commit.shape, -1), commit=p.commit | True),
        "got -1",
    ),
    "scratch": (lambda p: p._replace(scratch=3), "`scratch` as a map"),
    "undeclared": (lambda p: p._replace(scratch={"x": p.commit}), r"declared `scratch` \(none\)"),
}


@pytest.mark.parametrize("case", UNMASKING)
@pytest.mark.parametrize(("kind", "base"), [("unmask", Threshold), ("edit", Shadows)])
def test_a_proposal_that_no_part_may_make_is_named(engine, kind, base, case):
    answer, message = UNMASKING[case]
    part = breaks(base, "edit" if kind == "edit" else "propose", answer)()
    with pytest.raises(RuleError, match=message) as caught:
        engine.generate(PROMPT, **{**PLAIN, kind: part})
    assert caught.value.culprit.kind == kind
    assert caught.value.culprit.name == f"Broken{base.__name__}"
    assert __file__ in caught.value.culprit.line
    assert len(str(caught.value)) < 400
    assert engine.kv.pages.in_use == 0


OTHERS = {
    "guide none": (Bias, "__call__", None, "must return logits .* got None"),
    "guide one arm": (Bias, "__call__", lambda x: x[0], r"must return logits \[1, \d+, 64\]"),
    "guide narrow": (Bias, "__call__", lambda x: x[..., :32], "must return logits"),
    "guide double": (Bias, "__call__", lambda x: x.double(), "must return float32 .* float64"),
    "guide nan": (Bias, "__call__", lambda x: x * torch.nan, "must leave finite logits"),
    "guide inf": (Bias, "__call__", lambda x: x + torch.inf, "must leave finite logits"),
    "guide all": (Bias, "__call__", lambda x: x - torch.inf, "must leave finite logits"),
    "ends none": (Fixed, "block_end", None, "`the ends` as int64 .* got None"),
    "ends flat": (Fixed, "block_end", lambda x: x[0], r"got int64 \[\]"),
    "ends float": (Fixed, "block_end", lambda x: x.float(), "got float32"),
    "ends before": (Fixed, "block_end", lambda x: x * 0, "behind its beginning 4 .* got 0"),
    "ends beyond": (Fixed, "block_end", lambda x: x + 99, "within the canvas of 20, got 119"),
    "max_end": (Fixed, "max_end", lambda x: x.float(), "`the reach` as int64"),
    "table": (Fixed, "advance", None, "must return a BlockTable, got None"),
    "table beyond": (
        Fixed, "advance", lambda t: replace(t, end=t.end + 50), "within the canvas of 20"
    ),
    "table phase": (Fixed, "advance", lambda t: replace(t, phase=t.phase * 0 + 7), "in phase 7"),
    "table kind": (Fixed, "advance", lambda t: replace(t, start=t.start.float()), "`start` as"),
    "restrict": (SubBlocks, "restrict", lambda m: m.float(), "`the mask` as bool"),
    "stop none": (Eos, "__call__", None, "must return a Stop, got None"),
    "stop tensor": (Eos, "__call__", lambda s: s.done, "must return a Stop"),
    "stop wide": (Eos, "__call__", lambda s: Stop(s.done[:, None]), r"`done` as bool \[1\]"),
    "stop number": (Eos, "__call__", lambda s: Stop(s.done.int()), "got int32"),
    "fill": (Stable, "fill", lambda f: f._replace(rows=True), "`rows` as bool"),
    "fill none": (Stable, "fill", None, "must return a Fill, got None"),
    "fill scratch": (Stable, "fill", lambda f: f._replace(scratch={"x": f.rows}), "declared"),
    "spent": (MaxNFE, "spent", lambda _: "yes", "must return True or False, got 'yes'"),
    "plan": (NoCache, "plan", None, "must return a ForwardPlan, got None"),
    "plan rows": (
        NoCache, "plan", lambda p: replace(p, purposes=p.purposes * 3), "must plan for 1 rows"
    ),
    "plan empty": (NoCache, "plan", lambda p: replace(p, segments=()), "segments of the rows"),
    "extend": (Shadows, "extend", None, "must return a ForwardPlan, got None"),
    "bind": (Threshold, "bind", None, "`bind` must return the bound part, got None"),
    "bind class": (Threshold, "bind", lambda x: type(x), "must return the bound part"),
    "bind other": (Threshold, "bind", lambda x: Bias(), "got an object of Bias"),
}  # fmt: skip
KIND_OF = {
    Bias: "guide", Fixed: "blocks", SubBlocks: "blocks", Eos: "stop", Stable: "stop",
    MaxNFE: "stop", NoCache: "cache", Shadows: "edit", Threshold: "unmask",
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_what_other_parts_answer_wrongly_is_named(engine, case):
    base, method, answer, message = OTHERS[case]
    part = instance(breaks(base, method, answer))
    with pytest.raises(RuleError, match=message) as caught:
        engine.generate(PROMPT, **{**PLAIN, KIND_OF[base]: part})
    assert caught.value.culprit.kind == KIND_OF[base]
    assert len(str(caught.value)) < 450
    engine.scheduler.check_integrity()
    assert engine.kv.pages.in_use == 0


TRAITS = {
    "needs": (Threshold, "entropy", "a frozenset of names, got 'entropy'"),
    "clock": (Threshold, 1, "True or False, got 1"),
    "arms": (Bias, 0, "an integer of at least 1, got 0"),
    "scope": (Shadows, "all", "'block' or 'row', got 'all'"),
    "multi_block": (Fixed, None, "True or False, got None"),
    "reason": (Eos, None, "a string, got None"),
    "exact": (NoCache, "yes", "True or False, got 'yes'"),
    "on_edit": (NoCache, "ignore", "'refuse' or 'requery', got 'ignore'"),
    "scratch": (Threshold, [1], "a tuple of ScratchSpec"),
}


@pytest.mark.parametrize("name", TRAITS)
def test_what_a_part_declares_wrongly_is_named_before_any_work(engine, name):
    base, value, message = TRAITS[name]
    part = type("Odd", (base,), {name: value, "__module__": __name__})()
    with pytest.raises(RuleError, match=f"`{name}` must be {message}"):
        engine.submit(PROMPT, **{**PLAIN, KIND_OF[base]: part})


def test_tokens_may_be_anything_where_nothing_is_written(engine):
    class Picks(Threshold):
        def propose(self, view):
            commit = view.eligible & (view.pos == view.pos.masked_fill(~view.eligible, 999).amin(1))
            token = torch.where(commit, 7, -1)
            return Proposal(commit, token=token.int())

    assert engine.generate(PROMPT, **{**PLAIN, "unmask": Picks()}).ids == (7,) * 16


def test_rows_of_parts_with_tensors_do_not_disturb_each_other(engine):
    @dataclass(frozen=True, eq=False)
    class Weighs(Threshold):
        weights: Any = None

        def propose(self, view):
            assert self.weights is not None
            return Proposal(view.eligible)

    parts = [Weighs(weights=torch.ones(3)), Weighs(weights=torch.zeros(3))]
    requests = [engine.submit(PROMPT, **{**PLAIN, "unmask": part}) for part in parts]
    first, second = (request.result() for request in requests)
    assert first.canvas == second.canvas


def test_editors_of_a_row_are_checked_like_all_others():
    spec = tiny_spec()
    engine = Engine(random_decoder(spec), info_of(spec))
    part = breaks(RCR, "edit", lambda p: p._replace(remask=p.commit[0]))()
    with pytest.raises(RuleError, match=r"edit part BrokenRCR .*`remask`"):
        engine.generate(PROMPT, **{**PLAIN, "unmask": "everything", "edit": part})


@pytest.mark.parametrize(
    ("field", "value"),
    [("hold", torch.ones(3)), ("hold", torch.ones(2, dtype=torch.bool)), ("commit", None)],
)
def test_what_is_held_and_how_masks_are_stored_is_looked_at(engine, field, value):
    @dataclass(frozen=True)
    class Holds(Threshold):
        def propose(self, view):
            wrong = view.eligible.to_sparse() if value is None else value
            return Proposal(view.eligible)._replace(**{field: wrong})

    with pytest.raises(RuleError, match=f"Holds .*`{field}` as"):
        engine.generate(PROMPT, **{**PLAIN, "unmask": Holds()})


@dataclass(frozen=True)
class Everything(dlm.Unmasker):
    def propose(self, view):
        return Proposal(view.eligible)


@dataclass(frozen=True)
class Plain(Guide):
    def __call__(self, logits, frame, params):
        return logits


@dataclass(frozen=True)
class Agrees(Editor):
    scope = "row"

    def edit(self, view, proposal):
        return proposal


@dataclass(frozen=True)
class Never(dlm.StopRule):
    def __call__(self, rows, view):
        return Stop(torch.zeros_like(view.row.step, dtype=torch.bool))


@dataclass(frozen=True)
class Unbounded(dlm.Budget):
    def spent(self, nfe, seconds):
        return False


@dataclass(frozen=True)
class Halves(dlm.BlockScheduler):
    def max_end(self, rows, params):
        return rows.host.next_unopened + (rows.host.length - rows.host.prompt) // 2

    def advance(self, table, progress, params):
        return advance_in_order(table, progress, 1)


@dataclass(frozen=True)
class Recomputes(dlm.CacheManager):
    def plan(self, rows):
        return NoCache().plan(rows)


@pytest.mark.parametrize(
    ("kind", "part", "like"),
    [
        ("unmask", Everything(), "everything"),
        ("guide", Plain(), ()),
        ("edit", Agrees(), ()),
        ("stop", Never(), "none"),
        ("stop", ("none", Unbounded()), "none"),
        ("blocks", Halves(), "fixed(8)"),
        ("cache", Recomputes(), "none"),
    ],
    ids=str,
)
def test_a_part_states_what_it_must_and_nothing_else(engine, kind, part, like):
    """Its method alone: all traits have defaults, which are right for a part that says nothing."""
    options = {**PLAIN, kind: part}
    if kind == "edit":
        options["stop"] = "none"
    answer = engine.generate(PROMPT, **options)
    assert answer.canvas == engine.generate(PROMPT, **{**PLAIN, kind: like}).canvas
    assert answer.stats.nfe == engine.generate(PROMPT, **{**PLAIN, kind: like}).stats.nfe
    assert "[own rule]" in str(engine.explain(**options))
    assert engine.kv.pages.in_use == 0
