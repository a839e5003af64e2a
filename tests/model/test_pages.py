"""The owners of pages: any history agrees with a table that counts them the long way."""

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dlm.errors import EngineError, Unavailable
from dlm.model.pages import PageTable

SIZE = 4
ROW = st.integers(0, 30)
"""Picks an owner; which one depends on how many there are."""


def table_of(limit=None, count=1, grow=lambda count: None):
    return PageTable(SIZE, 100, grow, count=count, limit=limit)


class Histories(RuleBasedStateMachine):
    """Owners hold lists of pages. The naive model: these lists, the sealed pages, the contents."""

    @initialize(limit=st.none() | st.integers(1, 24), fixed=st.booleans())
    def begin(self, limit, fixed):
        self.limit, self.exist = limit, limit if fixed and limit else 1
        self.table = table_of(limit, self.exist, self.grow)
        self.rows, self.sealed = [], set()
        self.contents, self.clock = {}, 0  # page -> what was written there last
        self.expected = []  # of each row: what it should find in its pages

    def grow(self, count):
        assert self.exist < count <= (self.limit or count)
        self.exist = count

    def owners(self):
        return Counter(page for row in self.rows for page in row if page)

    def room(self):
        """Pages that could be taken: all that may exist, less the taken ones and their copies."""
        owners = self.owners()
        owed = sum(n - 1 for page, n in owners.items() if page not in self.sealed)
        return float("inf") if self.limit is None else self.limit - 1 - len(owners) - owed

    def pick(self, number):
        return number % len(self.rows)

    @rule(pages=st.integers(0, 6))
    def reserve(self, pages):
        if pages > self.room():
            with pytest.raises(Unavailable, match=rf"of {self.limit - 1} are taken"):
                self.table.reserve(pages)
            return
        before, taken = self.owners(), self.table.reserve(pages)
        assert self.table.fits(pages)
        assert len(set(taken)) == pages
        assert not {0, *before} & set(taken)
        assert all(page < self.exist for page in taken)
        self.rows.append([*taken, 0])
        self.expected.append([self.contents.get(page) for page in taken] + [None])

    @precondition(lambda self: self.rows)
    @rule(number=ROW)
    def share(self, number):
        row = self.pick(number)
        costs = sum(page not in self.sealed for page in self.rows[row] if page)
        if costs > self.room():
            with pytest.raises(Unavailable):
                self.table.share(self.rows[row])
            return
        self.table.share(self.rows[row])
        self.rows.append(list(self.rows[row]))
        self.expected.append(list(self.expected[row]))

    @precondition(lambda self: self.rows)
    @rule(number=ROW, until=st.integers(0, 3))
    def seal(self, number, until):
        pages = self.rows[self.pick(number)][:until]
        self.table.seal(pages)
        self.sealed |= set(pages) - {0}

    @precondition(lambda self: self.rows)
    @rule(number=ROW, places=st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=4))
    def write(self, number, places):
        """Own pages, copy as told, write: the owner finds its own writes, all others theirs."""
        row = self.pick(number)
        pages, whole = self.rows[row], dict(places)
        columns = sorted({place for place in whole if place < len(pages)})
        asked, flags = [pages[c] for c in columns], [whole[c] for c in columns]
        if self.sealed & set(asked):
            bad = next(n for n, page in enumerate(asked) if page in self.sealed)
            with pytest.raises(EngineError, match="sealed"):
                self.table.own(asked[bad:], flags[bad:])
            return
        shared = [page for page in asked if self.owners()[page] > 1]
        own, copies = self.table.own(asked, flags)
        assert [a for a, b in zip(asked, own, strict=True) if a != b] == shared
        assert not {source for source, _ in copies} & {target for _, target in copies}
        for source, target in copies:
            self.contents[target] = self.contents.get(source)
        for column, page, all_of_it in zip(columns, own, flags, strict=True):
            pages[column] = page
            if page:
                self.clock += 1
                old = () if all_of_it else (self.contents.get(page),)
                assert old in ((), (self.expected[row][column],))
                self.contents[page] = self.expected[row][column] = self.clock, *old

    @precondition(lambda self: self.rows)
    @rule(number=ROW)
    def release(self, number):
        row = self.pick(number)
        self.expected.pop(row)
        self.table.release(self.rows.pop(row))
        self.sealed &= set(self.owners())

    @invariant()
    def counts_agree(self):
        if not hasattr(self, "table"):
            return
        owners = self.owners()
        self.table.check_integrity(self.rows or [[]])
        assert self.table.in_use == len(owners)
        assert all(self.table.owners(page) == n for page, n in owners.items())
        assert self.table.shared == any(
            n > 1 for page, n in owners.items() if page not in self.sealed
        )
        for row, expected in zip(self.rows, self.expected, strict=True):
            assert [self.contents.get(page) for page in row] == expected

    def teardown(self):
        for row in getattr(self, "rows", ()):
            self.table.release(row)
        if hasattr(self, "table"):
            self.table.check_integrity([[]])
            assert self.table.in_use == 0


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_storage_that_cannot_grow_leaves_the_table_as_it_was():
    def full(count):
        if count > 6:
            raise Unavailable("the device has no memory")

    table = table_of(grow=full)
    pages = table.reserve(2)
    with pytest.raises(Unavailable, match="no memory"):
        table.reserve(4)
    with pytest.raises(Unavailable, match="no memory"):
        table.share([*pages, *pages])
    table.check_integrity([pages])
    table.share(pages[:1])
    table.check_integrity([pages, pages[:1]])


def test_a_full_table_gives_the_numbers():
    table = table_of(limit=6)
    table.share(table.reserve(2))
    assert table.fits(5)
    assert not table.fits(6)
    with pytest.raises(Unavailable, match="1 more pages of 100 bytes are needed, 4 of 5 are taken"):
        table.reserve(2)


def test_what_no_owner_may_do_is_an_error_of_the_engine():
    table = table_of()
    (page,) = table.reserve(1)
    table.release([page, 0])
    with pytest.raises(EngineError, match="released more often"):
        table.release([page])
    with pytest.raises(EngineError, match="does not hold that the given pages explain"):
        table.check_integrity([[page]])


def test_pages_hold_positions():
    assert [table_of().pages_for(n) for n in (0, 1, SIZE, SIZE + 1)] == [0, 1, 1, 2]


def test_the_bookkeeping_imports_no_torch():
    program = "import sys, dlm.model.pages; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
