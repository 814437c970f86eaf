"""Waiting and waking that Ctrl-C cannot break, and threads that it cannot leave half begun.

A signal handler raises KeyboardInterrupt in the main thread between two instructions of Python, whosever they are. The
Event, the Condition and the Thread of `threading` are written in Python: one that is interrupted may leave its inner
lock held, and then everybody waits for ever. Here every step is one call of C (a lock of `_thread`), which happens or
does not, and whatever was interrupted may be done again.

Threads: any number. Processes: a forked child must make its own.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Bell", "Errand", "Latch"]


class Bell:
    """Rung by anybody; one thread waits for it. A ring that nobody has heard yet is heard by the next `wait`."""

    def __init__(self) -> None:
        self._silence = _thread.allocate_lock()  # held until it is rung
        self._silence.acquire()

    def ring(self) -> None:
        """End a wait, this one or the next."""
        with suppress(RuntimeError):  # it was rung already
            self._silence.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is rung, or for so many seconds; whether it was."""
        return self._silence.acquire(True, _seconds(timeout))


class Latch:
    """Set once, and for ever. Any number of threads wait for that."""

    def __init__(self) -> None:
        self._is_set = False
        self._bells: list[Bell] = []  # of those who wait

    def is_set(self) -> bool:
        """Whether it is."""
        return self._is_set

    def set(self) -> None:
        """Set it. If this is interrupted, a second call wakes who was not woken yet."""
        self._is_set = True  # first: who comes now looks, and does not wait
        for bell in list(self._bells):
            bell.ring()

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is set, or for so many seconds; whether it is."""
        bell = Bell()
        try:
            self._bells.append(bell)
            if not self._is_set:
                bell.wait(timeout)
        finally:
            with suppress(ValueError):
                self._bells.remove(bell)
        return self._is_set


class Errand:
    """Work for a thread of its own, which is done once.

    `begin` may be called again where it was perhaps interrupted: the first thread that comes takes the work.

    Args:
        name: of the thread.
        work: what to do.
    """

    def __init__(self, name: str, work: Callable[[], object]) -> None:
        self._name, self._work = name, [work]
        self._begun, self._end = Latch(), Latch()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin, unless it has begun; it has when this returns. Raises RuntimeError if the system gives no thread."""
        if self._work:
            _thread.start_new_thread(self._start, ())
        self._begun.wait()

    def is_over(self) -> bool:
        """Whether it was done."""
        return self._end.is_set()

    def is_under_way(self) -> bool:
        """Whether it was begun and is not over."""
        return self._begun.is_set() and not self._end.is_set()

    def is_here(self) -> bool:
        """Whether this is its thread."""
        return self._thread is threading.current_thread()

    def wait(self) -> None:
        """Until it is over. What was not begun is not waited for: it is given up."""
        with suppress(IndexError):
            self._work.pop()
            self._end.set()
            self._begun.set()
        self._end.wait()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()

    def _start(self) -> None:
        """In a thread in which no signal is raised. That of `threading` has a name."""
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # this one will do
            self._run()

    def _run(self) -> None:
        try:
            work = self._work.pop()
        except IndexError:
            return
        try:
            self._thread = threading.current_thread()
            self._begun.set()
            work()
        finally:
            del work
            self._end.set()


def _seconds(timeout: float | None) -> float:
    """As locks want them."""
    return -1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)
