"""Train, check and export the bundled checkpoints, on one CPU thread or on a GPU.

    python examples/train_bundled.py tokenizer
    python examples/train_bundled.py train --minutes 110
    python examples/train_bundled.py export
    python examples/train_bundled.py evaluate

`--shape` says which: `tiny`, a masked diffusion model of LLaDA's shape with 1.4 M parameters;
`tiny-block`, its block-causal sibling; `tiny-ar`, an autoregressive one. All learn from endless
generated problems (`dlm.evals.tasks`). Everything is written under `--work`; `train --resume` goes
on where a run was stopped, on the same schedule; `train --start FOLDER` begins a further sitting
from the weights of an exported folder, with a fresh optimizer and schedule.
`--emphasis TASK=FACTOR` gives a task more of the mix. On a GPU: `--device cuda --workers 8
--tokens 32768`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from bundled_check import go_on_greedily, validate
from bundled_data import (
    BUCKETS,
    LONG_BUCKET,
    Batch,
    batches,
    load_tokenizer,
    prompt_ids,
    train_tokenizer,
)
from bundled_export import Training, write_card, write_checkpoint
from bundled_feed import Lessons, feed
from bundled_run import Run, learning_rate, new_run, train_step
from bundled_shapes import SHAPES

import dlm
from dlm.evals.items import bundled_items
from dlm.evals.tasks import TASKS, get_task, sample
from dlm.model.loading import load_model, spec_of

app = typer.Typer(add_completion=False, help=__doc__)
Work = Annotated[Path, typer.Option(help="Folder of the tokenizer, checkpoints and logs.")]
WORK = Path(".train")
Shape = Annotated[str, typer.Option(help=f"One of {', '.join(SHAPES)}.")]
Folder = Annotated[
    Path | None, typer.Option(help="Checkpoint folder (default: where the shape is bundled).")
]
BUNDLED = Path("dlm/model/bundled")

# glibc gives large blocks back to the system at once; the page faults cost a third of the CPU time.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
MUCH_USED = ("math", "code", "sudoku")


@app.command()
def tokenizer(work: Work = WORK, examples: int = 40_000) -> None:
    """Train the sentencepiece model and check that it restores every sampled text."""
    work.mkdir(parents=True, exist_ok=True)
    train_tokenizer(work / "tokenizer.model", examples)
    pieces = load_tokenizer(work / "tokenizer.model")
    rng = random.Random(2)
    for task in TASKS:
        sampled = [sample(rng, "train", task) for _ in range(1000)]
        for text in (text for example in sampled for text in (example.prompt, example.answer)):
            assert pieces.decode(pieces.encode(text)) == text, text
        prompts = [len(prompt_ids(pieces, example.prompt)) for example in sampled]
        answers = [len(pieces.encode(example.answer)) + 1 for example in sampled]
        lengths = [p + a for p, a in zip(prompts, answers, strict=True)]
        too_long = sum(length > LONG_BUCKET for length in lengths) / len(lengths)
        assert max(lengths) <= BUCKETS[-1], max(lengths)
        typer.echo(
            f"{task:10} prompt mean {sum(prompts) / 1000:5.1f} max {max(prompts):3}  answer mean "
            f"{sum(answers) / 1000:5.1f} max {max(answers):3}  over {LONG_BUCKET}: "
            f"{too_long:.2%}"
        )


@app.command()
def train(
    shape: Shape = "tiny",
    work: Work = WORK,
    minutes: Annotated[float, typer.Option(help="Wall time; the schedule follows it.")] = 95.0,
    resume: bool = False,
    start: Annotated[Path | None, typer.Option(help="Begin from this exported folder.")] = None,
    compiled: Annotated[bool, typer.Option(help="Compile the network (needs a compiler).")] = True,
    threads: int = 1,
    peak: Annotated[float, typer.Option(help="Highest learning rate.")] = 3e-3,
    tokens: Annotated[int, typer.Option(help="Tokens of a batch.")] = 4096,
    seed: int = 0,
    steps: Annotated[int, typer.Option(help="Stop after this many steps (for timing).")] = 1 << 60,
    emphasis: Annotated[
        list[str] | None, typer.Option(metavar="TASK=FACTOR", help="More of a task in the mix.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    workers: Annotated[int, typer.Option(help="Processes that make problems (0: this one).")] = 0,
    log_seconds: Annotated[float, typer.Option(help="Between two lines of the log.")] = 120.0,
) -> None:
    """Train until the time is up; with each line of the log the state is written."""
    if any(os.environ.get(name) != value for name, value in MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | MALLOC)
    torch.set_num_threads(threads)
    torch._dynamo.config.recompile_limit = 2 * len(BUCKETS)
    run, state = new_run(SHAPES[shape], seed, device), work / f"{shape}.pt"
    if resume:
        run.load(state)
    elif start is not None:
        run.start_from(start)
        use_tokenizer(start, work)
    pieces = load_tokenizer(work / "tokenizer.model")
    hidden = torch.compile(run.net.dense, dynamic=False) if compiled else run.net.dense
    held_out = {task: next(batches(pieces, 7, "dev", task, tokens=2048)) for task in TASKS}
    factors = {get_task(n).name: float(f) for n, _, f in (e.partition("=") for e in emphasis or ())}
    lessons = Lessons(run.net.spec, pieces, seed + run.step, tokens, factors)
    data = feed(lessons, workers, pinned=device != "cpu")
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    signal.signal(signal.SIGINT, lambda number, frame: stopped.append(number))

    begun, begun_tokens, last_log = time.monotonic() - run.seconds, run.tokens, run.seconds
    first_second = run.seconds
    while run.seconds < minutes * 60 and not stopped and run.step < steps:
        lr = learning_rate(peak, run.step, run.seconds / (minutes * 60))
        train_step(run, hidden, next(data), lr)
        run.seconds = time.monotonic() - begun
        if run.seconds - last_log >= log_seconds:
            speed = (run.tokens - begun_tokens) / (run.seconds - first_second)
            report(run, state, lr, speed, held_out)
            last_log = run.seconds
    speed = (run.tokens - begun_tokens) / (run.seconds - first_second)
    report(run, state, 0.0, speed, held_out)


def use_tokenizer(folder: Path, work: Path) -> None:
    """Copy the tokenizer of an exported folder to `work`; another one there is a mistake."""
    theirs, ours = folder / "tokenizer.model", work / "tokenizer.model"
    work.mkdir(parents=True, exist_ok=True)
    if ours.exists() and ours.read_bytes() != theirs.read_bytes():
        raise typer.BadParameter(f"{ours} is not the tokenizer of {folder}")
    ours.write_bytes(theirs.read_bytes())


def report(run: Run, state: Path, lr: float, speed: float, held_out: dict[str, Batch]) -> None:
    """Save the run and log one line."""
    run.save(state)
    recent = run.losses[-100:]
    line = {
        "minutes": round(run.seconds / 60, 2),
        "step": run.step,
        "tokens": run.tokens,
        "tokens_per_second": round(speed),
        "lr": round(lr, 6),
        "loss": round(float(torch.stack(recent).mean()), 4) if recent else None,
        "dev": validate(run.average, held_out),
    }
    run.losses = recent
    with state.with_suffix(".jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")
    typer.echo(json.dumps(line))


@app.command()
def export(shape: Shape = "tiny", work: Work = WORK, folder: Folder = None) -> None:
    """Write the averaged weights as an ordinary checkpoint folder of the shape's family."""
    folder = folder or BUNDLED / shape
    run = new_run(SHAPES[shape], 0)
    run.load(work / f"{shape}.pt")
    pieces = load_tokenizer(work / "tokenizer.model")
    write_checkpoint(folder, run.average, pieces)
    looks_ahead = run.net.spec.attention == "full"
    training = replace(run.training, canvas=LONG_BUCKET if looks_ahead else None)
    training.write(folder)
    write_card(folder, run.net.spec, training, {})
    typer.echo(f"wrote {folder}")


@app.command()
def evaluate(
    shape: Shape = "tiny",
    folder: Folder = None,
    n: Annotated[int, typer.Option(help=f"Test items of {', '.join(MUCH_USED)}.")] = 1000,
    rest: Annotated[int, typer.Option(help="Test items of each other task.")] = 200,
    threads: int = 1,
    show: Annotated[int, typer.Option(help="Answers to print for each task.")] = 0,
) -> None:
    """Grade the exported folder on its test sets and write the figures into its card."""
    torch.set_num_threads(threads)
    folder = folder or BUNDLED / shape
    answer = answers_of(folder)
    figures: dict[str, tuple[int, int]] = {}
    for task in map(get_task, TASKS):
        items = bundled_items(task.name, "test", n if task.name in MUCH_USED else rest)
        texts = answer([item.prompt for item in items], task.canvas)
        graded = [(item, t, item.grade(t)) for item, t in zip(items, texts, strict=True)]
        for item, text, right in graded[:show]:
            typer.echo(f"  {'right' if right else 'WRONG'} {item.prompt!r} -> {text!r}")
        for rung in sorted({item.rung for item in items}):
            marks = [right for item, _, right in graded if item.rung == rung]
            figures[f"{task.name} {rung}"] = sum(marks), len(marks)
            typer.echo(f"{task.name:10} {rung:12} {sum(marks):4} of {len(marks)}")
    write_card(folder, spec_of(folder), Training.read(folder), figures)


def answers_of(folder: Path) -> Callable[[list[str], int], list[str]]:
    """(prompts, most new tokens) -> texts: one token a step, or the next one at a time."""
    if spec_of(folder).attention == "causal":
        net, pieces = load_model(folder, device="cpu"), load_tokenizer(folder / "tokenizer.model")
        return lambda prompts, most: [go_on_greedily(net, pieces, p, most) for p in prompts]
    engine = dlm.load(folder, device="cpu")
    cache = "dual" if spec_of(folder).attention == "full" else "block_causal"
    options = {"unmask": "topk", "blocks": "fixed(8)", "cache": cache}

    def decode(prompts: list[str], most: int) -> list[str]:
        return [a.text or "" for a in engine.map(prompts, max_new_tokens=most, **options)]

    return decode


if __name__ == "__main__":
    app()
