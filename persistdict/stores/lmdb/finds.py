"""The records that can be read in a damaged data file, and how far each is to be believed.

- REACHED: a tree of the newest header leads to it.
- STRANDED: no tree leads to it, but its page is in use: it is not in the list of free pages. Some branch above it is
  damaged.
- UNSURE: the list of free pages is damaged too, and the index does not contradict: the record may be living, deleted
  or an old version.
- REMNANT: its page is free, or the index says that its key has no such entry: deleted, or an old version.

A record is taken only if its checksum fits. Where the header of a page or its offsets are damaged, it is searched for
nodes; where the node around a record is damaged, the room between the others is tried; where the leaf is gone, what
lies on overflow pages is tried by itself.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from persistdict.checksum import crc32
from persistdict.errors import CorruptEntryError
from persistdict.stores.lmdb.pages import BIG, HEADER, LEAF, NODE, Node, Tree, node_at, offsets_of, overflow_count
from persistdict.stores.lmdb.pieces import HEAD, joined, parse_head, piece_key, piece_size, pieces_of
from persistdict.stores.lmdb.record import (
    EXPIRES,
    HEADER_SIZE,
    LABELLED,
    LARGE,
    PIECES,
    RESIDUE,
    Parsed,
    check_large,
    large_size,
    parse_record,
    seq_number,
)
from persistdict.stores.lmdb.record import HEADER as RECORD
from persistdict.stores.lmdb.trees import leaves
from persistdict.stores.lmdb.wreck import FREE, USED, Wreck

__all__ = ["REACHED", "REMNANT", "STRANDED", "UNSURE", "Find", "Finder"]

REACHED, STRANDED, UNSURE, REMNANT = range(4)
MOST_TRIED = 16 << 20  # bytes on overflow pages that are tried as a record without a leaf
SEQ_SIZE = struct.pack("=H", 8)  # the key length in the node of an entry


class Find(NamedTuple):
    """A record that is intact, with its large value. `seq` is b"" if it was found without."""

    seq: bytes
    raw: bytes
    record: Parsed
    value: bytes | None
    belief: int


class Finder:
    """Finds records. Ask for `reached` first, then for what is `scattered`. Threads: one.

    Attributes:
        damaged: entries that were seen in their place and could not be read.
        page: the number of the page that is being read.
    """

    def __init__(self, wreck: Wreck) -> None:
        self.wreck = wreck
        self.damaged = 0
        self.page = 0
        self._values: dict[bytes, int] = {}  # where large values are, as stranded leaves say: seq -> page
        self._pieces: dict[tuple[int, int], int] = {}  # pages of loose pieces, by version and number
        self._waiting: list[Find] = []  # records whose large value was not found yet
        self._loose: list[int] = []  # overflow pages that nothing leads to

    def reached(self) -> Iterator[Find]:
        """The entries that the trees lead to."""
        wreck = self.wreck
        tree = wreck.trees.get(b"e", Tree(0, 0, 0, 0))
        for number, page in leaves(wreck.file, tree, visit=wreck.visit):
            self.page = number
            expected = len(offsets_of(page, number, LEAF))
            wreck.pages += not expected
            found = 0
            for seq, raw in self._on_leaf(page, number):
                found += 1
                yield from self._complete(seq, raw, REACHED if expected else self._belief(page, number, seq, raw))
            self.damaged += max(0, expected - found)

    def scattered(self, remnants: bool) -> Iterator[Find]:
        """The entries on pages that no tree leads to: those that may be living, or those that seem not to be."""
        wreck = self.wreck
        number, self._loose = 2, []
        while number < wreck.count:
            self.page = number
            size = 1
            if wreck.state[number] != USED:
                page = wreck.file.page(number)
                size = overflow_count(page, number) if page else 0
                if size:
                    self._loose.append(number)
                else:
                    for seq, raw in self._on_leaf(page, number):
                        yield from self._complete(seq, raw, self._belief(page, number, seq, raw), remnants)
            number += max(1, size if number + size <= wreck.count else 1)
        self._pieces = {head: number for number in self._loose if (head := self._head_at(number)) is not None}
        yield from self._without_leaf(remnants)
        yield from self._with_late_values(remnants)

    def _without_leaf(self, remnants: bool) -> Iterator[Find]:
        """Records on overflow pages that no leaf led to."""
        for number in self._loose:
            raw = self._record_at(number) if self.wreck.state[number] != USED else None
            if raw is not None:
                seq = self.wreck.indexed(parse_record(raw).kb) or b""
                yield from self._complete(seq, raw, self._belief(b"", number, seq, raw), remnants)

    def _with_late_values(self, remnants: bool) -> Iterator[Find]:
        """Records whose large value no tree led to, if it is found now."""
        waiting, self._waiting = self._waiting, []
        for find in waiting:
            if (find.belief == REMNANT) != remnants:
                self._waiting.append(find)
                continue
            value = self._search_value(find)
            if value is not None:
                yield find._replace(value=value)
            elif not remnants:
                self.damaged += 1

    def _belief(self, page: bytes, number: int, seq: bytes, raw: bytes) -> int:
        """How far a record is to be believed on a page that no tree leads to, or that is not as it should be."""
        wreck = self.wreck
        claimed = HEADER.unpack_from(page)[0] if page else number
        if claimed < wreck.count:
            number = claimed  # a page that lies where another belongs
        if wreck.state[number] == FREE or (wreck.meta is not None and number > wreck.meta.last):
            return REMNANT
        if wreck.free_known and (not page or _live_from(page, number) != HEADER.size):
            return STRANDED
        indexed = wreck.indexed(parse_record(raw).kb, seq)
        return UNSURE if indexed is None or indexed == seq else REMNANT

    def _complete(self, seq: bytes, raw: bytes, belief: int, remnants: bool = False) -> Iterator[Find]:
        """The record with its large value; nothing if that must be looked for later, or it is not asked for."""
        if (belief == REMNANT) != remnants:
            return
        record = parse_record(raw)
        find = Find(seq, raw, record, None, belief)
        if not record.flags & LARGE:
            yield find
            return
        value = self._value(seq, record) if seq else None
        if value is not None and _fits(record, value):
            yield find._replace(value=value)
        else:
            self._waiting.append(find)

    def _value(self, seq: bytes, record: Parsed) -> bytes | None:
        """The large value that the trees lead to."""
        if not record.flags & PIECES:
            return self._data(b"v", seq)
        return joined(self._data(b"p", piece_key(seq, n)) for n in range(pieces_of(large_size(record.body))))

    def _data(self, name: bytes, key: bytes) -> bytes | None:
        node = self.wreck.look_up(name, key)
        return self.wreck.data(node) if isinstance(node, Node) else None

    def _search_value(self, find: Find) -> bytes | None:
        """A large value: where a stranded leaf says, or whatever has its size and checksum."""
        if find.record.flags & PIECES:
            value = joined(self._search_pieces(find))
            return value if value is not None and _fits(find.record, value) else None
        for number in [*filter(None, [self._values.get(find.seq)]), *self._loose]:
            value = self.wreck.file.value(number, large_size(find.record.body))
            if value is not None and _fits(find.record, value):
                return value
        return None

    def _search_pieces(self, find: Find) -> Iterator[bytes | None]:
        """The pieces of a large value: those that a tree leads to, and what says that it is one of the others."""
        size = large_size(find.record.body)
        for number in range(pieces_of(size)):
            raw = self._data(b"p", piece_key(find.seq, number)) if find.seq else None
            name = find.record.version, number
            if raw is None and name in self._pieces:
                raw = self.wreck.file.value(self._pieces[name], HEAD + piece_size(size, number))
            yield raw

    def _head_at(self, number: int) -> tuple[int, int] | None:
        """Of which version and which number the piece is that begins there; None if none does."""
        return parse_head(self.wreck.file.read(HEAD, number * self.wreck.file.page_size + HEADER.size))

    # What is on a page

    def _on_leaf(self, page: bytes, number: int) -> Iterator[tuple[bytes, bytes]]:
        """The intact records on what is, or may once have been, a leaf of entries, with their seqs."""
        begin = _live_from(page, number)
        if begin is None:
            return
        taken: list[tuple[int, int]] = []
        offsets = offsets_of(page, number, LEAF)
        for at in offsets or _likely_nodes(page, begin, len(page)):
            node = node_at(page, at)
            if node is None or len(node.key) != 8:
                continue
            raw = self._record_of(node)
            if raw is not None:
                taken.append((at, at + NODE.size + 8 + len(node.data)))
                yield node.key, raw
            elif node.flags & BIG:
                self._values[node.key] = seq_number(node.data)
        if taken:
            for first, end in _gaps(begin, sorted(taken), len(page)):
                yield from self._in_gap(page, first, end)

    def _in_gap(self, page: bytes, first: int, end: int) -> Iterator[tuple[bytes, bytes]]:
        """The records between nodes that are intact: whose offset or whose header is damaged."""
        found = False
        for at in _likely_nodes(page, first, end):
            node = node_at(page, at)
            raw = self._record_of(node) if node is not None else None
            if node is not None and raw is not None:
                found = True
                yield node.key, raw
        begin = first + NODE.size + 8
        for stop in (end, end - 1) if not found else ():
            if _intact(page[begin:stop]):
                yield page[begin - 8 : begin], page[begin:stop]
                return

    def _record_of(self, node: Node) -> bytes | None:
        """The record that a node holds, if it is intact."""
        if node.size < HEADER_SIZE + 4 or node.flags & ~BIG or (not node.flags and not _intact(node.data)):
            return None
        if not node.flags:
            return node.data
        raw = self.wreck.file.value(seq_number(node.data), node.size)
        return self.wreck.data(node) if raw is not None and _intact(raw) else None

    def _record_at(self, number: int) -> bytes | None:
        """The record on overflow pages whose leaf is gone; its size is not known, but its checksum is."""
        file = self.wreck.file
        head = file.read(HEADER.size, number * file.page_size)
        room = min(overflow_count(head, number) * file.page_size - HEADER.size, MOST_TRIED)
        raw = file.read(room, number * file.page_size + HEADER.size)
        if len(raw) < HEADER_SIZE + 4:
            return None
        _, flags, hint_size, key_size, *_ = RECORD.unpack_from(raw)
        least = max(HEADER_SIZE + hint_size + key_size + 4, room - file.page_size)
        if flags & ~(LARGE | EXPIRES | LABELLED | PIECES) or least > len(raw):
            return None
        check = crc32(raw[:least])
        for end in range(least, len(raw) + 1):
            if check == RESIDUE and _intact(raw[:end]):
                return raw[:end]
            check = crc32(raw[end : end + 1], check)
        return None


def _intact(raw: bytes) -> bool:
    try:
        parse_record(raw)
    except CorruptEntryError:
        return False
    return True


def _fits(record: Parsed, value: bytes) -> bool:
    try:
        check_large(record.body, value)
    except CorruptEntryError:
        return False
    return True


def _live_from(page: bytes, number: int) -> int | None:
    """Where on a leaf the nodes begin; None if it looks like none. Two of three signs must be right."""
    if not page:
        return None
    found, _, flags, lower, upper = HEADER.unpack_from(page)
    bounds = HEADER.size < lower <= upper < len(page) and not lower & 1
    if (found == number) + (flags == LEAF) + bounds < 2:
        return None
    return upper if bounds else HEADER.size


def _likely_nodes(page: bytes, first: int, end: int) -> Iterator[int]:
    """Where nodes with a key of 8 bytes may begin."""
    at = page.find(SEQ_SIZE, first + 6, end)
    while at >= 0:
        if not at & 1:
            yield at - 6
        at = page.find(SEQ_SIZE, at + 1, end)


def _gaps(begin: int, taken: list[tuple[int, int]], end: int) -> Iterator[tuple[int, int]]:
    """The room between nodes that is large enough for a record. Nodes lie close together, at even places."""
    for first, last in [*taken, (end, end)]:
        if first - begin >= NODE.size + 8 + HEADER_SIZE + 4:
            yield begin, first
        begin = last + (last & 1)
