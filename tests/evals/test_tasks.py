"""The bundled tasks: answers are right, wrong ones are not, and no structure is in two splits."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece as spm
from hypothesis import given, settings
from hypothesis import strategies as st

import dlm.model
from dlm.errors import InvalidRequest
from dlm.evals.items import bundled_items
from dlm.evals.tasks import MIX, TASKS, Split, get_task, math, sample, split_of
from dlm.evals.tasks.base import CLOSED, HELD_OUT
from dlm.evals.tasks.code import LISTS, STRINGS, run_reference
from dlm.evals.tasks.code_ops import LIST_OPS, STRING_OPS, Op
from dlm.evals.tasks.countdown import reaches
from dlm.evals.tasks.drill import Drill
from dlm.evals.tasks.judge import slips
from dlm.evals.tasks.long import LINES
from dlm.evals.tasks.math import EASY, HARD, MEDIUM, Work
from dlm.evals.tasks.sudoku import as_text, canonical, draw_puzzle, is_unique, solutions

TOKENIZER = Path(dlm.model.__file__).parent / "bundled" / "tiny" / "tokenizer.model"
seeds = st.integers(0, 2**32)
cheap = pytest.mark.parametrize("name", [name for name in TASKS if name not in ("code", "judge")])


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


def test_code_shows_public_tests_in_a_third_of_the_docstrings():
    task, rng = get_task("code"), random.Random(0)
    examples = [task.make(rng) for _ in range(600)]
    shown = [example for example in examples if example.meta["public"]]
    assert len(shown) / 600 == pytest.approx(1 / 3, abs=0.06)
    for example in shown:
        for value, wanted in example.meta["public"]:
            call = f"{example.meta['entry']}({value!r})"
            assert f"    >>> {call}\n    {wanted!r}\n" in example.prompt
            source = example.prompt + example.answer
            assert run_reference(source, example.meta["entry"], value) == wanted
    assert all(len({repr(y) for _, y in e.meta["tests"]}) > 1 for e in examples)
    assert {e.rung for e in examples} >= {"closed", "1-op", "2-op", "3-op", "4-op", "5-op"}


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
    beyond = Counter(split_of((HELD_OUT, n)) for n in range(2_000))
    assert set(beyond) == {"dev", "test"}
    assert beyond["dev"] / 2_000 == pytest.approx(0.5, abs=0.04)


def test_training_shows_no_crowded_story_and_no_long_composition():
    rng = random.Random(4)
    shown = {name: [sample(rng, "train", name) for _ in range(800)] for name in ("math", "code")}
    assert not {e.rung for e in shown["math"]} & {"crowded"}
    assert not {e.rung for e in shown["code"]} & {"6-op", "7-op", "8-op"}
    held = [item for item in bundled_items("math", "test") if item.rung == "crowded"]
    assert all(len(item.prompt.split(". ")) >= 4 for item in held)
    longest = [item for item in bundled_items("code", "test") if item.rung == "8-op"]
    assert len(held) > 50
    assert all(item.answer.count("\n") == 8 for item in longest)


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


def test_distractors_change_neither_steps_nor_key(monkeypatch: pytest.MonkeyPatch):
    changed = 0
    for seed in range(300):
        found = []
        for share in (0.0, 1.0):
            monkeypatch.setattr(math, "DISTRACTED_SHARE", share)
            found.append(get_task("math").make(random.Random(seed)))
        plain, distracted = found
        assert (plain.key, plain.answer) == (distracted.key, distracted.answer)
        assert plain.prompt.rpartition(". ")[2] == distracted.prompt.rpartition(". ")[2]
        changed += plain.prompt != distracted.prompt
        assert plain.rung != "easy" or plain.prompt == distracted.prompt
    assert changed > 100


@settings(max_examples=100, deadline=None)
@given(seed=seeds)
def test_judge_says_yes_to_true_candidates_and_no_to_near_misses(seed: int):
    example = get_task("judge").make(random.Random(seed))
    lines, candidate = example.meta["lines"], example.meta["candidate"]
    assert all(eval(line.replace("=", "==")) for line in lines)
    assert ", ".join(candidate) in example.prompt
    *working, compared = example.answer.split("\n")
    assert working == lines
    own, claimed = (int(worked[-1].split("=")[1]) for worked in (lines, candidate))
    word = "Yes" if candidate == lines else "No"
    assert compared == f"{own}={claimed}? {word}"
    assert (own == claimed) == (candidate == lines) == (example.rung == "right")
    other = {"Yes": "No", "No": "Yes"}[word]
    for text in (example.answer, word, f"1+1=3\n{word}\n"):
        assert get_task("judge").grade(example, text)
    for text in (f"{own}={claimed}? {other}", "\n".join(lines), f"{word}\n{other}", ""):
        assert not get_task("judge").grade(example, text)


def test_judge_keys_hold_the_structure_and_the_claimed_values_only():
    keys = {}
    for seed in range(400):
        example = get_task("judge").make(random.Random(seed))
        name, structure, claimed = example.key
        assert name == "judge"
        assert all(f"={value}" in example.prompt for value in claimed)
        same = keys.setdefault((structure, claimed), example.rung)
        assert same == example.rung
        if len(example.meta["lines"]) == 1 and example.prompt.startswith("Compute"):
            left, op, right = structure
            assert op not in "+*" or left <= right


@pytest.mark.parametrize("split", ["train", "test"])
def test_judge_is_balanced(split: Split):
    rng = random.Random(0)
    drawn = Counter(sample(rng, split, "judge").rung for _ in range(400))
    assert drawn["right"] / drawn.total() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("question", "slip"), [("27+36", 53), ("52-17", 45), ("6*3", 9), ("12/4", 8), ("9+8", 7)]
)
def test_slips_are_known_mistakes_and_wrong(question: str, slip: int):
    value = int(eval(question))
    found = slips(question, value)
    assert slip in found
    assert value not in found
    assert min(found) >= 0


@pytest.mark.skipif(not TOKENIZER.exists(), reason="no bundled checkpoint")
def test_long_prompts_have_the_length_of_their_rung():
    pieces = spm.SentencePieceProcessor(model_file=str(TOKENIZER))
    rng, seen = random.Random(0), set[str]()
    for _ in range(60):
        example = sample(rng, "test", "long")
        tokens, ledger = int(example.rung), example.prompt.split("\n")[:-1]
        pairs = {line.split(":")[0] for line in ledger}
        assert len(pairs) == len(ledger) == LINES[example.rung]
        assert 0.75 * tokens <= len(pieces.encode(example.prompt)) <= 1.25 * tokens
        seen.add(example.rung)
    assert seen == set(LINES)


def test_long_answers_follow_from_the_ledger():
    rng, task = random.Random(1), get_task("long")
    for _ in range(100):
        example = task.make(rng)
        *ledger, question = example.prompt.split("\n")
        entries = [ledger[place] for place in example.meta["lines"]]
        people, things = zip(*(entry.split(":")[0].split(", ") for entry in entries), strict=True)
        assert all(person in question for person in people)
        assert len(set(people)) == len(people)
        assert example.answer.split("\n")[: len(entries)] == entries
        if example.meta["gold"] is None:  # the lines are all that is asked for
            assert example.key[0] == CLOSED
            assert task.grade(example, "\n".join(entries))
            assert not task.grade(example, "\n".join(entries[1:]))
            continue
        assert all(thing in question for thing in things)
        prices = [int(entry.split()[-1]) for entry in entries]
        total = len(prices) == 1 or "together" in question
        wanted = sum(prices) if total else prices[0] - prices[1]
        assert int(example.meta["gold"]) == wanted >= 0


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


def test_countdown_keys_do_not_change_by_the_order_of_the_numbers():
    for seed in range(50):
        example = get_task("countdown").make(random.Random(seed))
        assert example.key[1:] == (
            tuple(sorted(example.meta["numbers"])),
            example.meta["target"],
        )


def test_the_mix_sums_to_one():
    assert sum(weight for _, weight in MIX) == pytest.approx(1)
    assert len(set(TASKS)) == len(TASKS)


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(InvalidRequest, match=r"countdown.*got 'maths'"):
        get_task("maths")
