"""Queues: the interface of the standard library's `queue.Queue`, on disk, for any number of threads and processes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from persistdict.core import MISSING, Core
from persistdict.errors import TransactionError, Unsupported
from persistdict.jobs import Job
from persistdict.options import number
from persistdict.queueerrors import QueueEmptyError, QueueFullError
from persistdict.queuemoves import Moves
from persistdict.queuerows import ROOM, Rows
from persistdict.queuestate import NEVER, ORDERS, State
from persistdict.spans import queue_head
from persistdict.store import Capability, Transaction

__all__ = ["PersistQueue"]


class PersistQueue(Moves):
    """A queue that is kept in a dictionary's store; made by `PersistDict.queue`.

    It has the interface of `queue.Queue`, and its errors: QueueEmptyError is a `queue.Empty`, QueueFullError a
    `queue.Full`. What was put survives the process. Every verb is one transaction, atomic and as durable as the
    dictionary's writes. Items are what may be a value of the dictionary; an item that cannot be encoded raises before
    anything is written, and one that cannot be decoded raises DecodeError and stays. One that is damaged is passed over
    with a DamagedEntryWarning, counts no more, and stays for `verify(repair=True)`.

    Without a lease, an item belongs to whoever got it, and is lost if that process dies. With one (`get(lease=60)`) it
    stays in the queue until it is acknowledged, and is handed out again if that does not happen in time: at least once
    in every case, and exactly once where all are in time.

    Cost: that of a transaction of three or four small writes, however long the queue is; items are read ahead, up to
    sixteen. In memory (`memory://`) `get` takes a look at every entry.

    Threads: any number may use one. Processes: any number may open the same queue; waiting ends within 50 ms of what
    another process does, and at once for what happens in the own. It ends with its dictionary, works in a forked child,
    and may be pickled.
    """

    def __init__(self, root: Core[Any, Any], name: str, maxsize: int, order: str) -> None:
        head, limit = queue_head(name), root._options.row_limit
        if order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(map(repr, ORDERS))}")
        if not isinstance(maxsize, int):
            raise TypeError(f"maxsize must be an int, not {type(maxsize).__qualname__}")
        if isinstance(maxsize, bool) or maxsize >= NEVER:
            raise ValueError("maxsize must be a number of items, or 0 for no limit")
        if len(head) + ROOM > limit:
            given = root._options.key_size_limit
            least = len(head) + ROOM + given - limit
            raise Unsupported(
                f"a queue of a name of {len(head) - 2} bytes needs a key_size_limit of {least} or more; it is {given}"
            )
        if order == "priority" and root._options.encryption_key is not None:
            raise Unsupported("a priority is a part of the order of keys, which are encrypted here; use fifo or lifo")
        store = root._opened()
        if store.capabilities & (needed := Capability.ORDERED | Capability.TRANSACTIONS) != needed:
            raise Unsupported(f"{store.place}: this engine has no transactions, which a queue needs")
        super().__init__(root, Rows(head, limit), State(order, max(maxsize, 0)))
        self._name = name
        self._state()  # raises if it is of another kind

    @property
    def name(self) -> str:
        """The name."""
        return self._name

    @property
    def order(self) -> str:
        """What comes next: "fifo", what was put first; "lifo", what was put last; "priority", the smallest."""
        return self._asked.order

    @property
    def maxsize(self) -> int:
        """How many items the queue holds at most; 0 for any number."""
        return (self._state() or self._asked).maxsize

    def __repr__(self) -> str:
        return f"<{self._root._title()}.queue({self._name!r}, order={self.order!r})>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self._root, self._name, self._asked.maxsize, self.order)

    # How much there is

    def qsize(self) -> int:
        """How many items can be handed out: without those that have a lease. A moment later it may be another number.

        >>> from persistdict import PersistDict
        >>> q = PersistDict("memory://").queue("work", maxsize=1)
        >>> q.put("a")
        >>> q.qsize(), len(q), q.empty(), q.full()
        (1, 1, False, True)
        """
        state = self._state()
        if state is None or not state.is_due(self._now()):
            return 0 if state is None else state.ready

        def work(txn: Transaction, state: State) -> int:
            self._rows.return_over(txn, state, self._now())
            return state.ready

        return int(self._look(work))

    def __len__(self) -> int:
        return self.qsize()

    def empty(self) -> bool:
        """Whether no item can be handed out."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether there are `maxsize` items, or more, as those that come back from a lease are always taken."""
        return 0 < self.maxsize <= self.qsize()

    @property
    def unfinished_tasks(self) -> int:
        """How many items were put and are not done: neither acknowledged nor followed by `task_done`."""
        return (self._state() or self._asked).unfinished

    # Putting

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item.

        Args:
            item: any value of the dictionary. Where the order is "priority": a tuple, whose first part is the priority,
                or something that is its own. The smallest comes first, of equal ones that which was put first.
            block: wait while the queue is full; else raise at once.
            timeout: seconds to wait; None for as long as it takes.

        Raises QueueFullError; what the codec raises for what it cannot store; KeyTypeError for a priority that is
        neither str, bytes, int, float, bool, None nor a tuple of these, and TooLargeError for one that is longer than a
        key may be. (Priorities of different types are ordered as the keys of `range` are.)

        >>> from persistdict import PersistDict
        >>> q = PersistDict("memory://").queue("work", order="priority")
        >>> q.put((2, "later"))
        >>> q.put((1, "first"))
        >>> q.get()
        (1, 'first')
        """
        encoded = [self._encode(item)]
        attempt = lambda: self._add(encoded) or MISSING  # noqa: E731
        if self._wait_until("put", attempt, lambda state: state.room() > 0, block, timeout) is MISSING:
            raise QueueFullError("the queue is full")

    def put_nowait(self, item: Any) -> None:
        """`put` without waiting. Raises QueueFullError.

        >>> from persistdict import PersistDict
        >>> q = PersistDict("memory://").queue("work", maxsize=1)
        >>> q.put_nowait("a")
        >>> q.put_nowait("b")
        Traceback (most recent call last):
        persistdict.queueerrors.QueueFullError: the queue is full
        """
        self.put(item, block=False)

    def put_many(self, items: Iterable[Any]) -> None:
        """Put several items, in one transaction: all or nothing. Does not wait.

        Raises QueueFullError if there is no room for all of them; else as `put`.

        >>> from persistdict import PersistDict
        >>> q = PersistDict("memory://").queue("work", order="lifo")
        >>> q.put_many(["a", "b"])
        >>> q.get(), q.get()
        ('b', 'a')
        """
        encoded = [self._encode(item) for item in items]
        if encoded and not self._add(encoded):
            raise QueueFullError("there is no room in the queue for all of these items; none was put")

    # Getting

    def get(self, block: bool = True, timeout: float | None = None, *, lease: float | None = None) -> Any:
        """Take the item that comes next.

        Args:
            block: wait while there is none; else raise at once.
            timeout: seconds to wait; None for as long as it takes.
            lease: seconds for which the item is handed out; None to remove it at once. Not in a transaction, whose end
                removes the item, or not, with all that it writes; nor does that wait, for others or for room.

        Returns the item; with a lease a Job, whose `item` it is.

        Raises QueueEmptyError; DecodeError if the codec cannot decode the item that comes next, which stays.

        >>> from persistdict import PersistDict
        >>> q = PersistDict("memory://").queue("work")
        >>> q.put_many(["a", "b"])
        >>> q.get()
        'a'
        >>> with q.get(lease=60) as job:
        ...     print(job.item)
        b
        """
        if lease is not None and self._root._in_transaction():
            raise TransactionError("a lease begins when it is written; get an item without one in a transaction")
        attempt = self._take if lease is None else partial(self._get_job, number("lease", lease, more_than=0))
        found = self._wait_until("get", attempt, self._may_get, block, timeout)
        if found is MISSING:
            raise QueueEmptyError("the queue is empty")
        return found

    def _may_get(self, state: State) -> bool:
        return state.ready > 0 or state.is_due(self._now())

    def _get_job(self, length: float) -> Any:
        """A job, or MISSING."""
        found = self._hand_out(length)
        if not found:
            return MISSING
        [(ready, lease)] = found
        try:
            item = self._decode(ready)
        except BaseException:
            self._run(lambda txn, state: self._rows.give_back(txn, state, lease, unused=True))
            raise
        return Job(self, item, ready, lease)

    def get_nowait(self) -> Any:
        """`get` without waiting. Raises QueueEmptyError.

        >>> import queue
        >>> from persistdict import PersistDict
        >>> try:
        ...     PersistDict("memory://").queue("work").get_nowait()
        ... except queue.Empty:
        ...     print("empty")
        empty
        """
        return self.get(block=False)

    def peek(self) -> Any:
        """The item that comes next, which stays. Raises QueueEmptyError if there is none, and DecodeError as `get`.

        It is a write as far as locks go, where writing is possible.

        >>> from persistdict import PersistDict
        >>> q = PersistDict("memory://").queue("work")
        >>> q.put("a")
        >>> q.peek(), q.qsize()
        ('a', 1)
        """
        ready = self._first()
        if ready is None:
            raise QueueEmptyError("the queue is empty")
        return self._decode(ready)

    # What becomes of it

    def task_done(self) -> None:
        """Say that an item that was got without a lease is done. (Acknowledging a job says so of it.)

        Raises ValueError if it is said more often than items were put.

        >>> from persistdict import PersistDict
        >>> q = PersistDict("memory://").queue("work")
        >>> q.put("a")
        >>> item = q.get()
        >>> q.task_done()
        >>> q.join()
        """

        def work(_: Transaction, state: State) -> bool:
            if not state.unfinished:
                return False
            state.unfinished -= 1
            return True

        if not self._run(work):
            raise ValueError("task_done() called too many times")

    def join(self) -> None:
        """Wait until all items that were put are done, by whatever process.

        An item that was got without a lease by a process that died is never done, as nobody says so; with a lease it is
        handed out again.
        """
        attempt = lambda: MISSING if self.unfinished_tasks else None  # noqa: E731
        if self._root._in_transaction():
            raise TransactionError("a transaction cannot wait for others; join the queue before or after it")
        self._wait_until("join", attempt, lambda state: state.unfinished == 0)

    def clear(self) -> None:
        """Remove all items, those that have a lease too, in one transaction. They count as done.

        Cost: a look at every item. On the disk when it returns.

        >>> from persistdict import PersistDict
        >>> q = PersistDict("memory://").queue("work")
        >>> q.put_many("abc")
        >>> q.clear()
        >>> q.qsize(), q.unfinished_tasks
        (0, 0)
        """

        def work(txn: Transaction, state: State) -> None:
            txn.clear(self._rows.items)
            state.clear()

        self._run(work, whole=True)

    def remove(self) -> None:
        """Remove all items, and the settings: as if nobody had ever put. In one transaction, as `clear`.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> q = d.queue("work")
        >>> q.put("a")
        >>> q.remove()
        >>> d.queues(), d.queue("work", order="lifo").qsize()
        ([], 0)
        """
        root, rows = self._root, self._rows
        root._opened()
        root._write(
            lambda: root._store.update(lambda txn: txn.clear(rows.all) and txn.id(), whole=True),
            lambda front, commit: front.wrote_many(commit, []),
        )


def _opened(root: Core[Any, Any], name: str, maxsize: int, order: str) -> PersistQueue:
    return PersistQueue(root, name, maxsize, order)
