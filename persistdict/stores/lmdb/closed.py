"""What a closed handle has in place of its environment: everything raises ClosedError."""

from __future__ import annotations

from typing import Any

from persistdict.errors import ClosedError

__all__ = ["CLOSED", "raise_closed"]


def raise_closed(*_: Any, **__: Any) -> Any:
    """What stands for `begin` where nothing can be begun any more."""
    raise ClosedError("this dictionary was closed; open it again with PersistDict(path)")


class _Closed:
    __slots__ = ()

    def begin(self, *_: Any, **__: Any) -> Any:
        raise_closed()

    def __getattr__(self, name: str) -> Any:
        raise_closed()

    def __setattr__(self, name: str, value: object) -> None:
        raise_closed()


CLOSED: Any = _Closed()
