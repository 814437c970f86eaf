"""Waiting for a queue to change, in whatever process.

Who waits is woken at once by what happens in its own process. What others do shows in the id of the store's last
commit, which costs next to nothing to ask for; it is compared after pauses that grow from 1 to 50 ms. So a wake-up that
goes astray costs 50 ms at most.

Threads: any number wait. `_lock` guards the table of signals; it is held for moments only. Each who waits has a bell of
his own (waking.py), so Ctrl-C in one of them is nothing to the others. A forked child inherits nobody who waits.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from types import TracebackType

from persistdict.waking import Bell

__all__ = ["Waiter", "wake"]

FIRST, LONGEST = 0.001, 0.05  # seconds


class Signal:
    """What those wait for who wait for the same."""

    def __init__(self) -> None:
        self.bells: deque[Bell] = deque()  # of those who wait; each operation on it is one step
        self.waiting = 0  # guarded by `_lock`
        self.count = 0


_lock = threading.Lock()
_signals: dict[Hashable, Signal] = {}


def wake(key: Hashable, many: int) -> None:
    """Wake so many of those of this process who wait for that."""
    if key in _signals:
        with _lock:
            signal = _signals.get(key)
            if signal is not None:
                signal.count += 1
        while signal is not None and many and signal.bells:
            with suppress(IndexError):
                signal.bells.popleft().ring()
            many -= 1


class Waiter:
    """Somebody who waits for what has this key, within `with`.

    Args:
        key: equal for all of this process who wait for the same.
        end: when to give up, by time.monotonic().
    """

    def __init__(self, key: Hashable, end: float) -> None:
        self._key, self._end, self._pause = key, end, FIRST

    def __enter__(self) -> Waiter:
        with _lock:
            self._signal = _signals.setdefault(self._key, Signal())
            self._signal.waiting += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _lock:
            self._signal.waiting -= 1
            if not self._signal.waiting and _signals.get(self._key) is self._signal:
                del _signals[self._key]

    def look(self) -> int:
        """What `wait` must be told; to be asked for before looking whether there is anything to wait for."""
        return self._signal.count

    def wait(self, looked: int, is_changed: Callable[[], bool]) -> bool:
        """Until somebody wakes us, or others have changed something. False if it is time to give up."""
        while (left := self._end - time.monotonic()) > 0:
            if self._is_woken(looked, min(self._pause, left)):
                return True
            self._pause = min(2 * self._pause, LONGEST)
            if is_changed():
                return True
        return False

    def _is_woken(self, looked: int, seconds: float) -> bool:
        bell, signal = Bell(), self._signal
        try:
            signal.bells.append(bell)  # first, and then look
            return signal.count != looked or bell.wait(seconds)
        finally:
            with suppress(ValueError):
                signal.bells.remove(bell)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _signals.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
