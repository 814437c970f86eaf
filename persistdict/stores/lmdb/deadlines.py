"""Deadlines: when entries end, and how they are kept in the database "x".

x     := deadline u64 in the machine's byte order -> seqs, at most MOST of them

Not more, because LMDB 0.9 ends the process when it makes a compacted copy of a database in which one key has so many
values that they take pages of their own (some 250). Where the clock is coarse, or set by a test, an entry that would be
one too many ends some microseconds earlier.
"""

from __future__ import annotations

import struct
from typing import Any

from persistdict.store import KEPT

__all__ = ["DEADLINE", "deadline_of", "with_room"]

DEADLINE = struct.Struct("=Q")
MOST = 128


def deadline_of(now: float, ttl: float | None, before: int) -> int:
    """The deadline of an entry written now; 0 for none. `before`: the one that it has, if it is there."""
    if ttl == KEPT:
        return before
    return max(1, round((now + ttl) * 1e6)) if ttl is not None else 0


def with_room(txn: Any, db: Any, deadline: int, known: tuple[int, int]) -> int:
    """This deadline, or the last before it at which there is room.

    Args:
        known: a deadline that was asked for before, and the answer: where to look first.
    """
    cursor = txn.cursor(db)
    found = min(known) if deadline == known[0] else deadline
    while found > 1 and cursor.set_key(DEADLINE.pack(found)) and cursor.count() >= MOST:
        found -= 1
    return found
