"""What handles on entries in memory share."""

from __future__ import annotations

import os
import threading
import weakref
from typing import NamedTuple

from persistdict.clocked import Clocks
from persistdict.forking import hold_over_fork
from persistdict.statistics import Removed
from persistdict.turn import Turn

__all__ = ["Entries", "Row", "entries_named"]


class Row(NamedTuple):
    hint: bytes
    tag: int
    blob: bytes
    seq: bytes
    version: int
    ctime: float
    mtime: float
    deadline: float | None
    label: bytes

    def begun_at(self, now: float) -> Row:
        """The same, as if it had been written now."""
        ends = None if self.deadline is None else now + self.deadline - self.mtime
        return self._replace(ctime=min(self.ctime, now), mtime=now, deadline=ends)


class Entries:
    """What handles of one name share. Also the `Moment` of all of them.

    `rows` is in order of creation, which is the order of seq. `lock` guards everything, readers included: a transaction
    changes the rows in place.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.rows: dict[bytes, Row] = {}
        self.atimes: dict[bytes, float] = {}
        self.uses: dict[bytes, int] = {}
        self.touched: dict[bytes, float | None] = {}
        self.info: dict[str, str] = {}
        self.removed = Removed()
        self.clocks = Clocks(None, None)
        self.commit = 0
        self.writing = False
        self.turn = Turn()
        hold_over_fork(self)

    def after_fork(self) -> None:
        """In the child: as it was, with a new lock."""
        self.lock = threading.RLock()

    def id(self) -> int:
        return self.commit

    def forget(self, seq: bytes) -> None:
        """Drop what is known of reads of an entry that is gone."""
        self.atimes.pop(seq, None)
        self.uses.pop(seq, None)


_named: weakref.WeakValueDictionary[str, Entries] = weakref.WeakValueDictionary()
_named_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _named_lock
    _named_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def entries_named(name: str | None) -> Entries:
    """The entries that go by this name in this process; new ones, of nobody else, for no name."""
    if not name:
        return Entries()
    with _named_lock:
        return _named.setdefault(name, Entries())
