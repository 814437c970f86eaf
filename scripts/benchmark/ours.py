"""persistdict, plain dict, and raw LMDB."""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb

from benchmark.libraries import Library, Steps, count
from persistdict import PersistDict

__all__ = ["WRITES", "LmdbLean", "LmdbUsual", "Ours", "Plain"]

MAP_SIZE = 1 << 36
WRITES = frozenset({"set, new key", "set, overwrite", "delete", "bulk load"})
DURABLE = "nothing that returned"
LAST = "the last moments"


class Ours(Library):
    """persistdict with its defaults, or with what the name says beside them."""

    package = "persistdict"

    def __init__(self, caching: bool = True, commit: bool = False) -> None:
        self.name = "persistdict" + ("" if caching else ", no cache") + (", commit" if commit else "")
        self.durability = DURABLE if commit else f"{LAST} (1 s)"
        self.only = WRITES if commit else None
        self.options: dict[str, Any] = {"caching": caching, "durability": "commit" if commit else "interval"}

    def open(self, path: Path) -> None:
        self.store = PersistDict(str(path), **self.options)

    def sync(self) -> bool:
        self.store.flush()
        return True

    def compact(self, path: Path) -> bool:
        with PersistDict(str(path)) as store:
            store.compact()
        return True

    def get_many(self, keys: Sequence[Any]) -> int:
        return len(self.store.get_many(keys))

    def memoize(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.store.memoize(function)  # type: ignore[no-any-return]


class Plain(Library):
    """A plain dict: the floor. Its memoized function is functools.lru_cache after the arguments were bound."""

    name = "dict"
    package = "Python"
    durability = "everything (in memory)"
    on_disk = False

    def open(self, path: Path) -> None:
        self.store: dict[Any, Any] = {}

    def close(self) -> None:
        pass

    def memoize(self, function: Callable[..., Any]) -> Callable[..., Any]:
        cached = functools.lru_cache(maxsize=None)(function)
        signature = inspect.signature(function)

        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return cached(*bound.args, **bound.kwargs)

        return call


class LmdbLean(Library):
    """The least that can be written: bytes in and out, one environment, one database, each operation a transaction.

    py-lmdb keeps the transaction of a read that was dropped, and renews it for the next one: there is no call for that.
    """

    package = "lmdb"

    def __init__(self, sync: bool = False) -> None:
        self.name = "lmdb, lean" + (", sync" if sync else "")
        self.durability = DURABLE if sync else "possibly all of it (sync=False)"
        self.only = WRITES if sync else None
        self._sync = sync

    def open(self, path: Path) -> None:
        self.store = lmdb.open(str(path), map_size=MAP_SIZE, sync=self._sync, max_readers=1024)

    def sync(self) -> bool:
        self.store.sync(True)
        return True

    def compact(self, path: Path) -> bool:
        copy = path / "copy"
        copy.mkdir()
        with lmdb.open(str(path), map_size=MAP_SIZE) as env:
            env.copy(str(copy), compact=True)
        (copy / "data.mdb").rename(path / "data.mdb")
        copy.rmdir()
        return True

    def key(self, key: str) -> bytes:
        return key.encode()

    def value(self, value: Any) -> bytes:
        if isinstance(value, bytes):
            return value
        return value.encode() if isinstance(value, str) else pickle.dumps(value, 5)

    def set(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        begin = self.store.begin
        for key, value in entries:
            with begin(write=True) as txn:
                txn.put(key, value)

    def load(self, entries: Mapping[bytes, bytes]) -> None:
        with self.store.begin(write=True) as txn:
            put = txn.put
            for key, value in entries.items():
                put(key, value)

    def get(self, keys: Sequence[bytes]) -> Any:
        begin, value = self.store.begin, None
        for key in keys:
            value = begin().get(key)
        return value

    def get_many(self, keys: Sequence[bytes]) -> int:
        return len(self.store.begin().cursor().getmulti(keys))

    def contains(self, keys: Sequence[bytes]) -> int:
        begin, found = self.store.begin, 0
        for key in keys:
            if begin().get(key) is not None:
                found += 1
        return found

    def delete(self, keys: Sequence[bytes]) -> None:
        begin = self.store.begin
        for key in keys:
            with begin(write=True) as txn:
                txn.delete(key)

    def keys(self, most: int) -> int:
        return count(islice(self.store.begin().cursor().iternext(values=False), most))

    def items(self, most: int) -> int:
        return count(islice(self.store.begin().cursor(), most))

    def length(self) -> int:
        return int(self.store.stat()["entries"])

    def mixed(self, steps: Steps) -> None:
        begin = self.store.begin
        for key, value in steps:
            if value is None:
                begin().get(key)
            else:
                with begin(write=True) as writer:
                    writer.put(key, value)


class Shelf:
    """A dict on LMDB as one usually writes it."""

    def __init__(self, path: str) -> None:
        self.env = lmdb.open(path, map_size=MAP_SIZE)
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

    def __len__(self) -> int:
        with self.env.begin() as txn:
            return int(txn.stat()["entries"])

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
    """LMDB with its defaults, a transaction for each operation, and pickle."""

    name = "lmdb, usual"
    package = "lmdb"
    durability = DURABLE

    def open(self, path: Path) -> None:
        self.store = Shelf(str(path))
