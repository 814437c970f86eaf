"""A look at the trees of a data file when a process opens it.

LMDB trusts what it reads and writes to: a value whose size is damaged is read behind the end of the file, a page that
is used and free at once is overwritten, a page in the wrong place can end the process (an assertion in the page
allocator). So LMDB neither reads nor writes a store with damaged pages. The list of free pages is read first, as much
of it as LMDB would use for the next FREE_LIST pages; then branches, from the roots down, and leaves, SURVEY pages at
most: a store of a megabyte is looked at completely, in two or three milliseconds; of a larger one the integrity pass
sees the rest.
"""

from __future__ import annotations

import operator
import struct
import sys
from collections import deque

from persistdict.stores.lmdb.pages import (
    BIG,
    BRANCH,
    EMPTY,
    LEAF,
    Branch,
    Meta,
    PageFile,
    node_at,
    nodes_of,
    offsets_of,
    sound_node,
)
from persistdict.stores.lmdb.record import seq_number
from persistdict.stores.lmdb.trees import leaves, named_trees

__all__ = ["Seen", "sound_leaf", "survey"]

SURVEY = 256
FREE_LIST = 1 << 14  # numbers
DUPSORT, INTEGERKEY = 4, 8  # flags of trees
# What most nodes have behind the lower half of their size: a higher half of 0, no flags, and with numbers a key of 8.
_PLAIN, _NUMBERED = {bytes(4)}, {bytes(4) + b"\x08\x00"}
_INSIDE = 1 << 16  # bytes behind a node that a size without its higher half can reach


class Seen:
    """For each page that was found to be a sound leaf how many rows it has, 255 at most; 0 for the others."""

    def __init__(self) -> None:
        self._rows = bytearray()

    def note(self, number: int, rows: int) -> None:
        if number >= len(self._rows):
            self._rows.extend(bytes(number + 1 - len(self._rows)))
        self._rows[number] = min(rows, 255)

    def rows(self, number: int) -> int:
        return self._rows[number] if number < len(self._rows) else 0


def survey(file: PageFile, meta: Meta, seen: Seen, thorough: bool = False) -> str:
    """What is wrong with the pages in use; "" if nothing was seen. `thorough`: of all pages, however many."""
    end = file.size()
    inside = min(meta.last, end // file.page_size) + 1  # pages at the end that were freed at once are never written
    used, free = bytearray(inside), bytearray(inside)
    if not _read_free_list(file, meta, used, free, thorough):
        return "the list of free pages is damaged"
    trees = [meta.main, *named_trees(file, meta).values()]
    pending = deque((tree.root, tree.depth, tree.flags) for tree in trees if tree.root != EMPTY)
    for left in range(meta.last if thorough else SURVEY, 0, -1):
        if not pending:
            break
        number, height, flags = pending.popleft()
        if not 2 <= number < inside or free[number] or used[number]:
            return f"page {number} is used for two things"
        used[number] = 1
        page = file.page(number)
        if height <= 1:
            count = sound_leaf(page, number, end, bool(flags & INTEGERKEY))
            if not count:
                return f"page {number} is no leaf, or one with impossible rows"
            if not flags & DUPSORT:
                seen.note(number, count)
            continue
        if len(offsets_of(page, number, BRANCH)) < 2:
            return f"page {number} is no branch"
        room = left - len(pending)  # more will not be looked at
        if room > 0:
            pending.extend((child, height - 1, flags) for child in Branch(page, number).children(slice(room)))
    return ""


def sound_leaf(page: bytes, number: int, end: int, numbers: bool = False) -> int:
    """How many rows a leaf has that LMDB can read; 0 if there is anything wrong with it.

    LMDB believes the lengths of keys and the sizes of values; what reaches behind the end of the file is SIGBUS.
    `end`: the size of the file. `numbers`: all keys are numbers.
    """
    offsets = offsets_of(page, number, LEAF)
    near = (number + 1) * len(page) + _INSIDE > end
    if sys.byteorder != "little":
        usual = False  # the parts of a size lie in another order there
    elif numbers:
        usual = {page[at + 2 : at + 8] for at in offsets} == _NUMBERED
    else:
        usual = {page[at + 2 : at + 6] for at in offsets} == _PLAIN and max([page[at + 7] for at in offsets]) < 2
    if near or not usual:  # one by one
        for at in offsets:
            node = node_at(page, at)
            if node is None or not sound_node(node, len(page), end // len(page)) or (numbers and len(node.key) != 8):
                return 0
    return len(offsets)


def _read_free_list(file: PageFile, meta: Meta, used: bytearray, free: bytearray, thorough: bool) -> bool:
    """Mark its pages as used, what it lists as free, or the first part of it; False if it is damaged."""

    def visit(number: int) -> bool:
        fresh = 2 <= number < len(used) and not used[number]
        if fresh:
            used[number] = 1
        return fresh

    left = sys.maxsize if thorough else FREE_LIST
    for number, page in leaves(file, meta.free, visit=visit):
        nodes = nodes_of(page, number)
        if not nodes or len(nodes) != len(offsets_of(page, number, LEAF)):
            return False
        for node in nodes:
            raw = file.value(seq_number(node.data), node.size) if node.flags & BIG else node.data
            if raw is None or not _mark(raw, meta.last, used, free, left) or len(node.key) != 8:
                return False
            if not 0 < seq_number(node.key) <= meta.transaction:
                return False
            left -= len(raw) // 8
            if left <= 0:
                return True
    return True


def _mark(raw: bytes, last: int, used: bytearray, free: bytearray, most: int) -> bool:
    """Mark the pages of a list as free, which goes downwards; False if it cannot be right.

    `most`: how many are looked at; LMDB begins with the lowest.
    """
    count = len(raw) // 8 - 1
    if count < 0 or int.from_bytes(raw[:8], sys.byteorder) != count:
        return False
    many = min(count, most)
    numbers = struct.unpack_from(f"={many}Q", raw, 8 * (1 + count - many))
    if any(map(operator.le, numbers, numbers[1:])):
        return False
    if numbers and not (numbers[0] <= last and numbers[-1] >= 2):
        return False
    end = len(used)
    for number in numbers:
        if number < end:
            if used[number] or free[number]:
                return False
            free[number] = 1
    return True
