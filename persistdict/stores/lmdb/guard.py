"""What stands between LMDB and damaged pages of the data.

LMDB, as py-lmdb builds it, answers most damage with an error, also where a key is looked up. What is left ends the
process (all met among damaged files): a map that is longer than the file (SIGBUS), a value on overflow pages whose
size is damaged (LMDB believes it, and py-lmdb touches all of it: SIGBUS), a cursor that steps onto a page that is no
leaf (an assertion, SIGABRT), and writing where pages are in the wrong place or used twice (assertions).

- Before a file is mapped, `check_file` (trees.py) refuses it if it is empty, cut short or foreign.
- When it is opened, the survey (survey.py) looks at its pages: at all of a small store, at the first ones of a large.
- Before a cursor steps through rows, `Guard.clear` reads the branches on the way and the pages ahead.
- Where any of these, or LMDB itself, meets damage, LMDB reads and writes this data no more: see plain.py.

What remains: damage behind the pages that the survey has seen, until a cursor comes near it. There a flipped bit in the
size of a value of 2 KB and more can be a SIGBUS when that key is read.
"""

from collections.abc import Callable
from typing import Any

import lmdb

from persistdict.stores.lmdb.pages import (
    DUPS,
    HEADER,
    SEVERAL,
    TREE,
    Meta,
    Node,
    PageFile,
    Tree,
    fixed_keys,
    loose_metas,
    nodes_of,
    tree_of,
)
from persistdict.stores.lmdb.record import seq_number
from persistdict.stores.lmdb.survey import Seen, sound_leaf, survey
from persistdict.stores.lmdb.trees import check_file, leaf_numbers, leaves, named_trees, order_of

__all__ = ["DAMAGED", "Damaged", "Guard", "small_set"]

SMALL = 0x62  # flags of a page of values within a node
TRIES = 5  # a survey is repeated if somebody has written meanwhile


class Damaged(lmdb.Error):
    """Raised before LMDB would meet damaged pages."""


DAMAGED = (Damaged, lmdb.CorruptedError, lmdb.PageNotFoundError)


class Guard:
    """Looks at the pages of one file. Raises CorruptStoreError or NotAStoreError for one that must not be mapped.

    Threads: any number.

    Args:
        path: the data file.
        thorough: look at all pages now, however many.

    Attributes:
        damage: what is wrong with the pages that were looked at; "" if nothing is.
        file: for reading it.
    """

    def __init__(self, path: str, thorough: bool = False) -> None:
        check_file(path)
        self.file = PageFile(path)
        loose_metas(self.file)  # sets the page size
        self._known: tuple[int, dict[bytes, Tree]] = (-1, {})
        self._seen = Seen()
        self.damage = self.look(thorough)

    def look(self, thorough: bool = False) -> str:
        """What is wrong with the pages; "" if nothing was seen. Best while nobody writes."""
        return self.settled(lambda meta: survey(self.file, meta, self._seen, thorough))

    def settled(self, look: Callable[[Meta], str]) -> str:
        """What `look` says is wrong with the newest snapshot, which nobody keeps: again, if somebody has written."""
        for _ in range(TRIES):
            meta = self._newest()
            why = look(meta)
            if not why or self._newest().transaction == meta.transaction:
                return why
        return ""  # what was seen may be half-written

    def _newest(self) -> Meta:
        return max(
            (meta for meta in map(self.file.meta, (0, 1)) if meta is not None), key=lambda meta: meta.transaction
        )

    def trees(self, transaction: int) -> dict[bytes, Tree] | None:
        """The named trees of that snapshot; None if it cannot be told, because writers were too quick."""
        known, trees = self._known
        if known != transaction:
            meta = self.file.meta(transaction & 1)
            if meta is None or meta.transaction != transaction:
                return None
            trees = named_trees(self.file, meta)
            self._known = transaction, trees
        return trees

    def clear(self, txn: Any, name: str, start: bytes, steps: int, reverse: bool = False) -> bool:
        """Whether a cursor of the snapshot `txn` can go to `start` (b"": to the end) and step so often."""
        trees = self.trees(txn.id())
        tree = trees.get(name.encode()) if trees is not None else None
        if tree is None:
            return True  # not known
        order = order_of(name)
        ahead = -1  # the first leaf does not count: `start` may be at its end
        for number, reached in leaf_numbers(self.file, tree, start, reverse, order):
            count = self._seen.rows(number) or self._look_at(name, number) if reached else 0
            if not count:
                return False
            ahead = 0 if ahead < 0 else ahead + (count + 1) // 2  # it may have fewer rows by now
            if ahead > steps:
                break
        return True

    def _look_at(self, name: str, number: int) -> int:
        """How many rows a leaf has; 0 if there is anything wrong with it.

        A page is looked at once. Whoever writes it anew later is LMDB, which writes no damaged pages.
        """
        page = self.file.page(number)
        count = sound_leaf(page, number, self.file.size(), order_of(name) is seq_number)
        if name == "x" and not all(map(self._set_sound, nodes_of(page, number))):
            return 0
        if count:
            self._seen.note(number, count)
        return count

    def _set_sound(self, node: Node) -> bool:
        """Whether the values of a key are one seq, a small page of them within the node, or a tree."""
        if node.flags == DUPS and len(node.data) == TREE.size:
            return all(fixed_keys(page, number) for number, page in leaves(self.file, tree_of(node.data)))
        if node.flags == SEVERAL:
            return bool(small_set(node.data))
        return not node.flags and len(node.data) == 8


def small_set(data: bytes) -> list[bytes]:
    """The seqs on a small page within a node; none if it is no such page."""
    if len(data) <= HEADER.size:
        return []
    _, size, flags, lower, _ = HEADER.unpack_from(data)
    room = HEADER.size + ((lower - HEADER.size) >> 1) * size
    if flags & SMALL != SMALL or size != 8 or not HEADER.size < room <= len(data):
        return []
    return [data[at : at + 8] for at in range(HEADER.size, room, 8)]
