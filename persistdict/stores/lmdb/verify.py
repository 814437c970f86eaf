"""The integrity pass: every row of every database against the others, in both directions.

Guarantees:
- It works in steps. A step is one pair of snapshots of about STEP_SECONDS or STEP_BYTES at most (one row may take
  longer), and ends with a position at which a later step goes on, in this process or another one.
- It changes nothing. What it finds is true of one pair of snapshots; an entry that is written between two steps is no
  fault, nor is damage in the data that a recent write is about to replace.
- It raises for no damage of entries, index or pages; pages that cannot be read are faults, and passed over.
- Keys are named by digests, values not at all.

A position is the letter of a database ("r": the recent writes) and a key within it (for deadlines with a seq).
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from persistdict.errors import CorruptEntryError, CorruptStoreError
from persistdict.keys import key_digest
from persistdict.reports import Fault, Report
from persistdict.stores.lmdb.access import parse_access
from persistdict.stores.lmdb.leads import head_asked_for, index_key, leads_to_labelled, record_at
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.pieces import large_value
from persistdict.stores.lmdb.plain import PlainTransaction
from persistdict.stores.lmdb.recent import BASE, MARK, Row, parse_row, recent_key
from persistdict.stores.lmdb.record import (
    HEADER_SIZE,
    LARGE,
    PIECES,
    Parsed,
    check_large,
    is_number,
    label_key,
    large_size,
    parse_index,
    parse_record,
    seq_number,
)
from persistdict.stores.lmdb.rows import DEADLINE, Rows
from persistdict.stores.lmdb.walk import beyond, walk

__all__ = ["STEP", "Found", "Progress", "Step", "inspect", "verify", "verify_step"]

STEP = 512  # rows that one step looks at
STEP_BYTES = 8 << 20
STEP_SECONDS = 0.01
PHASES = "rekxtavp"

Progress = Callable[[int, int], object]  # rows that were examined, rows in all; False to stop


class Found(NamedTuple):
    """A fault, and where: the letter of the database, the key, and for deadlines and the index the seq."""

    fault: Fault
    name: str
    key: bytes
    value: bytes = b""


class Step(NamedTuple):
    """What one step did: rows that were examined, what was found, where to go on (None: the pass is complete)."""

    checked: int
    found: list[Found]
    position: bytes | None


def inspect(
    rows: Pair, progress: Progress | None = None, position: bytes | None = b""
) -> tuple[int, list[Found], bytes | None]:
    """Steps from `position` on. Rows examined, what was found, where to go on.

    `progress(done, total)` is called after each step; if it returns False, the pass stops.
    """
    total = rows.env.attempt(_total, rows) if progress is not None else 0
    done = 0
    found: list[Found] = []
    while position is not None:
        step = verify_step(rows, STEP, position)
        done += step.checked
        found += step.found
        position = step.position
        if progress is not None and progress(done, max(total, done)) is False:
            break
    return done, found, position


def verify(rows: Pair, progress: Progress | None = None, position: bytes | None = b"") -> Report:
    """The integrity pass, without repair; see `inspect`."""
    checked, found, position = inspect(rows, progress, position)
    faults = tuple(each.fault for each in found)
    return Report(checked, faults, left=faults, position=position)


def _total(rows: Pair) -> int:
    d, r = rows.snapshots()
    databases = [d.stat(db) for name in PHASES[1:] if (db := rows.database(name)) is not None]
    return sum(int(stat["entries"]) for stat in (*databases, *([r.stat()] if r is not None else [])))


def verify_step(rows: Pair, budget: int, position: bytes = b"") -> Step:
    """Examine about `budget` rows from `position` on."""
    return rows.env.attempt(_step, rows, budget, position)


def _step(rows: Pair, budget: int, position: bytes) -> Step:
    name, start = chr(position[0]) if position else PHASES[0], position[1:]
    until = time.monotonic() + STEP_SECONDS
    d, r = rows.snapshots()
    checked = size = 0
    found: list[Found] = []
    if isinstance(d, PlainTransaction):
        d.tell = lambda: found.append(_page(name))
    before = b""
    for cursor in _recent(r, start) if name == "r" else walk(rows, d, name, start):
        key, value = cursor.item()
        if checked and (checked >= budget or size > STEP_BYTES or time.monotonic() > until):
            place = key + value if name == "x" else key
            if beyond(name, start, place):
                return Step(checked, _not_replaced(rows, r, found), name.encode() + place)
        if before and _misplaced(name, before, key):
            found.append(_found("order", name, key, "is out of order"))
        before = key
        checked += 1
        size += len(value) + _large(value, name)
        with contextlib.suppress(CorruptStoreError):  # a page that it led to; the pass of its database tells
            found += EXAMINERS[name](rows, d, key, value)
    return Step(checked, _not_replaced(rows, r, found), PHASES[PHASES.index(name) + 1 :][:1].encode() or None)


def _recent(r: Any, start: bytes) -> Iterator[Any]:
    """A cursor on one recent write after the other."""
    if r is None:
        return
    cursor = r.cursor()
    more = cursor.set_range(start) if start else cursor.first()
    while more:
        yield cursor
        more = cursor.next()


def _not_replaced(rows: Pair, r: Any, found: list[Found]) -> list[Found]:
    """What was found, without what the next drain replaces as a whole: entries of which there are recent writes."""
    if r is None or not found:
        return found
    recent = {row.seq: row for row in rows.rows(r)}
    left = []
    for each in found:
        row = recent.get(each.value if each.name == "k" else each.key)
        if row is None or (each.name, each.fault.kind) not in REPLACED or (row.gone and each.fault.kind == "index"):
            left.append(each)  # (a deletion does not find an entry that is not in the index)
        elif len(row.record.kb) >= rows.limit and each.fault.kind in ("record", "dangling"):
            left.append(each)  # whose it is cannot be told from the index
    return left


REPLACED = {("e", "record"), ("e", "value"), ("e", "index"), ("e", "expiry"), ("e", "label"), ("k", "dangling")}


def _misplaced(name: str, before: bytes, key: bytes) -> bool:
    """Whether a key does not come behind the one before it. Deadlines may be the same."""
    if name in ("k", "p", "r", "t"):
        return key <= before
    return seq_number(key) < seq_number(before) if name == "x" else seq_number(key) <= seq_number(before)


def _large(raw: bytes, name: str) -> int:
    """How many bytes are read beside a row, as a record says."""
    if name != "e" or len(raw) < HEADER_SIZE + 16 or not raw[1] & LARGE:
        return 0
    return large_size(raw[-16:-4])


# What is found


def _page(name: str) -> Found:
    sentence = f"pages of {WHAT[name]} are damaged; what is on them is found by persistdict.salvage"
    return Found(Fault("page", name, sentence), name, b"")


def _found(kind: str, name: str, key: bytes, what: str, value: bytes = b"") -> Found:
    """A fault of a row of the database `name`."""
    digest = key_digest(key) if name in ("k", "r", "t") else (value or key).hex()
    row = f"the entry {digest}" if name == "e" else f"the row {digest} of {WHAT[name]}"
    return Found(Fault(kind, digest, f"{row} {what}"), name, key, value)


def _of(record: Parsed, seq: bytes, kind: str, what: str) -> Found:
    """A fault of an entry whose key is known."""
    digest = key_digest(record.kb)
    return Found(Fault(kind, digest, f"the entry of the key with the digest {digest} {what}"), "e", seq)


WHAT = {
    "r": "the recent writes", "e": "the entries", "k": "the index", "x": "the list of deadlines",
    "a": "the access times", "v": "the large values", "p": "the pieces of large values", "t": "the list of labels",
}  # fmt: skip


# What is examined


def _recent_write(rows: Rows, d: Any, key: bytes, raw: bytes) -> Iterator[Found]:
    """A recent write: whether it can be read, and lies where it is looked for."""
    if key in (BASE, MARK):
        return
    try:
        row = parse_row(raw)
    except CorruptEntryError:
        yield _found("record", "r", key, "is damaged: its checksum does not fit")
        return
    if recent_key(row.record.kb) != key:
        yield _found("order", "r", key, "lies under another key")
    elif not row.gone and not (is_number(row.seq, raw[8:]) and _own(rows, d, row)):
        yield _found("number", "r", key, "has an impossible sequence number")


def _own(rows: Rows, d: Any, row: Row) -> bool:
    """Whether the number of a recent write is that of no entry of another key."""
    other = record_at(rows, d, row.seq)
    return not isinstance(other, Parsed) or other.kb == row.record.kb


def _entry(rows: Rows, txn: Any, seq: bytes, raw: bytes) -> Iterator[Found]:
    """A record: whether it can be read, and whether everything leads to it."""
    if len(seq) != 8:
        yield _found("number", "e", seq, "has an impossible sequence number")
        return
    try:
        record = parse_record(raw)
    except CorruptEntryError:
        yield _found("record", "e", seq, "is damaged: its checksum does not fit")
        return
    if not is_number(seq, raw):
        yield _of(record, seq, "number", "has an impossible sequence number")
    try:
        row = txn.get(index_key(rows, record.kb), None, rows.k)
        slots = parse_index(row) if row is not None else []
    except CorruptEntryError:
        slots = []
    if (seq, record.deadline) not in slots:
        yield _of(record, seq, "index", "is not in the index")
    if record.flags & LARGE:
        try:
            check_large(record.body, large_value(rows, txn, seq, record))
        except CorruptEntryError:
            yield _of(record, seq, "value", "has lost its large value")
    if record.deadline and not txn.cursor(rows.x).set_key_dup(DEADLINE.pack(record.deadline), seq):
        yield _of(record, seq, "expiry", "is missing from the list of deadlines")
    if record.label and (rows.t is None or txn.get(label_key(record.label, seq), None, rows.t) is None):
        yield _of(record, seq, "label", "is missing from the list of labels")


def _index(rows: Rows, txn: Any, key: bytes, raw: bytes) -> Iterator[Found]:
    """A row of the index: whether it leads to entries of its key, and to one of each."""
    try:
        slots = parse_index(raw)
    except CorruptEntryError:
        yield _found("index", "k", key, "has an impossible length")
        return
    kbs: set[bytes] = set()
    seqs: set[bytes] = set()
    for seq, _ in slots:
        record = record_at(rows, txn, seq)
        if record is None or (isinstance(record, Parsed) and index_key(rows, record.kb) != key):
            yield _found("dangling", "k", key, "leads to no entry of its key", seq)
        elif isinstance(record, Parsed):
            if record.kb in kbs:
                yield _of(record, seq, "twice", "is there twice")
            kbs.add(record.kb)
        if seq in seqs:
            yield _found("index", "k", key, "names an entry twice")
        seqs.add(seq)


def _expiry(rows: Rows, txn: Any, key: bytes, seq: bytes) -> Iterator[Found]:
    record = record_at(rows, txn, seq)
    if isinstance(record, CorruptEntryError):
        return
    if len(key) != 8 or record is None or record.deadline != DEADLINE.unpack(key)[0]:
        yield _found("dangling", "x", key, "belongs to no entry", seq)


def _label(rows: Rows, txn: Any, key: bytes, _: bytes) -> Iterator[Found]:
    if not leads_to_labelled(rows, txn, key):
        yield _found("dangling", "t", key, "belongs to no entry")


def _access(rows: Rows, txn: Any, seq: bytes, raw: bytes) -> Iterator[Found]:
    if parse_access(raw) is None:
        yield _found("access", "a", seq, "is no time")
    elif record_at(rows, txn, seq) is None:
        yield _found("dangling", "a", seq, "belongs to no entry")


def _value(rows: Rows, txn: Any, seq: bytes, _: bytes) -> Iterator[Found]:
    record = record_at(rows, txn, seq)
    if record is None or (isinstance(record, Parsed) and record.flags & (LARGE | PIECES) != LARGE):
        yield _found("dangling", "v", seq, "belongs to no entry")


def _piece(rows: Rows, txn: Any, key: bytes, raw: bytes) -> Iterator[Found]:
    head = head_asked_for(rows, txn, key)
    if head is None:
        yield _found("dangling", "p", key, "belongs to no entry")
    elif not raw.startswith(head):
        yield _found("piece", "p", key, "names another entry")


EXAMINERS: dict[str, Callable[[Rows, Any, bytes, bytes], Iterator[Found]]] = {
    "r": _recent_write, "e": _entry, "k": _index, "x": _expiry, "t": _label, "a": _access, "v": _value,
    "p": _piece,
}  # fmt: skip
