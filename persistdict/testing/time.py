"""The contract for time: deadlines, idle limits, access times."""

from __future__ import annotations

import pytest

from persistdict.store import ABSENT, KEPT, Store
from persistdict.testing.base import StoreTests, kbs, key

__all__ = ["TimeTests"]


class TimeTests(StoreTests):
    """What holds as time passes."""

    def expect_absent(self, store: Store, kb: bytes) -> None:
        """The key is absent for every way of asking."""
        assert store.read(kb) is None
        assert store.get(kb) is None
        assert store.get_many([kb]) == [None]
        assert store.read_many([kb]) == [None]
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

    def test_an_overwrite_keeps_the_deadline_if_that_is_asked_for(self) -> None:
        store, other = self.pair()
        for size in (10, 40_000, 2 << 20):
            for ttl in (None, 50):
                store.put(key(1), b"", 1, b"v" * size, ttl=ttl)
                deadline = store.get(key(1)).deadline  # type: ignore[union-attr]
                self.clock.now += 7
                other.put(key(1), b"", 1, b"w" * size, ttl=KEPT)
                assert store.get(key(1)).deadline == deadline  # type: ignore[union-attr]
                assert (deadline is None) is (ttl is None)
            self.clock.now += 43
            self.expect_absent(store, key(1))
            other.put(key(1), b"", 1, b"x", ttl=KEPT)
            assert store.get(key(1)).deadline is None  # type: ignore[union-attr]

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

    @pytest.mark.parametrize("idle", [None, 100])
    def test_reads_of_what_is_over_are_counted_by_their_handle(self, idle: float | None) -> None:
        store, other = self.pair(idle)
        store.put(key(1), b"", 1, b"v", ttl=10)
        store.put(key(2), b"", 1, b"v")
        self.clock.now += 11
        for kb in (key(1), key(2), key(3)):  # over, there, never there
            store.read(kb)
            store.get(kb)
            store.contains(kb)
        assert (store.counts.expired.value(), other.counts.expired.value()) == (1, 0)
        store.get_many([key(3), key(1), key(2), key(1)])
        assert store.counts.expired.value() == 3
        store.read_many([key(3), key(1), key(2), key(1)])
        assert store.counts.expired.value() == 5
        store.delete(key(2))
        store.expire(1000)
        assert store.read(key(1)) is None
        assert store.get_many([key(1), key(2)]) == [None, None]
        assert store.read_many([key(1), key(2)]) == [None, None]
        assert (store.counts.expired.value(), other.counts.expired.value()) == (5, 0)

    def test_what_upkeep_removes_is_counted_for_all_handles(self) -> None:
        store, other = self.pair()
        assert store.counts.expirations is other.counts.expirations
        assert store.counts.evictions is other.counts.evictions

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
