"""Keeping a store within bounds: which entries go, when, and what is refused.

Before a write there must be room for it. Where there is not, entries go until the store holds 95 % of its bound, least
recently used first (or what the policy says). The order is exact: one pass over the times of use gives the candidates
for several rounds, for an entry that is not used can only be overtaken by such as were used later; and whether it was
used since is decided again in the transaction that removes it.

Threads: any number.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from typing import Any

from persistdict.bounded import Access, Usage
from persistdict.errors import FullError, TooLargeError
from persistdict.log import Log

__all__ = ["POLICIES", "Bounds"]

POLICIES = ("lru", "lfu", "fifo", "none")
HIGH, LOW = 0.975, 0.95  # parts of a bound: above the one, entries go until the other
STEP = 1024  # entries that one step of a pass looks at
BATCH = 256  # entries that one transaction removes
MOST = 1 << 16  # candidates that are kept
LEAST = 64
OVERHEAD = 64  # bytes that an entry takes beside its key and value, about
LOOKS = 4  # after so big a part of the room is taken, look again: others write too
MOST_UNSEEN = 128  # and after so big a part of the bound: there may be less room by then


def _go_on() -> bool:
    return True


class Bounds:
    """Keeps one store within bounds.

    Args:
        store: the store, or what stands for it before it is opened.
        max_entries, max_bytes: the bounds, or None.
        policy: one of POLICIES.
        log: is told of the first eviction.

    Attributes:
        evicted: how many entries were removed.
    """

    def __init__(self, store: Any, max_entries: int | None, max_bytes: int | None, policy: str, log: Log) -> None:
        self._store, self._policy, self._log = store, policy, log
        self._max = Usage(max_entries or 1 << 62, max_bytes or 1 << 62)
        self._left = Usage(0, 0)  # what may be written before looking again
        self._candidates: list[Access] = []  # the next to go is the last
        self._lock = threading.RLock()
        self.evicted = 0

    def make_room(self, sizes: list[int], is_new: Callable[[], int] | None = None) -> None:
        """Before entries of these sizes are written: see that there is room.

        Args:
            sizes: bytes of the keys and values.
            is_new: tells how many of the keys are not there yet; None if that does not matter.

        Raises TooLargeError if one alone is beyond the bound, FullError if nothing may go.
        """
        size = sum(sizes) + OVERHEAD * len(sizes)
        entries, room = self._left
        self._left = left = Usage(entries - len(sizes), room - size)
        if left.entries < 0 or left.size < 0 or size > self._max.size:
            if max(sizes, default=0) > self._max.size:
                raise TooLargeError(f"an entry of {max(sizes):,} bytes is larger than max_bytes={self._max.size:,}")
            with self._lock:
                self._look(Usage(len(sizes), size), is_new)

    def _look(self, coming: Usage, is_new: Callable[[], int] | None) -> None:
        usage = self._store.usage()
        if self._exceeds(usage, coming, 1.0):
            usage = self._without_what_is_over(coming)
            if self._policy == "none":
                if is_new is not None and usage.size + coming.size <= self._max.size:
                    coming = Usage(is_new(), coming.size)
                if self._exceeds(usage, coming, 1.0):
                    raise FullError(_full_message(self._max, usage))
            elif self._exceeds(usage, coming, HIGH):
                usage = self._evict(usage, coming, _go_on)
        self._left = Usage(
            min(max(0, self._max.entries - usage.entries - coming.entries) // LOOKS, self._max.entries // MOST_UNSEEN),
            min(max(0, self._max.size - usage.size - coming.size) // LOOKS, self._max.size // MOST_UNSEEN),
        )

    def _without_what_is_over(self, coming: Usage) -> Usage:
        """What is there, exactly; and if that is too much, without the entries that are past their deadline."""
        usage: Usage = self._store.usage(exact=True)
        if self._store.idle is None and self._exceeds(usage, coming, HIGH) and self._expire():
            usage = self._store.usage(exact=True)
        return usage

    def _expire(self) -> int:
        removed: int
        removed, position = self._store.expire(STEP)
        while position is not None:
            more, position = self._store.expire(STEP, position)
            removed += more
        return removed

    def _exceeds(self, usage: Usage, coming: Usage, part: float) -> bool:
        entries, size = usage.entries + coming.entries, usage.size + coming.size
        return entries > self._max.entries * part or size > self._max.size * part

    def keep(self, proceed: Callable[[], bool] = _go_on) -> int:
        """Remove what is beyond the bounds, or nearly, step by step while `proceed()` is true. Tells how many."""
        if self._policy == "none":
            return 0
        with self._lock:
            before, nothing = self.evicted, Usage(0, 0)
            if self._exceeds(self._store.usage(), nothing, HIGH):
                usage = self._without_what_is_over(nothing)
                if self._exceeds(usage, nothing, HIGH):
                    self._evict(usage, nothing, proceed)
            return self.evicted - before

    def _evict(self, usage: Usage, coming: Usage, proceed: Callable[[], bool]) -> Usage:
        """Remove entries until LOW is reached with what is coming. Gives what is there then."""
        entries, size = usage
        aim = Usage(
            min(int(self._max.entries * LOW), self._max.entries - coming.entries),
            min(int(self._max.size * LOW), self._max.size - coming.size),
        )
        fresh = False  # whether the candidates are of a pass that began in here
        while (entries > aim.entries or size > aim.size) and entries > 0 and proceed():
            if not self._candidates:
                if fresh:
                    break  # all the others were used meanwhile
                self._rank(entries, proceed)
                fresh = True
                continue
            batch = self._next(entries - aim.entries, size - aim.size)
            gone = self._store.evict(batch, unused=self._policy != "fifo")
            entries, size = entries - gone.entries, size - gone.size
            fresh = fresh and not gone.entries
            self._tell(gone.entries)
        return Usage(max(0, entries), max(0, size))

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

    def _rank(self, entries: int, proceed: Callable[[], bool]) -> None:
        """Find the candidates for the next rounds, in one pass over all entries."""
        keep = min(MOST, max(LEAST, entries // 4))
        by_uses, in_order = self._policy == "lfu", self._policy == "fifo"
        heap: list[tuple[int, float, int, Access]] = []  # its first is the one that would stay longest
        limit, n = float("inf"), 0
        position: bytes | None = b""
        while position is not None and proceed() and not (in_order and len(heap) >= keep):
            found, position = self._store.accesses(STEP, position, before=limit)
            for access in found:
                n -= 1
                item = (-access.uses if by_uses else 0, 0.0 if in_order else -access.used_at, n, access)
                if len(heap) < keep:
                    heapq.heappush(heap, item)
                elif not in_order:
                    heapq.heappushpop(heap, item)
            if len(heap) >= keep and not by_uses and not in_order:
                limit = heap[0][3].used_at
        self._candidates = [item[3] for item in sorted(heap)] if position is None or in_order else []


def _full_message(bounds: Usage, usage: Usage) -> str:
    many, large = f"max_entries={bounds.entries:,}", f"max_bytes={bounds.size:,}"
    bound = many if usage.entries >= bounds.entries else large
    return f"there is no room within {bound}, and eviction='none' removes nothing; delete some entries"
