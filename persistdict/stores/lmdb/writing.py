"""The writes of the store contract: which of the two environments each goes to, and what happens on a full disk.

On a full disk, what is recent is drained first, for then it needs no more room; a write that still has none raises
DiskFullError and changes nothing. Deletions go on: both files keep room for them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

from persistdict.errors import DiskFullError
from persistdict.store import ANY, Condition, Receipt, Transaction
from persistdict.stores.lmdb.direct import write_directly
from persistdict.stores.lmdb.environment import Environment
from persistdict.stores.lmdb.evicting import Evicting
from persistdict.stores.lmdb.recent import change_nothing
from persistdict.stores.lmdb.transaction import ClearingTransaction, DirectTransaction, RecentTransaction

__all__ = ["Writing"]

T = TypeVar("T")

BIG = 1 << 20  # bytes of a value from which on it is written to the data directly, and not twice
MANY = 512  # writes in one transaction from which on it changes the data directly
_OVERHEAD = 100  # bytes that a row takes beside its value


class Writing(Evicting):
    """Writes, each a transaction."""

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None = None, when: Condition = ANY,
        label: bytes = b"",
    ) -> Receipt | None:  # fmt: skip
        env = self.env
        if len(blob) > BIG:
            return self.update(lambda txn: txn.put(kb, hint, tag, blob, ttl=ttl, when=when, label=label), size=MANY)
        if env.pending + len(blob) > env.look_at or time.monotonic() > env.due:
            self.paid(len(blob))
        try:
            plain = ttl is None and when is ANY and not label
            if plain and self.idle is None and len(kb) < self.limit and self.interval:
                receipt = env.recent.update(self.put_plain, kb, hint, tag, blob, timeout=self.timeout)
            else:
                what = (0, kb, hint, tag, blob, ttl, when, label)
                receipt = env.recent.update(self.put_recent, *what, timeout=self.timeout)
        except DiskFullError:
            self._drain_for_room()
            what = (0, kb, hint, tag, blob, ttl, when, label)
            receipt = env.recent.update(self.put_recent, *what, timeout=self.timeout)
        env.pending += len(blob) + _OVERHEAD
        if not env.armed:
            self.arm(env)
        return receipt

    def _drain_for_room(self) -> None:
        """Drain, so that the recent writes need no more room than they have."""
        self.sync()
        self.env.recent.update(change_nothing)

    def delete(self, kb: bytes, when: Condition = ANY) -> Receipt | None:
        env = self.paid(urgent=True)
        if when is ANY and self.idle is None and len(kb) < self.limit and self.interval:
            receipt = env.recent.update_urgently(self.delete_plain, kb, timeout=self.timeout)
        else:
            receipt = env.recent.update_urgently(self.delete_one, kb, when, timeout=self.timeout)
        if receipt is not None:
            self.owe(env, _OVERHEAD)
        return receipt

    def update(self, work: Callable[[Transaction], T], *, size: int = 1, whole: bool = False) -> T:
        if whole or size >= MANY:
            return self._update_directly(work, whole)
        with contextlib.suppress(DiskFullError):
            return self._update_recent(self.paid(), work)
        with contextlib.suppress(DiskFullError):
            self._drain_for_room()
            return self._update_recent(self.env, work)
        return self._update_recent(self.env, work, full=True)

    def _update_directly(self, work: Callable[[Transaction], T], whole: bool) -> T:
        with contextlib.suppress(DiskFullError):
            return write_directly(self, lambda d, number: work(DirectTransaction(self, d, number)))[0]
        if whole:
            clearing = lambda d, number: work(ClearingTransaction(self, d, number))  # noqa: E731
            return write_directly(self, clearing, void=True)[0]
        return self._update_recent(self.env, work, full=True)

    def _update_recent(self, env: Environment, work: Callable[[Transaction], T], full: bool = False) -> T:
        """A transaction of the recent writes; on a full disk, nothing but deletions."""
        run: Callable[..., tuple[T, int]] = env.recent.update_urgently if full else env.recent.update
        done, written = run(self._in_recent, work, full, timeout=self.timeout)
        if written:
            self.owe(env, written)
        return done

    def _in_recent(self, r: Any, work: Callable[[Transaction], T], full: bool) -> tuple[T, int]:
        transaction = RecentTransaction(self, r, full)
        return work(transaction), transaction.written
