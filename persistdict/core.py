"""What every part of a dictionary stands on: its store, keys, and one way to write."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from persistdict.bounded import Usage
from persistdict.errors import CorruptEntryError, DamagedEntryWarning, DecodeError, told
from persistdict.front import Front
from persistdict.keys import TEXT
from persistdict.openable import MISSING, Openable
from persistdict.routing import Routed
from persistdict.spans import Span, head_of, name_in
from persistdict.store import Condition, Item, Receipt, Record, Transaction

__all__ = ["MISSING", "Core"]

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
S = TypeVar("S", bound="Core[Any, Any]")


class Core(Openable[K, V]):
    """What the parts of a dictionary share."""

    def _title(self) -> str:
        """What makes it."""
        return f"{type(self).__name__}({self._options.path!r})"

    # Reading

    def _iter_keys(self, reverse: bool, label: bytes = b"") -> Iterator[K]:
        """The keys in order of insertion, or of the entries with a label."""
        if label:
            return self._keys_of(self._labelled(label))
        return self._keys_of(self._store.scan(reverse=reverse, values=False, span=self._span))

    def _names_in(self, span: Span) -> list[str]:
        """The names of what lies in a span of heads, the shortest first."""
        names: list[bytes] = []
        while (item := next(self._store.scan(values=False, by_key=True, span=span), None)) is not None:
            head = head_of(item.kb)
            if name_in(head) is None or item.kb >= head + b"\xff":
                self._warn_passed_over(DecodeError("it is in no possible space or queue"))
                span = Span(item.kb + b"\0", span.stop)
                continue
            names.append(head[1:])
            span = Span(head + b"\xff", span.stop)
        return [name[1:].decode("utf-8", "surrogatepass") for name in sorted(names)]

    def _labelled(self, label: bytes) -> Iterator[Item]:
        return (item for item in self._store.labelled(label) if item.kb in self._span)

    def _keys_of(self, items: Iterator[Item]) -> Iterator[K]:
        decode, plain = self._keys.decode, self._keys.plain
        for kb, hint, _, _ in items:
            try:
                if plain and kb[:1] == TEXT and kb.isascii():
                    key: Any = kb[1:].decode("ascii")
                else:
                    key = decode(kb, hint)
            except Exception as error:
                self._warn_passed_over(error)
                continue
            yield key

    def _warn_passed_over(self, error: Exception) -> None:
        message = f"an entry of {self._log.name} was passed over: {told(error)}"
        warnings.warn(message, DamagedEntryWarning, stacklevel=4)

    # Writing

    def _locate(self, key: object) -> tuple[Any, bytes, bytes]:
        """Under what the front keeps a key (equal for equal keys), its bytes and its hint."""
        kb, hint = self._keys.encode(key)
        if self._fast_type is not None and isinstance(key, str):
            return str.__str__(key), kb, hint
        return kb, kb, hint

    def _in_transaction(self) -> bool:
        """Whether this thread has a transaction of the dictionary."""
        store: Any = self._store
        return isinstance(store, Routed) and store.mine() is not None

    def _kept_as(self, kb: bytes) -> Any:
        """Under what the front keeps the key of these bytes."""
        is_text = self._fast_type is not None and kb[:1] == TEXT
        return kb[1:].decode("utf-8", "surrogatepass") if is_text else kb

    def _change(
        self,
        work: Callable[[Transaction], T],
        pairs: Sequence[tuple[bytes, bytes]],
        *,
        size: int = 1,
        whole: bool = False,
    ) -> T:
        if pairs:
            self._make_room(pairs)
        return self._store.update(work, size=size, whole=whole)

    def _make_room(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """See that there is room within the bounds for these keys and values; they are written before the lock is free.

        So threads that write at once do not take the same room.
        """
        if self._bounds is not None and not self._in_transaction():  # else it is for the end
            self._bounds.make_room([len(kb) + len(blob) for kb, blob in pairs], partial(self._present, pairs))

    def _present(self, pairs: Sequence[tuple[bytes, bytes]]) -> Usage:
        """How many of these are overwrites, also of each other, and the bytes of what is there."""
        kbs = {kb for kb, _ in pairs}
        entries, size = len(pairs) - len(kbs), 0
        for kb in kbs:
            with contextlib.suppress(CorruptEntryError):  # the write will heal it
                record = self._store.get(kb)
                if record is not None:
                    entries, size = entries + 1, size + len(kb) + len(record.blob)
        return Usage(entries, size)

    def _write_many(
        self,
        work: Callable[[Transaction], int],
        kept_as: list[Any],
        size: int,
        pairs: Sequence[tuple[bytes, bytes]] = (),
    ) -> bool:
        """Run a transaction that changes the keys kept as these, and returns its id, or 0 if it changed nothing.

        There is room for the keys and values of `pairs` first.
        """
        done = self._write(
            lambda: self._change(work, pairs, size=size),
            lambda front, commit: front.wrote_many(commit, kept_as),
        )
        return bool(done)

    def _delete_version(self, record: Record, kept_as: Any) -> bool:
        """Remove an entry if it is still as it was read."""
        receipt = self._write(
            lambda: self._store.delete(record.kb, record.version),
            lambda front, receipt: front.wrote(receipt.id, kept_as, None),
        )
        if receipt is None:
            return False
        next(self._tally.deletes)
        return True

    def _put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None, when: Condition, label: bytes = b""
    ) -> Receipt | None:
        """Set an entry under a condition, within `_write`. None if it does not hold."""
        self._make_room([(kb, blob)])
        return self._store.put(kb, hint, tag, blob, ttl, when, label)

    def _write(
        self, change: Callable[[], T | None], account: Callable[[Front, T], None], confirm: bool = True
    ) -> T | None:
        """Change the store, and if that did anything, account for it in the front. `confirm`: as durable as others.

        `change` returns a receipt, or the id of its commit; 0 or None if it did nothing.

        Not a context manager: its lines could be interrupted by a signal with the lock held.
        """
        front = self._front
        with self._write_lock:
            try:
                front.writing = True
                done = change()
                if done:
                    account(front, done)
            finally:
                front.writing = False
        if done and self._confirms:
            commit: Any = done.id if isinstance(done, Receipt) else done
            see_to = self._store.confirm if confirm else self._store.waive
            see_to(commit)
        return done
