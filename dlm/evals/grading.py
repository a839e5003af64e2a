"""The second stage of a run: verdicts on samples, which need no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dlm.errors import InvalidRequest
from dlm.evals.items import Item
from dlm.evals.judging import Judge, Marks
from dlm.evals.marking import mark
from dlm.evals.sampling import Sample, read_lines, read_samples

Verdicts = dict[tuple[str, int], bool]
"""(item id, sample index) -> whether the answer is right."""
Judged = dict[tuple[str, str], Marks]
"""(item id, text) -> what was made of it: the same answer is judged once."""


def grade_samples(
    items: Sequence[Item],
    samples_path: Path,
    path: Path,
    *,
    judge: Judge | None = None,
    judged: Judged | None = None,
    tell: Callable[[], None] = lambda: None,
) -> Verdicts:
    """Grade what `path` has no verdict on and append it, a line a verdict.

    An answer with positions that were never filled is wrong; one that cannot be judged gets no
    verdict, so that it is in no figure and the next grading tries again. `judge`: what grades, as
    many answers at once as it has workers. `judged`: marks of texts, from which those of the same
    text are taken and to which new ones are added. Raises `InvalidRequest` when a sample answers
    none of `items`.
    """
    known, judge = {item.id: item for item in items}, judge or Judge()
    marks, judged = read_marks(path), {} if judged is None else judged
    samples = read_samples(samples_path)
    for s in (s for s in samples if (s.item, s.index) in marks and not s.masked_left):
        judged.setdefault((s.item, s.text), marks[s.item, s.index])
    todo = [s for s in samples if (s.item, s.index) not in marks]
    if lost := [s.item for s in todo if s.item not in known]:
        raise InvalidRequest("items", f"{samples_path} answers {lost[0]!r}, not one of the set")

    def of(sample: Sample) -> Marks | None:
        if sample.masked_left:
            return Marks(False, note=f"{sample.masked_left} positions were never filled")
        before = judged.get((sample.item, sample.text))
        return mark(known[sample.item], sample.text, judge) if before is None else before

    with ThreadPoolExecutor(judge.workers) as pool, path.open("a", encoding="utf-8") as file:
        for sample, found in zip(todo, pool.map(of, todo), strict=True):
            if found is None:
                continue
            marks[sample.item, sample.index] = found
            if not sample.masked_left:
                judged[sample.item, sample.text] = found
            file.write(json.dumps(_line(sample, found)) + "\n")
            file.flush()
            tell()
    return {key: found.right for key, found in marks.items()}


def _line(sample: Sample, marks: Marks) -> dict[str, Any]:
    """One line of the verdicts; scores and notes stand there where there are some."""
    line = {"item": sample.item, "index": sample.index, "right": marks.right}
    more = {"scores": dict(marks.scores), "note": marks.note}
    return line | {name: value for name, value in more.items() if value}


def read_marks(path: Path) -> dict[tuple[str, int], Marks]:
    """The verdicts of a file with all that was noted, none if there is no file."""
    return {
        (line["item"], line["index"]): Marks(
            bool(line["right"]), line.get("scores", {}), line.get("note", "")
        )
        for line in read_lines(path)
    }


def read_verdicts(path: Path) -> Verdicts:
    """The verdicts of a file, none if there is no file."""
    return {key: marks.right for key, marks in read_marks(path).items()}


def mean_scores(marks: Mapping[tuple[str, int], Marks]) -> dict[str, float]:
    """The means of the further scores, over the answers that have them."""
    found: dict[str, list[float]] = {}
    for judged in marks.values():
        for name, score in judged.scores.items():
            found.setdefault(name, []).append(score)
    return {name: sum(scores) / len(scores) for name, scores in found.items()}
