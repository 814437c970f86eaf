"""The pages of LMDB's data file, read with plain reads: whatever a file holds, reading it here raises no signal.

Layout of a file of LMDB 0.9 (data version 1), 64 bits, in the byte order of the machine:

    page     := number u64, pad u16, flags u16, lower u16, upper u16, body         16 bytes of header
    flags    := 1 branch, 2 leaf, 4 overflow, 8 meta, 0x20 leaf of keys of one size (each `pad` bytes; no nodes)
    branch, leaf: body = offsets u16 of nodes, in order of their keys, up to `lower`; the nodes, from `upper` on
    overflow: lower and upper are one u32, the number of pages that the value takes; body = the value
    node     := low u16, high u16, flags u16, key length u16, key, data            8 bytes of header
                in a branch: low, high, flags are the 48 bits of the child's number; there is no data
                in a leaf: low, high are the size of the data
                flags 1: data is the number u64 of an overflow page; 2: data is a tree; 4: several values
                (with 2: in a tree of their own, without: in a small page within the data)
    tree     := pad u32, flags u16, depth u16, branch pages u64, leaf pages u64, overflow pages u64, entries u64,
                root u64 (all bits set: nothing is in it)
    meta     := magic u32, version u32, address u64, map size u64, tree of free pages, main tree, last page u64,
                transaction u64          in pages 0 and 1; transaction N writes page N & 1, so the two differ by 1
    The pad of the tree of free pages is the page size; the main tree names the other trees.

Nothing here believes what it reads: a page that is not what its place asks for is nothing, whatever else is in it.
"""

import io
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, NamedTuple

from persistdict.keys import MAX_KEY_SIZE

__all__ = [
    "BIG", "BRANCH", "DUPS", "EMPTY", "HEADER", "LEAF", "NODE", "SEVERAL", "SUBTREE", "TREE",
    "Branch", "Meta", "Node", "PageFile", "Tree", "fixed_keys", "loose_metas", "node_at", "nodes_of", "offsets_of",
    "overflow_count", "pages_for", "sound_node", "tree_of",
]  # fmt: skip

MAGIC, VERSION = 0xBEEFC0DE, 1
BRANCH, LEAF, OVERFLOW, META, LEAF2 = 1, 2, 4, 8, 0x20
BIG, SUBTREE, SEVERAL = 1, 2, 4  # flags of nodes
DUPS = SUBTREE | SEVERAL
EMPTY = (1 << 64) - 1
HEADER = struct.Struct("=QHHHH")
NODE = struct.Struct("=HHHH")
TREE = struct.Struct("=IHHQQQQQ")
_META = struct.Struct("=IIQQ")
_LAST = struct.Struct("=QQ")
META_SIZE = HEADER.size + _META.size + 2 * TREE.size + _LAST.size
PAGE_SIZES = (4096, 16384, 8192, 32768, 2048, 1024, 512)
_LITTLE = sys.byteorder == "little"


class Tree(NamedTuple):
    """The description of a tree."""

    flags: int
    depth: int
    entries: int
    root: int


class Meta(NamedTuple):
    """One of the two descriptions of the whole. `sound`: it says that it is one. `room`: pages of the map."""

    slot: int
    sound: bool
    page_size: int
    transaction: int
    room: int
    last: int
    free: Tree
    main: Tree


class Node(NamedTuple):
    """An entry on a leaf. `size` is that of its data, wherever it lies."""

    flags: int
    size: int
    key: bytes
    data: bytes


def tree_of(raw: bytes, at: int = 0) -> Tree:
    """The tree that is described there."""
    _, flags, depth, _, _, _, entries, root = TREE.unpack_from(raw, at)
    return Tree(flags, depth, entries, root)


def pages_for(size: int, page_size: int) -> int:
    """How many overflow pages a value takes."""
    return (HEADER.size - 1 + size) // page_size + 1


class _File(io.FileIO):
    """A file that is closed when nobody refers to it any more, by Python's own code in C.

    In a `__del__` of ours Ctrl-C could come, and Python would swallow it. FileIO notes there that it was left open, to
    warn of it; here that note goes to the attributes of the object, where it means nothing.
    """

    _finalizing = False


def _open_plainly(path: str, _: int) -> int:
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.open(path, flags)


class PageFile:
    """A data file, read only. Threads: any number. The file is closed when nobody refers to it any more.

    `lenient`: the page in which the file ends is filled up with zeros, instead of being none.
    """

    def __init__(self, path: str, page_size: int = 4096, lenient: bool = False) -> None:
        self._file = _File(path, opener=_open_plainly)
        self._fd = self._file.fileno()
        self.path = path
        self.page_size = page_size
        self.lenient = lenient

    def size(self) -> int:
        """The size of the file in bytes."""
        return os.fstat(self._fd).st_size

    def identity(self) -> tuple[int, int]:
        """Device and inode of the file."""
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def read(self, size: int, at: int) -> bytes:
        """Bytes of the file; fewer where it ends."""
        return _read_at(self._fd, size, at)

    def page(self, number: int) -> bytes:
        """A page; b"" if the file does not hold it whole."""
        if number > EMPTY >> 17:
            return b""
        raw = self.read(self.page_size, number * self.page_size)
        if len(raw) == self.page_size:
            return raw
        return raw.ljust(self.page_size, b"\0") if self.lenient and len(raw) >= HEADER.size else b""

    def value(self, number: int, size: int) -> bytes | None:
        """The value on overflow pages, or None if they do not say that they have room for one of this size."""
        count = pages_for(size, self.page_size)
        if number > EMPTY >> 17 or number * self.page_size + HEADER.size + size > self.size():
            return None
        head = self.read(HEADER.size, number * self.page_size)
        if len(head) < HEADER.size or overflow_count(head, number) < count:
            return None
        raw = self.read(size, number * self.page_size + HEADER.size)
        return raw if len(raw) == size else None

    def meta(self, slot: int) -> Meta | None:
        """A meta page, sound or not; None if the file ends before."""
        raw = self.read(META_SIZE, slot * self.page_size)
        return _meta_of(raw, slot) if len(raw) == META_SIZE else None


if hasattr(os, "pread"):

    def _read_at(fd: int, size: int, at: int) -> bytes:
        return os.pread(fd, size, at)

else:
    _lock = threading.Lock()

    def _read_at(fd: int, size: int, at: int) -> bytes:
        with _lock:
            os.lseek(fd, at, os.SEEK_SET)
            return os.read(fd, size)


def overflow_count(head: bytes, number: int) -> int:
    """How many pages the value takes that begins there; 0 if none does."""
    found, _, flags, low, high = HEADER.unpack_from(head)
    if found != number or flags != OVERFLOW:
        return 0
    return _joined(low, high)


def _joined(low: int, high: int) -> int:
    """A number of 32 bits that was read as two of 16."""
    return low | high << 16 if _LITTLE else low << 16 | high


def _meta_of(raw: bytes, slot: int) -> Meta:
    _, _, flags, _, _ = HEADER.unpack_from(raw)
    magic, version, _, map_size = _META.unpack_from(raw, HEADER.size)
    at = HEADER.size + _META.size
    (page_size,) = struct.unpack_from("=I", raw, at)
    last, transaction = _LAST.unpack_from(raw, at + 2 * TREE.size)
    sound = bool(flags & META) and magic == MAGIC and version == VERSION and page_size in PAGE_SIZES
    room = map_size // page_size if page_size else 0
    return Meta(slot, sound, page_size, transaction, room, last, tree_of(raw, at), tree_of(raw, at + TREE.size))


def loose_metas(file: PageFile) -> list[Meta]:
    """Both metas, sound or not, and the page size set to what one of them says (it is 4096 if none is sound)."""
    first = file.meta(0)
    sizes = (first.page_size,) if first is not None and first.sound else PAGE_SIZES
    for size in sizes:
        file.page_size = size
        second = file.meta(1)
        if (first is not None and first.sound) or (second is not None and second.sound and second.page_size == size):
            return [meta for meta in (first, second) if meta is not None]
    file.page_size = PAGE_SIZES[0]
    return [meta for meta in (first, file.meta(1)) if meta is not None]


# What is on a page


def offsets_of(page: bytes, number: int, kind: int) -> tuple[int, ...]:
    """Where the nodes of a page are; () if it is no such page, has none, or has any that begins outside of it."""
    if not page:
        return ()
    found, _, flags, lower, upper = HEADER.unpack_from(page)
    if found != number or flags != kind or not HEADER.size < lower <= upper <= len(page) or lower & 1:
        return ()
    offsets = struct.unpack_from(f"={(lower - HEADER.size) >> 1}H", page, HEADER.size)
    return offsets if min(offsets) >= upper and max(offsets) <= len(page) - NODE.size else ()


def node_at(page: bytes, at: int) -> Node | None:
    """The node of a leaf at this place; None if it would not be within the page."""
    low, high, flags, key_size = NODE.unpack_from(page, at)
    size = _joined(low, high)
    begin = at + NODE.size + key_size
    inside = 8 if flags & BIG else size
    if begin + inside > len(page):
        return None
    return Node(flags, size, page[at + NODE.size : begin], page[begin : begin + inside])


def sound_node(node: Node, page_size: int, pages: int) -> bool:
    """Whether a node says nothing impossible: its key has a possible length, its data are within so many pages."""
    if not 0 < len(node.key) <= MAX_KEY_SIZE:
        return False
    if not node.flags & BIG:
        return True
    first = int.from_bytes(node.data, sys.byteorder)
    return first >= 2 and first + pages_for(node.size, page_size) <= pages


def nodes_of(page: bytes, number: int) -> list[Node]:
    """The nodes of a leaf that are within it, in order; none if it is no leaf."""
    return [node for at in offsets_of(page, number, LEAF) if (node := node_at(page, at)) is not None]


def fixed_keys(page: bytes, number: int) -> list[bytes]:
    """The keys of a page of keys of one size; none if it is no such page."""
    if not page:
        return []
    found, size, flags, lower, _ = HEADER.unpack_from(page)
    count = (lower - HEADER.size) >> 1
    if found != number or flags != LEAF | LEAF2 or not size or count < 1 or HEADER.size + count * size > len(page):
        return []
    return [page[at : at + size] for at in range(HEADER.size, HEADER.size + count * size, size)]


class Branch:
    """The children of a branch page, and the keys from which on each is responsible."""

    def __init__(self, page: bytes, number: int) -> None:
        self._page = page
        self._offsets = offsets_of(page, number, BRANCH)

    def __len__(self) -> int:
        """How many children there are: 0 if it is no branch that LMDB can use, which wants two or more."""
        return len(self._offsets) if len(self._offsets) > 1 else 0

    def key(self, index: int) -> bytes:
        """The key from which on a child is responsible; that of the first means nothing."""
        at = self._offsets[index]
        size: int = NODE.unpack_from(self._page, at)[3]
        return self._page[at + NODE.size : at + NODE.size + size]

    def child(self, index: int) -> int:
        """The page number of a child."""
        low, high, highest, _ = NODE.unpack_from(self._page, self._offsets[index])
        return int(_joined(low, high) | highest << 32)

    def children(self, which: slice) -> Iterator[int]:
        """The page numbers of children."""
        nodes = map(NODE.unpack_from, repeat(self._page), self._offsets[which])
        if _LITTLE:
            return (low | high << 16 | highest << 32 for low, high, highest, _ in nodes)
        return (high | low << 16 | highest << 32 for low, high, highest, _ in nodes)

    def find(self, key: bytes, order: Callable[[bytes], Any]) -> int:
        """Which child is responsible for a key."""
        wanted, low, high = order(key), 1, len(self)
        while low < high:
            middle = (low + high) // 2
            if order(self.key(middle)) <= wanted:
                low = middle + 1
            else:
                high = middle
        return low - 1
