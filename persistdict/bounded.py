"""The part of the store contract that is about use: when entries were read last, how much there is, what may go."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple

from persistdict.errors import Unsupported

__all__ = ["NO_USES", "Access", "Evictable", "Usage", "Uses"]

NO_USES: Mapping[bytes, int] = MappingProxyType({})


class Usage(NamedTuple):
    """How many entries there are and how many bytes they take."""

    entries: int
    size: int


class Access(NamedTuple):
    """When and how often an entry was used, as far as is known: what decides about its eviction.

    Attributes:
        used_at: when it was read or written last, seconds since the epoch.
        uses: how often it was read; counted only while a handle with `counting` is open.
        size: about how many bytes it takes.
    """

    kb: bytes
    seq: bytes
    version: int
    used_at: float
    uses: int
    size: int


class Uses(dict[bytes, float | None]):
    """Reads that were noted, as in `Store.touched`, and how many of each. (Threads may lose a count.)"""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[bytes, int] = {}

    def __setitem__(self, seq: bytes, at: float | None) -> None:
        self.counts[seq] = self.counts.get(seq, 0) + 1
        super().__setitem__(seq, at)

    def __delitem__(self, seq: bytes) -> None:
        super().__delitem__(seq)
        self.counts.pop(seq, None)

    def pop(self, seq: bytes, default: Any = None) -> Any:
        self.counts.pop(seq, None)
        return super().pop(seq, default)

    def clear(self) -> None:
        super().clear()
        self.counts.clear()


class Evictable(abc.ABC):
    """What is asked of a store about the use of its entries."""

    place: str
    touched: dict[bytes, float | None]  # seq -> when it was read (None: since the last flush); see `flush_touched`

    @abc.abstractmethod
    def touch(self, batch: Mapping[bytes, float], uses: Mapping[bytes, int] = NO_USES) -> None:
        """Note when entries were read last, and how often since. Identities that are gone are passed over."""

    def flush_touched(self, now: float) -> int:
        """Write the noted reads to the store; tells how many."""
        batch: dict[bytes, float] = {}
        touched = self.touched
        uses, counts = {}, touched.counts if isinstance(touched, Uses) else {}
        for _ in range(len(touched)):
            try:
                seq, at = touched.popitem()
            except KeyError:  # another thread flushes too
                break
            batch[seq] = now if at is None else min(at, now)
            uses[seq] = counts.pop(seq, 0)
        if batch:
            try:
                self.touch(batch, uses)
            except BaseException:
                for seq, when in batch.items():
                    touched.setdefault(seq, when)
                    if uses[seq]:
                        counts[seq] = counts.get(seq, 0) + uses[seq]
                raise
        return len(batch)

    def usage(self, *, exact: bool = False) -> Usage:
        """How much there is, never less than the truth; `exact` costs a sync."""
        raise Unsupported(f"{self.place}: this engine keeps no bounds")

    def accesses(
        self, budget: int, after: bytes = b"", *, before: float = float("inf")
    ) -> tuple[list[Access], bytes | None]:
        """The entries in order of creation, of about `budget` those that were last used before that time.

        Returns them, and the position to go on from (None: the pass is done).
        """
        raise Unsupported(f"{self.place}: this engine keeps no bounds")

    def evicting(self) -> AbstractContextManager[object]:
        """Within this, no other process evicts; else each would make the room that all need."""
        return nullcontext()

    def evict(self, batch: list[Access], *, unless: str = "used") -> Usage:
        """Remove these entries, in one transaction; unless they were "used" since, or "written", or ("") made anew.

        Tells how much was removed.
        """
        raise Unsupported(f"{self.place}: this engine keeps no bounds")
