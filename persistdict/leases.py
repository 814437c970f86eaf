"""Leases: rows of the store that say which process is making the value of a key, so that no other one does.

A lease is the row LEASE + kb, see spans.py. Its blob tells the owner, in four words: a token that is drawn anew for
each lease, and pid, beginning and place of its process (processes.py). It ends

- when its owner deletes it, which it does in the transaction that writes the value;
- `seconds` after it was renewed last, by its time to live; its owner renews it at a third of that;
- when others find that its process is gone, or, in that process itself, that nobody there holds it any more.

Whoever finds that it has ended replaces it by one of his own, under the condition that it is still the same version.
So a lease may be taken from an owner that was stopped for too long. That owner finds out at the next renewal, or when
it deletes what is not there; its value is written under a condition of its own.

All leases of a process are renewed by one thread, which exists while there are any.

Threads: any number. Processes: a forked child holds no lease, and releases none of its parent's.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from persistdict.errors import ClosedError, PersistDictError, told
from persistdict.log import Log
from persistdict.processes import Process, is_alive, this_process
from persistdict.spans import LEASE
from persistdict.store import ABSENT, Condition, Receipt, Record
from persistdict.waking import Bell, Errand

__all__ = ["Lease", "lease_key"]

TAG = 0  # of no codec
TICK = 0.05  # seconds

Write = Callable[[Callable[[], Receipt | None]], Receipt | None]


class _Holder(NamedTuple):
    """Who holds a lease, as its row says."""

    token: str
    process: Process


def lease_key(kb: bytes) -> bytes:
    """The key of the lease on a key."""
    return LEASE + kb


class Lease:
    """The lease on one key, for one flight of this process.

    Args:
        store: where the row is.
        kb: the key that is to be made.
        seconds: how long it lasts without being renewed.
        write: changes the store, for the dictionary that asks.
        log: told of renewals that fail.
    """

    def __init__(self, store: Any, kb: bytes, seconds: float, write: Write, log: Log) -> None:
        self.kb = lease_key(kb)
        self.seconds = seconds
        self._store, self._write, self._log = store, write, log
        self._token = os.urandom(8).hex()
        self._lock = threading.Lock()  # held while the row is changed
        self._version: int | None = None  # of the row while it is ours; guarded by _lock
        self._ended = False  # guarded by _lock
        self._writing = False  # whether it is being written, or that was interrupted; guarded by _lock
        self._pid = os.getpid()
        self._other: Record | None = None  # the row of another owner that was seen last

    def acquire(self) -> bool:
        """Take the lease unless another one holds it; whether it is ours now. One read, and one write if it is free."""
        with self._lock:
            if self._ended:
                return False
            self._other = record = self._store.get(self.kb)
            if record is not None and _is_held(record):
                return False
            self._put(ABSENT if record is None else record.version)
            if self._version is None:
                return False
            _held[self._token] = self
        _renewals.begin(self.seconds)
        return True

    def is_taken(self) -> bool:
        """Whether the owner that was seen last is alive and in time. Reads nothing of the store."""
        record = self._other
        if record is None or not _is_held(record):
            return False
        return record.deadline is None or self._store.clock() < record.deadline

    def renew(self) -> None:
        """Let it begin anew, unless another one has taken it."""
        with self._lock:
            if self._version is not None and not self._ended:
                self._put(self._version)

    def _put(self, when: Condition) -> None:
        process = this_process()
        blob = " ".join((self._token, str(process.pid), process.began or "-", process.place)).encode()
        self._writing = True
        receipt = self._write(lambda: self._store.put(self.kb, b"", TAG, blob, self.seconds, when))
        self._version = None if receipt is None else receipt.version
        self._writing = False

    def end(self) -> int | None:
        """Renew it no more. Returns the version of the row that is to be deleted, None if there is none of ours."""
        if self._pid != os.getpid():
            return None  # it is the parent's, and so is the lock, which somebody may hold there
        with self._lock:
            self._ended = True
            if self._writing:
                self._version, self._writing = self._find(), False
            version = self._version
        _held.pop(self._token, None)
        return version

    def _find(self) -> int | None:
        """The version of the row if it is ours: what has written it was interrupted, and does not say."""
        record = self._store.get(self.kb)
        holder = None if record is None else _holder(record.blob)
        return record.version if record is not None and holder is not None and holder.token == self._token else None

    def release(self) -> None:
        """End it and delete the row, if it is ours."""
        version = self.end()
        if version is not None:
            try:
                self._write(lambda: self._store.delete(self.kb, version))
            except PersistDictError as error:  # its time to live ends it; and what led to here matters more
                if not isinstance(error, ClosedError):
                    self._log.warning(f"a lease was left to end by itself: {error}")

    def renew_or_tell(self) -> None:
        """Renew it; what fails is told, for the next third may be better."""
        try:
            self.renew()
        except ClosedError:
            return  # the value cannot be written either, and its maker will be told
        except Exception as error:
            self._log.error(f"a lease was not renewed: {told(error)}")


def _is_held(record: Record) -> bool:
    """Whether the process that a row tells of is alive and means it. The row itself is not over."""
    holder = _holder(record.blob)
    if holder is None:
        return True
    if holder.process == this_process():
        return holder.token in _held
    return is_alive(holder.process)


def _holder(blob: bytes) -> _Holder | None:
    """Who the blob tells of; None if it is of another format: then its time to live decides."""
    try:
        token, pid, began, place = blob.decode().split(" ")
        return _Holder(token, Process(int(pid), began.replace("-", ""), place))
    except ValueError:
        return None


class _Renewals:
    """The thread that renews the leases of this process. It looks every TICK, and ends when it finds none.

    So a lease that begins or ends needs not wake it, and many short ones need not start it anew each.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: Errand | None = None  # guarded by _lock
        self._changed = Bell()

    def begin(self, seconds: float) -> None:
        """A lease of so many seconds was added."""
        with self._lock:
            if self._thread is None or self._thread.is_over():
                self._thread = Errand("persistdict-leases", self._run)
            self._thread.begin()  # also one that was interrupted here before it began
        if seconds / 3 < TICK:
            self._changed.ring()

    def _run(self) -> None:
        due: dict[str, float] = {}  # by token: when to renew, time.monotonic
        while True:
            with self._lock:
                held = dict(_held)
                if not held:
                    self._thread = None
                    return
            now = time.monotonic()
            due = {token: due.get(token, now + lease.seconds / 3) for token, lease in held.items()}
            pause = min(due.values()) - now
            if pause > 0:
                self._changed.wait(min(pause, TICK))
                continue
            for token, lease in held.items():
                if due[token] <= now:
                    lease.renew_or_tell()
                    due[token] = time.monotonic() + lease.seconds / 3


_held: dict[str, Lease] = {}  # the leases of this process, by their tokens; each operation on it is one step
_renewals = _Renewals()


def _after_fork_in_child() -> None:
    global _renewals
    _held.clear()
    _renewals = _Renewals()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
