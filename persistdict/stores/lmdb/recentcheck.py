"""The check of the recent writes before LMDB maps their file.

They override the data: if one of them could not be found any more, an older value would be taken for the newest. So a
file of them that is damaged is refused as a whole. What is damaged only within a row, which is in its place, is not:
whoever reads the key is told.
"""

from __future__ import annotations

import errno
import os

from persistdict.checksum import crc32
from persistdict.errors import CorruptEntryError, CorruptStoreError, NotAStoreError
from persistdict.stores.lmdb.folder import DATA
from persistdict.stores.lmdb.guard import Guard
from persistdict.stores.lmdb.pages import BIG, Branch, Meta, PageFile, nodes_of
from persistdict.stores.lmdb.recent import BASE, MARK, base_of, parse_row, recent_key
from persistdict.stores.lmdb.record import RESIDUE, seq_number
from persistdict.stores.lmdb.trees import ADVICE, leaves

__all__ = ["check_recent"]


def check_recent(path: str) -> None:
    """Refuse recent writes whose file is damaged. `path` is their folder.

    Reads the whole file, which holds little where nobody has died. Raises CorruptStoreError. Changes nothing.
    """
    file = os.path.join(path, DATA)
    if not os.path.exists(file):
        return
    try:
        guard = Guard(file, thorough=True)
        why = guard.damage or guard.settled(lambda meta: _disorder(guard.file, meta))
    except (NotAStoreError, CorruptStoreError) as error:
        why = getattr(error, "strerror", None) or str(error)
    if why:
        text = (
            f"the recent writes of the store are damaged ({why}); nothing was changed. {ADVICE}, of both; to go on "
            "without what was written last, move this folder away"
        )
        raise CorruptStoreError(errno.EIO, text, path)


def _disorder(file: PageFile, meta: Meta) -> str:
    """Why rows might not be found: some are missing, out of order, or under another's key; "" if none is."""
    count, last = 0, b""
    for number, page in leaves(file, meta.main):
        for node in nodes_of(page, number):
            raw = file.value(seq_number(node.data), node.size) if node.flags & BIG else node.data
            if node.key <= last or raw is None:
                return "a row is out of order, or its page"
            count, last = count + 1, node.key
            if node.key == BASE and base_of(raw) is None:
                return "they do not say which data they belong to"
            if node.key not in (BASE, MARK) and crc32(raw[8:]) == RESIDUE and not _lies_under(node.key, raw):
                return "a row lies under another key"
    if count != meta.main.entries:
        return "some are missing"
    main = meta.main
    return "" if not count or _within(file, main.root, main.depth, b"", None) else "a row is where it is not looked for"


def _within(file: PageFile, number: int, height: int, low: bytes, high: bytes | None) -> bool:
    """Whether all keys below a page are where branches lead to: from `low` on, before `high`. The pages are sound."""
    page = file.page(number)
    if height == 1:
        return all(low <= node.key and (high is None or node.key < high) for node in nodes_of(page, number))
    branch = Branch(page, number)
    bounds = [low, *(branch.key(index) for index in range(1, len(branch))), high]
    return all(
        _within(file, branch.child(index), height - 1, bounds[index] or b"", bounds[index + 1])
        for index in range(len(branch))
    )


def _lies_under(key: bytes, raw: bytes) -> bool:
    try:
        return recent_key(parse_row(raw).record.kb) == key
    except CorruptEntryError:
        return False
