"""The recent writes that can be read in a damaged store; with plain reads only.

A row is taken if its checksum fits and its page is in use, as far as the file tells; on pages that are free lie rows
that were drained. Of several rows of one key the newest counts.
"""

import os
from typing import NamedTuple

from persistdict.errors import CorruptEntryError
from persistdict.stores.lmdb.folder import DATA
from persistdict.stores.lmdb.layout import name_of
from persistdict.stores.lmdb.pages import nodes_of
from persistdict.stores.lmdb.recent import BASE, MARK, Row, base_of, parse_row, recent_folder
from persistdict.stores.lmdb.trees import leaves
from persistdict.stores.lmdb.wreck import FREE, Wreck

__all__ = ["RecentFinds", "find_recent"]


class RecentFinds(NamedTuple):
    """What was found: the newest row of each key, how many could not be read, whether they are of another database."""

    rows: list[Row]
    damaged: int
    pages: int
    foreign: bool


def find_recent(source: str, replaced: str) -> RecentFinds:
    """The recent writes, since the machine was started, to the data file `source`. Memory: all of them.

    `replaced`: what the store notes of the data file that it has replaced, see layout.py.
    """
    path = os.path.join(recent_folder(os.path.dirname(source)), DATA)
    if not os.path.exists(path):
        return RecentFinds([], 0, 0, False)
    wreck = Wreck(path)
    status = os.stat(source)
    owners = (name_of((status.st_dev, status.st_ino)), replaced)
    reached = {number for number, _ in leaves(wreck.file, wreck.meta.main)} if wreck.meta is not None else set()
    newest: dict[bytes, Row] = {}
    damaged, foreign = 0, False
    for number in range(2, wreck.count):
        if wreck.state[number] == FREE:
            continue
        for node in nodes_of(wreck.file.page(number), number):
            raw = wreck.data(node) or b""
            if node.key == BASE:
                base = base_of(raw)
                foreign = base is not None and name_of((base[1], base[2])) not in owners
                continue
            try:
                row = parse_row(raw)
            except CorruptEntryError:
                damaged += number in reached and node.key != MARK
                continue
            known = newest.get(row.record.kb)
            if known is None or known.record.version < row.record.version:
                newest[row.record.kb] = row
    return RecentFinds(list(newest.values()), damaged, wreck.pages, foreign)
