"""Moving items between a queue on disk and one in memory."""

import queue
from typing import Any, NamedTuple

from persistdict.errors import PersistDictError
from persistdict.queuecore import Encoded, QueueCore
from persistdict.queueerrors import QueueFullError
from persistdict.queuerows import Lease, Ready
from persistdict.queuestate import State
from persistdict.store import Transaction

__all__ = ["Flushed", "Moves"]

BATCH = 100  # items that one transaction moves
LEASE = 60.0  # seconds that moving a batch into memory may take


class Flushed(NamedTuple):
    """What `flush` has done.

    Attributes:
        moved: how many items are on the disk now.
        failed: the items that could not be moved, each with the error; they are nowhere else any more.
    """

    moved: int
    failed: list[tuple[Any, Exception]]

    def __repr__(self) -> str:
        return f"Flushed(moved={self.moved}, failed=<{len(self.failed)} items>)"  # reports get into logs


class Moves(QueueCore):
    """The part of a queue that exchanges items with a `queue.Queue`."""

    def flush(self, source: Any) -> Flushed:
        """Move what is in a queue of the standard library to the disk, until that is empty or this one is full.

        One item that cannot be stored harms no other. What is moved counts there as `task_done`. Batches of a hundred,
        each of which is one transaction; as durable as other writes. It never waits, neither for items nor for room.
        Where Ctrl-C ends it, the batch that it had taken out may be lost.

        Args:
            source: a `queue.Queue`, or anything with its `get_nowait`. What it gives is put in that order.

        Returns how many were moved, and those items that were taken out but could not be stored, with the errors:
        because the codec refuses them, because others have taken the room meanwhile, or because the store has failed,
        after which no more are taken out. See that they are not lost.

        >>> import queue
        >>> from persistdict import PersistDict
        >>> q = PersistDict("memory://").queue("work")
        >>> source = queue.Queue()
        >>> for item in ("a", object(), "b"):
        ...     source.put(item)
        >>> report = q.flush(source)
        >>> report.moved, len(report.failed), q.get(), q.get()
        (2, 1, 'a', 'b')
        """
        moved, failed = 0, list[tuple[Any, Exception]]()
        while True:
            state = self._state() or self._asked
            taken, items, encoded = self._drain(source, min(BATCH, state.room()), failed)
            try:
                done = self._add(encoded, partly=True) if encoded else 0
            except PersistDictError as error:
                return Flushed(moved, failed + [(item, error) for item in items])
            failed += [(item, QueueFullError("the queue has become full meanwhile")) for item in items[done:]]
            moved += done
            for _ in range(done if hasattr(source, "task_done") else 0):
                source.task_done()
            if not taken:
                return Flushed(moved, failed)

    def _drain(
        self, source: Any, many: int, failed: list[tuple[Any, Exception]]
    ) -> tuple[int, list[Any], list[Encoded]]:
        """Take so many items out of a queue, and encode them. Tells how many there were."""
        items: list[Any] = []
        encoded: list[Encoded] = []
        for taken in range(many):
            try:
                item = source.get_nowait()
            except queue.Empty:
                return taken, items, encoded
            try:
                encoded.append(self._encode(item))
                items.append(item)
            except Exception as error:
                failed.append((item, error))
        return many, items, encoded

    def ingest(self, target: Any, limit: int | None = None) -> int:
        """Move items from the disk into a queue of the standard library, until that is full or this one is empty.

        An item leaves the disk after it was put there, and counts as done here then. In batches of a hundred, each of
        which is two transactions: items that are on the way have a lease of a minute, and if the process dies, or takes
        longer, they are handed out again; none is lost. It never waits, neither for items nor for room.

        Args:
            target: a `queue.Queue`, or anything with its `put_nowait`.
            limit: how many items at most; None for all.

        Returns how many were moved. Raises DecodeError at an item that cannot be decoded; it stays, as do those behind.

        >>> import queue
        >>> from persistdict import PersistDict
        >>> q = PersistDict("memory://").queue("work")
        >>> q.put_many(["a", "b", "c"])
        >>> target = queue.Queue(maxsize=2)
        >>> q.ingest(target), target.get(), q.qsize()
        (2, 'a', 1)
        """
        moved = 0
        while limit is None or moved < limit:
            many = BATCH if limit is None else min(BATCH, limit - moved)
            if getattr(target, "maxsize", 0) > 0:
                many = min(many, target.maxsize - target.qsize())
            batch = self._hand_out(LEASE, many) if many > 0 else []
            done = self._hand_over(batch, target)
            moved += done
            if not batch or done < len(batch):
                break
        return moved

    def _hand_over(self, batch: list[tuple[Ready, Lease]], target: Any) -> int:
        """Put items that were handed out into a queue; what has no room there goes back."""
        done = 0
        try:
            for ready, _ in batch:
                target.put_nowait(self._decode(ready))
                done += 1
        except queue.Full:
            pass
        finally:
            self._settle([lease for _, lease in batch], done)
        return done

    def _settle(self, leases: list[Lease], done: int) -> None:
        def work(txn: Transaction, state: State) -> None:
            for lease in leases[:done]:
                self._rows.finish(txn, state, lease)
            for lease in leases[done:]:
                self._rows.give_back(txn, state, lease, unused=True)

        if leases:
            self._run(work, size=len(leases))
