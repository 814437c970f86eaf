"""Ways to make a dictionary wrong on purpose, to see that soak.py notices."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import lmdb

from persistdict import PersistDict
from persistdict.store import Receipt

__all__ = ["FAULTS", "keep_snapshot", "plant"]

FAULTS = {  # and what is said of them
    "expires late": "expired",
    "evicts the newest": "fresh value lost",
    "bound ignored": "above the bound",
    "reads stale": "stale",
    "reads another key": "foreign",
    "deletion lost": "came back",
    "descriptor leak": "descriptors",
    "thread leak": "threads",
    "old snapshot kept": "the file grows",
}
_kept: list[Any] = []


def plant(d: PersistDict[Any, Any], fault: str) -> None:
    """Make a handle of a worker wrong."""
    store: Any = d._store
    if fault == "expires late":
        put = store.put
        store.put = lambda kb, hint, tag, blob, ttl, *rest: put(kb, hint, tag, blob, ttl and ttl + 0.2, *rest)
    elif fault == "evicts the newest":
        bounds: Any = d._bounds
        bounds._ranking.candidates = lambda entries, proceed: _oldest_first(store)
    elif fault == "bound ignored":
        d._bounds = None
    elif fault == "reads stale":
        seen: dict[bytes, Any] = {}
        _spoil(
            store, "read", lambda n, kb, found: seen.setdefault(kb, found) if n % 20 == 0 or kb not in seen else found
        )
    elif fault == "reads another key":
        last: list[Any] = [None]
        _spoil(store, "read", lambda n, kb, found: last.append(found) or last[-2 if n % 20 == 0 else -1])
    elif fault == "deletion lost":
        delete, calls = store.delete, itertools.count(1)
        nothing = lambda: Receipt(bytes(8), 1, None, store.begin().id())  # noqa: E731
        store.delete = lambda *arguments: delete(*arguments) if next(calls) % 5 else nothing()
    elif fault == "descriptor leak":
        _spoil(store, "read", lambda n, kb, found: _every(100, n, lambda: os.open(os.devnull, os.O_RDONLY), found))
    elif fault == "thread leak":
        _spoil(store, "read", lambda n, kb, found: _every(300, n, _start_waiting, found))


def keep_snapshot(folder: str, board: Any) -> None:
    """To the end, read what there was at the beginning, so that no page can be used again."""
    raw = lmdb.open(folder, readonly=True)
    with raw.begin():
        while not board.stop[0]:
            time.sleep(0.05)


def _spoil(store: Any, name: str, wrong: Callable[[int, bytes, Any], Any]) -> None:
    """Have what a method finds replaced by what `wrong` makes of it; is given the number of the call, and the key."""
    right, calls = getattr(store, name), itertools.count(1)
    setattr(store, name, lambda kb: wrong(next(calls), kb, right(kb)))


def _every(often: int, n: int, leak: Callable[[], Any], found: Any) -> Any:
    if n % often == 0:
        _kept.append(leak())
    return found


def _start_waiting() -> threading.Thread:
    thread = threading.Thread(target=threading.Event().wait, daemon=True)
    thread.start()
    return thread


def _oldest_first(store: Any) -> list[Any]:
    found, position = store.accesses(1024)
    while position is not None:
        more, position = store.accesses(1024, position)
        found += more
    return sorted(found, key=lambda access: access.used_at)
