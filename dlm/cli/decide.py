"""`dlm decide`: typed questions about one input, answered as probabilities."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

import dlm
from dlm.cli.files import read_text
from dlm.cli.options import Device, Dtype, Json, Model, flag, named
from dlm.cli.output import show_json
from dlm.cli.prompt import read_prompt
from dlm.cli.screen import counted
from dlm.errors import InvalidRequest, require_text, shown

BAR: Final = 30
"""Columns of a bar."""
LITTLE: Final = 0.01
"""A label mass below this is a warning: the model would have written something else."""


def decide(
    source: Annotated[
        str | None,
        typer.Argument(metavar="INPUT", help="the input; without it, or for -, stdin is read"),
    ] = None,
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
    predicate: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="a statement: is it true?; may be repeated"),
    ] = None,
    choice: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT:A|B|C", help="a question with its choices; may be repeated"),
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT:A|B|C",
            help="a question with its levels, from the lowest; may be repeated",
        ),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON file of questions in the form of OpenAI's API"),
    ] = None,
    joint: Annotated[bool, flag("--joint", "put all questions on one canvas")] = False,
    rotations: Annotated[
        int, typer.Option(metavar="INTEGER", help="orders of the choices to average over")
    ] = 1,
    temperature: Annotated[
        float, typer.Option(metavar="NUMBER", help="of the distribution over the labels")
    ] = 1.0,
    scoring: Annotated[
        str,
        typer.Option(metavar="NAME", help="of labels: chain, pseudo or first"),
    ] = "chain",
    template: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TEXT", help="a field of the template, such as answer; may be repeated"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Answer typed questions about an input by probabilities. Nothing is generated."""
    asked = questions_of(questions, predicate or [], choice or [], score or [])
    options = options_of(
        template or [],
        joint=joint,
        rotations=rotations,
        temperature=temperature,
        scoring=scoring,
    )
    text = read_prompt(source, None, raw=False).text
    engine = dlm.load(model, device=device, dtype=dtype)
    found = engine.decide(text, asked, **options)
    show(found, asked, model, as_json=json)


def questions_of(
    file: Path | None, predicates: Sequence[str], choices: Sequence[str], scores: Sequence[str]
) -> list[dlm.Question]:
    """The questions of a file, then those of the arguments. Raises `InvalidRequest`."""
    found: list[dlm.Question] = [] if file is None else read_questions(file)
    found += [dlm.Predicate(None, require_text("predicate", text)) for text in predicates]
    for text in choices:
        instructions, options = listed("choice", text)
        found.append(dlm.Choice(None, instructions, options))
    for text in scores:
        instructions, levels = listed("score", text)
        found.append(dlm.Score(None, instructions, levels))
    if not found:
        rule = "ask something: --predicate, --choice, --score or --questions"
        raise InvalidRequest("questions", rule)
    return found


def listed(name: str, text: str) -> tuple[str, list[str]]:
    """`INSTRUCTIONS: a|b|c` taken apart at its last colon. Raises `InvalidRequest`."""
    instructions, colon, items = require_text(name, text).rpartition(":")
    if not colon or "|" not in items:
        raise InvalidRequest(name, f"must be INSTRUCTIONS: a|b|c, got {shown(text)}")
    return instructions.strip(), [item.strip() for item in items.split("|")]


def read_questions(file: Path) -> list[dlm.Question]:
    """The questions of a JSON file: a list of them, or an object that has one as `questions`.

    Raises `InvalidRequest`.
    """
    try:
        given = loads(read_text("questions", file))
    except JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest("questions", f"{file} is no JSON: {error.msg} at {place}") from error
    except RecursionError as error:
        raise InvalidRequest("questions", f"{file} is nested too deeply") from error
    items = given.get("questions") if isinstance(given, Mapping) else given
    if not isinstance(items, list):
        rule = "must hold a list of questions, or an object with a list `questions`"
        raise InvalidRequest("questions", f"{file} {rule}")
    return [dlm.question_of(f"questions[{n}]", item) for n, item in enumerate(items)]


def options_of(
    template: Sequence[str], *, joint: bool, rotations: int, temperature: float, scoring: str
) -> dict[str, Any]:
    """The options of `Engine.decide`. Raises `InvalidRequest`.

    template: `NAME=TEXT` items, in which \\n is a line end; of `end`, ids with commas
    """
    fields: dict[str, Any] = {
        name: value.replace("\\n", "\n")
        for name, value in named("template", template, "TEXT").items()
    }
    if "end" in fields:
        try:
            fields["end"] = [int(token) for token in fields["end"].split(",") if token.strip()]
        except ValueError:
            rule = "must be ids with commas between them"
            raise InvalidRequest("template.end", f"{rule}, got {shown(fields['end'])}") from None
    given = {
        "joint": joint,
        "rotations": rotations,
        "temperature": temperature,
        "scoring": scoring,
        "template": fields,
    }
    dlm.DecisionOptions.from_options(given)  # before a model is loaded
    return given


def show(
    found: dlm.Decisions, questions: Sequence[dlm.Question], model: str, *, as_json: bool
) -> None:
    """Print the answers as bars, or as one JSON object; a line about the costs to stderr."""
    costs = found.costs
    if as_json:
        answers = [answer.to_json() for answer in found]
        show_json({"answers": answers, "model": model, "costs": asdict(costs)})
        return
    console = Console(highlight=False)
    for question, answer in zip(questions, found, strict=True):
        title = question.instructions if answer.name is None else answer.name
        console.print(Text(f"{title}  ", style="bold").append(verdict(answer), style="cyan"))
        console.print(bars(answer))
        if answer.label_mass is not None:
            is_little = answer.label_mass < LITTLE
            console.print(Text(mass(answer.label_mass), style="yellow" if is_little else "dim"))
    sys.stdout.flush()
    line = (
        f"{counted(costs.nfe, 'row')} in {counted(costs.forwards, 'forward')}, "
        f"{counted(costs.token_forwards, 'position')}, {costs.seconds:.2f} s"
    )
    typer.secho(line, err=True, dim=True)


def verdict(answer: dlm.Answer) -> str:
    """An answer in one word or number, with its confidence."""
    match answer:
        case dlm.PredicateAnswer():
            return f"{answer.probability:.1%}"
        case dlm.ChoiceAnswer():
            return f"{_spelled(answer.choice)} (confidence {answer.confidence:.2f})"
        case dlm.ScoreAnswer():
            top = len(answer.levels) - 1
            return f"{answer.score:.2f} of {top} (confidence {answer.confidence:.2f})"


def mass(share: float) -> str:
    """The share of the model's own probability that the labels had, and a warning if it is small.

    share: an answer's `label_mass`
    """
    told = "under 0.1%" if share < 0.001 else f"{share:.1%}"
    warning = ": do not trust it"
    line = f"  {told} of the model's own mass was on these labels"
    return line + warning if share < LITTLE else line


def bars(answer: dlm.Answer) -> Table:
    """A line for each label: its name, a bar, its probability."""
    match answer:
        case dlm.PredicateAnswer():
            pairs = [("true", answer.probability), ("false", 1 - answer.probability)]
        case dlm.ChoiceAnswer():
            pairs = [(_spelled(value), p) for value, p in answer.probabilities]
        case dlm.ScoreAnswer():
            labels = [level.label for level in answer.levels]
            pairs = list(zip(labels, answer.probabilities, strict=True))
    table = Table.grid(padding=(0, 1))
    for label, p in pairs:
        table.add_row(Text(f"  {label}"), Bar(1, 0, p, width=BAR), Text(f"{p:6.1%}"))
    return table


def _spelled(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value
