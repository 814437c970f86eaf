"""Entries in the data: reading and writing within one transaction of LMDB.

Databases (all in one environment; the main one holds nothing else, so no key can be taken for a name):

    k     encoded key, cropped if long -> index     which entries there are; `in` needs nothing more
    e     seq -> record                             the entries, in order of creation
    v     seq -> value                              values of LARGE_VALUE bytes and more
    p     seq and number -> piece                   those that are longer than one piece, see pieces.py
    x     deadline -> seq, several                  what ends when, for removal and for `len`; see deadlines.py
    a     seq -> when, how often                    when an entry was read last, see access.py; written in batches
    t     label and seq -> nothing                  what has a label, in order of creation; a store that was made before
                                                    there were labels gets it (and p) when it is opened for writing
    info  str -> str                                settings; readable by lmdb-dict's StrLmdbDict
    q     number -> what could not be read          only in a store that was repaired, see quarantine.py

Invariants, kept by every transaction: a seq is in `k` exactly once and in `e`; it is in `v` or `p` if and only if its
record says so, in `x` under its deadline and in `t` under its label if and only if it has one; `a` holds nothing that
`e` does not.
"""

from collections.abc import Callable, Sequence
from typing import Any

from persistdict.checksum import crc32
from persistdict.errors import CorruptEntryError
from persistdict.keys import crop, key_digest
from persistdict.spans import KEPT_FROM, OUTSIDE, head_of
from persistdict.store import Condition, Record
from persistdict.stores.lmdb.access import access_of
from persistdict.stores.lmdb.deadlines import DEADLINE, deadline_of, with_room
from persistdict.stores.lmdb.environment import Environment
from persistdict.stores.lmdb.guard import Damaged
from persistdict.stores.lmdb.pieces import WHOLE, large_value, put_large, remove_large
from persistdict.stores.lmdb.places import NEVER, Place, has_label, holds, last_write
from persistdict.stores.lmdb.record import (
    HEADER,
    LARGE,
    PIECES,
    Parsed,
    Slot,
    check_large,
    label_key,
    large_body,
    pack_index,
    pack_record,
    parse_index,
    parse_record,
    seq_bytes,
)

__all__ = ["DEADLINE", "LARGE_VALUE", "NEVER", "Place", "Rows", "deadline_of", "has_label", "holds", "last_write"]

LARGE_VALUE = 32 * 1024


class Rows:
    """What can be done with entries within a transaction of LMDB. The store derives from it.

    Threads: `touched` is changed by single operations only; `growth`, `population` (totals.py) and `crowded` under the
    data's lock.
    """

    env: Environment
    limit: int
    idle: float | None
    clock: Callable[[], float]
    touched: dict[bytes, float | None]
    growth: int = 0
    population: dict[bytes, tuple[int, int]]
    crowded: tuple[int, int] = (0, 0)  # see deadlines.py
    timeout: float  # seconds that a write waits for other processes
    place: str
    begin: Callable[..., Any]  # of the recent writes
    latest: Sequence[int | None]  # of them, likewise
    begin_data: Callable[..., Any]

    def bind(self) -> None:
        """Take over what the environments have opened; called again after every reopening."""
        self.bind_to(self.env.dbs)
        self.base = self.env.base
        self.latest = self.env.recent.latest
        self.begin = self.env.recent.begin
        self.begin_data = self.env.data.begin  # last: whoever sees it sees the databases

    def bind_to(self, dbs: dict[str, Any]) -> None:
        """Take over the databases."""
        self.population = {}
        self.k, self.e, self.v, self.p = dbs.get("k"), dbs.get("e"), dbs.get("v"), dbs.get("p")
        self.x, self.a, self.t, self.meta = dbs.get("x"), dbs.get("a"), dbs.get("t"), dbs.get("info")

    def database(self, name: str) -> Any:
        """A database by its name; that of a handle that is being closed, too."""
        return getattr(self, name)

    def look_ahead(self, txn: Any, name: str, start: bytes, steps: int, reverse: bool = False) -> None:
        """Before a cursor of the data goes to `start` (b"": to the end) and steps so often.

        Raises Damaged if it must not; what is repeated then is done in another way, see `Environment.recover`.
        """
        env = self.env
        guard = env.guard
        if guard is None or env.damage:
            return
        tree = txn.stat(self.database(name))
        if tree["depth"] < 2 and (name != "x" or not tree["entries"]):
            return  # on one page there is nowhere to step to
        if not guard.clear(txn, name, start, steps, reverse):
            raise Damaged("a page in the way of a cursor is damaged")

    # Reading

    def find(self, txn: Any, kb: bytes) -> Place | None:
        """Where a key is, over or not."""
        cropped = len(kb) >= self.limit
        raw = txn.get(crop(kb, self.limit) if cropped else kb, None, self.k)
        if raw is None:
            return None
        slots = parse_index(raw)
        for slot in slots:
            try:
                record = parse_record(txn.get(slot[0], b"", self.e))
            except CorruptEntryError:
                if cropped:
                    continue  # whose it is cannot be told any more; the integrity pass reports it
                return Place(slots, slot, None)
            if record.kb == kb:
                return Place(slots, slot, record)
        return None

    def whole(self, txn: Any, slot: Slot, record: Parsed, now: float, values: bool = True) -> Record | None:
        """The entry of a record, or None if it is over."""
        seq, deadline = slot
        until = self.until(txn, seq, deadline, last_write(record), now)
        if until <= now:
            return None
        atime = max(record.mtime, self.atime(txn, seq, now))
        blob = self.blob(txn, seq, record) if values else b""
        return Record(
            record.kb, record.hint, record.tag, blob, seq, record.version, record.ctime, record.mtime, atime,
            None if until == NEVER else until, record.label, deadline / 1e6 if deadline else None,
        )  # fmt: skip

    def until(self, txn: Any, seq: bytes, deadline: int, written: float, now: float) -> float:
        """When an entry ends, as far as is known now; `written` is what `last_write` tells."""
        until = deadline / 1e6 if deadline else NEVER
        if self.idle is not None:
            last = written
            if last + self.idle <= now:  # only then the reads matter
                last = max(last, self.atime(txn, seq, now))
            until = min(until, last + self.idle)
        return until

    def atime(self, txn: Any, seq: bytes, now: float) -> float:
        """When an entry was read last; 0 if that is not known."""
        at, _ = access_of(txn, self.a, seq)
        pending = self.touched.get(seq, 0.0)
        return max(at, now if pending is None else pending)

    def blob(self, txn: Any, seq: bytes, record: Parsed) -> bytes:
        """The value's bytes."""
        if not record.flags & LARGE:
            return record.body
        try:
            return check_large(record.body, large_value(self, txn, seq, record))
        except CorruptEntryError:
            raise self.damaged(record.kb) from None

    def damaged(self, kb: bytes) -> CorruptEntryError:
        """The error for a key whose entry cannot be read."""
        return CorruptEntryError(
            f"{self.place}: the entry of the key with the digest {key_digest(kb)} is damaged; others are not affected"
        )

    # Writing

    def put_new(self, txn: Any, version: int, kb: bytes, hint: bytes, tag: int, blob: bytes) -> bytes | None:
        """`put_in` for the common case, in one body: a new short key, a small value, no time limit, label or condition.

        Gives the seq; None, and nothing done, if it is not that case.
        """
        if txn.get(kb, None, self.k) is not None:
            return None
        now = self.clock()
        seq = seq_bytes(version)
        head = HEADER.pack(tag, 0, len(hint), len(kb), version, now, now) + hint + kb
        txn.put(kb, seq, db=self.k)
        raw = b"".join((head, blob, crc32(blob, crc32(head)).to_bytes(4, "little")))
        if not txn.put(seq, raw, append=True, db=self.e):
            txn.put(seq, raw, db=self.e)  # the last number is damaged, and too large
        self.growth += len(raw)
        return seq

    def put_in(
        self, txn: Any, version: int, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None, when: Condition,
        label: bytes = b"",
    ) -> tuple[bytes, float | None] | None:  # fmt: skip
        """Set an entry; gives its seq and its end. None if the condition does not hold."""
        now = self.clock()
        place = self.find(txn, kb)
        alive = place is not None and self.alive(txn, place, now)
        if not holds(when, place if alive else None):
            return None
        deadline = deadline_of(now, ttl, place.slot[1] if place is not None and alive else 0)
        seq, ctime = seq_bytes(version), now
        if place is not None and alive:
            seq = place.slot[0]
            if place.record is not None:
                ctime, kb, hint = place.record.ctime, place.record.kb, place.record.hint
        self.store(txn, place, seq, Parsed(tag, 0, version, ctime, now, hint, kb, deadline, blob, label))
        return seq, self.ends(kb, now, deadline)

    def rewrite_in(self, txn: Any, version: int, kb: bytes, hint: bytes, tag: int, blob: bytes) -> bool:
        """Replace the bytes of an entry, and nothing else of it. Whether there is one that can be read."""
        place = self.find(txn, kb)
        if place is None or place.record is None:
            return False
        changed = place.record._replace(tag=tag, flags=0, version=version, hint=hint, body=blob)
        self.store(txn, place, place.slot[0], changed)
        return True

    def store(self, txn: Any, place: Place | None, seq: bytes, record: Parsed) -> None:
        """Write an entry, whose body is the whole value, in the place of what `find` has found."""
        kb = record.kb
        if record.deadline and (place is None or place.slot != (seq, record.deadline)):
            self.crowded = record.deadline, with_room(txn, self.x, record.deadline, self.crowded)
            record = record._replace(deadline=self.crowded[1])
        others: list[Slot] = []
        if place is not None and place.slot[0] == seq:
            self._clear_traces(txn, kb, place)
            others = [slot for slot in place.slots if slot is not place.slot]
        else:
            if place is not None:
                self.remove(txn, kb, place)
            index = txn.get(self._index_key(kb), None, self.k)
            others = parse_index(index) if index is not None else []
        txn.put(self._index_key(kb), pack_index([*others, (seq, record.deadline)]), db=self.k)
        self._replace(txn, seq, record)

    def _replace(self, txn: Any, seq: bytes, record: Parsed) -> None:
        """Write the record, the large value, the deadline and the label.

        What is there is deleted first: LMDB 0.9 and 1.0 leave pages that lmdb.verify calls corrupt when one
        transaction puts a value on overflow pages and then a smaller one under the same key.
        """
        blob, deadline = record.body, record.deadline
        flags = 0 if len(blob) < LARGE_VALUE else LARGE if len(blob) <= WHOLE else LARGE | PIECES
        raw = pack_record(
            record.tag, record.kb, record.hint, record.version, record.ctime, record.mtime,
            large_body(blob) if flags else blob, deadline, flags, record.label,
        )  # fmt: skip
        txn.delete(seq, db=self.e)
        txn.put(seq, raw, db=self.e)
        self.account(record.kb, 1, len(raw) + (len(blob) if flags else 0))
        if flags:
            put_large(self, txn, seq, record.version, blob, flags)
        if deadline:
            txn.put(DEADLINE.pack(deadline), seq, db=self.x)
        if record.label:
            txn.put(label_key(record.label, seq), b"", db=self.t)

    def ends(self, kb: bytes, now: float, deadline: int) -> float | None:
        """When an entry that is written now ends, as far as is known."""
        until = deadline / 1e6 if deadline else NEVER
        if self.idle is not None and kb < KEPT_FROM:
            until = min(until, now + self.idle)
        return None if until == NEVER else until

    def alive(self, txn: Any, place: Place, now: float) -> bool:
        """Whether an entry is not over. A damaged one is: a write heals it in its place."""
        if place.record is None:
            return True
        return self.until(txn, *place.slot, last_write(place.record), now) > now

    def delete_in(self, txn: Any, kb: bytes, label: bytes | None = None) -> Place | None:
        """Remove an entry. None if it is absent, over, or has another label than one that is given."""
        place = self.find(txn, kb)
        if place is None or not self.alive(txn, place, self.clock()) or not has_label(place, label):
            return None
        self.remove(txn, kb, place)
        return place

    def remove(self, txn: Any, kb: bytes, place: Place) -> None:
        """Remove an entry and all that belongs to it."""
        self.remove_at(txn, self._index_key(kb), kb, place)

    def remove_at(self, txn: Any, index_key: bytes, kb: bytes, place: Place) -> None:
        """The same where the index key is known; of a damaged entry the key may not be."""
        others = [slot for slot in place.slots if slot is not place.slot]
        if others:
            txn.put(index_key, pack_index(others), db=self.k)
        else:
            txn.delete(index_key, db=self.k)
        self._clear_traces(txn, kb, place)
        seq = place.slot[0]
        txn.delete(seq, db=self.e)
        txn.delete(seq, db=self.a)
        self.touched.pop(seq, None)

    def account(self, kb: bytes, entries: int, size: int) -> None:
        """Note that the data hold so many entries and bytes more, until the transaction ends."""
        self.growth += size
        if kb >= OUTSIDE:
            before = self.population.get(head_of(kb), (0, 0))
            self.population[head_of(kb)] = before[0] + entries, before[1] + size

    def _clear_traces(self, txn: Any, kb: bytes, place: Place) -> None:
        """Remove the large value, the deadline and the label of an entry, whose record is about to go."""
        (seq, deadline), record = place.slot, place.record
        size = len(txn.get(seq, b"", self.e))
        entries = -1 if size else 0
        if record is None or record.flags & LARGE:
            size += remove_large(self, txn, seq)
        self.account(kb, entries, -size)
        if deadline:
            txn.delete(DEADLINE.pack(deadline), seq, db=self.x)
        if record is None:  # damaged; it does not tell its label
            end = label_key(b"", seq)[1:]
            for key in [key for key in txn.cursor(self.t).iternext(values=False) if key.endswith(end)]:
                txn.delete(key, db=self.t)
        elif record.label:
            txn.delete(label_key(record.label, seq), db=self.t)

    def _index_key(self, kb: bytes) -> bytes:
        return kb if len(kb) < self.limit else crop(kb, self.limit)
