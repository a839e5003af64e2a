"""The first stage of a run: answers, a line of JSONL each; an interrupted run goes on from them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import dlm
from dlm.errors import InvalidRequest
from dlm.evals.endpoint import Endpoint
from dlm.evals.items import Item
from dlm.evals.lines import appending, checked, read_lines
from dlm.evals.settings import Setting

LENGTH: Final = "max_new_tokens"
REFUSED: Final = "refused"
"""Why an answer is missing whose canvas would be longer than the model allows."""
FILLED: Final = ("stop", "length")
"""Reasons for an end at which nothing is open any more."""
KINDS: Final[Mapping[str, type]] = MappingProxyType({"str": str, "int": int, "float": float})
Runner = dlm.Engine | dlm.CausalEngine | Endpoint


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer and its cost.

    item: id of the item
    index: number of the sample, each with its own seed
    finish_reason: as in `dlm.Generation`, or `refused`
    tokens, nfe, arm_forwards, aux_forwards, token_forwards: as in `dlm.Stats`
    seconds: from admission to the end
    masked_left: positions before the answer's end that were never filled
    """

    item: str
    index: int
    text: str
    finish_reason: str
    tokens: int
    nfe: int
    arm_forwards: int
    aux_forwards: int
    token_forwards: int
    seconds: float
    masked_left: int

    @classmethod
    def of(cls, item: Item, index: int, answer: dlm.Generation, limit: int) -> Self:
        """Make the sample of a generation of at most `limit` new tokens."""
        stats = answer.stats
        filled = answer.finish_reason in FILLED
        return cls(
            item=item.id,
            index=index,
            text=answer.text or "",
            finish_reason=answer.finish_reason,
            tokens=stats.tokens,
            nfe=stats.nfe,
            arm_forwards=stats.arm_forwards,
            aux_forwards=sum(stats.aux_forwards.values()),
            token_forwards=stats.token_forwards,
            seconds=stats.seconds,
            masked_left=0 if filled else limit - len(answer.ids),
        )

    @classmethod
    def refused(cls, item: Item, index: int, limit: int) -> Self:
        """No answer: prompt and `limit` new tokens do not fit the model."""
        return cls(item.id, index, "", REFUSED, 0, 0, 0, 0, 0, 0.0, limit)


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of one file of samples: `samples` answers to every item under a setting.

    `rows`: requests in flight at once; `max_new_tokens`: default if the setting has none.
    """

    items: Sequence[Item]
    setting: Setting
    samples: int = 1
    rows: int = 1
    max_new_tokens: int = 128

    @property
    def wanted(self) -> list[tuple[Item, int]]:
        """Every answer, item by item."""
        return [(item, index) for item in self.items for index in range(self.samples)]

    def options(self, index: int) -> dict[str, Any]:
        """The options of the sample `index`: its own seed, so that no two are the same draw."""
        options = {"max_new_tokens": self.max_new_tokens, **self.setting.options}
        return options | {"seed": int(options.get("seed", 0)) + index}


def draw_samples(
    engine: Runner,
    plan: Plan,
    path: Path,
    tell: Callable[[Sample], None] = lambda sample: None,
) -> None:
    """Answer what `path` does not hold yet and append it, a line an answer, written at once.

    `tell` is called with every new sample. Ctrl-C leaves complete lines behind. Raises
    `InvalidRequest` where another process does the same.
    """
    with appending(path, wait=False) as file:
        done = {(sample.item, sample.index) for sample in read_samples(path)}
        todo = [(item, index) for item, index in plan.wanted if (item.id, index) not in done]
        for sample in answers(engine, plan, todo):
            file.write(json.dumps(asdict(sample)) + "\n")
            file.flush()
            tell(sample)


def answers(engine: Runner, plan: Plan, todo: Sequence[tuple[Item, int]]) -> Iterator[Sample]:
    """Answers in the order in which they are finished, `plan.rows` of them in flight."""
    waiting = deque(todo)
    live: list[tuple[Item, int, Any, int]] = []
    try:
        while waiting or live:
            while waiting and len(live) < plan.rows:
                item, index = waiting.popleft()
                options = plan.options(index)
                try:
                    request = engine.submit(asked(engine, item), **options)
                except InvalidRequest as error:
                    if error.param != LENGTH:
                        raise
                    yield Sample.refused(item, index, options[LENGTH])
                    continue
                request.ignore_events()
                live.append((item, index, request, options[LENGTH]))
            engine.step()
            for item, index, request, limit in [entry for entry in live if entry[2].done]:
                yield _finished(item, index, request, limit)
            live = [entry for entry in live if not entry[2].done]
    finally:
        for _, _, request, _ in live:
            request.abort()


def _finished(item: Item, index: int, request: Any, limit: int) -> Sample:
    """The sample of a request that has ended."""
    try:
        return Sample.of(item, index, request.result(), limit)
    except InvalidRequest as error:
        if error.param != LENGTH:
            raise
        return Sample.refused(item, index, limit)


def asked(engine: Runner, item: Item) -> Any:
    """Build the model's input for an item: its prompt, or ids if no template is applied.

    A server gets texts to continue unchanged, and everything else as messages.
    """
    if isinstance(engine, Endpoint):
        talk = item.raw or not isinstance(item.prompt, str)
        return item.prompt if talk else [{"role": "user", "content": item.prompt}]
    if not item.raw:
        return item.prompt
    if engine.text is None:
        raise InvalidRequest("model", "came without a tokenizer, which texts to continue need")
    ids = engine.text.encode_prompt(item.prompt, chat=False)
    begin = engine.text.begin_ids() if item.meta.get("begin") else ()
    return ids if tuple(ids[: len(begin)]) == begin else [*begin, *ids]


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file, none if there is no file; of two of the same item and index the first.

    Raises `InvalidRequest` naming a line that holds no sample.
    """
    kinds = {f.name: KINDS[str(f.type)] for f in fields(Sample)}
    found = read_lines(path, lambda line: Sample(**checked(line, kinds)))
    once: dict[tuple[str, int], Sample] = {}
    for sample in found:
        once.setdefault((sample.item, sample.index), sample)
    return list(once.values())
