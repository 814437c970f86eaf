"""The trees of LMDB's data file, walked with plain reads, and the check of a file before LMDB maps it.

`check_file` reads the metas and the roots of the trees, some tens of microseconds, and refuses what is no store and
what would raise a signal when it is mapped and read.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from typing import Any

from persistdict.errors import CorruptStoreError, NotAStoreError, PersistDictError
from persistdict.stores.lmdb.pages import (
    BIG,
    DUPS,
    EMPTY,
    LEAF,
    NODE,
    SUBTREE,
    TREE,
    Branch,
    Meta,
    Node,
    PageFile,
    Tree,
    loose_metas,
    node_at,
    nodes_of,
    offsets_of,
    pages_for,
    tree_of,
)
from persistdict.stores.lmdb.record import seq_number

__all__ = [
    "ADVICE",
    "as_is",
    "check_file",
    "leaf_numbers",
    "leaves",
    "look_up",
    "named_trees",
    "order_of",
    "root_sound",
]

TRIES = 5  # a meta that another process writes at this moment is read again
ADVICE = "persistdict.salvage(path, into) reads what can be read"


def check_file(path: str) -> None:
    """Refuse a data file that LMDB must not map.

    Raises:
        NotAStoreError: for a file that is no database of this engine.
        CorruptStoreError: for one that is cut short, or whose first pages contradict each other.
    """
    problem = _problem(path)
    for attempt in range(1, TRIES):
        if problem is None:
            return
        time.sleep(0.001 * attempt)
        problem = _problem(path)
    if problem is not None:
        raise problem


def _problem(path: str) -> PersistDictError | None:
    file = PageFile(path)
    metas = loose_metas(file)
    sound = [meta for meta in metas if meta.sound]
    if not sound:
        return NotAStoreError(f"{path} holds a file that is not a database of this kind; nothing was changed")
    why = _contradiction(file, metas)
    if not why:
        return None
    return CorruptStoreError(errno.EIO, f"the store is damaged: {why}; nothing was changed; {ADVICE}", path)


def _contradiction(file: PageFile, metas: list[Meta]) -> str:
    """What is wrong with the metas, the size, or the roots; "" if nothing."""
    if len(metas) < 2 or not (metas[0].sound and metas[1].sound and metas[0].page_size == metas[1].page_size):
        return "one of its two header pages is unreadable"
    old, new = sorted(metas, key=lambda meta: meta.transaction)
    alternate = new.transaction == old.transaction + 1 and new.slot == new.transaction & 1
    if not alternate and (old.transaction or new.transaction):
        return "its two header pages contradict each other"
    if new.last < old.last or new.last < 1:
        return "a header page says that it shrank, which no database does"
    if new.last >= new.room:
        return "a header page counts more pages than its map can hold"  # LMDB would make the file that large
    trees = {"free pages": new.free, "main": new.main}
    if not _roots_sound(file, new, trees) or not _roots_sound(file, new, named_trees(file, new)):
        return "the root of one of its trees is unreadable"
    missing = (new.last + 1) * file.page_size - file.size()
    if missing > 0 and _used_behind_end(file, new):
        return f"it is cut short, {missing:,} bytes are missing"
    return ""


def _roots_sound(file: PageFile, meta: Meta, trees: dict[Any, Tree]) -> bool:
    return all(root_sound(file, tree, meta.last) for tree in trees.values())


def root_sound(file: PageFile, tree: Tree, last: int) -> bool:
    """Whether a tree has the root that its depth asks for, or is empty."""
    if tree.root == EMPTY and not tree.depth:
        return True
    if not 2 <= tree.root <= last or not 1 <= tree.depth < 32:
        return False
    page = file.page(tree.root)
    return bool(len(Branch(page, tree.root)) if tree.depth > 1 else offsets_of(page, tree.root, LEAF))


def _used_behind_end(file: PageFile, meta: Meta) -> bool:
    """Whether any page in use is not in the file, which may lack pages at its end that are free."""
    pending, once = [meta.free, *(tree for tree in (meta.main, *named_trees(file, meta).values()))], _once()
    for tree in pending:
        for number, page in leaves(file, tree, visit=once):
            if not page:
                return True
            for at in offsets_of(page, number, LEAF):
                node = node_at(page, at)
                if node is None:
                    return True
                if node.flags & BIG:
                    behind = seq_number(node.data) + pages_for(node.size, file.page_size)
                    if behind * file.page_size > file.size():
                        return True
                elif node.flags & DUPS == DUPS and len(node.data) == TREE.size:
                    pending.append(tree_of(node.data))
    return False


def named_trees(file: PageFile, meta: Meta) -> dict[bytes, Tree]:
    """The trees that the main one names, as far as it can be read."""
    found = {}
    for number, page in leaves(file, meta.main, visit=_once()):
        for node in nodes_of(page, number):
            if node.flags & DUPS == SUBTREE and len(node.data) == TREE.size:
                found[node.key] = tree_of(node.data)
    return found


def _once() -> Callable[[int], bool]:
    """Says no to every page that was met before: a tree may lead in circles, or to one page a million times."""
    met: set[int] = set()

    def visit(number: int) -> bool:
        fresh = number not in met
        met.add(number)
        return fresh

    return visit


def as_is(key: bytes) -> Any:
    return key


def order_of(name: str) -> Callable[[bytes], Any]:
    """By what the keys of a tree are ordered."""
    return as_is if name in ("k", "p", "q", "t", "info") else seq_number


def leaves(
    file: PageFile,
    tree: Tree,
    start: bytes = b"",
    reverse: bool = False,
    order: Callable[[bytes], Any] = as_is,
    visit: Callable[[int], bool] | None = None,
) -> Iterator[tuple[int, bytes]]:
    """The leaves of a tree in order, from where the key `start` is, each with its number.

    Of a branch that cannot be read the number comes with b"", as that of a page that the file does not hold; what is a
    leaf but not sound comes as it is. `visit` is told the number of every page and may say no.
    """
    for number, reached in leaf_numbers(file, tree, start, reverse, order, visit):
        yield number, file.page(number) if reached else b""


def leaf_numbers(
    file: PageFile,
    tree: Tree,
    start: bytes = b"",
    reverse: bool = False,
    order: Callable[[bytes], Any] = as_is,
    visit: Callable[[int], bool] | None = None,
) -> Iterator[tuple[int, bool]]:
    """The same, without reading the leaves: their numbers with True, and those of unreadable branches with False."""
    if tree.root == EMPTY or not 1 <= tree.depth < 32:
        return
    yield from _below(file, tree.root, tree.depth, start, reverse, order, visit)


def _below(
    file: PageFile,
    number: int,
    height: int,
    start: bytes,
    reverse: bool,
    order: Callable[[bytes], Any],
    visit: Callable[[int], bool] | None,
) -> Iterator[tuple[int, bool]]:
    if visit is not None and not visit(number):
        return
    if height == 1:
        yield number, True
        return
    branch = Branch(file.page(number), number)
    count = len(branch)
    if not count:
        yield number, False
        return
    index = branch.find(start, order) if start else count - 1 if reverse else 0
    if height == 2 and visit is None:
        for leaf in branch.children(slice(index, None, -1 if reverse else 1)):
            yield leaf, True
        return
    for child in range(index, -1, -1) if reverse else range(index, count):
        here = start if child == index else b""
        yield from _below(file, branch.child(child), height - 1, here, reverse, order, visit)


def look_up(file: PageFile, tree: Tree, key: bytes, order: Callable[[bytes], Any]) -> Node | bytes | None:
    """The node of a key in a tree; b"" if there is none, None if that cannot be told: a page on the way is damaged."""
    if tree.root == EMPTY:
        return b""
    number = tree.root
    for _ in range(tree.depth - 1):
        branch = Branch(file.page(number), number)
        if not len(branch):
            return None
        number = branch.child(branch.find(key, order))
    page = file.page(number)
    offsets = offsets_of(page, number, LEAF)
    for at in offsets:
        if page.startswith(key, at + NODE.size):
            node = node_at(page, at)
            if node is not None and node.key == key:
                return node
    return b"" if offsets and all(node_at(page, at) for at in offsets) else None
