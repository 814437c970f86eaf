"""The life of a handle: before it is opened, when it is closed, collected, inherited by fork, or alive at the end.

Everything here is about handles in general; what a dictionary does with its store is said in core.py.
"""

from __future__ import annotations

import _thread
import atexit
import os
import threading
import weakref
from typing import Any, Protocol, cast, runtime_checkable

from persistdict.errors import ClosedError, PersistDictError
from persistdict.forking import holds_any
from persistdict.log import Log
from persistdict.maintenance import Keeper, keeper_of
from persistdict.modes import bare_store
from persistdict.routing import Routed
from persistdict.store import Store

__all__ = ["CLOSED", "Unopened", "close_store", "finalizer_of", "watch"]


@runtime_checkable
class Handle(Protocol):
    """What is asked of a dictionary here."""

    _store: Store
    _log: Log
    _write_lock: Any
    _finalizer: Any
    _bounds: Any

    def _open(self) -> None: ...


_handles: weakref.WeakValueDictionary[int, Handle] = weakref.WeakValueDictionary()


def watch(handle: Handle) -> None:
    """Give a new lock to a handle in a forked child, and settle what it has written at the end of the program."""
    _handles[id(handle)] = handle


def finalizer_of(handle: Handle, store: Store) -> Any:
    """The weakref.finalize that closes the store when the handle is collected."""
    finalizer = weakref.finalize(handle, _close_collected, store, handle._log, keeper_of(store))
    finalizer.atexit = False  # see `_settle_at_exit`
    return finalizer


class Unopened:
    """Stands for the store of a handle that was not opened yet (it came out of a pickle); opens it when used."""

    def __init__(self, owner: Any) -> None:  # a handle that is being made
        self._owner = weakref.ref(owner)

    def __getattr__(self, name: str) -> Any:
        owner = self._owner()
        if owner is None:
            raise ClosedError("the dictionary is gone")
        owner._open()
        return getattr(owner._store, name)


class _ClosedStore:
    """Stands for the store of a handle that was closed before it was opened."""

    def __getattr__(self, name: str) -> Any:
        raise ClosedError("this dictionary was closed; open it again with PersistDict(path)")


CLOSED = cast(Store, _ClosedStore())


def close_store(store: Store, log: Log, wait: bool = False) -> None:
    """Make durable what was written and let go; `wait` for the end of the background thread, and raise what fails."""
    try:
        keeper_of(store).remove(store, wait=wait)
        error = _flush(store, log)
    finally:
        store.close()
    if wait and error is not None:
        try:
            raise error
        finally:
            del error  # its traceback leads back to here


def _close_collected(store: Store, log: Log, keeper: Keeper) -> None:
    """Called when a handle is collected.

    The garbage collector may run anywhere, in the middle of a write too. Where this thread holds a lock already,
    waiting for another one could be for ever; so another thread does it then.
    """
    if store.is_entered() or keeper.is_entered() or holds_any():
        _thread.start_new_thread(close_store, (store, log))
    else:
        close_store(store, log)


@atexit.register
def _settle_at_exit() -> None:
    """End upkeep and write what is pending. Nothing is closed: daemon threads may still be using it."""
    for reference in _handles.valuerefs():
        handle = reference()
        if handle is not None and handle._finalizer is not None and handle._finalizer.alive:
            store = bare_store(handle._store)
            keeper_of(store).remove(store)
            _flush(store, handle._log)


def _flush(store: Store, log: Log) -> PersistDictError | None:
    """Make durable what was written, and note the access times. What fails of the first is logged and returned."""
    try:
        store.sync()
    except PersistDictError as error:
        log.error(f"what was written last could not be made durable yet: {error}")
        return error
    try:
        store.flush_touched(store.clock())
    except PersistDictError as error:
        log.warning(f"access times are not noted: {error}")
    return None


def _after_fork_in_child() -> None:
    for reference in _handles.valuerefs():
        handle = reference()
        if handle is not None:
            handle._write_lock = threading.RLock()
            store: Any = handle._store
            if isinstance(store, Routed):  # transactions are the parent's
                handle._store = store.bare
            if handle._bounds is not None:
                handle._bounds.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
