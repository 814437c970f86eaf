"""Whose turn it is: of the threads of a process that want a transaction of one store, one has it."""

import errno
import gc
import os
import threading
import time
import weakref
from threading import get_ident

from persistdict.errors import BusyError, NestedWriteError

__all__ = ["Turn", "Wish"]

SHORTEST, LONGEST = 20e-6, 2e-3  # seconds between two looks


class Wish:
    """The wish of a thread to have the turn, which ends at the latest when nobody refers to it any more."""

    def __init__(self) -> None:
        self.thread = get_ident()


class Turn:
    """A lock between threads that a signal cannot leave taken: it is free once the wish of who has it is gone.

    A forked child begins with one that is free.
    """

    def __init__(self) -> None:
        self.begin_anew()
        _turns.add(self)

    def begin_anew(self) -> None:
        """Nobody has it, whoever had."""
        self._lock = threading.Lock()  # held for a few steps
        self._holder: weakref.ref[Wish] | None = None  # guarded by _lock

    def take(self, wish: Wish, timeout: float, place: str) -> None:
        """Wait for the turn so many seconds at most. Raises BusyError, or NestedWriteError if this thread has it."""
        end, pause, collected = time.monotonic() + timeout, SHORTEST, False
        while (holder := self._take(wish)) is not wish:
            if holder.thread == wish.thread and not collected:
                del holder
                gc.collect()  # what a signal has interrupted may be kept by a circle of frames
                collected = True
                continue
            if holder.thread == wish.thread:
                raise NestedWriteError(
                    f"{place}: this thread has a transaction by another handle on the same store; use one for both"
                )
            if time.monotonic() >= end:
                text = f"another thread did not finish a transaction within {timeout:g} s; nothing was changed"
                raise BusyError(errno.ETIMEDOUT, text, place)
            del holder
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST)

    def _take(self, wish: Wish) -> Wish:
        """Who has it now."""
        with self._lock:
            holder = None if self._holder is None else self._holder()
            if holder is None:
                self._holder, holder = weakref.ref(wish), wish
            return holder

    def give(self, wish: Wish) -> None:
        """Let the next one have it, if it was taken; nothing in a child that was forked meanwhile."""
        with self._lock:
            if self._holder is not None and self._holder() is wish:
                self._holder = None


_turns: weakref.WeakSet[Turn] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for turn in list(_turns):
        turn.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
