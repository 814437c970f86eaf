"""When entries were read last: noted in memory, and written to the store in batches."""

from __future__ import annotations

import abc
from collections.abc import Mapping

__all__ = ["Touching"]


class Touching(abc.ABC):
    """The part of the store contract that concerns access times."""

    touched: dict[bytes, float | None]  # seq -> when it was read (None: since the last flush)

    @abc.abstractmethod
    def touch(self, batch: Mapping[bytes, float]) -> None:
        """Note when entries were read last. Identities that are gone are passed over."""

    def flush_touched(self, now: float) -> int:
        """Write the noted reads to the store; tells how many."""
        batch: dict[bytes, float] = {}
        touched = self.touched
        for _ in range(len(touched)):
            try:
                seq, at = touched.popitem()
            except KeyError:  # another thread flushes too
                break
            batch[seq] = now if at is None else at
        if batch:
            try:
                self.touch(batch)
            except BaseException:
                for seq, when in batch.items():
                    touched.setdefault(seq, when)
                raise
        return len(batch)
