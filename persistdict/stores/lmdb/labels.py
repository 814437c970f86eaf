"""What has a label, in batches, each read in a pair of snapshots of its own.

A row of "t" is no more than a hint: the recent writes may have given the entry that it leads to another label, or
removed it. So every entry is looked at as it is now; and those come on top to which only a recent write gives the
label. A drain between two batches moves entries from these to those, under the same seq, and seqs are what the batches
divide: so no entry is missed, and none is met twice.
"""

from collections.abc import Iterator
from typing import Any

from persistdict.errors import CorruptEntryError
from persistdict.store import Item
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.record import LABELLED, Parsed, label_key, parse_label_key, seq_bytes, seq_number
from persistdict.stores.lmdb.scan import BATCH, BATCH_BYTES, item_of, newest_allowed
from persistdict.stores.lmdb.walk import beyond, walk

__all__ = ["labels_in_use", "scan_labelled"]

FIRST, LAST = seq_bytes(0), seq_bytes((1 << 64) - 1)
PASSED = 64  # rows of a label that are passed over one by one; to look for the next label costs about as much


def scan_labelled(rows: Pair, label: bytes) -> Iterator[Item]:
    """The entries with this label, oldest first, without their values."""
    bound = rows.env.attempt(newest_allowed, rows)
    position: bytes | None = FIRST
    while position is not None:
        batch, position = rows.env.attempt(_batch, rows, label, position, bound)
        yield from batch


def _batch(rows: Pair, label: bytes, start: bytes, bound: bytes) -> tuple[list[Item], bytes | None]:
    """The entries with seqs from `start` on, and the seq from which on the next batch has them (None: that is all)."""
    d, r = rows.snapshots()
    now, size, seen = rows.clock(), 0, 0
    found: dict[int, Item | None] = {}
    following: bytes | None = None
    last = label_key(label, bound)
    for cursor in walk(rows, d, "t", label_key(label, start)):
        key = cursor.key()
        if key > last:
            break
        seq = _seq_of(key)
        if seq is None:
            continue
        if (seen >= BATCH or size > BATCH_BYTES) and beyond("e", start, seq):
            following = seq
            break
        raw = d.get(seq, b"", rows.e)
        found[seq_number(seq)] = item_of(rows, r, d, seq, raw, now, False, label)
        seen, size = seen + 1, size + len(raw)
    end = seq_number(following) if following is not None else seq_number(bound) + 1
    for seq, record in rows.rows(r, LABELLED) if r is not None else ():
        if record.label == label and seq_number(start) <= seq_number(seq) < end:
            found[seq_number(seq)] = _recent_item(rows, d, seq, record, now)
    return [item for _, item in sorted(found.items()) if item is not None], following


def _seq_of(key: bytes) -> bytes | None:
    """To which entry a row leads; None for a damaged one, which the integrity pass reports."""
    try:
        return parse_label_key(key)[1]
    except CorruptEntryError:
        return None


def _recent_item(rows: Pair, d: Any, seq: bytes, record: Parsed, now: float) -> Item | None:
    """The entry that a recent write has made, if it is not over."""
    entry = rows.whole(d, (seq, record.deadline), record, now, False)
    return None if entry is None else Item(*entry[:4])


def labels_in_use(rows: Pair) -> list[bytes]:
    """The labels of all entries. Looks at one entry of each, and at those before it which are over or have changed."""
    found = rows.env.attempt(_recent_labels, rows)
    position: bytes | None = b""
    while position is not None:
        more, position = rows.env.attempt(_labels, rows, position)
        found |= more
    return sorted(found)


def _recent_labels(rows: Pair) -> set[bytes]:
    d, r = rows.snapshots()
    now = rows.clock()
    recent = rows.rows(r, LABELLED) if r is not None else ()
    return {row.record.label for row in recent if _recent_item(rows, d, *row, now) is not None}


def _labels(rows: Pair, start: bytes) -> tuple[set[bytes], bytes | None]:
    """Labels of the data from a key on, and the key of the rest."""
    d, r = rows.snapshots()
    now, left, passed = rows.clock(), BATCH, 0
    found: set[bytes] = set()
    for cursor in walk(rows, d, "t", start):
        key = cursor.key()
        seq = _seq_of(key)
        if seq is None:
            continue
        label = key[1:-8]
        if label in found:
            passed += 1
            behind = label_key(label, LAST) + b"\0"
            if passed > PASSED and beyond("t", start, behind):
                return found, behind
        elif left <= 0 and beyond("t", start, key):
            return found, key
        else:
            left, passed = left - 1, 0
            if item_of(rows, r, d, seq, d.get(seq, b"", rows.e), now, False, label) is not None:
                found.add(label)
    return found, None
