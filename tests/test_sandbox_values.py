"""Values come through bytes as they were, and no bytes do more than make values."""

import contextlib
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.sandbox.inside.kinds import HOMES
from dlm.sandbox.inside.objects import Objects
from dlm.sandbox.inside.reading import Reader
from dlm.sandbox.inside.strangers import Stranger, Strangers
from dlm.sandbox.inside.writing import Writer

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.dates()
    | st.datetimes().map(lambda moment: moment.replace(fold=0))
    | st.timedeltas()
)
KEYS = st.integers() | st.text() | st.tuples(st.integers())
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.sets(KEYS)
        | st.frozensets(KEYS)
    ),
    max_leaves=30,
)
LETTERS = b"NTif*ncsb(Zr:kve&hHWVK!RmLDSYOCFQA;0123456789-"


def ends():
    """The tables of a program's end and of the tests'."""
    return (Objects(Strangers(), judges=judges) for judges in (False, True))


def written(objects, value) -> bytes:
    writer = Writer(objects)
    writer.value(value)
    return b"".join(writer.out)


@given(VALUES)
def test_plain_data_comes_back(value):
    program, tests = ends()
    found = Reader(tests, written(program, value)).value()
    assert repr(found) == repr(value) or found == value
    assert type(found) is type(value)


def test_containers_keep_their_identity():
    program, tests = ends()
    inner = [1]
    found = Reader(tests, written(program, [inner, (inner,), {"a": inner}])).value()
    assert found[0] is found[1][0] is found[2]["a"]
    assert Reader(program, written(tests, found[0])).value() is inner
    loop: list[object] = []
    loop.append(loop)
    found = Reader(tests, written(program, loop)).value()
    assert found[0] is found


def test_changes_are_found_once():
    program, tests = ends()
    items, table = [1, 2], {"a": 1}
    kept = Reader(tests, written(program, (items, table))).value()
    assert list(program.changes()) == []
    items[0], table["b"] = 7, 2
    assert dict(program.changes()) == {2: (7, 2), 4: ("a", 1, "b", 2)}
    assert list(program.changes()) == []
    tests.shared[2].become((7, 2))
    assert kept[0] == [7, 2]
    assert list(tests.changes()) == []
    assert tests.alone() == []
    del kept
    assert tests.alone() == [2, 4]
    assert not tests.shared
    assert not tests.numbers


def test_other_objects_are_strangers():
    class Own:
        def __eq__(self, other):
            return True

        def __hash__(self):
            return 5

    program, tests = ends()
    own = Own()
    found = Reader(tests, written(program, [own, own])).value()
    assert type(found[0]) is Stranger
    assert found[0] is found[1]
    assert (found[0] == 1, found[0] != 1, hash(found[0])) == (False, True, 5)
    assert Reader(program, written(tests, found[0])).value() is own


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"i1",
        b"s5;abc",
        b"(ffffffff;",
        b"(-5;3;1,2",
        b"&0;",
        b"h0;",
        b"L1;N0;",  # a number that only the tests' end gives
        b"V2;osN",
        b"m2;pt0;",
        b"Ra;os:system00",
        b"Rd;posix:systemN",
        b"R8;operator",
        b"Rf;builtins:__imp",
        b"!Kc;builtins:int0;",
        b"A2;s3;|O80;",
        b"W0;N",
        b"?",
    ],
)
def test_bytes_that_nobody_honest_writes(data):
    tests = Objects(Strangers(), judges=True)
    with pytest.raises(Exception, match=r"."):
        Reader(tests, data).value()


@settings(max_examples=60)
@given(VALUES, st.integers(0, 2**32))
def test_spoiled_bytes_make_values_or_nothing(value, seed):
    """Nothing but modules of plain types is imported for them."""
    program, tests = ends()
    data, rng = bytearray(written(program, value)), random.Random(seed)
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.choice(LETTERS)
    before = set(sys.modules)
    with contextlib.suppress(Exception):
        Reader(tests, bytes(data)).value()
    assert {name.partition(".")[0] for name in set(sys.modules) - before} <= HOMES
