"""Servers of OpenAI's protocol in the place of a model, on a real socket."""

import json
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from dlm.cli.app import run as call
from dlm.errors import InvalidRequest
from dlm.evals.benchmarks import benchmark_items, get_protocol
from dlm.evals.endpoint import Endpoint
from dlm.evals.report import table
from dlm.evals.results import results_of
from dlm.evals.run import benchmark_run, bundled_run
from dlm.evals.sampling import Plan, answers
from dlm.evals.settings import Setting
from tests.evals.served import Served, completion

PLAIN = Setting("plain", {"max_new_tokens": 32, "unmask": "topk"})


def drawn(server, items, setting=PLAIN, rows=1):
    endpoint = Endpoint(server.url)
    plan = Plan(items, setting, rows=rows)
    return {sample.item: sample for sample in answers(endpoint, plan, plan.wanted)}


def test_texts_are_continued_and_talks_are_answered():
    with Served(lambda path, body: (200, completion("    return 1\n"))) as server:
        for protocol in ("base", "llada", "dream"):
            items = benchmark_items(get_protocol("humaneval", protocol), limit=1)
            (sample,) = drawn(server, items).values()
            assert (sample.text, sample.tokens, sample.nfe) == ("    return 1\n", 7, 0)
            assert sample.masked_left == 0
            assert sample.finish_reason == "stop"
    (raw, text), (talk, asked), (_, begun) = server.asked
    assert (raw, talk) == ("/v1/completions", "/v1/chat/completions")
    assert text["prompt"].startswith("from typing import List")
    assert text["max_tokens"] == 32
    assert text["temperature"] == 0.0, "the protocol's default would draw"
    assert [turn["role"] for turn in asked["messages"]] == ["user"]
    assert begun["messages"][-1]["role"] == "assistant"
    assert begun["continue_final_message"]
    assert not begun["add_generation_prompt"]
    assert "unmask" not in text
    assert "dlm" not in text


def test_a_question_of_the_bundled_sets_is_a_talk(tmp_path):
    with Served(lambda path, body: (200, completion("\\boxed{1}"))) as server:
        run = bundled_run(tmp_path, [PLAIN], tasks=["math"], limit=3)
        run.open(endpoint := Endpoint(server.url))
        run.generate(endpoint, lambda *told: None)
    assert {path for path, _ in server.asked} == {"/v1/chat/completions"}
    asked = [body["messages"][0]["content"] for _, body in server.asked]
    assert asked == [item.prompt for item in run.sets["math"]]


def test_four_stop_strings_are_sent_and_all_of_them_cut():
    stops = ["a1", "a2", "a3", "a4", "END"]
    setting = Setting("stops", {"max_new_tokens": 9, "stop": stops})
    items = benchmark_items(get_protocol("humaneval", "base"), limit=1)
    with Served(lambda path, body: (200, completion("x END y a2", "length"))) as server:
        (sample,) = drawn(server, items, setting).values()
    assert server.asked[0][1]["stop"] == stops[:4]
    assert sample.text == "x "


def test_a_server_of_dlm_is_told_how_to_decode():
    def answer(path, body):
        return 200, completion("1", dlm={"nfe": 5, "token_forwards": 50})

    items = benchmark_items(get_protocol("humaneval"), limit=1)
    with Served(answer, models=[("tiny", "dlm")]) as server:
        (sample,) = drawn(server, items).values()
    assert server.asked[0][1]["dlm"] == {"unmask": "topk"}
    assert (sample.nfe, sample.token_forwards) == (5, 50)


def test_a_prompt_that_is_too_long_is_refused_and_the_others_go_on():
    items = benchmark_items(get_protocol("humaneval"), limit=3)

    def answer(path, body):
        if items[1].meta["code"] in body["messages"][0]["content"]:
            told = "This model's maximum context length is 10 tokens."
            return 400, {"error": {"message": told, "type": "invalid", "code": None}}
        return 200, completion("pass")

    with Served(answer) as server:
        found = drawn(server, items, rows=3)
    reasons = [found[item.id].finish_reason for item in items]
    assert reasons == ["stop", "refused", "stop"]


def test_other_refusals_end_the_run_with_the_servers_words():
    told = {"error": {"message": "no such knob", "type": "invalid", "code": "bad"}}
    items = benchmark_items(get_protocol("humaneval"), limit=1)
    with (
        Served(lambda path, body: (400, told)) as server,
        pytest.raises(InvalidRequest, match=r"refuses: .*no such knob"),
    ):
        drawn(server, items)


@pytest.mark.parametrize("reason", [None, "eos_token", "tool_calls", "stop", "length"])
def test_a_served_answer_has_no_open_positions(reason):
    items = benchmark_items(get_protocol("humaneval"), limit=1)
    with Served(lambda path, body: (200, completion("x", reason))) as server:
        (sample,) = drawn(server, items).values()
    assert sample.masked_left == 0
    assert sample.finish_reason == ("length" if reason == "length" else "stop")


@pytest.mark.parametrize(
    ("stop", "sent", "text"),
    [
        ("eos", None, "hello eos x"),
        (["eos", "x"], ["x"], "hello eos "),
        ("o e", ["o e"], "hell"),
        (["prophet(9, 8, 7)"], None, "hello eos x"),
    ],
)
def test_stop_rules_are_no_stop_strings(stop, sent, text):
    items = benchmark_items(get_protocol("humaneval"), limit=1)
    setting = Setting("stops", {"max_new_tokens": 9, "stop": stop})
    with Served(lambda path, body: (200, completion("hello eos x"))) as server:
        (sample,) = drawn(server, items, setting).values()
        unsent = Endpoint(server.url).unsent({"a": setting.options})
    assert server.asked[0][1].get("stop") == sent
    assert sample.text == text
    assert unsent == (["stop rules"] if stop != "o e" else [])


@pytest.mark.parametrize(
    "content",
    [
        completion("x") | {"choices": []},
        completion("x") | {"choices": [{"index": 0, "message": None}]},
        {"error": "overloaded"},
        completion("x", dlm="much"),
        [1, 2],
    ],
)
def test_answers_in_another_form_are_refused_with_words(content):
    items = benchmark_items(get_protocol("humaneval"), limit=1)
    with (
        Served(lambda path, body: (200, content)) as server,
        pytest.raises(InvalidRequest, match="answers in another form"),
    ):
        drawn(server, items)


def test_a_fault_of_the_server_is_no_refusal():
    """Only what the server says of the request makes an answer wrong for good."""
    told = {"error": {"message": "no memory for context length 8192", "type": "x", "code": None}}
    items = benchmark_items(get_protocol("humaneval"), limit=1)
    with (
        Served(lambda path, body: (500, told)) as server,
        pytest.raises(InvalidRequest, match=r"`endpoint`: .*no memory"),
    ):
        drawn(server, items)


def test_a_server_that_lists_nothing_is_asked_by_name():
    with Served(lambda path, body: (200, completion("x")), models=None) as server:
        with pytest.raises(InvalidRequest, match="name one with --model"):
            Endpoint(server.url)
        assert Endpoint(server.url + "/", "any").about()["endpoint"] == server.url


def test_the_default_of_bundled_sets(tmp_path):
    wanted = ["--tasks", "math", "--limit", "2", "--out", str(tmp_path), "--quiet"]
    with Served(lambda path, body: (200, completion("\\boxed{1}"))) as server:
        assert call(["eval", "bundled", "--endpoint", server.url, *wanted]) == 0
    told = (tmp_path / "table.md").read_text()
    assert "| served | 0.0%" in told
    assert "| - | - | - | - | - | - |" in told, "no forwards are known"


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_answers(tmp_path):
    """The process ends although its request has not."""
    free = threading.Event()

    def answer(path, body):
        free.wait(900)
        return 200, completion("x")

    wanted = ["--limit", "1", "--out", str(tmp_path / "run"), "--quiet"]
    with Served(answer) as server:
        command = [sys.executable, "-m", "dlm", "eval", "humaneval", "--endpoint", server.url]
        # A shell's background jobs ignore Ctrl-C, and would hand that on.
        heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen([*command, "--allow-unsafe-code", *wanted], preexec_fn=heard)
        try:
            while not server.asked:
                time.sleep(0.05)
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(600) == 130
        finally:
            free.set()


def test_servers_that_are_none():
    for url in ("http://127.0.0.1:9/v1", "http://host:port/v1", "nothing"):
        with pytest.raises(InvalidRequest, match=f"`endpoint`: {url} does not answer"):
            Endpoint(url)
    with Served(None) as server:
        with pytest.raises(InvalidRequest, match=r"one that .* serves \(small\), got 'large'"):
            Endpoint(server.url, "large")
        server.models = ()
        with pytest.raises(InvalidRequest, match="serves no model"):
            Endpoint(server.url)


def test_the_command_and_what_its_report_says(tmp_path, capsys):
    out = tmp_path / "run"
    wanted = ["--limit", "2", "--out", str(out), "--rows", "2", "--allow-unsafe-code"]
    with Served(lambda path, body: (200, completion("pass"))) as server:
        assert call(["eval", "humaneval", "--endpoint", server.url, *wanted]) == 0
        header = json.loads((out / "run.json").read_text())
        assert header["model"]["name"] == "small"
        assert header["model"]["endpoint"] == server.url
        told = "The server decodes as it is set up; not told: blocks, guide, steps, unmask."
        assert told in (out / "table.md").read_text()
        more = ["--config", "a: unmask=topk", "--out", str(tmp_path / "b")]
        capsys.readouterr()
        assert call(["eval", "humaneval", "--endpoint", server.url, *more]) == 2
        assert "differ in nothing" in capsys.readouterr().err
    assert call(["eval", "report", str(out)]) == 0
    assert call(["eval", "humaneval", "--endpoint", "http://127.0.0.1:9/v1"]) == 2
    assert "does not answer" in capsys.readouterr().err


def test_a_page_names_the_server(tmp_path):
    with Served(lambda path, body: (200, completion("pass"))) as server:
        run = benchmark_run(tmp_path / "one", get_protocol("humaneval"), limit=1)
        run.open(endpoint := Endpoint(server.url))
        run.generate(endpoint, lambda *told: None)
    run.grade()
    assert "| llada |" in table(results_of(run))
    assert call(["eval", "report", str(tmp_path)]) == 0
    assert f"served by {server.url}; dlm" in (tmp_path / "report.md").read_text()
