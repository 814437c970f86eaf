"""The peers. Each is imported when it is opened, so that one that is not installed is a row that says so.

What a power cut may take was not copied from documentation: the system calls of fifty sets tell who syncs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from benchmark.libraries import Library, count
from benchmark.ours import DURABLE, LAST, MAP_SIZE

__all__ = [
    "DiskCache", "DiskIndex", "FileDict", "LmdbDict", "Nfs", "Rocks", "Shelve", "Sqlite", "XattrDict",
]  # fmt: skip

FEW = 10_000  # entries for libraries that need a file, or a sync, for each
OFF = "an unknown part (never synced)"


class Rocks(Library):
    name = "rocksdict"
    package = "rocksdict"
    durability = LAST
    lacking: ClassVar[dict[str, str]] = {
        "len": "has none",
        "mixed, 4 processes": "one process only",
    }

    def open(self, path: Path) -> None:
        rocksdict = import_module("rocksdict")
        self.store = rocksdict.Rdict(str(path))
        self._batch = rocksdict.WriteBatch

    def sync(self) -> bool:
        self.store.flush_wal(True)
        return True

    def load(self, entries: Mapping[str, Any]) -> None:
        batch = self._batch()
        for key, value in entries.items():
            batch[key] = value
        self.store.write(batch)

    def get_many(self, keys: Sequence[str]) -> int:
        return len(self.store[list(keys)])


class DiskCache(Library):
    name = "diskcache"
    package = "diskcache"
    durability = LAST
    most = 100_000  # more take minutes to load

    def open(self, path: Path) -> None:
        self.store = import_module("diskcache").Cache(str(path))

    def load(self, entries: Mapping[str, Any]) -> None:
        with self.store.transact():
            self.set(entries.items())

    def keys(self, most: int) -> int:
        return count(islice(self.store, most))

    def items(self, most: int) -> int:
        store = self.store
        return count((key, store[key]) for key in islice(store, most))

    def memoize(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.store.memoize()(function)  # type: ignore[no-any-return]


class DiskIndex(DiskCache):
    name = "diskcache.Index"

    def open(self, path: Path) -> None:
        self.store = import_module("diskcache").Index(str(path))

    def close(self) -> None:
        self.store.cache.close()

    def keys(self, most: int) -> int:
        return Library.keys(self, most)

    def items(self, most: int) -> int:
        return Library.items(self, most)


class Sqlite(Library):
    name = "sqlitedict"
    package = "sqlitedict"
    durability = OFF
    most = 100_000

    def open(self, path: Path) -> None:
        self.store = import_module("sqlitedict").SqliteDict(str(path), autocommit=True)


class Shelve(Library):
    package = "Python"
    durability = OFF
    bulk = False
    most = FEW
    lacking: ClassVar[dict[str, str]] = {
        "mixed, 8 threads": "not for threads",
        "mixed, 4 processes": "one process only",
    }
    name = "shelve"

    def open(self, path: Path) -> None:
        self.store = import_module("shelve").open(str(path))


class LmdbDict(Library):
    name = "lmdb-dict-full"
    package = "lmdb-dict-full"
    durability = DURABLE
    bulk = False
    most = FEW

    def open(self, path: Path) -> None:
        # Its environments are shared by their path, and closed when nobody has one any more.
        self.store = import_module("lmdb_dict").CachedLmdbDict(str(path), map_size=MAP_SIZE)

    def close(self) -> None:
        del self.store


class FileDict(Library):
    name = "persidict"
    package = "persidict"
    durability = DURABLE
    bulk = False
    most = FEW

    def open(self, path: Path) -> None:
        self.store = import_module("persidict").FileDirDict(base_dir=str(path))

    def close(self) -> None:
        pass


class Nfs(Library):
    name = "nfsdict"
    package = "nfsdict"
    durability = LAST  # files are synced, but not their folder
    bulk = False
    most = FEW
    lacking: ClassVar[dict[str, str]] = {"mixed, 4 processes": "does not see what others write"}

    def open(self, path: Path) -> None:
        self.store = import_module("nfsdict").NfsDict(path.name, base_dir=str(path.parent))


class XattrDict(Library):
    name = "iodict"
    package = "iodict"
    durability = OFF
    bulk = False
    most = FEW
    # Its iterators complain on stderr when they are left early.
    lacking: ClassVar[dict[str, str]] = {
        "contains, hit": "walks the folder",
        "contains, miss": "walks the folder",
        "mixed, 4 processes": "locks one process only",
    }

    def open(self, path: Path) -> None:
        self.store = import_module("iodict").IODict(str(path))

    def close(self) -> None:
        pass

    def keys(self, most: int) -> int:
        return min(most, count(self.store.keys()))

    def items(self, most: int) -> int:
        return min(most, count(self.store.items()))
