"""`Stats`: the costs of a generation, and the ledger that counts them for a row."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dlm.decode.leaders import SHARED


@dataclass(frozen=True, slots=True)
class Stats:
    """The costs of a generation.

    `nfe`: forwards of this row (refresh, prefill, store and step count one each, fused ones one
    together; one that rows with the same input share counts for each of them, its positions for
    the first) · `tokens`: generated before the first end id · `token_forwards`: positions computed
    · `arm_forwards`: extra model inputs (CFG) · `idle_forwards`: run after the row had ended, until
    the host looked · `forwards` by purpose · `aux_forwards`, `aux_tokens`: forwards of auxiliary
    models by name, and the tokens they computed · `seconds`: wall time from admission to the end,
    shared with the batch mates · `reused`: positions of the prompt whose keys an earlier request
    has computed · `kv_bytes`: size of the keys and values that the row held, in whole pages ·
    `staleness`: how many steps old the oldest key was that a step reused (0: every key was fresh,
    or could not be out of date) · `changes`: positions by what happened to them (`commit`,
    `remask`, `replace`, `renoise`), and blocks that were opened (`block`) · `block_lengths`: the
    number of these blocks by their length in positions · `first_seconds`: wall time from admission
    to the end of the first step, with the forwards that read the prompt before or in it ·
    `settled`: each moment at which generated tokens settled, as the wall time since admission and
    the number of these tokens. Times are those at which the host learns of it.
    """

    nfe: int
    tokens: int
    token_forwards: int
    arm_forwards: int
    idle_forwards: int
    forwards: Mapping[str, int]
    aux_forwards: Mapping[str, int]
    aux_tokens: Mapping[str, int]
    seconds: float
    reused: int = 0
    kv_bytes: int = 0
    staleness: int = 0
    changes: Mapping[str, int] = field(default_factory=dict)
    block_lengths: Mapping[int, int] = field(default_factory=dict)
    first_seconds: float = field(default=0.0, compare=False)
    settled: tuple[tuple[float, int], ...] = field(default=(), compare=False, repr=False)

    @property
    def tokens_per_forward(self) -> float:
        """TPF: generated tokens before the first end id, per forward."""
        return self.tokens / self.nfe if self.nfe else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens before the first end id, per second of wall time."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Ledger:
    """Counts of one row.

    `nfe`: forwards of the row; a refresh, prefill or store that is fused with a step counts once.
    `forwards` counts them by what they were for (`step`, `refresh step`, `store step`, ...).
    `arm_forwards`: those of further model inputs (CFG), which nfe leaves out. `token_forwards`:
    positions computed, in all inputs. `idle_forwards`: those after the row's end that an
    unrolled sync interval still ran. `aux_forwards`, `aux_tokens`: forwards of each auxiliary model
    and the tokens it computed. `inherited`: the part of `nfe` that other rows have paid: forwards
    of the row before it was forked, and `shared` ones, computed for a row with the same input; over
    all rows, `nfe - inherited` adds up to the forwards that a model has computed. `reused`:
    positions of the prompt whose keys an earlier request has computed. `kv_bytes`: size of the keys
    and values that the row holds. `staleness`: how many steps old the oldest key was that a step
    reused, 0 where keys are never out of date. `changes`: positions by what happened to them, and
    blocks that were opened. `block_lengths`: the number of these blocks by their length. `first`:
    time of the end of the first step (0: there was none). `settled`: the times at which generated
    tokens settled, with their numbers. Both on the clock of `time.perf_counter`.
    """

    nfe: int = 0
    arm_forwards: int = 0
    token_forwards: int = 0
    forwards: Counter[str] = field(default_factory=Counter)
    idle_forwards: int = 0
    aux_forwards: Counter[str] = field(default_factory=Counter)
    aux_tokens: Counter[str] = field(default_factory=Counter)
    inherited: int = 0
    reused: int = 0
    kv_bytes: int = 0
    staleness: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    block_lengths: Counter[int] = field(default_factory=Counter)
    first: float = field(default=0.0, compare=False)
    settled: list[tuple[float, int]] = field(default_factory=list, compare=False)

    def record(self, purpose: str, positions: int, arms: int = 1, *, idle: bool = False) -> None:
        """One forward of the row over `arms` model inputs; `idle`: it had ended before."""
        self.token_forwards += positions
        if idle:
            self.idle_forwards += 1
            return
        self.nfe += 1
        self.forwards[purpose] += 1
        if purpose == SHARED:
            self.inherited += 1
        else:
            self.arm_forwards += arms - 1
        if not self.first and "step" in purpose:
            self.first = time.perf_counter()

    def record_block(self, start: int, end: int) -> None:
        """One block that was opened, with its bounds."""
        self.changes["block"] += 1
        self.block_lengths[end - start] += 1

    def record_settled(self, tokens: int) -> None:
        """This many generated tokens will not change any more from now on."""
        if tokens:
            self.settled.append((time.perf_counter(), tokens))

    def record_aux(self, name: str, tokens: int) -> None:
        """One forward of the auxiliary model `name` over `tokens` of the row's tokens."""
        self.aux_forwards[name] += tokens > 0
        self.aux_tokens[name] += tokens

    def fork(self) -> Ledger:
        """The ledger of a forked row: the same counts, marked as spent by its ancestor."""
        return replace(
            self,
            forwards=Counter(self.forwards),
            aux_forwards=Counter(self.aux_forwards),
            aux_tokens=Counter(self.aux_tokens),
            changes=Counter(self.changes),
            block_lengths=Counter(self.block_lengths),
            settled=list(self.settled),
            inherited=self.nfe,
        )


def stats_of(ledger: Ledger, tokens: int, seconds: float, started: float) -> Stats:
    """The ledger as a result shows it; `started`: time of the admission."""
    return Stats(
        ledger.nfe,
        tokens,
        ledger.token_forwards,
        ledger.arm_forwards,
        ledger.idle_forwards,
        dict(ledger.forwards),
        dict(ledger.aux_forwards),
        dict(ledger.aux_tokens),
        seconds,
        ledger.reused,
        ledger.kv_bytes,
        ledger.staleness,
        dict(ledger.changes),
        dict(ledger.block_lengths),
        max(ledger.first - started, 0.0),
        tuple((max(when - started, 0.0), tokens) for when, tokens in ledger.settled),
    )
