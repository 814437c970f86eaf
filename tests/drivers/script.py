"""A short scripted piece of work with a dictionary, for faults to hit: what is done, and what it comes to.

Every operation is done to a dictionary and to a model alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drivers.running import verified

from persistdict import PersistDict, PersistDictError
from persistdict.errors import StoreError

LARGE = "large" * 20_000
OPTIONS: dict[str, dict[str, Any]] = {
    "commit": {"durability": "commit", "background_thread": "disabled"},
    "interval": {"durability": "interval", "sync_interval": 1e-4, "background_thread": "disabled"},  # writers drain
}


class Model(dict[Any, Any]):
    """A dict with those operations of a dictionary that dict has not."""

    def set(self, key: Any, value: Any, **_: Any) -> None:
        self[key] = value

    def delete_many(self, keys: list[Any]) -> None:
        for key in keys:
            self.pop(key, None)

    def flush(self) -> None:
        pass


Operation = tuple[str, Callable[[Any], Any]]
SCRIPT: list[Operation] = [
    ("open", lambda d: None),
    ("set", lambda d: d.__setitem__("a", 1)),
    ("set large", lambda d: d.__setitem__("large", LARGE)),
    ("set list", lambda d: d.__setitem__("b", [1, 2])),
    ("overwrite", lambda d: d.__setitem__("a", "other")),
    ("update", lambda d: d.update({"b": 3, "c": LARGE, "x" * 600: [1], ("t", 1): 2.5})),
    ("update many", lambda d: d.update(dict.fromkeys(range(150), "some text" * 20))),
    ("delete", lambda d: d.__delitem__("b")),
    ("delete large", lambda d: d.__delitem__("c")),
    ("delete many", lambda d: d.delete_many([*range(0, 150, 7), "nothing"])),
    ("pop", lambda d: d.pop("a")),
    ("setdefault", lambda d: d.setdefault("default", [1])),
    ("set with ttl", lambda d: d.set(5, "limited", ttl=1e6)),
    ("shrink", lambda d: d.__setitem__("large", "small")),
    ("flush", lambda d: d.flush()),
    ("set after flush", lambda d: d.__setitem__("flushed", True)),
    ("close", lambda d: None),
    ("open again", lambda d: None),
    ("set again", lambda d: d.__setitem__("a", None)),
    ("clear", lambda d: d.clear()),
    ("update again", lambda d: d.update({i: LARGE[: i * 1000] for i in range(60)})),
    ("popitem", lambda d: d.popitem()),
    ("set at last", lambda d: d.__setitem__("last", 1)),
    ("close again", lambda d: None),
]


def states() -> list[Model]:
    """What there is before each operation, and at the end."""
    found = [Model()]
    for _, change in SCRIPT:
        after = Model(found[-1])
        change(after)
        found.append(after)
    return found


class Dead:
    """A dictionary that has died of an error."""

    def __getattr__(self, name: str) -> Any:
        raise StoreError(5, "planted")


class Worker:
    """Does the operations on one handle; for `fault` see iofaults.py."""

    def __init__(self, folder: str, durability: str, fault: str) -> None:
        self.folder, self.durability, self.fault = folder, durability, fault
        self.d: Any = None

    def open(self) -> None:
        self.d = PersistDict(self.folder, **OPTIONS[self.durability])

    def do(self, operation: Operation) -> None:
        """Do an operation; raises what the dictionary raises."""
        name, change = operation
        try:
            if name.startswith("open"):
                self.open()
            elif name.startswith("close"):
                self.d.close()
                self.d = None
            elif not (self.fault == "write lost" and name == "set at last"):
                change(self.d)
        except PersistDictError as error:
            if self.fault == "wrong class":
                raise OSError(str(error)) from error
            if self.fault == "handle dead" and self.d is not None:
                self.d.close()
                self.d = Dead()
            if self.fault == "error swallowed" and self.d is not None:
                return
            raise

    def read(self) -> list[tuple[Any, Any]]:
        """Everything, as an iteration gives it; the reads of single keys must agree."""
        items = list(self.d.items())
        for key, value in items:
            assert self.d[key] == value, f"{key!r} reads otherwise alone"
        assert len(self.d) == len(items), "len differs"
        return items


def look(folder: str, durability: str) -> list[tuple[Any, Any]]:
    """Everything that a process finds that opens the dictionary now."""
    with PersistDict(folder, **OPTIONS[durability]) as d:
        return list(d.items())


def visit(folder: str, durability: str) -> list[tuple[Any, Any]]:
    """Read as another process does, and write something that is removed again."""
    with PersistDict(folder, **OPTIONS[durability]) as d:
        items = list(d.items())
        d["visited"] = 1
        assert d.pop("visited") == 1
        return items


def check(folder: str, durability: str, expected: list[Model]) -> int:
    """Compare with what may be there, write, and verify. Returns which of them it was."""
    items = look(folder, durability)
    fits = [number for number, model in enumerate(expected) if items == list(model.items())]
    assert fits, f"lost or undead: {difference(items, expected[0])}"
    with PersistDict(folder, background_thread=False, **_without_thread(durability)) as d:
        d["afterwards"] = 1
        d.flush()  # raises what the integrity pass has found
        assert d.pop("afterwards") == 1
        assert list(d.items()) == items, "writing something else has changed it"
    faults = verified(folder)
    assert not faults, f"verify: {faults[:2]}"
    return fits[0]


def _without_thread(durability: str) -> dict[str, Any]:
    return {name: value for name, value in OPTIONS[durability].items() if name != "background_thread"}


def difference(items: list[tuple[Any, Any]], model: Model) -> str:
    """In which keys what was found differs from the model."""
    found = dict(items)
    keys = [key for key in model.keys() | found.keys() if model.get(key) != found.get(key)]
    return f"{len(keys)} of {len(model)} entries differ, such as {str(keys[:3])[:80]}" if keys else "the order differs"
