"""The verification of a copy of somebody else's files, in a child process.

What the child meets ends the child: a signal, a loop, or too much memory, for it is limited in all of these. It goes by
steps, each of which makes the next one safe:

1. The header pages, the roots and the settings are read with plain reads. A store of another codec or key serializer is
   not looked at any further.
2. py-lmdb's verifier reads every page of both files, and never gives them to LMDB.
3. The store is opened. The recent writes, if they are those of this data.mdb, are drained into the data.
4. The integrity pass (verify.py) looks at every row. Pages are verified again if anything was drained.

It tells its parent in one line of JSON. Then the copy is one file, data.mdb, of which everything is as it should be;
all else in the folder is removed.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from typing import Any

from persistdict.errors import CorruptStoreError, MismatchError, NotAStoreError, OpenError, PersistDictError, refused
from persistdict.keys import MAX_KEY_SIZE
from persistdict.stores.lmdb.folder import DATA, remove_folder
from persistdict.stores.lmdb.foreign import Copy
from persistdict.stores.lmdb.layout import FORMAT, name_of, parse_number
from persistdict.stores.lmdb.pages import EMPTY, PageFile, Tree, loose_metas, nodes_of
from persistdict.stores.lmdb.recent import BASE, base_of, recent_folder
from persistdict.stores.lmdb.recentcheck import check_recent
from persistdict.stores.lmdb.trees import check_file, leaves, named_trees

__all__ = ["main", "prove"]

NEEDED = 1 << 30  # bytes of address space, beside what the files take
NAMES = {"codec": "safe", "keys": "ordered"}
TOLD = 3  # faults that are told
_CHILD = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from persistdict.stores.lmdb.proving import main
main(*json.loads(sys.argv[2]))
"""


def prove(copy: Copy, path: str, timeout: float) -> int:
    """Verify a copy, and leave nothing in its folder but data.mdb. Gives its key size limit. `path`: for messages.

    Raises NotAStoreError, MismatchError or CorruptStoreError.
    """
    told = _run_child(copy, path, timeout)
    kind, text = told.get("error"), str(told.get("text", "")).replace(copy.folder, path)[:2000]
    if kind == "NotAStoreError":
        raise NotAStoreError(text)
    if kind is not None:
        raise CorruptStoreError(errno.EIO, text, path)
    settings: dict[str, str] = told.get("settings", {})
    for name, asked in NAMES.items():
        if settings.get(name) != asked:
            raise MismatchError(
                f"{path} was written with {name} {settings.get(name, 'unknown')[:200]!r}; only what was written with "
                f"{asked!r} is opened from somebody else; nothing of it was decoded"
            )
    if told.get("faults") != []:
        raise CorruptStoreError(errno.EIO, f"it is damaged: {'; '.join(map(str, told.get('faults', ())))}"[:2000], path)
    for entry in os.scandir(copy.folder):
        if entry.name != DATA:
            remove_folder(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
    return _limit_of(settings)


def _run_child(copy: Copy, path: str, timeout: float) -> dict[str, Any]:
    """What the child tells."""
    paths = json.dumps([os.path.abspath(place) for place in sys.path if place])
    told = json.dumps([copy.folder, *copy.owner, copy.size, timeout])
    command = [sys.executable, "-I", "-c", _CHILD, paths, told]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False, cwd=copy.folder
        )
    except subprocess.TimeoutExpired:
        raise CorruptStoreError(errno.EIO, f"it could not be verified within {timeout:.0f} seconds", path) from None
    except OSError as error:
        raise refused(error, "start a process that verifies it", path) from error
    if done.returncode < 0:
        raise CorruptStoreError(errno.EIO, f"its verification was ended by {_signal_name(-done.returncode)}", path)
    try:
        found = json.loads(done.stdout[-(1 << 16) :].splitlines()[-1])
    except (ValueError, IndexError, RecursionError):
        found = None
    if done.returncode or not isinstance(found, dict):
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise CorruptStoreError(errno.EIO, f"its verification failed: {''.join(reason)[:500]}", path)
    return found


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _limit_of(settings: dict[str, str]) -> int:
    limit = parse_number(settings.get("key_size_limit"))
    if limit is None or not 1 <= limit <= MAX_KEY_SIZE:
        raise NotAStoreError("it has no possible key_size_limit")
    return limit


# In the child


def main(folder: str, device: int, inode: int, size: int, seconds: float) -> None:
    """Verify a copy, and print what was found as JSON."""
    _limit_process(size, seconds)
    told: dict[str, Any] = {}
    try:
        told["settings"] = settings = _settings(os.path.join(folder, DATA))
        if all(settings.get(name) == asked for name, asked in NAMES.items()):
            told["faults"] = _faults(folder, (device, inode), settings, size)
    except PersistDictError as error:
        kind = "NotAStoreError" if isinstance(error, NotAStoreError) else "CorruptStoreError"
        told = {"error": kind, "text": getattr(error, "strerror", None) or str(error)}
    print(json.dumps(told), flush=True)


def _limit_process(size: int, seconds: float) -> None:
    """Bound the memory, the processor time, and what is written."""
    if sys.platform == "win32":
        return
    import resource

    room = 2 * size + (64 << 20)
    longest = int(seconds) + 2
    for kind, limit in (
        ("RLIMIT_AS", NEEDED + 6 * size),
        ("RLIMIT_CPU", longest),
        ("RLIMIT_FSIZE", room),
        ("RLIMIT_CORE", 0),
    ):
        try:
            hard = resource.getrlimit(getattr(resource, kind))[1]
            least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(getattr(resource, kind), (least, least))
        except (OSError, ValueError):  # the system has no such limit
            continue


def _settings(path: str) -> dict[str, str]:
    """The settings that say how to open it, by plain reads. Raises NotAStoreError or CorruptStoreError."""
    try:
        check_file(path)
        file = PageFile(path)
    except OSError as error:
        if isinstance(error, PersistDictError):
            raise
        raise OpenError(error.errno, f"cannot read the copy: {error.strerror}", path) from error
    newest = max((meta for meta in loose_metas(file) if meta.sound), key=lambda meta: meta.transaction)
    tree = named_trees(file, newest).get(b"info", Tree(0, 0, 0, EMPTY))
    found = {}
    for number, page in leaves(file, tree):
        for node in nodes_of(page, number):
            if node.key in (b"format", b"codec", b"keys", b"key_size_limit", b"replaced") and not node.flags:
                found[node.key.decode()] = node.data.decode(errors="replace")
    if found.get("format") != FORMAT:
        raise NotAStoreError(f"{path} holds no store of a format that this release knows")
    _limit_of(found)
    return found


def _faults(folder: str, owner: tuple[int, int], settings: dict[str, str], size: int) -> list[str]:
    """What is wrong with the copy, in a few sentences."""
    faults = _page_faults(os.path.join(folder, DATA))
    recent = recent_folder(folder)
    if not faults and os.path.exists(os.path.join(recent, DATA)):
        faults = _page_faults(os.path.join(recent, DATA))
    if faults:
        return faults[:TOLD]
    rows = _recent_rows(recent, owner, settings.get("replaced", ""))
    faults = _row_faults(folder, _limit_of(settings), size, rows)
    if not faults and rows:
        faults = _page_faults(os.path.join(folder, DATA))
    return faults[:TOLD]


def _page_faults(path: str) -> list[str]:
    from lmdb import verify as verifier

    from persistdict.stores.lmdb.offline import is_leak

    found: Any = verifier
    try:
        return [sentence for sentence in found.verify(path, subdir=False) if not is_leak(sentence)]
    except verifier.VerifyError as error:
        return [f"it cannot be verified: {error}"]


def _recent_rows(recent: str, owner: tuple[int, int], replaced: str) -> list[tuple[bytes, bytes]]:
    """The recent writes, if there are any and they belong to this data.mdb. Their pages are sound. They are removed."""
    if not os.path.exists(os.path.join(recent, DATA)):
        return []
    import lmdb

    check_recent(recent)
    size = os.path.getsize(os.path.join(recent, DATA))
    raw = lmdb.open(os.fsencode(recent), readonly=True, lock=False, create=False, map_size=size, lib_version=0)
    try:
        with raw.begin() as txn:
            rows = [(bytes(key), bytes(row)) for key, row in txn.cursor()]
    finally:
        raw.close()
    remove_folder(recent)
    base = base_of(dict(rows).get(BASE))
    if base is None:
        raise CorruptStoreError(errno.EIO, "the recent writes do not say what they belong to", recent)
    ours = base[1:] == owner or name_of((base[1], base[2])) == replaced
    return [row for row in rows if row[0] != BASE] if ours else []


def _row_faults(folder: str, limit: int, size: int, recent: list[tuple[bytes, bytes]]) -> list[str]:
    """Open the copy, write the recent writes into the data, and look at every row."""
    from persistdict.stores.lmdb.store import LmdbStore
    from persistdict.stores.lmdb.verify import verify

    store = LmdbStore(folder, key_size_limit=limit, network=True, map_size=2 * size + (64 << 20))
    try:
        if recent:
            raw: Any = store.env.recent.raw
            raw.set_mapsize(2 * size + (16 << 20))
            with raw.begin(write=True) as txn:
                for key, row in recent:
                    txn.put(key, row)
            store.sync()
        store.env.prove()
        return [fault.sentence for fault in verify(store).faults]
    finally:
        store.close()
