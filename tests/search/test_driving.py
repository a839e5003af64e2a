"""Searches that are driven from outside: step by step, interrupted, bounded, for strangers."""

from dataclasses import dataclass, replace

import pytest

import dlm
from dlm.errors import Interrupted, InvalidRequest
from dlm.search import Advance, Context, Drop, Run, Score, Start, finish
from dlm.search.names import POLICIES

PROMPT = "Countdown: use 2 10 3 to make 9."
OPTIONS = {"temperature": 1.0, "max_new_tokens": 24, "seed": 1}


@pytest.fixture(scope="module")
def engine():
    return dlm.load(device="cpu")


@dataclass(frozen=True, slots=True)
class Holding(dlm.Policy):
    """Starts rows one after another, and lets every second one go at once."""

    n: int = 6

    def run(self, search: Context) -> Run:
        for edge in range(self.n):
            (node,) = yield [Start(edge)]
            if edge % 2:
                yield [Drop(node)]
        (last,) = yield [Start(self.n)]
        return (yield from finish(last))


@dataclass(frozen=True, slots=True)
class Varied(dlm.Policy):
    """Starts a row with an option of its own."""

    unmask: str

    def run(self, search: Context) -> Run:
        (node,) = yield [Start(0, {"unmask": self.unmask})]
        yield [Advance(node)]
        ((candidate,),) = yield [Score([node])]
        return candidate


def prepared(engine, search, **given):
    return engine.prepare_search(PROMPT, dlm.SearchOptions(search, **given), OPTIONS)


def test_steps_tell_costs_and_the_best_so_far(engine):
    job = prepared(engine, "best_of(5, width=2)")
    spent, bests, counts = [], [], []
    for one in engine.search_steps(job):
        assert one is job
        spent.append(one.costs().nfe)
        bests.append(one.best)
        counts.append(len(one.candidates))
    assert spent == sorted(spent)
    assert counts == sorted(counts)
    assert counts[-1] == 5
    found = job.result()
    assert bests[-1].answer == found.best
    assert spent[-1] == found.costs.nfe
    again = engine.search(PROMPT, "best_of(5, width=2)", **OPTIONS)
    assert (found.best.ids, found.score) == (again.best.ids, again.score)


def test_leaving_the_loop_ends_the_search(engine):
    job = prepared(engine, "best_of(50, width=2)")
    for one in engine.search_steps(job):
        if len(one.candidates) >= 2:
            break
    assert job.done
    assert job.result().reason == "abort"
    assert engine.live == engine.waiting == 0
    assert engine.kv.pages.usage == 0


def stop_after(monkeypatch, steps):
    own, left = dlm.Engine.step, iter(range(steps))

    def step(engine):
        if next(left, None) is None:
            raise KeyboardInterrupt
        own(engine)

    monkeypatch.setattr(dlm.Engine, "step", step)


def test_an_interrupt_carries_what_there_is(engine, monkeypatch):
    stop_after(monkeypatch, 15)
    with pytest.raises(Interrupted) as stopped:
        engine.search(PROMPT, "best_of(50, width=2)", **OPTIONS)
    partial = stopped.value.partial
    assert isinstance(partial, dlm.SearchResult)
    assert partial.reason == "abort"
    assert engine.kv.pages.usage == 0


def test_an_interrupt_of_generate_carries_generations(engine, monkeypatch):
    whole = engine.generate(PROMPT, search="best_of(1)", **OPTIONS)
    stop_after(monkeypatch, whole.stats.nfe + 3)
    with pytest.raises(Interrupted) as stopped:
        engine.generate([PROMPT, PROMPT, PROMPT], search="best_of(1)", **OPTIONS)
    first, second = stopped.value.partial
    assert first.text == whole.text
    assert second.search["reason"] == "abort"


def test_an_interrupt_between_prompts_keeps_the_answers_before(engine, monkeypatch):
    whole = engine.generate(PROMPT, search="best_of(1)", **OPTIONS)
    stop_after(monkeypatch, whole.stats.nfe)
    with pytest.raises(Interrupted) as stopped:
        engine.generate([PROMPT, PROMPT], search="best_of(1)", **OPTIONS)
    (only,) = stopped.value.partial
    assert only.text == whole.text


def test_an_interrupt_before_the_first_step_is_one(engine, monkeypatch):
    stop_after(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt) as stopped:
        engine.search(PROMPT, "best_of(2)", **OPTIONS)
    assert not isinstance(stopped.value, Interrupted)
    assert engine.kv.pages.usage == 0


def test_rows_that_are_let_go_are_not_held(engine):
    job = prepared(engine, Holding(6), most_rows=4)
    list(engine.search_steps(job))
    assert job.result().reason == "done"
    assert job.rows == 0


def test_more_rows_than_allowed_end_a_search(engine):
    job = prepared(engine, Holding(8), most_rows=4)
    list(engine.search_steps(job))
    with pytest.raises(InvalidRequest, match="at most 4 rows"):
        job.result()
    assert engine.kv.pages.usage == 0


def test_options_that_a_policy_makes_of_a_strangers_words_are_checked(engine, monkeypatch):
    """The policy itself is one that a server would have registered."""
    registry = replace(POLICIES, entries={**POLICIES.entries, "varied": f"{__name__}:Varied"})
    monkeypatch.setattr("dlm.search.searcher.POLICIES", registry)
    for spec, fine in (("threshold(0.5)", True), ("os:PathLike()", False)):
        search = f"varied({spec!r})"
        job = prepared(engine, search, trusted=False)
        list(engine.search_steps(job))
        if fine:
            assert job.result().text is not None
        else:
            with pytest.raises(InvalidRequest, match="for trusted code alone"):
                job.result()


def test_a_summary_is_json(engine):
    @dataclass(frozen=True, slots=True)
    class Fails(dlm.Verifier):
        def score(self, answers, question):
            raise RuntimeError

    found = engine.search(PROMPT, "best_of(2)", verifier=Fails(), **OPTIONS)
    assert found.score == float("-inf")
    assert found.summary()["score"] is None
    assert found.answer().search == found.summary()
