"""Values are computed once for equal keys, also where threads ask side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from dlm.search.memory import Memory


def always(value):
    return True


def test_equal_keys_are_computed_once():
    memory, asked = Memory[str](), []

    def compute(numbers):
        asked.append(list(numbers))
        return [f"value {number}" for number in numbers]

    owner = object()
    first = memory.find(owner, ["a", "b", "a", "c", "b"], compute, always)
    assert first == ["value 0", "value 1", "value 0", "value 3", "value 1"]
    assert memory.find(owner, ["c", "d", "a"], compute, always) == ["value 3", "value 1", "value 0"]
    assert memory.find(owner, ["d"], compute, always) == ["value 1"]
    assert asked == [[0, 1, 3], [1]]


def test_owners_share_nothing():
    memory = Memory[object]()
    owners = [object(), object()]
    found = [memory.find(one, ["a"], lambda _, one=one: [one], always) for one in owners]
    assert found == [[owners[0]], [owners[1]]]


def test_who_asks_beside_another_thread_waits_for_its_value():
    memory, owner, begun, free = Memory[str](), object(), Event(), Event()
    asked = []

    def slow(numbers):
        asked.append(("slow", list(numbers)))
        begun.set()
        assert free.wait(60)
        return ["slow"] * len(numbers)

    def quick(numbers):
        asked.append(("quick", list(numbers)))
        free.set()
        return ["quick"] * len(numbers)

    with ThreadPoolExecutor() as threads:
        first = threads.submit(memory.find, owner, ["a", "b"], slow, always)
        assert begun.wait(60)
        second = threads.submit(memory.find, owner, ["b", "c"], quick, always)
        assert second.result(60) == ["slow", "quick"]
        assert first.result(60) == ["slow", "slow"]
    assert asked == [("slow", [0, 1]), ("quick", [1])]


def test_a_value_that_does_not_last_is_computed_again():
    memory, owner, values = Memory[int](), object(), iter(range(10))
    for expected in (0, 1, 2, 2):
        found = memory.find(owner, ["a", "a"], lambda _: [next(values)], lambda one: one == 2)
        assert found == [expected, expected]


def test_an_error_goes_to_all_who_wait_and_is_forgotten():
    memory, owner, begun, free = Memory[str](), object(), Event(), Event()

    def fail(numbers):
        begun.set()
        assert free.wait(60)
        raise ZeroDivisionError

    with ThreadPoolExecutor() as threads:
        first = threads.submit(memory.find, owner, ["a"], fail, always)
        assert begun.wait(60)
        second = threads.submit(
            memory.find, owner, ["a", "b"], lambda _: free.set() or ["b"], always
        )
        for waiting in (first, second):
            with pytest.raises(ZeroDivisionError):
                waiting.result(60)
    assert memory.find(owner, ["a", "b"], lambda numbers: ["new"], always) == ["new", "b"]
