"""Transactions: many reads and writes, of any parts of a dictionary, of which all happen or none."""

from __future__ import annotations

import os
import sys
import weakref
from contextlib import AbstractContextManager
from functools import partial
from threading import get_ident
from types import TracebackType
from typing import Any, TypeVar

from persistdict.bounded import Usage
from persistdict.errors import TransactionError
from persistdict.front import Front
from persistdict.overlay import Overlay
from persistdict.queueing import Queueing
from persistdict.routing import Beginning, Opened, Routed
from persistdict.views import Spaces, View

__all__ = ["Transacted", "Transactions"]

K = TypeVar("K")
V = TypeVar("V")


class Transactions(Queueing[K, V], Spaces[K, V]):
    """The part of a dictionary that begins transactions."""

    def transaction(self) -> AbstractContextManager[Transacted[K, V]]:
        """All or nothing: what is written within the `with` becomes visible at its end, at once, or never if it raises.

        What `with` gives is this dictionary as the transaction sees it: with all that it has written. The dictionary
        itself, its spaces and its prefixes take part too, where this thread uses them; other threads and processes go
        on without seeing anything of it. Entries may be as large, and as many, as in other writes.

        Transactions of one store come one after the other, in all threads and processes. Other writes go on meanwhile.
        If one of them changes an entry that the transaction has looked at by its key (read, tested, or written under a
        condition), the end raises ConflictError and nothing is written: do it again. What was seen by iterating, or by
        `len`, is not compared. One that only reads is refused in the same way, so what it has read was all true at one
        moment.

        A transaction within one is a part of it: if it raises, what it has done is undone, and the outer one may go on.

        It belongs to the thread and to the function that begins it: across `await` or `yield` it is refused, with
        TransactionError. What is not of the store, such as counts in `stats`, is not undone. A version that is seen or
        given in it (`get_versioned`, `replace`) is one of this transaction if it has written the entry.

        It is one commit, as durable as other writes: with `durability="commit"`, when the `with` is left. Cost: the
        writes are kept in memory until then.

        Raises ConflictError and TransactionError; BusyError if another transaction was in the way for longer than
        `timeout`; and what writes raise, at the end.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.update(ann=100, bob=0)
        >>> with d.transaction() as t:
        ...     t["ann"] -= 30
        ...     t["bob"] += 30
        ...     t.space("log")[1] = "ann paid bob"
        >>> dict(d), dict(d.space("log"))
        ({'ann': 70, 'bob': 30}, {1: 'ann paid bob'})
        >>> with d.transaction() as t:
        ...     t["ann"] -= 1000
        ...     if t["ann"] < 0:
        ...         raise ValueError("ann has not so much")
        Traceback (most recent call last):
        ...
        ValueError: ann has not so much
        >>> d["ann"]
        70
        """
        return _Block(self)


class Transacted(Transactions[K, V], View[K, V]):
    """A dictionary as a transaction sees it. Only for the thread, and within the `with`, of the transaction."""

    def __init__(self, owner: Transactions[K, V], routed: Routed, overlay: Overlay) -> None:
        View.__init__(self, owner, "transaction", (), owner._keys, owner._span)
        self._routed, self._overlay, self._thread = routed, overlay, get_ident()

    @property
    def _store(self) -> Any:  # type: ignore[override]
        if get_ident() != self._thread:
            raise TransactionError("a transaction belongs to the thread that began it; another one must begin its own")
        self._overlay.check()
        return self._routed

    def __reduce__(self) -> tuple[Any, ...]:
        raise TransactionError("a transaction cannot be pickled: it belongs to the thread that began it")


class _Block:
    """The `with` of a transaction.

    It ends in any case: by `__exit__`; if a signal interrupts that, or comes before the block has begun, when Python
    lets go of this object, which is at once, as only the `with` refers to it: then the turn is given back, and the
    routing finds that it is gone.
    """

    _overlay: Overlay | None = None
    _outer: Opened | None
    _beginning: Beginning
    _pid = _thread = 0

    def __init__(self, owner: Transactions[Any, Any]) -> None:
        self._owner, self._root = owner, owner._root
        self._turn: Any = None  # see Store.turn

    # Without annotations: what decorates functions must not put a frame of its own between this and the caller's.
    def __enter__(self):  # type: ignore[no-untyped-def]
        root = self._root
        try:
            self._beginning, self._pid, self._thread = Beginning(sys._getframe(1)), os.getpid(), get_ident()
            routed = root._store
            self._outer = routed.of(self._thread) if isinstance(routed, Routed) else None
            if self._outer is None:
                self._turn = root._opened().turn()
                next(self._turn)
            else:
                self._outer.beginning.check()
            with root._write_lock:
                routed = root._store
                if not isinstance(routed, Routed):
                    routed = root._store = Routed(routed)
                self._overlay = Overlay(routed.bare if self._outer is None else self._outer.overlay)
                routed.set(self._thread, Opened(weakref.ref(self), self._overlay, self._beginning, self._outer))
            return Transacted(self._owner, routed, self._overlay)
        except BaseException:
            self._end()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            overlay = self._leave()
            if kind is None and overlay is not None:
                self._finish(overlay)
        finally:
            self._end()

    def _end(self) -> None:
        """Let go of everything. May be called again."""
        try:
            self._leave()
        finally:
            if self._turn is not None:
                self._turn.close()
            if self._pid:
                self._beginning.forget()

    def _leave(self) -> Overlay | None:
        """Have the thread speak to the store again, or to the transaction around this one. None if it does."""
        root, overlay = self._root, self._overlay
        if overlay is None:
            return None
        overlay.over = True
        with root._write_lock:
            routed = root._store
            mine = routed.of(self._thread) if isinstance(routed, Routed) else None
            if mine is not None and mine.overlay is overlay:
                routed.set(self._thread, self._outer)
                if not routed.is_used():
                    root._store = routed.bare
        self._overlay = None
        return overlay

    def _finish(self, overlay: Overlay) -> None:
        if os.getpid() != self._pid:
            raise TransactionError("the process was forked within a transaction, which only the parent may end")
        self._beginning.check()
        if self._outer is not None:
            self._outer.overlay.adopt(overlay)
        else:
            _commit(self._root, overlay)


def _commit(root: Any, overlay: Overlay) -> None:
    """Write what a transaction has written."""
    if overlay.is_new():
        overlay.verify_reads(root._opened().get_many)
        return
    pairs = [(kb, record.blob) for kb, record in overlay.writes.items() if record is not None]
    kept_as = [root._kept_as(kb) for kb in overlay.writes]
    weight = len(overlay.writes) + (sum(len(blob) for _, blob in pairs) >> 11)
    whole = bool(overlay.cleared or overlay.settings)

    def account(front: Front, commit: int) -> None:
        if overlay.cleared:
            front.clear()
        else:
            front.wrote_many(commit, kept_as)

    def change() -> int:
        if root._bounds is not None:
            overlay.verify_reads(root._store.get_many)
            evicted = root._bounds.evicted
            root._bounds.make_room([len(kb) + len(blob) for kb, blob in pairs], partial(_replaced, root, overlay))
            if root._bounds.evicted != evicted:
                overlay.forgive(root._store.get_many)
        commit: int = root._store.update(overlay.apply, size=weight, whole=whole)
        return commit

    root._write(change, account)


def _replaced(root: Any, overlay: Overlay) -> Usage:
    """How much of what is there now a transaction overwrites or removes."""
    replaced = root._present([(kb, b"") for kb in overlay.writes])
    items = [item for span in overlay.cleared for item in root._opened().scan(span=span)]
    cleared = {item.kb: len(item.kb) + len(item.blob) for item in items if item.kb not in overlay.writes}
    return Usage(replaced.entries + len(cleared), replaced.size + sum(cleared.values()))
