"""The room behind the last page of the data that is kept for deletions, which must go on when the disk is full.

A deletion copies pages, and some must be there. So after each change of the data there is some room behind them; where
there is none to be had, nothing but deletions may use what is left, and what fits into free pages of the file.
"""

from __future__ import annotations

import os

from persistdict.stores.lmdb.environment import MUCH, Environment
from persistdict.stores.lmdb.failures import disk_full
from persistdict.stores.lmdb.folder import DATA
from persistdict.stores.lmdb.room import free_space, keep_room

__all__ = ["RESERVE", "find_room", "look_for_room", "refuse_without_room"]

RESERVE = 256 << 10  # bytes behind the last page of the data, at least, that are for deletions only
AMPLE = 64 << 20  # bytes free on a disk that is not nearly full
MANY = 8  # where more than this part of the file is free, some free pages lie together
LEAST = 32 << 10  # bytes of pages that any change copies
SHARE = 256  # of the data, so much more: a `clear` lists all pages


def find_room(env: Environment, needed: int) -> None:
    """Before so many bytes are written to the data, whose locks are held: raise DiskFullError if there is no room."""
    used = _used(env)
    behind = needed + LEAST + _reserve(used)
    if used + behind - _reserve(used) // 2 <= env.roomy or free_space(env.folder) > behind + AMPLE:
        return
    path = os.path.join(env.folder, DATA)
    env.scarce = not keep_room(path, behind, used)
    env.roomy = os.stat(path).st_blocks * 512 if env.scarce else used + behind
    refuse_without_room(env, needed)


def refuse_without_room(env: Environment, needed: int) -> None:
    """Raise DiskFullError if so many bytes would use what is kept for deletions.

    They would not if they fit into free pages of the file; and should they not, since those do not lie together, what
    is behind the last page is enough, and enough is left of it. Of many free pages some will lie together.
    """
    if not env.scarce:
        return
    inside, used = _free_inside(env) - 2 * LEAST, _used(env)
    left = env.roomy - used - needed - LEAST
    if inside < 2 * needed or (left < _reserve(used) // 2 and inside < max(used // MANY, 8 * needed)):
        raise disk_full(env.folder)


def _free_inside(env: Environment) -> int:
    """How many bytes of pages in the file of the data are not in use, nearly."""
    txn = env.data.begin()
    stats = [txn.stat(), *map(txn.stat, env.dbs.values())]
    used = sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)
    return _used(env) - int(used * stats[0]["psize"])


def _used(env: Environment) -> int:
    """Where the last page of the data ends."""
    assert env.data.raw is not None
    return int((env.data.raw.info()["last_pgno"] + 1) * env.data.raw.stat()["psize"])


def _reserve(used: int) -> int:
    return RESERVE + used // SHARE


def look_for_room(env: Environment) -> None:
    """After a change of the data: have room behind the last page; see how much may be written before the next drain."""
    used = _used(env)
    reserve, path = _reserve(used), os.path.join(env.folder, DATA)
    env.scarce = used + reserve // 2 > env.roomy
    if env.scarce and keep_room(path, reserve, used):
        env.roomy, env.scarce = used + reserve, False
    elif env.scarce:
        env.roomy = os.stat(path).st_blocks * 512
    env.much = min(MUCH, free_space(env.folder) // 4)
