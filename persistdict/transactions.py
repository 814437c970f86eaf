"""Transactions: many reads and writes, of any parts of a dictionary, of which all happen or none."""

from __future__ import annotations

import contextlib
import os
import sys
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
from persistdict.routing import Beginning, Routed
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
        TransactionError. What is not of the store, such as counts in `stats`, is not undone.

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
    """The `with` of a transaction."""

    _overlay: Overlay
    _beginning: Beginning
    _outer: tuple[Overlay, Beginning] | None
    _pid: int
    _turn: contextlib.ExitStack

    def __init__(self, owner: Transactions[Any, Any]) -> None:
        self._owner, self._root = owner, owner._root

    # Without annotations: what decorates functions must not put a frame of its own between this and the caller's.
    def __enter__(self):  # type: ignore[no-untyped-def]
        root, me = self._root, get_ident()
        self._beginning, self._pid = Beginning(sys._getframe(1)), os.getpid()
        routed = root._store
        self._outer = routed.open.get(me) if isinstance(routed, Routed) else None
        with contextlib.ExitStack() as stack:
            if self._outer is None:
                stack.enter_context(root._opened().turn())
            else:
                self._outer[1].check()
            with root._write_lock:
                routed = root._store
                if not isinstance(routed, Routed):
                    routed = root._store = Routed(routed)
                self._overlay = Overlay(routed.bare if self._outer is None else self._outer[0])
                routed.open[me] = self._overlay, self._beginning
            self._turn = stack.pop_all()
        return Transacted(self._owner, routed, self._overlay)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._turn:
            try:
                self._leave()
                if kind is None:
                    self._finish()
            finally:
                self._beginning.forget()

    def _leave(self) -> None:
        """Have this thread speak to the store again, or to the transaction around this one."""
        root, me = self._root, get_ident()
        self._overlay.over = True
        with root._write_lock:
            routed = root._store
            if not isinstance(routed, Routed):
                return  # in a forked child
            if self._outer is not None:
                routed.open[me] = self._outer
                return
            routed.open.pop(me, None)
            if not routed.open:
                root._store = routed.bare

    def _finish(self) -> None:
        if os.getpid() != self._pid:
            raise TransactionError("the process was forked within a transaction, which only the parent may end")
        self._beginning.check()
        if self._outer is not None:
            self._outer[0].adopt(self._overlay)
        else:
            _commit(self._root, self._overlay)


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
            root._bounds.make_room([len(kb) + len(blob) for kb, blob in pairs], partial(_replaced, root, overlay))
        commit: int = root._store.update(overlay.apply, size=weight, whole=whole)
        return commit

    root._write(change, account)


def _replaced(root: Any, overlay: Overlay) -> Usage:
    """How much of what is there now a transaction overwrites or removes."""
    replaced = root._present([(kb, b"") for kb in overlay.writes])
    items = [item for span in overlay.cleared for item in root._opened().scan(span=span)]
    cleared = {item.kb: len(item.kb) + len(item.blob) for item in items if item.kb not in overlay.writes}
    return Usage(replaced.entries + len(cleared), replaced.size + sum(cleared.values()))
