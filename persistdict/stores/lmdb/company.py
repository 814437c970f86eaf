"""Whether other processes have the store open; while none has, a small write needs no lock of the kernel's.

The two system calls of the gate are a good part of what such a write costs. So two bytes stand in a file that all
processes map:

    COMPANY  others have the store open, or had (MET), or one is about to (COMING): a write stands under the gate
    BUSY     the only process that has it open is writing, without the gate

The only process sets BUSY and then looks at COMPANY (`Engine.update`). Whoever opens the store holds the gate, sets
COMPANY, and waits until BUSY is cleared or that process is gone; only then they have met. So at least one of the two
sees the other, whatever the order; this is how Dekker excludes two processes, with a pause in the place of the fence,
which Python does not have: what a processor has written is seen by all the others long before the pause is over.

Everything else, opening, drains, direct changes, growth, stands under the gate always. Who finds at a drain that the
others are gone does without it again.

Where the recent writes are not written through a map (room.py), nothing is mapped here, and nobody is ever alone.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import Any

from persistdict.errors import DiskFullError, refused
from persistdict.stores.lmdb.folder import FLAGS, open_own
from persistdict.stores.lmdb.gate import USERS, Gate, Patience
from persistdict.stores.lmdb.room import can_be_promised, give_room

__all__ = ["BUSY", "COMPANY", "Company", "never_alone"]

COMPANY, BUSY = 0, 1
MET, COMING = 1, 2
SIZE = 4096  # bytes
SEEN = 1e-3  # seconds after which a byte that was written is seen by all


def never_alone() -> bytearray:
    """The two bytes for those who write under the gate always."""
    return bytearray((MET, 0))


class Company:
    """The two bytes of a store, in one process.

    Attributes:
        flags: the bytes.
        folder: the store.
    """

    def __init__(self, folder: str, gate: Gate) -> None:
        self.flags: Any = never_alone()
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
        if flags[COMPANY] != MET and not self.is_alone():
            flags[COMPANY] = COMING  # also for the next, if this process gives up or dies
            time.sleep(SEEN)
            while flags[BUSY] and not self.is_alone():
                patience.pause()
            flags[COMPANY] = MET
        self.part()

    def is_expected(self) -> bool:
        """Whether writes stand under the gate, and need not if the others have gone."""
        return self._is_mapped and bool(self.flags[COMPANY])

    def part(self) -> None:
        """Do without the gate if nobody else has the store open. Needs the gate, and no thread may be writing."""
        if self.is_alone():
            self.flags[BUSY] = self.flags[COMPANY] = 0  # a process that was killed may have left them

    def forget(self) -> None:
        """Let go of the file."""
        self.flags, self._is_mapped = never_alone(), False

    def is_alone(self) -> bool:
        """Whether nobody else has the store open."""
        return self._gate.user(USERS) is None

    def _map(self, make: bool) -> bool:
        """Map the file, which gets its block on the disk before: who touches a hole on a full disk is killed."""
        path = os.path.join(self.folder, FLAGS)
        if self._is_mapped or not can_be_promised(self.folder) or not (make or os.path.exists(path)):
            return self._is_mapped
        try:
            fd = open_own(path, "flags")
        except DiskFullError:
            return False  # nobody is alone, for nobody has it mapped
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
        self._is_mapped = True
        return True
