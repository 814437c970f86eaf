"""What the tests of stores share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from persistdict.errors import ClosedError
from persistdict.store import Item, Store

__all__ = ["Clock", "StoreTests", "kbs", "key"]


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def key(number: int) -> bytes:
    """An encoded key; keys sort as their numbers do."""
    return b"\x30key%06d" % number


def kbs(records: Iterator[Item]) -> list[bytes]:
    """The keys of records."""
    return [record.kb for record in records]


class StoreTests:
    """Opens the stores of a test, and closes and checks them at its end."""

    path: Path
    clock: Clock
    _opened: list[Store]

    def open(self, **options: Any) -> Store:
        """A new handle on the same entries."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _prepare(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path
        self.clock = Clock()
        self._opened = []
        yield
        for store in self._opened:
            faults, _ = store.check(1 << 30) if not self._is_closed(store) else ([], None)
            store.close()
            assert not faults
        self._opened.clear()  # pytest keeps the test itself

    @staticmethod
    def _is_closed(store: Store) -> bool:
        try:
            store.count()
        except ClosedError:
            return True
        return False

    def store(self, idle: float | None = None) -> Store:
        """A new handle, closed and checked at the end of the test."""
        store = self.open(clock=self.clock, idle=idle)
        self._opened.append(store)
        return store

    def another(self) -> Store:
        """A handle on other entries."""
        path, self.path = self.path, self.path / "another"
        self.path.mkdir()
        try:
            return self.store()
        finally:
            self.path = path

    def pair(self, idle: float | None = None) -> tuple[Store, Store]:
        """Two handles on the same entries: one to write, one to look."""
        return self.store(idle), self.store(idle)
