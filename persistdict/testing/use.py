"""The contract for use: how much there is, what was used last, and removing it."""

from __future__ import annotations

from persistdict.bounded import Access, Usage
from persistdict.store import Store
from persistdict.testing.base import StoreTests, key

__all__ = ["UseTests"]


def all_accesses(store: Store, before: float = float("inf")) -> list[Access]:
    """Every step of a pass over the entries."""
    found, position = store.accesses(3, before=before)
    while position is not None:
        more, position = store.accesses(3, position, before=before)
        found += more
    return found


class UseTests(StoreTests):
    """What eviction is built on."""

    def test_usage_counts_entries_and_their_bytes(self) -> None:
        store, other = self.pair()
        assert other.usage(exact=True) == (0, 0)
        for number in range(10):
            store.put(key(number), b"", 1, b"v" * 1000)
        store.put(key(10), b"", 1, b"v" * 100_000)
        before = other.usage(exact=True)
        assert before.entries == 11
        assert 110_000 < before.size < 112_000
        store.put(key(1), b"", 1, b"")
        store.put(key(10), b"", 1, b"v" * 1000)
        store.delete(key(2))
        after = other.usage(exact=True)
        assert after.entries == 10
        assert before.size - after.size >= 101_000
        store.update(lambda txn: txn.clear(), whole=True)
        assert other.usage(exact=True) == (0, 0)

    def test_usage_is_never_less_than_the_truth_in_one_process(self) -> None:
        store, _ = self.pair()
        for number in range(50):
            store.put(key(number % 20), b"", 1, b"v" * number)
            usage = store.usage()
            assert usage.entries >= min(number + 1, 20)

    def test_accesses_tell_the_last_use_in_order_of_creation(self) -> None:
        store, other = self.pair()
        for number in range(10):
            self.clock.now += 1
            store.put(key(number), b"", 1, b"v" * 100)
        written = self.clock.now
        self.clock.now += 10
        assert store.read(key(3)) is not None
        self.clock.now += 10
        store.put(key(5), b"", 1, b"w")
        store.flush_touched(self.clock.now)
        found = all_accesses(other)
        assert [access.kb for access in found] == [key(number) for number in range(10)]
        assert [access.used_at for access in found[:3]] == [written - 9, written - 8, written - 7]
        assert found[3].used_at == found[5].used_at == self.clock.now
        assert all(100 < access.size < 200 for access in found if access.kb != key(5))
        assert [access.kb for access in all_accesses(other, before=written - 7)] == [key(0), key(1)]

    def test_evicted_entries_are_gone_for_everybody_and_only_those(self) -> None:
        store, other = self.pair()
        for number in range(10):
            store.put(key(number), b"", 1, b"v" * 1000)
        other.usage(exact=True)
        found = all_accesses(store)
        gone = store.evict(found[:4])
        assert gone == Usage(4, sum(access.size for access in found[:4]))
        assert [other.contains(key(number)) for number in range(10)] == [False] * 4 + [True] * 6
        assert store.usage().entries == other.usage(exact=True).entries == other.count() == 6
        assert store.evict(found[:4]) == Usage(0, 0)

    def test_what_was_used_or_made_anew_since_it_was_looked_at_stays(self) -> None:
        store, other = self.pair()
        for number in range(5):
            store.put(key(number), b"", 1, b"v")
        store.usage(exact=True)
        found = all_accesses(store)
        self.clock.now += 1
        other.put(key(0), b"", 1, b"w")
        assert store.read(key(1)) is not None
        other.delete(key(2))
        other.put(key(2), b"", 1, b"new")
        assert store.evict(found).entries == 2
        assert [other.contains(key(number)) for number in range(5)] == [True, True, True, False, False]
        assert store.evict(found, unless="written").entries == 1  # key(2) is another entry now
        assert store.evict(found, unless="").entries == 1
        assert [other.contains(key(number)) for number in range(3)] == [False, False, True]

    def test_uses_are_counted_where_that_is_asked_for(self) -> None:
        store = self.open(clock=self.clock, idle=None, counting=True)
        self._opened.append(store)
        for number in range(3):
            store.put(key(number), b"", 1, b"v")
        for _ in range(2):
            for number in (1, 1, 2):
                assert store.read(key(number)) is not None
            store.flush_touched(self.clock.now)
        assert [access.uses for access in all_accesses(store)] == [0, 4, 2]
