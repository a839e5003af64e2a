"""The scheduler: queues rows, admits what fits, runs steps and frees the rows that have ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import product
from queue import SimpleQueue
from traceback import clear_frames

import torch

from dlm.core import Kind
from dlm.decode.group import RowGroup
from dlm.decode.iteration import IterationManager
from dlm.decode.sync import RowStep
from dlm.engine.admission import GroupRows, merge, new_group
from dlm.engine.row import RowState, deliver, emit, finish, record
from dlm.errors import InvalidRequest, Unavailable


class Scheduler:
    """Continuous batching over groups. `max_rows` bounds the rows that are decoded at once,
    `max_token_forwards` the positions of one forward (None: no bound): what is more takes several.

    `submit` may be called from any thread; everything else is for one thread at a time.
    """

    def __init__(
        self, manager: IterationManager, *, max_rows: int, max_token_forwards: int | None = None
    ) -> None:
        self.manager, self.page_manager, self.max_rows = manager, manager.page_manager, max_rows
        self.max_token_forwards = max_token_forwards
        self._inbox: SimpleQueue[RowState] = SimpleQueue()
        self._waiting: deque[RowState] = deque()
        self._groups: list[GroupRows] = []

    @property
    def live(self) -> int:
        """Rows being denoised."""
        return sum(len(states) for _, states in self._groups)

    @property
    def waiting(self) -> int:
        """Rows queued and not admitted yet."""
        return self._inbox.qsize() + len(self._waiting)

    def check(self, state: RowState) -> None:
        """Raises `InvalidRequest` if the canvas exceeds a model, `Unavailable` if a pool."""
        length, parts = self._length(state), state.bound.parts
        limits = {"the model": self.manager.info.max_length}
        for name in parts.aux:
            self.manager.aux[name].check_ids("prompt", state.prompt)
            self.manager.aux[name].check_ids("infill", [i for i in state.pinned if i is not None])
            limits[f"auxiliary {name!r}"] = self.manager.aux[name].max_length
        for name, limit in limits.items():
            if length > limit:
                raise InvalidRequest(
                    "max_new_tokens",
                    f"a prompt of {len(state.prompt)} and {state.bound.length} "
                    f"new tokens make a canvas of {length}; the limit of {name} is {limit}",
                )
        most = self.max_token_forwards
        if most is not None and length * parts.arms > most:
            raise InvalidRequest(
                "max_new_tokens",
                f"a canvas of {length} positions in {parts.arms} inputs does not fit one forward "
                f"of at most {most} (`max_token_forwards`)",
            )
        if not self.page_manager.fits_ever(parts, length):
            raise Unavailable(f"a canvas of {length} positions does not fit the key/value budget")

    def submit(self, state: RowState) -> None:
        """Queue a row that `check` lets pass."""
        self._inbox.put(state)

    def abort(self, state: RowState) -> None:
        """End a row now, wherever it is, and free its pages."""
        finish(state, "abort")
        self._drop_done()

    def end_all(self, error: Exception | None = None) -> None:
        """End every row, queued or live: with `error`, or as aborted."""
        self._receive()
        live = [state for _, states in self._groups for state in states]
        for state in (*self._waiting, *live):
            finish(state, "error" if error else "abort", error)
        self._drop_done()

    def fork(self, state: RowState, *, choice: int, path: int) -> RowState:
        """A second row that starts as this live one stands now and draws along `path`.

        The rows share their pages until one of them writes. Raises `Unavailable` when the pool
        could not give the fork pages of its own, `InvalidRequest` when the row is not live.
        """
        index = next((i for i, (_, states) in enumerate(self._groups) if state in states), None)
        if index is None:
            raise InvalidRequest("fork", "only a live row can be forked: it waits, or has ended")
        group, states = self._groups[index]
        at = states.index(state)
        self.page_manager.share(group.parts, group.rows.host.pages[at])
        child = state.fork(choice)
        wider = group.select(torch.tensor([*range(len(states)), at]))
        wider.rows.path[-1] = path
        self._groups[index] = wider, [*states, child]
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
                for (_, states), reports in self._run(members):
                    for report, (row, state) in product(reports, enumerate(states)):
                        record(state, report, row)
            self._keep_prefixes()
            self._set_apart()
            self._drop_done()
        except KeyboardInterrupt:
            self.end_all()
            raise

    def check_integrity(self) -> None:
        """Raise `EngineError` unless the live rows' pages explain every page that is taken."""
        owned: dict[int, list[list[int]]] = {}
        for group, _ in self._groups:
            for table in group.rows.host.pages.tolist():
                for pool, line in zip(self.page_manager.pools(group.parts), table, strict=True):
                    owned.setdefault(id(pool), []).append(line)
        if self.page_manager.prefixes is not None:
            owned.setdefault(id(self.page_manager.kv), []).append(self.page_manager.prefixes.pages)
        for pool in (self.page_manager.kv, *self.page_manager.aux.values()):
            pool.check_integrity(owned.get(id(pool), [[]]))

    def _forwards(self) -> list[list[GroupRows]]:
        """The groups that go into each forward; one that is too large for any is divided."""
        most = self.max_token_forwards
        if most is None or not self._groups:
            return [list(self._groups)]
        for group, states in list(self._groups):
            pieces = runs_within(self._sizes(group), most)
            if len(pieces) > 1:
                self._divide(group, states, pieces)
        sizes = [sum(self._sizes(group)) for group, _ in self._groups]
        return [[self._groups[i] for i in run] for run in runs_within(sizes, most)]

    def _sizes(self, group: RowGroup) -> list[int]:
        """The positions that the next forward computes for each row; none where a part cannot plan
        it, which `_run` meets again.
        """
        try:
            return self.manager.planner.plan(group).token_forwards
        except Exception:
            return [0] * group.rows.count

    def _keep_prefixes(self) -> None:
        """Keep the final keys that rows have stored, for requests that begin alike."""
        if self.page_manager.prefixes is None:
            return
        for group, states in self._groups:
            host = group.rows.host
            for state, stored, pages in zip(states, host.stored.tolist(), host.pages, strict=True):
                if stored > state.kept:
                    ids = state.canvas.ids[:stored]
                    self.page_manager.keep(group.parts, ids, len(state.prompt), pages)
                    state.kept = stored

    # failing alone

    def _run(self, members: Sequence[GroupRows]) -> list[tuple[GroupRows, list[RowStep]]]:
        """Run steps; where the forward fails, with half the rows at a time, down to the one."""
        if not members:
            return []
        try:
            return list(zip(members, self.manager.run([c for c, _ in members]), strict=True))
        except Exception as error:  # out of memory, say
            clear_frames(error.__traceback__)  # they hold the activations that had no room
            failed = error
        if len(members) == 1:
            group, states = members[0]
            if len(states) == 1:
                finish(states[0], "error", failed)
                return []
            members = self._split(group, states)
        half = len(members) // 2
        return self._run(members[:half]) + self._run(members[half:])

    def _split(self, group: RowGroup, states: Sequence[RowState]) -> list[GroupRows]:
        """The rows of a group in groups of their own, which nobody may join."""
        alone = self._divide(group, states, [[row] for row in range(len(states))])
        for one, _ in alone:
            one.isolated = True
        return alone

    def _divide(
        self, group: RowGroup, states: Sequence[RowState], pieces: Sequence[Sequence[int]]
    ) -> list[GroupRows]:
        """Pieces of a group, each with some of its rows, which take its place."""
        parts = [(group.select(torch.tensor(rows)), [states[i] for i in rows]) for rows in pieces]
        index = next(i for i, (other, _) in enumerate(self._groups) if other is group)
        self._groups[index : index + 1] = parts
        return parts

    def _set_apart(self) -> None:
        """Split the groups whose part has failed into rows; a row that fails alone ends."""
        for group, states in list(self._groups):
            if group.error is None:
                continue
            if len(states) == 1:
                finish(states[0], "error", group.error)
            else:
                self._split(group, states)

    def _length(self, state: RowState) -> int:
        """The canvas, rounded up to whole trained blocks."""
        step = self.manager.info.alignment
        return -(-state.limit // step) * step

    def _receive(self) -> None:
        while not self._inbox.empty():
            self._waiting.append(self._inbox.get())

    def _admit(self) -> None:
        """Let waiting rows in as long as there is room. Rows of one signature join at once."""
        fresh: list[tuple[RowState, RowGroup]] = []
        try:
            while self._waiting and self.live + len(fresh) < self.max_rows:
                if not self._admit_first(fresh):
                    break
        finally:  # Ctrl-C among them ends those that were let in, too
            self._place(fresh)

    def _admit_first(self, fresh: list[tuple[RowState, RowGroup]]) -> bool:
        """Let the first waiting row in, or end it; False where it waits for others' pages."""
        state = self._waiting[0]
        parts, length = state.bound.parts, self._length(state)
        try:
            found = None if state.done else self.page_manager.reserve(parts, length, state.prompt)
        except Unavailable as error:
            if self.live or fresh:
                return False
            finish(state, "error", error)
            found = None
        self._waiting.popleft()
        if found is None:
            return True
        pages, state.ledger.reused = found
        state.ledger.kv_bytes = self.page_manager.bytes_of(parts, pages)
        try:
            group = new_group(state, length, pages, self.manager)
            self.manager.admit(group)
        except BaseException as error:
            self.page_manager.release(parts, pages)
            if not isinstance(error, Exception):  # Ctrl-C, which ends all that wait
                self._waiting.appendleft(state)
                raise
            finish(state, "error", error)  # of a user's part that cannot run
        else:
            fresh.append((state, group))
        return True

    def _place(self, fresh: Sequence[tuple[RowState, RowGroup]]) -> None:
        """New rows join groups of their signature, or found them; their canvases are announced."""
        self._groups = merge(self._groups, fresh, self.manager.device)
        for state, group in fresh:
            length = int(group.rows.host.length[0])
            ids, kinds = (t[0, :length].tolist() for t in (group.rows.ids, group.rows.kind))
            state.begin(ids, [Kind(kind) for kind in kinds])
            emit(state, state.canvas.opened(state.choice, 0))

    def _drop_done(self) -> None:
        """Free the pages of ended rows and let them leave their groups at once."""
        kept, leaving = [], []
        for group, states in self._groups:
            stay = [i for i, t in enumerate(states) if not t.done]
            gone = [i for i, t in enumerate(states) if t.done]
            leaving += [(group.parts, group.rows.host.pages[i]) for i in gone]
            if not gone:
                kept.append((group, states))
            elif stay:
                kept.append((group.select(torch.tensor(stay)), [states[i] for i in stay]))
        self._groups = kept
        for parts, pages in leaving:
            self.page_manager.release(parts, pages)


def runs_within(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Places of `sizes` in runs whose sums are at most `most`; a larger one is alone."""
    runs: list[list[int]] = [[]]
    for place, size in enumerate(sizes):
        if runs[-1] and sum(sizes[i] for i in runs[-1]) + size > most:
            runs.append([])
        runs[-1].append(place)
    return runs
