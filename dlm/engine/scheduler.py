"""The scheduler: queues rows, admits what fits, runs steps and frees the rows that have ended."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from itertools import count
from queue import SimpleQueue
from traceback import clear_frames

from torch import Tensor

from dlm.decode.group import RowGroup
from dlm.decode.iteration import IterationManager
from dlm.decode.outputs import RowStep
from dlm.decode.top import Draft
from dlm.engine.admission import canvas_length, check_size, first_canvas, new_group, opened_ids
from dlm.engine.live import GroupRows, LiveRows, ParkedRows, Until, steps_unwatched
from dlm.engine.row import RowState
from dlm.errors import InvalidRequest, Unavailable


class Scheduler:
    """Continuous batching over groups. `max_rows` bounds the rows that are decoded at once,
    `max_token_forwards` the positions of one forward (None: no bound): what is more takes several.

    `submit` and `discard` may be called from any thread; all else is for one thread at a time.

    computed: positions computed by all steps so far, also those of rows that idled
    """

    def __init__(
        self, manager: IterationManager, *, max_rows: int, max_token_forwards: int | None = None
    ) -> None:
        self.manager, self.page_manager, self.max_rows = manager, manager.page_manager, max_rows
        self.max_token_forwards, self.computed = max_token_forwards, 0
        self._inbox: SimpleQueue[RowState] = SimpleQueue()
        self._discarded: SimpleQueue[RowState] = SimpleQueue()
        self._waiting: deque[RowState] = deque()
        self._live, self._parked = LiveRows(), ParkedRows(manager)
        self._watched, self._lineages = list[RowState](), count(1)  # rows that are to be parked

    @property
    def live(self) -> int:
        """Rows being denoised."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """Rows queued and not admitted yet."""
        return self._inbox.qsize() + len(self._waiting)

    def check(self, state: RowState) -> None:
        """Raises `InvalidRequest` if the canvas exceeds a model, `Unavailable` if a pool."""
        check_size(state, self.manager, self.max_token_forwards)

    def submit(self, state: RowState) -> None:
        """Queue a row that `check` lets pass, or one that goes on."""
        self._inbox.put(state)

    def discard(self, state: RowState) -> None:
        """Abort a row with the next step. It may be called from a finalizer."""
        self._discarded.put(state)

    def abort(self, state: RowState) -> None:
        """End a row now, wherever it is, and free its pages."""
        state.finish("abort")
        self._drop_done()

    def end_all(self, error: Exception | None = None) -> None:
        """End every row that is queued or live: with `error`, or as aborted. Parked ones stay."""
        self._receive()
        for state in (*self._waiting, *self._live.states):
            state.finish("error" if error else "abort", error)
        self._drop_done()

    def draft(self, state: RowState) -> dict[int, Draft]:
        """Of a row's last step, the draft at each position that it read."""
        return self._live.draft(state) if state in self._live else state.draft

    def start(self, state: RowState) -> None:
        """Give a row its canvas and park it before its first step."""
        state.parked = True
        state.fill_canvas(*first_canvas(state, self.manager.info))
        state.announce()

    def resume(self, state: RowState, until: Until | None = None) -> None:
        """Queue a parked row, which goes on up to `until` (None: its end)."""
        state.until, state.no_room = until, None
        if not state.reached:
            state.parked = False
            self._watched += [] if until is None else [state]
            self.submit(state)

    def fork(self, state: RowState, *, choice: int, row: int, path: int) -> RowState:
        """A second row that starts as this one stands now and draws along `path`.

        That of a parked row is parked. Rows share their pages until one of them writes, and their
        next forward if both take it at once. Raises `Unavailable` when the pool could not give the
        fork pages of its own, `InvalidRequest` for a row that waits.
        """
        owner = next((rows for rows in (self._live, self._parked) if state in rows), None)
        if owner is None and not (state.parked or state.done):
            raise InvalidRequest("fork", "a row that waits cannot be forked")
        if owner is not None:
            self.page_manager.share(state.bound.parts, owner.pages(state))
        state.lineage = state.lineage or (next(self._lineages),)
        child = state.fork(choice=choice, row=row, path=path)
        if owner is not None:
            owner.double(state, child)
        return child

    def reopen(self, state: RowState, positions: Sequence[int]) -> None:
        """Open committed positions of a row that is parked, or has ended: then it is parked now.

        Raises `Unavailable`, and changes nothing, when the pool has no pages of its own for it.
        """
        if state in self._parked.groups:
            try:
                self._parked.reopen(state, positions)
            except Unavailable:
                raise
            except Exception as error:  # of a user's part
                state.finish("error", error)
                self._drop_done()
            return
        state.reopen(positions, opened_ids(state, positions, self.manager.info))
        state.parked = True

    def step(self) -> None:
        """Admit what fits, run steps up to the next sync, and deliver the events.

        What fails ends the rows that it belongs to: a forward is tried with fewer rows, down to
        the one that it fails for; where a part raises, each row goes on alone from the next step.
        """
        try:
            self._receive()
            self._admit()
            for members in self._live.forwards(self.manager.planner, self.max_token_forwards):
                for (_, states), records in self._run(members):
                    for state, steps in zip(states, records, strict=True):
                        with state.lock:  # its holder finds the whole bill of a row that is done
                            for step in steps:
                                state.record(step)
                                self.computed += step.positions
            self._keep_prefixes()
            self._set_apart()
            self._park()
            self._drop_done()
        except KeyboardInterrupt:
            self.end_all()
            raise

    def check_integrity(self) -> None:
        """Raise `EngineError` unless the rows' pages explain every page that is taken."""
        owned: dict[int, list[list[int]]] = {}
        for group in (*(group for group, _ in self._live.groups), *self._parked.groups.values()):
            for table in group.rows.host.pages.tolist():
                for pool, line in zip(self.page_manager.pools(group.parts), table, strict=True):
                    owned.setdefault(id(pool), []).append(line)
        if self.page_manager.prefixes is not None:
            owned.setdefault(id(self.page_manager.kv), []).append(self.page_manager.prefixes.pages)
        for pool in (self.page_manager.kv, *self.page_manager.aux.values()):
            pool.check_integrity(owned.get(id(pool), [[]]))

    def _keep_prefixes(self) -> None:
        """Keep the final keys that rows have stored, for requests that begin alike."""
        if self.page_manager.prefixes is None:
            return
        for group, states in self._live.groups:
            host = group.rows.host
            for state, stored, pages in zip(states, host.stored.tolist(), host.pages, strict=True):
                if stored > state.kept:
                    ids = state.canvas.ids[:stored]
                    self.page_manager.keep(group.parts, ids, len(state.prompt), pages)
                    state.kept = stored

    # failing alone

    def _run(self, members: Sequence[GroupRows]) -> list[tuple[GroupRows, list[list[RowStep]]]]:
        """Run steps; where the forward fails, with half the rows at a time, down to the one."""
        if not members:
            return []
        try:
            groups = [group for group, _ in members]
            records = self.manager.run(groups, steps_unwatched(self._watched))
            return list(zip(members, records, strict=True))
        except Exception as error:  # out of memory, say
            clear_frames(error.__traceback__)  # they hold the activations that had no room
            failed = error
        if len(members) == 1:
            group, states = members[0]
            if len(states) == 1:
                states[0].finish("error", failed)
                return []
            members = self._split(group)
        half = len(members) // 2
        return self._run(members[:half]) + self._run(members[half:])

    def _split(self, group: RowGroup) -> list[GroupRows]:
        """The rows of a group in groups of their own, which nobody may join."""
        alone = self._live.divide(group, [[row] for row in range(group.rows.count)])
        for one, _ in alone:
            one.isolated = True
        return alone

    def _set_apart(self) -> None:
        """Split the groups whose part has failed into rows; a row that fails alone ends."""
        for group, states in list(self._live.groups):
            if group.error is None:
                continue
            if len(states) == 1:
                states[0].finish("error", group.error)
            else:
                self._split(group)

    def _park(self) -> None:
        """Park the rows that have come to their point."""
        reached = [state for state in self._watched if state.reached and state in self._live]
        for state in reached:
            state.draft = self._live.draft(state)
        for state in reached:
            self._parked.groups[state] = self._live.take(state)
            state.parked = True
        self._watched = [s for s in self._watched if not (s.parked or s.done)]

    def _receive(self) -> None:
        while not self._inbox.empty():
            self._waiting.append(self._inbox.get())
        if not self._discarded.empty():
            while not self._discarded.empty():
                self._discarded.get().finish("abort")
            self._drop_done()

    def _admit(self) -> None:
        """Let waiting rows in as long as there is room. Rows of one signature join at once."""
        fresh: list[GroupRows] = []
        try:
            while self._waiting and self.live + len(fresh) < self.max_rows:
                if not self._admit_first(fresh):
                    break
        finally:  # Ctrl-C among them ends those that were let in, too
            if fresh:
                self._live.join(fresh, self.manager.device)

    def _admit_first(self, fresh: list[GroupRows]) -> bool:
        """Let the first waiting row in, or end it; False where it waits for others' pages."""
        state = self._waiting[0]
        if state.done or state in self._parked.groups:
            self._waiting.popleft()
            if not state.done:
                fresh.append((self._parked.groups.pop(state), [state]))
            return True
        parts, length = state.bound.parts, canvas_length(state, self.manager.info)
        try:
            pages, state.ledger.reused = self.page_manager.reserve(parts, length, state.prompt)
        except Unavailable as error:
            if self.live or fresh:
                return False
            self._waiting.popleft()
            if state.canvas.ids:  # a node, which may try again when there is room
                state.no_room, state.parked = error, True
            else:
                state.finish("error", error)
            return True
        self._waiting.popleft()
        state.ledger.kv_bytes = self.page_manager.bytes_of(parts, pages)
        group = self._new_group(state, pages)
        if group is not None:
            fresh.append((group, [state]))
        return True

    def _new_group(self, state: RowState, pages: Tensor) -> RowGroup | None:
        """A group for a new row whose first block is open; None where the row ends at once."""
        fresh = not state.canvas.ids
        try:
            if fresh:
                state.fill_canvas(*first_canvas(state, self.manager.info))
            group = new_group(state, pages, self.manager)
            self.manager.admit(group)
        except BaseException as error:
            self.page_manager.release(state.bound.parts, pages)
            if not isinstance(error, Exception):  # Ctrl-C, which ends all that wait
                self._waiting.appendleft(state)
                raise
            state.finish("error", error)  # of a user's part that cannot run
            return None
        state.started = state.started or time.perf_counter()
        if fresh:
            state.announce()
        if bool(group.rows.host.blocks.live.any()):
            return group
        self.page_manager.release(state.bound.parts, pages)
        state.finish("length")  # everything is filled, and no editor asks for it
        return None

    def _drop_done(self) -> None:
        """Free the pages of ended rows; live ones leave their groups at once."""
        for parts, pages in (*self._live.drop_done(), *self._parked.drop_done()):
            self.page_manager.release(parts, pages)
