"""The store contract as tests, for engines of your own: derive from `StoreContract`, make the stores, run pytest.

    class TestMyStore(StoreContract):
        def open(self, **options):
            return MyStore(self.path / "store", **options)

`options` are `clock` and `idle`, as for the stores of this package. Every call opens another handle on the same
entries; the kit closes all of them. What is written is read through another handle, so that a store is not tested
with its own memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from persistdict.errors import ClosedError, NestedWriteError
from persistdict.store import ABSENT, Capability, Receipt, Record, Store, Transaction

__all__ = ["Clock", "StoreContract"]


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def key(number: int) -> bytes:
    """An encoded key; keys sort as their numbers do."""
    return b"\x30key%06d" % number


def kbs(records: Iterator[Record]) -> list[bytes]:
    """The keys of records."""
    return [record.kb for record in records]


class StoreContract:
    """One test for each sentence of the contract in `persistdict.store`."""

    path: Path
    clock: Clock
    _opened: list[Store]

    def open(self, **options: Any) -> Store:
        """A new handle on the same entries."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _prepare(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path
        self.clock = Clock()
        self._opened = []
        yield
        for store in self._opened:
            faults, _ = store.check(1 << 30) if not self._is_closed(store) else ([], None)
            store.close()
            assert not faults

    @staticmethod
    def _is_closed(store: Store) -> bool:
        try:
            store.count()
        except ClosedError:
            return True
        return False

    def store(self, idle: float | None = None) -> Store:
        """A new handle, closed and checked at the end of the test."""
        store = self.open(clock=self.clock, idle=idle)
        self._opened.append(store)
        return store

    def pair(self, idle: float | None = None) -> tuple[Store, Store]:
        """Two handles on the same entries: one to write, one to look."""
        return self.store(idle), self.store(idle)

    # Single entries

    def test_what_was_put_is_read_by_another_handle(self) -> None:
        store, other = self.pair()
        receipt = store.put(key(1), b"i", 7, b"value")
        assert isinstance(receipt, Receipt)
        found = other.read(key(1))
        assert found is not None
        assert found[:4] == (7, b"value", receipt.seq, None)
        record = other.get(key(1))
        assert record is not None
        assert record[:4] == (key(1), b"i", 7, b"value")
        assert record.version == receipt.version
        assert record.ctime == record.mtime == record.atime == self.clock.now
        assert other.contains(key(1))

    def test_an_absent_key_reads_as_nothing(self) -> None:
        store = self.store()
        assert store.read(key(1)) is None
        assert store.get(key(1)) is None
        assert not store.contains(key(1))
        assert store.delete(key(1)) is None
        assert store.last() is None
        assert store.count() == 0

    @pytest.mark.parametrize("size", [0, 1, 4000, 32 * 1024 - 1, 32 * 1024, 1 << 20])
    def test_a_value_of_any_size_comes_back(self, size: int) -> None:
        store, other = self.pair()
        blob = bytes(itertools.islice(itertools.cycle(range(251)), size))
        for old in (b"x", b"y" * 100_000):
            store.put(key(1), b"", 1, old)
            store.put(key(1), b"", 2, blob)
            found = other.read(key(1))
            assert found is not None
            assert found[:2] == (2, blob)

    def test_an_overwrite_keeps_place_identity_ctime_and_first_hint(self) -> None:
        store, other = self.pair()
        first = store.put(key(1), b"first", 1, b"a")
        store.put(key(2), b"", 1, b"b")
        self.clock.now += 5
        second = store.put(key(1), b"second", 1, b"c" * 50_000)
        assert first is not None
        assert second is not None
        record = other.get(key(1))
        assert record is not None
        assert (record.seq, record.hint, record.ctime) == (first.seq, b"first", self.clock.now - 5)
        assert record.mtime == self.clock.now
        assert second.version > first.version
        assert kbs(other.scan()) == [key(1), key(2)]

    def test_a_deleted_key_is_gone_and_comes_back_last(self) -> None:
        store, other = self.pair()
        for number in (1, 2):
            store.put(key(number), b"", 1, b"v")
        assert store.delete(key(1)) is not None
        assert not other.contains(key(1))
        assert other.count() == 1
        store.put(key(1), b"", 1, b"w")
        assert kbs(other.scan()) == [key(2), key(1)]
        last = other.last()
        assert last is not None
        assert last.kb == key(1)

    def test_versions_are_never_used_twice(self) -> None:
        store = self.store()
        versions = []
        for _ in range(5):
            receipt = store.put(key(1), b"", 1, b"v")
            assert receipt is not None
            versions.append(receipt.version)
            store.delete(key(1))
        assert versions == sorted(set(versions))

    # Conditions

    def test_put_when_absent_does_nothing_if_the_key_is_there(self) -> None:
        store, other = self.pair()
        assert store.put(key(1), b"", 1, b"a", when=ABSENT) is not None
        assert other.put(key(1), b"", 1, b"b", when=ABSENT) is None
        assert store.read(key(1))[1] == b"a"  # type: ignore[index]

    def test_put_and_delete_by_version_fail_once_the_key_was_written(self) -> None:
        store, other = self.pair()
        receipt = store.put(key(1), b"", 1, b"a")
        assert receipt is not None
        assert other.put(key(1), b"", 1, b"b", when=receipt.version) is not None
        assert store.put(key(1), b"", 1, b"c", when=receipt.version) is None
        assert store.delete(key(1), when=receipt.version) is None
        assert store.put(key(2), b"", 1, b"c", when=receipt.version) is None
        record = store.get(key(1))
        assert record is not None
        assert store.delete(key(1), when=record.version) is not None

    # Commit ids

    def test_the_id_grows_with_every_commit_of_any_handle(self) -> None:
        store, other = self.pair()
        ids = [other.begin().id()]
        for number in range(3):
            receipt = store.put(key(number), b"", 1, b"v")
            assert receipt is not None
            assert receipt.id == other.begin().id()
            ids.append(receipt.id)
        store.delete(key(1))
        ids.append(other.begin().id())
        assert ids == sorted(set(ids))

    def test_reading_does_not_move_the_id(self) -> None:
        store = self.store()
        store.put(key(1), b"", 1, b"v")
        before = store.begin().id()
        found = store.read(key(1))
        assert found is not None
        assert found[4] == before
        list(store.scan())
        store.count()
        assert store.begin().id() == before

    # Iteration

    @pytest.mark.parametrize("total", [0, 1, 511, 512, 513, 1500])
    def test_a_scan_yields_every_entry_once_in_order(self, total: int) -> None:
        store, other = self.pair()
        order = [(number * 7919) % total for number in range(total)] if total != 7919 else []
        store.update(lambda txn: [txn.put(key(number), b"", 1, b"v%d" % number) for number in order])
        expected = list(dict.fromkeys(key(number) for number in order))
        assert kbs(other.scan()) == expected
        assert kbs(other.scan(reverse=True)) == expected[::-1]
        assert all(record.blob == b"" for record in other.scan(values=False))
        if Capability.ORDERED in other.capabilities:
            assert kbs(other.scan(by_key=True)) == sorted(expected)
            assert kbs(other.scan(by_key=True, reverse=True)) == sorted(expected, reverse=True)

    @pytest.mark.parametrize("reverse", [False, True])
    def test_a_scan_by_key_keeps_to_its_range(self, reverse: bool) -> None:
        store = self.store()
        store.update(lambda txn: [txn.put(key(number), b"", 1, b"v") for number in range(1200)])
        for start, stop in [(0, 1200), (5, 6), (5, 5), (600, 3000), (511, 1025)]:
            expected = [key(number) for number in range(start, min(stop, 1200))]
            found = kbs(store.scan(by_key=True, start=key(start), stop=key(stop), reverse=reverse))
            assert found == (expected[::-1] if reverse else expected)

    @pytest.mark.parametrize("by_key", [False, True])
    def test_a_scan_survives_every_change_while_it_runs(self, by_key: bool) -> None:
        """What stays is yielded once, what is added meanwhile is not, and no lock is held between two items."""
        store, other = self.pair()
        store.update(lambda txn: [txn.put(key(2 * number), b"", 1, b"v") for number in range(1500)])
        seen = []
        for count, record in enumerate(store.scan(by_key=by_key)):
            seen.append(record.kb)
            if count % 100 == 0:
                other.put(key(2 * count + 1), b"", 1, b"new")
                other.put(record.kb, b"", 1, b"again" * 100)
                other.delete(key(2 * (1499 - count // 100)))
        assert len(seen) == len(set(seen))
        assert set(seen) >= {key(2 * number) for number in range(1400)}
        assert not {kb for kb in seen if int(kb[4:]) % 2}

    def test_get_many_answers_in_the_order_asked(self) -> None:
        store = self.store()
        store.put(key(1), b"", 1, b"a")
        store.put(key(2), b"", 1, b"b")
        found = store.get_many([key(2), key(3), key(1), key(2)])
        assert [record and record.blob for record in found] == [b"b", None, b"a", b"b"]

    # Transactions

    def test_a_transaction_reads_its_own_writes(self) -> None:
        store = self.store()

        def work(txn: Transaction) -> list[bytes | None]:
            txn.put(key(1), b"", 1, b"a" * 9000)
            txn.put(key(1), b"", 1, b"b")
            first = txn.get(key(1))
            txn.delete(key(1))
            second = txn.get(key(1))
            txn.put(key(1), b"", 1, b"c" * 40_000)
            txn.put(key(1), b"", 1, b"d")
            return [first and first.blob, second and second.blob]

        assert store.update(work) == [b"b", None]
        assert store.read(key(1))[1] == b"d"  # type: ignore[index]

    def test_a_transaction_that_raises_changes_nothing(self) -> None:
        store, other = self.pair()
        store.put(key(1), b"", 1, b"a")
        store.put(key(2), b"", 1, b"b")
        before = store.begin().id()

        def work(txn: Transaction) -> None:
            txn.delete(key(1))
            txn.put(key(2), b"", 1, b"changed")
            txn.put(key(3), b"", 1, b"new" * 20_000)
            txn.set_info("name", "text")
            txn.clear()
            raise RuntimeError("no")

        with pytest.raises(RuntimeError, match="no"):
            store.update(work)
        assert [(record.kb, record.blob) for record in other.scan()] == [(key(1), b"a"), (key(2), b"b")]
        assert store.info().get("name") is None
        assert store.begin().id() == before

    def test_a_write_within_a_write_is_refused_and_harms_nothing(self) -> None:
        store = self.store()

        def work(txn: Transaction) -> None:
            txn.put(key(1), b"", 1, b"a")
            with pytest.raises(NestedWriteError):
                store.put(key(2), b"", 1, b"b")

        store.update(work)
        assert kbs(store.scan()) == [key(1)]
        assert store.put(key(2), b"", 1, b"b") is not None

    def test_clear_removes_everything_and_the_store_goes_on(self) -> None:
        store, other = self.pair()
        for number in range(5):
            store.put(key(number), b"", 1, b"v" * (number * 10_000), ttl=100 if number % 2 else None)
        assert store.update(lambda txn: txn.clear()) == 5
        assert other.count() == 0
        assert kbs(other.scan()) == []
        store.put(key(1), b"", 1, b"v")
        assert kbs(other.scan()) == [key(1)]

    def test_settings_are_kept_beside_the_entries(self) -> None:
        store, other = self.pair()
        store.update(lambda txn: txn.set_info("name", "grün"))
        assert other.info()["name"] == "grün"
        assert other.count() == 0

    # Time

    def expect_absent(self, store: Store, kb: bytes) -> None:
        """The key is absent for every way of asking."""
        assert store.read(kb) is None
        assert store.get(kb) is None
        assert store.get_many([kb]) == [None]
        assert not store.contains(kb)
        assert kb not in kbs(store.scan())
        assert kb not in kbs(store.scan(by_key=True))
        assert store.delete(kb) is None
        last = store.last()
        assert last is None or last.kb != kb

    def test_an_entry_is_absent_the_moment_its_ttl_is_over(self) -> None:
        store, other = self.pair()
        store.put(key(1), b"", 1, b"v", ttl=10)
        store.put(key(2), b"", 1, b"v")
        self.clock.now += 9.999
        assert other.contains(key(1))
        assert other.get(key(1)).expires_at == pytest.approx(1_000_010.0)  # type: ignore[union-attr]
        assert other.count() == 2
        self.clock.now += 0.001
        self.expect_absent(other, key(1))
        assert other.count() == 1

    def test_an_expired_key_is_put_anew_and_comes_last(self) -> None:
        store, other = self.pair()
        store.put(key(1), b"", 1, b"v", ttl=10)
        store.put(key(2), b"", 1, b"v")
        self.clock.now += 11
        assert store.put(key(1), b"", 1, b"w", when=ABSENT) is not None
        record = other.get(key(1))
        assert record is not None
        assert (record.ctime, record.expires_at) == (self.clock.now, None)
        assert kbs(other.scan()) == [key(2), key(1)]
        assert other.count() == 2

    def test_an_overwrite_replaces_the_ttl(self) -> None:
        store, other = self.pair()
        for later in (None, 5, 500):
            store.put(key(1), b"", 1, b"v", ttl=50)
            store.put(key(1), b"", 1, b"w", ttl=later)
            record = other.get(key(1))
            assert record is not None
            assert record.expires_at == (None if later is None else pytest.approx(self.clock.now + later))
        self.clock.now += 100
        assert other.contains(key(1))
        assert other.count() == 1

    def test_expire_removes_what_is_over_and_nothing_else(self) -> None:
        store, other = self.pair()
        for number in range(1000):
            store.update(lambda txn, n=number: txn.put(key(n), b"", 1, b"v", ttl=1 + n % 10))  # type: ignore[misc]
        self.clock.now += 5
        removed = 0
        position: bytes | None = b""
        while position is not None:
            count, position = store.expire(64, position)
            removed += count
        assert removed == 500
        assert other.count() == 500
        assert store.expire(64) == (0, None)

    def test_an_idle_entry_ends_and_a_read_keeps_it(self) -> None:
        store, other = self.pair(idle=100)
        for number in (1, 2):
            store.put(key(number), b"", 1, b"v")
        self.clock.now += 60
        assert store.read(key(1)) is not None
        self.clock.now += 60
        self.expect_absent(store, key(2))
        assert store.read(key(1)) is not None
        store.flush_touched(self.clock.now)
        assert other.contains(key(1))
        self.clock.now += 99
        assert other.contains(key(1))
        removed, position = other.expire(1000)
        assert (removed, position) == (1, None)
        self.clock.now += 1
        self.expect_absent(other, key(1))

    def test_access_times_are_written_in_batches_and_never_move_back(self) -> None:
        store, other = self.pair()
        receipt = store.put(key(1), b"", 1, b"v")
        assert receipt is not None
        self.clock.now += 50
        assert store.read(key(1)) is not None
        assert store.flush_touched(self.clock.now) == 1
        assert store.flush_touched(self.clock.now) == 0
        other.touch({receipt.seq: self.clock.now - 20, b"\x00" * 8: 1.0})
        record = other.get(key(1))
        assert record is not None
        assert (record.atime, record.mtime) == (self.clock.now, self.clock.now - 50)

    def test_an_entry_rewritten_after_the_look_survives_the_removal(self) -> None:
        """Whether an entry is over is decided again in the transaction that removes it."""
        store, other = self.pair()
        store.put(key(1), b"", 1, b"old", ttl=10)
        self.clock.now += 20
        real_clock = self.clock.now
        other.put(key(1), b"", 1, b"new", ttl=10)
        self.clock.now = real_clock
        assert store.expire(100) == (0, None)
        assert store.read(key(1))[1] == b"new"  # type: ignore[index]

    # The end

    def test_a_closed_handle_refuses_everything_and_others_go_on(self) -> None:
        store, other = self.pair()
        store.put(key(1), b"", 1, b"v")
        scan = store.scan()
        store.close()
        store.close()
        calls: list[Callable[[], Any]] = [
            lambda: store.read(key(1)),
            lambda: store.get(key(1)),
            lambda: store.contains(key(1)),
            lambda: store.put(key(1), b"", 1, b"v"),
            lambda: store.delete(key(1)),
            lambda: store.update(lambda txn: None),
            lambda: store.count(),
            lambda: store.begin(),
            lambda: store.info(),
            lambda: next(scan),
        ]
        for call in calls:
            with pytest.raises(ClosedError):
                call()
        assert other.read(key(1)) is not None
