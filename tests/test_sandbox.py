"""The sandbox returns what a program wrote, ends what does not end, and is not fooled by it."""

import os
import platform
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from dlm.errors import InvalidRequest
from dlm.sandbox import (
    KINDS,
    OUTPUT_BYTES,
    Sandbox,
    Verdict,
    best_sandbox,
    check_function,
    check_program,
    find_sandbox,
    processes,
    run_python,
)
from dlm.sandbox.seccomp import DENIED, seccomp_filter
from tests.boxes import box_of

DOUBLE = [(3, 6), (0, 0), (-2, -4)]


def run(box, source: str, timeout_s: float = 10.0):
    return run_python(source, timeout_s=timeout_s, memory_mb=256, sandbox=box)


@pytest.fixture(params=("bwrap", "unshare"), scope="module")
def apart(request):
    """Each kind that holds programs that mean harm."""
    return box_of(request.param)


def test_output_and_errors_come_back(box):
    good = run(box, "import sys\nprint('héllo')\nprint('oops', file=sys.stderr)")
    assert good == (Verdict.PASSED, "héllo\n", "oops\n", "")
    bad = run(box, "print('first')\n1 / 0")
    assert not bad.ok
    assert bad.verdict == Verdict.EXCEPTION
    assert bad.stdout == "first\n"
    assert bad.detail == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ("x = 1", Verdict.PASSED),
        ("assert 1 == 2", Verdict.ASSERTION),
        ("assert 1 == 2, 'why'", Verdict.ASSERTION),
        ("raise ValueError('no')", Verdict.EXCEPTION),
        ("def f(:", Verdict.SYNTAX),
        ("x = '\0'", Verdict.SYNTAX),
        ("x = bytearray(1 << 30)", Verdict.MEMORY),
        ("x = [0] * (1 << 40)", Verdict.MEMORY),
        ("import sys\nsys.exit(0)", Verdict.UNFINISHED),
        ("import os\nos._exit(0)", Verdict.UNFINISHED),
        ("import sys\nsys.exit(3)", Verdict.EXCEPTION),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", Verdict.EXCEPTION),
        ("def f(n):\n    return f(n + 1)\nf(0)", Verdict.EXCEPTION),
        ("print('\\n' + 'a' * 32)\nimport os\nos._exit(0)", Verdict.UNFINISHED),
    ],
)
def test_verdicts(box, source, verdict):
    assert run(box, source).verdict == verdict


def test_an_endless_program_is_killed_with_its_children(box):
    begun = time.monotonic()
    fork = "import os\ntry:\n    os.fork()\nexcept OSError:\n    pass\n"
    source = fork + "import time\nwhile True:\n    time.sleep(1)"
    result = run(box, source, timeout_s=1.0)
    assert result.verdict == Verdict.TIMEOUT
    assert time.monotonic() - begun < 5


def test_a_busy_program_is_killed(box):
    assert run(box, "while True:\n    pass", timeout_s=1.0).verdict == Verdict.TIMEOUT


def test_output_beyond_a_bound_is_lost(box):
    """It neither ends a program nor fills anything."""
    for stream in ("stdout", "stderr"):
        result = run(box, f"import sys\nprint('x' * {40 * OUTPUT_BYTES}, file=sys.{stream})")
        assert result.ok
        assert getattr(result, stream) == "x" * OUTPUT_BYTES
    endless = run(box, "while True:\n    print('x' * 1000)", timeout_s=1.0)
    assert endless.verdict == Verdict.TIMEOUT
    assert len(endless.stdout) == OUTPUT_BYTES


def test_files_are_capped(box):
    assert not run(box, "open('big', 'wb').write(bytes(1 << 21))").ok


def test_the_folder_is_empty_and_the_environment_minimal(box):
    os.environ["DLM_TEST_SECRET"] = "seen"
    try:
        result = run(box, "import os\nprint(os.listdir('.'), 'DLM_TEST_SECRET' in os.environ)")
    finally:
        del os.environ["DLM_TEST_SECRET"]
    assert result.stdout == "[] False\n"
    assert run(box, "open('x', 'w').write('1')\nprint(open('x').read())").stdout == "1\n"


# what means harm


def test_a_fork_bomb_does_not_grow(box):
    if os.geteuid() == 0 and box.kind == "rlimit" and not box.drops:
        pytest.skip("limits on processes do not bind root")
    bomb = "import os\nwhile True:\n    os.fork()"
    assert run(box, bomb, timeout_s=5.0).verdict == Verdict.EXCEPTION


def test_nothing_outlives_the_program(apart):
    """A child in a session of its own, which no signal to the group reaches."""
    mark = f"dlm-{os.getpid()}-{apart.kind}"
    source = (
        "import os, time\n"
        "try:\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        f"        open('/proc/self/comm', 'w').write('{mark[-15:]}')\n"
        "        time.sleep(60)\n"
        "except OSError:\n"
        "    pass\n"
    )
    run(apart, source)
    time.sleep(0.2)
    comms = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            comms.append(path.read_text().strip())
        except OSError:
            continue
    assert mark[-15:] not in comms


def test_the_network_is_out_of_reach(apart):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.settimeout(1)
        reached = []
        thread = threading.Thread(target=lambda: reached.append(_accepted(server)))
        thread.start()
        source = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)"
        assert run(apart, source).verdict == Verdict.EXCEPTION
        thread.join()
    assert reached == [False]


def _accepted(server):
    try:
        server.accept()
    except TimeoutError:
        return False
    return True


def test_the_home_folder_cannot_be_read(apart, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("seen")
    secret.chmod(0o600)
    result = run(apart, f"print(open({str(secret)!r}).read())")
    assert result.verdict == Verdict.EXCEPTION
    assert "seen" not in result.stdout


def test_nobody_else_can_be_killed(apart):
    with subprocess.Popen(["sleep", "60"]) as other:
        source = f"import os, signal\nos.kill({other.pid}, signal.SIGKILL)"
        run(apart, source)
        run(apart, "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)")
        assert other.poll() is None
        other.kill()


def test_limits_cannot_be_raised(box):
    source = (
        "import resource\n"
        "for name in ('RLIMIT_AS', 'RLIMIT_CPU', 'RLIMIT_FSIZE'):\n"
        "    try:\n"
        "        resource.setrlimit(getattr(resource, name), (-1, -1))\n"
        "    except (OSError, ValueError):\n"
        "        print('refused')\n"
    )
    if os.geteuid() == 0 and box.kind == "rlimit" and not box.drops:
        pytest.skip("root may raise its limits")
    assert run(box, source).stdout == "refused\n" * 3


def test_the_filter_denies_calls_and_lets_threads_start():
    if platform.machine() != "x86_64":
        assert seccomp_filter() is None
        return
    code = seccomp_filter()
    assert len(code) == 8 * (5 + len(DENIED) + 4)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="there is no filter for this processor")
def test_the_filter_works_in_bubblewrap():
    box = box_of("bwrap")
    assert "PermissionError" in run(box, "import socket\nsocket.socket()").stderr
    assert (
        "PermissionError"
        in run(
            box,
            "import ctypes, os\nif ctypes.CDLL(None, use_errno=True).unshare(0x10000000):\n"
            "    raise OSError(ctypes.get_errno(), 'unshare')",
        ).stderr
    )


def test_what_works_here():
    assert best_sandbox().kind in KINDS
    with pytest.raises(InvalidRequest, match="'bwrap', 'rlimit', 'unshare', got 'docker'"):
        find_sandbox("docker")


def test_a_kind_that_must_work_is_not_skipped(monkeypatch):
    monkeypatch.setattr(Sandbox, "works", lambda self: False)
    monkeypatch.setenv("DLM_TEST_SANDBOXES", "unshare,bwrap")
    with pytest.raises(pytest.fail.Exception, match="bwrap must work here"):
        box_of("bwrap")
    monkeypatch.setenv("DLM_TEST_SANDBOXES", "unshare")
    with pytest.raises(pytest.skip.Exception):
        box_of("bwrap")


# checks


def test_a_right_function_passes():
    assert check_function("def f(x):\n    return 2 * x", "f", DOUBLE)


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    return 2 * x + (x < 0)",
        "def f(x):\n    return 2.0 * x",
        "def f(x):\n    raise SystemExit(0)",
        "print('True'); print([6, 0, -4]); raise SystemExit(0)",
        "print([6, 0, -4])\nimport os\nos._exit(0)",
        "def f(x):\n    return (",
        "def g(x):\n    return 2 * x",
        "def f(x):\n    print(2 * x)",
    ],
)
def test_a_wrong_function_or_a_printed_verdict_fails(source: str):
    assert not check_function(source, "f", DOUBLE)


def test_noise_on_stdout_does_not_disturb_the_verdict():
    assert check_function("def f(x):\n    print('noise', end='')\n    return 2 * x", "f", DOUBLE)


def test_a_program_with_its_tests():
    tests = "def check(f):\n    assert f(2) == 4\n\ncheck(double)"
    assert check_program("def double(x):\n    return 2 * x", tests).ok
    wrong = check_program("def double(x):\n    return x", tests)
    assert wrong.verdict == Verdict.ASSERTION
    early = check_program("import sys\ndef double(x):\n    sys.exit(0)", tests)
    assert early.verdict == Verdict.UNFINISHED


def test_time_that_others_take_does_not_count(box, monkeypatch):
    """On a busy machine a run has more of the clock's time, and no more of the processor's."""
    source = "import time\ntime.sleep(2)"
    assert run(box, source, timeout_s=1.0).verdict == Verdict.TIMEOUT
    monkeypatch.setattr(processes, "_delay", lambda process: 60.0)
    assert run(box, source, timeout_s=1.0).ok
    assert run(box, "import time\ntime.sleep(60)", timeout_s=0.5).verdict == Verdict.TIMEOUT
