"""The child that is counted: it does every operation a few times and more often, between marks.

A mark is a system call that nobody else makes: strace writes it down, and callgrind begins a new part there.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmark import ours
from benchmark.floors import LARGE as LARGE_STORE
from benchmark.instructions import MARK
from benchmark.keys import key_of
from benchmark.libraries import Library
from benchmark.operations import Bench, answer, remove
from benchmark.values import values_of
from persistdict.stores.lmdb import opening

__all__ = ["ASIDE", "IMPORT", "LARGE", "NAMES", "SMALL", "repeat"]

mark: Callable[[], int] = getattr(os, MARK, int)  # where the system has none, only calls are counted
OPEN, IMPORT = "open + one get", "import"
SMALL, LARGE = ("420 B", 10_000), ("1 MB", 16)  # the stores: a kind of value, and how many
MAP_SIZE = 1 << 30  # valgrind has room for maps of 64 GB in all
LATER = 3600.0  # seconds
HOT = 100
Entries = Sequence[tuple[Any, Any]]
Section = tuple[str, int, int, int]  # an operation, how often it was done, the calls of Python and of C


class Counted(NamedTuple):
    """An operation.

    Args:
        first: the number of the first entry; every time it goes on from there.
        numbers: how often it is done, first to warm up; what belongs to one is the difference of the last two.
        fresh: is done in a new store.
        large: is done in the store of large values.
        aside: what other threads do is counted too.
    """

    name: str
    work: Callable[[Library, Entries], Any]
    first: int = 0
    numbers: tuple[int, int, int] = (100, 100, 1100)
    fresh: bool = False
    large: bool = False
    aside: bool = False


def _get(one: Library, entries: Entries) -> None:
    one.get([key for key, _ in entries])


def _get_hot(one: Library, entries: Entries) -> None:
    one.get([one.key(key_of(number)) for number in range(HOT)] * (len(entries) // HOT))


def _get_many(one: Library, entries: Entries) -> None:
    for at in range(0, len(entries), HOT):
        one.get_many([key for key, _ in entries[at : at + HOT]])


def _set_and_sync(one: Library, entries: Entries) -> None:
    one.set(entries)
    one.sync()


def _memoized(one: Library, entries: Entries) -> None:
    function = one.memoize(answer)
    if function is not None:
        for _ in entries:
            function("small", "question", temperature=0.5)


COUNTED = (
    Counted("get, hot", _get_hot),
    Counted("get, cold", _get, first=1000),
    Counted("get_many", _get_many, first=2500),
    Counted("contains, hit", lambda one, entries: one.contains([key for key, _ in entries]), first=4000),
    Counted("iterate items", lambda one, entries: one.items(len(entries))),
    Counted("memoize, hit", _memoized),
    Counted("get, cold, 1 MB", _get, numbers=(2, 2, 12), large=True),
    Counted("set, overwrite", lambda one, entries: one.set(entries), first=5500),
    Counted("set, new key", lambda one, entries: one.set(entries), first=SMALL[1]),
    Counted("1000 sets + sync", _set_and_sync, first=SMALL[1] + 2000, numbers=(100, 0, 1000), aside=True),
    Counted("delete", lambda one, entries: one.delete([key for key, _ in entries]), first=7000),
    Counted("bulk load", lambda one, entries: one.load(dict(entries)), fresh=True),
)
NAMES = (*(counted.name for counted in COUNTED), OPEN, IMPORT)
ASIDE = frozenset(counted.name for counted in COUNTED if counted.aside)


class Child:
    """The stores of one library, and what was counted of it.

    Args:
        path: of the store; the one of large values is beside it.
        calls: count calls, which slows down everything and is seen by who counts instructions.
    """

    def __init__(self, one: Library, path: Path, calls: bool) -> None:
        self._one, self._path, self._calls = one, path, calls
        self._large = path.with_name(f"{path.name}, {LARGE_STORE}")
        self._benches = {kind: Bench(one, path, values_of(kind[0]), *kind, 0.0) for kind in (SMALL, LARGE)}
        self.sections: list[Section] = []

    def run(self) -> None:
        if self._one.on_disk and self._wants(OPEN):
            self._open_it()
        self._one.open(self._path)
        if not self._one.on_disk:
            self._one.load(dict(self._entries(SMALL, range(SMALL[1]))))
        for counted in COUNTED:
            if self._wants(counted.name):
                self._do(counted)
        self._one.close()

    def _wants(self, name: str) -> bool:
        one = self._one
        needed = {"memoize, hit": "memoize", "1000 sets + sync": "sync"}.get(name)
        if needed and getattr(type(one), needed) is getattr(Library, needed):
            return False
        return name not in one.lacking and (one.only is None or name in one.only)

    def _open_it(self) -> None:
        [(key, _)] = self._entries(SMALL, range(1))
        for number in (1, 0, 1):

            def work(number: int = number) -> None:
                for _ in range(number):
                    self._one.open(self._path)
                    self._one.get([key])

            self._section(OPEN, number, work)
            if number:
                self._one.close()

    def _do(self, counted: Counted) -> None:
        at = counted.first
        for number in counted.numbers:
            one, fresh = self._one, self._path.with_name(f"{self._path.name}, fresh")
            kind = LARGE if counted.large else SMALL
            entries = self._entries(kind, range(at, at + number))
            at += number
            if counted.fresh or counted.large:
                one = copy(one)
                one.open(fresh if counted.fresh else self._large)
                if counted.large and not one.on_disk:
                    one.load(dict(self._entries(LARGE, range(LARGE[1]))))
            self._section(counted.name, number, partial(counted.work, one, entries))
            one.sync()
            if one is not self._one:
                one.close()
                remove(fresh)

    def _entries(self, kind: tuple[str, int], numbers: Sequence[int]) -> Entries:
        return self._benches[kind].entries(numbers)

    def _section(self, name: str, number: int, work: Callable[[], Any]) -> None:
        counts = Counter[str]()

        def see(_: Any, event: str, __: Any) -> None:
            counts[event] += 1

        gc.collect()
        gc.disable()  # its work comes at any time, for what was made before
        mark()
        if self._calls:
            sys.setprofile(see)
        work()
        sys.setprofile(None)
        mark()
        gc.enable()
        self.sections.append((name, number, counts["call"], counts["c_call"]))


def repeat(one: Library, path: Path, calls: str) -> None:
    """Do everything, and print the sections that marks enclose."""
    ours.MAP_SIZE = opening.LARGEST_MAP = MAP_SIZE
    if isinstance(one, ours.Ours):  # what is due each second would come after fewer operations, as all is slower here
        one.options["sync_interval"] = LATER
    child = Child(one, path, calls == "calls")
    child.run()
    print(json.dumps(child.sections))
