"""The scheduler: queues rows, admits what fits, runs steps and frees the rows that have ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import product
from queue import SimpleQueue
from traceback import clear_frames

import torch

from dlm.core import Kind
from dlm.decode.group import Cohort
from dlm.decode.iteration import IterationManager
from dlm.decode.sync import StepReport
from dlm.engine.admission import Members, joined, new_cohort
from dlm.engine.row import Ticket, deliver, emit, end, tell
from dlm.errors import InvalidRequest, Unavailable


class Scheduler:
    """Continuous batching over cohorts. `max_rows` bounds the rows that are decoded at once,
    `max_token_forwards` the positions of one forward (None: no bound): what is more takes several.

    `submit` may be called from any thread; everything else is for one thread at a time.
    """

    def __init__(
        self, manager: IterationManager, *, max_rows: int, max_token_forwards: int | None = None
    ) -> None:
        self.manager, self.memory, self.max_rows = manager, manager.memory, max_rows
        self.max_token_forwards = max_token_forwards
        self._inbox: SimpleQueue[Ticket] = SimpleQueue()
        self._waiting: deque[Ticket] = deque()
        self._cohorts: list[Members] = []

    @property
    def live(self) -> int:
        """Rows being denoised."""
        return sum(len(tickets) for _, tickets in self._cohorts)

    def check(self, ticket: Ticket) -> None:
        """Raises `InvalidRequest` if the canvas exceeds a model, `Unavailable` if a pool."""
        length, parts = self._length(ticket), ticket.bound.parts
        limits = {"the model": self.manager.info.max_length}
        for name in parts.aux:
            self.manager.aux[name].check_ids("prompt", ticket.prompt)
            pinned = [token for token in ticket.given if token is not None]
            self.manager.aux[name].check_ids("infill", pinned)
            limits[f"auxiliary {name!r}"] = self.manager.aux[name].max_length
        for name, limit in limits.items():
            if length > limit:
                raise InvalidRequest(
                    "max_new_tokens",
                    f"a prompt of {len(ticket.prompt)} and {ticket.bound.length} "
                    f"new tokens make a canvas of {length}; the limit of {name} is {limit}",
                )
        most = self.max_token_forwards
        if most is not None and length * parts.arms > most:
            raise InvalidRequest(
                "max_new_tokens",
                f"a canvas of {length} positions in {parts.arms} inputs does not fit one forward "
                f"of at most {most} (`max_token_forwards`)",
            )
        if not self.memory.fits_ever(parts, length):
            raise Unavailable(f"a canvas of {length} positions does not fit the key/value budget")

    def submit(self, ticket: Ticket) -> None:
        """Queue a row. Raises as `check` does."""
        self.check(ticket)
        self._inbox.put(ticket)

    def abort(self, ticket: Ticket) -> None:
        """End a row now, wherever it is, and free its pages."""
        end(ticket, "abort")
        self._drop_done()

    def end_all(self, error: Exception | None = None) -> None:
        """End every row, queued or live: with `error`, or as aborted."""
        self._receive()
        live = [ticket for _, tickets in self._cohorts for ticket in tickets]
        for ticket in (*self._waiting, *live):
            end(ticket, "error" if error else "abort", error)
        self._drop_done()

    def fork(self, ticket: Ticket, *, choice: int, path: int) -> Ticket:
        """A second row that starts as this live one stands now and draws along `path`.

        The rows share their pages until one of them writes. Raises `Unavailable` when the pool
        could not give the fork pages of its own, `InvalidRequest` when the row is not live.
        """
        homes = (i for i, (_, tickets) in enumerate(self._cohorts) if ticket in tickets)
        index = next(homes, None)
        if index is None:
            raise InvalidRequest("fork", "only a live row can be forked: it waits, or has ended")
        cohort, tickets = self._cohorts[index]
        at = tickets.index(ticket)
        self.memory.share(cohort.parts, cohort.rows.host.pages[at])
        child = ticket.fork(choice)
        wider = cohort.select(torch.tensor([*range(len(tickets)), at]))
        wider.rows.path[-1] = path
        self._cohorts[index] = wider, [*tickets, child]
        deliver(child, child.canvas.opened(choice, child.ledger.nfe))
        return child

    def step(self) -> None:
        """Admit what fits, run steps up to the next sync, and deliver the events.

        What fails ends the rows that it belongs to: a forward is tried with fewer rows, down to
        the one that it fails for; where a part raises, each row goes on alone from the next step.
        """
        try:
            self._receive()
            self._admit()
            for members in self._forwards():
                for (_, tickets), reports in self._run(members):
                    for report, (row, ticket) in product(reports, enumerate(tickets)):
                        tell(ticket, report, row)
            self._keep_prefixes()
            self._set_apart()
            self._drop_done()
        except KeyboardInterrupt:
            self.end_all()
            raise

    def check_integrity(self) -> None:
        """Raise `EngineError` unless the live rows' pages explain every page that is taken."""
        owned: dict[int, list[list[int]]] = {}
        for cohort, _ in self._cohorts:
            for table in cohort.rows.host.pages.tolist():
                for pool, line in zip(self.memory.pools(cohort.parts), table, strict=True):
                    owned.setdefault(id(pool), []).append(line)
        if self.memory.prefixes is not None:
            owned.setdefault(id(self.memory.kv), []).append(self.memory.prefixes.pages)
        for pool in (self.memory.kv, *self.memory.aux.values()):
            pool.check_integrity(owned.get(id(pool), [[]]))

    def _forwards(self) -> list[list[Members]]:
        """The cohorts that go into each forward; one that is too large for any is divided."""
        most = self.max_token_forwards
        if most is None or not self._cohorts:
            return [list(self._cohorts)]
        for cohort, tickets in list(self._cohorts):
            pieces = runs_within(self._sizes(cohort), most)
            if len(pieces) > 1:
                self._divide(cohort, tickets, pieces)
        sizes = [sum(self._sizes(cohort)) for cohort, _ in self._cohorts]
        return [[self._cohorts[i] for i in run] for run in runs_within(sizes, most)]

    def _sizes(self, cohort: Cohort) -> list[int]:
        """The positions that the next forward computes for each row; none where a part cannot plan
        it, which `_run` meets again.
        """
        try:
            return self.manager.planner.plan(cohort).token_forwards
        except Exception:
            return [0] * cohort.rows.count

    def _keep_prefixes(self) -> None:
        """Keep the final keys that rows have stored, for requests that begin alike."""
        if self.memory.prefixes is None:
            return
        for cohort, tickets in self._cohorts:
            host = cohort.rows.host
            for ticket, stored, pages in zip(
                tickets, host.stored.tolist(), host.pages, strict=True
            ):
                if stored > ticket.kept:
                    ids = ticket.canvas.ids[:stored]
                    self.memory.keep(cohort.parts, ids, len(ticket.prompt), pages)
                    ticket.kept = stored

    # failing alone

    def _run(self, members: Sequence[Members]) -> list[tuple[Members, list[StepReport]]]:
        """Run steps; where the forward fails, with half the rows at a time, down to the one."""
        if not members:
            return []
        try:
            return list(zip(members, self.manager.run([c for c, _ in members]), strict=True))
        except Exception as error:  # out of memory, say
            clear_frames(error.__traceback__)  # they hold the activations that had no room
            failed = error
        if len(members) == 1:
            cohort, tickets = members[0]
            if len(tickets) == 1:
                end(tickets[0], "error", failed)
                return []
            members = self._split(cohort, tickets)
        half = len(members) // 2
        return self._run(members[:half]) + self._run(members[half:])

    def _split(self, cohort: Cohort, tickets: Sequence[Ticket]) -> list[Members]:
        """The rows of a cohort in cohorts of their own, which nobody may join."""
        alone = self._divide(cohort, tickets, [[row] for row in range(len(tickets))])
        for one, _ in alone:
            one.apart = True
        return alone

    def _divide(
        self, cohort: Cohort, tickets: Sequence[Ticket], pieces: Sequence[Sequence[int]]
    ) -> list[Members]:
        """Pieces of a cohort, each with some of its rows, which take its place."""
        parts = [(cohort.select(torch.tensor(rows)), [tickets[i] for i in rows]) for rows in pieces]
        index = next(i for i, (other, _) in enumerate(self._cohorts) if other is cohort)
        self._cohorts[index : index + 1] = parts
        return parts

    def _set_apart(self) -> None:
        """Where a part has failed, each row goes on alone: who fails alone ends."""
        for cohort, tickets in list(self._cohorts):
            if cohort.error is None:
                continue
            if len(tickets) == 1:
                end(tickets[0], "error", cohort.error)
            else:
                self._split(cohort, tickets)

    # admission

    def _length(self, ticket: Ticket) -> int:
        """The canvas, rounded up to whole trained blocks."""
        step = self.manager.info.alignment
        return -(-ticket.limit // step) * step

    def _receive(self) -> None:
        while not self._inbox.empty():
            self._waiting.append(self._inbox.get())

    def _admit(self) -> None:
        """Let waiting rows in as long as there is room. Rows of one signature join at once."""
        fresh: list[tuple[Ticket, Cohort]] = []
        try:
            while self._waiting and self.live + len(fresh) < self.max_rows:
                if not self._admit_first(fresh):
                    break
        finally:  # Ctrl-C among them ends those that were let in, too
            self._place(fresh)

    def _admit_first(self, fresh: list[tuple[Ticket, Cohort]]) -> bool:
        """Let the first waiting row in, or end it; False where it waits for others' pages."""
        ticket = self._waiting[0]
        parts, length = ticket.bound.parts, self._length(ticket)
        try:
            found = None if ticket.done else self.memory.reserve(parts, length, ticket.prompt)
        except Unavailable as error:
            if self.live or fresh:
                return False
            end(ticket, "error", error)
            found = None
        self._waiting.popleft()
        if found is None:
            return True
        pages, ticket.ledger.reused = found
        ticket.ledger.kv_bytes = self.memory.bytes_of(parts, pages)
        try:
            cohort = new_cohort(ticket, length, pages, self.manager)
            self.manager.admit(cohort)
        except BaseException as error:
            self.memory.release(parts, pages)
            if not isinstance(error, Exception):  # Ctrl-C, which ends all that wait
                self._waiting.appendleft(ticket)
                raise
            end(ticket, "error", error)  # of a user's part that cannot run
        else:
            fresh.append((ticket, cohort))
        return True

    def _place(self, fresh: Sequence[tuple[Ticket, Cohort]]) -> None:
        """New rows join cohorts of their signature, or found them; their canvases are announced."""
        self._cohorts = joined(self._cohorts, fresh, self.manager.device)
        for ticket, cohort in fresh:
            length = int(cohort.rows.host.length[0])
            ids, kinds = (t[0, :length].tolist() for t in (cohort.rows.ids, cohort.rows.kind))
            ticket.begin(ids, [Kind(kind) for kind in kinds])
            emit(ticket, ticket.canvas.opened(ticket.choice, 0))

    def _drop_done(self) -> None:
        """Free the pages of ended rows and let them leave their cohorts at once."""
        kept, leaving = [], []
        for cohort, tickets in self._cohorts:
            stay = [i for i, t in enumerate(tickets) if not t.done]
            gone = [i for i, t in enumerate(tickets) if t.done]
            leaving += [(cohort.parts, cohort.rows.host.pages[i]) for i in gone]
            if not gone:
                kept.append((cohort, tickets))
            elif stay:
                kept.append((cohort.select(torch.tensor(stay)), [tickets[i] for i in stay]))
        self._cohorts = kept
        for parts, pages in leaving:
            self.memory.release(parts, pages)


def runs_within(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Places of `sizes` in runs whose sums are at most `most`; a larger one is alone."""
    runs: list[list[int]] = [[]]
    for place, size in enumerate(sizes):
        if runs[-1] and sum(sizes[i] for i in runs[-1]) + size > most:
            runs.append([])
        runs[-1].append(place)
    return runs
