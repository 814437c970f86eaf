"""The contract for iteration and transactions."""

from __future__ import annotations

from typing import Any

import pytest

from persistdict.errors import NestedWriteError
from persistdict.spans import OWN, Span, space_head
from persistdict.store import Capability, Transaction
from persistdict.testing.base import StoreTests, kbs, key

__all__ = ["ManyTests"]

WAYS: list[dict[str, Any]] = [{}, {"size": 10**6}, {"whole": True}]  # of `update`


class ManyTests(StoreTests):
    """What holds for many entries at once."""

    @pytest.mark.parametrize("way", WAYS)
    def test_many_are_put_as_one_after_the_other(self, way: dict[str, Any]) -> None:
        """New ones, those that are there, those that occur twice, large ones and long keys, in the order given."""
        batch = [(key(number), b"", 1, b"new %d" % number) for number in (7, 3, 900, 1, 5)]
        batch += [(key(2), b"", 2, b"large" * 20_000), (key(3), b"h", 3, b"again"), (key(8) * 80, b"", 1, b"long")]
        batch += [(b"\x20late", b"h", 4, b""), (key(2), b"", 1, b"small"), (key(6), b"", 1, b"l" * 200_000)]
        one, other = self.pair()
        for store, at_once in ((one, True), (self.another(), False)):
            for number in (3, 4, 5):
                store.put(key(number), b"i", 1, b"old", ttl=1000 if number == 5 else None, label=b"l")

            def work(txn: Transaction, at_once: bool = at_once) -> int:
                if at_once:
                    txn.put_many(batch)
                    txn.put_many([])
                else:
                    for row in batch:
                        txn.put(*row)
                return txn.id()

            assert store.update(work, **way) == store.begin().id()
        plain = self._opened[-1]
        assert kbs(other.scan()) == kbs(plain.scan())
        for kb in kbs(plain.scan()):
            record, expected = other.get(kb), plain.get(kb)
            assert record is not None and expected is not None
            assert record[:4] + record[6:] == expected[:4] + expected[6:]
        assert other.labels() == [b"l"]

    @pytest.mark.parametrize(
        ("kb", "blob"),
        [(key(8) * 80, b"v"), (key(8), b"large" * 20_000), (space_head("s") + key(8), b"v"), (key(3), b"again")],
        ids=["a long key", "a large value", "of a space", "twice"],
    )
    def test_many_are_put_of_which_one_is_of_another_kind(self, kb: bytes, blob: bytes) -> None:
        store, other = self.pair()
        rows = {key(number): b"v" for number in range(700)} | {kb: blob}
        batch = [(key(number), b"", 1, b"v") for number in range(700)]
        batch.insert(350, (kb, b"", 1, blob))
        store.update(lambda txn: txn.put_many(batch), size=700)
        assert {record.kb: record.blob for record in other.scan()} == rows
        assert [other.read(each)[1] for each in rows] == list(rows.values())  # type: ignore[index]
        inside = Span(space_head("s"), space_head("t"))
        assert (other.count(), other.count(OWN), other.count(inside)) == (
            len(rows), len([each for each in rows if each in OWN]), len([each for each in rows if each in inside]),
        )  # fmt: skip
        assert store.verify().ok

    def test_many_are_put_with_a_time_limit_and_a_label(self) -> None:
        store, other = self.pair(idle=500)
        batch = [(key(number), b"", 1, b"v") for number in range(700)]
        store.update(lambda txn: txn.put_many(batch, ttl=50, label=b"l"), size=700)
        assert kbs(other.labelled(b"l")) == [row[0] for row in batch]
        self.clock.now += 51
        assert other.get(key(5)) is None

    def test_an_entry_that_is_rewritten_stays_what_it_was(self) -> None:
        store, other = self.pair()
        store.put(key(1), b"h", 1, b"v", ttl=1000, label=b"l")
        store.put(key(2), b"", 1, b"large" * 20_000)
        before = {number: store.get(key(number)) for number in (1, 2)}
        self.clock.now += 10
        for blob in (b"other", b"l" * 100_000, b""):
            for number in (1, 2):

                def work(txn: Transaction, kb: bytes = key(number), blob: bytes = blob) -> bool:
                    return txn.rewrite(kb, b"i", 9, blob)

                assert store.update(work, whole=True)
                record, former = other.get(key(number)), before[number]
                assert record is not None and former is not None
                assert record[:4] == (key(number), b"i", 9, blob)
                assert record[6:] == former[6:] and record.seq == former.seq
        absent: bool = store.update(lambda txn: txn.rewrite(key(3), b"", 1, b""), whole=True)
        assert not absent
        assert kbs(other.scan()) == [key(1), key(2)]
        assert kbs(other.labelled(b"l")) == [key(1)]

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
            found = kbs(store.scan(by_key=True, span=Span(key(start), key(stop)), reverse=reverse))
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

    def test_read_many_answers_as_read_does_whatever_was_written_since_and_how(self) -> None:
        """Of long keys, large values, what has an end or a label, was replaced or removed. No copy may be kept."""
        store, other = self.pair()
        store.put(b"k" * 600, b"", 1, b"long")
        store.update(lambda txn: [txn.put(key(number), b"", number, b"%d" % number) for number in range(8)], size=1000)
        kbs = [b"k" * 600, *map(key, (9, 3, 1, 3, 2, 7, 4, 0, 5))]
        for _ in range(2):
            answers = store.read_many(kbs)
            assert [answer and answer[:4] for answer in answers] == [
                found and found[:4] for found in map(store.read, kbs)
            ]
            assert {answer[4] for answer in answers if answer is not None} == {-1}
            other.put(key(1), b"", 1, b"with an end", ttl=100)
            other.put(key(2), b"", 1, b"labelled", label=b"label")
            other.put(key(3), b"hint", 1, b"large" * 9000)
            other.put(key(7), b"hint", 9, b"replaced")
            other.delete(key(4))
            other.delete(b"k" * 600)

    # Transactions

    @pytest.mark.parametrize("way", WAYS)
    def test_a_transaction_reads_its_own_writes(self, way: dict[str, Any]) -> None:
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

        assert store.update(work, **way) == [b"b", None]
        assert store.read(key(1))[1] == b"d"  # type: ignore[index]

    @pytest.mark.parametrize("way", WAYS)
    def test_a_transaction_that_raises_changes_nothing(self, way: dict[str, Any]) -> None:
        store, other = self.pair()
        store.put(key(1), b"", 1, b"a")
        store.put(key(2), b"", 1, b"b")

        def work(txn: Transaction) -> None:
            txn.delete(key(1))
            txn.put(key(2), b"", 1, b"changed")
            txn.put(key(3), b"", 1, b"new" * 20_000)
            if way.get("whole"):
                txn.set_info("name", "text")
                txn.clear()
            raise RuntimeError("no")

        with pytest.raises(RuntimeError, match="no"):
            store.update(work, **way)
        assert [(record.kb, record.blob) for record in other.scan()] == [(key(1), b"a"), (key(2), b"b")]
        assert store.info().get("name") is None

    @pytest.mark.parametrize("way", WAYS)
    def test_a_write_within_a_write_is_refused_and_harms_nothing(self, way: dict[str, Any]) -> None:
        store = self.store()

        def work(txn: Transaction) -> None:
            txn.put(key(1), b"", 1, b"a")
            with pytest.raises(NestedWriteError):
                store.put(key(2), b"", 1, b"b")

        store.update(work, **way)
        assert kbs(store.scan()) == [key(1)]
        assert store.put(key(2), b"", 1, b"b") is not None

    def test_clear_removes_everything_and_the_store_goes_on(self) -> None:
        store, other = self.pair()
        for number in range(5):
            store.put(key(number), b"", 1, b"v" * (number * 10_000), ttl=100 if number % 2 else None)
        assert store.update(lambda txn: txn.clear(), whole=True) == 5
        assert other.count() == 0
        assert kbs(other.scan()) == []
        store.put(key(1), b"", 1, b"v")
        assert kbs(other.scan()) == [key(1)]

    def test_the_store_says_what_it_takes(self) -> None:
        store, other = self.pair()
        empty = store.sizes()
        store.update(lambda txn: [txn.put(key(n), b"", 1, b"v" * 10_000) for n in range(100)], size=100)
        store.sync()
        full = other.sizes()
        assert full.live - empty.live > 1_000_000
        assert full.files == 0 or full.files > 1_000_000
        store.update(lambda txn: txn.clear(), whole=True)
        assert other.sizes().live <= empty.live + (64 << 10)

    def test_settings_are_kept_beside_the_entries(self) -> None:
        store, other = self.pair()
        store.update(lambda txn: txn.set_info("name", "grün"), whole=True)
        assert other.info()["name"] == "grün"
        assert other.count() == 0
