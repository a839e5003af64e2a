"""Problems of the benchmark files as items that are not yet asked: `meta` holds what their prompts
and graders need, `answer` a right answer in the form that the file has it.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from dlm.evals.items import Item


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file, compressed or not, the list of a JSON file, the rows of a CSV."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".json":
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return found
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def humaneval(path: Path) -> Iterator[Item]:
    """HumanEval (arXiv 2107.03374): complete a function so that its tests pass."""
    for row in rows_of(path):
        meta = {"code": row["prompt"], "entry": row["entry_point"]}
        meta["tests"] = f"{row['test']}\ncheck({row['entry_point']})"
        yield Item(row["task_id"], "humaneval", "all", "", row["canonical_solution"], meta)


def mbpp(path: Path) -> Iterator[Item]:
    """MBPP (arXiv 2108.07732), all of the full or the sanitized file; `number` is the task's.

    The tests are the asserts alone, as in every published evaluation here: none runs the file's
    `test_setup_code` (of task 367) and `test_imports` (all of them `math`).
    """
    for row in rows_of(path):
        meta = {"number": row["task_id"], "text": row.get("text") or row["prompt"]}
        meta["asserts"] = row["test_list"]
        meta["tests"] = "\n".join(row["test_list"])
        yield Item(f"MBPP/{row['task_id']}", "mbpp", "all", "", row["code"], meta)


def math500(path: Path) -> Iterator[Item]:
    """The 500 problems of MATH (arXiv 2103.03874) that arXiv 2305.20050 held out; by level."""
    for row in rows_of(path):
        name, level = row["unique_id"].removesuffix(".json"), f"level {row['level']}"
        meta = {"problem": row["problem"], "reference": row["answer"]}
        yield Item(name, "math500", level, "", row["solution"], meta)


def gsm8k(path: Path) -> Iterator[Item]:
    """GSM8K (arXiv 2110.14168): word problems that end in one number."""
    for number, row in enumerate(rows_of(path)):
        reference = row["answer"].rsplit("#### ", 1)[1].strip()
        meta = {"question": row["question"], "reference": reference}
        yield Item(f"gsm8k/{number:04}", "gsm8k", "all", "", row["answer"], meta)


def countdown(path: Path) -> Iterator[Item]:
    """Countdown with three numbers, as d1 asks it; the file holds no solutions."""
    for number, row in enumerate(rows_of(path)):
        numbers, target = [int(each) for each in row["input"].split(",")], int(row["output"])
        meta = {"numbers": numbers, "target": target}
        answer = solution(numbers, target)
        yield Item(f"countdown/{number:03}", "countdown", "all", "", answer, meta)


def countdown_chains(path: Path) -> Iterator[Item]:
    """Countdown as Dream asks it: equations in a row, the last number is the target."""
    for number, row in enumerate(rows_of(path)):
        *numbers, target = (int(each) for each in row["input"].split(","))
        meta = {"input": row["input"], "numbers": numbers, "target": target}
        yield Item(f"chains/{number:04}", "countdown", "all", "", row["output"], meta)


def sudoku(path: Path) -> Iterator[Item]:
    """4x4 Sudokus with eight empty cells, as d1 asks them."""
    for number, row in enumerate(rows_of(path)):
        meta = {"puzzle": row["Puzzle"], "solution": row["Solution"]}
        yield Item(f"sudoku/{number:03}", "sudoku", "all", "", row["Solution"], meta)


def sudoku_grids(path: Path) -> Iterator[Item]:
    """4x4 Sudokus of four lines with ten empty cells, as Dream asks them."""
    for number, row in enumerate(rows_of(path)):
        puzzle, solved = (row[side].replace("\n", "") for side in ("input", "output"))
        meta = {"puzzle": puzzle, "solution": solved, "input": row["input"]}
        yield Item(f"grid/{number:03}", "sudoku", "all", "", row["output"], meta)


def shown_examples(path: Path) -> list[Item]:
    """Solved problems that a protocol shows, as its paper has them."""
    return [
        Item(f"shot/{number}", "shots", "all", "", row.get("answer") or row["solution"], row)
        for number, row in enumerate(rows_of(path))
    ]


def solution(numbers: list[int], target: int) -> str:
    """An expression that uses each number once and comes to the target; empty if none does."""

    def join(pool: list[tuple[Fraction, str]]) -> str:
        if len(pool) == 1:
            return pool[0][1] if pool[0][0] == target else ""
        for i, (left, one) in enumerate(pool):
            for j, (right, other) in enumerate(pool):
                if i == j:
                    continue
                rest = [part for k, part in enumerate(pool) if k not in (i, j)]
                values = [(left + right, "+"), (left - right, "-"), (left * right, "*")]
                values += [(left / right, "/")] if right else []
                for value, sign in values:
                    if found := join([*rest, (value, f"({one}{sign}{other})")]):
                        return found
        return ""

    return join([(Fraction(number), str(number)) for number in numbers])


LOADERS: Final[Mapping[str, Callable[[Path], Iterator[Item]]]] = MappingProxyType(
    {
        "humaneval": humaneval,
        "mbpp": mbpp,
        "mbpp-sanitized": mbpp,
        "math500": math500,
        "gsm8k": gsm8k,
        "gsm8k-train": gsm8k,
        "countdown": countdown,
        "countdown-chains": countdown_chains,
        "sudoku": sudoku,
        "sudoku-grids": sudoku_grids,
    }
)
"""By the name of the file."""
