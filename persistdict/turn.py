"""Whose turn it is: of the threads of a process that want a transaction of one store, one has it."""

from __future__ import annotations

import errno
import os
import threading
import weakref
from threading import get_ident

from persistdict.errors import BusyError, NestedWriteError

__all__ = ["Turn"]


class Turn:
    """A lock between threads. A forked child begins with one that is free."""

    def __init__(self) -> None:
        self.begin_anew()
        _turns.add(self)

    def begin_anew(self) -> None:
        """Nobody has it, whoever had."""
        self._lock = threading.Lock()
        self._owner = 0

    def take(self, timeout: float, place: str) -> None:
        """Wait for the turn so many seconds at most. Raises BusyError, or NestedWriteError if this thread has it."""
        if self._owner == get_ident():
            raise NestedWriteError(
                f"{place}: this thread has a transaction by another handle on the same store; use one handle for both"
            )
        if not self._lock.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
            text = f"another thread did not finish a transaction within {timeout:g} s; nothing was changed"
            raise BusyError(errno.ETIMEDOUT, text, place)
        self._owner = get_ident()

    def give(self) -> None:
        """Let the next one have it; nothing in a child that was forked by the thread that had it."""
        if self._owner == get_ident():
            self._owner = 0
            self._lock.release()


_turns: weakref.WeakSet[Turn] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for turn in list(_turns):
        turn.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
