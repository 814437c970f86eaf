"""Locks and fork: some locks are held while a process forks, so that what they guard is copied whole.

Only for locks that are held briefly and never across a call of a store or of the user's code that may wait. In the
child each object gets told (`after_fork`), and makes a new lock for itself.

Threads: several may fork at once; each holds and releases its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from operator import itemgetter, methodcaller
from typing import Any, Protocol, runtime_checkable

__all__ = ["HeldOverFork", "hold_over_fork", "holds_any", "is_held_here"]


def is_held_here(lock: Any) -> bool:
    """Whether this thread holds a threading.RLock. (threading.Condition asks RLocks the same.)"""
    return bool(lock._is_owned())


@runtime_checkable
class HeldOverFork(Protocol):
    """Something with a lock that is to be held over a fork."""

    lock: Any  # a threading.RLock

    def after_fork(self) -> None:
        """In the child: make a new lock, and forget what must not be inherited."""


_objects: weakref.WeakValueDictionary[int, HeldOverFork] = weakref.WeakValueDictionary()
_held = threading.local()
_acquire, _release = methodcaller("acquire"), methodcaller("release")


def hold_over_fork(thing: HeldOverFork) -> None:
    """Hold the lock of this object over every fork, as long as it lives."""
    _objects[id(thing)] = thing


def holds_any() -> bool:
    """Whether this thread holds a lock that others hold over a fork: waiting for another one could be for ever."""
    things = [reference() for reference in _objects.valuerefs()]
    return any(thing is not None and is_held_here(thing.lock) for thing in things)


def _before() -> None:
    things = [thing for reference in _objects.valuerefs() if (thing := reference()) is not None]
    locks = [thing.lock for thing in things]
    # All of it in C, where no signal is handled: Ctrl-C cannot come behind taking a lock and before that is noted.
    _noted().extend(zip(map(_acquire, locks), things, locks, strict=True))


def _noted() -> list[tuple[bool, HeldOverFork, Any]]:
    """What this thread holds over a fork."""
    held: list[tuple[bool, HeldOverFork, Any]] = _held.__dict__.setdefault("things", [])
    return held


def _after_in_parent() -> None:
    with contextlib.suppress(IndexError):  # the end: nothing is left to pop
        any(map(_release, map(itemgetter(2), iter(_noted().pop, None))))  # likewise in C


def _after_in_child() -> None:
    held = _noted()
    while held:
        held.pop()[1].after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
