"""The contract for labels, which users call tags."""

from __future__ import annotations

from typing import Any

import pytest

from persistdict.store import Store, Transaction
from persistdict.testing.base import StoreTests, kbs, key
from persistdict.testing.many import WAYS

__all__ = ["LabelTests"]


class LabelTests(StoreTests):
    """What holds for labels."""

    def settle(self, store: Store, settled: bool) -> None:
        """Have what was written where a store keeps what is no longer new, if the test asks for that."""
        if settled:
            store.sync()

    @pytest.mark.parametrize("settled", [False, True])
    def test_entries_are_listed_by_their_label_in_order_of_creation(self, settled: bool) -> None:
        store, other = self.pair()
        for number in (5, 3, 9, 1, 7):
            store.put(key(number), b"i", 1, b"v" * number, label=b"odd")
            store.put(key(number + 1), b"", 1, b"v", label=b"even" if number > 3 else b"")
        self.settle(store, settled)
        assert kbs(other.labelled(b"odd")) == [key(5), key(3), key(9), key(1), key(7)]
        assert kbs(other.labelled(b"even")) == [key(6), key(10), key(8)]
        assert kbs(other.labelled(b"od")) == kbs(other.labelled(b"odd\0")) == []
        assert {item[1:] for item in other.labelled(b"odd")} == {(b"i", 1, b"")}
        assert other.labels() == [b"even", b"odd"]
        record, plain = other.get(key(5)), other.get(key(2))
        assert record is not None
        assert plain is not None
        assert (record.label, record.blob, plain.label) == (b"odd", b"v" * 5, b"")

    @pytest.mark.parametrize("label", [b"\0", b"\xff" * 255, b"12345678", "é".encode()])
    @pytest.mark.parametrize("ttl", [None, 50])
    @pytest.mark.parametrize("size", [0, 40_000, (1 << 20) + 1])
    def test_a_label_stands_beside_any_value_and_any_time_limit(
        self, label: bytes, ttl: float | None, size: int
    ) -> None:
        store, other = self.pair()
        blob = bytes(range(256)) * (size // 256) + bytes(size % 256)
        store.put(key(1), b"", 7, blob, ttl, label=label)
        for settled in (False, True):
            self.settle(store, settled)
            found, record = other.read(key(1)), other.get(key(1))
            assert found is not None
            assert record is not None
            assert (found[0], found[1]) == (record.tag, record.blob) == (7, blob)
            assert (record.label, record.expires_at) == (label, None if ttl is None else self.clock.now + ttl)
            assert kbs(other.labelled(label)) == [key(1)]
            assert other.labels() == [label]
        self.clock.now += 49
        assert other.contains(key(1))
        assert other.labels() == [label]
        self.clock.now += 1
        expected = [] if ttl else [key(1)]
        assert kbs(other.labelled(label)) == expected
        assert other.labels() == [label] * len(expected)
        assert other.expire(100)[0] == (1 if ttl else 0)
        assert kbs(other.labelled(label)) == expected

    @pytest.mark.parametrize("settled", [False, True])
    @pytest.mark.parametrize("way", [None, *WAYS])
    def test_the_label_belongs_to_the_write(self, way: dict[str, Any] | None, settled: bool) -> None:
        """An overwrite without one takes it away, by whatever way; the place in the order stays."""
        store, other = self.pair()

        def put(number: int, label: bytes, blob: bytes = b"v") -> None:
            if way is None:
                store.put(key(number), b"", 1, blob, label=label)
            else:
                store.update(lambda txn: txn.put(key(number), b"", 1, blob, label=label), **way)
            self.settle(store, settled)

        for number in range(6):
            put(number, b"old")
        put(0, b"")
        put(1, b"new")
        put(2, b"old", b"w" * 50_000)
        put(3, b"", b"w" * 50_000)
        put(5, b"new", b"w" * 50_000)
        put(3, b"old")
        put(4, b"new")
        put(4, b"old")
        put(6, b"new")
        assert kbs(other.labelled(b"old")) == [key(2), key(3), key(4)]
        assert kbs(other.labelled(b"new")) == [key(1), key(5), key(6)]
        for number in range(7):
            if number != 5:
                put(number, b"")
        assert kbs(other.labelled(b"old")) == []
        assert other.labels() == [b"new"]
        store.delete(key(5))
        self.settle(store, settled)
        assert other.labels() == []
        put(5, b"")
        assert other.labels() == []

    def test_a_time_limit_and_a_label_come_and_go_by_themselves(self) -> None:
        store, other = self.pair()
        for ttl in (None, 5, 50):
            for label in (b"", b"a", b"b"):
                for settled in (False, True):
                    store.put(key(1), b"", 1, b"v", ttl=ttl, label=label)
                    self.settle(store, settled)
                    record = other.get(key(1))
                    assert record is not None
                    assert (record.expires_at, record.label) == (None if ttl is None else self.clock.now + ttl, label)
                    assert other.labels() == [label] * bool(label)
                    assert other.count() == 1

    @pytest.mark.parametrize("way", WAYS)
    def test_discard_by_label_looks_at_the_label_that_is_there(self, way: dict[str, Any]) -> None:
        store, other = self.pair()
        for number, label in enumerate((b"a", b"b", b"", b"a")):
            store.put(key(number), b"", 1, b"v", label=label)
        store.put(key(4), b"", 1, b"v", ttl=5, label=b"a")
        self.clock.now += 5

        def work(txn: Transaction) -> list[bool]:
            txn.put(key(3), b"", 1, b"w", label=b"b")
            return [txn.discard(key(number), b"a") for number in range(6)] + [txn.discard(key(2), b"")]

        assert store.update(work, **way) == [True, False, False, False, False, False, True]
        assert kbs(other.scan()) == [key(1), key(3)]
        assert kbs(other.labelled(b"b")) == [key(1), key(3)]
        assert other.labels() == [b"b"]

    @pytest.mark.parametrize("way", WAYS)
    def test_a_transaction_that_raises_changes_no_label(self, way: dict[str, Any]) -> None:
        store, other = self.pair()
        store.put(key(1), b"", 1, b"v", label=b"a")

        def work(txn: Transaction) -> None:
            txn.put(key(1), b"", 1, b"v", label=b"b")
            txn.put(key(2), b"", 1, b"v", label=b"b")
            raise RuntimeError("no")

        with pytest.raises(RuntimeError, match="no"):
            store.update(work, **way)
        assert other.labels() == [b"a"]
        assert kbs(other.labelled(b"a")) == [key(1)]

    @pytest.mark.parametrize("settled", [False, True])
    def test_a_listing_survives_every_change_while_it_runs(self, settled: bool) -> None:
        """What keeps its label is listed once, what is added is not, and no lock is held between two items."""
        store, other = self.pair()
        store.update(lambda txn: [txn.put(key(n), b"", 1, b"v", label=b"ab"[n % 2 :][:1]) for n in range(3000)])
        self.settle(store, settled)
        seen = []
        for count, item in enumerate(store.labelled(b"a")):
            seen.append(item.kb)
            if count % 50 == 0:
                other.put(key(4000 + count), b"", 1, b"new", label=b"a")
                other.put(item.kb, b"", 1, b"again" * 100, label=b"a" if count % 100 else b"")
                other.delete(key(2998 - count // 5))
                other.put(key(2 * (1400 - count // 50)), b"", 1, b"v", label=b"a")
                if count % 250 == 0:
                    other.sync()
        assert seen == sorted(set(seen))
        assert set(seen) >= {key(number) for number in range(0, 2600, 2)}
        assert not {kb for kb in seen if int(kb[4:]) % 2 or int(kb[4:]) >= 4000}
        assert store.labels() == [b"a", b"b"]

    def test_many_labels_are_all_told(self) -> None:
        """Also where the first entries of a label are over, or have another by now."""
        store, other = self.pair()

        def work(txn: Transaction) -> None:
            for number in range(1500):
                txn.put(key(number), b"", 1, b"v", label=b"%d" % (number % 700), ttl=5 if number < 700 else None)
            for number in range(2000, 2700):
                txn.put(key(number), b"", 1, b"v", label=b"one")

        store.update(work, size=10**6)
        store.update(lambda txn: [txn.put(key(n), b"", 1, b"v", label=b"other") for n in range(2000, 2699)])
        self.clock.now += 5
        expected = sorted({b"%d" % number for number in range(700)} | {b"one", b"other"})
        assert other.labels() == expected
        assert kbs(other.labelled(b"one")) == [key(2699)]
        assert len(kbs(other.labelled(b"other"))) == 699
        store.update(lambda txn: txn.clear(), whole=True)
        assert other.labels() == []
        assert kbs(other.labelled(b"one")) == []
        store.put(key(1), b"", 1, b"v", label=b"one")
        assert other.labels() == [b"one"]

    def test_an_idle_entry_is_listed_as_long_as_it_is_read(self) -> None:
        store, other = self.pair(idle=100)
        for number in (1, 2):
            store.put(key(number), b"", 1, b"v", label=b"a")
        self.clock.now += 60
        assert store.read(key(1)) is not None
        store.flush_touched(self.clock.now)
        self.clock.now += 60
        assert kbs(other.labelled(b"a")) == [key(1)]
        self.clock.now += 60
        assert other.labels() == []
