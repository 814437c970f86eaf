"""Giving space back: the data are copied without their free pages, and the copy takes their place.

Under the locks of the data, so that nothing changes them meanwhile (recent writes go on), and while no other process
has the store open: each that has holds a share of a lock (USERS), which is claimed here. Steps:

0. Drain: what was deleted recently takes no space in the copy.
1. The recent writes belong to a data.mdb by its device and inode; see to it that they name the present one.
2. Copy it into a new folder, and sync.
3. Under the lock of the recent writes too: let go of the data, see that no stranger has them open, note in the copy
   which file it is to replace, move it into place by one rename, sync the folder, open it.
4. Have the recent writes name the new one.

Whoever dies, or loses power, in between leaves the old data or the new, with the same content. The recent writes stay
what they are all the time, rows and ids: they are taken for those of the data if they name it or what it has
replaced (`open_recent`). So numbers, versions and copies in memory stay valid.
"""

from __future__ import annotations

import errno
import os
import sys

import lmdb

from persistdict.errors import DiskFullError, PersistDictError, StoreError, Unsupported
from persistdict.stores.lmdb import layout, registry
from persistdict.stores.lmdb.copying import copy_compacted
from persistdict.stores.lmdb.drain import drain, environment_of
from persistdict.stores.lmdb.engine import raise_not_open
from persistdict.stores.lmdb.environment import Environment
from persistdict.stores.lmdb.folder import (
    DATA,
    LOCK,
    identity,
    new_folder,
    permissions_of,
    remove_folder,
    remove_leftovers,
    sync_folder,
)
from persistdict.stores.lmdb.gate import USERS, Patience
from persistdict.stores.lmdb.opening import find_or_open, let_go, open_alone, unshare
from persistdict.stores.lmdb.recent import belong_to
from persistdict.stores.lmdb.rows import Rows

__all__ = ["compact"]


ROOM = 1 << 20  # bytes


class InUse(Exception):
    """Another process has the store open."""


def compact(rows: Rows, timeout: float) -> int:
    """Give free space of the data back to the file system; tells how many bytes.

    Waits so many seconds for other processes to let go of the store, then raises BusyError.
    """
    if sys.platform == "win32":
        raise Unsupported("Windows does not exchange files that are in use; open a backup instead")
    env = environment_of(rows)
    drain(rows)
    attempt, patience = 0, None
    while True:
        try:
            return env.data.alone(_compact, env)
        except InUse:
            patience = patience or Patience(env.gate, USERS, timeout, env.folder, "did not close the store")
        except lmdb.Error as error:
            attempt += 1
            env.recover(error, attempt)
        except OSError as error:
            if isinstance(error, PersistDictError):
                raise
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError(error.errno, "no space is left for a compacted copy", env.folder) from error
            raise StoreError(error.errno, f"cannot compact the store: {error.strerror}", env.folder) from error
        if patience is not None:
            patience.pause()


def _compact(env: Environment) -> int:
    env.presence.check()
    env.prove()
    new = ""
    share = env.gate.sharing(USERS)
    try:
        env.gate.claim(USERS)
        remove_leftovers(env.folder)
        new = new_folder(env.folder)
        old = _identity(env)
        env.recent.update(belong_to, env.base, old)
        size = os.path.getsize(os.path.join(env.folder, DATA))
        raw = env.data.raw
        assert raw is not None  # we are within `alone`
        copy_compacted(raw, raw.begin(), os.path.join(new, DATA), permissions_of(env.folder))
        del raw
        env.recent.alone(_exchange, env, new, old)
        return max(0, size - os.path.getsize(os.path.join(env.folder, DATA)))
    except BlockingIOError as error:
        raise InUse from error
    finally:
        share()
        if new:
            remove_folder(new)


def _identity(env: Environment) -> tuple[int, int]:
    found = identity(env.folder)
    if found is None:
        env.presence.check()  # raises
    assert found is not None
    return found


def _exchange(env: Environment, folder: str, old: tuple[int, int]) -> None:
    """Let the copy take the place of the data. If anything is raised, the next use opens what is there."""
    raw = env.data.raw
    assert raw is not None
    env.data.forget(raise_not_open)
    env.rebind()
    unshare(raw)
    raw.close()  # whoever reads from it begins again, and waits for the locks
    _check_for_strangers(env)
    copy = open_alone(folder, ROOM)
    try:
        layout.set_note(copy, layout.REPLACED, layout.name_of(old))
    finally:
        copy.close()
    new = identity(folder)
    assert new is not None
    registry.register(env, new)
    os.rename(os.path.join(folder, DATA), os.path.join(env.folder, DATA))
    sync_folder(env.folder)
    raw = find_or_open(env.folder, env.map_size)
    try:
        env.take_up(raw, layout.adopt(raw, env.folder)[0])
    except BaseException:
        let_go(raw)
        raise
    registry.unregister(env, but=new)
    env.recent.write(belong_to, env.base, new)


def _check_for_strangers(env: Environment) -> None:
    """Raise InUse if a process that knows nothing of the gate has the data open: LMDB's own lock says so.

    The file may be opened and closed here: of this process, nothing has it open any more.
    """
    import fcntl

    with open(os.path.join(env.folder, LOCK), "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        except BlockingIOError as error:
            raise InUse from error
