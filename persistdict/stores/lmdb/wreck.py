"""What is known of the pages of a damaged data file: what is in use, what is free, and what the index says.

Plain reads only, and every page of a tree once: no signal and no loop, whatever the file holds.
"""

from collections.abc import Iterator

from persistdict.errors import CorruptEntryError
from persistdict.keys import MAX_KEY_SIZE, crop
from persistdict.stores.lmdb.pages import (
    BIG,
    DUPS,
    EMPTY,
    LEAF,
    TREE,
    Meta,
    Node,
    PageFile,
    Tree,
    fixed_keys,
    loose_metas,
    nodes_of,
    offsets_of,
    pages_for,
    tree_of,
)
from persistdict.stores.lmdb.record import parse_index, seq_number
from persistdict.stores.lmdb.trees import leaves, look_up, named_trees, order_of, root_sound

__all__ = ["FREE", "USED", "Wreck"]

UNKNOWN, USED, FREE = range(3)  # states of pages
SETTINGS = frozenset((b"format", b"last", b"codec", b"keys", b"key_size_limit", b"initialised", b"mode", b"seal",
                      b"seal salt", b"seal keys", b"seal dictionary"))  # fmt: skip


class Wreck:
    """A damaged data file. Threads: one.

    Attributes:
        state: of each page.
        free_known: whether the list of free pages could be read whole.
        pages: how many pages trees lead to that are not what they should be.
        limit: the key size limit, for looking into the index; 0 until it is known.
    """

    def __init__(self, path: str) -> None:
        self.file = PageFile(path, lenient=True)
        self.meta = _newest(self.file)
        self.count = -(-self.file.size() // self.file.page_size)
        self.state = bytearray(self.count)
        self.pages = 0
        self.limit = 0
        self.trees = named_trees(self.file, self.meta) if self.meta else {}
        self.free_known = self._read_free_list()
        self._mark_trees()

    def _read_free_list(self) -> bool:
        if self.meta is None:
            return False
        good = True
        for number, page in leaves(self.file, self.meta.free, visit=self.visit):
            nodes = nodes_of(page, number)
            good &= bool(nodes) and len(nodes) == len(offsets_of(page, number, LEAF))
            for node in nodes:
                listed = self.data(node)
                good &= listed is not None and self._mark_free(listed, self.meta)
        return good and self.pages == 0

    def _mark_free(self, listed: bytes, meta: Meta) -> bool:
        numbers = [seq_number(listed[at : at + 8]) for at in range(0, len(listed) - 7, 8)]
        if not numbers or numbers[0] != len(numbers) - 1:
            return False
        for number in numbers[1:]:
            if not 2 <= number <= meta.last:
                return False
            if number < self.count and self.state[number] != USED:
                self.state[number] = FREE
        return True

    def _mark_trees(self) -> None:
        """Mark all pages that trees lead to, but for those of the entries: these are read one by one later."""
        if self.meta is None:
            return
        pending = [self.meta.main, *(tree for name, tree in self.trees.items() if name != b"e")]
        for tree in pending:
            for number, page in leaves(self.file, tree, visit=self.visit):
                if not offsets_of(page, number, LEAF) and not fixed_keys(page, number):
                    self.pages += 1
                for node in nodes_of(page, number):
                    if node.flags & BIG:
                        self.data(node)
                    elif node.flags & DUPS == DUPS and len(node.data) == TREE.size:
                        pending.append(tree_of(node.data))

    def visit(self, number: int) -> bool:
        """Mark a page of a tree as used; False if it was met before, or is none."""
        if not 2 <= number < self.count:
            self.pages += 1
            return False
        if self.state[number] == USED:
            return False
        self.state[number] = USED
        return True

    def data(self, node: Node) -> bytes | None:
        """The data of a node; None if it cannot be read. Marks its overflow pages as used."""
        if not node.flags & BIG:
            return node.data
        number = seq_number(node.data)
        value = self.file.value(number, node.size)
        if value is not None:
            for page in range(number, min(number + pages_for(node.size, self.file.page_size), self.count)):
                self.state[page] = USED
        return value

    def indexed(self, kb: bytes, seq: bytes = b"") -> bytes | None:
        """The seq that the index has for a key (`seq` itself, if it is among several); b"" for none; None: unknown."""
        limit = self.limit or MAX_KEY_SIZE
        node = self.look_up(b"k", kb if len(kb) < limit else crop(kb, limit))
        if node == b"" and not self.limit:
            return None
        if not isinstance(node, Node):
            return node
        try:
            seqs = [slot[0] for slot in parse_index(node.data)]
        except CorruptEntryError:
            return None
        if seq in seqs:
            return seq
        return seqs[0] if len(seqs) == 1 else None

    def look_up(self, name: bytes, key: bytes) -> Node | bytes | None:
        """The node of a key in a tree; b"" if there is none, None if that cannot be told."""
        tree = self.trees.get(name)
        if tree is None or not root_sound(self.file, tree, self.count - 1):
            return None
        return look_up(self.file, tree, key, order_of(name.decode()))

    def access_times(self) -> Iterator[tuple[bytes, bytes]]:
        """The rows of the access times that can be read."""
        for number, page in leaves(self.file, self.trees.get(b"a", Tree(0, 0, 0, EMPTY))):
            yield from ((node.key, node.data) for node in nodes_of(page, number) if not node.flags)

    def settings(self) -> dict[str, str]:
        """The settings of the store; those that every store has are looked for on all pages, if need be."""
        found = {}
        tree = self.trees.get(b"info", Tree(0, 0, 0, EMPTY))
        pages = [*leaves(self.file, tree)]
        if not any(node.key == b"format" for number, page in pages for node in nodes_of(page, number)):
            pages = [(number, self.file.page(number)) for number in self._by_state() if self._may_hold_settings(number)]
        for number, page in pages:
            for node in nodes_of(page, number):
                if not node.flags and (tree.entries or node.key in SETTINGS):
                    try:
                        found[node.key.decode()] = node.data.decode()
                    except UnicodeDecodeError:
                        continue
        return found

    def _by_state(self) -> list[int]:
        """Page numbers: free ones first, so that what others say overrides it."""
        return sorted(range(2, self.count), key=lambda number: self.state[number] != FREE)

    def _may_hold_settings(self, number: int) -> bool:
        return self.state[number] != USED and any(
            node.key == b"format" for node in nodes_of(self.file.page(number), number)
        )


def _newest(file: PageFile) -> Meta | None:
    """The header page to go by: sound if there is one, else one that leads to something; the newest of those.

    A transaction number may be what is damaged. Nearly every transaction leaves its own in the list of free pages.
    """
    metas = [meta for meta in loose_metas(file) if _leads_somewhere(file, meta)]
    if len(metas) == 2 and abs(metas[0].transaction - metas[1].transaction) == 1:
        return max(metas, key=lambda meta: (meta.sound, meta.transaction))
    return max(metas, key=lambda meta: (meta.sound, _freed_by(file, meta), meta.last), default=None)


def _leads_somewhere(file: PageFile, meta: Meta) -> bool:
    last = min(meta.last, file.size() // file.page_size)
    return meta.sound or (meta.main.root != EMPTY and root_sound(file, meta.main, last))


def _freed_by(file: PageFile, meta: Meta) -> int:
    seen: set[int] = set()
    newest = 0

    def visit(number: int) -> bool:
        fresh = number not in seen
        seen.add(number)
        return fresh

    for number, page in leaves(file, meta.free, visit=visit):
        newest = max([newest, *(seq_number(node.key) for node in nodes_of(page, number))])
    return newest
