"""Making recent writes durable.

A drain, under the locks of the data: take a snapshot of the recent writes, apply it to the data in one synced
transaction that also notes the snapshot's number, then take away from the recent writes what is still the version that
was applied. Whoever dies in between leaves rows behind that the next drain applies again, with the same outcome.
"""

from __future__ import annotations

import struct
import sys
from threading import get_ident
from typing import Any

import lmdb

from persistdict.checksum import crc32
from persistdict.errors import CorruptEntryError, DiskFullError
from persistdict.spans import OUTSIDE
from persistdict.stores.lmdb.engine import TIMEOUT, raise_nested
from persistdict.stores.lmdb.environment import LOOKS, Environment
from persistdict.stores.lmdb.failures import no_space
from persistdict.stores.lmdb.layout import LAST, parse_number
from persistdict.stores.lmdb.recent import BASE, MARK, RESERVED, Row, parse_row
from persistdict.stores.lmdb.record import COUNTER_BITS, GONE, RESIDUE
from persistdict.stores.lmdb.reserve import find_room, look_for_room
from persistdict.stores.lmdb.rows import LARGE_VALUE, Place, Rows
from persistdict.stores.lmdb.times import note_clocks
from persistdict.stores.lmdb.totals import begin_totals, end_totals

__all__ = [
    "NUMBER",
    "Recent",
    "apply_recent",
    "drain",
    "drain_held",
    "environment_of",
    "is_taken",
    "recent_writes",
    "snapshot_of",
]

CLEARED_AT_ONCE = 500  # rows that one transaction of the recent writes takes away

NUMBER = struct.Struct("<Q")

Recent = list[tuple[bytes, bytes]]  # key and row


def drain(rows: Rows, number: int | None = None, timeout: float = TIMEOUT) -> None:
    """Make durable what was written before; up to `number` only, if somebody else has done that meanwhile.

    So of many that wait for each other, one syncs for all. Raises StoreError or DiskFullError; then everything is still
    where it was.
    """
    env = environment_of(rows)
    attempt = 0
    while True:
        try:
            stuck = env.data.alone(drain_held, rows, number, timeout=timeout)
            break
        except lmdb.Error as error:
            attempt += 1
            env.recover(error, attempt)
    if stuck:
        raise CorruptEntryError(
            f"{rows.place}: {len(stuck)} recent writes are damaged and stay where they are; use verify(repair=True)"
        )


def environment_of(rows: Rows) -> Environment:
    """The environment. Raises NestedWriteError within a write of this thread, which would take the locks backwards."""
    env = rows.env
    if env.recent.writing == get_ident():
        raise_nested()
    return env


def drain_held(rows: Rows, wanted: int | None = None) -> Recent:
    """Drain with the locks held. Gives what is damaged or leads to it; that stays, and harms no other."""
    env = rows.env
    stuck: Recent = []
    if wanted is not None and env.durable >= wanted:
        return stuck
    if env.scarce:
        look_for_room(env)
    pending, env.pending = env.pending, 0
    env.look_at = env.much // LOOKS
    number, found = snapshot_of(rows)
    if found:
        try:
            if not all(_is_deletion(*item) for item in found):
                find_room(env, sum(len(raw) for _, raw in found))
            stuck = env.data.write(apply_recent, rows, found, number)
        except (lmdb.Error, DiskFullError) as error:
            full = isinstance(error, DiskFullError) or no_space(error, rows.place)
            try:
                rest = _make_room(rows, found) if full else found
            except lmdb.Error:  # nor could that be written: it is the first error that says why
                rest = found
            if rest:
                env.pending += pending
                raise
            found = []
    env.presence.check()  # nothing counts as durable in files that are gone; so behind the writing
    if env.company.is_expected():
        env.recent.alone(env.company.part)
    if found:
        if stuck or not _take_all_away(rows, number):
            _take_away(rows, [item for item in found if item not in stuck])
        look_for_room(env)
    env.durable = max(env.durable, number)
    return stuck


def _is_deletion(key: bytes, raw: bytes) -> bool:
    return key == MARK or (len(raw) > 9 and bool(raw[9] & GONE))


def _make_room(rows: Rows, found: Recent) -> Recent:
    """On a full disk: bring the deletions alone into the data, which may free the pages that the rest needs.

    Gives the rest.
    """
    gone = [item for item in found if item[0] != MARK and _is_deletion(*item)]
    if gone:
        stuck = rows.env.data.write(_apply_some, rows, gone)
        gone = [item for item in gone if item not in stuck]
        _take_away(rows, gone)
    return [item for item in found if item not in gone]


def snapshot_of(rows: Rows) -> tuple[int, Recent]:
    """The recent writes in order of creation, and the number of the snapshot.

    The snapshot ends here, so that the file need not grow while the drain goes on.
    """
    r = rows.begin()
    return rows.base + r.id(), recent_writes(r)


def recent_writes(r: Any) -> Recent:
    """All recent writes of a snapshot, and the mark, in order of creation."""
    found = [(key, raw) for key, raw in r.cursor() if key != BASE]
    found.sort(key=_created)
    return found


def _created(item: tuple[bytes, bytes]) -> int:
    return int.from_bytes(item[1][:8], sys.byteorder)


def apply_recent(d: Any, rows: Rows, found: Recent, number: int) -> Recent:
    """Bring the recent writes of a snapshot, and its number, into the data. Gives what is damaged and was not."""
    stuck = _apply_some(d, rows, _without_void(d, rows, found))
    note_clocks(rows, d)
    d.put(LAST, str(number).encode(), db=rows.meta)
    return stuck


def _apply_some(d: Any, rows: Rows, found: Recent) -> Recent:
    begin_totals(rows)
    stuck = _apply_rows(d, rows, found)
    end_totals(rows, d)
    return stuck


def _apply_rows(d: Any, rows: Rows, found: Recent) -> Recent:
    stuck: Recent = []
    for key, raw in found:
        try:
            if key != MARK:
                _apply_row(d, rows, key, raw)
        except CorruptEntryError:
            stuck.append((key, raw))
    return stuck


def _apply_row(d: Any, rows: Rows, key: bytes, raw: bytes) -> None:
    """Bring one recent write into the data; changes nothing if that was done already."""
    if (
        9 < len(raw) < LARGE_VALUE
        and not raw[9]
        and len(key) < rows.limit
        and key < OUTSIDE
        and crc32(memoryview(raw)[8:]) == RESIDUE
    ):
        seq, record = raw[:8], raw[8:]
        index = d.get(key, None, rows.k)
        if index is None:
            if not d.put(seq, record, append=True, db=rows.e) and not d.put(seq, record, overwrite=False, db=rows.e):
                raise CorruptEntryError("the number of a recent write is that of another entry")
            d.put(key, seq, db=rows.k)
            rows.growth += len(record)
            return
        before = d.get(seq, b"\0\xff", rows.e) if index == seq else b"\0\xff"
        if before[1] == 0:  # neither large nor with a deadline
            d.put(seq, record, db=rows.e)
            rows.growth += len(record) - len(before)
            return
    row = parse_row(raw)
    place = rows.find(d, row.record.kb)
    if not row.gone:
        if is_taken(rows, d, row, place):
            raise CorruptEntryError("the number of a recent write is that of another entry")
        rows.store(d, place, row.seq, row.record)
    elif place is not None:
        rows.remove(d, row.record.kb, place)


def is_taken(rows: Rows, d: Any, row: Row, place: Place | None) -> bool:
    """Whether the number of a recent write, which has no checksum, is that of an entry of another key."""
    return (place is None or place.slot[0] != row.seq) and d.get(row.seq, None, rows.e) is not None


def _take_all_away(rows: Rows, number: int) -> bool:
    """Remove all recent writes, if nobody has written since the snapshot of that number. Tells whether it did."""
    env = rows.env
    done = env.recent.update_urgently(_drop_all, rows, number)
    if done:
        env.settled = number + 1 - rows.base
    return done


def _drop_all(r: Any, rows: Rows, number: int) -> bool:
    recent = rows.env.recent.raw
    if recent is None or rows.base + r.id() != number + 1:
        return False
    base = r.get(BASE)
    r.drop(recent.open_db(txn=r), delete=False)
    r.put(BASE, base)
    return True


def _take_away(rows: Rows, found: Recent) -> None:
    """Remove what was applied from the recent writes, unless it was written again."""
    for start in range(0, len(found), CLEARED_AT_ONCE):
        settled = rows.env.recent.update_urgently(_drop_rows, found[start : start + CLEARED_AT_ONCE])
        if settled >= 0:
            rows.env.settled = settled


def _drop_rows(r: Any, part: Recent) -> int:
    """Gives the id if nothing is left; -1 also if nothing was taken away, for then there is no commit of that id."""
    taken = [key for key, raw in part if r.get(key) == raw and r.delete(key)]
    return r.id() if taken and r.stat()["entries"] == RESERVED else -1


def _without_void(d: Any, rows: Rows, found: Recent) -> Recent:
    """Without what a `clear` on a full disk was about to take away when its process died."""
    mark = next((raw for key, raw in found if key == MARK), b"")
    last = parse_number(d.get(LAST, None, rows.meta)) or 0
    if len(mark) != NUMBER.size or NUMBER.unpack(mark)[0] > last:
        return found
    cleared = NUMBER.unpack(mark)[0] << COUNTER_BITS
    return [(key, raw) for key, raw in found if key != MARK and _version(raw) >= cleared]


def _version(raw: bytes) -> int:
    """The version of a row, damaged or not."""
    return int.from_bytes(raw[16:24], "little")
