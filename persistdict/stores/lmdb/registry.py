"""The environments of this process, each once, by device and inode of their data.

The files of a store must be opened once in a process: LMDB's locks and those of the gate belong to the process, and
are lost when any descriptor of them is closed. `lock` guards opening and letting go; the dictionary is changed by
single operations, because a compaction, which exchanges the data, does not hold it. A forked child forgets them all.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from persistdict.stores.lmdb.folder import identity
from persistdict.stores.lmdb.opening import forget_inherited

__all__ = ["environments", "find", "let_go_of_unused", "lock", "register", "unregister"]

Identity = tuple[int, int]
environments: dict[Identity, Any] = {}
lock = threading.RLock()


def find(folder: str) -> Any:
    """The environment of a folder, open or to be opened anew; None if there is none. Needs the lock."""
    while True:
        key = identity(folder)
        environment = environments.get(key) if key else None
        if environment is not None and environment.data.raw is not None and environment.identity == key:
            if identity(environment.folder) != key:
                environment.move(folder)
            return environment
        for known in list(environments.values()):
            if known.folder == folder and known.data.raw is None:
                return known
        if identity(folder) == key:  # else the data were exchanged meanwhile
            return None


def register(environment: Any, key: Identity | None) -> None:
    """Let an environment be found by these data."""
    if key is not None:
        environments[key] = environment


def unregister(environment: Any, but: Identity | None = None) -> None:
    """Let an environment be found no more, or by these data only."""
    for key in [key for key, known in list(environments.items()) if known is environment and key != but]:
        environments.pop(key, None)


def let_go_of_unused() -> None:
    """Let go of environments that have no user: Ctrl-C came before they got one, or it has gone without a word."""
    with lock:
        for environment in list(environments.values()):
            if not environment.users:
                environment.release(environment)  # which is none of them


def _after_fork_in_child() -> None:
    global lock
    lock = threading.RLock()
    forget_inherited()
    for environment in environments.values():
        environment.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
