"""Which entries are to go first, by a policy.

One pass over all entries finds the candidates for several rounds of eviction, in exact order: an entry that is not used
can only be overtaken by such as were used later. The pass also takes a sample of the times of use; so the next passes
know before which time the next candidates were used last, and may stop when they have found enough of them. When the
sample is used up, which is after about as many evictions as there are entries, a whole pass follows.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from persistdict.bounded import Access

__all__ = ["POLICIES", "Ranking"]

POLICIES = ("lru", "lfu", "fifo", "none")
STEP = 512  # entries that one step of a pass looks at
MOST, LEAST = 1 << 16, 64  # candidates
SAMPLE = 2048  # times of use

Item = tuple[int, float, int, Access]


class Ranking:
    """Finds the entries of one store that are to go first. Threads: one at a time."""

    def __init__(self, store: Any, policy: str) -> None:  # or what stands for the store before it is opened
        self._store, self._policy = store, policy
        self._limits: list[float] = []  # times of use; the first to be asked for is the last

    def candidates(self, entries: int, proceed: Callable[[], bool]) -> list[Access]:
        """Of about so many entries those that are to go first, the first of them last; none if it was stopped."""
        wanted = min(MOST, max(LEAST, entries // 4))
        if self._policy == "fifo":
            return self._scan(wanted, float("inf"), proceed)[::-1]
        while self._limits:
            found = self._scan(wanted, self._limits.pop(), proceed)
            if found:
                return sorted(found, key=attrgetter("used_at"), reverse=True)
            if not proceed():
                return []
        return self._rank(wanted, proceed)

    def _scan(self, wanted: int, before: float, proceed: Callable[[], bool]) -> list[Access]:
        """The first in order of creation that were used last before that time."""
        found: list[Access] = []
        position: bytes | None = b""
        while position is not None and len(found) < wanted and proceed():
            more, position = self._store.accesses(STEP, position, before=before)
            found += more
        return found

    def _rank(self, wanted: int, proceed: Callable[[], bool]) -> list[Access]:
        """A pass over all entries."""
        by_uses = self._policy == "lfu"
        first: list[Item] = []  # a heap; its first item is the one that would stay longest
        sample: list[float] = []
        seen, position = 0, b""
        while proceed():
            found, following = self._store.accesses(STEP, position)
            for access in found:
                seen += 1
                item = -access.uses if by_uses else 0, -access.used_at, -seen, access
                if len(first) < wanted:
                    heapq.heappush(first, item)
                elif item > first[0]:
                    heapq.heapreplace(first, item)
                if len(sample) < SAMPLE:
                    sample.append(access.used_at)
                elif random.random() * seen < SAMPLE:
                    sample[random.randrange(SAMPLE)] = access.used_at
            if following is None:
                self._limits = [] if by_uses else _limits(sorted(sample), wanted / max(seen, 1))
                return [item[3] for item in sorted(first)]
            position = following
        return []


def _limits(sample: list[float], part: float) -> list[float]:
    """The times before which so big a part of the entries was used last, the next part, and so on; the last first.

    Without the first, which was found already, and such parts as a small sample cannot tell.
    """
    if len(sample) < SAMPLE:
        return []
    size = int(part * len(sample))
    return [sample[at] for at in range(2 * size, len(sample), size)][::-1] if size >= LEAST // 4 else []
