"""Whether the data of an environment are given to LMDB, or are damaged: then they are read without it (plain.py)."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import Any

import lmdb

from persistdict.errors import CorruptStoreError
from persistdict.stores.lmdb.engine import Engine
from persistdict.stores.lmdb.failures import translated
from persistdict.stores.lmdb.folder import DATA, check_files
from persistdict.stores.lmdb.followers import Followers
from persistdict.stores.lmdb.guard import Guard
from persistdict.stores.lmdb.plain import begin_plain
from persistdict.stores.lmdb.recent import check_recent_files, recent_folder
from persistdict.stores.lmdb.recentcheck import check_recent
from persistdict.stores.lmdb.trees import ADVICE

__all__ = ["Trust"]

BELIEVED = 2  # times that LMDB, or who looked ahead, may err


class Trust(Followers):
    """What an environment knows of the damage of its data. The environment derives from it.

    Attributes:
        guard: looks at the pages of the data; None while they are not open.
        damage: what is wrong with them; "" if nothing is known to be. Damaged data are read without LMDB, and nothing
            is written.
    """

    folder: str
    data: Engine
    recent: Engine
    dbs: dict[str, Any]
    identity: tuple[int, int] | None
    guard: Guard | None = None
    damage = ""

    def look_at_files(self) -> None:
        """Before anything maps the files: refuse what must not be.

        Raises UnsafePathError, CorruptStoreError or NotAStoreError.
        """
        check_files(self.folder)  # again: an environment is opened anew after a fork
        check_recent_files(self.folder)
        self.guard = Guard(os.path.join(self.folder, DATA))
        check_recent(recent_folder(self.folder))

    def trust(self) -> None:
        """Once the data are open: go by what was seen."""
        guard = self.guard
        if guard is None or guard.file.identity() != self.identity:  # a compacted copy has taken the place of the file
            guard = self.guard = Guard(os.path.join(self.folder, DATA))
        self.damage = ""
        if guard.damage:
            self._distrust(guard, guard.damage)

    def prove(self) -> None:
        """Look at all pages of the data. Raises CorruptStoreError if any is damaged."""
        guard = self.guard
        damage = self.damage or (guard.look(thorough=True) if guard is not None else "")
        if damage:
            raise CorruptStoreError(errno.EIO, f"the store is damaged ({damage}); {ADVICE}", self.folder)

    def meet_damage(self, error: lmdb.Error, attempt: int) -> None:
        """LMDB has met a damaged page, or would have: from now on the data are read without it.

        Where no damage is seen, it is believed when it comes again. Raises CorruptStoreError if the data are not given
        to LMDB already, or if the damage is in the recent writes.
        """
        check_recent(recent_folder(self.folder))
        with self.data.lock, self.recent.lock:
            if self.damage or self.guard is None:
                raise translated(error, self.folder) from error
            damage = self.guard.look(thorough=True)
            if damage or attempt > BELIEVED:
                self._distrust(self.guard, damage or str(error))
                self.rebind()

    def _distrust(self, guard: Guard, damage: str) -> None:
        self.damage = damage
        names = {id(db): name for name, db in self.dbs.items()}
        self.data.begin = partial(begin_plain, self.data.begin, guard, names, self.folder)
        self.data.begin_write = self.recent.begin_write = self.refuse_if_damaged

    def refuse_if_damaged(self) -> None:
        """Raise CorruptStoreError if the data are known to be damaged: nothing is written then."""
        if self.damage:
            message = f"the store is damaged ({self.damage}); it can be read, but nothing is written; {ADVICE}"
            raise CorruptStoreError(errno.EIO, message, self.folder)
