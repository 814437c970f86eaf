"""Changing the data directly, with no recent writes beside it: many entries, `clear`, settings, repairs.

Under the locks of both: drain; empty the recent writes and set the mark; change the data in one synced transaction;
take the mark away. The ids of the recent writes, by which copies in memory are validated, so change before and after;
and while the mark is there, no copy is kept. Whoever dies in between leaves the mark; the next drain takes it away.

A `clear` on a full disk cannot drain before. It leaves the recent writes where they are and sets a mark that holds the
number of its transaction: if that died before the recent writes were taken away, the next drain does not apply them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import lmdb

from persistdict.errors import DiskFullError
from persistdict.stores.lmdb.drain import NUMBER, Recent, apply_recent, drain_held, environment_of, snapshot_of
from persistdict.stores.lmdb.engine import MapFull
from persistdict.stores.lmdb.layout import LAST
from persistdict.stores.lmdb.recent import BASE, MARK
from persistdict.stores.lmdb.reserve import RESERVE, find_room, look_for_room
from persistdict.stores.lmdb.rows import Rows
from persistdict.stores.lmdb.times import note_clocks
from persistdict.stores.lmdb.totals import begin_totals, end_totals

__all__ = ["write_directly"]

T = TypeVar("T")


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
        drain_held(rows)
        find_room(rows.env, RESERVE)
    return rows.env.recent.alone(_change, rows, work, void, timeout=rows.timeout)


def _change(rows: Rows, work: Callable[[Any, int], T], void: bool) -> tuple[T, int]:
    env = rows.env
    set_mark = partial(_set_void_mark, base=rows.base) if void else partial(_set_mark, stuck=_drain_the_rest(rows))
    mark = env.recent.write_urgently(set_mark)
    number = rows.base + mark  # not that of what follows: if this process dies, another writes under that number

    def change(d: Any) -> T:
        begin_totals(rows)
        done = work(d, number)
        end_totals(rows, d)
        note_clocks(rows, d)
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
    number, found = snapshot_of(rows)
    return rows.env.data.write(apply_recent, rows, found, number) if found else []


def _set_mark(r: Any, stuck: Recent) -> int:
    """Leave nothing but the base, the mark and what is damaged; gives the id."""
    _leave(r, {BASE, *(key for key, _ in stuck)})
    r.put(MARK, b"")
    return int(r.id())


def _set_void_mark(r: Any, base: int) -> int:
    """Note the number from which on, if the data have it, what is here is void; gives the id."""
    r.put(MARK, NUMBER.pack(base + r.id()))
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
