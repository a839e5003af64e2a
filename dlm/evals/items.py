"""Test sets: problems with an id, in files that do not change, and their graders.

The bundled sets are drawn once from the generators of `dlm.evals.tasks` and ship as
`data/<task>.<split>.jsonl.gz`; no structure of a set is in training.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from dlm.errors import InvalidRequest
from dlm.evals.tasks import TASKS, Example, Split, get_task, sample

DATA: Final = Path(__file__).parent / "data"
SIZES: Final[tuple[tuple[Split, int], ...]] = (("test", 1000), ("dev", 300))
"""Problems of each task in the bundled sets, fewer if there are no more."""
PATIENCE: Final = 200
"""A set is full when this many draws in a row give nothing new."""


@dataclass(frozen=True, slots=True)
class Item:
    """One problem. `prompt`: a text, which is one turn of a user, or the messages of a talk; with
    `raw` a text that no chat template goes around. `meta` is what its grader needs; `rung` the step
    of the task's ladder.
    """

    id: str
    task: str
    rung: str
    prompt: Any
    answer: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    raw: bool = False

    def grade(self, text: str) -> bool:
        """True if `text` answers the item. Raises `SandboxError` if code cannot be run."""
        key = ("", self.id)
        example = Example(self.task, self.rung, key, self.prompt, self.answer, self.meta)
        return get_task(self.task).grade(example, text)


def bundled_items(
    task: str, split: Split, limit: int | None = None, rungs: Collection[str] = ()
) -> list[Item]:
    """The first `limit` problems of a bundled set, of some rungs or (none named) of all.

    Raises `InvalidRequest` for unknown names, and for a limit below 1.
    """
    get_task(task)
    check_limit(limit)
    path = DATA / f"{task}.{split}.jsonl.gz"
    if not path.is_file():
        splits = ", ".join(repr(name) for name, _ in SIZES)
        raise InvalidRequest("split", f"must be one of {splits}, got {split!r}")
    return [item for item in read_items(path) if not rungs or item.rung in rungs][:limit]


def check_limit(limit: int | None) -> None:
    """Raise `InvalidRequest` if a limit leaves no problem."""
    if limit is not None and limit < 1:
        raise InvalidRequest("limit", f"must be at least 1, got {limit}")


def read_items(path: Path) -> list[Item]:
    """The problems of a JSONL file, compressed or not. Raises `InvalidRequest` naming the line."""
    opener = gzip.open if path.suffix == ".gz" else open
    items: list[Item] = []
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                items.append(_checked(Item(**json.loads(line))))
    except (ValueError, TypeError, EOFError, RecursionError, gzip.BadGzipFile) as error:
        raise InvalidRequest("items", f"{path}, line {len(items) + 1}: {error}") from error
    return items


def _checked(item: Item) -> Item:
    """Raise `ValueError` if a field is of another type."""
    for name in ("id", "task", "rung", "answer"):
        if not isinstance(getattr(item, name), str):
            raise ValueError(f"`{name}` must be a text, got {getattr(item, name)!r:.60}")
    if not isinstance(item.meta, Mapping):
        raise ValueError(f"`meta` must be an object, got {item.meta!r:.60}")
    return item


def dumped(items: Iterable[Item]) -> bytes:
    """One line of JSON for each problem; `raw` is there only if it is true."""
    found = (asdict(item) for item in items)
    plain = ({k: v for k, v in item.items() if k != "raw" or v} for item in found)
    return b"".join(json.dumps(item).encode() + b"\n" for item in plain)


def digest(items: Iterable[Item]) -> str:
    """The sha256 of a set, by which two runs know that they asked the same."""
    return hashlib.sha256(dumped(items)).hexdigest()


def draw_items(task: str, split: Split, count: int) -> list[Item]:
    """Up to `count` problems with different prompts, the same ones in every program."""
    rng, seen = Random(f"{task} {split}"), set[str]()
    items: list[Item] = []
    idle = 0
    while len(items) < count and idle < PATIENCE:
        example = sample(rng, split, task)
        idle = idle + 1 if example.prompt in seen else 0
        if idle:
            continue
        seen.add(example.prompt)
        name = f"{task}-{split}-{len(items):04}"
        items.append(
            Item(name, task, example.rung, example.prompt, example.answer, dict(example.meta))
        )
    return items


def write_bundled(folder: Path = DATA) -> None:
    """Draw the bundled sets and write their files."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        for split, count in SIZES:
            content = dumped(draw_items(task, split, count))
            (folder / f"{task}.{split}.jsonl.gz").write_bytes(gzip.compress(content, 9, mtime=0))


if __name__ == "__main__":
    write_bundled()
