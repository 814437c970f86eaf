"""What time it was: two rows of the info, brought up to date by every change of the data; and entries from the future.

"clock" is when the last change was, "suspect" since when the clock is not believed; see clocked.py.
"""

from __future__ import annotations

from typing import Any

from persistdict.clocked import SLACK, Clocks, next_clocks
from persistdict.errors import CorruptEntryError
from persistdict.stores.lmdb.access import access_of, pack_access
from persistdict.stores.lmdb.record import HEADER, HEADER_SIZE
from persistdict.stores.lmdb.rows import Rows
from persistdict.stores.lmdb.walk import beyond, walk

__all__ = ["CLOCK", "SUSPECT", "clocks_of", "from_the_future", "note_clocks", "put_clocks", "rebase_entry"]

CLOCK, SUSPECT = b"clock", b"suspect"
FAR = 1e13  # seconds; no time is beyond


def clocks_of(rows: Rows, d: Any) -> Clocks:
    """What a snapshot says."""
    return Clocks(_time(d.get(CLOCK, None, db=rows.meta)), _time(d.get(SUSPECT, None, db=rows.meta)))


def _time(raw: bytes | None) -> float | None:
    try:
        at = float("nan") if raw is None else float(raw)
    except ValueError:  # it is damaged, and noted anew
        return None
    return at if abs(at) < FAR else None


def note_clocks(rows: Rows, d: Any) -> None:
    """Note that something is done now."""
    before = clocks_of(rows, d)
    after = next_clocks(before, rows.clock())
    if after != before:
        put_clocks(d, rows, after)


def put_clocks(d: Any, rows: Rows, clocks: Clocks) -> None:
    """Write both rows."""
    for name, at in ((CLOCK, clocks.noted), (SUSPECT, clocks.suspected)):
        if at is None:
            d.delete(name, db=rows.meta)
        else:
            d.put(name, repr(at).encode(), db=rows.meta)


def from_the_future(rows: Rows, budget: int, after: bytes) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """Entries with times that lie in the future: key and seq; and the position to go on from."""
    d = rows.begin_data(rows.e)
    latest = rows.clock() + SLACK
    found: list[tuple[bytes, bytes]] = []
    for cursor in walk(rows, d, "e", after):
        seq, raw = cursor.item()
        if budget <= 0 and beyond("e", after, seq):
            return found, seq
        budget -= 1
        if len(raw) > HEADER_SIZE:  # else the integrity pass reports it
            _, _, hint_size, key_size, _, _, mtime = HEADER.unpack_from(raw)
            if mtime > latest or access_of(d, rows.a, seq)[0] > latest:
                key_at = HEADER_SIZE + hint_size
                found.append((raw[key_at : key_at + key_size], seq))
    return found, None


def rebase_entry(rows: Rows, d: Any, version: int, kb: bytes, seq: bytes) -> bool:
    """Let an entry begin its time now, if its times still lie in the future."""
    now = rows.clock()
    try:
        place = rows.find(d, kb)
        if place is None or place.slot[0] != seq or place.record is None:
            return False
        blob = rows.blob(d, seq, place.record)
    except CorruptEntryError:  # the integrity pass reports it; it stays, and nobody reads it
        return False
    record = place.record
    read_at, uses = access_of(d, rows.a, seq)
    if read_at > now + SLACK:
        d.put(seq, pack_access(now, uses), db=rows.a)
    if record.mtime > now + SLACK:
        deadline = record.deadline and max(1, record.deadline - int(min(record.mtime - now, FAR) * 1e6))
        rows.store(d, place, seq, record._replace(
            version=version, ctime=min(record.ctime, now), mtime=now, deadline=deadline, body=blob
        ))  # fmt: skip
    return True
