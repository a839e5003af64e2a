"""The sandbox returns what a program wrote, ends what does not end, and is not fooled by it."""

import os
import time

import pytest

from dlm.sandbox import OUTPUT_BYTES, check_function, run_python

DOUBLE = [(3, 6), (0, 0), (-2, -4)]


def run(source: str, timeout_s: float = 5.0):
    return run_python(source, timeout_s=timeout_s, memory_mb=256)


def test_output_and_errors_come_back():
    good = run("import sys\nprint('héllo')\nprint('oops', file=sys.stderr)")
    assert good == (True, "héllo\n", "oops\n", "")
    bad = run("print('first')\n1 / 0")
    assert not bad.ok
    assert bad.reason == "exit 1"
    assert bad.stdout == "first\n"
    assert "ZeroDivisionError" in bad.stderr


def test_an_endless_program_is_killed_with_its_children():
    begun = time.monotonic()
    fork = "import os\ntry:\n    os.fork()\nexcept OSError:\n    pass\n"
    source = fork + "import time\nwhile True:\n    time.sleep(1)"
    result = run(source, timeout_s=0.5)
    assert result.reason == "timeout"
    assert time.monotonic() - begun < 3


def test_memory_is_limited():
    assert "MemoryError" in run("x = bytearray(1 << 30)").stderr


def test_output_is_capped():
    result = run(f"print('x' * {4 * OUTPUT_BYTES})")
    assert not result.ok
    assert len(result.stdout) <= OUTPUT_BYTES


def test_the_folder_is_empty_and_the_environment_minimal():
    os.environ["DLM_TEST_SECRET"] = "seen"
    try:
        result = run("import os\nprint(os.listdir('.'), 'DLM_TEST_SECRET' in os.environ)")
    finally:
        del os.environ["DLM_TEST_SECRET"]
    assert result.stdout == "[] False\n"


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
