"""What the processes that have a store open tell each other without a call of the kernel or of LMDB.

It stands in a file that all of them map:

    0  COMPANY u8   others have the store open, or had (MET), or one is about to (COMING): a write stands under the gate
    1  BUSY u8      the only process that has it open is writing, without the gate
    8  LATEST u64   the id of the last write of the recent writes that was begun, in the machine's byte order

The two system calls of the gate are a good part of what a small write costs, so it does without while a process is
alone.

The only process sets BUSY and then looks at COMPANY (`Engine.update`). Whoever opens the store holds the gate, sets
COMPANY, and waits until BUSY is cleared or that process is gone; only then they have met. So at least one of the two
sees the other, whatever the order; this is how Dekker excludes two processes, with a pause in the place of the fence,
which Python does not have: what a processor has written is seen by all the others long before the pause is over.

Everything else, opening, drains, direct changes, growth, stands under the gate always. Who finds at a drain that the
others are gone does without it again.

LATEST is told under LMDB's lock, before the commit. So while it is N, nothing was committed behind N that changes an
entry, and what was read in snapshot N is what there is; that is seen without asking LMDB. When it is another number
than that of the last commit, because a write is under way, has failed or has changed nothing, or because the file is
from before the machine was started, it tells nothing, and LMDB is asked.

Where the recent writes are not written through a map (room.py), nothing is mapped here, and nobody is ever alone. Nor
where others have the store open and there is no file: they have none mapped.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from typing import Any

from persistdict.errors import DiskFullError, OpenError, refused
from persistdict.store import NOT_TOLD
from persistdict.stores.lmdb.folder import FLAGS, open_own
from persistdict.stores.lmdb.gate import USERS, Gate, Patience
from persistdict.stores.lmdb.room import can_be_promised, give_room

__all__ = ["BUSY", "COMPANY", "Company", "never_alone"]

COMPANY, BUSY = 0, 1
MET, COMING = 1, 2
LATEST = slice(8, 16)
SIZE = 4096  # bytes
SEEN = 1e-3  # seconds after which a byte that was written is seen by all


def never_alone() -> bytearray:
    """The two bytes for those who write under the gate always."""
    return bytearray((MET, 0))


class Company:
    """What is mapped of a store, in one process.

    Attributes:
        flags: COMPANY and BUSY.
        latest: LATEST, as its one item.
        folder: the store.
    """

    def __init__(self, folder: str, gate: Gate) -> None:
        self.flags: Any = never_alone()
        self.latest: Any = NOT_TOLD
        self.folder = folder
        self._gate = gate
        self._is_mapped = False

    def meet(self, timeout: float, *, make: bool = True) -> None:
        """Let a process that is alone with the store know that it is not any more. Needs the gate and a share of USERS.

        Raises BusyError if it does not finish a write within so many seconds.

        Args:
            make: whether the file is made if there is none; then nobody is alone now.
        """
        if not self._map(make):
            return
        flags = self.flags
        patience = Patience(self._gate, USERS, timeout, self.folder)
        if flags[COMPANY] != MET and not self._is_alone():
            flags[COMPANY] = COMING  # also for the next, if this process gives up or dies
            time.sleep(SEEN)
            while flags[BUSY] and not self._is_alone():
                patience.pause()
            flags[COMPANY] = MET
        self.part()

    def is_expected(self) -> bool:
        """Whether writes stand under the gate, and need not if the others have gone."""
        return self._is_mapped and bool(self.flags[COMPANY])

    def part(self) -> None:
        """Do without the gate if nobody else has the store open. Needs the gate, and no thread may be writing."""
        if self._is_alone():
            self.flags[BUSY] = self.flags[COMPANY] = 0  # a process that was killed may have left them

    def forget(self) -> None:
        """Let go of the file."""
        self.flags, self.latest, self._is_mapped = never_alone(), NOT_TOLD, False

    def _is_alone(self) -> bool:
        return self._gate.user(USERS) is None

    def _map(self, make: bool) -> bool:
        """Map the file, if all that have the store open do; whether it is mapped.

        It gets its block on the disk before: who touches a hole on a full disk is killed.
        """
        path = os.path.join(self.folder, FLAGS)
        if self._is_mapped:
            return True
        exists = os.path.exists(path)
        if not can_be_promised(self.folder):
            if exists and make:
                self._unmake(path)
            return False
        if not exists and not (make and self._is_alone()):
            return False
        try:
            fd = open_own(path, "flags")
        except DiskFullError:
            return False
        try:
            status = os.fstat(fd)
            if status.st_size < SIZE or not status.st_blocks:
                give_room(path, SIZE, fill=True)
            self.flags = mmap.mmap(fd, SIZE)
        except DiskFullError:
            return False
        except OSError as error:
            raise refused(error, "map the store's flags", path) from error
        finally:
            os.close(fd)
        self.latest = memoryview(self.flags)[LATEST].cast("Q")
        self._is_mapped = True
        return True

    def _unmake(self, path: str) -> None:
        """Remove a file that was mapped elsewhere, and cannot be here."""
        if not self._is_alone():
            raise OpenError(
                errno.ENOTSUP,
                "another process has the store open that sees it on another kind of file system than this one does (is "
                "/proc missing in a container?); let all of them see it in the same way",
                self.folder,
            )
        os.unlink(path)
