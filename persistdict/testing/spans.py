"""The contract for parts of a store: spans of keys."""

from __future__ import annotations

from typing import Any

import pytest

from persistdict.spans import ALL, KEPT_FROM, OWN, Span, queue_head, space_head
from persistdict.store import Record, Transaction
from persistdict.testing.base import StoreTests, kbs, key

__all__ = ["SpanTests"]

HEADS = [b"", space_head("a"), space_head("ab"), queue_head("a")]
SPANS = [OWN, *(Span(head, head + b"\xff") for head in HEADS[1:])]
# Of these nobody keeps the total; where keys are encrypted, names lie in another order.
SOME = Span(key(2), key(6))
NAMES = [Span(HEADS[1], HEADS[2]), Span(key(6), HEADS[2]), Span(HEADS[1], HEADS[3])]


def _fill(store: Any, numbers: range = range(8)) -> None:
    for number in numbers:
        for head in HEADS if number % 2 else HEADS[::-1]:
            store.put(head + key(number), b"", 1, b"v%d" % number)


class SpanTests(StoreTests):
    """What holds for the entries whose keys are in a span, of however many others there are."""

    @pytest.mark.parametrize("drained", [False, True, None])
    def test_a_span_is_scanned_and_counted_alone(self, drained: bool | None) -> None:
        store, other = self.pair()
        _fill(store, range(4))
        if drained is None:
            store.sync()
        _fill(store, range(4, 8))
        if drained:
            store.sync()
        everything = kbs(other.scan())
        assert len(everything) == other.count() == other.count(ALL) == 32
        for span in [*SPANS, SOME, *NAMES]:
            expected = [kb for kb in everything if kb in span]
            assert kbs(other.scan(span=span)) == expected
            assert kbs(other.scan(span=span, reverse=True)) == expected[::-1]
            assert kbs(other.scan(span=span, by_key=True)) == sorted(expected)
            assert other.count(span) == len(expected)
            assert other.any(span) == (expected != [])
            last = other.last(span=span, values=False)
            assert (last and last.kb) == (expected[-1] if expected else None)
        nothing = Span(space_head("b"), space_head("b") + b"\xff")
        assert not other.any(nothing)
        assert other.count(nothing) == 0
        assert kbs(other.scan(span=nothing)) == []

    @pytest.mark.parametrize("drained", [False, True])
    @pytest.mark.parametrize("number", range(len([*SPANS, SOME, *NAMES])))
    def test_clearing_a_span_leaves_the_others(self, number: int, drained: bool) -> None:
        store, other = self.pair()
        _fill(store)
        store.put(HEADS[1] + key(9), b"", 1, b"x" * 100_000, ttl=50, label=b"l")
        if drained:
            store.sync()
        span = [*SPANS, SOME, *NAMES][number]
        before = kbs(other.scan())
        gone = [kb for kb in before if kb in span]
        assert store.update(lambda txn: txn.clear(span), whole=True) == len(gone)
        assert kbs(other.scan()) == [kb for kb in before if kb not in span]
        assert other.count(span) == 0
        assert [other.count(each) for each in SPANS] == [len(kbs(other.scan(span=each))) for each in SPANS]
        assert other.labels() == ([] if HEADS[1] + key(9) in gone else [b"l"])
        store.put(HEADS[1] + key(1), b"", 1, b"again")
        assert other.count(SPANS[1]) == len(kbs(other.scan(span=SPANS[1])))

    def test_what_is_over_does_not_count(self) -> None:
        store, other = self.pair()
        for head in HEADS:
            for number in range(4):
                store.put(head + key(number), b"", 1, b"v", ttl=10 + number)
        for step in range(5):
            if step == 2:
                store.sync()
            assert [other.count(span) for span in SPANS] == [4 - step] * 4
            self.clock.now += 1 if step else 10
        store.expire(1 << 20)
        store.sync()
        assert other.count() == 0
        assert [other.count(span) for span in SPANS] == [0] * 4

    @pytest.mark.parametrize("way", [{}, {"size": 10**6}])
    def test_the_first_and_the_last_of_a_span(self, way: dict[str, Any]) -> None:
        store, other = self.pair()
        _fill(store, range(1, 5))
        store.sync()
        _fill(store, range(5, 8))
        store.delete(HEADS[2] + key(1))
        store.put(HEADS[2] + key(2), b"", 1, b"over", ttl=5)
        store.delete(HEADS[2] + key(7))
        self.clock.now += 5

        def ends(span: Span) -> list[bytes | None]:
            def work(txn: Transaction) -> list[Record | None]:
                txn.put(HEADS[1] + key(0), b"", 1, b"just now")
                txn.discard(HEADS[1] + key(7))
                return [txn.first(span), txn.first(span, reverse=True)]

            return [record and record.kb[len(span.start) :] for record in other.update(work, **way)]

        assert ends(SPANS[1]) == [key(0), key(6)]
        assert ends(SPANS[2]) == [key(3), key(6)]
        assert ends(SPANS[3]) == [key(1), key(7)]
        assert ends(Span(space_head("b"), space_head("b") + b"\xff")) == [None, None]

    def test_what_is_kept_is_no_cache(self) -> None:
        """It does not end by not being used, is no candidate for eviction, and does not count towards a bound."""
        store, other = self.pair(idle=100)
        _fill(store)
        usage = store.usage(exact=True)
        assert usage.entries == 24
        found, _ = store.accesses(1 << 20)
        assert sorted(access.kb for access in found) == sorted(kb for kb in kbs(other.scan()) if kb < KEPT_FROM)
        self.clock.now += 1000
        store.expire(1 << 20)
        store.sync()
        assert kbs(other.scan()) == kbs(other.scan(span=SPANS[3]))
        assert [other.count(span) for span in SPANS] == [0, 0, 0, 8]
        record = other.get(HEADS[3] + key(1))
        assert record is not None
        assert record.expires_at is None
