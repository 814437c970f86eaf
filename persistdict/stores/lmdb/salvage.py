"""A new store from what can be read in a damaged one.

The damaged file is read only, with plain reads, and never given to LMDB; see wreck.py and finds.py. What is found is
written to the new store as it goes: record by record as they were, with their numbers, versions and times, so that the
order stays and nothing but the file's size is held in memory (a byte per page).

The recent writes (see recent.py) are read likewise, and come on top. Of several records for one key the one with the
highest version stays.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Any

from persistdict.errors import NotAStoreError, OpenError
from persistdict.keys import MAX_KEY_SIZE
from persistdict.reports import Salvaged
from persistdict.stores.lmdb import folder as files
from persistdict.stores.lmdb.environment import open_environment
from persistdict.stores.lmdb.finds import REACHED, REMNANT, STRANDED, UNSURE, Find, Finder
from persistdict.stores.lmdb.layout import FORMAT, LAST_NUMBER, parse_number
from persistdict.stores.lmdb.leads import index_key, record_at
from persistdict.stores.lmdb.offline import at_rest
from persistdict.stores.lmdb.pieces import put_large, remove_large
from persistdict.stores.lmdb.recent import Row, recent_folder
from persistdict.stores.lmdb.recentfinds import find_recent
from persistdict.stores.lmdb.record import (
    COUNTER_BITS,
    Parsed,
    Slot,
    label_key,
    pack_index,
    parse_index,
    seq_bytes,
    seq_number,
)
from persistdict.stores.lmdb.rows import DEADLINE, Rows
from persistdict.stores.lmdb.totals import end_totals, forget_totals
from persistdict.stores.lmdb.wreck import Wreck

__all__ = ["salvage_folder"]

AT_ONCE = 512  # records that one transaction writes
BYTES_AT_ONCE = 4 << 20

Progress = Callable[[int, int], object]


def salvage_folder(path: str, into: str, deep: bool = False, progress: Progress | None = None) -> Salvaged:
    """See `persistdict.salvage`."""
    path = os.path.realpath(path)
    source = os.path.join(path, files.DATA) if os.path.isdir(path) else path
    if os.path.exists(os.path.join(into, files.DATA)):
        raise OpenError(errno.EEXIST, "salvage writes into a new folder, and there is a store already", into)
    return at_rest(os.path.dirname(source), lambda: _salvage(source, into, deep, progress))


def _salvage(source: str, into: str, deep: bool, progress: Progress | None) -> Salvaged:
    try:
        wreck = Wreck(source)
    except OSError as error:
        raise OpenError(error.errno, f"cannot read the damaged store: {error.strerror}", source) from error
    settings = wreck.settings()
    if settings.get("format", FORMAT) != FORMAT:
        raise NotAStoreError(f"{source} is of format {settings['format']}, which this release does not know")
    wreck.limit = min(parse_number(settings.get("key_size_limit")) or 0, MAX_KEY_SIZE)
    recent = find_recent(source, settings.get("replaced", ""))
    target = _Target(into, wreck.limit or MAX_KEY_SIZE)
    try:
        finder = Finder(wreck)
        for finds in (finder.reached(), finder.scattered(False)):
            target.take_all(_watched(finds, finder, progress))
        if deep or not recent.foreign:
            target.take_recent(recent.rows)
        target.look_at_remnants(_watched(finder.scattered(True), finder, progress), deep)
        target.finish(settings, wreck)
        return Salvaged(
            written=target.entries,
            reached=target.written[REACHED],
            stranded=target.written[STRANDED],
            unsure=target.written[UNSURE],
            remnants=len(target.remnants),
            recent=target.recent,
            foreign=0 if deep or not recent.foreign else len(recent.rows),
            damaged=finder.damaged + recent.damaged,
            duplicates=target.duplicates,
            pages=wreck.pages + recent.pages,
            settings={"codec", "keys", "key_size_limit"} <= settings.keys(),
            key_size_limit=target.limit,
        )
    finally:
        target.close()


def _watched(finds: Iterable[Find], finder: Finder, progress: Progress | None) -> Iterator[Find]:
    """The finds, with the page that is read told after every few of them."""
    for number, find in enumerate(finds):
        if progress is not None and not number % AT_ONCE:
            progress(finder.page, finder.wreck.count)
        yield find


class _Target(Rows):
    """The new store, while it is filled. Nobody else knows of it."""

    def __init__(self, into: str, limit: int) -> None:
        self.limit, self.idle, self.clock = limit, None, time.time
        self.place = into
        self.env = open_environment(self, into)
        self.touched = self.env.touched
        self.bind()
        self.written = dict.fromkeys((REACHED, STRANDED, UNSURE, REMNANT), 0)
        self.duplicates = self.recent = 0
        self.remnants: set[bytes] = set()  # digests of keys
        self.entries = 0  # when it is finished
        self._newest = 0

    def close(self) -> None:
        """Let go of the store. Its recent writes, of which there are none, are made anew with the right base."""
        folder = self.env.folder
        self.env.release(self)
        vars(self).clear()  # a database that is referred to keeps the environment open
        files.remove_folder(recent_folder(folder))

    def take_all(self, finds: Iterable[Find]) -> None:
        """Write records, some at a time."""
        batch: list[Find] = []
        size = 0
        for find in finds:
            batch.append(find)
            size += len(find.raw) + len(find.value or b"")
            if len(batch) == AT_ONCE or size > BYTES_AT_ONCE:
                self._write(batch)
                batch, size = [], 0
        self._write(batch)

    def take_recent(self, rows: list[Row]) -> None:
        """Bring recent writes to what was found in the data, some at a time."""

        def work(txn: Any, part: list[Row]) -> tuple[int, int]:
            return sum(self._overwrite(txn, row) for row in part), max(row.record.version for row in part)

        for at in range(0, len(rows), AT_ONCE):
            taken, newest = self.env.data.update(work, rows[at : at + AT_ONCE])
            self.recent += taken
            self._newest = max(self._newest, newest)

    def _overwrite(self, txn: Any, row: Row) -> bool:
        record = row.record
        place = self.find(txn, record.kb)
        if place is not None and place.record is not None and place.record.version >= record.version:
            return False
        if not row.gone:
            same = place is not None and place.slot[0] == row.seq
            self.store(txn, place, row.seq if same else self._number(txn, row.seq, record.version), record)
        elif place is not None:
            self.remove(txn, record.kb, place)
        return True

    def look_at_remnants(self, finds: Iterable[Find], deep: bool) -> None:
        """Count the keys of which there are only remnants; write those, the newest of each, if `deep`."""

        def news(finds: Iterable[Find]) -> Iterator[Find]:
            for find in finds:
                digest = blake2b(find.record.kb, digest_size=8).digest()
                if digest in self.remnants or self.env.attempt(self._same, find.record) is None:
                    self.remnants.add(digest)
                    if deep:
                        yield find

        self.take_all(news(finds))

    def _same(self, record: Parsed, txn: Any = None) -> Slot | None:
        """The entry of the same key that is there already."""
        txn = txn or self.begin_data(self.k)
        for slot in self._slots(txn, record.kb):
            other = record_at(self, txn, slot[0])
            if isinstance(other, Parsed) and other.kb == record.kb:
                return slot
        return None

    def _slots(self, txn: Any, kb: bytes) -> list[Slot]:
        row = txn.get(index_key(self, kb), None, self.k)
        return parse_index(row) if row is not None else []

    def _write(self, batch: list[Find]) -> None:
        def work(txn: Any) -> tuple[dict[int, int], int, int]:
            written = dict.fromkeys(self.written, 0)
            duplicates = newest = 0
            for find in batch:
                if self._take(txn, find):
                    written[find.belief] += 1
                    newest = max(newest, find.record.version)
                else:
                    duplicates += 1
            return written, duplicates, newest

        if batch:
            written, duplicates, newest = self.env.data.update(work)
            for belief, number in written.items():
                self.written[belief] += number
            self.duplicates += duplicates
            self._newest = max(self._newest, newest)

    def _take(self, txn: Any, find: Find) -> bool:
        """Write one record, unless there is one for its key that is as new."""
        record = find.record
        slot = self._same(record, txn)
        if slot is not None:
            other = record_at(self, txn, slot[0])
            if isinstance(other, Parsed) and other.version >= record.version:
                return False
            self._drop(txn, record.kb, slot, other.label if isinstance(other, Parsed) else b"")
        seq = self._number(txn, find.seq, record.version)
        slots = [*self._slots(txn, record.kb), (seq, record.deadline)]
        txn.put(index_key(self, record.kb), pack_index(slots), db=self.k)
        txn.put(seq, find.raw, db=self.e)
        if find.value is not None:
            put_large(self, txn, seq, record.version, find.value, record.flags)
        if record.deadline:
            txn.put(DEADLINE.pack(record.deadline), seq, db=self.x)
        if record.label:
            txn.put(label_key(record.label, seq), b"", db=self.t)
        return True

    def _number(self, txn: Any, seq: bytes, version: int) -> bytes:
        """The seq for a record: its own, if that is possible and free, else one near it."""
        number = seq_number(seq) if len(seq) == 8 else 0
        if not 0 < number <= version:
            number = version
        while txn.get(seq_bytes(number), None, self.e) is not None and number > 1:
            number -= 1
        return seq_bytes(number)

    def _drop(self, txn: Any, kb: bytes, slot: Slot, label: bytes) -> None:
        """Remove an older version of an entry from the new store."""
        seq, deadline = slot
        slots = [other for other in self._slots(txn, kb) if other[0] != seq]
        if slots:
            txn.put(index_key(self, kb), pack_index(slots), db=self.k)
        else:
            txn.delete(index_key(self, kb), db=self.k)
        txn.delete(seq, db=self.e)
        remove_large(self, txn, seq)
        if deadline:
            txn.delete(DEADLINE.pack(deadline), seq, db=self.x)
        if label:
            txn.delete(label_key(label, seq), db=self.t)
        self.duplicates += 1

    def finish(self, settings: dict[str, str], wreck: Wreck) -> None:
        """Write the settings, the access times, and the number from which later ones go on."""
        last = parse_number(settings.get("last")) or 0
        newest = min(max(self._newest >> COUNTER_BITS, last), LAST_NUMBER)
        kept = {name: text for name, text in settings.items() if name not in ("id", "replaced")}
        kept |= {"format": FORMAT, "last": str(newest), "key_size_limit": str(self.limit)}
        times = [(seq, raw) for seq, raw in wreck.access_times() if len(seq) == len(raw) == 8]

        def work(txn: Any) -> int:
            for name, text in kept.items():
                txn.put(name.encode(), text.encode(), db=self.meta)
            forget_totals(self, txn)
            end_totals(self, txn)
            for seq, raw in times:
                if txn.get(seq, None, self.e) is not None:
                    txn.put(seq, raw, db=self.a)
            return int(txn.stat(self.e)["entries"])

        self.entries = self.env.data.update(work)
