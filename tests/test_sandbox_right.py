"""Right programs pass, as they do where program and tests share one process."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

import dlm.evals
from dlm.sandbox import OUTPUT_BYTES, Verdict, best_sandbox, check_program, run_python

FILE = Path(dlm.evals.__file__).parent / "data" / "humaneval" / "HumanEval.jsonl.gz"
with gzip.open(FILE, "rt", encoding="utf-8") as lines:
    HUMANEVAL = [json.loads(line) for line in lines]


def humaneval(row, more: str = ""):
    """Reference program and tests of a problem."""
    source = row["prompt"] + row["canonical_solution"] + "\n" + more
    return source, f"{row['test']}\ncheck({row['entry_point']})"


ADDS = "def f(x):\n    return x + 1\n"
TESTS = "assert f(1) == 2"


@pytest.mark.parametrize(
    "source",
    [
        f"{ADDS}if __name__ == '__main__':\n    import sys\n    sys.exit(1)",
        f"{ADDS}if __name__ == '__main__':\n    import unittest\n    unittest.main()",
        f"{ADDS}assert __name__ == 'builtins'",
        f"import sys\nrest = sys.stdin.read()\nassert rest == ''\n{ADDS}",
        f"import sys\nfor line in sys.stdin:\n    int(line)\n{ADDS}",
        f"name = input('Name? ')\nprint(f'hello {{name}}')\n{ADDS}",
        f"try:\n    while True:\n        input()\nexcept EOFError:\n    pass\n{ADDS}",
        f"print('x' * {3 * OUTPUT_BYTES})\n{ADDS}",
        f"import sys\nprint('x' * {3 * OUTPUT_BYTES}, file=sys.stderr)\n{ADDS}",
        f"import sys\nsys.stdout.buffer.write(bytes(range(256)))\n{ADDS}",
        f"import sys\nsys.stdout.close()\n{ADDS}",
        f"import io, sys\nsys.stdout = sys.stderr = io.StringIO()\n{ADDS}",
        f"import warnings\nwarnings.warn('old')\n{ADDS}",
        f"x = '\\d'\n{ADDS}",
        f"from typing import *\nfrom collections import *\nfrom math import *\n{ADDS}",
        f"from __future__ import annotations\n{ADDS}",
        f"import sys\nassert sys.argv\nsys.setrecursionlimit(10 ** 5)\n{ADDS}",
        f"from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 1\n{ADDS}",
        f"from typing import NamedTuple\nclass A(NamedTuple):\n    x: int = 1\n{ADDS}",
        f"from enum import Enum\nclass A(Enum):\n    x = 1\n{ADDS}",
        f"exit, quit\n{ADDS}",
        "import threading\n"
        "def f(x):\n"
        "    found = []\n"
        "    threads = [threading.Thread(target=found.append, args=(x,)) for _ in range(20)]\n"
        "    for one in threads:\n        one.start()\n"
        "    for one in threads:\n        one.join()\n"
        "    return x + len(found) // 20\n",
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def f(x):\n"
        "    with ThreadPoolExecutor(8) as pool:\n"
        "        return sum(pool.map(lambda n: n, [x, 1]))\n",
        "import multiprocessing\n"
        "def add(x, pipe):\n    pipe.send(x + 1)\n"
        "def f(x):\n"
        "    mine, theirs = multiprocessing.get_context('fork').Pipe(duplex=False)\n"
        "    one = multiprocessing.get_context('fork').Process(target=add, args=(x, theirs))\n"
        "    one.start()\n"
        "    return mine.recv()\n",
        "import subprocess\n"
        "def f(x):\n    return x + int(subprocess.run(['echo', '1'], stdout=-1).stdout)\n",
        "import os\n"
        "def f(x):\n    if os.fork() == 0:\n        os._exit(0)\n    os.wait()\n    return 2\n",
        "import tempfile\n"
        "def f(x):\n"
        "    with tempfile.TemporaryFile() as file:\n        file.write(b'2')\n"
        "        file.seek(0)\n        return int(file.read())\n",
        "def g(n):\n    return n and g(n - 1) + 1\n"
        "import sys\nsys.setrecursionlimit(20000)\n"
        "def f(x):\n    return g(10000) - 10000 + x + 1\n",
        "def f(x):\n    big = bytearray(6 * 10 ** 8)\n    return len(big) // 6 // 10 ** 8 + x\n",
        "import asyncio\nasync def g(x):\n    return x + 1\n"
        "def f(x):\n    return asyncio.run(g(x))\n",
        "import signal\nsignal.alarm(60)\n" + ADDS,
        "import atexit\natexit.register(print, 'bye')\n" + ADDS,
        "counter = 0\ndef f(x):\n    global counter\n    counter += 1\n    return x + counter\n",
        "class F:\n    def __call__(self, x):\n        return x + 1\nf = F()\n",
        "f = (1).__add__\n",
        "import functools, operator\nf = functools.partial(operator.add, 1)\n",
    ],
)
def test_right_programs_pass(box, source):
    told = check_program(source, TESTS, sandbox=box)
    assert told.verdict == Verdict.PASSED, told


def test_numpy_is_there(box):
    pytest.importorskip("numpy")
    source = (
        "import numpy as np\n"
        "def f(x):\n"
        "    return np.linalg.solve(np.eye(2), np.array(x, float)) * 2\n"
    )
    tests = (
        "import numpy as np\n"
        "assert (f([1, 2]) == np.array([2, 4])).all()\n"
        "assert f([1, 2]).tolist() == [2, 4] and f([1, 2])[0] == 2\n"
        "assert np.allclose(f([1, 2]), [2, 4])\n"
    )
    told = check_program(source, tests, sandbox=box)
    assert told.ok, told
    assert not check_program(source.replace("* 2", "* 3"), tests, sandbox=box).ok
    values = (
        "import numpy as np\n"
        "a = [np.float32(.5), np.int64(3), np.bool_(True), np.str_('x'), np.array(7),\n"
        "     np.array({1}, object), np.array([[1, 'b']], object), np.zeros((2, 0))]\n"
    )
    tests = (
        "for one, other in zip(f(), a):\n"
        "    assert type(one) is type(other) and one.dtype == other.dtype\n"
        "    assert one.shape == other.shape and np.all(one == other)\n"
        "kept = a[4]\n"
        "change(kept)\n"
        "assert kept == 8\n"
    )
    functions = "def f():\n    return a\ndef change(x):\n    x += 1\n"
    told = check_program(values + functions, values + tests, sandbox=box)
    assert told.ok, told


def test_the_main_guard_of_a_reference_does_not_run():
    guard = "if __name__ == '__main__':\n    sys.exit(main())\n"
    more = f"\nimport sys\ndef main():\n    return 1\n\n{guard}"
    assert check_program(*humaneval(HUMANEVAL[0], more)).ok


# values


EQUAL = """
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
import enum, math
P = namedtuple('P', 'x y')
E = enum.IntEnum('E', 'one two')
class L(list):
    def top(self):
        return self[-1]
values = {
    'none': None, 'bool': True, 'int': -5, 'large': 10 ** 5000, 'float': 0.1, 'inf': -math.inf,
    'complex': 1 + 2j, 'str': 'h\\u00e9\\ud800', 'bytes': b'\\x00', 'list': [1, [2.0, 'x']],
    'tuple': ((), (1,)), 'dict': {1: 'a', (2,): None}, 'set': {1, 2}, 'frozenset': frozenset({3}),
    'range': range(1, 9, 2), 'slice': slice(1, None), 'bytearray': bytearray(b'ab'),
    'counter': Counter('aab'), 'ordered': OrderedDict([(2, 1), (1, 2)]),
    'default': defaultdict(int, {1: 2}), 'deque': deque([1, 2], 5), 'decimal': Decimal('1.50'),
    'fraction': Fraction(1, 3), 'date': date(2020, 2, 29), 'delta': timedelta(1, 2, 3),
    'moment': datetime(2020, 1, 2, 3, tzinfo=timezone.utc), 'keys': {1: 2}.keys(),
    'items': {1: 2}.items(), 'ellipsis': ..., 'type': int, 'pair': P(1, 2), 'enum': E.two,
    'own list': L([1, 2]), 'error': ValueError, 'nan': [math.nan],
}
"""
READ = """
import math
for name in ('none', 'bool', 'int', 'large', 'float', 'inf', 'complex', 'str', 'bytes', 'list',
             'tuple', 'dict', 'set', 'frozenset', 'range', 'slice', 'bytearray', 'ellipsis'):
    assert type(f(name)) is type(wanted[name]), name
for name, value in wanted.items():
    assert f(name) == value and value == f(name), name
    assert not f(name) == object() and not f(name) != value, name
assert f('counter').most_common(1) == [('a', 2)] and f('default')[7] == 0
assert list(f('ordered')) == [2, 1] and f('deque').maxlen == 5
assert f('pair').x == 1 and f('pair')._fields == ('x', 'y') and str(f('pair')) == 'P(x=1, y=2)'
assert f('enum').name == 'two' and f('enum') + 1 == 3 and isinstance(f('enum'), int)
assert f('own list').top() == 2 and isinstance(f('own list'), list)
assert f('nan') == [math.nan] and f('type')('7') == 7
assert issubclass(f('error'), Exception)
"""
WANTED = (
    EQUAL.replace("values = {", "wanted = {")
    .replace("P(1, 2)", "(1, 2)")
    .replace("E.two", "2")
    .replace("L([1, 2])", "[1, 2]")
)


def test_values_come_back_as_they_are(box):
    source = EQUAL + "def f(name):\n    return values[name]\n"
    told = check_program(source, WANTED + READ, sandbox=box)
    assert told.ok, told
    for name, other in (("int", "-5.5"), ("set", "[1, 2]"), ("ordered", "0"), ("pair", "[1, 2]")):
        wrong = source + f"values[{name!r}] = {other}\n"
        assert check_program(wrong, WANTED + READ, sandbox=box).verdict == Verdict.ASSERTION


OBJECTS = """
import copy
class Node:
    def __init__(self, value, *rest):
        self.value, self.left, self.right, self.rest = value, None, None, list(rest)
    def __eq__(self, other):
        return isinstance(other, Node) and self.value == other.value
    def __hash__(self):
        return hash(self.value)
    def __len__(self):
        return 1 + sum(map(len, filter(None, (self.left, self.right))))
    def __iter__(self):
        yield self.value
    def __getitem__(self, key):
        return self.rest[key]
    def __setitem__(self, key, value):
        self.rest[key] = value
    def __add__(self, other):
        return Node(self.value + other.value)
    def __lt__(self, other):
        return self.value < other.value
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self.value = 0
    def push(self, value):
        self.rest.append(value)
        return self
class Own(ValueError):
    pass
class Deeper(Own):
    def __init__(self, code):
        super().__init__('deeper')
        self.code = code
def leaves(node):
    return [] if node is None else leaves(node.left) + [node.value] + leaves(node.right)
def fails(how):
    raise {'own': Own('x'), 'deeper': Deeper(4), 'key': KeyError('k'), 'os': OSError(2, 'no')}[how]
def changes(items, table, group, deep):
    items.append(4); table['b'] = 2; group.add(3); deep[0][0] = 'new'
def same(x):
    return x
def twice(function, x):
    return function(function(x))
def counts(n):
    for i in range(n):
        yield i
def adder(n):
    return lambda x: x + n
def drains(items):
    return sum(items)
def reads(thing):
    return thing.size + thing.double(4) + len(thing)
kept = []
def keeps(items):
    kept.append(items)
    return kept
"""
USES = """
root = Node(1)
root.left, root.right = Node(0), Node(2)
root.left.value = 5
assert leaves(root) == [5, 1, 2] and root.left.value == 5 and len(root) == 3
assert root.left is not root and root.left is root.left and Node(1) == Node(1) != Node(2)
assert Node(1) != 1 and not Node(1) == 1 and {Node(1): 2}[Node(1)] == 2
assert sorted([Node(2), Node(1)])[0].value == 1 and (Node(1) + Node(2)).value == 3
assert list(Node(7)) == [7] and 7 in Node(7) and 8 not in Node(7) and Node(1, 6)[0] == 6
assert Node(1, 2).push(3).rest == [2, 3] and isinstance(root, Node) and not isinstance(1, Node)
with Node(4) as node:
    assert node.value == 4
assert node.value == 0 and hasattr(root, 'rest') and not hasattr(root, 'none')
node[0:0] = [1, 2]
assert node.rest == [1, 2]
for how, kind in (('own', Own), ('deeper', Own), ('deeper', Deeper), ('key', KeyError),
                  ('os', FileNotFoundError), ('own', ValueError)):
    try:
        fails(how)
        assert False
    except kind as error:
        assert how != 'deeper' or (error.code == 4 and str(error) == 'deeper')
        assert how != 'key' or error.args == ('k',)
items, table, group, deep = [1], {'a': 1}, {1}, ([0], 2)
changes(items, table, group, deep)
assert (items, table, group, deep) == ([1, 4], {'a': 1, 'b': 2}, {1, 3}, (['new'], 2))
assert same(items) is items and same(deep)[0] is deep[0]
assert twice(lambda x: x * 3, 2) == 18 and twice(str.upper, 'a') == 'A'
assert list(counts(3)) == [0, 1, 2] and next(counts(1)) == 0 and counts(3) != [0, 1, 2]
assert adder(2)(3) == 5 and adder.__name__ == 'adder' and drains(x * x for x in range(4)) == 14
class Thing:
    size = 3
    def double(self, x):
        return 2 * x
    def __len__(self):
        return 10
assert reads(Thing()) == 21
first = []
assert keeps(first)[0] is first
first.append('later')
assert keeps([2])[0] == ['later'] and kept[1] == [2]
loop = [1]
loop.append(loop)
assert same(loop)[1] is loop
for _ in range(300):
    items = [_]
    assert same(items) is items
"""


def test_objects_of_the_program_are_used_where_they_are(box):
    told = check_program(OBJECTS, USES, sandbox=box)
    assert told.ok, told


def test_what_tests_import_and_define(box):
    """They share a namespace with the program in the published graders."""
    needs = "def f(x):\n    return math.sqrt(x)"
    assert check_program(needs, "import math\nassert f(4) == 2", sandbox=box).ok
    assert not check_program(needs, "assert f(4) == 2", sandbox=box).ok
    helper = "def check(f):\n    raise ValueError\ndef f(x):\n    return x\n"
    tests = "def check(f):\n    assert f(1) == 1\ncheck(f)"
    assert check_program(helper, tests, sandbox=box).ok
    assert check_program("import sys\ndef f():\n    return 1", "assert sys.path and f()").ok
    assert check_program("from math import *", "assert isclose(sqrt(4), 2) and pi > 3").ok


def test_the_verdict_is_that_of_one_process(tmp_path):
    """References, and what is made of them: right where `exec` of all in one namespace is."""
    wrong = ("list(X)", "str(X)", "X == X", "iter([X])", "(X,)", "X or None", "float(X)")
    cases = []
    for number, row in enumerate(HUMANEVAL[::8]):
        source, tests = humaneval(row)
        name = row["entry_point"]
        cases.append((source, tests))
        other = wrong[number % len(wrong)].replace("X", "_right(*all)")
        cases.append((f"{source}_right = {name}\ndef {name}(*all):\n    return {other}\n", tests))
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(cases))
    code = (
        "import io, json, sys\n"
        "from contextlib import redirect_stdout\n"
        "for source, tests in json.load(open(sys.argv[1])):\n"
        "    try:\n"
        "        with redirect_stdout(io.StringIO()):\n"
        "            exec(source + '\\n' + tests, {})\n"
        "        print(1)\n"
        "    except BaseException:\n        print(0)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
    )
    plain = [line == "1" for line in run.stdout.split()]
    ours = [check_program(*case, sandbox=best_sandbox()).ok for case in cases]
    assert ours == plain
    assert all(plain[::2])
    assert 2 < sum(plain[1::2]) < len(cases) // 2 - 2, "some of the others are right, some wrong"


def test_what_was_written_is_told(box):
    source = "print('program')\ndef f(x):\n    print('called', end='')\n    return x"
    told = run_python(source, "f(1)\nprint('tests')", timeout_s=10, memory_mb=256, sandbox=box)
    assert told == (Verdict.PASSED, "program\ncalledtests\n", "", "")


SUBCLASSES = {
    "an ordered dict with methods of its own": (
        "from collections import OrderedDict\n"
        "class LRU(OrderedDict):\n"
        "    def __init__(self, size):\n        super().__init__()\n        self.size = size\n"
        "    def get(self, key):\n        if key not in self:\n            return -1\n"
        "        self.move_to_end(key)\n        return self[key]\n"
        "    def put(self, key, value):\n        self[key] = value\n        self.move_to_end(key)\n"
        "        if len(self) > self.size:\n            self.popitem(last=False)\n",
        "c = LRU(2)\nc.put(1, 1)\nc.put(2, 2)\nassert c.get(1) == 1\nc.put(3, 3)\n"
        "assert c.get(2) == -1\nassert list(c) == [1, 3]",
    ),
    "a list whose append doubles": (
        "class S(list):\n    def append(self, x):\n        list.append(self, x * 2)\n"
        "def f():\n    return S()\n",
        "s = f()\ns.append(3)\ns.extend([1])\nassert s == [6, 1]",
    ),
    "a counter": (
        "from collections import Counter\nclass C(Counter):\n    pass\n"
        "def f():\n    return C('aab')\n",
        "assert f().most_common(1) == [('a', 2)]\nassert f() == {'a': 2, 'b': 1}",
    ),
    "a named tuple": (
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\n"
        "def f():\n    return P(1, 2)\n",
        "assert f().x == 1 and f() == (1, 2) and f()._asdict() == {'x': 1, 'y': 2}",
    ),
}


@pytest.mark.parametrize("name", SUBCLASSES)
def test_methods_of_subclasses_of_plain_types_are_theirs(box, name):
    source, tests = SUBCLASSES[name]
    assert check_program(source, tests, sandbox=box).ok
