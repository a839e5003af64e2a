"""The page's scripts, tried in Chromium: replaying events as Python does, traces, streams."""

import json
import random

import pytest

import dlm
from dlm.cli.trace import read_trace, write_trace
from tests.serve.browser import DESK, Tab, chromium, scripts

RULES = (
    {"unmask": "topk"},
    {"unmask": "threshold(0.7)", "edit": "rewrite(threshold=0.5)"},
    {"unmask": "everything", "edit": "rcr", "blocks": "whole"},
    {"unmask": "everything", "edit": "rcr(schedule='cosine')", "blocks": "whole", "cache": "none"},
    {"unmask": "leap", "blocks": "adaptive"},
)
CANVAS = """(lines) => {
  const events = lines.map(dlm.readEvent);
  const fields = ({ids, kinds, conf, drawn, prompt, settled, reason}) =>
    ({ids, kinds, conf, drawn, prompt, settled, reason});
  return [...dlm.replay(events)].map(([row, canvas]) => [row, fields(canvas)]);
}"""


@pytest.fixture(scope="module")
def tab():
    with chromium() as browser:
        found = Tab(browser, DESK)
        scripts(found, "replay.js", "trace.js", "api.js")
        yield found
        found.close()


@pytest.fixture(scope="module")
def engine():
    return dlm.load("tiny", device="cpu")


def random_runs(engine, count):
    """The events of requests with random rules, lengths, seeds and temperatures."""
    draw = random.Random(20)
    for index in range(count):
        rules = RULES[index % len(RULES)]
        steps = {"steps": draw.randint(2, 12)} if "rcr" in rules.get("edit", "") else {}
        request = engine.submit(
            draw.choice(["Sort these words: wolf, cow.", "Sudoku:\n0200\n0040\n3000\n0403", "é—"]),
            max_new_tokens=draw.randint(1, 40),
            temperature=draw.choice([0.0, 0.9]),
            seed=index,
            n=draw.choice([1, 1, 2]),
            **rules,
            **steps,
        )
        yield list(request.events())


def told(canvas):
    """A canvas of Python as JSON gives it."""
    return {
        "ids": canvas.ids,
        "kinds": [int(kind) for kind in canvas.kinds],
        "conf": canvas.conf,
        "drawn": canvas.drawn,
        "prompt": canvas.prompt,
        "settled": canvas.settled,
        "reason": canvas.reason,
    }


def test_replaying_gives_the_canvas_that_python_gives(tab, engine):
    seen = set()
    for events in random_runs(engine, 50):
        lines = [event.to_json() for event in events]
        found = dict(tab.page.evaluate(CANVAS, lines))
        assert found == {row: told(canvas) for row, canvas in dlm.replay(events).items()}
        seen |= {event.type for event in events}
    assert seen >= {"open", "block", "commit", "remask", "replace", "settle", "done"}


def test_a_snapshot_takes_the_place_of_what_came_before(tab, engine):
    events = list(engine.submit("hello", max_new_tokens=24, unmask="topk").events())
    for cut in (3, len(events) // 2, len(events) - 2):
        canvas = dlm.replay(events[:cut])[0]
        later = [*events[:cut], canvas.opened(0, events[cut].step), *events[cut:]]
        found = dict(tab.page.evaluate(CANVAS, [event.to_json() for event in later]))
        assert found[0] == told(dlm.replay(later)[0])


def test_redrawn_positions_are_open_again(tab):
    noise = {"prompt": 0, "settled": 0, "kinds": [4, 4]}
    events = [
        dlm.Event("open", 0, 0, ids=(5, 6), data=noise),
        dlm.Event("renoise", 0, 1, (1,), (7,)),
        dlm.Event("commit", 0, 1, (0,), (8,), (0.5,), (0.25,)),
        dlm.Event("remask", 0, 2, (0,), (9,)),
    ]
    (found,) = (canvas for _, canvas in tab.page.evaluate(CANVAS, [e.to_json() for e in events]))
    assert found == told(dlm.replay(events)[0])
    assert found["kinds"] == [4, 4]


OPEN = {"v": 1, "type": "open", "row": 0, "step": 0, "ids": [4, 4]}
OPEN["data"] = {"prompt": 0, "settled": 0, "kinds": [3, 3]}
COMMIT = {"v": 1, "type": "commit", "row": 0, "step": 1, "pos": [0], "ids": [9], "conf": [0.5]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([OPEN, COMMIT, COMMIT], "line 3 is no event that can follow: commit in step 1 at 0"),
        ([OPEN, COMMIT | {"pos": [2]}], "line 2 is no event that can follow: commit at 2, outside"),
        ([OPEN | {"v": 2}], "version must be 1, got 2"),
        ([OPEN | {"type": "wish"}], "cannot replay an event of type"),
        ([OPEN | {"data": {"kinds": [3]}}], "one kind for each id"),
        ([OPEN | {"ids": "ab"}], "ids must be a list"),
        (["{]"], "line 1 is no event that can follow"),
        ([], "the file holds no events"),
    ],
)
def test_broken_traces_say_what_is_wrong(tab, lines, message):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    read = "(text) => { try { dlm.readTrace(text); return ''; } catch (e) { return e.message; } }"
    assert message in tab.page.evaluate(read, text)


def test_traces_go_to_and_fro(tab, engine, tmp_path):
    events = list(engine.submit("hello", max_new_tokens=24, n=2, temperature=1.0).events())
    texts = {4: "é\u2028<b>\x85", 5: "\U0001f43a"}
    path = tmp_path / "t.jsonl"
    write_trace(path, events, "tiny", lambda token: texts.get(token, f"{token}'"))
    again = """(text) => {
      const {model, rows} = dlm.readTrace(text);
      return dlm.writeTrace(model, [...rows.values()]);
    }"""
    written = tab.page.evaluate(again, path.read_text())
    (tmp_path / "again.jsonl").write_text(written)
    first, second = read_trace(path), read_trace(tmp_path / "again.jsonl")
    assert [e for e in second.events if e.row == 1] == [e for e in events if e.row == 1]
    assert len(second.events) == len(events)
    assert (second.model, second.texts) == (first.model, first.texts)


def test_any_step_can_be_gone_to(tab, engine):
    events = list(engine.submit("hello", max_new_tokens=32, steps=8, preset="revise").events())
    steps = [event.step for event in events]
    order = random.Random(3).sample(range(max(steps) + 1), max(steps) + 1)
    walk = """([lines, order]) => {
      const recording = new dlm.Recording();
      lines.forEach((line) => recording.add(dlm.readEvent(line)));
      return order.map((step) => [...recording.at(step).canvas.ids]);
    }"""
    found = tab.page.evaluate(walk, [[event.to_json() for event in events], order])
    for step, ids in zip(order, found, strict=True):
        until = [event for event in events if event.step <= step]
        assert ids == dlm.replay(until)[0].ids


# streams

STREAM = (
    ': keep-alive\n\ndata: {"text": "wölf 🐺"}\n\nevent: x\r\ndata: {"a":\r\ndata:1}\r\n\r\n'
    "id: 3\rdata:  two\r\rretry: 5\n\n\ndata\n\ndata: [DONE]\n\n"
).encode()
FOUND = ['{"text": "wölf 🐺"}', '{"a":\n1}', " two", "", "[DONE]"]
PARSE = """(pieces) => {
  const parser = new dlm.EventParser();
  return pieces.flatMap((piece) => parser.push(new Uint8Array(piece)));
}"""


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, len(STREAM)])
def test_streams_may_be_cut_anywhere(tab, size):
    pieces = [list(STREAM[at : at + size]) for at in range(0, len(STREAM), size)]
    assert tab.page.evaluate(PARSE, pieces) == FOUND


def test_streams_may_be_cut_in_two_at_every_byte(tab):
    for at in range(len(STREAM) + 1):
        assert tab.page.evaluate(PARSE, [list(STREAM[:at]), list(STREAM[at:])]) == FOUND
