"""Operations under a condition that the dictionary has no public method for yet, made as its own methods are made.

This is the only module of the linearizability test that reaches behind the public face. Replace the bodies when there
are public methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from persistdict import PersistDict
from persistdict.store import ABSENT

Dict = PersistDict[Any, Any]


def get_versioned(d: Dict, key: Any) -> tuple[Any, int] | None:
    """The value of an entry and its version, from one snapshot; None if it is absent."""
    record = d._store.get(d._locate(key)[1])
    return None if record is None else (d._codec.decode(record.tag, record.blob), record.version)


def add(d: Dict, key: Any, value: Any) -> bool:
    """Set an entry if it is absent. Whether it was."""
    return _put(d, key, value, ABSENT)


def replace(d: Dict, key: Any, value: Any, version: int) -> bool:
    """Set an entry if it has this version. Whether it had."""
    return _put(d, key, value, version)


def transform(d: Dict, key: Any, change: Callable[[Any], Any]) -> Any:
    """Set an entry to what `change` makes of its value (None: it is absent). Returns the value that was replaced."""
    while True:
        found = get_versioned(d, key)
        if found is None:
            if add(d, key, change(None)):
                return None
        elif replace(d, key, change(found[0]), found[1]):
            return found[0]


def _put(d: Dict, key: Any, value: Any, when: Any) -> bool:
    kept_as, kb, hint = d._locate(key)
    tag, blob = d._codec.encode(value)
    receipt = d._write(
        lambda: d._store.put(kb, hint, tag, blob, d._ttl, when),
        lambda front, receipt: front.wrote_many(receipt.id, [kept_as]),
    )
    return receipt is not None
