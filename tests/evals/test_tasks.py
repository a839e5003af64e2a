"""The bundled tasks: answers are right, wrong ones are not, and no structure is in two splits."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.errors import InvalidRequest
from dlm.evals.tasks import TASKS, get_task, sample, split_of
from dlm.evals.tasks.base import CLOSED
from dlm.evals.tasks.code import LISTS, STRINGS, run_reference
from dlm.evals.tasks.code_ops import LIST_OPS, STRING_OPS, Op
from dlm.evals.tasks.countdown import reaches
from dlm.evals.tasks.drill import Drill
from dlm.evals.tasks.math import EASY, HARD, MEDIUM, Work
from dlm.evals.tasks.sudoku import as_text, canonical, draw_puzzle, is_unique, solutions

seeds = st.integers(0, 2**32)
cheap = pytest.mark.parametrize("name", [name for name in TASKS if name != "code"])


def change_one(text: str, rng: random.Random) -> str:
    """The text with its last digit, else its last letter, changed to another."""
    chosen = max(i for i, c in enumerate(text) if c.isdigit() == any(map(str.isdigit, text)))
    others = "123456789" if text[chosen].isdigit() else "abcdexyz"
    return text[:chosen] + rng.choice(others.replace(text[chosen], "")) + text[chosen + 1 :]


@cheap
@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_answers_are_right_and_changed_ones_are_not(name: str, seed: int):
    rng = random.Random(seed)
    task = get_task(name)
    example = task.make(rng)
    assert task.grade(example, example.answer)
    assert task.grade(example, example.answer + "\n")
    assert not task.grade(example, "")
    assert not task.grade(example, "nonsense\n=+\n\\boxed{")
    changed = change_one(example.answer.rstrip("}"), rng)
    assert not task.grade(example, changed + "}" * example.answer.endswith("}"))


def test_code_answers_run_and_wrong_ones_fail():
    task, rng = get_task("code"), random.Random(3)
    for _ in range(6):
        example = task.make(rng)
        assert task.grade(example, example.answer)
        assert not task.grade(example, "    return None")
    assert not task.grade(example, "")
    assert not task.grade(example, "    return (")


@pytest.mark.parametrize(
    ("ops", "inputs"),
    [(LIST_OPS, [list(xs) for xs in LISTS]), (STRING_OPS, STRINGS)],
    ids=["lists", "strings"],
)
def test_every_code_operation_changes_some_hidden_input(ops: tuple[Op, ...], inputs: Sequence[Any]):
    """An operation that no hidden input shows could be left out and still pass."""
    for op in ops:
        for k in range(*op.span) if op.span else (0,):
            for a in "abcdeiost" if op.name == "replace" else "a":
                line = op.code.format(v="x", k=k, a=a, b="z")
                source = f"def f(x):\n    {line}\n    return x\n"
                assert any(run_reference(source, "f", x) != x for x in inputs), line


@pytest.mark.parametrize("name", TASKS)
def test_same_seed_same_examples(name: str):
    first, second = ([sample(random.Random(7), "dev", name) for _ in range(3)] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", TASKS)
def test_splits_are_disjoint_by_structure(name: str):
    rng = random.Random(1)
    splits = {s: {sample(rng, s, name).key for _ in range(40)} for s in ("train", "dev", "test")}
    for split, keys in splits.items():
        assert all(split_of(key) == split for key in keys)
    assert not splits["train"] & splits["test"]
    assert not splits["dev"] & splits["test"]


def test_split_shares_and_closed_categories():
    shares = Counter(split_of(("x", n)) for n in range(20_000))
    assert shares["train"] / 20_000 == pytest.approx(0.94, abs=0.01)
    assert shares["dev"] / 20_000 == pytest.approx(0.03, abs=0.01)
    assert all(split_of((CLOSED, n)) == "train" for n in range(500))


@pytest.mark.parametrize("name", TASKS)
def test_meta_and_key_survive_json(name: str):
    for seed in range(20):
        example = get_task(name).make(random.Random(seed))
        assert json.loads(json.dumps(dict(example.meta))) == example.meta
        assert json.loads(json.dumps(example.key)) == json.loads(json.dumps(list(example.key)))


@settings(max_examples=100, deadline=None)
@given(a=st.integers(1, 99), b=st.integers(1, 99), c=st.integers(1, 99))
def test_math_keys_do_not_change_by_commutation(a: int, b: int, c: int):
    work = Work()
    left = work.step(work.step(a, "*", b), "+", c)
    right = work.step(c, "+", work.step(b, "*", a))
    assert left == right
    assert work.step(a, "-", b).tree != work.step(b, "-", a).tree or a == b


def test_drill_keys_do_not_change_by_commutation_or_order():
    keys = {}
    rng = random.Random(0)
    for _ in range(200):
        example = Drill().make(rng)
        facts = example.key[1]
        assert list(facts) == sorted(facts)
        assert all(a <= b for a, op, b in facts if op in "+*")
        keys[example.prompt] = example.key
    assert len(keys) > 190


def test_math_steps_are_true_and_rungs_count_them():
    rng = random.Random(0)
    for template in (*EASY, *MEDIUM, *HARD):
        for _ in range(50):
            work = Work()
            question, result = template(rng, work)
            for line in work.lines:
                left, right = line.split("=")
                assert eval(left) == int(right) >= 0
            assert work.lines[-1].endswith(f"={result.value}")
            assert question.endswith(("?", ".")), question
            steps = len(work.lines)
            assert template in (EASY if steps == 1 else MEDIUM if steps <= 3 else HARD)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, holes=st.integers(5, 11))
def test_sudoku_has_one_solution_and_a_key_blind_to_labels(seed: int, holes: int):
    rng = random.Random(seed)
    puzzle, solution = draw_puzzle(rng, holes)
    assert puzzle.count(0) == holes
    assert list(solutions(puzzle)) == [tuple(solution)]
    labels = [0, *rng.sample((1, 2, 3, 4), 4)]
    assert canonical([labels[cell] for cell in puzzle]) == canonical(puzzle)
    assert as_text(puzzle).count("\n") == 3


def test_sudoku_without_or_with_many_solutions_is_not_unique():
    assert not is_unique([0] * 16)
    assert not is_unique([1, 1, *[0] * 14])


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("3*7=21\n21-2=19", True),
        ("7*3=21\n21-2=19", True),
        ("3+7=10\n10*2=20", False),
        ("3*7=21\n21-2=18", False),
        ("3*7=21", False),
        ("3*7=21\n21-2=19\n19+0=19", False),
        ("7-2=5\n7*3=21", False),
        ("19", False),
        ("3/0=0\n0+19=19", False),
    ],
)
def test_countdown_accepts_any_true_chain(text: str, right: bool):
    assert reaches(text, [3, 7, 2], 19) is right


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(InvalidRequest, match=r"countdown.*got 'maths'"):
        get_task("maths")
