"""What a transaction has done so far, over a store that knows nothing of it yet.

An overlay answers as the store would if the writes were there. They are kept in memory, and go to the store all at
once, in one transaction of its own. Nothing of the store is held meanwhile, so other writers go on. What was read by
its key is looked at again then: if somebody else has changed it, nothing is written (ConflictError).

A transaction within a transaction is an overlay over an overlay: it is adopted, or forgotten.

What is written here has versions below zero, which nothing else has, and an id that no copy is ever made at.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from persistdict.errors import ConflictError, TransactionError
from persistdict.records import ABSENT, ANY, KEPT, Condition, Found, Item, Receipt, Record, Transaction, holds
from persistdict.spans import ALL, KEPT_FROM, Span
from persistdict.store import NOT_TOLD

__all__ = ["Overlay"]

T = TypeVar("T")

NEVER_VALID = -2  # the id of a reader; copies are made at -1, which is none either
NEVER = float("inf")
_versions = itertools.count(-1, -1)  # of all transactions of the process: a version stands for one write only


class _Moment:
    def id(self) -> int:
        return NEVER_VALID


class Overlay:
    """A store with the writes of a transaction. What is not about entries is the store's own.

    Threads: one.

    Attributes:
        bare: what is below: the store, or another overlay.
        over: whether the transaction has ended, one way or the other.
        writes: what was written: key -> entry, or None for none.
        created: the keys of those that are new, in order, and whether there may be another entry below.
        reads: key -> the version that was read below, or ABSENT.
        cleared: spans of which nothing is left but what was written since.
        settings: what `set_info` has set.
    """

    latest = NOT_TOLD

    def __init__(self, bare: Any) -> None:
        self.bare = bare
        self.over = False
        self.writes: dict[bytes, Record | None] = {}
        self.created: dict[bytes, bool] = {}
        self.reads: dict[bytes, Condition] = {}
        self.cleared: list[Span] = []
        self.settings: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)

    def begin(self) -> _Moment:
        return _Moment()

    def confirm(self, commit: int) -> None:
        """Nothing: the end of the transaction is confirmed."""

    waive = confirm

    def check(self) -> None:
        """Raises TransactionError if it has ended."""
        if self.over:
            raise TransactionError("the transaction has ended; begin another one, or use the dictionary itself")

    # Reading

    def look(self, kb: bytes, *, note: bool = True) -> Record | None:
        """The entry of a key. With `note`, what is below must be the same at the end."""
        if kb in self.writes:
            record = self.writes[kb]
            over = record is None or (record.expires_at is not None and record.expires_at <= self.bare.clock())
            return None if over else record
        if any(kb in span for span in self.cleared):
            return None
        found: Record | None = self.bare.get(kb)
        if note:
            self.reads.setdefault(kb, ABSENT if found is None else found.version)
        return found

    def read(self, kb: bytes) -> Found | None:
        record = self.look(kb)
        return None if record is None else record.found()

    def get(self, kb: bytes) -> Record | None:
        return self.look(kb)

    def get_many(self, kbs: list[bytes]) -> list[Record | None]:
        return [self.look(kb) for kb in kbs]

    def read_many(self, kbs: list[bytes]) -> list[Found | None]:
        return [self.read(kb) for kb in kbs]

    def contains(self, kb: bytes) -> bool:
        return self.look(kb) is not None

    def last(self, *, values: bool = True, span: Span = ALL) -> Record | None:
        found = (self.look(item.kb) for item in self.scan(reverse=True, values=False, span=span))
        return next((record for record in found if record is not None), None)

    def any(self, span: Span = ALL) -> bool:
        return next(self.scan(values=False, span=span), None) is not None

    def count(self, span: Span = ALL) -> int:
        if any(each.start < span.stop and span.start < each.stop for each in self.cleared):
            return sum(1 for _ in self.scan(values=False, span=span))
        written = [kb for kb in self.writes if kb in span]
        total: int = self.bare.count(span) - sum(self.bare.contains(kb) for kb in written)
        return total + sum(self.look(kb, note=False) is not None for kb in written)

    def info(self) -> dict[str, str]:
        return {**self.bare.info(), **self.settings}

    def scan(
        self, *, reverse: bool = False, values: bool = True, by_key: bool = False, span: Span = ALL
    ) -> Iterator[Item]:
        """As of the store. What is gone through is not looked at again at the end."""
        items = self.bare.scan(reverse=reverse, values=values, by_key=by_key, span=span)
        if by_key:
            written = sorted((kb for kb in self.writes if kb in span), reverse=reverse)
            return heapq.merge(self._below(items, written), self._above(written), key=_kb_of, reverse=reverse)
        created = [kb for kb in self.created if kb in span]
        above = self._above(created[::-1] if reverse else created)
        below = self._below(items, created)
        return itertools.chain(above, below) if reverse else itertools.chain(below, above)

    def labelled(self, label: bytes) -> Iterator[Item]:
        """As of the store; what this transaction has written comes last."""
        written = [kb for kb, record in self.writes.items() if record is not None and record.label == label]
        below = (item for item in self._below(self.bare.labelled(label), written) if self._has_label(item.kb, label))
        return itertools.chain(below, self._above(written))

    def _has_label(self, kb: bytes, label: bytes) -> bool:
        """Whether an entry that has a label below has it still."""
        record = self.writes.get(kb)
        return record is None or record.label == label

    def labels(self) -> list[bytes]:
        """The labels of the store, some of which may not be in use any more, and of what was written."""
        written = {record.label for record in self.writes.values() if record is not None and record.label}
        return sorted({*self.bare.labels(), *written})

    def _below(self, items: Iterator[Item], elsewhere: Iterable[bytes]) -> Iterator[Item]:
        """What is below, as it is now; but what comes elsewhere, or was made anew meanwhile."""
        others = set(elsewhere)
        for item in items:
            self.check()
            if item.kb in self.writes:
                if item.kb not in others and item.kb not in self.created:
                    yield from self._above([item.kb])
            elif not any(item.kb in span for span in self.cleared):
                yield item

    def _above(self, kbs: Iterable[bytes]) -> Iterator[Item]:
        """What was written under these keys, as it is now."""
        for kb in kbs:
            self.check()
            record = self.look(kb, note=False)
            if record is not None:
                yield Item(*record[:4])

    # Writing

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None = None, when: Condition = ANY,
        label: bytes = b"",
    ) -> Receipt | None:  # fmt: skip
        before = self.look(kb, note=when is not ANY)
        if not holds(when, before and before.version):
            return None
        now, version = self.bare.clock(), next(_versions)
        deadline = None if ttl is None else now + ttl
        if ttl == KEPT:
            deadline = None if before is None else before.deadline
        seq, ctime = (-version).to_bytes(8, "big"), now
        if before is not None:
            seq, ctime, hint = before.seq, before.ctime, before.hint
        else:
            again = self._was_removed(kb)
            self.created.pop(kb, None)  # it is the last now
            self.created[kb] = again
        idle = NEVER if self.bare.idle is None or kb >= KEPT_FROM else now + self.bare.idle
        ends = min(idle, NEVER if deadline is None else deadline)
        end = None if ends == NEVER else ends
        self.writes[kb] = Record(kb, hint, tag, blob, seq, version, ctime, now, now, end, label, deadline)
        return Receipt(seq, version, end, -1)

    def _was_removed(self, kb: bytes) -> bool:
        """Whether an entry below may have been removed here."""
        return kb in self.writes or any(kb in span for span in self.cleared)

    def delete(self, kb: bytes, when: Condition = ANY) -> Receipt | None:
        record = self.look(kb)
        if record is None or not holds(when, record.version):
            return None
        self.discard(kb)
        return Receipt(record.seq, record.version, None, -1)

    def discard(self, kb: bytes, label: bytes | None = None) -> bool:
        """As of a transaction of the store."""
        record = self.look(kb)
        if record is None or label not in (None, record.label):
            return False
        self.created.pop(kb, None)
        self.writes[kb] = None
        return True

    def clear(self, span: Span = ALL) -> int:
        """As of a transaction of the store."""
        total = self.count(span)
        self.writes = {kb: record for kb, record in self.writes.items() if kb not in span}
        self.created = {kb: again for kb, again in self.created.items() if kb not in span}
        self.cleared.append(span)
        return total

    def update(self, work: Callable[[Transaction], T], *, size: int = 1, whole: bool = False) -> T:
        within = Overlay(self)
        done = work(_Inside(within))
        self.adopt(within)
        return done

    def adopt(self, other: Overlay) -> None:
        """Take over what was done above."""
        for span in other.cleared:
            self.clear(span)
        for kb, record in other.writes.items():
            if record is None or kb in other.created:
                self.created.pop(kb, None)
        for kb, again in other.created.items():
            self.created[kb] = again or self._was_removed(kb)
        self.writes.update(other.writes)
        self.settings.update(other.settings)

    # The end

    def is_new(self) -> bool:
        """Whether nothing was written."""
        return not (self.writes or self.cleared or self.settings)

    def verify_reads(self, versions: Callable[[list[bytes]], list[Record | None]]) -> None:
        """Raises ConflictError if anything that was read has another version by now."""
        now = versions(list(self.reads))
        for record, version in zip(now, self.reads.values(), strict=True):
            if (ABSENT if record is None else record.version) != version:
                raise ConflictError(
                    "somebody else has changed what this transaction has read; nothing was written: do it again"
                )

    def forgive(self, versions: Callable[[list[bytes]], list[Record | None]]) -> None:
        """Ask no more for what is gone: it was evicted to make room for what was written here."""
        now = versions(list(self.reads))
        reads = zip(self.reads.items(), now, strict=True)
        self.reads = {kb: version for (kb, version), record in reads if record is not None or version is ABSENT}

    def apply(self, txn: Transaction) -> int:
        """Bring the writes into a transaction of the store, if what was read is still so. Gives its id."""
        self.verify_reads(lambda kbs: [txn.get(kb) for kb in kbs])
        for span in self.cleared:
            txn.clear(span)
        for kb in [*(kb for kb in self.writes if kb not in self.created), *self.created]:
            record = self.writes[kb]
            ttl = None if record is None or record.deadline is None else record.deadline - self.bare.clock()
            if record is None or self.created.get(kb) or (ttl is not None and ttl <= 0):
                txn.discard(kb)
            if record is not None and (ttl is None or ttl > 0):
                txn.put(kb, record.hint, record.tag, record.blob, ttl=ttl, label=record.label)
        for name, text in self.settings.items():
            txn.set_info(name, text)
        return txn.id()


class _Inside(Transaction):
    """An overlay as the inside of `Store.update`."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, *, ttl: float | None = None, when: Condition = ANY,
        label: bytes = b"",
    ) -> Receipt | None:  # fmt: skip
        return self._overlay.put(kb, hint, tag, blob, ttl, when, label)

    def delete(self, kb: bytes, *, when: Condition = ANY) -> Record | None:
        record = self._overlay.look(kb)
        return None if self._overlay.delete(kb, when) is None else record

    def get(self, kb: bytes) -> Record | None:
        return self._overlay.look(kb)

    def discard(self, kb: bytes, label: bytes | None = None) -> bool:
        return self._overlay.discard(kb, label)

    def clear(self, span: Span = ALL) -> int:
        return self._overlay.clear(span)

    def first(self, span: Span, *, reverse: bool = False) -> Record | None:
        item = next(self._overlay.scan(reverse=reverse, values=False, by_key=True, span=span), None)
        return None if item is None else self._overlay.look(item.kb)

    def get_info(self, name: str) -> str | None:
        return self._overlay.info().get(name)

    def set_info(self, name: str, text: str) -> None:
        self._overlay.settings[name] = text

    def id(self) -> int:
        return -1


def _kb_of(item: Item) -> bytes:
    return item.kb
