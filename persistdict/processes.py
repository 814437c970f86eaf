"""Which process this is, in words that another one understands: and whether the one that is meant is alive.

A process id is used again after its process is gone. So the moment at which it began goes with it, and where it means
something at all: the start of the machine and, on Linux, the namespace of process ids.

Where it cannot be told whether a process is alive (in another container, on Windows), it is taken for alive.
"""

import os
import sys
from typing import NamedTuple

__all__ = ["Process", "is_alive", "this_process"]

GONE = ("Z", "X", "x")  # states of a process that runs no more, but was not waited for


class Process(NamedTuple):
    """A process: its id, when it began ("" where that cannot be told), and where both mean something."""

    pid: int
    began: str
    place: str


_here: list[Process] = []  # this process, once it was asked for


def this_process() -> Process:
    """The process that asks."""
    pid = os.getpid()
    if not _here or _here[0].pid != pid:  # it was forked
        _here[:] = [Process(pid, _began(pid) or "", _place())]
    return _here[0]


def is_alive(process: Process) -> bool:
    """Whether the process is alive, or may be. Costs one look at /proc, or one system call."""
    here = this_process()
    if process.place != here.place or sys.platform == "win32":
        return True
    if here.began and process.began:
        return _began(process.pid) == process.began
    try:
        os.kill(process.pid, 0)
    except (ProcessLookupError, OverflowError):  # or a number that is none of a process
        return False
    except OSError:
        return True  # it is somebody else's
    return True


def _began(pid: int) -> str | None:
    """When a process began, in ticks since the start of the machine; None if it is gone, or it cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].decode("ascii").split()  # the name before may hold anything
    except OSError:
        return None
    return None if len(fields) < 20 or fields[0] in GONE else fields[19]


def _place() -> str:
    """Where process ids mean the same as here."""
    from persistdict.stores.lmdb.boot import boot_id  # imported with the first store that processes share

    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{boot_id() or 'unknown'}/{namespace}"
