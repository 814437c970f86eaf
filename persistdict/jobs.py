"""Jobs: items that were handed out for a time, and belong to the queue until they are done."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any

from persistdict.errors import LeaseLostError
from persistdict.options import number
from persistdict.queuecore import QueueCore
from persistdict.queuerows import Lease, Ready
from persistdict.queuestate import State
from persistdict.store import Transaction

__all__ = ["Job"]


class Job:
    """An item that `get(lease=seconds)` has handed out; made by nobody else.

    Within `with`, it is done at the end of the block, or goes back to the queue if the block raises. If neither happens
    before the lease runs out, because the worker is slow or dead, the next `get` of anybody may hand it out again; from
    then on this job is lost to its worker, whose verbs raise LeaseLostError and change nothing.

    Threads: one at a time. Processes: that which got it.

    Attributes:
        item: what was put.
        attempts: how often it was handed out, this time included.

    >>> from persistdict import PersistDict
    >>> q = PersistDict("memory://").queue("work")
    >>> q.put("a")
    >>> with q.get(lease=60) as job:
    ...     print(job.item, job.attempts, q.qsize(), q.unfinished_tasks)
    a 1 0 1
    >>> q.unfinished_tasks
    0
    """

    def __init__(self, queue: QueueCore, item: Any, ready: Ready, lease: Lease) -> None:
        self.item, self.attempts = item, ready.attempts + 1
        self._queue, self._end = queue, lease.end
        self._lease: Lease | None = lease  # None once it is settled or lost

    def __repr__(self) -> str:
        return f"<Job, attempt {self.attempts}>"

    @property
    def expires_at(self) -> float:
        """When the lease runs out, seconds since the epoch by the clock of the dictionary."""
        return self._end / 1e6

    def ack(self) -> None:
        """The item is done: remove it, and count it as `task_done` does. Atomic, and as durable as other writes.

        Also after the lease has run out, as long as the item was not put back.

        Raises LeaseLostError, and changes nothing, if it was, or the job is settled already.

        >>> from persistdict import PersistDict
        >>> q = PersistDict("memory://").queue("work")
        >>> q.put("a")
        >>> job = q.get(lease=60)
        >>> job.ack()
        >>> q.empty(), q.unfinished_tasks
        (True, 0)
        """
        lease = self._held()
        self._settle(self._queue._run(lambda txn, state: self._queue._rows.finish(txn, state, lease)))

    def nack(self) -> None:
        """The item is not done: put it back to its old place, at once. Atomic, and as durable as other writes.

        Raises LeaseLostError, and changes nothing, if it was put back already, or the job is settled.

        >>> from persistdict import PersistDict
        >>> q = PersistDict("memory://").queue("work")
        >>> q.put_many(["a", "b"])
        >>> q.get(lease=60).nack()
        >>> q.get(), q.get()
        ('a', 'b')
        """
        lease = self._held()
        self._settle(self._queue._run(lambda txn, state: self._queue._rows.give_back(txn, state, lease)))

    def extend(self, length: float) -> None:
        """Let the lease run out so many seconds from now on. Atomic, and as durable as other writes.

        Raises LeaseLostError, and changes nothing, if it is lost, or the job is settled; ValueError or TypeError for
        what are no seconds.

        >>> from persistdict import PersistDict
        >>> from persistdict.testing import Clock
        >>> clock = Clock()
        >>> q = PersistDict("memory://", clock=clock).queue("work")
        >>> q.put("a")
        >>> job = q.get(lease=60)
        >>> clock.now += 50
        >>> job.extend(60)
        >>> clock.now += 50
        >>> q.empty()
        True
        """
        lease, length = self._held(), number("length", length, more_than=0)
        queue = self._queue

        def work(txn: Transaction, state: State) -> Lease | None:
            return queue._rows.extend(txn, state, lease, queue._now(), int(length * 1e6))

        self._lease = new = queue._run(work)
        if new is None:
            raise _lost()
        self._end = new.end

    def _held(self) -> Lease:
        if self._lease is None:
            raise LeaseLostError("this job is settled already")
        return self._lease

    def _settle(self, done: bool) -> None:
        self._lease = None
        if not done:
            raise _lost()

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lease is None:
            return  # it was settled within the block
        if error is None:
            self.ack()
        else:
            with contextlib.suppress(LeaseLostError):  # what the block has raised says more
                self.nack()


def _lost() -> LeaseLostError:
    return LeaseLostError("the lease of this job had run out, and it went back to the queue; nothing was changed")
