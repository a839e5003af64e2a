"""Saved traces in the page: files, with and without a server; and how the page is served."""

import http.client
import random
import re
from urllib.parse import urlsplit

import pytest

import dlm
from dlm.cli import run
from dlm.cli.page import write_page
from dlm.cli.trace import read_trace, write_trace
from tests.serve.browser import COINS, DESK, PAGE, PHONE, Tab, chromium

PROMPT = "Tell me about the sea."
MASKED, GIVEN = 3, 0
EVIL = "<img src=x onerror=\"document.title='broken'\">"
WORDS = {1: "", 2: "", 5: "</script><script>document.title='broken'</script>", 6: EVIL, 7: "\n<b>"}


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def tab(browser, request):
    found = Tab(browser, request.param)
    yield found
    found.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A trace of two answers, of which tokens were taken back."""
    path = tmp_path_factory.mktemp("trace") / "run.jsonl"
    engine = dlm.load("tiny", device="cpu")
    answer = engine.generate(
        PROMPT,
        max_new_tokens=24,
        preset="revise",
        steps=8,
        n=2,
        temperature=1.5,
        seed=2,
        trace=True,
    )
    events = [event for choice in answer.choices for event in choice.trace]
    write_trace(path, events, "tiny", lambda token: engine.text.decode_inside([token]))
    assert answer.choices[0].text != answer.choices[1].text
    return path, [choice.text for choice in answer.choices]


def settled(tab):
    tab.page.select_option("#speed", "0")
    tab.ended()


def test_the_written_page_shows_the_trace_without_a_server(tab, saved, tmp_path):
    path, answers = saved
    page = tmp_path / "run.html"
    assert run(["trace", str(path), "--html", str(page), "--row", "1"]) == 0
    tab.open(page.as_uri())
    settled(tab)
    assert tab.page.locator("#model").text_content() == "tiny"
    assert tab.page.locator("#ask, aside, #modes, #viewer").filter(visible=True).count() == 0
    assert tab.answer() == answers[1]
    tab.page.select_option(".choices >> nth=0", "0")
    settled(tab)
    assert tab.answer() == answers[0]
    frames = {frame.step: frame for frame in read_trace(path).frames(0)}
    for step in random.Random(1).sample(sorted(frames), len(frames)):
        tab.seek(step)
        states = [cell.state for cell in frames[step].cells]
        assert len(tab.cells("mask")) == states.count("open") + states.count("reopened")
        assert len(tab.cells("reopened")) == states.count("reopened")
    assert not tab.scrolls_sideways()
    again = read_trace(tab.save(tmp_path / "again.jsonl"))
    assert again == read_trace(path)
    tab.page.screenshot(path=tmp_path / "viewer.png", full_page=True)


def test_the_page_itself_opens_as_a_file(tab, saved):
    path, answers = saved
    tab.open((PAGE / "index.html").as_uri())
    assert tab.page.locator("#viewer").is_visible()
    assert not tab.page.locator("#ask").is_visible()
    with tab.page.expect_file_chooser() as chooser:
        tab.page.click("#pick")
    chooser.value.set_files(path)
    tab.page.wait_for_selector(".cell:not(.hidden)")
    settled(tab)
    assert tab.answer() == answers[0]
    assert not tab.page.locator("#viewer").is_visible()


def test_a_trace_is_dropped_on_the_page_of_a_server(browser, server, saved):
    path, answers = saved
    tab = Tab(browser, DESK)
    tab.open(f"{server.url}/")
    tab.set(prompt=COINS, length=900)
    tab.pick("dlm.unmask", "topk")
    tab.page.click("#run")
    tab.page.wait_for_selector(".cell.fresh")
    tab.mode("Infill")
    data = tab.page.evaluate_handle(
        """(text) => {
          const data = new DataTransfer();
          data.items.add(new File([text], "run.jsonl"));
          return data;
        }""",
        path.read_text(),
    )
    assert tab.page.is_enabled("#stop")
    tab.page.dispatch_event("body", "drop", {"dataTransfer": data})
    tab.page.wait_for_selector("body[data-mode=generate]")
    settled(tab)
    assert tab.answer() == answers[0]
    assert tab.figure("finish") == "stop", "the run that was going on has ended"
    tab.set(length=32)
    tab.pick("dlm.unmask", "")
    tab.run()
    assert tab.figure("speed").isdecimal(), "and the page still generates"
    assert not tab.page.locator(".choices >> nth=0").is_visible()
    tab.page.set_input_files("#file", files=[
        {"name": "x.jsonl", "mimeType": "", "buffer": b"{\"v\": 1}\n"},
    ])  # fmt: skip
    told = tab.page.wait_for_selector("#alert:not([hidden])").text_content()
    assert told.startswith("This is no trace: line 1")
    tab.close()


@pytest.mark.parametrize("colour", ["confidence", "step"])
def test_no_token_becomes_markup(tab, tmp_path, colour):
    events = [
        dlm.Event("open", 0, 0, ids=(6, 5, *[2] * 4),
                  data={"prompt": 2, "settled": 2, "kinds": [GIVEN] * 2 + [MASKED] * 4}),
        dlm.Event("commit", 0, 1, (2, 3), (5, 6), (0.95, 0.2)),
        dlm.Event("commit", 0, 2, (4,), (7,), (0.5,)),
        dlm.Event("remask", 0, 3, (2,), (2,)),
        dlm.Event("commit", 0, 4, (2, 5), (6, 1), (0.5, 1.0)),
        dlm.Event("done", 0, 4, data={"reason": EVIL}),
    ]  # fmt: skip
    path, page = tmp_path / "t.jsonl", tmp_path / "t.html"
    write_trace(path, events, f"</title>{EVIL}", WORDS.__getitem__)
    write_page(read_trace(path), 0, page)
    tab.open(page.as_uri())
    tab.page.click(f"text={colour.capitalize()} >> nth=0")
    tab.page.check("#show-prompt")
    settled(tab)
    assert tab.answer() == WORDS[6] * 2 + WORDS[7]
    assert "".join(tab.cells("prompt")) == WORDS[6] + WORDS[5]
    assert tab.figure("finish") == EVIL
    assert EVIL in tab.page.text_content("#model")
    assert tab.page.locator("img, main b, main script").count() == 0
    assert tab.page.title().startswith("dlm")


# served


def fetched(server, path, **headers):
    """Status, headers and body of a path."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, {k.lower(): v for k, v in response.getheaders()}, body


def test_the_page_is_served_with_a_strict_policy(server):
    status, headers, body = fetched(server, "/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    policy = headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert fetched(server, "/", **{"If-None-Match": headers["etag"]})[0] == 304
    names = re.findall(r'\b(?:src|href)="([^"#]+)"', body.decode())
    assert {f"page/{path.name}" for path in PAGE.iterdir()} - {"page/index.html"} == set(names)
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    for name in names:
        status, headers, body = fetched(server, f"/{name}")
        assert status == 200
        assert headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
        assert body == (PAGE / name.removeprefix("page/")).read_bytes()


@pytest.mark.parametrize(
    "path", ["/page/", "/page/index.html", "/page/..%2Fapp.py", "/page/../app.py", "/page/x.js"]
)
def test_nothing_else_is_served(server, path):
    assert fetched(server, path)[0] == 404


def test_files_ask_for_nothing_from_elsewhere():
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(
            r"https?://|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text
        )
        assert len(text.splitlines()) <= 300
        if path.suffix == ".html":
            assert not re.search(r"<script>|<style|\bon\w+=|style=", text)
