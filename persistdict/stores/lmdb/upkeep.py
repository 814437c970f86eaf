"""Removing what is over, in small transactions, by position.

Positions are opaque bytes: a pass goes on where the last call ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persistdict.errors import CorruptEntryError
from persistdict.stores.lmdb.access import access_of, pack_access
from persistdict.stores.lmdb.direct import write_directly
from persistdict.stores.lmdb.drain import drain
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.record import COUNTER_BITS, parse_record
from persistdict.stores.lmdb.rows import DEADLINE, Rows, last_write
from persistdict.stores.lmdb.times import from_the_future, note_clocks, rebase_entry
from persistdict.stores.lmdb.walk import beyond, walk

__all__ = ["expire_entries", "rebase_entries", "write_access_times"]


def write_access_times(rows: Rows, batch: Mapping[bytes, float], uses: Mapping[bytes, int]) -> None:
    """Note when entries were read last, and how often; never moves a time back, passes over entries that are gone."""
    drain(rows)  # the times of entries that the data do not have yet would be lost
    rows.env.data.update(_write_access_times, rows, batch, uses)


def _write_access_times(txn: Any, rows: Rows, batch: Mapping[bytes, float], uses: Mapping[bytes, int]) -> None:
    for seq, at in batch.items():
        if txn.get(seq, None, rows.e) is None:
            continue
        known, count = access_of(txn, rows.a, seq)
        more = uses.get(seq, 0)
        if known < at or more:
            txn.put(seq, pack_access(max(known, at), count + more), db=rows.a)
    note_clocks(rows, txn)


def expire_entries(rows: Pair, budget: int, after: bytes) -> tuple[int, bytes | None]:
    """Remove entries that are over. What looks so in a snapshot is looked at again in the removing transaction."""
    rows.env.refuse_if_damaged()
    if not after:
        drain(rows)  # only the data know what ends when
    look = _past_deadline if rows.idle is None else _past_any_limit
    found, following = rows.env.attempt(look, rows, budget, after)
    if not found:
        return 0, following
    work = lambda r: sum(_remove(rows, r, n, *place) for n, place in enumerate(found))  # noqa: E731
    return rows.env.recent.update_urgently(work), following


def rebase_entries(rows: Pair, budget: int, after: bytes) -> tuple[int, bytes | None]:
    """Let entries begin their time now that were written in the future, in a direct change of the data."""
    rows.env.refuse_if_damaged()
    if not after:
        drain(rows)
    found, following = rows.env.attempt(from_the_future, rows, budget, after)
    if not found:
        return 0, following

    def work(d: Any, number: int) -> int:
        versions = (number << COUNTER_BITS | n for n in range(len(found)))
        return sum(rebase_entry(rows, d, version, *place) for version, place in zip(versions, found, strict=True))

    return write_directly(rows, work)[0], following


def _remove(rows: Pair, r: Any, n: int, kb: bytes, seq: bytes) -> bool:
    try:
        return rows.remove_over(r, n, kb, seq)
    except CorruptEntryError:  # the integrity pass reports it; it stays, and nobody reads it
        return False


def _past_deadline(rows: Rows, budget: int, after: bytes) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """Entries whose deadline is behind us: key and seq; and the position (deadline, seq) to go on from."""
    d = rows.begin_data(rows.e)
    now = rows.clock() * 1e6
    found: list[tuple[bytes, bytes]] = []
    for cursor in walk(rows, d, "x", after):
        key, seq = cursor.item()
        if DEADLINE.unpack(key)[0] > now:
            break
        if budget <= 0 and beyond("x", after, key + seq):
            return found, key + seq
        budget -= 1
        try:
            found.append((parse_record(d.get(seq, b"")).kb, seq))
        except CorruptEntryError:
            pass  # the integrity pass reports it; it stays, and cannot be read anyway
    return found, None


def _past_any_limit(rows: Rows, budget: int, after: bytes) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """The same where an idle limit counts: a pass over all entries."""
    d = rows.begin_data(rows.e)
    now = rows.clock()
    found: list[tuple[bytes, bytes]] = []
    for cursor in walk(rows, d, "e", after):
        seq, raw = cursor.item()
        if budget <= 0 and beyond("e", after, seq):
            return found, seq
        budget -= 1
        try:
            record = parse_record(raw)
        except CorruptEntryError:
            continue
        if rows.until(d, seq, record.deadline, last_write(record), now) <= now:
            found.append((record.kb, seq))
    return found, None
