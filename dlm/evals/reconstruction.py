"""Score how well a model fills masks in a known text, also under other readings of its files.

A network whose weights mean something finds the words that were taken out of a text better than the
same network with its weights shuffled. And if a file or a user gives a wrong trait (the shift
of the logits, the attention pattern, the base of the rotary angles), the right one does better.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

import dlm
from dlm.evals.items import bundled_items

TEXT: Final = (
    "Water is made of hydrogen and oxygen. It freezes at zero degrees Celsius and boils at one "
    "hundred degrees. Most of the surface of the Earth is covered by oceans, and the salt in the "
    "sea comes from rocks on the land. The Moon goes around the Earth about once a month, and the "
    "Earth goes around the Sun once a year. A year has twelve months, a week has seven days, a day "
    "has twenty-four hours, and an hour has sixty minutes. In the northern half of the world, "
    "summer begins in June and winter begins in December. Birds have feathers, fish have fins, and "
    "cats and dogs have four legs. Paris is the capital of France, Rome is the capital of Italy, "
    "and London is the capital of England. Two plus two is four, three times three is nine, and "
    "half of one hundred is fifty. People read books, write letters, and speak many different "
    "languages. If it rains, the streets get wet; if the sun shines, they dry again. A good friend "
    "listens to you, helps you when you need help, and tells you the truth."
)
"""What any language model of English knows."""
TASKS: Final = (("format", "open"), ("math", "easy"), ("code", "1-op"), ("drill", "2-digit"))
"""What the bundled checkpoints know: tasks and rungs."""
EACH: Final = 6
"""Items of each of them."""
LONGEST: Final = 192
"""Tokens of a row at the most."""
ROWS: Final = 24
"""Rows that the English text is made into."""
SPAN: Final = 16
"""The last tokens of a row, among which some are asked for."""
BATCH: Final = 12
"""Rows that are scored at once."""
FACTORS: Final = (0.1, 0.5, 2.0, 10.0)
"""Other bases of the rotary angles, as multiples of the given one."""
LENGTHS: Final = (4, 8, 16, 32)
"""Other lengths of trained blocks."""
CLEAR: Final = 0.1
"""Nats a token that make a clear difference..."""
SIGMAS: Final = 3.0
"""...where they are also this many standard errors."""


class Row(NamedTuple):
    """A text with open positions: ids with masks in them, and the hidden ids."""

    ids: tuple[int, ...]
    open: tuple[int, ...]
    answers: tuple[int, ...]


def score(engine: Any, rows: Sequence[Row]) -> Tensor:
    """`[N]` float64: the log probability of the right token at each open position, row by row.

    Probabilities are among the tokens that are no mask. Raises `CheckpointError`.
    """
    found, mask_id = [], engine.model.spec.mask_id
    for first in range(0, len(rows), BATCH):
        batch = rows[first : first + BATCH]
        shape = len(batch), max(len(row.ids) for row in batch)
        ids, real, where = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
        for at, row in enumerate(batch):
            ids[at, : len(row.ids)], real[at, : len(row.ids)] = torch.tensor(row.ids), 1
            where[at, list(row.open)] = 1
        logits = engine.logits(ids, real, where).double().cpu()
        if mask_id is not None:
            logits[:, mask_id] = -torch.inf
        right = torch.tensor([token for row in batch for token in row.answers])[:, None]
        found.append(logits.log_softmax(-1).gather(1, right)[:, 0])
    return torch.cat(found)


def is_better(ours: Tensor, theirs: Tensor) -> bool:
    """True if the scores `ours [N]` are clearly better than those `theirs [N]` of the same rows."""
    gain = ours - theirs
    error = float(gain.std()) / math.sqrt(len(gain))
    return float(gain.mean()) > max(CLEAR, SIGMAS * error)


def rows_of(engine: Any, *, tasks: bool) -> list[Row]:
    """Build the rows that the model fills: answers to the bundled tasks, or an English text.

    Half of the last tokens of each row are open, with nothing after them that a block-causal model
    would not see. A causal model has no mask and is asked for each of the last tokens.
    """
    spec, rows = engine.model.spec, []
    texts = _answers(engine) if tasks else _english(engine)
    for number, (ids, first) in enumerate(texts):
        unit = _unit(engine)
        end = len(ids) // unit * unit
        begin = max(first, end - (SPAN if unit == 1 else unit))
        places = torch.arange(min(begin, end), end)
        if spec.mask_id is not None:
            order = torch.randperm(len(places), generator=torch.Generator().manual_seed(number))
            places = places[order[: math.ceil(len(places) / 2)]].sort().values
        chosen = tuple(places.tolist())
        if chosen:
            hidden = set(chosen) if spec.mask_id is not None else set()
            shown = [spec.mask_id if at in hidden else ids[at] for at in range(end)]
            rows.append(Row(tuple(shown), chosen, tuple(ids[at] for at in chosen)))
    return rows


def _unit(engine: Any) -> int:
    """Rows end at multiples of it."""
    spec = engine.model.spec
    return int(spec.block_length or 1) if spec.attention == "block_causal" else 1


def _answers(engine: Any) -> Iterator[tuple[list[int], int]]:
    """Ids of solved problems of the bundled tasks, cut in their answers; where these begin."""
    for task, rung in TASKS:
        for item in bundled_items(task, "test", EACH, (rung,)):
            prompt = engine.text.encode_prompt(item.prompt)
            ids = [*prompt, *engine.text.encode(item.answer), engine.model.spec.eos_ids[0]]
            for end in (*range(len(prompt) + SPAN, len(ids), SPAN), len(ids)):
                yield ids[:end], len(prompt)


def _english(engine: Any) -> Iterator[tuple[list[int], int]]:
    """Ids of the English text, cut at several places; where they may be asked for."""
    ids = [*engine.text.begin_ids(), *engine.text.encode(TEXT)]
    ends = torch.linspace(min(32, len(ids)), len(ids), ROWS).long().unique().tolist()
    for end in ends:
        yield ids[max(0, end - LONGEST) : end], 1


def other_readings(spec: Any) -> Iterator[Mapping[str, Any]]:
    """Traits that a file may give wrongly, with other values than those of `spec`."""
    for factor in FACTORS:
        yield {"rope_theta": spec.rope_theta * factor}
    if spec.attention == "causal":
        return
    yield {"shift": not spec.shift}
    if spec.attention != "full":
        yield {"attention": "full", "block_length": None}
    for length in LENGTHS:
        if (spec.attention, spec.block_length) != ("block_causal", length):
            yield {"attention": "block_causal", "block_length": length}


def read_otherwise(engine: Any, traits: Mapping[str, Any]) -> Any:
    """An engine with the same weights, in the same memory, and other `traits` in its spec."""
    model = engine.model
    spec = dataclasses.replace(model.spec, **traits)
    with torch.device("meta"):
        twin = type(model)(spec)
    twin.load_state_dict(model.state_dict(), assign=True)
    twin.requires_grad_(False).eval()
    if spec.attention == "causal":
        return dlm.CausalEngine(twin, engine.eos_ids, engine.text)
    info = dataclasses.replace(
        engine.info, attention=spec.attention, block_length=spec.block_length, shift=spec.shift
    )
    return dlm.Engine(twin, dataclasses.replace(info, aux=()), engine.text)


def shuffle_weights(engine: Any) -> None:
    """Permute every tensor of the model along each of its dimensions, in place, by a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in engine.model.parameters():
            for dim, size in enumerate(parameter.shape):
                order = torch.randperm(size, generator=generator).to(parameter.device)
                parameter.copy_(parameter.index_select(dim, order))
