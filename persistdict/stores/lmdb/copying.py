"""Copying a snapshot of an environment into a file, while everything goes on.

LMDB writes the copy, in a thread of its own, into a pipe; this thread takes it out and writes the file. So Ctrl-C ends
a long copy at once, and what is wrong with the target is told by the operating system and not by LMDB. The pipe is a
pair of sockets, whose ends are shut rather than closed: that holds for the duplicates in forked children too.

Assumption of LMDB (py-lmdb 3): an environment that is copied is not remapped or closed before the copy is done.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import Any

import lmdb

from persistdict.stores.lmdb.folder import make_file

__all__ = ["copy_compacted"]

PART = 1 << 20  # bytes


def copy_compacted(raw: lmdb.Environment, txn: Any, path: str, permissions: int) -> None:
    """Write what the snapshot `txn` of an environment holds, without its free pages, to a new file; synced.

    Raises OSError for the file, lmdb.Error for the environment; then the file may be there in part.
    """
    if sys.platform == "win32":  # no sockets where files are expected; Ctrl-C waits for the end
        raw.copy(os.path.dirname(path), compact=True, txn=txn)
        with open(path, "r+b") as file:
            os.fsync(file.fileno())
        return
    fd = make_file(path, permissions)
    with open(fd, "wb") as file:
        failed = _stream(raw, txn, file)
        if failed:
            raise failed[0]
        file.flush()
        os.fsync(fd)


def _stream(raw: lmdb.Environment, txn: Any, file: Any) -> list[BaseException]:
    giving, taking = socket.socketpair()
    failed: list[BaseException] = []
    thread = threading.Thread(target=_give, args=(raw, txn, giving, failed), name="persistdict-copy", daemon=True)
    with taking:
        try:
            thread.start()
            while part := taking.recv(PART):
                file.write(part)
        finally:
            taking.shutdown(socket.SHUT_RDWR)  # if it is not done it cannot go on
            if thread.is_alive():  # else it is done, or was about to start when this was interrupted, and ends at once
                thread.join()
    return failed


def _give(raw: lmdb.Environment, txn: Any, giving: socket.socket, failed: list[BaseException]) -> None:
    """Only this closes its end: under LMDB's feet the number could come to mean another file."""
    with giving:
        try:
            raw.copyfd(giving.fileno(), compact=True, txn=txn)
        except BaseException as error:
            failed.append(error)
        finally:
            giving.shutdown(socket.SHUT_WR)
