"""Which store a dictionary speaks to: where a thread has a transaction to its overlay, else to the store itself.

A transaction belongs to the thread and to the function that began it. While that function is suspended (by await, or
as a generator by yield), other code runs in its thread, which must neither see what was written so far nor have its own
writes undone by it. So a use of the dictionary is refused if the function that began the transaction is not among its
callers; and so is the end, if the function has an await or yield behind the beginning that it may have passed.
"""

import sys
from functools import lru_cache
from threading import get_ident
from types import CodeType, FrameType
from typing import Any, NamedTuple

from persistdict.errors import TransactionError
from persistdict.overlay import Overlay

__all__ = ["Beginning", "Opened", "Routed"]

_SUSPENDABLE = 0x20 | 0x80 | 0x100 | 0x200  # flags of the code of generators, coroutines and both
_POINTS = ("YIELD_VALUE", "YIELD_FROM")


class Beginning:
    """Where a transaction was begun: in the function of this frame."""

    def __init__(self, frame: FrameType | None) -> None:
        while frame is not None and frame.f_globals.get("__name__") == "contextlib":
            frame = frame.f_back  # ExitStack: whoever uses it
        self._frame = frame
        self._at = -1 if frame is None else frame.f_lasti

    def check(self) -> None:
        """Raises TransactionError if the function is not running now, or may have been suspended."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        began_in = self._frame
        if frame is None or began_in is None:
            raise TransactionError(
                "this thread has a transaction whose function is suspended by await or yield, or has returned; end a "
                "transaction in the function that began it, without a pause; nothing of it is written"
            )
        code, now = began_in.f_code, began_in.f_lasti
        if code.co_flags & _SUSPENDABLE and any(self._at < at < now for at in _points(code)):
            raise TransactionError(
                "a transaction goes across an await or a yield; do what may be suspended before or after it; nothing "
                "of it is written"
            )

    def forget(self) -> None:
        """Let go of the frame."""
        self._frame = None


@lru_cache(maxsize=256)
def _points(code: CodeType) -> list[int]:
    """Where a function may be suspended."""
    import dis

    return [step.offset for step in dis.get_instructions(code) if step.opname in _POINTS]


class Opened(NamedTuple):
    """A transaction that was begun: a weak reference to its `with`, and that around it in the same thread."""

    block: Any
    overlay: Overlay
    beginning: Beginning
    outer: Any


class Routed:
    """Stands for a store while there are transactions.

    Attributes:
        bare: the store.
        open: the transactions, by their threads; the last one of each, which knows those around it.
    """

    def __init__(self, bare: Any) -> None:
        self.bare = bare
        self.open: dict[int, Opened] = {}

    def __getattr__(self, name: str) -> Any:
        mine = self.mine()
        if mine is None:
            return getattr(self.bare, name)
        mine.beginning.check()
        return getattr(mine.overlay, name)

    def mine(self) -> Opened | None:
        """The transaction of this thread."""
        return self.of(get_ident())

    def of(self, thread: int) -> Opened | None:
        """The transaction of a thread. One whose `with` is gone, by a signal that interrupted its end, is forgotten."""
        opened = known = self.open.get(thread)
        while opened is not None and opened.block() is None:
            opened = opened.outer
        if opened is not known:
            self.set(thread, opened)
        return opened

    def set(self, thread: int, opened: Opened | None) -> None:
        """Have a thread in this transaction; in none."""
        if opened is None:
            self.open.pop(thread, None)
        else:
            self.open[thread] = opened

    def is_used(self) -> bool:
        """Whether there is any transaction."""
        return any(self.of(thread) is not None for thread in list(self.open))
