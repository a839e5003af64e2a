"""The graders on answers of LLaDA-8B-Instruct that d1 (arXiv 2504.12216) has published.

    python evals/published_answers.py FOLDER

FOLDER holds the files of `eval/eval_baselines` in dllm-reasoning/d1. Prints percent right by d1's
rules for each task and length, and by math-verify for MATH-500.
"""

import json
import re
from argparse import ArgumentParser
from pathlib import Path

from dlm.evals.graders import Judge
from dlm.evals.graders.arithmetic import countdown_expression, reaches
from dlm.evals.graders.grid import grid_of, right_cells
from dlm.evals.graders.maths import boxed_or_tagged, equivalent
from dlm.evals.graders.numbers import boxed_number


def cells(text, question, reference):
    puzzle = re.search(r"[0-9]{16}", question)[0]
    right, empty = right_cells(grid_of(text), puzzle, reference)
    return right / empty


GRADES = {
    "countdown": lambda text, question, reference: reaches(countdown_expression(text), *reference),
    "gsm8k": lambda text, question, reference: boxed_number(text) == reference,
    "math500": lambda text, question, reference: equivalent(boxed_or_tagged(text), reference),
    "sudoku": cells,
}


def main(folder):
    for task, grade in GRADES.items():
        for length in (128, 256, 512):
            files = sorted(folder.glob(f"{task}_instruct_{length}_*_generations.json"))
            rows = [row for path in files for row in json.loads(path.read_text())["generations"]]
            if not rows:
                print(f"{task} {length}: no file")
                continue
            asked = [(row["generations"], row["question"], row["ground_truth"]) for row in rows]
            right = sum(grade(*each) for each in asked)
            told = f"{task} {length}: {100 * right / len(asked):.1f} of {len(asked)}"
            if task == "math500":
                with Judge() as judge:
                    lenient = sum(judge.same_mathematics(text, gold) for text, _, gold in asked)
                told += f", math-verify {100 * lenient / len(asked):.1f}"
            print(told, flush=True)


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args().folder
    if not any(given.glob("*_instruct_*_generations.json")):
        parser.error(f"{given} holds no answers: no file is called *_instruct_*_generations.json")
    main(given)
