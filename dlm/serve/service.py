"""`Service`: the engine as the routes see it, with its places, its length limits and its card."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import dlm
from dlm.serve.errors import ApiError, busy, draining, refused
from dlm.serve.metrics import Metrics
from dlm.serve.settings import ServerSettings

LOG: Final = logging.getLogger("dlm.serve")
OWNER: Final = "dlm"
START_RATE: Final = 100.0
"""Tokens a second that are assumed before any was measured."""
SMOOTHING: Final = 0.2
"""Weight of the newest answer in the mean of tokens a second."""


@dataclass(slots=True, eq=False)
class Held:
    """Places that one request holds.

    rows: its answers
    tokens: of all of them at most
    ended: gives the number of answers that have ended, whether they were sent or not
    more: gives the number of rows beyond these, of a search that has branched out
    """

    rows: int
    tokens: int
    ended: Callable[[], int] = lambda: 0
    more: Callable[[], int] = lambda: 0

    @property
    def left(self) -> int:
        """The answers that have not ended."""
        return self.rows - self.ended() + self.more()


class Places:
    """The answers that the server has let in, as far as they have not ended: a bound for the queue.

    Used by the event loop's thread alone.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: set[Held] = set()
        self._rate, self._since, self._done = START_RATE, time.monotonic(), 0

    @property
    def taken(self) -> int:
        """Answers that have not ended."""
        return sum(held.left for held in self._held)

    @contextmanager
    def take(self, rows: int, tokens: int) -> Iterator[Held]:
        """Hold places for answers of so many tokens in all. Raises `ApiError` 429 without room."""
        if (taken := self.taken) + rows > self.most:
            tokens = sum(held.tokens * held.left // held.rows for held in self._held)
            raise busy(
                f"the queue is full: {taken} answers run or wait, {rows} more are asked for, "
                f"of at most {self.most}",
                math.ceil(tokens / self._rate),
            )
        if not taken:
            self._since, self._done = time.monotonic(), 0
        self._held.add(held := Held(rows, tokens))
        try:
            yield held
        finally:
            self._held.discard(held)
            self._measure(tokens)

    def _measure(self, tokens: int) -> None:
        """Take the tokens of answers that have ended into the rate."""
        self._done += tokens
        seconds = time.monotonic() - self._since
        if seconds > 1:
            rate = max(self._done / seconds, 1.0)
            self._rate += SMOOTHING * (rate - self._rate)


class Service:
    """An engine for a server: who may use it, and its state for probes.

    engine: the engine for asyncio
    settings: of the server
    metrics: of the server
    text: the tokenizer
    info: traits of the model
    draining: the server is about to end
    ready: the model has decoded once
    cut: set when what still runs is to be cut off
    """

    def __init__(self, engine: dlm.Engine, settings: ServerSettings) -> None:
        self.settings = settings
        self.text, self.info = engine.text, engine.info
        vocabulary = None if self.text is None else self.text.vocabulary
        self._longest = max(map(len, vocabulary.each() if vocabulary else ()), default=1)
        control = vocabulary.control if vocabulary else {}
        self._control = {token: name for name, token in control.items()}
        self.name = settings.model_id or engine.name or OWNER
        self.metrics = Metrics(
            running=lambda: self.running,
            waiting=lambda: self.waiting,
            kv_usage=lambda: engine.kv.pages.usage,
            model=self.name,
        )
        self.engine = dlm.AsyncEngine(engine, on_step=self.metrics.stepped)
        self.fingerprint = f"dlm-{dlm.__version__}"
        self.created = int(time.time())
        self.draining = self.ready = False
        self.cut = asyncio.Event()
        self.places = Places(settings.max_rows + settings.max_waiting)

    @property
    def alive(self) -> bool:
        """False once the engine's thread has died, or is at one step for too long."""
        most = self.settings.max_step
        return self.engine.alive and not (most and self.engine.busy_seconds > most)

    @property
    def running(self) -> int:
        """Rows that are being decoded."""
        return self.engine.engine.live

    @property
    def waiting(self) -> int:
        """Rows that were let in and are not being decoded yet."""
        return max(self.places.taken - self.running, 0)

    @property
    def max_length(self) -> int:
        """The positions that a prompt and its answer may have together."""
        most = self.settings.max_canvas or self.info.max_length
        return min(most, self.info.max_length) // self.info.alignment * self.info.alignment

    def token_text(self, token: int) -> str:
        """The text of one token by itself, another one for each: its name for a control token, its
        number for a part of a character.
        """
        if token in self._control:
            return self._control[token]
        shown = "" if self.text is None else self.text.decode_inside([token])
        return f"token_id:{token}" if not shown or "\ufffd" in shown else shown

    def check_size(self, param: str, text: str, times: int = 1) -> None:
        """Raise `ApiError` 400 for a text that no canvas (`times`: that many) can hold, as none of
        its tokens has more characters than the longest one there is: it is not tokenized.
        """
        most = times * self.max_length * self._longest
        if len(text) > most:
            told = f"has {len(text)} characters, of which a canvas holds {most} at the very most"
            raise refused(param, f"`{param}` {told}", "context_length_exceeded")

    async def warm_up(self) -> None:
        """Decode once, so that the first request finds everything in place."""
        token = next(iter(self.info.eos_ids), 0)
        await self.engine.generate([token], max_new_tokens=1)
        self.ready = True

    def drain(self) -> None:
        """Take no new requests; those that run go on."""
        self.draining = True

    def cut_off(self) -> None:
        """End what still runs: its clients are told so."""
        self.draining = True
        self.cut.set()

    def give_up(self) -> None:
        """Tell whoever waits for an engine that is not alive that nothing comes; the log shows the
        place at which its thread hangs.
        """
        if self.engine.alive:
            told = {"seconds": round(self.engine.busy_seconds, 1)}
            LOG.critical("a step of the engine does not end", extra=told)
            faulthandler.dump_traceback(sys.stderr)
            self.engine.give_up("a step of the engine does not end")

    async def close(self) -> None:
        """Abort what runs and end the engine's threads."""
        await self.engine.close()

    def check_open(self) -> None:
        """Raise `ApiError` 503 unless requests are taken."""
        if self.draining:
            raise draining()
        if not self.alive:
            raise ApiError(503, "the engine has stopped", "server_error", code="engine_dead")

    def check_model(self, name: str | None) -> None:
        """Raise `ApiError` 404 unless the model is the one that is served; None and "" are."""
        if name and name != self.name:
            told = f"the model {name[:80]!r} is not served here; {self.name!r} is"
            raise ApiError(404, told, param="model", code="model_not_found")

    def card(self) -> dict[str, Any]:
        """The model as `/v1/models` lists it."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": OWNER,
            "root": self.name,
            "parent": None,
            "max_model_len": self.max_length,
        }

    def require_text(self, param: str = "prompt") -> dlm.Text:
        """The tokenizer. Raises `ApiError` 400 where the model has none."""
        if self.text is None:
            raise refused(param, f"`{param}`: this model has no tokenizer; give token ids")
        return self.text
