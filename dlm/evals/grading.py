"""The second stage of a run: verdicts on samples, which need no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dlm.errors import InvalidRequest
from dlm.evals.items import Item
from dlm.evals.sampling import Sample, read_samples

Verdicts = dict[tuple[str, int], bool]
"""(item id, sample index) -> whether the answer is right."""
Judged = dict[tuple[str, str], bool]
"""(item id, text) -> whether it is right: the same answer is judged once."""


def grade_samples(
    items: Sequence[Item],
    samples_path: Path,
    path: Path,
    *,
    workers: int = 1,
    judged: Judged | None = None,
    tell: Callable[[], None] = lambda: None,
) -> Verdicts:
    """Grade what `path` has no verdict on and append it, a line a verdict.

    An answer with positions that were never filled is wrong. `workers`: how many answers are
    graded at once (code runs in processes of its own). `judged`: verdicts on texts, from which
    those of the same text are taken and to which new ones are added. Raises `InvalidRequest` when a
    sample answers none of `items`.
    """
    known = {item.id: item for item in items}
    verdicts, judged = read_verdicts(path), {} if judged is None else judged
    samples = read_samples(samples_path)
    for s in (s for s in samples if (s.item, s.index) in verdicts and not s.masked_left):
        judged.setdefault((s.item, s.text), verdicts[s.item, s.index])
    todo = [s for s in samples if (s.item, s.index) not in verdicts]
    if lost := [s.item for s in todo if s.item not in known]:
        raise InvalidRequest("items", f"{samples_path} answers {lost[0]!r}, not one of the set")

    def verdict(sample: Sample) -> bool:
        if sample.masked_left:
            return False
        before = judged.get((sample.item, sample.text))
        return known[sample.item].grade(sample.text) if before is None else before

    with ThreadPoolExecutor(workers) as pool, path.open("a", encoding="utf-8") as file:
        for sample, right in zip(todo, pool.map(verdict, todo), strict=True):
            verdicts[sample.item, sample.index] = right
            if not sample.masked_left:
                judged[sample.item, sample.text] = right
            line = {"item": sample.item, "index": sample.index, "right": right}
            file.write(json.dumps(line) + "\n")
            tell()
    return verdicts


def read_verdicts(path: Path) -> Verdicts:
    """The verdicts of a file, none if there is no file."""
    if not path.is_file():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {(line["item"], line["index"]): bool(line["right"]) for line in lines}
