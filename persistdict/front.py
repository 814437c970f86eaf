"""The cache in front of a store: which of its copies may be served, and which may be kept.

A copy is (value, tag, seq, stamp, until): the value itself if it is immutable (tag None), else its encoded bytes,
which every hit decodes anew, so that no two callers ever hold the same object; the entry's identity; the id of the
commit at which it was read or written; and when it ends (None: never).

`mark` is the id of the last commit that the copies take into account, `floor` the oldest stamp that is still good.
The rule: a copy is valid if the store's id is `mark` and its stamp is at least `floor`.

- Our own write replaces the one copy that it changes, then moves `mark` on. If the commit before it was not ours
  (id - 1 is not `mark`), everything older becomes invalid by raising `floor`; nothing is cleared.
- A reader that finds a foreign commit raises `floor` and `mark` to its snapshot. While a write of ours is under way
  (`writing`) it leaves them alone: the new id may be our own, about to be accounted for.
- A value read from the store is kept only if its snapshot is `mark`, under the lock. So a slow reader cannot plant a
  value that was overwritten meanwhile.
- A reader takes `mark` first, then the copy, then the id (or what the store tells in its place, `latest`), then
  `floor`. Writers change the copy before `mark`, and `floor` before `mark`. So when the id equals the `mark` taken
  first, the copy was current in between.
- Where ids begin anew, the store has everything forgotten (`clear`) before anybody sees one.

If a write fails or is interrupted at any point, `mark` stays behind the store's id, and readers go to the store; a
write that has changed nothing is not accounted for, as the next one gets its id.

Threads: `lock` guards changes of copies, `mark` and `floor`; it is never held across a call of the store. Lookups in
the default cache take no lock. Processes: a forked child gets an empty front.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, MutableMapping
from itertools import cycle, repeat
from typing import Any

from persistdict.forking import hold_over_fork
from persistdict.statistics import Counter

__all__ = ["Front"]

Copy = tuple[Any, int | None, bytes, int, float | None]
MAX_ENTRIES = 128  # of the default cache
LARGEST = 32 * 1024  # bytes of an encoded value that the default cache keeps; a store reads larger ones fast enough
ADMIT_ONE_IN = 8  # misses of a full default cache; keeps a scan over everything from costing twice


class Front:
    """The copies of one dictionary.

    Attributes:
        hits: counts those that were served.
        chances: gives for the next miss whether it is worth to be kept.

    Args:
        cache: None for no cache, "lru" for the default one, or any cachetools cache (or other mutable mapping).
    """

    lookup: Callable[[Any], Copy | None]
    promote: Callable[[Any], object]

    def __init__(self, cache: MutableMapping[Any, Any] | str | None) -> None:
        self.lock = threading.RLock()
        self.hits = Counter()
        self.mark = -1
        self.floor = 0
        self.writing = False  # guarded by the dictionary's write lock
        self._own = object()  # tells our keys from others' in a cache that the caller shares between dictionaries
        self._always, self._sometimes = repeat(True), cycle((True,) + (False,) * (ADMIT_ONE_IN - 1))
        self.chances: Iterator[bool] = self._always
        self._cache: MutableMapping[Any, Any] | None = None  # the caller's
        self._entries: OrderedDict[Any, Copy] | None = None  # of the default cache
        self.promote = bool
        if cache == "lru":
            from persistdict.lru import FastLRUCache128

            self._entries = FastLRUCache128().entries
            self.lookup = self._entries.get
            self.promote = self._entries.move_to_end
        elif cache is None or isinstance(cache, str):
            self.lookup = {}.get
            self.chances = repeat(False)
        else:
            self._cache = cache
            self.lookup = self._lookup_locked
            self.lock = _lock_of(cache)
        hold_over_fork(self)

    def _lookup_locked(self, key: Any) -> Copy | None:
        with self.lock:
            try:
                return self._cache.get((self._own, key))  # type: ignore[union-attr]
            except KeyError:  # from within the cache; not to be taken for an absent key of the dictionary
                return None

    def admit(self, key: Any, copy: Copy, size: int) -> None:
        """Keep what was read at the snapshot `copy[3]`, if that is still what `mark` stands for.

        For a caller who has asked `chances`, or has found a copy that is no longer valid, or another mark than that.
        """
        stamp = copy[3]
        with self.lock:
            if stamp != self.mark:
                if stamp < self.mark or self.writing:
                    return
                self.floor = stamp
                self.mark = stamp
            entries = self._entries
            if entries is None:
                if self._cache is not None:
                    self._keep(key, copy)
                return
            if size < LARGEST:
                if key in entries:
                    entries.move_to_end(key)
                elif len(entries) >= MAX_ENTRIES:
                    entries.popitem(last=False)
                entries[key] = copy
            self.chances = self._always if len(entries) < MAX_ENTRIES else self._sometimes

    def wrote(self, commit: int, key: Any, copy: Copy | None, size: int = 0) -> None:
        """Account for our own commit: `copy` is what the key holds now, None for nothing (or: do not keep it)."""
        with self.lock:
            if commit <= self.mark:  # a reader has seen a later, foreign commit
                return
            entries = self._entries
            if entries is None:
                if self._cache is not None:
                    self._keep(key, copy)
            elif copy is None or size >= LARGEST:
                entries.pop(key, None)
                self.chances = self._always
            else:
                if key in entries:
                    entries.move_to_end(key)
                elif len(entries) >= MAX_ENTRIES:
                    entries.popitem(last=False)
                entries[key] = copy
            if self.mark != commit - 1:
                self.floor = commit
            self.mark = commit

    def wrote_many(self, commit: int, keys: list[Any]) -> None:
        """Account for our own commit that changed these keys; their copies are dropped."""
        with self.lock:
            if commit <= self.mark:
                return
            for key in keys:
                if self._entries is not None:
                    self._entries.pop(key, None)
                    self.chances = self._always
                elif self._cache is not None:
                    self._keep(key, None)
            if self.mark != commit - 1:
                self.floor = commit
            self.mark = commit

    def clear(self) -> None:
        """Forget all copies."""
        with self.lock:
            self.floor = max(self.floor, self.mark + 1)  # never lower: a reader may be about to compare with it
            self.mark = -1
            if self._entries is not None:
                self._entries.clear()
                self.chances = self._always
            self._own = object()  # the copies in a cache of the caller cannot be found any more, and age out

    def _keep(self, key: Any, copy: Copy | None) -> None:
        """Put a copy into the caller's cache, or take it out."""
        assert self._cache is not None
        self._cache.pop((self._own, key), None)
        if copy is not None:
            with contextlib.suppress(ValueError):  # cachetools: larger than the whole cache
                self._cache[(self._own, key)] = copy

    def after_fork(self) -> None:
        """In the child: nothing is inherited."""
        self.lock = threading.RLock() if self._cache is None else _lock_of(self._cache)
        self.writing = False
        self.clear()


_locks: weakref.WeakValueDictionary[tuple[int, int], Any] = weakref.WeakValueDictionary()
_locks_lock = threading.Lock()


def _lock_of(cache: MutableMapping[Any, Any]) -> Any:
    """The one lock of a cache of the caller, which may be given to several dictionaries."""
    key = (os.getpid(), id(cache))  # as long as the lock lives, so does a front that holds the cache
    with _locks_lock:
        lock = _locks.get(key)
        if lock is None:
            lock = _locks[key] = threading.RLock()
        return lock


def _after_fork_in_child() -> None:
    global _locks_lock
    _locks_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
