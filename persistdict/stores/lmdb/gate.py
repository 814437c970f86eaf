"""The gate: a file with locks that stand around opening and around every write transaction.

Why LMDB's own lock is not enough (measured; LMDB 0.9.36 and 1.0.2): when a process is killed while it waits for the
write lock, its neighbours may sleep for ever though the lock is free; and when the first opener is killed while it
makes the lock file, the second may go on with a counter of zero and lose commits. With the gate: none of 2,936 kills
and of 9,853 openings.

- Record locks (fcntl), not flock: they belong to the process, so a forked child does not keep them, and the kernel
  gives them back when the holder dies, however it dies. Each environment of the store has a byte of its own.
- The descriptor is moved high: a dying process closes its files in ascending order, and the gate must open only after
  LMDB's own lock files were closed.
- USERS and UNSEEN are shared by all processes that have the store open; so a compaction can tell that it is alone.
- Record locks do not exclude threads of one process: each is only ever taken behind a thread lock.
- Nothing else may open and close this file within the process: closing *any* descriptor of it drops the locks.
- Nobody waits in the kernel: a lock is tried, and tried again after a pause (`Patience`). So Ctrl-C works, waiting can
  end by time, and the kernel never takes several threads of two processes for a circle.

Windows has neither hole; there a lock is one byte of the file, locked with the C library.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
import sys
import time
from collections.abc import Callable

from persistdict.checksum import crc32
from persistdict.errors import BusyError, refused
from persistdict.stores.lmdb.folder import PRIVATE, open_own

__all__ = ["DATA", "EVICTION", "RECENT", "TRANSACTION", "UNSEEN", "USERS", "Gate", "Patience", "move_high"]

HIGH = 900
DATA, RECENT = 0, 1  # the byte that stands for each environment
USERS = 2  # shared by all processes that have the store open
UNSEEN = 3  # shared by those that read it on a read-only mount, where LMDB does not see them
EVICTION = 4
TRANSACTION = 5
FIRST_LEASE, LEASES = 1 << 20, 1 << 20  # bytes that stand for purposes of which one process is in charge
SHORTEST, LONGEST = 20e-6, 2e-3  # seconds between two attempts


class Gate:
    """A lock file. Threads: take a lock of it behind a thread lock. Processes: any number.

    Args:
        path: the file, made if it is missing, with these `permissions` or those of the data beside it.
    """

    def __init__(self, path: str, permissions: int = PRIVATE) -> None:
        self._leased: dict[tuple[int, int], set[int]] = {}  # process and byte -> who asked
        low = open_own(path, "lock file", permissions)
        if sys.platform == "win32":
            self._fd = low
            return
        try:
            self._fd = move_high(low)
        except OSError as error:
            raise refused(error, "open the store's lock file", path) from error
        finally:
            os.close(low)

    def lock(self, byte: int) -> tuple[Callable[[], object], Callable[[], object]]:
        """Two functions: one takes the lock or raises BlockingIOError, one gives it back, held or not."""
        if sys.platform == "win32":
            return functools.partial(_hold_windows, self._fd, byte), functools.partial(_free_windows, self._fd, byte)
        from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, lockf

        hold = functools.partial(lockf, self._fd, LOCK_EX | LOCK_NB, 1, byte)
        return hold, functools.partial(lockf, self._fd, LOCK_UN, 1, byte)

    def share(self, byte: int) -> None:
        """Hold a lock together with other processes, until the file is closed. Raises BlockingIOError if one claims it.

        Not on Windows, where nobody claims.
        """
        self.sharing(byte)()

    def sharing(self, byte: int) -> Callable[[], object]:
        """What `share` does, as a function of C, within which no signal is raised."""
        if sys.platform == "win32":
            return bool
        from fcntl import LOCK_NB, LOCK_SH, lockf

        return functools.partial(lockf, self._fd, LOCK_SH | LOCK_NB, 1, byte)

    def claim(self, byte: int) -> None:
        """Hold alone a lock that is shared; `share` ends it. Raises BlockingIOError if others hold it too."""
        if sys.platform != "win32":
            from fcntl import LOCK_EX, LOCK_NB, lockf

            lockf(self._fd, LOCK_EX | LOCK_NB, 1, byte)

    def lease(self, purpose: str, who: int) -> bool:
        """Hold alone the lock of this purpose, until all who asked for it end that. Whether this process has it.

        Needs a thread lock, as does `end_leases`.
        """
        mine = os.getpid(), FIRST_LEASE + crc32(purpose.encode()) % LEASES
        if mine not in self._leased:
            try:
                self.lock(mine[1])[0]()
            except BlockingIOError:
                return False
        self._leased.setdefault(mine, set()).add(who)
        return True

    def end_leases(self, who: int) -> None:
        """Give back what nobody else has asked for."""
        for (process, byte), askers in list(self._leased.items()):
            askers.discard(who)
            if not askers:
                del self._leased[process, byte]
                if process == os.getpid():
                    self.lock(byte)[1]()

    def holder(self, byte: int) -> str:
        """Who has the lock, for messages."""
        return self.user(byte) or "another process"

    def user(self, byte: int) -> str | None:
        """Which other process has the lock, alone or shared; None if none has, or it cannot be told."""
        if not sys.platform.startswith("linux") or self._fd < 0:
            return None
        import fcntl

        asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        kind, _, _, _, pid = struct.unpack("hhqqi", fcntl.fcntl(self._fd, fcntl.F_GETLK, asked))
        if kind == fcntl.F_UNLCK:
            return None
        return f"the process {pid}" if pid > 0 else "another process"

    def close(self) -> None:
        """Close the file. May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Patience:
    """Pauses between attempts to take a lock; raises BusyError when the time is over.

    Args:
        gate, byte: the lock, to name its holder.
        timeout: seconds to wait in all.
        place: the store, for the message.
        what: what the holder did not do in time.
    """

    def __init__(self, gate: Gate, byte: int, timeout: float, place: str, what: str = "did not finish a write") -> None:
        self._gate, self._byte, self._timeout, self._place = gate, byte, timeout, place
        self._what = what
        self._end = time.monotonic() + timeout
        self._pause = SHORTEST

    def pause(self) -> None:
        """Wait a moment. Ctrl-C ends it."""
        if time.monotonic() >= self._end:
            raise BusyError(
                errno.ETIMEDOUT,
                f"{self._gate.holder(self._byte)} {self._what} within {self._timeout:g} s; nothing was changed",
                self._place,
            )
        time.sleep(self._pause)
        self._pause = min(self._pause * 1.5, LONGEST)


if sys.platform != "win32":

    def move_high(fd: int) -> int:
        """Another descriptor of the file, with a high number."""
        import fcntl
        import resource

        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        for lowest in (HIGH, soft - 16, soft // 2):
            try:
                return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EMFILE):
                    raise
        raise OSError(errno.EMFILE, "too many open files: no descriptor is left for the gate")

else:

    def move_high(fd: int) -> int:
        return os.dup(fd)

    def _hold_windows(fd: int, byte: int) -> None:
        import msvcrt

        os.lseek(fd, byte, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            raise BlockingIOError(errno.EAGAIN, "the lock is held") from None

    def _free_windows(fd: int, byte: int) -> None:
        import msvcrt

        os.lseek(fd, byte, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
        except PermissionError:  # it was not held
            return
