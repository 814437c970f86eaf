"""What a database of ours looks like from outside: its named databases and the settings that tell its format.

    info: "format" -> "1"        refused if it is another
          "last" -> number       of the last transaction that is in the data, see recent.py
          "id" -> random         which store it is, wherever its files are; older ones have none
          "size" -> number       bytes that all entries take, see totals.py; older ones have none
          "clock", "suspect" -> float  what time it was, see times.py
          "replaced" -> dev:ino  of the data.mdb that this one is a compacted copy of, and has replaced
          and what the dictionary keeps there: the names of codecs, the key size limit, whether it was initialised

What the other databases hold is said in rows.py, record.py, pieces.py and quarantine.py.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import lmdb

from persistdict.errors import NotAStoreError, withheld
from persistdict.stores.lmdb.opening import open_raw

__all__ = [
    "FORMAT", "ID", "LAST", "LAST_NUMBER", "REPLACED", "SIZE", "adopt", "create", "initialise", "name_of", "note",
    "parse_number", "set_note",
]  # fmt: skip

FORMAT = "1"
LAST, ID, REPLACED, SIZE = b"last", b"id", b"replaced", b"size"
MOST = (1 << 64) - 1
LAST_NUMBER = 1 << 42  # of transactions; with 20 bits for writes a seq has 64, see record.py
DATABASES: dict[str, dict[str, Any]] = {
    "k": {},
    "e": {"integerkey": True},
    "v": {"integerkey": True},
    "x": {"integerkey": True, "dupsort": True, "dupfixed": True},
    "a": {"integerkey": True},
    "t": {},
    "p": {},
    "info": {},
}
KINDS = ("integerkey", "dupsort", "dupfixed", "reverse_key")
YOUNGER = ("t", "p")  # stores were made without them; they are added when one is opened


def initialise(raw: lmdb.Environment) -> None:
    """Make the databases in an environment that holds nothing yet."""
    with raw.begin(write=True) as txn:
        dbs = {name: raw.open_db(name.encode(), txn=txn, **flags) for name, flags in DATABASES.items()}
        txn.put(b"format", FORMAT.encode(), db=dbs["info"])
        txn.put(LAST, b"0", db=dbs["info"])
        txn.put(SIZE, b"0", db=dbs["info"])
        txn.put(ID, os.urandom(16).hex().encode(), db=dbs["info"])


def create(folder: str, map_size: int | None) -> None:
    """Build a new, empty database of which nobody else can know."""
    raw = open_raw(folder, map_size)
    try:
        initialise(raw)
    finally:
        raw.close()


def adopt(raw: lmdb.Environment, folder: str, damaged: str = "") -> tuple[dict[str, Any], int]:
    """The named databases of a store, and the last number in it.

    Initialises what is blank: lmdb-dict made it in this process. Adds what an older store lacks, unless it cannot be
    written to: on a read-only medium, or `damaged`. Raises NotAStoreError for any other database, and for a format that
    this release does not know.
    """
    if _is_blank(raw):
        initialise(raw)
    info = _read_info(raw, folder)
    stored, last = info.get("format", ""), parse_number(info.get("last"))
    if last is not None and (parse_number(stored) or 0) > int(FORMAT):
        raise NotAStoreError(
            f"{folder} was written by a newer persistdict (format {stored[:20]}, this release knows {FORMAT})"
        )
    if stored != FORMAT or last is None or last > LAST_NUMBER:
        raise NotAStoreError(f"{folder} holds an LMDB database that persistdict did not make")
    try:
        older = {name: flags for name, flags in DATABASES.items() if name not in YOUNGER}
        dbs = {name: raw.open_db(name.encode(), create=False, **flags) for name, flags in older.items()}
    except lmdb.NotFoundError as error:
        raise NotAStoreError(f"{folder} lacks some of a store's databases; nothing was changed") from error
    create = not damaged and not raw.flags()["readonly"]
    for name in YOUNGER:
        with contextlib.suppress(lmdb.NotFoundError):
            dbs[name] = raw.open_db(name.encode(), create=create, **DATABASES[name])
    with contextlib.suppress(lmdb.NotFoundError):  # it is made when it is needed
        dbs["q"] = raw.open_db(b"q", create=False)
    _check_kinds(raw, dbs, folder)
    return dbs, last


def _check_kinds(raw: lmdb.Environment, dbs: dict[str, Any], folder: str) -> None:
    """Refuse databases whose keys are not what we take them for."""
    with raw.begin() as txn:
        for name, flags in DATABASES.items():
            if name in dbs and any(dbs[name].flags(txn)[kind] != (kind in flags) for kind in KINDS):
                raise NotAStoreError(f"{folder} holds an LMDB database that persistdict did not make")


def parse_number(text: str | bytes | None) -> int | None:
    """A number of the info; None for what is none. (What Python takes for one may have any length.)"""
    if text is None or not 0 < len(text) <= 20 or not text.isdigit() or not text.isascii():
        return None
    number = int(text)
    return number if number <= MOST else None


def note(raw: lmdb.Environment, dbs: dict[str, Any], name: bytes) -> str:
    """What is noted in the info of a store; empty if nothing is."""
    with raw.begin(dbs["info"]) as txn:
        return bytes(txn.get(name, b"")).decode("ascii", "replace")


def set_note(raw: lmdb.Environment, name: bytes, text: str) -> None:
    """Note something in the info of a store."""
    db = raw.open_db(b"info", create=False)
    with raw.begin(db, write=True) as txn:
        txn.put(name, text.encode())


def name_of(identity: tuple[int, int]) -> str:
    """Device and inode, as they are noted."""
    return f"{identity[0]}:{identity[1]}"


def _is_blank(raw: lmdb.Environment) -> bool:
    """Whether there is nothing, or nothing but settings without any."""
    with raw.begin() as txn:
        names = [bytes(name) for name, _ in zip(txn.cursor().iternext(values=False), range(2), strict=False)]
    if names != [b"info"]:
        return not names
    try:
        info = raw.open_db(b"info", create=False)
    except lmdb.Error:  # a key of that name, and no database
        return False
    with raw.begin() as txn:
        return bool(txn.stat(info)["entries"] == 0)


def _read_info(raw: lmdb.Environment, folder: str) -> dict[str, str]:
    try:
        db = raw.open_db(b"info", create=False)
        with raw.begin(db) as txn:
            return {bytes(name).decode(): bytes(text).decode() for name, text in txn.cursor()}
    except (lmdb.Error, UnicodeDecodeError) as error:
        cause = error if isinstance(error, lmdb.Error) else withheld(error)
        raise NotAStoreError(f"{folder} holds an LMDB database that persistdict did not make") from cause
