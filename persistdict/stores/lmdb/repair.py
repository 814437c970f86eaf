"""Mending what the integrity pass found.

Guarantees:
- What was written before is drained first. Each fault is looked at again and mended in a direct change of the data (see
  drain.py): a crash leaves it mended or not, never half, and no process keeps a stale copy.
- No entry that can be read is lost or changed, but for these: of two entries for one key the newer version stays; and
  where a recent write of a key cannot be read, the older version in the data is moved away with it, so that nobody
  takes it for the newest.
- What cannot be read, and what leads nowhere but could tell something (rows of the index, large values), is moved to
  the quarantine whole; see quarantine.py. Rows that follow from others (deadlines, labels, access times) are made
  anew or dropped.
- Done again it finds nothing to do. If pages of the file are damaged it does not write at all: LMDB could end the
  process, or overwrite what is left. Then `persistdict.salvage` makes a new store.
"""

from __future__ import annotations

import contextlib
from typing import Any

from persistdict.errors import CorruptEntryError
from persistdict.reports import Fault, Report
from persistdict.stores.lmdb.direct import write_directly
from persistdict.stores.lmdb.drain import drain
from persistdict.stores.lmdb.mend import Mender
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.totals import forget_totals
from persistdict.stores.lmdb.verify import Found, Progress, inspect

__all__ = ["repair"]

AT_ONCE = 64  # faults that one transaction mends
ROUNDS = 8  # mending one fault can bring another to light


def repair(rows: Pair, progress: Progress | None = None) -> Report:
    """The integrity pass, with repair: passes, until one finds nothing or nothing more can be done."""
    _drain(rows)
    checked, found, position = inspect(rows, progress)
    first, left = tuple(each.fault for each in found), found
    repaired = moved = 0
    if left and position is None:
        left = left + _damaged_pages(rows)
    for _ in range(ROUNDS):
        if not left or position is not None or any(each.fault.kind == "page" for each in left):
            break
        now = [each for each in left if each.fault.kind == "order" and each.name != "r"] or left
        before = repaired, moved
        for at in range(0, len(now), AT_ONCE):
            mended, put = _mend(rows, now[at : at + AT_ONCE])
            repaired, moved = repaired + mended, moved + put
        _drain(rows)
        _, left, position = inspect(rows)
        if (repaired, moved) == before:
            break
    return Report(checked, first, repaired, moved, tuple(each.fault for each in left), position)


def _drain(rows: Pair) -> None:
    with contextlib.suppress(CorruptEntryError):  # what could not be drained is found by the pass
        drain(rows)


def _damaged_pages(rows: Pair) -> list[Found]:
    """A fault if any page of a tree, or the list of free pages, is damaged."""
    guard = rows.env.guard
    damage = rows.env.damage or (guard.look(thorough=True) if guard is not None else "")
    return [Found(Fault("page", "pages", f"the store is damaged: {damage}"), "e", b"")] if damage else []


def _mend(rows: Pair, found: list[Found]) -> tuple[int, int]:
    """Mend faults that are there still. How many were, and how many rows were moved."""

    def work(d: Any, _: int) -> tuple[int, Mender]:
        mender = Mender(rows, d)
        mended = sum(mender.mend(each) for each in found)
        forget_totals(rows, d)
        return mended, mender

    (mended, mender), _ = write_directly(rows, work)
    if mender.settled:
        rows.env.recent.update(_take_away, mender.settled)
    return mended, mender.moved


def _take_away(r: Any, settled: list[tuple[bytes, bytes]]) -> None:
    """Remove recent writes that are in the quarantine or in the data now, unless they were written again."""
    for key, raw in settled:
        if r.get(key) == raw:
            r.delete(key)
