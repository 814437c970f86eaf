"""What a dictionary has that has queues. They are imported when the first is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from persistdict.core import Core
from persistdict.spans import KEPT_FROM, LEASE, Span

if TYPE_CHECKING:
    from persistdict.queues import PersistQueue

__all__ = ["Queueing"]

K = TypeVar("K")
V = TypeVar("V")


class Queueing(Core[K, V]):
    """The part of a dictionary that has queues."""

    def queue(self, name: str, maxsize: int = 0, *, order: str = "fifo") -> PersistQueue:
        """A queue in the same files, with the interface of the standard library's `queue.Queue`; see `PersistQueue`.

        Any number of threads and processes put and get. It has nothing to do with the entries: it is not seen by `len`
        and iteration, not removed by `clear`, bounds and time limits. It comes into being by the first put; looking
        makes nothing. Nothing has to be closed.

        Args:
            name: any text of 1 to 200 bytes in UTF-8.
            maxsize: how many items it holds at most, whoever puts; 0 for any number, or, if it exists, for what it has.
            order: what comes next: "fifo", what was put first; "lifo", what was put last; "priority", the smallest.
                Both are kept in the store by the first put.

        Raises TypeError or ValueError for what is no name, size or order; MismatchError if the queue exists with
        another maxsize or order; Unsupported if `key_size_limit` is too small for the rows of a queue of this name.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> q = d.queue("work")
        >>> q.put({"page": 1})
        >>> d.queues(), q.get(), len(d)
        (['work'], {'page': 1}, 0)
        """
        from persistdict.queues import PersistQueue

        return PersistQueue(self._root, name, maxsize, order)

    def queues(self) -> list[str]:
        """The names of the queues that somebody has put into, the shortest first. Cost: a look into each.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.queue("work").put("a")
        >>> d.queues()
        ['work']
        """
        return self._names_in(Span(KEPT_FROM, LEASE))


def __getattr__(name: str) -> Any:
    """The class, for those who look at the types of what is here."""
    if name == "PersistQueue":
        from persistdict.queues import PersistQueue

        return PersistQueue
    raise AttributeError(name)
