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

__all__ = ["RESERVE", "look_for_room", "refuse_without_room"]

RESERVE = 256 << 10  # bytes behind the last page of the data, at least, that are for deletions only
LEAST = 32 << 10  # bytes of pages that any change copies
SHARE = 256  # of the data, so much more: a `clear` lists all pages


def refuse_without_room(env: Environment, needed: int) -> None:
    """Raise DiskFullError where there is nothing left but what is kept for deletions."""
    if env.scarce and 2 * (needed + LEAST) > _free_inside(env):
        raise disk_full(env.folder)


def _free_inside(env: Environment) -> int:
    """How many bytes of pages in the file of the data are not in use, nearly."""
    assert env.data.raw is not None
    txn = env.data.begin()
    stats = [txn.stat(), *map(txn.stat, env.dbs.values())]
    used = sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)
    return int((env.data.raw.info()["last_pgno"] - used) * stats[0]["psize"])


def look_for_room(env: Environment) -> None:
    """Have some room behind the last page of the data; see how much may be written before the next drain."""
    raw = env.data.raw
    assert raw is not None
    used = (raw.info()["last_pgno"] + 1) * raw.stat()["psize"]
    reserve = RESERVE + used // SHARE
    env.scarce = used + reserve // 2 > env.roomy
    if env.scarce and keep_room(os.path.join(env.folder, DATA), reserve, used):
        env.roomy, env.scarce = used + reserve, False
    env.much = min(MUCH, free_space(env.folder) // 4)
