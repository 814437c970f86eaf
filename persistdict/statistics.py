"""What is counted, and how: `Stats` as the user gets it, and the counters behind it.

To count one, `next(counter)`: a single step of C that takes no lock and makes no object, so that no thread's count is
lost and a read that the cache answers takes some 5 % longer (with `itertools.count` 9 %). A counter never goes back:
who sets it to zero remembers where it stood. What may be slower, larger numbers and setting to zero, goes under
`_guard.lock`, which is held briefly, and over a fork.

Processes: a forked child goes on with the numbers of its parent, and from then on each counts its own.
"""

import abc
import sys
import threading
import time
from collections.abc import Callable, Mapping
from itertools import repeat
from operator import length_hint
from typing import NamedTuple, TypeVar

from persistdict.errors import ClosedError, told
from persistdict.forking import hold_over_fork

__all__ = ["Counted", "Counter", "Counts", "Removed", "Sizes", "Stats", "Tally", "TaskLog", "TaskStatus"]

T = TypeVar("T")

TASKS = ("sync", "access times", "evict", "expire", "check")


class TaskStatus(NamedTuple):
    """How a task of upkeep went in this process, for whichever dictionary on the same entries.

    Attributes:
        last_run: when it ended last, well or not, by the clock of the dictionary; None if it did not run yet.
        duration: how many seconds it took then.
        last_error: what it failed with then, of errors of other code the type alone; None if it went well.
        runs: how often it ran.
    """

    last_run: float | None = None
    duration: float = 0.0
    last_error: str | None = None
    runs: int = 0


class Stats(NamedTuple):
    """What `PersistDict.stats` returns.

    What is counted is counted for this dictionary object, since it was opened or since the last reset. A forked child
    goes on with its parent's numbers; a copy, and what comes out of a pickle, begins at zero. `key in d`, iteration and
    `entry` count nothing.

    Attributes:
        hits: reads that found a value: by `d[key]`, `get`, `get_many`, `pop`, `setdefault`.
        cached: those of them that the cache in memory answered.
        misses: reads that found none.
        expired: those of them for which the entry was still in the store, but over.
        sets: entries written.
        deletes: entries removed by the user; by `clear`, also such as were over.
        evictions: entries that upkeep in this process has removed because of a bound.
        expirations: entries that upkeep in this process, or `expire`, has removed because they were over.
        entries: how many there are, as `len` says.
        live_bytes: what they take, with keys and times: what `max_bytes` bounds (0 in a damaged store). Recent writes
            count even if they replace others. The rest of the files is pages that are not full, and room for more.
        file_bytes: what the files of the store take on the disk, as `du` says; 0 in memory.
        backlog: about how many bytes of recent writes, of all processes, are not in the data yet.
        tasks: how the tasks of upkeep went: "sync", "access times", "evict", "expire", "check". Not set to zero.
    """

    hits: int
    cached: int
    misses: int
    expired: int
    sets: int
    deletes: int
    evictions: int
    expirations: int
    entries: int
    live_bytes: int
    file_bytes: int
    backlog: int
    tasks: Mapping[str, TaskStatus]

    @property
    def cold(self) -> int:
        """The misses for which nothing was in the store."""
        return max(0, self.misses - self.expired)  # a read under way has told of the second only


class Sizes(NamedTuple):
    """What a store takes, in bytes; see `Stats`."""

    live: int = 0
    files: int = 0
    backlog: int = 0


class _Guard:
    """The lock of everything here. Who holds another lock that a fork waits for must not take it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        hold_over_fork(self)

    def after_fork(self) -> None:
        """In the child: a new lock."""
        self.lock = threading.RLock()


_guard = _Guard()


class Counter(repeat):  # type: ignore[type-arg] # which has none at run time
    """A number that grows: by one with every `next`, from any thread, without a lock.

    It is an iterator that gives None very often, and knows how often it still will.
    """

    __slots__ = ("_more",)
    _more: int

    def __new__(cls) -> "Counter":
        self = super().__new__(cls, None, sys.maxsize)
        self._more = 0  # guarded by _guard.lock
        return self

    def add(self, number: int) -> None:
        """Count so many at once."""
        with _guard.lock:
            self._more += number

    def value(self) -> int:
        """What was counted."""
        return sys.maxsize - int(length_hint(self)) + self._more


class Removed:
    """What upkeep has removed of the same entries in this process, through whatever handle."""

    def __init__(self) -> None:
        self.evictions = Counter()
        self.expirations = Counter()


class Counts:
    """What a handle on a store counts.

    Attributes:
        expired: reads (`Store.read`, `Store.get_many`) of keys that were still there, but over.
        evictions, expirations: of all handles on the same entries in this process.
    """

    def __init__(self, removed: Removed) -> None:
        self.expired = Counter()
        self.evictions, self.expirations = removed.evictions, removed.expirations


class Counted(abc.ABC):  # abstract as Clocked
    """The part of a store that statistics ask."""

    counts: Counts

    def sizes(self) -> Sizes:
        """How many bytes the store takes; quick, however many entries it has."""
        return Sizes()


class Tally:
    """What one dictionary counts; `cached` is what its front does."""

    def __init__(self, cached: Counter) -> None:
        self.cached, self.found, self.missed = cached, Counter(), Counter()
        self.sets, self.deletes = Counter(), Counter()
        self._counts = Counts(Removed())  # of the store
        self._zero = [0] * 8  # where the counters stood when they were set to zero; guarded by _guard.lock

    def follow(self, counts: Counts) -> None:
        """Take over the counters of the store that was opened, from zero."""
        with _guard.lock:
            self._counts = counts
            self._zero[-3:] = [counter.value() for counter in self._counters()[-3:]]

    def _counters(self) -> list[Counter]:
        counts = self._counts
        own = [self.cached, self.found, self.missed, self.sets, self.deletes]
        return [*own, counts.expired, counts.evictions, counts.expirations]

    def reset(self) -> None:
        """Begin at zero."""
        self.stats(0, Sizes(), {}, reset=True)

    def stats(self, entries: int, sizes: Sizes, tasks: Mapping[str, TaskStatus], *, reset: bool) -> Stats:
        """The numbers, with these that are not counted; and if asked, all zero from then on."""
        with _guard.lock:
            now = [counter.value() for counter in self._counters()]
            numbers = [value - zero for value, zero in zip(now, self._zero, strict=True)]
            if reset:
                self._zero = now
        cached, found, misses, sets, deletes, expired, evictions, expirations = numbers
        return Stats(
            cached + found, cached, misses, expired, sets, deletes, evictions, expirations, entries, *sizes, tasks
        )


class TaskLog:
    """How the tasks of upkeep went. Threads: any number."""

    def __init__(self) -> None:
        self._known = {name: TaskStatus() for name in TASKS}  # guarded by _guard.lock

    def run(self, name: str, clock: Callable[[], float], task: Callable[[], T]) -> T:
        """Run a task and note how it went; not if the store was closed meanwhile."""
        begun = time.monotonic()
        error: BaseException | None = None
        try:
            return task()
        except BaseException as caught:
            error = caught
            raise
        finally:
            if not isinstance(error, ClosedError):
                self._note(name, clock(), time.monotonic() - begun, error)
            del error  # its traceback leads back to here

    def _note(self, name: str, now: float, duration: float, error: BaseException | None) -> None:
        text = None if error is None else told(error)
        with _guard.lock:
            runs = self._known.get(name, TaskStatus()).runs + 1
            self._known[name] = TaskStatus(now, duration, text, runs)

    def status(self) -> dict[str, TaskStatus]:
        """All tasks by their names."""
        with _guard.lock:
            return dict(self._known)
