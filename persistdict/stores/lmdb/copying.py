"""Copying a snapshot of an environment into a file, while everything goes on.

LMDB writes the copy, in a thread of its own, into a pipe; this thread takes it out and writes the file. So Ctrl-C ends
a long copy at once, and what is wrong with the target is told by the operating system and not by LMDB. The pipe is a
pair of sockets, whose ends are shut rather than closed: that holds for the duplicates in forked children too.

Ctrl-C may come between any two instructions of this thread. So the other one is begun by one call of C (`_thread`:
that of `threading` leaves locks of its own held), and who takes the work out of its list, which one of the two can,
either does it or closes its end.

Assumption of LMDB (py-lmdb 3): an environment that is copied is not remapped or closed before the copy is done.
"""

from __future__ import annotations

import _thread
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
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
    with open(path, "wb", opener=lambda path, _: make_file(path, permissions)) as file:
        failed = _stream(raw, txn, file)
        if failed:
            raise failed[0]
        file.flush()
        os.fsync(file.fileno())


def _stream(raw: lmdb.Environment, txn: Any, file: Any) -> list[BaseException]:
    giving, taking = socket.socketpair()
    failed: list[BaseException] = []
    work: list[Callable[[], object]] = [partial(_give, raw, txn, giving, failed)]
    done = _thread.allocate_lock()
    with taking:
        done.acquire()
        try:
            _thread.start_new_thread(_do, (work, done))
            while part := taking.recv(PART):
                file.write(part)
        finally:
            taking.shutdown(socket.SHUT_RDWR)  # if it is not done it cannot go on
            try:
                work.pop()
            except IndexError:
                _wait(done)
            else:  # it was not begun; if it begins now, it finds nothing to do
                giving.close()
    return failed


def _do(work: list[Callable[[], object]], done: _thread.LockType) -> None:
    """Do the work, unless it was taken away; then let go of it, and tell."""
    try:
        work.pop()()
    except IndexError:
        return
    finally:
        done.release()


def _wait(done: _thread.LockType) -> None:
    """Wait for the end; Ctrl-C, once more, does not end that, for it is near and what follows is not safe before."""
    interrupted: BaseException | None = None
    while True:
        try:
            with done:  # and not `acquire`, behind which it may be held or not
                break
        except BaseException as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _give(raw: lmdb.Environment, txn: Any, giving: socket.socket, failed: list[BaseException]) -> None:
    """Only this closes its end: under LMDB's feet the number could come to mean another file."""
    with giving:
        try:
            raw.copyfd(giving.fileno(), compact=True, txn=txn)
        except BaseException as error:
            failed.append(error)
        finally:
            giving.shutdown(socket.SHUT_WR)
