"""What a queue raises where the standard library's does: the same errors, which are ours too."""

import queue

from persistdict.errors import PersistDictError

__all__ = ["QueueEmptyError", "QueueFullError"]


class QueueEmptyError(PersistDictError, queue.Empty):
    """There is no item that could be handed out, or there was none for as long as `get` was to wait."""


class QueueFullError(PersistDictError, queue.Full):
    """The queue holds `maxsize` items, and did so for as long as `put` was to wait. Nothing was put."""
