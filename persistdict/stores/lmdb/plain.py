"""Reading damaged data without LMDB: transactions and cursors that read the pages by themselves, and believe nothing.

They stand in the place of LMDB's, as far as the store uses these, from the moment at which damage was met. Nothing that
the file holds can raise a signal here, and every pass ends. Slow; writing is refused where these are in use.

- A row that is there and whose value cannot be read has the value b"", which no database of ours has.
- Looking up a key raises CorruptStoreError if a page on the way is damaged: it may be there or not.
- Cursors pass over pages and rows that cannot be read, or are out of order, and tell so (DamagedEntryWarning).

An LMDB transaction is kept along, which touches no page, so that nobody uses the pages of the snapshot again.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from persistdict.errors import CorruptStoreError, DamagedEntryWarning
from persistdict.stores.lmdb.guard import Guard, small_set
from persistdict.stores.lmdb.pages import (
    BIG,
    DUPS,
    LEAF,
    SEVERAL,
    TREE,
    Node,
    PageFile,
    Tree,
    fixed_keys,
    nodes_of,
    offsets_of,
    tree_of,
)
from persistdict.stores.lmdb.record import seq_number
from persistdict.stores.lmdb.trees import ADVICE, leaves, look_up, order_of

__all__ = ["PlainTransaction", "begin_plain"]

TRIES = 100

Row = tuple[bytes, bytes]


def begin_plain(
    begin: Callable[..., Any], guard: Guard, names: dict[int, str], place: str, db: Any = None, buffers: bool = False
) -> Any:
    """A transaction that reads without LMDB; `begin` is LMDB's, `names` has the names of databases by their id()."""
    for _ in range(TRIES):
        txn = begin()
        trees = guard.trees(txn.id())
        if trees is not None:
            return PlainTransaction(txn, guard.file, trees, names, place, names.get(id(db), ""))
    raise CorruptStoreError(errno.EIO, f"the store is damaged, and written to at this moment; {ADVICE}", place)


class _Once:
    """Says no to a page that was visited before, and tells so: branches may lead in circles."""

    def __init__(self, tell: Callable[[], object]) -> None:
        self._seen: set[int] = set()
        self._tell = tell

    def __call__(self, number: int) -> bool:
        if number in self._seen:
            self._tell()
            return False
        self._seen.add(number)
        return True


class PlainTransaction:
    """A snapshot. Threads: one at a time.

    Attributes:
        tell: is called when something is passed over; without it that is a DamagedEntryWarning.
    """

    def __init__(
        self, txn: Any, file: PageFile, trees: dict[bytes, Tree], names: dict[int, str], place: str, name: str
    ) -> None:
        self._txn, self._file, self._trees, self._names = txn, file, trees, names
        self._place, self._name = place, name
        self.tell: Callable[[], object] | None = None

    def _passed_over(self) -> None:
        if self.tell is not None:
            self.tell()
            return
        text = f"entries of {self._place} were passed over: a page is damaged; {ADVICE}"
        warnings.warn(text, DamagedEntryWarning, stacklevel=2)

    def id(self) -> int:
        """LMDB's id of the snapshot."""
        return int(self._txn.id())

    def _of(self, db: Any) -> tuple[str, Tree]:
        name = self._name if db is None else self._names[id(db)]
        return name, self._tree(name)

    def _tree(self, name: str) -> Tree:
        tree = self._trees.get(name.encode())
        if tree is None:
            raise CorruptStoreError(
                0, f"the store is damaged (its database {name} is not found); {ADVICE}", self._place
            )
        return tree

    def stat(self, db: Any = None) -> dict[str, int]:
        """What the tree says of itself."""
        _, tree = self._of(db)
        return {"entries": tree.entries, "depth": tree.depth}

    def get(self, key: bytes, default: Any = None, db: Any = None) -> Any:
        """The value of a key."""
        name, tree = self._of(db)
        node = look_up(self._file, tree, key, order_of(name))
        if node is None:
            raise CorruptStoreError(
                errno.EIO, f"the store is damaged (a page on the way to the key); {ADVICE}", self._place
            )
        return self._value(node) if isinstance(node, Node) else default

    def cursor(self, db: Any = None) -> PlainCursor:
        """A cursor; stands nowhere."""
        return PlainCursor(self, self._of(db)[0])

    def _value(self, node: Node) -> bytes:
        if not node.flags & BIG:
            return node.data
        return self._file.value(seq_number(node.data), node.size) or b""

    def rows(self, name: str, start: bytes, reverse: bool) -> Iterator[Row]:
        """The rows of a database, from the key `start` on (b"": all), each behind the one before."""
        order = order_of(name)
        last: Any = None
        for number, page in leaves(self._file, self._tree(name), start, reverse, order, _Once(self._passed_over)):
            nodes = nodes_of(page, number)
            if not nodes or len(nodes) < len(offsets_of(page, number, LEAF)):
                self._passed_over()
            for node in reversed(nodes) if reverse else nodes:
                try:
                    place = order(node.key)
                    if start and (place > order(start) if reverse else place < order(start)):
                        continue
                    if last is not None and (place >= last if reverse else place <= last):
                        raise ValueError("out of order")
                    values = self._values(node) if name == "x" else [self._value(node)]
                except ValueError:
                    self._passed_over()
                    continue
                last = place
                yield from ((node.key, value) for value in (reversed(values) if reverse else values))

    def _values(self, node: Node) -> list[bytes]:
        """The seqs under a deadline."""
        if node.flags == DUPS and len(node.data) == TREE.size:
            pages = leaves(self._file, tree_of(node.data))
            values = [seq for number, page in pages for seq in fixed_keys(page, number)]
        elif node.flags == SEVERAL:
            values = small_set(node.data)
        else:
            values = [node.data]
        if len(node.key) != 8 or not values or any(len(seq) != 8 for seq in values):
            raise ValueError("no deadline")
        return values


class PlainCursor:
    """A cursor over the rows of one database, with the methods of LMDB's that are used here."""

    def __init__(self, txn: PlainTransaction, name: str) -> None:
        self._txn, self._name = txn, name
        self._rows: Iterator[Row] = iter(())
        self._reverse = False
        self._row: Row | None = None

    def _go(self, start: bytes, reverse: bool) -> bool:
        self._rows, self._reverse = self._txn.rows(self._name, start, reverse), reverse
        return self._step()

    def _step(self) -> bool:
        self._row = next(self._rows, None)
        return self._row is not None

    def _move(self, reverse: bool) -> bool:
        here = self._row
        if here is None:
            return self._go(b"", reverse)
        if reverse == self._reverse:
            return self._step()
        more = self._go(here[0], reverse)
        while more and self._row != here:  # behind it, among the values of one key
            more = self._step()
        return self._step() if more else self._go(here[0], reverse)

    def first(self) -> bool:
        return self._go(b"", False)

    def last(self) -> bool:
        return self._go(b"", True)

    def next(self) -> bool:
        return self._move(False)

    def prev(self) -> bool:
        return self._move(True)

    def next_nodup(self) -> bool:
        key = self.key()
        while self._move(False):
            if self.key() != key:
                return True
        return False

    def set_range(self, key: bytes) -> bool:
        return self._go(key, False)

    def set_range_dup(self, key: bytes, value: bytes) -> bool:
        more = self._go(key, False)
        while more and self.key() == key and self.value() < value:
            more = self._step()
        return more and self.key() == key

    def set_key_dup(self, key: bytes, value: bytes) -> bool:
        return self.set_range_dup(key, value) and self.value() == value

    def count(self) -> int:
        """How many values the key has."""
        key = self.key()
        count = 0
        for other, _ in self._txn.rows(self._name, key, False):
            if other != key:
                break
            count += 1
        return count

    def key(self) -> bytes:
        return self._row[0] if self._row is not None else b""

    def value(self) -> bytes:
        return self._row[1] if self._row is not None else b""

    def item(self) -> Row:
        return self._row if self._row is not None else (b"", b"")

    def iternext(self, keys: bool = True, values: bool = True) -> Iterator[Any]:
        """From the row on where it stands, or from the first."""
        more = self._row is not None or self.first()
        while more:
            assert self._row is not None
            yield self._row if keys and values else self._row[0 if keys else 1]
            more = self.next()

    def __iter__(self) -> Iterator[Any]:
        return self.iternext()
