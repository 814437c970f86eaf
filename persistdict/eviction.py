"""Keeping a store within bounds: which entries go, when, and what is refused.

Before a write there must be room for it. Where there is not, entries go until the store holds 95 % of its bound, those
first that were not used for the longest time, or what the policy says (ranking.py). Whether one was used since it was
ranked is decided again in the transaction that removes it. Reads are noted in batches: those of the time since the last
round of upkeep, or the last pass, count as equally late.

Where upkeep runs in the background it is asked in time; while it is at work, writers go on beyond the bound a little.
What was beyond a bound from the first is left to it, too: nobody's first write waits until all of that is gone.

Threads: any number.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from typing import Any

from persistdict.bounded import Access, Usage
from persistdict.clocked import is_believed
from persistdict.errors import DiskFullError, FullError, TooLargeError
from persistdict.log import Log
from persistdict.ranking import Ranking

__all__ = ["Bounds", "go_on"]

NEAR, HIGH, LOW = 0.9, 0.975, 0.95  # parts of a bound: from NEAR on upkeep looks for candidates; above HIGH, entries
# go until LOW
BEYOND = 1.02  # what a writer may reach while upkeep is at work; several may write at once
STEP = 512  # entries that one step of removing what is over looks at
BATCH = 256  # entries that one transaction removes
OVERHEAD = 64  # bytes that an entry takes beside its key and value, about
LOOKS = 4  # after so big a part of the room is taken, look again: others write too
MOST_UNSEEN = 128  # and after so big a part of the bound: there may be less room by then


def go_on() -> bool:
    """Of a pass that nobody stops."""
    return True


class Bounds:
    """Keeps one store within bounds.

    Args:
        store: the store, or what stands for it before it is opened.
        max_entries, max_bytes: the bounds, or None.
        policy: "lru", "lfu", "fifo" or "none".
        log: is told of the first eviction.

    Attributes:
        evicted: how many entries were removed.
        ask: called by a writer when a bound is near, so that upkeep makes room before it is reached.
        limits: the bounds and the policy.
    """

    def __init__(self, store: Any, max_entries: int | None, max_bytes: int | None, policy: str, log: Log) -> None:
        self._store, self._policy, self._log = store, policy, log
        self._max = Usage(max_entries or 1 << 62, max_bytes or 1 << 62)
        self._left = Usage(0, 0)  # what may be written before looking again
        self._ranking = Ranking(store, policy)
        self._candidates: list[Access] = []  # the next to go is the last
        self._lock = threading.RLock()
        self._waiting = 0  # writers, about; for them upkeep does not rest
        self._keeping = False  # whether upkeep is at work; guarded by _lock
        self._found: Usage | None = None  # what was there at the first look, until upkeep has made room
        self.ask: Callable[[], object] | None = None
        self.evicted = 0
        self.limits = max_entries, max_bytes, policy

    def make_room(self, sizes: list[int], present: Callable[[], Usage]) -> None:
        """Before entries of these sizes are written: see that there is room.

        Args:
            sizes: bytes of the keys and values.
            present: tells how many of the keys are there already, and the bytes of their keys and values.

        Raises TooLargeError if one alone is beyond the bound, FullError if nothing may go.
        """
        size = sum(sizes) + OVERHEAD * len(sizes)
        entries, room = self._left
        self._left = left = Usage(entries - len(sizes), room - size)
        if left.entries < 0 or left.size < 0 or size > self._max.size:
            if max(sizes, default=0) > self._max.size:
                raise TooLargeError(f"an entry of {max(sizes):,} bytes is larger than max_bytes={self._max.size:,}")
            coming = Usage(len(sizes), size)
            usage = self._store.usage()
            if self._found is None:
                self._found = usage
            if self._keeping and (not self._exceeds(usage, coming, BEYOND) or self._was_so(usage, coming)):
                return  # upkeep is making room
            try:
                self._waiting += 1
                with self._lock:
                    self._look(coming, present)
            finally:
                self._waiting -= 1

    def _look(self, coming: Usage, present: Callable[[], Usage]) -> None:
        usage = self._store.usage()
        if self.ask is not None and self._was_so(usage, coming):
            self._left = Usage(0, 0)
            self.ask()
            return
        if self._exceeds(usage, coming, 1.0):
            entries, size = present()
            coming = Usage(coming.entries - entries, coming.size - size - OVERHEAD * entries)
            if not coming.entries and usage.size + coming.size <= self._max.size:
                self._left = Usage(0, 0)
                return  # an overwrite adds no entry
            if self._policy != "none":
                usage = self._evict(coming, go_on)
            else:
                usage = self._without_what_is_over(coming)
                if self._exceeds(usage, coming, 1.0):
                    raise FullError(_full_message(self._max, usage, coming))
        elif (
            self.ask is not None
            and self._policy != "none"
            and self._exceeds(usage, coming, HIGH if self._candidates else NEAR)
        ):
            self.ask()
            self._left = Usage(0, 0)  # ask again: what was about to be written was not there yet
            return
        self._left = Usage(
            min(max(0, self._max.entries - usage.entries - coming.entries) // LOOKS, self._max.entries // MOST_UNSEEN),
            min(max(0, self._max.size - usage.size - coming.size) // LOOKS, self._max.size // MOST_UNSEEN),
        )

    def _was_so(self, usage: Usage, coming: Usage) -> bool:
        """Whether the bound was exceeded from the first, and is not by more than then, or only by a little."""
        found = self._found
        return (
            found is not None
            and self._policy != "none"
            and self._exceeds(found, Usage(0, 0), 1.0)
            and usage.entries + coming.entries <= max(found.entries, self._max.entries) * BEYOND
            and usage.size + coming.size <= max(found.size, self._max.size) * BEYOND
        )

    def after_fork(self) -> None:
        """In the child: nobody else is in here."""
        self._lock, self._waiting, self._keeping = threading.RLock(), 0, False

    def _without_what_is_over(self, coming: Usage) -> Usage:
        """What is there, exactly; and if that is too much, without the entries that are past their deadline."""
        usage: Usage = self._store.usage(exact=True)
        store = self._store
        if store.idle is not None or not self._exceeds(usage, coming, HIGH):
            return usage
        if is_believed(store.clocks(), store.clock()) and self._expire():
            usage = store.usage(exact=True)
        return usage

    def _expire(self) -> int:
        removed, position = 0, b""
        while position is not None:
            more, position = self._store.expire(STEP, position)
            removed += more
            self._store.counts.expirations.add(more)
        return removed

    def _exceeds(self, usage: Usage, coming: Usage, part: float) -> bool:
        entries, size = usage.entries + coming.entries, usage.size + coming.size
        return entries > _share(self._max.entries, part) or size > self._max.size * part

    def keep(self, proceed: Callable[[], bool] = go_on) -> int:
        """Remove what is beyond the bounds, or nearly, step by step while `proceed()` is true. Tells how many."""
        if self._policy == "none":
            return 0
        with self._lock:
            before, nothing = self.evicted, Usage(0, 0)
            try:
                self._keeping = True
                patient = lambda: self._waiting > 0 or proceed()  # noqa: E731
                if self._exceeds(self._store.usage(), nothing, HIGH):
                    self._evict(nothing, patient)
                elif not self._candidates and self._exceeds(self._store.usage(), nothing, NEAR):
                    self._rank(self._store.usage().entries, patient)
                if not self._exceeds(self._store.usage(), nothing, 1.0):
                    self._found = nothing
            finally:
                self._keeping = False
            return self.evicted - before

    def _evict(self, coming: Usage, proceed: Callable[[], bool]) -> Usage:
        """If HIGH is exceeded with what is coming, remove entries until LOW is reached. Gives what is there then."""
        usage = self._without_what_is_over(coming)
        if not self._exceeds(usage, coming, HIGH):
            return usage
        aim = Usage(
            min(_share(self._max.entries, LOW), self._max.entries - coming.entries),
            min(int(self._max.size * LOW), self._max.size - coming.size),
        )
        unless = "" if self._policy == "fifo" else "used"
        in_vain = False  # whether all that were ranked in here were used meanwhile
        while _is_above(usage, aim) and proceed():
            if usage.entries == 1 and not coming.size and usage.size <= self._max.size:
                break  # room for nothing is no reason to go
            if not self._candidates:
                if in_vain and unless != "used":
                    break
                unless = "written" if in_vain else unless
                self._rank(usage.entries, proceed)
                in_vain = True
            before = self.evicted
            with self._store.evicting():
                usage = self._evict_some(aim, unless, proceed)
            in_vain = in_vain and self.evicted == before
        return usage

    def _evict_some(self, aim: Usage, unless: str, proceed: Callable[[], bool]) -> Usage:
        """Remove candidates until the aim is reached; others may have done so."""
        usage: Usage = self._store.usage(exact=True)
        while self._candidates and _is_above(usage, aim) and proceed():
            batch = self._next(usage.entries - aim.entries, usage.size - aim.size)
            gone = self._store.evict(batch, unless=unless)
            usage = Usage(max(0, usage.entries - gone.entries), max(0, usage.size - gone.size))
            self._tell(gone.entries)
        return usage

    def _next(self, entries: int, size: int) -> list[Access]:
        batch: list[Access] = []
        while self._candidates and len(batch) < BATCH and (entries > 0 or size > 0):
            batch.append(self._candidates.pop())
            entries, size = entries - 1, size - batch[-1].size
        return batch

    def _tell(self, gone: int) -> None:
        if gone and not self.evicted:
            limits = f"max_entries={self._max.entries:,}" if self._max.entries < 1 << 62 else ""
            limits += f" max_bytes={self._max.size:,}" if self._max.size < 1 << 62 else ""
            self._log.warning(f"entries are evicted from now on ({limits.strip()}, eviction={self._policy!r})")
        self.evicted += gone
        self._store.counts.evictions.add(gone)

    def _rank(self, entries: int, proceed: Callable[[], bool]) -> None:
        """Find the candidates for the next rounds."""
        self._store.sync()  # else what was evicted since would be found again
        with contextlib.suppress(DiskFullError):  # what was read since is known to this process at least
            self._store.flush_touched(self._store.clock())
        self._candidates = self._ranking.candidates(entries, proceed)


def _is_above(usage: Usage, aim: Usage) -> bool:
    return usage.entries > max(0, aim.entries) or usage.size > max(0, aim.size)


def _share(entries: int, part: float) -> int:
    """A part of so many entries; of a few, all: a bound of one is no bound of none."""
    return math.ceil(entries * part) if part < 1 else int(entries * part)


def _full_message(bounds: Usage, usage: Usage, coming: Usage) -> str:
    many, large = f"max_entries={bounds.entries:,}", f"max_bytes={bounds.size:,}"
    bound = many if usage.entries + coming.entries > bounds.entries else large
    return f"there is no room within {bound}, and eviction='none' removes nothing; delete some entries"
