"""Making recent writes durable, and changing the data directly.

A drain, under the locks of the data: take a snapshot of the recent writes, apply it to the data in one synced
transaction that also notes the snapshot's number, then take away from the recent writes what is still the version that
was applied. Whoever dies in between leaves rows behind that the next drain applies again, with the same outcome.

A direct change (many entries, `clear`, settings), under the locks of both: drain; empty the recent writes and set the
mark; change the data in one synced transaction; take the mark away. The ids of the recent writes, by which copies in
memory are validated, so change before and after; and while the mark is there, no copy is kept. Whoever dies in between
leaves the mark; the next drain takes it away.

A `clear` on a full disk cannot drain before. It leaves the recent writes where they are and sets a mark that holds the
number of its transaction: if that died before the recent writes were taken away, the next drain does not apply them.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any, TypeVar
from zlib import crc32

import lmdb

from persistdict.errors import CorruptEntryError, DiskFullError
from persistdict.stores.lmdb.engine import TIMEOUT, MapFull, raise_nested
from persistdict.stores.lmdb.environment import Environment
from persistdict.stores.lmdb.failures import no_space
from persistdict.stores.lmdb.layout import LAST
from persistdict.stores.lmdb.recent import BASE, MARK, RESERVED, Row, parse_row
from persistdict.stores.lmdb.record import COUNTER_BITS, GONE, RESIDUE
from persistdict.stores.lmdb.reserve import RESERVE, find_room, look_for_room
from persistdict.stores.lmdb.rows import LARGE_VALUE, Place, Rows

__all__ = ["Recent", "apply_recent", "drain", "environment_of", "is_taken", "recent_writes", "write_directly"]

T = TypeVar("T")

CLEARED_AT_ONCE = 500  # rows that one transaction of the recent writes takes away

_NUMBER = struct.Struct("<Q")

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
            stuck = env.data.alone(_drain, rows, number, timeout=timeout)
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


def _drain(rows: Rows, wanted: int | None = None) -> Recent:
    """Gives what is damaged, or leads to what is damaged; it stays, and harms no other."""
    env = rows.env
    stuck: Recent = []
    if wanted is not None and env.durable >= wanted:
        return stuck
    if env.scarce:
        look_for_room(env)
    pending, env.pending = env.pending, 0
    number, found = _snapshot(rows)
    if found:
        try:
            if not all(_is_deletion(*item) for item in found):
                find_room(env, sum(len(raw) for _, raw in found))
            stuck = env.data.write(apply_recent, rows, found, number)
        except (lmdb.Error, DiskFullError) as error:
            full = isinstance(error, DiskFullError) or no_space(error, rows.place)
            if not full or _make_room(rows, found):
                env.pending += pending
                raise
            found = []
    env.presence.check()  # nothing counts as durable in files that are gone; so behind the writing
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
        stuck = rows.env.data.write(_apply_rows, rows, gone)
        gone = [item for item in gone if item not in stuck]
        _take_away(rows, gone)
    return [item for item in found if item not in gone]


def _snapshot(rows: Rows) -> tuple[int, Recent]:
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
    stuck = _apply_rows(d, rows, _without_void(d, rows, found))
    d.put(LAST, str(number).encode(), db=rows.meta)
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
    if 9 < len(raw) < LARGE_VALUE and not raw[9] and len(key) < rows.limit and crc32(memoryview(raw)[8:]) == RESIDUE:
        seq, record = raw[:8], raw[8:]
        index = d.get(key, None, rows.k)
        if index is None:
            if not d.put(seq, record, append=True, db=rows.e) and not d.put(seq, record, overwrite=False, db=rows.e):
                raise CorruptEntryError("the number of a recent write is that of another entry")
            d.put(key, seq, db=rows.k)
            return
        if index == seq and d.get(seq, b"\0\xff", rows.e)[1] == 0:  # neither large nor with a deadline
            d.put(seq, record, db=rows.e)
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

    def work(r: Any) -> bool:
        if rows.base + r.id() != number + 1:
            return False
        base = r.get(BASE)
        assert env.recent.raw is not None
        r.drop(env.recent.raw.open_db(txn=r), delete=False)
        r.put(BASE, base)
        return True

    done = env.recent.update_urgently(work)
    if done:
        env.settled = number + 1 - rows.base
    return done


def _take_away(rows: Rows, found: Recent) -> None:
    """Remove what was applied from the recent writes, unless it was written again."""
    env = rows.env

    def work(r: Any, part: Recent) -> int:
        for key, raw in part:
            if r.get(key) == raw:
                r.delete(key)
        return r.id() if r.stat()["entries"] == RESERVED else -1

    for start in range(0, len(found), CLEARED_AT_ONCE):
        settled = env.recent.update_urgently(work, found[start : start + CLEARED_AT_ONCE])
        if settled >= 0:
            env.settled = settled


def _without_void(d: Any, rows: Rows, found: Recent) -> Recent:
    """Without what a `clear` on a full disk was about to take away when its process died."""
    mark = next((raw for key, raw in found if key == MARK), b"")
    if not mark or _NUMBER.unpack(mark)[0] > int(d.get(LAST, b"0", rows.meta)):
        return found
    cleared = _NUMBER.unpack(mark)[0] << COUNTER_BITS
    return [(key, raw) for key, raw in found if key != MARK and _version(raw) >= cleared]


def _version(raw: bytes) -> int:
    """The version of a row, damaged or not."""
    return int.from_bytes(raw[16:24], "little")


def write_directly(rows: Rows, work: Callable[[Any, int], T], *, void: bool = False) -> tuple[T, int]:
    """Run `work(d, number)` in one synced transaction of the data, with no recent writes beside it.

    Returns what it returns, and the id of the recent writes from which on readers see it.

    Args:
        void: the recent writes are not drained before, as there is no room for that, but thrown away afterwards: for
            work that begins by clearing everything.
    """
    env = environment_of(rows)
    attempt = 0
    while True:
        try:
            return env.data.alone(_with_nothing_recent, rows, work, void, timeout=rows.timeout)
        except lmdb.Error as error:
            attempt += 1
            env.recover(error, attempt)


def _with_nothing_recent(rows: Rows, work: Callable[[Any, int], T], void: bool) -> tuple[T, int]:
    if not void:
        _drain(rows)
        find_room(rows.env, RESERVE)
    return rows.env.recent.alone(_change, rows, work, void, timeout=rows.timeout)


def _change(rows: Rows, work: Callable[[Any, int], T], void: bool) -> tuple[T, int]:
    env = rows.env
    set_mark = partial(_set_void_mark, base=rows.base) if void else partial(_set_mark, stuck=_drain_the_rest(rows))
    mark = env.recent.write_urgently(set_mark)
    number = rows.base + mark  # not that of what follows: if this process dies, another writes under that number

    def change(d: Any) -> T:
        done = work(d, number)
        d.put(LAST, str(number).encode(), db=rows.meta)
        return done

    finish: Callable[..., object] = _remove_mark
    try:
        done = env.data.write(change)
        env.presence.check()
        if void:
            finish = _remove_all
    finally:
        try:
            env.recent.write_urgently(finish)
        except (MapFull, DiskFullError):
            if finish is not _remove_mark:
                raise
            # Else the next drain takes the mark away, and until then nothing is cached.
    look_for_room(env)
    env.durable = max(env.durable, number + 1)
    return done, mark + 1


def _drain_the_rest(rows: Rows) -> Recent:
    """What was written between the drain and taking the lock; applied, and still there. Gives what is damaged."""
    number, found = _snapshot(rows)
    return rows.env.data.write(apply_recent, rows, found, number) if found else []


def _set_mark(r: Any, stuck: Recent) -> int:
    """Leave nothing but the base, the mark and what is damaged; gives the id."""
    _leave(r, {BASE, *(key for key, _ in stuck)})
    r.put(MARK, b"")
    return int(r.id())


def _set_void_mark(r: Any, base: int) -> int:
    """Note the number from which on, if the data have it, what is here is void; gives the id."""
    r.put(MARK, _NUMBER.pack(base + r.id()))
    return int(r.id())


def _remove_mark(r: Any) -> None:
    r.delete(MARK)


def _remove_all(r: Any) -> None:
    _leave(r, {BASE})


def _leave(r: Any, kept: set[bytes]) -> None:
    cursor = r.cursor()
    cursor.first()
    while cursor.key():  # deleting moves to the next
        cursor.next() if cursor.key() in kept else cursor.delete()
