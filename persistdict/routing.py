"""Which store a dictionary speaks to: where a thread has a transaction to its overlay, else to the store itself.

A transaction belongs to the thread and to the function that began it. While that function is suspended (by await, or
as a generator by yield), other code runs in its thread, which must neither see what was written so far nor have its own
writes undone by it. So a use of the dictionary is refused if the function that began the transaction is not among its
callers; and so is the end, if the function has an await or yield behind the beginning that it may have passed.
"""

from __future__ import annotations

import sys
from threading import get_ident
from types import CodeType, FrameType
from typing import Any

from persistdict.errors import TransactionError
from persistdict.overlay import Overlay

__all__ = ["Beginning", "Routed"]

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


def _points(code: CodeType) -> list[int]:
    """Where a function may be suspended."""
    import dis

    return [step.offset for step in dis.get_instructions(code) if step.opname in _POINTS]


class Routed:
    """Stands for a store while there are transactions.

    Attributes:
        bare: the store.
        open: the transactions, by their threads; changed under the dictionary's write lock.
    """

    def __init__(self, bare: Any) -> None:
        self.bare = bare
        self.open: dict[int, tuple[Overlay, Beginning]] = {}

    def __getattr__(self, name: str) -> Any:
        mine = self.open.get(get_ident())
        if mine is None:
            return getattr(self.bare, name)
        overlay, beginning = mine
        beginning.check()
        return getattr(overlay, name)

    def mine(self) -> bool:
        """Whether this thread has a transaction."""
        return get_ident() in self.open
