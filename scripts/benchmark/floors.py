"""The least that can be written in Python for what a goal asks, so that one sees what is left to be saved.

None of these is a library: where something is not as expected they raise, or do not even look.
"""

from __future__ import annotations

import mmap
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lmdb

from benchmark import ours
from benchmark.libraries import Library
from persistdict.checksum import crc32

__all__ = ["LARGE", "floors"]

RESIDUE = 0x2144DF1C  # the checksum of anything that ends with its own checksum
HEAD = 32  # bytes in front of a value
HOT, INDEXED = frozenset({"get, hot"}), frozenset({"get, cold", "bulk load"})
LARGE = "large"  # how the path of a store of bytes ends
STALE, DAMAGED = RuntimeError("somebody has written"), ValueError("the checksum is wrong")


class Kept:
    """Values that were read before."""

    def __init__(self, begin: Any) -> None:
        self.entries: OrderedDict[str, Any] = OrderedDict()
        self.look, self.promote = self.entries.get, self.entries.move_to_end
        self.begin = begin
        self.mark = begin().id()
        self.number = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
        self.number[0] = self.mark

    def __getitem__(self, key: str) -> Any:
        return self.look(key)


class Asking(Kept):
    """Asks LMDB whether anybody has written meanwhile."""

    def __getitem__(self, key: str) -> Any:
        value = self.look(key)
        if self.begin().id() != self.mark:
            raise STALE
        return value


class Valid(Kept):
    """Looks at a number in shared memory, which whoever writes would change."""

    def __getitem__(self, key: str) -> Any:
        value = self.look(key)
        if self.number[0] != self.mark:
            raise STALE
        return value


class Recent(Kept):
    """And notes that the key was asked for, so that the right one can leave a full cache."""

    def __getitem__(self, key: str) -> Any:
        value = self.look(key)
        if self.number[0] != self.mark:
            raise STALE
        self.promote(key)
        return value


class Hot(Library):
    """A cache of values in front of LMDB."""

    package = "lmdb"
    durability = "everything (in memory)"
    on_disk = False
    only = HOT

    def __init__(self, name: str, kind: type[Kept]) -> None:
        self.name = f"floor: {name}"
        self._kind = kind

    def open(self, path: Path) -> None:
        self._env = lmdb.open(str(path), map_size=ours.MAP_SIZE, sync=False)
        self.store = self._kind(self._env.begin)

    def close(self) -> None:
        self._env.close()

    def load(self, entries: Mapping[str, Any]) -> None:
        self.store.entries.update(entries)


class Checked:
    """Text by text in one tree of LMDB, each with a checksum behind it."""

    def __init__(self, env: Any) -> None:
        self.begin = env.begin

    def __getitem__(self, key: str) -> Any:
        found = self.begin().get(key.encode())
        if crc32(found) != RESIDUE:
            raise DAMAGED
        return found[:-4].decode()

    def __setitem__(self, key: str, value: Any) -> None:
        txn = self.begin(write=True)
        txn.put(key.encode(), _packed(value))
        txn.commit()

    def __delitem__(self, key: str) -> None:
        txn = self.begin(write=True)
        txn.delete(key.encode())
        txn.commit()

    def __contains__(self, key: str) -> bool:
        return self.begin().get(key.encode()) is not None

    def update(self, entries: Mapping[str, Any]) -> None:
        txn = self.begin(write=True)
        put = txn.put
        for key, value in entries.items():
            put(key.encode(), _packed(value))
        txn.commit()

    def items(self) -> Iterator[tuple[str, Any]]:
        for key, found in self.begin().cursor():
            if crc32(found) != RESIDUE:
                raise DAMAGED
            yield key.decode(), found[:-4].decode()


class Large(Checked):
    """Bytes, which are looked at where they are and copied once."""

    def __getitem__(self, key: str) -> Any:
        txn = self.begin(buffers=True)
        found = txn.get(key.encode())
        if crc32(found) != RESIDUE:
            raise DAMAGED
        return found[:-4].tobytes()


class Indexed(Checked):
    """With an index beside the entries, as persistdict has it: an entry can keep its place, and carries its times."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.index, self.entries = env.open_db(b"index"), env.open_db(b"entries", integerkey=True)

    def __getitem__(self, key: str) -> Any:
        txn = self.begin(self.index)
        found = txn.get(txn.get(key.encode()), None, self.entries)
        if crc32(found) != RESIDUE:
            raise DAMAGED
        return found[HEAD:-4].decode()

    def update(self, entries: Mapping[str, Any]) -> None:
        txn = self.begin(write=True)
        put, index, appended = txn.put, self.index, self.entries
        for number, (key, value) in enumerate(entries.items()):
            place = number.to_bytes(8, sys.byteorder)
            put(key.encode(), place, True, True, False, index)
            put(place, _packed(value, bytes(HEAD)), True, True, True, appended)
        txn.commit()


class Mapped(Library):
    """LMDB that writes into the mapped file, so that a commit makes no system call."""

    package = "lmdb"
    durability = "possibly all of it (sync=False)"

    def __init__(self, name: str, kind: type[Checked], only: frozenset[str] | None = None) -> None:
        self.name = f"floor: {name}"
        self.only = only
        self._kind = kind

    def open(self, path: Path) -> None:
        self._env = lmdb.open(str(path), map_size=1 << 30, sync=False, writemap=True, max_readers=1024, max_dbs=2)
        self.store = (Large if path.name.endswith(LARGE) else self._kind)(self._env)

    def close(self) -> None:
        self._env.close()

    def sync(self) -> bool:
        self._env.sync(True)
        return True


def _packed(value: Any, head: bytes = b"") -> bytes:
    blob = head + (value.encode() if isinstance(value, str) else value)
    return blob + crc32(blob).to_bytes(4, "little")


def floors() -> list[Library]:
    """All of them, not opened."""
    kinds = {"dict": Kept, "dict + id()": Asking, "dict + number": Valid, "dict + number + order": Recent}
    hot: list[Library] = [Hot(name, kind) for name, kind in kinds.items()]
    return [*hot, Mapped("lmdb + checksum", Checked), Mapped("index + entries", Indexed, INDEXED)]
