"""Ways to make a dictionary wrong on purpose, to see that the linearizability test notices."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from drivers import coherence

from persistdict import PersistDict
from persistdict.store import ANY, Receipt

Dict = PersistDict[Any, Any]
FAULTS = [
    "no validation", "floor stays", "late admission", "own write forgotten",  # see coherence.py
    "acknowledged early",  # by linear_player.py
    "version ignored", "absence ignored", "write lost", "delete undone",
]  # fmt: skip


def plant(d: Dict, fault: str) -> None:
    """Make a handle wrong on purpose, to see that it is noticed."""
    if fault in FAULTS[:4]:
        coherence.plant(d, fault)
    elif fault in ("version ignored", "absence ignored"):
        put = d._store.put
        kind = int if fault == "version ignored" else type(ANY)

        def careless(*arguments: Any) -> Any:
            when = arguments[5] if len(arguments) > 5 else ANY
            return put(*arguments[:5], ANY if isinstance(when, kind) else when)

        d._store.put = careless  # type: ignore[method-assign]
    elif fault == "write lost":
        _plant_rarely(d, "put", lambda store, kb, *_: Receipt(bytes(8), 1, None, store.begin().id()))
    elif fault == "delete undone":
        _plant_rarely(d, "delete", _delete_and_put_back)


def _plant_rarely(d: Dict, name: str, wrong: Callable[..., Any]) -> None:
    """Have a method of the store do something else one time in 200."""
    right = getattr(d._store, name)
    calls = itertools.count(1)

    def call(*arguments: Any) -> Any:
        return right(*arguments) if next(calls) % 200 else wrong(d._store, *arguments)

    setattr(d._store, name, call)


def _delete_and_put_back(store: Any, kb: bytes, when: Any = ANY) -> Any:
    record = store.get(kb)
    receipt = store.delete(kb, when)
    if receipt:
        store.put(kb, record.hint, record.tag, record.blob)
    return receipt
