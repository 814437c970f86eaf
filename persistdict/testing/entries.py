"""The contract for single entries, conditions, commit ids, and the end of a handle."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from persistdict.errors import ClosedError
from persistdict.store import ABSENT, Receipt, Transaction
from persistdict.testing.base import StoreTests, kbs, key

__all__ = ["EntryTests"]


class EntryTests(StoreTests):
    """What holds for a single entry."""

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

    def test_a_key_is_deleted_once(self) -> None:
        """Also after it came back, and while others delete it."""
        store, other = self.pair()
        for _ in range(2):
            store.put(key(1), b"", 1, b"v")
            assert [each.delete(key(1)) is not None for each in (store, store, other, store)] == [True] + 3 * [False]

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

    def test_what_is_told_of_the_newest_commit_is_never_an_older_one(self) -> None:
        store, other = self.pair()
        for number in range(3):
            before = other.begin().id()
            if number:
                store.delete(key(1))
            else:
                store.put(key(1), b"", 1, b"v")
            assert other.latest[0] != before or other.begin().id() == before
            assert other.latest[0] in (None, other.begin().id(), other.begin().id() + 1)

    def test_a_transaction_that_does_nothing_has_no_id_or_makes_a_commit(self) -> None:
        store, other = self.pair()
        store.put(key(1), b"", 1, b"v", label=b"l")

        def work(txn: Transaction) -> int:
            assert txn.put(key(1), b"", 1, b"w", when=ABSENT) is None
            assert txn.delete(key(2)) is None
            assert not txn.discard(key(1), b"other")
            return txn.id()

        assert store.update(work) in (0, other.begin().id())
        assert store.update(work, size=10**6) in (0, other.begin().id())
        assert other.read(key(1))[1] == b"v"  # type: ignore[index]
        assert store.update(lambda txn: (txn.discard(key(1)), txn.id())) == (True, other.begin().id())

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
            lambda: store.sizes(),
            lambda: next(scan),
        ]
        for call in calls:
            with pytest.raises(ClosedError):
                call()
        assert other.read(key(1)) is not None
