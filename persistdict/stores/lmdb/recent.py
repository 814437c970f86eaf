"""The environment of recent writes: fast, because nothing in it is synced; safe, because nobody reads it after a crash
of the machine.

It lies in the folder `recent-<boot id>` within the store's. A write is a small commit here, which every process sees
and which survives the death of any process. A drain (drain.py) moves what is here into the data, by one synced
transaction. After the machine stopped, the name is another: what a power cut may have torn is removed, never read.
Where the system does not tell one start from the next, commits here are synced, and the name stays.

Its main database, and no other:

    0x00 "base"  -> base u64, device u64, inode u64 (of data.mdb), CRC-32 u32 of these, little-endian; device and inode
                                                change when a compacted copy takes the place of the data
    0x00 "mark"  -> empty, or number u64        the data are being changed directly: nothing may be cached meanwhile;
                                                number: see drain.py
    key          -> seq, record (record.py)     keys of 511 bytes and more are cropped, whatever the store's limit; the
                                                value is always whole; of a deleted entry the record has the flag GONE

It is written through its map where the file system allows it (room.py): then a commit is no system call.

Numbers: a transaction of any kind is numbered base + id of this environment's transaction. `base` is the last number
that the data knew when the file was made ("last" in its info), so numbers never fall and are never given twice.

Invariants:
- A row here overrides the data. It leaves only after the data hold it durably, and only if it is still that version.
- Whoever changes the data directly holds this lock from setting the mark to taking it away, and empties the file with
  it. So a mark next to rows, or seen under this lock, was left behind by a process that died.
- Locks: the data's, then this one. Setting or deleting an entry takes only this one.
"""

import errno
import os
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import lmdb

from persistdict.checksum import crc32
from persistdict.errors import CorruptStoreError, DiskFullError
from persistdict.keys import MAX_KEY_SIZE, crop
from persistdict.stores.lmdb.boot import boot_id
from persistdict.stores.lmdb.folder import (
    DATA,
    check_files,
    identity,
    make_file,
    make_folder,
    new_folder,
    permissions_of,
    remove_folder,
)
from persistdict.stores.lmdb.latest import make_latest
from persistdict.stores.lmdb.layout import LAST_NUMBER, name_of
from persistdict.stores.lmdb.opening import find_or_open, let_go, open_raw
from persistdict.stores.lmdb.ownership import check_owner
from persistdict.stores.lmdb.record import GONE, RESIDUE, Parsed, parse_record
from persistdict.stores.lmdb.room import give_room, keep_room, may_be_mapped
from persistdict.stores.lmdb.trees import ADVICE

__all__ = [
    "BASE",
    "MARK",
    "RESERVED",
    "Row",
    "base_of",
    "belong_to",
    "change_nothing",
    "check_recent_files",
    "enlarge",
    "open_existing",
    "open_recent",
    "parse_row",
    "recent_folder",
    "recent_key",
    "remove_stale",
]

BASE, MARK = b"\x00base", b"\x00mark"
RESERVED = 1  # rows that are no entries; the mark would be another
PREFIX = "recent-"
MAP_SIZE = 1 << 30
FIRST_ROOM = 256 << 10  # bytes of the map, to begin with, of a file that is written through it
LARGE = 4 << 20  # bytes of the map
RESERVE = 64 << 10  # bytes that the file has more than its map: for deletions on a full disk
_BASE = struct.Struct("<QQQ")


class Row(NamedTuple):
    """A recent write of one key."""

    seq: bytes
    record: Parsed

    @property
    def gone(self) -> bool:
        """Whether the write was a deletion."""
        return bool(self.record.flags & GONE)


def recent_key(kb: bytes) -> bytes:
    """Under what a key is found."""
    return kb if len(kb) < MAX_KEY_SIZE else crop(kb, MAX_KEY_SIZE)


def parse_row(raw: bytes) -> Row:
    """Take a row apart. Raises CorruptEntryError."""
    return Row(raw[:8], parse_record(raw[8:]))


def recent_folder(folder: str) -> str:
    """Where the recent writes of a store lie since the machine was started."""
    return os.path.join(folder, PREFIX + (boot_id() or "unknown"))


def check_recent_files(folder: str) -> None:
    """Refuse recent writes that are somebody else's, or links. Raises UnsafePathError.

    A link in the place of their folder is none: it is not followed, and replaced when they are made.
    """
    path = recent_folder(folder)
    if os.path.isdir(path) and not os.path.islink(path):
        check_owner(path, os.lstat(path), os.stat(folder))
        check_files(path)


def remove_stale(folder: str) -> None:
    """Remove recent writes of former starts of the machine, which may be torn. Needs the gate."""
    current = os.path.basename(recent_folder(folder))
    for entry in list(os.scandir(folder)):
        if entry.name.startswith(PREFIX) and entry.name != current and entry.is_dir(follow_symlinks=False):
            remove_folder(entry.path)


def open_recent(
    folder: str, last: int, belongs_to: tuple[int, int], replaced: str = ""
) -> tuple[lmdb.Environment, int]:
    """Open the recent writes of a store, or make a place for them; and the base of numbers. Needs both locks.

    Args:
        folder: the store.
        last: the last number that the data know.
        belongs_to: device and inode of the store's data.mdb.
        replaced: those, as they are noted, of the one that it has replaced, see compact.py.

    Raises CorruptStoreError for a file that is damaged or was not made here, and what lmdb.open raises.
    """
    path = recent_folder(folder)
    found = open_existing(path, _open)
    if found is not None:
        raw, (base, *owner) = found
        try:
            if name_of((owner[0], owner[1])) == replaced:
                with raw.begin(write=True) as txn:
                    belong_to(txn, base, belongs_to)
                owner = [*belongs_to]
        except BaseException:
            let_go(raw)
            raise
        if tuple(owner) == belongs_to:
            return raw, base
        del raw
    del found
    # There are none; or they are another database's: the folder was copied, or its data.mdb was exchanged.
    _make(folder, path, _base_row(last, belongs_to))
    return _open(path), last


def _base_row(base: int, belongs_to: tuple[int, int]) -> bytes:
    row = _BASE.pack(base, *belongs_to)
    return row + crc32(row).to_bytes(4, "little")


def _open(path: str) -> lmdb.Environment:
    if not may_be_mapped(os.path.dirname(path)):
        return find_or_open(path, MAP_SIZE, max_dbs=0, sync=boot_id() is None)
    try:
        raw = find_or_open(path, 0, max_dbs=0, sync=False, writemap=True)
    except lmdb.Error as error:
        if getattr(error, "code", 0) not in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise
        return find_or_open(path, 0, max_dbs=0, sync=False)  # a failing disk lets it be read at least
    try:
        keep_room(os.path.join(path, DATA), raw.info()["map_size"] + RESERVE)
    except BaseException:
        let_go(raw)
        raise
    return raw


def belong_to(r: Any, base: int, identity: tuple[int, int]) -> None:
    """Have the recent writes belong to the data.mdb of this device and inode."""
    row = _base_row(base, identity)
    if r.get(BASE) != row:
        r.put(BASE, row)


def open_existing(
    path: str, open_: Callable[[str], lmdb.Environment]
) -> tuple[lmdb.Environment, tuple[int, ...]] | None:
    """The recent writes that lie there, opened by `open_`, and their base row; None if there are none."""
    if os.path.islink(path) or identity(path) is None:
        return None
    raw = open_(path)
    try:
        with raw.begin() as txn:
            stored = txn.get(BASE)
        base = base_of(stored)
        if base is None:
            raise CorruptStoreError(errno.EIO, f"the recent writes do not say what they belong to; {ADVICE}", path)
    except BaseException:
        let_go(raw)
        raise
    return raw, base


def base_of(stored: bytes | None) -> tuple[int, ...] | None:
    """What the row of the base says: the base, and device and inode of the data. None if it is damaged."""
    if stored is None or not (
        len(stored) == _BASE.size or (len(stored) == _BASE.size + 4 and crc32(stored) == RESIDUE)
    ):
        return None  # (the first files of this format had no checksum)
    found = _BASE.unpack_from(stored)
    return found if found[0] <= LAST_NUMBER else None


def _make(folder: str, path: str, base: bytes) -> None:
    """Build an empty environment and move it into place; what is there is removed."""
    new, permissions = new_folder(folder), permissions_of(folder)
    try:
        made = os.path.join(new, "recent")
        make_folder(made, permissions)
        os.close(make_file(os.path.join(made, DATA), permissions))
        raw = open_raw(made, FIRST_ROOM, max_dbs=0, sync=False)
        try:
            with raw.begin(write=True) as txn:
                txn.put(BASE, base)
        finally:
            raw.close()  # nobody else can know of it
        if may_be_mapped(folder):
            file = os.path.join(made, DATA)
            used = os.path.getsize(file)
            give_room(file, FIRST_ROOM - used, used, fill=True)
            make_latest(made, permissions)
        if os.path.lexists(path):
            os.rename(path, os.path.join(new, "old"))
        os.rename(made, path)
    finally:
        remove_folder(new)


def enlarge(raw: lmdb.Environment, size: int, urgent: bool = False) -> None:
    """Make the map of that size, or larger; if that is urgent, by the reserve where the disk is full. Needs the lock.

    The disk must have room for what is in it a second time: there it will be drained to.

    Whoever opens a file that is written through its map cuts the file off where the map ends: the size must be written
    into the file before anybody else can open it.
    """
    if not raw.flags()["writemap"]:
        raw.set_mapsize(size)
        return
    path, before = os.path.join(os.fsdecode(raw.path()), DATA), raw.info()["map_size"]
    now = os.stat(path).st_size
    if now > before + RESERVE or _is_outgrown(raw):
        raw.set_mapsize(0)
        return
    try:
        size = _make_room(path, before, max(size, now))
    except DiskFullError:
        size = now
        if not urgent or size <= before:
            raise
    os.truncate(path, size)  # LMDB would do it, and is lost if it fails
    raw.set_mapsize(size)
    keep_room(path, size + RESERVE)
    with raw.begin(write=True) as txn:
        change_nothing(txn)


def _is_outgrown(raw: lmdb.Environment) -> bool:
    """Whether others have made the map larger and used that: then what is behind our map must not be touched."""
    try:
        raw.begin().abort()
    except lmdb.MapResizedError:
        return True
    return False


def _make_room(path: str, before: int, size: int) -> int:
    """Give the file room for a map of that size or, as every growth costs the pages their places, twice as much."""
    more = size if size > LARGE else 2 * size
    try:
        give_room(path, more + RESERVE - before, before, spare=more, fill=True)
        return more
    except DiskFullError:
        give_room(path, size + RESERVE - before, before, spare=size, fill=True)
        return size


def change_nothing(txn: lmdb.Transaction) -> None:
    """Make a commit of a transaction. LMDB uses pages that were freed in one only in the one after the next."""
    txn.put(BASE, txn.get(BASE, b""))
