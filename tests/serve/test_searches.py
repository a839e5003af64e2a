"""Searches over HTTP: equal to those of the engine, streamed, bounded, refused by field."""

from __future__ import annotations

import math
import random
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import dlm
from dlm.evals.tasks.mix import sample
from dlm.search.names import POLICIES
from tests.serve.live import PATIENCE, LiveServer, frames
from tests.serve.test_streams import connect, send

PATH = "/v1/chat/completions"
COUNTDOWN = [{"role": "user", "content": "Countdown: use 2 10 3 to make 9."}]
BODY = {"messages": COUNTDOWN, "max_tokens": 32, "temperature": 1, "seed": 3}
SPEC = "best_of(6, width=3)"
LEDGER = dlm.SearchCosts.__dataclass_fields__.keys()


@pytest.fixture(scope="module")
def local(engine):
    """The same search in this process."""
    return engine.search(COUNTDOWN, SPEC, temperature=1, seed=3, max_new_tokens=32)


def value_of(server, name):
    """The value of a metric without labels."""
    return float(re.search(rf"^{name} (\S+)$", server.text("/metrics"), re.M)[1])


def asked(**own):
    return {**BODY, "dlm": {"search": SPEC, **own}}


def test_an_answer_is_that_of_the_engine(server, local):
    reply = server.post(PATH, asked()).json()
    assert reply["choices"][0]["message"]["content"] == local.text
    found = reply["dlm"]["search"]
    assert found.keys() >= LEDGER
    assert math.isclose(found["score"], local.score)
    assert (found["reason"], found["candidates"]) == ("done", 6)
    assert reply["dlm"]["nfe"] == found["nfe"] == local.costs.nfe
    assert reply["dlm"]["token_forwards"] == local.costs.token_forwards
    assert reply["usage"]["search"] == found
    assert reply["usage"]["completion_tokens"] == len(local.best.ids)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "12+5=", "max_tokens": 8}),
        ("/v1/fim/completions", {"prompt": "12+", "suffix": "=17", "max_tokens": 3}),
        ("/v1/responses", {"input": "12+5=?", "max_output_tokens": 16}),
    ],
)
def test_all_endpoints_that_generate_search(server, path, body):
    own = {**body, "temperature": 1, "seed": 3, "dlm": {"search": SPEC}}
    whole = server.post(path, own).json()
    assert whole["dlm"]["search"]["candidates"] == 6
    streamed = frames(server.post(path, {**own, "stream": True}).text.split("\n"))
    told = [chunk for chunk in streamed if "dlm" in chunk or "response" in chunk][-1]
    told = told.get("response", told)
    assert told["dlm"]["search"]["nfe"] == whole["dlm"]["search"]["nfe"]


def test_a_plain_stream_sends_the_answer_when_it_is_there(server, local):
    found = frames(server.post(PATH, {**asked(), "stream": True}).text.split("\n"))
    texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in found]
    assert [text for text in texts if text] == [local.text]
    assert found[-1]["choices"][0]["finish_reason"] == "stop"
    assert found[-1]["dlm"]["search"]["nfe"] == local.costs.nfe


def test_candidates_are_events(server, local):
    found = frames(server.post(PATH, {**asked(events=True), "stream": True}).text.split("\n"))
    events = [dlm.Event.from_json(c["dlm"]["event"]) for c in found if "event" in c.get("dlm", {})]
    assert [event.type for event in events] == ["candidate"] * 6
    told = {e.data["node"]: (e.data["text"], e.data["score"]) for e in events}  # as they are judged
    for one in local.candidates:
        assert told.pop(one.node) == (one.text, pytest.approx(one.score))
    assert not told


def test_a_stream_of_whole_texts_shows_the_best_so_far(server, local):
    found = frames(server.post(PATH, {**asked(), "diffusing": True}).text.split("\n"))
    shown = [
        (c["choices"][0]["delta"]["content"], c["diffusion_meta"]["diffusion_progress"])
        for c in found
        if "diffusion_meta" in c
    ]
    texts = [text for text, _ in shown]
    best = iter([point.text for point in local.curve])
    assert texts[-1] == local.text
    assert shown[-1][1] == 1.0
    assert texts[:-1]
    assert all(text in best for text in texts[:-1]), "in their order; some at once"
    assert all(0 < progress < 1 for _, progress in shown[:-1])


@pytest.mark.parametrize(
    ("param", "own"),
    [
        ("dlm.search", {"search": "bestof"}),
        ("dlm.search", {"search": 3}),
        ("dlm.search", {"search": ["best_of"]}),
        ("dlm.search", {"search": "best_of(n=0)"}),
        ("dlm.search", {"search": "best_of(m=2)"}),
        ("dlm.search", {"search": "tests.rules:Mine()"}),
        ("dlm.search", {"search": "best_of" + " " * 9000}),
        ("dlm.search", {"search": "best_of(999, width=999)"}),
        ("dlm.search", {"search": "unmaskfork(rules=('tests.rules:Mine()',))"}),
        ("dlm.verifier", {"verifier": "confidence"}),
        ("dlm.verifier", {"search": SPEC, "verifier": "tests.rules:Mine()"}),
        ("dlm.verifier", {"search": SPEC, "verifier": "lambda text: 1"}),
        ("dlm.verifier", {"search": SPEC, "verifier": {"a": 1}}),
        ("dlm.verifier", {"search": SPEC, "verifier": "exact_answer('9')"}),
        ("dlm.verifier", {"search": SPEC, "verifier": ["confidence", "exact_answer('9')"]}),
        ("dlm.verifier", {"search": SPEC, "verifier": "reward_model('/etc')"}),
        ("dlm.verifier", {"search": SPEC, "verifier": "causal_lm('/etc')"}),
        ("dlm.verifier", {"search": SPEC, "verifier": "tests(unsafe=True)"}),
        ("dlm.verifier", {"search": SPEC, "verifier": "tests"}),
        ("dlm.verifier", {"search": SPEC, "verifier": ["confidence", "tests(seconds=1.0)"]}),
        ("dlm.verifier", {"search": SPEC, "verifier": "ensemble(('causal_lm(\"/etc\")',))"}),
        ("dlm.verifier", {"search": SPEC, "verifier": ["confidence"] * 65}),
        ("dlm.budget", {"search": SPEC, "budget": {"forwards": 5}}),
        ("dlm.budget", {"search": SPEC, "budget": 400}),
        ("dlm.budget.nfe", {"search": SPEC, "budget": {"nfe": 0}}),
        ("dlm.budget.nfe", {"search": SPEC, "budget": {"nfe": 4097}}),
        ("dlm.budget.seconds", {"search": SPEC, "budget": {"seconds": 0}}),
        ("dlm.target", {"search": SPEC, "target": "high"}),
        ("dlm.target", {"search": SPEC, "target": True}),
        ("dlm.target", {"target": 1}),
        ("dlm.serch", {"serch": SPEC}),
        ("dlm.allow_oracle", {"search": SPEC, "allow_oracle": True}),
    ],
    ids=str,
)
def test_wrong_fields_are_refused_by_name(server, param, own):
    reply = server.post(PATH, {**BODY, "dlm": own})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("param", "more", "words"),
    [
        ("n", {"n": 2}, "beside `dlm.search`"),
        ("temperature", {"temperature": 0}, "above 0"),
        ("max_tokens", {"max_tokens": 10**6}, "positions of a canvas"),
    ],
)
def test_fields_that_do_not_go_with_a_search(server, param, more, words):
    reply = server.post(PATH, {**asked(), **more})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert words in reply.json()["error"]["message"]


def test_a_search_has_one_prompt(server):
    body = {"prompt": ["1+1=", "2+2="], "temperature": 1, "dlm": {"search": SPEC}}
    assert server.post("/v1/completions", body).json()["error"]["param"] == "prompt"


def test_a_budget_is_kept(server):
    found = server.post(PATH, asked(budget={"nfe": 25})).json()["dlm"]["search"]
    assert found["nfe"] <= 25
    assert found["reason"] == "budget"
    reply = server.post(PATH, asked(budget={"seconds": 1e-6}))
    assert (reply.status_code, reply.json()["dlm"]["search"]["reason"]) == (200, "budget")


def test_arguments_are_named_in_one_way(server):
    for spec, rule in (
        ("best_of(0)", "`n` must be an integer of at least 1, got 0"),
        ("best_of(m=2)", "an argument of best_of must be one of 'n', 'width', got 'm'"),
        ("cascade(('best_of(0)',))", "in `stages` of cascade: `n` must be"),
    ):
        error = server.post(PATH, asked(search=spec)).json()["error"]
        assert error["message"].startswith(f"`dlm.search`: {rule}")


SPECS = (
    "best_of({n}, width={width})",
    "neighbours(starts={width}, rounds={n})",
    "smc(n={n}, segments=2)",
    "self_smc(n={n}, segments=3)",
    "tree(rollouts={n}, segments=3)",
    "unmaskfork(rollouts={n}, segments=2)",
    "vote({n}, weigh=True)",
    "beam(width={width})",
    "cascade(('best_of({width})', 'neighbours'))",
    "prism",
    "gibbs(n={width}, segments=2, sweeps=2)",
    "shortlist(rows={n})",
    "blocks_mh(moves={n})",
    "paths(width={width})",
    "rollover(starts={n})",
    "feedback(rounds={n})",
)
JUDGES = ("confidence", "countdown", "path_logprob", "majority", "self_verify")


def random_searches(count):
    """Bodies, and the same for the engine: every policy, most verifiers."""
    rng = random.Random(5)
    for number in range(count):
        judge = JUDGES[number % len(JUDGES)]
        task = "countdown" if judge == "countdown" else rng.choice(("math", "countdown"))
        talk = [{"role": "user", "content": sample(rng, "test", task).prompt}]
        spec = SPECS[number % len(SPECS)]
        spec = spec.format(n=rng.randint(2, 6), width=rng.randint(1, 3))
        shared = {"temperature": rng.choice((0.7, 1.0)), "seed": number}
        own = {"unmask": rng.choice(("threshold(0.7)", "topk", "factor")), "verifier": judge}
        own["budget"] = {"nfe": rng.randint(60, 200)}
        length = rng.randint(24, 40)
        body = {"messages": talk, "max_tokens": length, **shared, "dlm": {"search": spec, **own}}
        yield body, (talk, spec, {"max_new_tokens": length, **shared, **own})


@pytest.mark.parametrize("name", POLICIES.entries)
def test_every_policy_runs_for_strangers(server, engine, name):
    """With the options that it makes itself, within the budget, as it does in this process."""
    own = {"search": name, "budget": {"nfe": 60}, "unmask": "topk"}
    own |= {} if name in ("vote", "hex") else {"verifier": "countdown"}  # their answers vote
    reply = server.post(PATH, {**BODY, "max_tokens": 20, "dlm": own}).json()
    assert "choices" in reply, reply
    assert reply["dlm"]["search"]["nfe"] <= 60
    options = {name: value for name, value in own.items() if name != "search"}
    alone = engine.search(COUNTDOWN, name, temperature=1, seed=3, max_new_tokens=20, **options)
    assert reply["choices"][0]["message"]["content"] == alone.text


def test_many_at_once_answer_as_they_do_alone(server, engine):
    both = list(random_searches(len(SPECS)))
    with ThreadPoolExecutor(len(SPECS)) as pool:
        replies = list(pool.map(lambda one: server.post(PATH, one[0]).json(), both))
    for reply, (_, (talk, spec, options)) in zip(replies, both, strict=True):
        alone = engine.search(talk, spec, **options)
        assert "choices" in reply, (spec, reply)
        assert reply["choices"][0]["message"]["content"] == alone.text, (spec, options)
        told, expected = reply["dlm"]["search"], alone.summary()
        assert told["score"] == pytest.approx(expected["score"], abs=1e-5)
        assert (told["candidates"], told["reason"]) == (len(alone.candidates), alone.reason), spec


def ended(server):
    """The answers of clients that left."""
    line = r'^dlm:request_success_total\{finished_reason="abort"\} (\S+)$'
    found = re.search(line, server.text("/metrics"), re.M)
    return float(found[1]) if found else 0


def long_search(**more):
    own = {"search": "best_of(400, width=8)", "unmask": "topk"}
    return {**BODY, "max_tokens": 100, "ignore_eos": True, "dlm": own, **more}


def test_who_leaves_ends_the_search(server):
    """In all forms of a body; the fixture waits until nothing runs. Its forwards are measured."""
    left = value_of(server, "dlm:client_disconnects_total")
    names = ("search_candidates_total", "nfe_total", "token_forwards_total")
    before = [value_of(server, f"dlm:{name}") for name in names]
    searches, aborted = value_of(server, "dlm:search_budget_used_ratio_count"), ended(server)
    for more in ({}, {"stream": True}, {"diffusing": True}):
        with connect(server) as link:
            send(link, long_search(**more))
            until = time.monotonic() + PATIENCE
            while not server.get("/load")["running"]:
                assert time.monotonic() < until
                time.sleep(0.02)
        server.until_idle()
    assert value_of(server, "dlm:client_disconnects_total") == left + 3
    after = [value_of(server, f"dlm:{name}") for name in names]
    grown = [b - a for a, b in zip(before, after, strict=True)]
    assert grown[0] >= 0, "the best of a search without an answer is what there is"
    assert 3 <= grown[1] < grown[2]
    assert value_of(server, "dlm:search_budget_used_ratio_count") == searches + 3
    assert ended(server) == aborted + 3
    assert value_of(server, "dlm:kv_cache_usage_perc") == 0


def test_rows_of_a_search_take_places(server):
    """While one runs, its rows are those that the server tells."""
    with connect(server) as link:
        send(link, long_search())
        until, most = time.monotonic() + PATIENCE, 0
        while most < 8:
            load = server.get("/load")
            most = max(most, load["running"] + load["waiting"])
            assert time.monotonic() < until
    server.until_idle()


def test_searches_are_measured(server):
    names = ("search_candidates_total", "search_budget_used_ratio_count", "nfe_total")
    before = [value_of(server, f"dlm:{name}") for name in names]
    reply = server.post(PATH, asked(budget={"nfe": 1000})).json()
    after = [value_of(server, f"dlm:{name}") for name in names]
    grown = [b - a for a, b in zip(before, after, strict=True)]
    assert grown == [6, 1, reply["dlm"]["nfe"]]


def test_policies_and_verifiers_are_listed(server):
    told = server.get("/v1/dlm/strategies")
    best_of = next(one for one in told["policies"] if one["name"] == "best_of")
    assert best_of["arguments"][0] == {"name": "n", "type": "int", "default": 16}
    assert best_of["summary"].startswith("`best_of(n)`:")
    verifiers = {one["name"] for one in told["verifiers"]}
    assert {"confidence", "causal_lm", "self_verify"} <= verifiers
    assert not verifiers & {"tests", "hidden_tests", "exact_answer", "reward_model"}, "refused"
    assert {"search", "verifier", "budget", "target"} <= {one["name"] for one in told["options"]}


def test_a_draining_server_lets_searches_end_or_cuts_them_off(tmp_path):
    """A short one, sent before the signal, ends; a long one is told that the server ends."""
    with LiveServer(tmp_path, "--drain", "6") as live, ThreadPoolExecutor(2) as pool:
        long = pool.submit(live.post, PATH, long_search(stream=True))
        short = pool.submit(live.post, PATH, asked())
        until = time.monotonic() + PATIENCE
        while value_of(live, "dlm:request_params_n_count") < 2:
            assert time.monotonic() < until
            time.sleep(0.02)
        live.process.send_signal(signal.SIGTERM)
        assert short.result().json()["dlm"]["search"]["reason"] == "done"
        assert frames(long.result().text.split("\n"))[-1]["error"]["code"] == "draining"
        assert live.process.wait(60) == 0
