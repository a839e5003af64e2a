"""Decisions beside answers as text, and their properties: `python evals/decisions.py`, about
fifteen minutes on one thread. Writes `evals/results/decisions`.

500 questions of the bundled test sets each; temperatures are fitted on the dev sets.
"""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path

import torch

import dlm
from dlm.evals.calibration import calibration, fit_temperature, with_temperature
from dlm.evals.decision_checks import company, grids, position_bias
from dlm.evals.decisions import cases, decided, mean_mass, written
from dlm.evals.header import session, weights_digest

TASKS = ("judge", "sudoku", "sums")
N = 500
SCORINGS = {"judge": ("chain", "pseudo", "first"), "sums": ("chain", "pseudo")}
OUT = Path(__file__).parent / "results" / "decisions"
NOTE = "The parcel from Kiel came late and its box was wet, but all of the glasses are whole. " * 4
ASKED = [
    *(dlm.Predicate(f"p{n}", f"Did {what}?") for n, what in enumerate(("it come", "they break"))),
    dlm.Choice("from", "Where is it from?", ["Kiel", "Bremen", "Hamburg"]),
    dlm.Score("mood", "How pleased is the writer?", ["angry", "calm", "glad"]),
    *(dlm.Choice(f"c{n}", f"Is it number {n}?", ["yes", "no", "unsure"]) for n in range(4)),
]


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def measured(engine, task, n=N, **options):
    """Answers on the test set, with measures before and after the temperature of the dev set."""
    fitted = fit_temperature(decided(engine, cases(task, engine, "dev"), **options).records)
    found = decided(engine, cases(task, engine, "test", n), **options)
    return {
        "task": task,
        "raw": asdict(calibration(found.records)),
        "temperature": fitted,
        "tempered": asdict(calibration(with_temperature(found.records, fitted))),
        "label_mass": mean_mass(found.masses),
        "nfe": found.nfe / n,
        "forwards": found.forwards / n,
        "positions": found.token_forwards / n,
        "ms": 1000 * found.seconds / n,
    }


def as_text(engine, task, preset):
    found = written(engine, cases(task, engine, "test", N), preset=preset)
    return {
        "task": task,
        "preset": preset,
        "accuracy": found.accuracy,
        "nfe": found.nfe / N,
        "positions": found.token_forwards / N,
        "ms": 1000 * found.seconds / N,
    }


def beside_text(decisions, texts):
    head = ["task", "answered by", "accuracy", "Brier", "ECE", "T", "Brier at T", "ECE at T"]
    head += ["label mass", "NFE", "positions", "ms"]
    rows = []
    for found in decisions:
        raw, cold = found["raw"], found["tempered"]
        cells = [found["task"], found["by"], f"{raw['accuracy']:.1%}", f"{raw['brier']:.4f}"]
        cells += [f"{raw['ece']:.4f}", f"{found['temperature']:.2f}", f"{cold['brier']:.4f}"]
        mass = found["label_mass"]
        cells += [f"{cold['ece']:.4f}", "-" if mass is None else f"{mass:.3f}"]
        rows.append([*cells, *costs(found)])
        for text in (t for t in texts if t["task"] == found["task"] and found["by"] == "chain"):
            cells = [text["task"], f"text, {text['preset']}", f"{text['accuracy']:.1%}"]
            rows.append([*cells, *"------", *costs(text)])
    return table(head, rows)


def costs(found):
    return [f"{found['nfe']:.1f}", f"{found['positions']:.0f}", f"{found['ms']:.1f}"]


def properties(engine):
    listed = dlm.QuestionTemplate(end=engine.info.eos_ids[:1])
    by_value = dlm.QuestionTemplate(end=engine.info.eos_ids[:1], choices="values")
    sums = [case for case in cases("sums", engine, "test") if len(case.question.choices) == 5]
    return {
        "grids": asdict(grids(engine, "test", 100)),
        "company": asdict(company(engine, NOTE, ASKED)),
        "letters": asdict(position_bias(engine, sums[:100], listed, "Which is the last value?")),
        "values": asdict(position_bias(engine, sums[:100], by_value, "Which is the last value?")),
    }


def main():
    engine = dlm.load("tiny", device="cpu")
    results = {"header": session() | {"weights": weights_digest(engine.model)}, "n": N}
    results["decisions"] = [
        measured(engine, task, scoring=scoring) | {"by": scoring}
        for task in TASKS
        for scoring in SCORINGS.get(task, ("chain",))
    ]
    results["properties"] = properties(engine)
    texts = [as_text(engine, task, preset) for task in TASKS for preset in ("fast", "quality")]
    results["texts"] = texts
    blocks = dlm.load("tiny-block", device="cpu")
    results["blocks"] = {
        "decisions": [measured(blocks, task) | {"by": "chain"} for task in TASKS],
        "company": asdict(company(blocks, NOTE, ASKED)),
    }
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    shown = beside_text(results["decisions"], texts)
    blocked = beside_text(results["blocks"]["decisions"], [])
    told = f"### tiny\n\n{shown}\n\n### tiny-block\n\n{blocked}\n"
    (OUT / "table.md").write_text(told)
    print(told)
    print(json.dumps(results["properties"] | {"blocks": results["blocks"]["company"]}, indent=1))


if __name__ == "__main__":
    ArgumentParser(description=__doc__).parse_args()  # there are no options
    torch.set_num_threads(1)
    main()
