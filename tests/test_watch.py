"""Watching: frames of events, pictures in terminals of any width, saved traces, conversations."""

import io
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

import dlm
from dlm.cli import app, chat
from dlm.cli.frames import END, Cell, Frame, FrameBuilder, frames_of
from dlm.cli.page import write_page
from dlm.cli.screen import Screen, colour, figures, one_line, picture
from dlm.cli.trace import read_trace, write_picture, write_trace
from dlm.errors import InvalidRequest

MASKED, DONE, GIVEN = 3, 1, 0
WORDS = {5: "a", 6: " b", 7: "\n", 8: "c", 1: ""}
EVENTS = [
    dlm.Event("open", 0, 0, ids=(9, 9, *[2] * 5),
              data={"prompt": 2, "settled": 2, "kinds": [GIVEN] * 2 + [MASKED] * 5}),
    dlm.Event("block", 0, 1, (2, 5)),
    dlm.Event("commit", 0, 1, (2, 4), (5, 7), (0.95, 0.2)),
    dlm.Event("remask", 0, 2, (4,), (2,)),
    dlm.Event("commit", 0, 2, (3,), (6,), (0.5,)),
    dlm.Event("settle", 0, 2, (4,)),
    dlm.Event("commit", 0, 4, (4,), (1,), (0.7,)),
    dlm.Event("done", 0, 4, data={"reason": "stop"}),
]  # fmt: skip


def recorded_frames():
    return list(frames_of(EVENTS, WORDS.__getitem__))


def test_a_film_has_a_shot_for_each_step_that_changed_something():
    frames = recorded_frames()
    assert [frame.step for frame in frames] == [1, 2, 4]
    states = [[cell.state for cell in frame.cells] for frame in frames]
    assert states == [
        ["fresh", "open", "fresh", "open", "open"],
        ["kept", "fresh", "reopened", "open", "open"],
        ["kept", "kept", "fresh", "dead", "dead"],
    ]
    assert frames[0].cells[0] == Cell(2, "a", 0.95, "fresh")
    assert frames[2].cells[2] == Cell(4, END, 0.7, "fresh")
    assert [frame.tokens for frame in frames] == [2, 2, 2], "what is behind the end does not count"
    assert [frame.settled for frame in frames] == [2, 4, 4]
    assert [frame.reason for frame in frames] == [None, None, "stop"]
    assert frames[0].borders == {2}


def test_a_film_follows_a_real_row_to_its_answer():
    engine = dlm.load("tiny", device="cpu")
    assert engine.text is not None
    request = engine.submit("Sort these words: wolf, cow, cat.", max_new_tokens=32)
    decode_token = chat.token_decoder(engine)
    *_, last = frames_of(request.events(), decode_token)
    answer = request.result()
    shown = "".join(cell.text for cell in last.cells).partition(END)[0]
    assert shown == answer.text
    assert last.tokens == answer.stats.tokens
    assert last.step == answer.stats.nfe


@pytest.mark.parametrize("width", [12, 40, 120])
def test_pictures_fit_the_terminal(width):
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system="truecolor")
    with Screen(WORDS.__getitem__, console) as screen:
        screen.show(EVENTS)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    assert all(len(line) <= width for line in plain.splitlines())
    assert "a b∎" in plain.replace("┊", "")
    assert "stop" in plain


def test_without_a_terminal_every_step_is_a_line():
    file = io.StringIO()
    with Screen(WORDS.__getitem__, Console(file=file, width=20)) as screen:
        assert not screen.moves
        screen.show(EVENTS)
    assert file.getvalue().splitlines() == ["   1 ┊a░⏎", "   2 ┊a b", "   4 ┊a b"]
    assert "\x1b" not in file.getvalue()


def test_colours_tell_confidence():
    assert [colour(c) for c in (None, 0.1, 0.5, 0.8, 0.95, 1.0)] == [
        "", "red", "yellow", "cyan", "green", "green"
    ]  # fmt: skip
    styles = {str(span.style) for span in picture(recorded_frames()[1]).spans}
    assert "reverse magenta" in styles, "what was taken back"
    assert "bold yellow" in styles, "what is new"


def test_figures_are_those_of_the_answer():
    shown = figures(recorded_frames()[2], seconds=0.5)
    assert shown == "4 forwards · 0.50 tokens per forward · 2 tokens · 4 tokens/s · stop"
    assert one_line(Frame(3, (), frozenset(), 0, None)) == "   3 "


# saved traces


def test_a_trace_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "t.jsonl"
    write_trace(path, EVENTS, "tiny", {**WORDS, 9: "p", 2: ""}.__getitem__)
    trace = read_trace(path)
    assert list(trace.events) == EVENTS
    assert trace.model == "tiny"
    assert trace.rows == [0]
    assert trace.frames(0) == recorded_frames()
    write_trace(path, EVENTS, "tiny", None)
    assert read_trace(path).frames(0)[0].cells[0].text == "5 "
    path.write_text("\n".join(path.read_text().splitlines()[1:]))
    assert list(read_trace(path).events) == EVENTS, "events alone are a trace, too"


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "holds no events"), ("{]", "line 1"), ('{"v": 7, "type": "open"}', "version must be 1"),
     ('{"v": 1}', "line 1: must have a field 'type'"), ("{]", "line 1: is no JSON"),
     ("[1]", r"line 1: must be an object, got \[1\]"),
     ('{"v": 1, "type": "open"}', "must have a field 'row'"),
     ('{"v": 1, "type": "open", "row": 0, "step": 0, "ids": 5}', "a field of a wrong form")],
)  # fmt: skip
def test_broken_traces_say_what_is_wrong(text, message, tmp_path):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(InvalidRequest, match=message):
        read_trace(tmp_path / "t.jsonl")


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(InvalidRequest, match=r"`trace`: .*no\.jsonl cannot be read: No such file"):
        read_trace(tmp_path / "no.jsonl")
    (tmp_path / "t.jsonl").write_bytes(b"\xff")
    with pytest.raises(InvalidRequest, match="is no UTF-8 text"):
        read_trace(tmp_path / "t.jsonl")


class Page(HTMLParser):
    """What a page asks for from elsewhere, and its scripts by their ids."""

    def __init__(self):
        super().__init__()
        self.links, self.scripts, self.open = [], {}, None

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [attributes[name] for name in ("src", "href") if name in attributes]
        self.open = attributes.get("id", len(self.scripts)) if tag == "script" else None

    def handle_data(self, data):
        if self.open is not None:
            self.scripts[self.open] = self.scripts.get(self.open, "") + data

    def handle_endtag(self, tag):
        self.open = None


def test_a_page_is_one_file_that_no_token_can_break(tmp_path):
    path, page = tmp_path / "t.jsonl", tmp_path / "t.html"
    evil = {**WORDS, 5: "</script><b>", 6: "<!--<script>", 9: "", 2: ""}
    write_trace(path, EVENTS, "tiny", evil.__getitem__)
    write_page(read_trace(path), 0, page)
    parsed = Page()
    parsed.feed(page.read_text())
    assert [link for link in parsed.links if not link.startswith(("data:", "#"))] == []
    (tmp_path / "again.jsonl").write_text(parsed.scripts.pop("saved-trace").lstrip())
    assert read_trace(tmp_path / "again.jsonl") == read_trace(path)
    assert all(script.lstrip().startswith('"use strict"') for script in parsed.scripts.values())
    with pytest.raises(InvalidRequest, match="must be one of the trace's rows, 0, got 3"):
        write_page(read_trace(path), 3, page)


def test_a_picture_is_written(tmp_path):
    path = tmp_path / "t.jsonl"
    write_trace(path, EVENTS, "tiny", {**WORDS, 5: "$x_$", 9: "", 2: ""}.__getitem__)
    write_picture(read_trace(path), 0, tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidRequest, match="must be one of the trace's rows, 0, got 3"):
        write_picture(read_trace(path), 3, tmp_path / "t.png")


# commands


def call(capsys, *arguments):
    code = app.run([str(a) for a in arguments])
    return code, *capsys.readouterr()


def test_generate_can_be_watched_saved_and_shown_again(capsys, tmp_path):
    path = tmp_path / "t.jsonl"
    short = ("--max-new-tokens", 24, "--trace", path)
    code, out, err = call(capsys, "generate", "Say the word lion two times.", "--watch", *short)
    assert code == 0
    plain = call(capsys, "generate", "Say the word lion two times.", "--max-new-tokens", 24)
    assert out == plain[1], "stdout is the answer's alone"
    steps = [int(line.split()[0]) for line in err.splitlines()[:-1] if line.strip()]
    assert steps == sorted(steps)
    code, shown, _ = call(capsys, "trace", path)
    assert code == 0
    assert shown.splitlines()[-1].split("┊")[-1].strip().startswith(out.split()[0])
    page, picture_file = tmp_path / "t.html", tmp_path / "t.png"
    assert call(capsys, "trace", path, "--html", page, "--png", picture_file)[:2] == (0, "")
    assert page.stat().st_size > 3000
    assert picture_file.stat().st_size > 3000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "x", "--watch", "--n", "2"), "`n`: must be 1 to be watched, got 2"),
        (("trace", "nowhere.jsonl"), "nowhere.jsonl"),
        (("chat", "--unmask", "nothing"), "must be one of"),
        (("chat", "--trace", "made.jsonl"), "`trace`: is an option of `dlm generate`"),
        (("chat", "--plain", "--n", 3), "`n`: must be 1 in a chat, got 3"),
    ],
)
def test_wrong_commands(arguments, message, capsys):
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert message in err


def test_a_watched_row_stops_cleanly(monkeypatch):
    """Ctrl-C while it is drawn: what there is stays, no page is lost."""
    engine = dlm.load("tiny", device="cpu")
    take, taken = FrameBuilder.take, []

    def interrupted(self, event):
        taken.append(event)
        if len(taken) == 6:
            raise KeyboardInterrupt
        return take(self, event)

    monkeypatch.setattr(FrameBuilder, "take", interrupted)
    answer, stopped = chat.watched(engine, "hello", {"max_new_tokens": 64, "unmask": "topk"})
    assert stopped
    assert answer.finish_reason == "abort"
    assert engine.kv.pages.in_use == 0


def test_a_conversation(monkeypatch, capsys):
    lines = iter(["", "/help", "Sort these words: dog, cat.", "/new", "x" * 9000, "hello", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    asked = []
    generate = dlm.Engine.generate

    def heard(self, prompt, **options):
        asked.append([m["role"] for m in prompt])
        return generate(self, prompt, **options)

    monkeypatch.setattr(dlm.Engine, "generate", heard)
    code, out, err = call(capsys, "chat", "--max-new-tokens", 32)
    assert code == 0
    assert asked == [["user"], ["user"], ["user"]], "`/new` forgets, and so does a refused turn"
    assert len(out.splitlines()) >= 2
    assert err.count("/quit or Ctrl-D ends") == 2
    assert err.count("shown the last question alone") == 1
    assert "the limit of the model is 1024" in err


def test_a_conversation_ends_with_its_input(monkeypatch, capsys):
    def over(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", over)
    assert call(capsys, "chat", "--system", "Be short.")[0] == 0
