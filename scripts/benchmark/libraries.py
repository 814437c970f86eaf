"""The libraries under test, each as its documentation shows it, with its default settings.

Every method takes a batch and loops over it, so that what is timed holds no call of ours per operation. Durability was
not taken from documentation: it is the number of fdatasync calls that strace saw in 50 sets.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import diskcache
import lmdb
import rocksdict
from sqlitedict import SqliteDict

from persistdict import PersistDict

__all__ = ["REFERENCE", "Library", "libraries"]

REFERENCE = "lmdb, lean"
MAP_SIZE = 1 << 34


class Library:
    """A mapping under test; subclasses say how it is opened, and what they do otherwise."""

    name: str
    durability: str
    on_disk = True
    store: Any

    def open(self, path: Path, *, upkeep: bool = False) -> None:
        """Open or make the store. `upkeep`: with the library's background work, if it has any."""
        raise NotImplementedError

    def close(self) -> None:
        self.store.close()

    def set(self, entries: Iterable[tuple[str, Any]]) -> None:
        store = self.store
        for key, value in entries:
            store[key] = value

    def load(self, entries: Mapping[str, Any]) -> None:
        """All at once, by the fastest way that the library offers."""
        self.store.update(entries)

    def get(self, keys: Sequence[str]) -> Any:
        """Read all; returns the last value."""
        store, value = self.store, None
        for key in keys:
            value = store[key]
        return value

    def contains(self, keys: Sequence[str]) -> int:
        store, found = self.store, 0
        for key in keys:
            if key in store:
                found += 1
        return found

    def delete(self, keys: Sequence[str]) -> None:
        store = self.store
        for key in keys:
            del store[key]

    def iterate_keys(self) -> int:
        return count(self.store.keys())

    def iterate_items(self) -> int:
        return count(self.store.items())


def count(iterable: Iterable[Any]) -> int:
    number = 0
    for _ in iterable:
        number += 1
    return number


class Ours(Library):
    def __init__(self, caching: bool = True, commit: bool = False) -> None:
        self.name = "persistdict" + ("" if caching else ", no cache") + (", commit" if commit else "")
        self._caching = caching
        self._durability = "commit" if commit else "interval"
        self.durability = (
            'persistdict (durability="commit"): one fdatasync and one synchronous write per set, checksums'
            if commit
            else "persistdict (the default): all sets of a second are synced together, checksums"
        )

    def open(self, path: Path, *, upkeep: bool = False) -> None:
        background: Any = True if upkeep else "disabled"
        self.store = PersistDict(
            str(path), caching=self._caching, durability=self._durability, background_thread=background
        )


class LmdbLean(Library):
    """The least that can be written: no wrapper, and reads leave their transaction to reference counting."""

    name = REFERENCE
    durability = "raw lmdb + pickle (sync=True): the same"

    def open(self, path: Path, *, upkeep: bool = False) -> None:
        self.store = lmdb.open(str(path), map_size=MAP_SIZE, sync=True)

    def set(self, entries: Iterable[tuple[str, Any]]) -> None:
        begin = self.store.begin
        for key, value in entries:
            with begin(write=True) as txn:
                txn.put(key.encode(), pickle.dumps(value, 5))

    def load(self, entries: Mapping[str, Any]) -> None:
        with self.store.begin(write=True) as txn:
            txn.cursor().putmulti([(key.encode(), pickle.dumps(value, 5)) for key, value in entries.items()])

    def get(self, keys: Sequence[str]) -> Any:
        begin, loads, value = self.store.begin, pickle.loads, None
        for key in keys:
            value = loads(begin().get(key.encode()))
        return value

    def contains(self, keys: Sequence[str]) -> int:
        begin, found = self.store.begin, 0
        for key in keys:
            if begin().get(key.encode()) is not None:
                found += 1
        return found

    def delete(self, keys: Sequence[str]) -> None:
        begin = self.store.begin
        for key in keys:
            with begin(write=True) as txn:
                txn.delete(key.encode())

    def iterate_keys(self) -> int:
        return count(key.decode() for key in self.store.begin().cursor().iternext(values=False))

    def iterate_items(self) -> int:
        loads = pickle.loads
        return count((key.decode(), loads(blob)) for key, blob in self.store.begin().cursor())


class Shelf:
    """A dict on LMDB as one usually writes it."""

    def __init__(self, path: str, *, sync: bool = True) -> None:
        self.env = lmdb.open(path, map_size=MAP_SIZE, sync=sync)
        self.close = self.env.close

    def __getitem__(self, key: str) -> Any:
        with self.env.begin() as txn:
            blob = txn.get(key.encode())
        if blob is None:
            raise KeyError(key)
        return pickle.loads(blob)

    def __setitem__(self, key: str, value: Any) -> None:
        with self.env.begin(write=True) as txn:
            txn.put(key.encode(), pickle.dumps(value))

    def __delitem__(self, key: str) -> None:
        with self.env.begin(write=True) as txn:
            if not txn.delete(key.encode()):
                raise KeyError(key)

    def __contains__(self, key: str) -> bool:
        with self.env.begin() as txn:
            return txn.get(key.encode()) is not None

    def update(self, entries: Mapping[str, Any]) -> None:
        with self.env.begin(write=True) as txn:
            for key, value in entries.items():
                txn.put(key.encode(), pickle.dumps(value))

    def keys(self) -> Iterator[str]:
        with self.env.begin() as txn:
            for key in txn.cursor().iternext(values=False):
                yield key.decode()

    def items(self) -> Iterator[tuple[str, Any]]:
        with self.env.begin() as txn:
            for key, blob in txn.cursor():
                yield key.decode(), pickle.loads(blob)


class LmdbUsual(Library):
    name = "lmdb, usual"
    durability = LmdbLean.durability

    def open(self, path: Path, *, upkeep: bool = False) -> None:
        self.store = Shelf(str(path))


class LmdbUnsynced(Library):
    name = "lmdb, sync=False"
    durability = "raw lmdb with sync=False: never synced, and a power cut may leave nothing that can be read"

    def open(self, path: Path, *, upkeep: bool = False) -> None:
        self.store = Shelf(str(path), sync=False)


class DiskCache(Library):
    name = "diskcache"
    durability = "diskcache: SQLite's WAL with synchronous=NORMAL, no fsync per set"

    def open(self, path: Path, *, upkeep: bool = False) -> None:
        self.store = diskcache.Cache(str(path))

    def load(self, entries: Mapping[str, Any]) -> None:
        with self.store.transact():
            self.set(entries.items())

    def iterate_keys(self) -> int:
        return count(self.store)

    def iterate_items(self) -> int:
        store = self.store
        return count((key, store[key]) for key in store)


class Sqlite(Library):
    name = "sqlitedict"
    durability = "sqlitedict (autocommit=True): commits per set, but with synchronous=OFF, so without any fsync"

    def open(self, path: Path, *, upkeep: bool = False) -> None:
        self.store = SqliteDict(str(path), autocommit=True)


class Rocks(Library):
    name = "rocksdict"
    durability = "rocksdict: a write-ahead log, no fsync per set"

    def open(self, path: Path, *, upkeep: bool = False) -> None:
        self.store = rocksdict.Rdict(str(path))

    def load(self, entries: Mapping[str, Any]) -> None:
        batch = rocksdict.WriteBatch()
        for key, value in entries.items():
            batch[key] = value
        self.store.write(batch)


class Floor(Library):
    """A plain dict of pickles: what (de)serialising alone costs."""

    name = "dict + pickle"
    durability = "dict + pickle: in memory, the floor"
    on_disk = False

    def open(self, path: Path, *, upkeep: bool = False) -> None:
        self.store: dict[str, bytes] = {}

    def close(self) -> None:
        pass

    def set(self, entries: Iterable[tuple[str, Any]]) -> None:
        store, dumps = self.store, pickle.dumps
        for key, value in entries:
            store[key] = dumps(value, 5)

    def load(self, entries: Mapping[str, Any]) -> None:
        self.set(entries.items())

    def get(self, keys: Sequence[str]) -> Any:
        store, loads, value = self.store, pickle.loads, None
        for key in keys:
            value = loads(store[key])
        return value

    def iterate_items(self) -> int:
        loads = pickle.loads
        return count((key, loads(blob)) for key, blob in self.store.items())


def libraries() -> list[Library]:
    """All of them, not opened."""
    return [
        Ours(),
        Ours(caching=False),
        Ours(commit=True),
        LmdbLean(),
        LmdbUsual(),
        LmdbUnsynced(),
        DiskCache(),
        Sqlite(),
        Rocks(),
        Floor(),
    ]
