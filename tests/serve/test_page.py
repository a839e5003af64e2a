"""The live page against a running server, at the width of a desk and of a phone."""

import json
import subprocess
import sys
from itertools import pairwise

import pytest

from dlm.cli.trace import read_trace
from tests.serve.browser import COINS, DESK, PHONE, Tab, chromium

SHELLS = "Nina has 13 shells and wins 24. How many has she?"
EVIL = "<img src=x onerror=\"document.title='broken'\"></textarea><script>broken()</script>"


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def tab(browser, server, request):
    """The page of the server, replaying as it comes; nothing may be told in its console."""
    found = Tab(browser, request.param)
    found.open(f"{server.url}/")
    found.page.select_option("#speed", "0")
    yield found
    found.close()


@pytest.fixture
def desk(browser, server):
    found = Tab(browser, DESK)
    found.open(f"{server.url}/")
    found.page.select_option("#speed", "0")
    yield found
    found.close()


def picture(tab, tmp_path, name):
    """Take a screenshot, which must show something, of a page that does not scroll sideways."""
    assert not tab.scrolls_sideways()
    tab.page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def plain_answer(server, **changes):
    """The text of the same request without a stream."""
    body = {
        "messages": [{"role": "user", "content": COINS}],
        "max_tokens": 64,
        "temperature": 0,
        "seed": 0,
        **changes,
    }
    return server.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]


# a run


def test_masks_settle_and_the_text_is_the_answers(tab, server, tmp_path):
    tab.set(prompt=COINS, temperature=0.7, seed=11)
    tab.pick("dlm.unmask", "topk")
    tab.run()
    assert tab.answer() == plain_answer(server, temperature=0.7, seed=11, dlm={"unmask": "topk"})
    assert tab.cells("mask") == []
    assert "".join(tab.cells("filled")) == tab.answer()
    assert tab.figure("finish") == "stop"
    assert tab.figure("forwards") == str(tab.steps)
    counts = tab.masks_at_each_step()
    assert counts[0] == 64
    assert counts[-1] == 0
    assert all(after < before for before, after in pairwise(counts)), "one token a step at least"
    picture(tab, tmp_path, "run")


def test_the_answers_of_a_search_are_listed(tab, server, tmp_path):
    tab.set(prompt=SHELLS, length=32, temperature=1, seed=4)
    tab.pick("dlm.search", "best_of")
    tab.page.fill("#strategy-a [data-argument=n]", "5")
    tab.page.fill("#strategy-a [data-field='dlm.budget.nfe']", "300")
    tab.run()
    talk = [{"role": "user", "content": SHELLS}]
    own = {"search": "best_of(n=5)", "budget": {"nfe": 300}}
    body = {"messages": talk, "max_tokens": 32, "temperature": 1, "seed": 4, "dlm": own}
    reply = server.post("/v1/chat/completions", body).json()
    rows = tab.page.locator("[data-side=A] .candidates li")
    assert rows.count() == reply["dlm"]["search"]["candidates"] == 5
    best = tab.page.locator("[data-side=A] .candidates .best .text")
    assert best.all_text_contents() == [reply["choices"][0]["message"]["content"]]
    assert tab.answer() == best.text_content()
    assert tab.figure("forwards") == f"{reply['dlm']['nfe']:.0f}"
    assert tab.figure("finish") == "done"
    picture(tab, tmp_path, "search")


def test_a_run_after_a_search_has_a_canvas(desk):
    desk.set(prompt=SHELLS, length=32, temperature=1)
    desk.pick("dlm.search", "best_of")
    desk.run()
    assert not desk.page.is_hidden("[data-side=A] .candidates")
    of_canvases = ("#ruler", ".player", "[data-side=A] [data-figure=tokens]")
    assert all(desk.page.is_hidden(one) for one in of_canvases), "a search has none"
    desk.pick("dlm.search", "")
    desk.run()
    assert desk.page.is_hidden("[data-side=A] .candidates")
    assert not any(desk.page.is_hidden(one) for one in of_canvases)
    assert desk.cells("filled")


def test_masks_come_back_only_where_tokens_are_taken_back(tab, tmp_path):
    tab.set(prompt=COINS, length=48)
    tab.pick("dlm.preset", "revise")
    tab.page.fill("#strategy-a [data-field='dlm.steps']", "12")
    tab.run()
    saved = read_trace(tab.save(tmp_path / "run.jsonl"))
    frames = {frame.step: frame for frame in saved.frames(0)}
    taken_back = 0
    for step in range(1, tab.steps + 1):
        tab.seek(step)
        states = [cell.state for cell in frames[step].cells]
        assert len(tab.cells("mask")) == states.count("open") + states.count("reopened")
        assert len(tab.cells("mask.reopened")) == states.count("reopened")
        taken_back += states.count("reopened")
    assert taken_back > 0
    saw = {event.type for event in saved.events}
    assert "remask" in saw


def test_the_canvas_is_seen_while_it_settles(desk):
    """What the page shows in the middle of a stream, at a pace."""
    desk.page.select_option("#speed", "40")
    desk.set(prompt=COINS)
    desk.pick("dlm.unmask", "topk")
    desk.page.evaluate(
        """() => {
          window.counts = [];
          const look = () => window.counts.push(document.querySelectorAll(".cell.mask").length);
          new MutationObserver(look).observe(document.querySelector(".canvas"),
            {subtree: true, childList: true, attributes: true, attributeFilter: ["class"]});
        }"""
    )
    desk.run()
    counts = desk.page.evaluate("window.counts")
    assert len({count for count in counts if count}) > 20
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(
    ("tab", "end"), [(DESK, "button"), (PHONE, "Escape")], indirect=["tab"], ids=["desk", "phone"]
)
def test_stop_frees_the_row(tab, server, end):
    tab.set(prompt=COINS, length=500)
    tab.pick("dlm.unmask", "topk")
    tab.page.click("#run")
    tab.page.wait_for_selector(".cell.fresh")
    assert server.get("/load")["running"] == 1
    if end == "button":
        tab.page.click("#stop")
    else:
        tab.page.keyboard.press("Escape")
    tab.ended()
    server.until_idle()
    assert server.get("/load")["running"] == 0
    assert tab.figure("finish") == "stopped"
    assert tab.page.text_content("#said") == "Stopped."
    assert 0 < len(tab.cells("mask")) < 500
    tab.set(length=64)
    tab.run()
    assert tab.figure("finish") == "stop", "the next run is whole"


@pytest.mark.parametrize(
    ("tab", "in_turn"), [(DESK, False), (PHONE, True)], indirect=["tab"], ids=["desk", "phone"]
)
def test_two_strategies_side_by_side(tab, server, tmp_path, in_turn):
    tab.set(prompt=COINS)
    tab.page.check("#compare")
    tab.page.set_checked("#in-turn", in_turn)
    tab.pick("dlm.preset", "fast", "a")
    tab.pick("dlm.preset", "quality", "b")
    assert tab.page.text_content("#whose") == " of B"
    tab.run()
    for side, preset in (("A", "fast"), ("B", "quality")):
        assert tab.answer(side) == plain_answer(server, dlm={"preset": preset})
        assert int(tab.figure("speed", side)) > 0
    assert int(tab.figure("forwards", "A")) < int(tab.figure("forwards", "B")) == tab.steps == 64
    tab.seek(tab.steps - 1)
    assert tab.cells("mask", "A") == []
    assert len(tab.cells("mask", "B")) == 1
    picture(tab, tmp_path, "pair")


def test_infill(tab, server, tmp_path):
    tab.mode("Infill")
    tab.set(instruction=SHELLS, template="13+24=")
    tab.set(hole_size=2)
    tab.page.click("#hole")
    template = "13+24=[[mask:2]]\n\\boxed{[[mask:2]]}"
    assert tab.page.input_value("#template") == "13+24=[[mask:2]]"
    tab.set(template=template)
    tab.run()
    messages = [{"role": "user", "content": SHELLS}]
    expected = plain_answer(server, messages=messages, max_tokens=None, dlm={"infill": template})
    assert tab.answer() == expected == "13+24=37\n\\boxed{37}"
    assert "".join(tab.cells("given")) == "13+24=\n\\boxed{}"
    assert "".join(tab.cells("filled")) == "3737"
    picture(tab, tmp_path, "infill")


def test_decisions(tab, server, tmp_path):
    tab.mode("Decisions")
    tab.set(decision_input="Compute 8*31.\nAnswer: 8+31=39")
    tab.page.click("#add-question")
    last = tab.page.locator(".question >> nth=-1")
    last.locator("select").select_option("score")
    last.get_by_label("Name").fill(EVIL)
    last.get_by_label("Instructions").fill("How right is it?")
    last.get_by_label("Options").fill("wrong | not at all\nright")
    tab.page.click("#run")
    tab.page.wait_for_selector(".card.answer")
    asked = json.loads(tab.page.text_content("#snippet"))
    assert [question["type"] for question in asked["questions"]] == ["predicate", "choice", "score"]
    assert asked["questions"][2]["levels"][0] == {"label": "wrong", "description": "not at all"}
    answers = server.post("/v1/decisions", asked).json()["answers"]
    shown = [
        [float(text.split()[0]) for text in card.locator(".number").all_text_contents()]
        for card in tab.page.locator(".card.answer").all()
    ]
    yes = answers[0]["probability"]
    shares = [
        [yes, 1 - yes],
        *([p["probability"] for p in a["probabilities"]] for a in answers[1:]),
    ]
    assert shown == [pytest.approx([100 * share for share in row], abs=0.06) for row in shares]
    assert tab.page.text_content(".card.answer >> nth=2 >> h3") == EVIL
    picture(tab, tmp_path, "decisions")
    tab.page.locator(".question >> nth=-1").get_by_role("button").click()
    assert tab.page.locator(".question").count() == 2


# controls


def test_controls_make_the_request(desk, server):
    prompt = 'It\'s "so"\n$HOME `id` \\ é'
    desk.set(prompt=prompt)
    whole = {
        "model": "tiny",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 64,
        "temperature": 0,
        "seed": 0,
    }
    assert json.loads(desk.page.text_content("#snippet")) == whole
    desk.pick("dlm.unmask", "leap")
    desk.page.fill("#strategy-a [data-argument=radius]", "2")
    desk.page.select_option("#strategy-a [data-argument=decay]", "True")
    desk.pick("dlm.cache", "dual")
    desk.page.select_option("#strategy-a [data-argument=on_edit]", "requery")
    desk.pick(
        "reasoning_effort",
        desk.page.locator("[data-field=reasoning_effort] option").all_inner_texts()[-1],
    )
    expected = {"unmask": "leap(radius=2, decay=True)", "cache": "dual(on_edit='requery')"}
    asked = json.loads(desk.page.text_content("#snippet"))
    assert asked.pop("reasoning_effort")
    assert asked == whole | {"dlm": expected}
    desk.run()
    desk.page.click("text=curl")
    command = desk.page.text_content("#snippet")
    told = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert json.loads(told)["choices"][0]["message"]["content"] == desk.answer()
    desk.page.click("text=Python")
    code = desk.page.text_content("#snippet")
    pytest.importorskip("openai")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.rstrip("\n") == desk.answer()


def test_errors_name_their_field(browser, server, tmp_path):
    for size in (DESK, PHONE):
        tab = Tab(browser, size)
        tab.open(f"{server.url}/")
        tab.pick("dlm.edit", "rcr")
        tab.page.click("#run")
        alert = tab.page.wait_for_selector("#alert:not([hidden])").text_content()
        assert "edit" in alert
        assert "use 'everything'" in alert
        assert tab.page.get_attribute("[data-field='dlm.edit']", "aria-invalid") == "true"
        picture(tab, tmp_path, f"error-{size[0]}")
        tab.pick("dlm.edit", "")
        tab.set(prompt=COINS)
        tab.run()
        assert tab.page.locator("#alert").is_hidden()
        assert tab.page.locator("[aria-invalid]").count() == 0
        assert all("400 (Bad Request)" in line for line in tab.told), "the browser's own line"
        assert len(tab.told) == 1
        tab.page.close()


def test_a_wrong_number_holds_back_the_modes_that_have_it(tab):
    tab.set(prompt=COINS, seed=1.5)
    tab.page.click("#run")
    assert tab.page.evaluate("document.activeElement.id") == "seed", "the browser points at it"
    assert tab.page.locator("#stop").is_disabled()
    tab.page.keyboard.press("Control+Enter")
    assert tab.page.locator("#stop").is_disabled()
    tab.mode("Decisions")
    tab.page.click("#run")
    tab.page.wait_for_selector(".card.answer")


@pytest.mark.parametrize("act", ["edit", "mode", "refused run"])
def test_an_error_goes_when_its_request_does(browser, server, act):
    tab = Tab(browser, DESK)
    tab.open(f"{server.url}/")
    tab.pick("dlm.edit", "rcr")
    tab.page.click("#run")
    tab.page.wait_for_selector("#alert:not([hidden])")
    tab.page.click("text=curl")
    assert tab.page.locator("#alert").is_visible(), "the request is the same"
    if act == "edit":
        tab.set(prompt=COINS)
    elif act == "mode":
        tab.mode("Decisions")
    else:
        tab.page.evaluate("document.getElementById('seed').value = 1.5")
        tab.page.click("#run")
    assert tab.page.locator("#alert").is_hidden()
    assert tab.page.locator("[aria-invalid]").count() == 0
    tab.page.close()


def broken_stream(*chunks):
    """The start of a stream."""
    head = {"choices": [{"index": 0, "delta": {}, "finish_reason": None}]}
    return "".join(f"data: {json.dumps({**head, **chunk})}\n\n" for chunk in chunks)


@pytest.mark.parametrize("kind", ["error", "cut", "gone"])
def test_broken_streams_are_told(browser, server, kind):
    opened = {"v": 1, "type": "open", "row": 0, "step": 0, "ids": [4], "text": [""]}
    opened["data"] = {"prompt": 0, "settled": 0, "kinds": [3]}
    started = broken_stream({"dlm": {"event": opened}})
    error = broken_stream({"error": {"message": "the model fell over", "param": None}})

    def answer(route):
        if kind == "gone":
            return route.abort()
        body = started + (error if kind == "error" else "")
        return route.fulfill(body=body, headers={"Content-Type": "text/event-stream"})

    tab = Tab(browser, DESK)
    tab.open(f"{server.url}/")
    tab.page.route("**/chat/completions", answer)
    tab.run()
    told = {"error": "the model fell over", "gone": "the server cannot be reached"}
    alert = tab.page.text_content("#alert")
    assert alert == told.get(kind, "the stream ended before its end was told")
    assert len(tab.cells("mask")) == (0 if kind == "gone" else 1)
    assert kind == "gone" or tab.figure("finish") == "error"
    tab.page.unroute("**/chat/completions")
    tab.run()
    assert tab.figure("finish") == "stop"
    tab.page.close()


def test_a_key_is_asked_for_and_stays_in_the_tab(browser, server):
    tab = Tab(browser, DESK)
    asked = []

    def guard(route):
        asked.append(route.request.headers.get("authorization"))
        if asked[-1] == "Bearer s3cret":
            return route.continue_()
        body = {"error": {"message": "wrong key", "type": "authentication_error", "param": None}}
        return route.fulfill(status=401, json=body)

    tab.page.route("**/v1/**", guard)
    tab.open(f"{server.url}/")
    assert tab.page.text_content("#alert") == "wrong key"
    assert tab.page.evaluate("document.activeElement.id") == "key"
    tab.page.keyboard.type("s3cret")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("body[data-server=ready]")
    tab.run()
    assert asked == [None, "Bearer s3cret", "Bearer s3cret"]
    assert "s3cret" not in tab.page.content(), "nor in the snippets"
    tab.page.click("text=curl")
    assert "$DLM_API_KEY" in tab.page.text_content("#snippet")
    tab.page.reload()
    tab.page.wait_for_selector("body[data-server=ready]")
    assert tab.page.evaluate("localStorage.length") == 0
    tab.page.close()


def test_text_is_never_markup(tab, server):
    tab.set(prompt=EVIL)
    tab.page.check("#show-prompt")
    tab.run()
    assert EVIL in "".join(tab.cells("prompt"))
    assert tab.page.locator("img, main script").count() == 0
    tab.page.click("text=curl")
    assert "onerror" in tab.page.text_content("#snippet")
    assert tab.page.title().startswith("dlm")
