"""The second stage of a run: the verdicts on its samples, in files; it needs no model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dlm.errors import InvalidRequest
from dlm.evals.graders import Judge, Marks, grade
from dlm.evals.identity import files_digest, version_of
from dlm.evals.items import Item
from dlm.evals.lines import appending, checked, read_lines
from dlm.evals.sampling import Sample, read_samples

Verdicts = dict[tuple[str, int], bool]
"""(item id, sample index) -> True if the answer is right."""
Judged = dict[tuple[str, str], Marks]
"""(item id, text) -> its marks: the same answer is judged once."""


def grade_samples(
    items: Sequence[Item],
    samples_path: Path,
    path: Path,
    *,
    judge: Judge | None = None,
    judged: Judged | None = None,
    grader: str | None = None,
    tell: Callable[[], None] = lambda: None,
) -> Verdicts:
    """Grade the samples on which `path` has no valid verdict and append a line for each.

    An answer with positions that were never filled is wrong. One that cannot be judged gets no
    verdict: no figure counts it, and the next grading tries again.

    judge: resources of the graders; its workers are the number of answers graded at once
    judged: marks by text, read for equal texts and extended by new ones
    grader: from `grader_digest`

    Raises `InvalidRequest` when a sample answers none of `items`.
    """
    known, judge, grader = {item.id: item for item in items}, judge or Judge(), _or(grader)
    samples, judged = read_samples(samples_path), {} if judged is None else judged
    if lost := [s.item for s in samples if s.item not in known]:
        raise InvalidRequest("items", f"{samples_path} answers {lost[0]!r}, not one of the set")

    def of(sample: Sample) -> Marks | None:
        if sample.masked_left:
            return Marks(False, note=f"{sample.masked_left} positions were never filled")
        before = judged.get((sample.item, sample.text))
        return grade(known[sample.item], sample.text, judge) if before is None else before

    with appending(path, wait=True) as file, ThreadPoolExecutor(judge.workers) as pool:
        marks = valid_marks(path, samples, grader)
        for s in (s for s in samples if (s.item, s.index) in marks and not s.masked_left):
            judged.setdefault((s.item, s.text), marks[s.item, s.index])
        todo = [s for s in samples if (s.item, s.index) not in marks]
        for sample, found in zip(todo, pool.map(of, todo), strict=True):
            if found is None:
                continue
            marks[sample.item, sample.index] = found
            if not sample.masked_left:
                judged[sample.item, sample.text] = found
            file.write(json.dumps(_line(sample, found) | {"seal": seal(grader, sample)}) + "\n")
            file.flush()
            tell()
    return {key: found.right for key, found in marks.items()}


def _or(grader: str | None) -> str:
    return grader_digest() if grader is None else grader


def grader_digest(sandbox: str = "") -> str:
    """The sha256 of all that verdicts depend on beside answers and items: the graders' own code
    without its docstrings, the versions of the packages they call, and the kind of `sandbox`.
    """
    room = Path(__file__).parent
    files = [room / "items.py"]
    for folder in (room / "graders", room / "tasks", room.parent / "sandbox"):
        files += sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc")
    versions = {name: version_of(name) for name in ("math-verify", "latex2sympy2-extended")}
    return files_digest(files, room.parent, json.dumps([versions, sandbox]))


def seal(grader: str, sample: Sample) -> str:
    """A digest of an answer and the graders that judge it, which a valid verdict carries."""
    sealed = json.dumps([grader, sample.item, sample.index, sample.text, sample.masked_left])
    return hashlib.sha256(sealed.encode()).hexdigest()[:16]


def valid_marks(
    path: Path, samples: Sequence[Sample], grader: str | None = None
) -> dict[tuple[str, int], Marks]:
    """The verdicts of a file on these very answers by the graders as they are now."""
    seals, found = _read(path), {}
    grader = _or(grader)
    for sample in samples:
        marks, sealed = seals.get((sample.item, sample.index), (None, ""))
        if marks is not None and sealed == seal(grader, sample):
            found[sample.item, sample.index] = marks
    return found


def _line(sample: Sample, marks: Marks) -> dict[str, Any]:
    """One line of the verdicts, with scores and note if there are any."""
    line = {"item": sample.item, "index": sample.index, "right": marks.right}
    more = {"scores": dict(marks.scores), "note": marks.note}
    return line | {name: value for name, value in more.items() if value}


def read_marks(path: Path) -> dict[tuple[str, int], Marks]:
    """The marks in a file, the last on each answer; none if there is no file.

    They may be of other answers or graders: `valid_marks` leaves those out.
    """
    return {key: marks for key, (marks, _) in _read(path).items()}


def _read(path: Path) -> dict[tuple[str, int], tuple[Marks, str]]:
    """Verdicts and their seals. Raises `InvalidRequest` naming a line that holds none."""
    return dict(read_lines(path, _parsed))


def _parsed(line: Mapping[str, Any]) -> tuple[tuple[str, int], tuple[Marks, str]]:
    """One line of the verdicts. Raises `ValueError`."""
    kinds = {"item": str, "index": int, "right": bool, "scores": dict, "note": str, "seal": str}
    full = checked({"scores": {}, "note": "", "seal": "", **line}, kinds)
    scores = checked(full["scores"], dict.fromkeys(full["scores"], float))
    return (full["item"], full["index"]), (Marks(full["right"], scores, full["note"]), full["seal"])


def read_verdicts(path: Path) -> Verdicts:
    """The verdicts of a file, none if there is no file."""
    return {key: marks.right for key, marks in read_marks(path).items()}


def scores_of(marks: Mapping[tuple[str, int], Marks]) -> dict[str, list[float]]:
    """The further scores by their names, each the means of the items that have it."""
    found: dict[str, dict[str, list[float]]] = {}
    for (item, _), judged in marks.items():
        for name, score in judged.scores.items():
            found.setdefault(name, {}).setdefault(item, []).append(score)
    return {name: [sum(own) / len(own) for own in items.values()] for name, items in found.items()}
