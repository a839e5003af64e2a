"""How the command ends: Ctrl-C at any moment, output that goes nowhere, extras that are missing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dlm.cli.app import run

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def interrupts_arrive():
    """Where SIGINT is ignored, as in a job in the background, child processes would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


SHORT = ("generate", "hello", "--max-new-tokens", "8", "--guide", "forbid")
DRIVER = """
import atexit, os, signal, sys
from dlm.cli import main
seen, marks = 0, {marks!r}
def strike(*_):
    os.kill(os.getpid(), signal.SIGINT)
def watch(event, arguments):
    global seen
    if event in ("import", "open", "compile", "exec", "os.putenv"):
        seen += 1
        if seen in marks:
            strike()
sys.addaudithook(watch)
if {late!r}:
    atexit.register(strike)
sys.argv = ["dlm", *{arguments!r}]
main()
"""
RULES = """
import os, signal
from dataclasses import dataclass
from dlm.unmasking.unmask.topk import TopK

@dataclass(frozen=True)
class Strikes(TopK):
    times: int = 1

    def propose(self, view):
        if int(view.row.step[0]) == 3:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)
        return TopK.propose(self, view)
"""


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def driven(arguments, marks=(), *, late=False, cwd=ROOT, **streams):
    code = DRIVER.format(marks=tuple(marks), late=late, arguments=list(arguments))
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment(), text=True, check=False, **streams
    )


@pytest.mark.parametrize("mark", [1, 300, 9000])
def test_ctrl_c_while_it_starts(mark):
    """`mark`: so many imports and files have been opened; torch comes between the last ones."""
    ran = driven(SHORT, [mark])
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")


@pytest.mark.parametrize("arguments", [["--version"], ["nonsense"]])
def test_ctrl_c_when_all_is_over(arguments):
    ran = driven(arguments, late=True)
    assert ran.returncode == 130
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr


@pytest.mark.parametrize(("times", "way"), [(1, []), (1, ["--watch"]), (5, ["--json"])])
def test_ctrl_c_while_it_decodes_shows_what_there_is(tmp_path, times, way):
    (tmp_path / "strikes.py").write_text(RULES)
    rule = f"strikes:Strikes(times={times})"
    ran = driven([*SHORT, "--unmask", rule, *way], cwd=tmp_path)
    assert ran.returncode == 130
    assert "Traceback" not in ran.stderr
    assert "error" not in ran.stderr
    if times == 1:
        assert "abort" in ran.stdout + ran.stderr


def test_ctrl_c_at_a_prompt_is_answered_once_and_then_ends():
    code = (
        "import builtins, sys, signal, os\n"
        "from dlm.cli import main\n"
        "def strike(*_):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    for _ in range(1000): pass\n"
        "builtins.input = strike\n"
        "sys.argv = ['dlm', 'chat', '--plain']\n"
        "main()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), text=True, check=False,
        capture_output=True,
    )  # fmt: skip
    assert ran.returncode == 130
    assert (
        " ".join(ran.stderr.split()).count("pressed twice it ends") == 2
    )  # at the start, and after the first
    assert "Traceback" not in ran.stderr


def test_an_ignored_ctrl_c_stays_ignored():
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + DRIVER.format(
        marks=(3, 40), late=True, arguments=["--version"]
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, check=False
    )
    assert ran.returncode == 0


# output


def command(arguments, redirect, **more):
    """Run in a shell, with what it says of the streams."""
    line = f"{sys.executable} -m dlm {arguments} {redirect}"
    return subprocess.run(
        ["bash", "-c", line], cwd=ROOT, env=environment(**more), text=True, check=False,
        capture_output=True,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", ["--version", "info tiny --json"])
def test_a_reader_that_leaves_is_no_bug(arguments):
    ran = command(arguments, "| true; exit ${PIPESTATUS[0]}")
    assert ran.returncode in (0, 1)  # it may have been faster than the reader left
    assert ran.stderr == ""
    ran = command(arguments, "2>&1 | true; exit ${PIPESTATUS[0]}")
    assert (ran.returncode in (0, 1), ran.stderr) == (True, "")


def test_both_streams_may_have_no_reader():
    read, write = os.pipe()
    os.close(read)
    for arguments in (["--version"], ["nonsense"]):
        ran = subprocess.run(
            [sys.executable, "-m", "dlm", *arguments], cwd=ROOT, env=environment(), check=False,
            stdout=write, stderr=write,
        )  # fmt: skip
        assert ran.returncode == (2 if arguments == ["nonsense"] else 1)
    os.close(write)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", ["--version", " ".join(SHORT)])
def test_a_full_disk_is_one_line(arguments):
    ran = command(arguments, "> /dev/full")
    assert ran.returncode == 1
    assert ran.stderr.count("dlm: error: ") == 1
    assert "No space left on device" in ran.stderr
    assert "Exception ignored" not in ran.stderr


@pytest.mark.parametrize("arguments", ["--version", "nonsense"])
def test_closed_streams(arguments):
    ran = command(arguments, ">&-")
    assert ran.returncode == (2 if arguments == "nonsense" else 1)
    assert ran.stderr.startswith("dlm: error: ")
    assert ran.stderr.count("\n") == 1
    ran = command(arguments, "2>&-")
    assert ran.returncode == (2 if arguments == "nonsense" else 0)
    assert "error" not in ran.stdout
    assert command(arguments, "<&- >&- 2>&-").returncode == (2 if arguments == "nonsense" else 1)


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        ("info", {"PYTHONIOENCODING": "ascii"}),
        (
            " ".join([*SHORT, "--watch"]),
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        ),
    ],
)
def test_a_console_that_lacks_characters(arguments, more):
    ran = command(arguments, "", **more)
    assert ran.returncode == 0
    assert "Error" not in ran.stderr
    assert ran.stdout.isascii()


def test_json_loses_no_character_on_any_console():
    shown = command("generate hello --json --explain --stop-string é", "", PYTHONIOENCODING="ascii")
    assert shown.returncode == 0
    assert "\\u00e9" in shown.stdout


# extras


@pytest.mark.parametrize("package", ["matplotlib"])
def test_a_picture_without_its_extra_names_it(tmp_path, package):
    trace = tmp_path / "trace.jsonl"
    assert run([*SHORT, "--trace", str(trace)]) == 0
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / f"{package}.py").write_text(f"raise ModuleNotFoundError('x', name={package!r})")
    where = {"PYTHONPATH": f"{blocked}{os.pathsep}{ROOT}"}
    ran = command(f"trace {trace} --png {tmp_path / 'a.png'}", "", **where)
    assert ran.returncode == 2
    assert "pip install -c constraints.txt '.[evals]'" in ran.stderr
    assert ran.stderr.count("\n") == 1


# what is no text


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", b"caf\xe9"], ["generate", "x", "--system", b"\xff"],
        ["generate", "x", "--stop", b"\xff"], ["generate", "x", "--stop-string", b"\xff"],
        ["generate", "x", "--infill", b"\xff[[mask:3]]"], ["generate", "x", "--unmask", b"top\xff"],
        ["generate", "x", "--cache", b"\xff"], ["generate", "x", "--preset", b"\xff"],
        ["generate", "x", "--model", b"\xff"], ["generate", "x", "--aux", b"a=\xff"],
        ["generate", "x", "--override", b"shift=\xff"], ["generate", "x", "--logit-bias", b"\xff"],
        ["info", b"\xff"], ["trace", b"\xff"], [b"\xff"], ["generate", b"--\xff"],
    ],
)  # fmt: skip
def test_bytes_that_are_no_text_are_one_line(arguments, capsys):
    assert run([os.fsdecode(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dlm: error: ")
    assert err.count("\n") == 1


def test_stdin_of_a_chat_that_is_no_text_is_told_and_the_chat_goes_on():
    ran = subprocess.run(
        [sys.executable, "-m", "dlm", "chat", "--plain", "--max-new-tokens", "8"], cwd=ROOT,
        env=environment(), check=False, capture_output=True, input=b"caf\xe9\nhello\n",
    )  # fmt: skip
    assert ran.returncode == 0
    assert b"messages[0].content" in ran.stderr
    assert b"Traceback" not in ran.stderr
    assert b"forward" in ran.stderr
