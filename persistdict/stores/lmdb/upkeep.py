"""Removing what is over, and looking for damage; both in small transactions, by position.

Positions are opaque bytes: a pass goes on where the last call ended.
"""

from __future__ import annotations

from typing import Any

from persistdict.errors import CorruptEntryError
from persistdict.keys import crop, key_digest
from persistdict.stores.lmdb.drain import drain
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.record import LARGE, Parsed, check_large, large_size, parse_index, parse_record
from persistdict.stores.lmdb.rows import ATIME, DEADLINE, Rows

__all__ = ["check_entries", "expire_entries", "write_access_times"]

STEP_BYTES = 8 << 20  # that one step of the check reads


def write_access_times(rows: Rows, batch: dict[bytes, float]) -> None:
    """Note when entries were read last; never moves a time back, passes over entries that are gone."""

    def work(txn: Any) -> None:
        for seq, at in batch.items():
            if txn.get(seq, None, rows.e) is None:
                continue
            known = txn.get(seq, None, rows.a)
            if known is None or ATIME.unpack(known)[0] < at:
                txn.put(seq, ATIME.pack(at), db=rows.a)

    drain(rows)  # the times of entries that the data do not have yet would be lost
    rows.env.data.update(work)


def expire_entries(rows: Pair, budget: int, after: bytes) -> tuple[int, bytes | None]:
    """Remove entries that are over. What looks so in a snapshot is looked at again in the removing transaction."""
    if not after:
        drain(rows)  # only the data know what ends when
    look = _past_deadline if rows.idle is None else _past_any_limit
    found, following = rows.env.attempt(look, rows, budget, after)
    if not found:
        return 0, following
    work = lambda r: sum(_remove(rows, r, n, *place) for n, place in enumerate(found))  # noqa: E731
    return rows.env.recent.update_urgently(work), following


def _remove(rows: Pair, r: Any, n: int, kb: bytes, seq: bytes) -> bool:
    try:
        return rows.remove_over(r, n, kb, seq)
    except CorruptEntryError:  # the integrity pass reports it; it stays, and nobody reads it
        return False


def _past_deadline(rows: Rows, budget: int, after: bytes) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """Entries whose deadline is behind us: key and seq; and the position (deadline, seq) to go on from."""
    txn = rows.begin_data(rows.x)
    cursor = txn.cursor()
    now = int(rows.clock() * 1e6)
    found: list[tuple[bytes, bytes]] = []
    more = cursor.set_range(after[:8]) if after else cursor.first()
    if after and more and cursor.key() == after[:8]:
        more = cursor.set_range_dup(after[:8], after[8:]) or cursor.next_nodup()
    for _ in range(budget):
        if not more or DEADLINE.unpack(cursor.key())[0] > now:
            return found, None
        seq = cursor.value()
        try:
            found.append((parse_record(txn.get(seq, b"", rows.e)).kb, seq))
        except CorruptEntryError:
            pass  # the integrity pass reports it; it stays, and cannot be read anyway
        more = cursor.next()
    return found, (cursor.key() + cursor.value() if more else None)


def _past_any_limit(rows: Rows, budget: int, after: bytes) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """The same where an idle limit counts: a pass over all entries."""
    txn = rows.begin_data(rows.e)
    cursor = txn.cursor()
    now = rows.clock()
    found: list[tuple[bytes, bytes]] = []
    more = cursor.set_range(after) if after else cursor.first()
    for _ in range(budget):
        if not more:
            return found, None
        seq, raw = cursor.item()
        try:
            record = parse_record(raw)
        except CorruptEntryError:
            more = cursor.next()
            continue
        if rows.until(txn, seq, record.deadline, record.mtime, now) <= now:
            found.append((record.kb, seq))
        more = cursor.next()
    return found, (cursor.key() if more else None)


def check_entries(rows: Rows, budget: int, after: bytes) -> tuple[list[str], bytes | None]:
    """Examine entries for damage: checksums, large values, and whether the index leads to each of them."""
    return rows.env.attempt(_check, rows, budget, after)


def _check(rows: Rows, budget: int, after: bytes) -> tuple[list[str], bytes | None]:
    txn = rows.begin_data(rows.e)
    cursor = txn.cursor()
    faults: list[str] = []
    size = 0
    if not after and txn.stat(rows.e)["entries"] < txn.stat(rows.k)["entries"]:
        faults.append("the index names entries that do not exist")
    more = cursor.set_range(after) if after else cursor.first()
    for _ in range(budget):
        if not more:
            return faults, None
        seq, raw = cursor.item()
        try:
            record = parse_record(raw)
        except CorruptEntryError:
            faults.append(f"the entry {seq.hex()} is damaged: its checksum does not fit")
        else:
            faults.extend(_check_record(rows, txn, seq, record))
            size += len(raw) + (large_size(record.body) if record.flags & LARGE else 0)
        more = cursor.next()
        if size > STEP_BYTES:
            break
    return faults, (cursor.key() if more else None)


def _check_record(rows: Rows, txn: Any, seq: bytes, record: Parsed) -> list[str]:
    name = f"the entry of the key with the digest {key_digest(record.kb)}"
    index_key = record.kb if len(record.kb) < rows.limit else crop(record.kb, rows.limit)
    faults = []
    try:
        index = txn.get(index_key, None, rows.k)
        if index is None or (seq, record.deadline) not in parse_index(index):
            faults.append(f"{name} is not in the index")
    except CorruptEntryError as error:
        faults.append(f"{name}: {error}")
    if record.flags & LARGE:
        try:
            check_large(record.body, txn.get(seq, None, rows.v))
        except CorruptEntryError:
            faults.append(f"{name} has lost its large value")
    if record.deadline and not txn.cursor(rows.x).set_key_dup(DEADLINE.pack(record.deadline), seq):
        faults.append(f"{name} is missing from the list of deadlines")
    return faults
