"""No program makes itself pass, whatever it can reach."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dlm
from dlm.sandbox import Sandbox, Verdict, check_function, check_program

TESTS = "assert f(1) == 2\nassert f(2) == 3"
"""`f` adds one; no program here does."""


def verdict(box, source: str, tests: str = TESTS, timeout_s: float = 10.0):
    return check_program(source, tests, timeout_s=timeout_s, memory_mb=1024, sandbox=box).verdict


LEAVE = "\nimport os\nos._exit(0)"
PROCESS = {
    "what is left of stdin": ("import os\nprint('Name?')\nprint(input(), flush=True)" + LEAVE),
    "all of stdin": "import sys\nsys.stdout.write(sys.stdin.read())\nsys.stdout.flush()" + LEAVE,
    "exit": "raise SystemExit(0)",
    "exit at a call": "def f(x):\n    raise SystemExit(0)",
    "end at a call": "import os\ndef f(x):\n    os._exit(0)",
    "atexit": "import atexit\natexit.register(print, 'passed')\nraise SystemExit",
    "exec of another program": "import os\nos.execv('/bin/true', ['true'])",
}
REACH = {
    "write to every descriptor": (
        "import os\n"
        "for n in range(64):\n"
        "    for words in (b'passed\\n', b'0' * 32 + b' passed\\n'):\n"
        "        try:\n            os.write(n, words)\n"
        "        except OSError:\n            pass\n"
        "def f(x):\n    return None\n"
    ),
    "read every descriptor and write it to all": (
        "import os\n"
        "read = b''\n"
        "for n in range(64):\n"
        "    try:\n        os.set_blocking(n, False)\n        read += os.read(n, 10000)\n"
        "    except OSError:\n        pass\n"
        "for n in range(64):\n"
        "    try:\n        os.write(n, read + b' passed\\n')\n"
        "    except OSError:\n        pass\n" + LEAVE
    ),
    "close every descriptor": "import os\nos.closerange(0, 64)\ndef f(x):\n    return None",
    "answers before the questions": (
        "import os\n"
        "for n in range(3, 32):\n"
        "    try:\n        os.write(n, b'\\0\\0\\0\\x0bA2;0;0;i2;' * 50)\n"
        "    except OSError:\n        pass\n"
        "def f(x):\n    return None\n"
    ),
    "a thread that writes without end": (
        "import os, threading\n"
        "def flood():\n"
        "    while True:\n"
        "        for n in range(3, 12):\n"
        "            try:\n                os.write(n, b'\\0\\0\\0\\5A1;0;' * 1000)\n"
        "            except OSError:\n                pass\n"
        "threading.Thread(target=flood, daemon=True).start()\n"
        "def f(x):\n    return None\n"
    ),
    "a frame without end": (
        "import os\n"
        "def f(x):\n"
        "    for n in range(3, 32):\n"
        "        try:\n            os.write(n, b'\\xff' * 100)\n"
        "        except OSError:\n            pass\n"
        "    return 2\n"
    ),
    "other processes' files": (
        "import os\n"
        "for pid in os.listdir('/proc'):\n"
        "    if not pid.isdigit():\n        continue\n"
        "    for n in range(32):\n"
        "        try:\n"
        "            pipe = os.open(f'/proc/{pid}/fd/{n}', os.O_WRONLY | os.O_NONBLOCK)\n"
        "            os.write(pipe, b'0' * 32 + b' passed\\n')\n"
        "        except OSError:\n            pass\n"
        "    try:\n        open(f'/proc/{pid}/mem', 'r+b', 0).read(1)\n"
        "    except OSError:\n        pass\n"
        "def f(x):\n    return None\n"
    ),
    "killing whoever can be killed": (
        "import os, signal\n"
        "for pid in os.listdir('/proc'):\n"
        "    if pid.isdigit() and int(pid) not in (1, os.getpid()):\n"
        "        try:\n            os.kill(int(pid), signal.SIGTERM)\n"
        "        except OSError:\n            pass\n"
        "def f(x):\n    return None\n"
    ),
    "frames": (
        "import sys\n"
        "def f(x):\n"
        "    frame = sys._getframe()\n"
        "    while frame:\n"
        "        for value in list(frame.f_locals.values()):\n"
        "            if hasattr(value, 'end'):\n                value.end('passed')\n"
        "            if hasattr(value, 'serve'):\n                value.send(b'A', 1, 2)\n"
        "        frame = frame.f_back\n"
    ),
    "the garbage collector": (
        "import gc\n"
        "def f(x):\n"
        "    for one in gc.get_objects():\n"
        "        if type(one).__name__ == 'Link':\n"
        "            one.perform = lambda *all: 2\n"
        "            one.send(b'Q', 1, ('call', (print,), ()))\n"
    ),
    "a child that answers": (
        "import os\ndef f(x):\n    if os.fork() == 0:\n        return x + 1\n    return None"
    ),
}
PATCHES = {
    "builtins": (
        "import builtins\n"
        "for name in ('compile', 'exec', 'len', 'isinstance', 'print', 'type', 'repr', 'hash'):\n"
        "    setattr(builtins, name, lambda *all, **named: True)\n"
        "builtins.AssertionError = Exception\n"
        "def f(x):\n    return None\n"
    ),
    "import": "import builtins\nbuiltins.__import__ = lambda *a, **k: 2\ndef f(x):\n    return 0",
    "modules": (
        "import sys\n"
        "for name in ('json', 'math', 'pickle', 'marshal', 'struct', 'collections'):\n"
        "    sys.modules[name] = None\n"
        "def f(x):\n    return None\n"
    ),
    "tracing": (
        "import sys\nsys.settrace(lambda *all: None)\nsys.setprofile(lambda *all: None)\n"
        "def f(x):\n    return None\n"
    ),
    "helpers": (
        "def check(*all):\n    pass\n"
        "def isclose(*all):\n    return True\n"
        "def abs(x):\n    return 0\n"
        "def sorted(x):\n    return []\n"
        "def len(x):\n    return 2\n"
        "candidate, METADATA, AssertionError = check, {}, ValueError\n"
        "__builtins__ = {}\n"
        "def f(x):\n    return 99\n"
    ),
}
VALUES = {
    "equal to all": "class A:\n    __eq__ = lambda s, o: True\n    __hash__ = lambda s: 2\n",
    "never unequal": "class A:\n    __ne__ = lambda s, o: False\n    __eq__ = lambda s, o: o\n",
    "a whole number": (
        "class A(int):\n    def __new__(c):\n        return int.__new__(c, 7)\n"
        "    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n"
        "    __lt__ = __gt__ = __le__ = __ge__ = __eq__\n    __hash__ = lambda s: 2\n"
        "    __sub__ = __rsub__ = lambda s, o: 0\n    __contains__ = __eq__\n"
    ),
    "a string": (
        "class A(str):\n    def __new__(c):\n        return str.__new__(c, 'x')\n"
        "    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n"
        "    __lt__ = __gt__ = __le__ = __ge__ = __eq__\n    __hash__ = lambda s: 2\n"
        "    __sub__ = __rsub__ = lambda s, o: 0\n    __contains__ = __eq__\n"
    ),
    "a list": (
        "class A(list):\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n"
        "    __contains__ = __lt__ = __gt__ = __eq__\n    __hash__ = lambda s: 2\n"
    ),
    "anything": (
        "class A:\n"
        "    __eq__ = __lt__ = __gt__ = __le__ = __ge__ = __contains__ = lambda s, o: True\n"
        "    __ne__ = lambda s, o: False\n"
        "    __hash__ = lambda s: 2\n"
        "    __bool__ = lambda s: True\n"
        "    __class__ = int\n"
        "    __sub__ = __rsub__ = __add__ = __radd__ = __abs__ = lambda s, *o: 0\n"
        "    __float__ = lambda s: 7.0\n"
        "    __iter__ = lambda s: iter([s])\n"
        "    __getattr__ = lambda s, n: s\n"
        "    __call__ = lambda s, *a: s\n"
    ),
    "mock": "from unittest.mock import ANY\nA = lambda: ANY\n",
    "a magic mock": "from unittest.mock import MagicMock as A\n",
    "an array": (
        "import numpy\n"
        "class Z(numpy.ndarray):\n    __eq__ = lambda s, o: True\n"
        "A = lambda: numpy.zeros(1).view(Z)\n"
    ),
    "not a number": "A = lambda: float('nan')\n",
    "not implemented": "A = lambda: NotImplemented\n",
}
FORMS = (
    "assert f(1) == 2",
    "assert 2 == f(1)",
    "assert not f(1) != 2",
    "assert abs(f(1) - 2) < 1e-6",
    "assert abs(2 - f(1)) < 1e-6",
    "assert 1 < f(1) < 3",
    "assert f(1) in (2,)",
    "assert 2 in f(1)",
    "assert [f(1)] == [2]",
    "assert {f(1)} == {2}",
    "assert {'a': f(1)} == {'a': 2}",
    "assert sum([f(1), 0]) == 2",
    "assert max(f(1), 1) == 2",
    "assert isinstance(f(1), int) and f(1) == 2",
    "import math\nassert math.isclose(f(1), 2)",
    "assert str(f(1)) == '2'",
    "assert f(1).real == 2",
    "assert sorted([f(1), 1]) == [1, 2]",
    "assert {2: True}.get(f(1))",
    "assert [2].index(f(1)) == 0",
    "import copy\nassert copy.deepcopy(f(1)) == 2",
)


@pytest.mark.parametrize("attack", [*PROCESS, *REACH, *PATCHES])
def test_what_is_not_right_does_not_pass(box, attack):
    source = {**PROCESS, **REACH, **PATCHES}[attack]
    told = verdict(box, source)
    assert told not in (Verdict.PASSED, Verdict.SANDBOX)
    if attack in PROCESS:
        assert told == Verdict.UNFINISHED or "exec" in attack


@pytest.mark.parametrize("value", VALUES)
def test_values_are_compared_where_their_class_is_not(box, value):
    """In whatever form the tests ask; one run has them all, each of them must fail."""
    forms = "".join(
        f"def form_{number}():\n" + "".join(f"    {line}\n" for line in form.splitlines())
        for number, form in enumerate(FORMS)
    )
    tests = (
        f"{forms}"
        f"for _number, _form in enumerate([{', '.join(f'form_{n}' for n in range(len(FORMS)))}]):\n"
        "    try:\n        _form()\n"
        "    except (AssertionError, TypeError, ValueError, AttributeError):\n        continue\n"
        "    raise RuntimeError(f'form {_number} holds')\n"
    )
    source = VALUES[value] + "def f(x):\n    return A()"
    told = check_program(source, tests, memory_mb=2048, sandbox=box)
    assert told.ok, told.detail
    assert check_program("def f(x):\n    return 2", tests, sandbox=box).detail.endswith("0 holds")


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    return bytes(100 << 20)",
        "deep = []\nfor _ in range(100000):\n    deep = [deep]\ndef f(x):\n    return deep",
        "import itertools\ndef f(x):\n    return itertools.repeat(2)",
        "def f(x):\n    return f(x)",
        "def f(x):\n    return 10 ** 100000",
        "def f(x):\n    return '\\ud800' * 1000",
        "class A(Exception):\n    pass\ndef f(x):\n    raise A(2)",
        "def f(x):\n    raise GeneratorExit",
        "def f(x):\n    raise SyntaxError('tests')",
        "class A(Exception):\n    def __str__(self):\n        raise SystemExit(0)\n"
        "def f(x):\n    raise A(A())",
        "import sys\nf = sys.exit",
        "from os import fork as f",
        "from os import _exit as f",
        "from unittest.mock import ANY as f",
        "import unittest.mock as f",
        "from builtins import exec as f",
        "f = type",
        "f = NotImplemented",
    ],
)
def test_strange_answers_are_wrong_answers(box, source):
    """They are neither the tests' fault nor the sandbox'."""
    assert verdict(box, source) in (Verdict.ASSERTION, Verdict.EXCEPTION, Verdict.UNFINISHED)


def test_answers_without_end_are_late(box):
    endless = "import itertools\ndef f(x):\n    return itertools.repeat(1)"
    assert verdict(box, endless, "assert 2 in f(1)", timeout_s=1.0) == Verdict.TIMEOUT


def test_tests_of_a_builtin_name(box):
    """A function that is asked for may be called like a builtin; what tests it may not."""
    right = "def sum(a, b):\n    return a + b"
    assert verdict(box, right, "assert sum(10, 15) == 25") == Verdict.PASSED
    assert verdict(box, right, "assert abs(sum(10, 15) - 25) < 1e-6") == Verdict.PASSED
    cheat = "def abs(x):\n    return 0\ndef sum(a, b):\n    return 7"
    assert verdict(box, cheat, "assert abs(sum(10, 15) - 25) < 1e-6") == Verdict.ASSERTION
    assert verdict(box, "def len(x):\n    return 2", "assert f(1) == len([3])") != Verdict.PASSED


def test_what_the_tests_hold_is_not_the_programs_to_see(box):
    """A function that is given to the program is called by it, and no more."""
    tests = "wanted = 'secret'\ndef g(x):\n    return x * 2\nassert f(g) == wanted"
    for way in ("g.__globals__['wanted']", "g.__code__", "g.__closure__", "g.__self__"):
        source = f"def f(g):\n    return {way}"
        told = check_program(source, tests, sandbox=box)
        assert told.verdict == Verdict.EXCEPTION
        assert "AttributeError" in told.detail
    yields = "def g():\n    yield 1\nassert f(g()) == 'secret'\nwanted = 'secret'"
    for way in ("g.gi_frame.f_globals['wanted']", "g.gi_code.co_consts"):
        assert not check_program(f"def f(g):\n    return {way}", yields, sandbox=box).ok


def test_a_function_is_checked_by_the_same_rule(box):
    cases = [(1, 2), (2, 3)]
    assert check_function("def f(x):\n    return x + 1", "f", cases, sandbox=box)
    for source in (
        *PROCESS.values(),
        *(f"{value}def f(x):\n    return A()" for value in VALUES.values()),
    ):
        assert not check_function(source, "f", cases, sandbox=box)


@pytest.mark.parametrize(
    ("source", "entry", "case", "right"),
    [
        ("def repr(x): return 'same'\ndef sum(x): return 0", "sum", ([1, 2], 3), False),
        ("def sum(x): return 0\ndef all(x): return True", "sum", ([1], [1]), False),
        ("def same(x, y): return True\ndef f(x): return 0", "f", (1, 2), False),
        ("def helper(x): return 1", "max", ([1, 2], 2), False),
        ("import json", "max", ([1, 2], 2), False),
        ("def map(x): return [y + 1 for y in x]", "map", ([2], [3]), True),
        ("def repr(x): return x + 1", "repr", (1, 2), True),
        *((f"def {n}(x): return x[::-1]", n, ([1, 2], [2, 1]), True) for n in ("len", "type")),
        *((f"def {n}(x): return [x]", n, (1, [1]), True) for n in ("isinstance", "all", "list")),
        *((f"def {n}(x): return x + 1", n, (1, 2), True) for n in ("same", "_same", "_given")),
        *((f"def {n}(x): return x + 1", n, (1, 2), True) for n in ("json", "entry", "given")),
    ],
)
def test_of_the_program_the_checked_function_alone_counts(box, source, entry, case, right):
    assert check_function(source, entry, [case], sandbox=box) is right


def test_processes_of_a_run_are_apart(box):
    """The program sees no other process, or may look into none."""
    source = (
        "import os\n"
        "seen = []\n"
        "for pid in os.listdir('/proc'):\n"
        "    if pid.isdigit() and int(pid) != os.getpid():\n"
        "        for name in ('mem', 'environ', *(f'fd/{n}' for n in range(32))):\n"
        "            try:\n                seen.append(open(f'/proc/{pid}/{name}', 'rb').name)\n"
        "            except OSError:\n                pass\n"
        "print(seen)\n"
    )
    told = check_program(source, "", sandbox=box)
    if box.kind == "bwrap":  # it sees the first process of its namespace, which is bwrap's
        assert told.stdout.count("/proc/") == told.stdout.count("/proc/1/")
    elif not box.isolates and not box.drops and not has_landlock():
        pytest.skip("this kernel has no Landlock, without which a user's processes see each other")
    else:
        assert told.stdout == "[]\n"


def test_solutions_are_hidden(box):
    """Neither end sees the folder of `dlm`, nor can the program bring it back."""
    if not box.isolates:
        pytest.skip("nothing that is readable can be hidden")
    place = str(Path(dlm.__file__).resolve().parent)
    sees = f"import os\nseen = os.listdir({place!r}) if os.path.isdir({place!r}) else []\n"
    undo = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"libc.umount2({place.encode()!r}, 2)\n"
        "libc.unshare(0x10000000 | 0x20000)\n"  # a user of its own, and mounts
        f"libc.umount2({place.encode()!r}, 2)\n"
    )
    told = check_program(
        f"{undo}{sees}theirs = seen", f"{sees}assert not seen + theirs", sandbox=box
    )
    assert told.ok, told
    assert os.path.isfile(f"{place}/__init__.py")  # the machine's own folder is as it was


def test_a_folder_with_any_name_is_hidden(monkeypatch, tmp_path):
    """Its path is no text of a shell's."""
    if not Sandbox("unshare", sys.executable).works():
        pytest.skip("unshare does not work here")
    place = tmp_path / "a 'b' $(exit 3) \"c\" -o;"
    place.mkdir()
    (place / "solution").touch()
    monkeypatch.setattr("dlm.sandbox.backends.OURS", str(place))
    command = Sandbox("unshare", sys.executable).command(
        ["-c", f"import os; print(os.path.isdir({str(place)!r}) and os.listdir({str(place)!r}))"]
    )
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    assert subprocess.run(command, capture_output=True, text=True).stdout == "[]\n"
    assert (place / "solution").exists()


def test_bwrap_hides_the_folder_where_it_is_bound(monkeypatch):
    box = Sandbox("bwrap", "/opt/python/bin/python3")
    for place in ("/usr/lib/python3/dlm", "/opt/python/lib/dlm"):
        monkeypatch.setattr("dlm.sandbox.backends.OURS", place)
        command = box.command(["-c", "0"])
        bound = max(n for n, word in enumerate(command) if word in ("/usr", "/opt/python"))
        assert command[command.index(place) - 1] == "--tmpfs"
        assert command.index(place) > bound
    monkeypatch.setattr("dlm.sandbox.backends.OURS", "/srv/dlm")
    assert "/srv/dlm" not in box.command(["-c", "0"])


def has_landlock() -> bool:
    """Whether the kernel says that it has Landlock."""
    zero = ctypes.c_ulong(0)
    return sys.platform == "linux" and ctypes.CDLL(None).syscall(444, zero, zero, 1) > 0


SWAP = """
import os, sys
for place in [q for q in sys.path if q.endswith('packages') and 'dlm-sandbox' in q]:
    try:
        os.rename(place + '/numpy', place + '/old')
        os.mkdir(place + '/numpy')
        with open(place + '/numpy/__init__.py', 'w') as file:
            file.write(
                "import gc\\n"
                "[o.end('passed') for o in gc.get_objects() if type(o).__name__ == 'Tester']\\n"
            )
    except OSError:
        pass
def f(x):
    return 0
"""
USES_NUMPY = "import numpy\nassert f(numpy.zeros(3)) == 1"


def test_numpy_of_the_tests_is_not_the_programs_to_swap(box):
    if not box.packages:
        pytest.skip("no numpy in this sandbox")
    assert verdict(box, SWAP, USES_NUMPY) not in (Verdict.PASSED, Verdict.SANDBOX)


def test_a_plain_user_swaps_no_numpy_either():
    """Under `rlimit` the user that runs both owns the folder of links."""
    numpy = pytest.importorskip("numpy")
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root, to become a plain user")
    code = (
        "from dlm.sandbox import check_program, find_sandbox\n"
        "box = find_sandbox('rlimit')\n"
        "assert box.packages\n"
        f"told = check_program({SWAP!r}, {USES_NUMPY!r}, sandbox=box)\n"
        "print(told.verdict)"
    )
    become = ("setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups", "env")
    paths = str(Path(__file__).parents[1]), str(Path(numpy.__file__).parents[1])
    user = (*become, "PYTHONDONTWRITEBYTECODE=1", f"PYTHONPATH={os.pathsep.join(paths)}")
    for python in (sys.executable, "/usr/bin/python3"):
        reached = (*user, python, "-c", "import numpy, dlm.sandbox")
        if subprocess.run(reached, capture_output=True).returncode == 0:
            done = subprocess.run((*user, python, "-c", code), capture_output=True, text=True)
            assert done.stdout.strip() in ("exception", "assertion"), done.stderr
            return
    pytest.skip("a plain user reaches no interpreter with numpy")


@pytest.mark.parametrize("base", ["", "(int)", "(str)"])
def test_numpy_reads_no_memory_that_the_program_names(box, base):
    """An address in an answer would be one of the process with the tests."""
    if not box.packages:
        pytest.skip("no numpy in this sandbox")
    source = (
        f"asked = []\nclass A{base}:\n"
        "    def __getattr__(self, name):\n"
        "        asked.append(name)\n"
        "        if name == '__array_interface__':\n"
        "            return {'data': (16, False), 'shape': (1,), 'typestr': '<i8', 'version': 3}\n"
        "        raise AttributeError(name)\n"
        "a = A()\n"
    )
    tests = (
        "import numpy\nassert numpy.array(a).dtype.kind in 'OiU'\n"
        "for name in ('__array__', '__array_struct__', '__array_interface__', '__buffer__',\n"
        "             '__dlpack__', '__dlpack_device__', '__cuda_array_interface__'):\n"
        "    assert not hasattr(a, name)\n"
        "assert not [name for name in asked if 'array' in name or 'dl' in name]\n"
    )
    told = check_program(source, tests, sandbox=box)
    assert told.ok, told
