"""Opening a dictionary that somebody else has made, who may be hostile."""

from __future__ import annotations

import os
import time
import weakref
from typing import Any, TypeVar

from persistdict.dictionary import PersistDict
from persistdict.options import number

__all__ = ["open_untrusted"]

K = TypeVar("K")
V = TypeVar("V")


def open_untrusted(
    path: str | os.PathLike[str], *, timeout: float = 60.0, max_bytes: int | None = None
) -> PersistDict[Any, Any]:
    """Open a dictionary of somebody else for reading, whatever its files hold.

    What is read is a private copy, in a folder for temporary files that only this user may enter; closing the handle,
    or collecting it, removes the copy. The original is read and nothing else: neither written to nor locked, nor given
    to LMDB. Regular files only are read, no links; of them data.mdb, and the recent writes if they are of this machine.
    A child process with bounds on memory and time verifies every page and every row of the copy before this process
    opens it. Values are decoded by the safe codec, which runs no code of the file; to read instances of your own
    types, register them (`d.codec.register`), and let their `decode` check what it gets.

    Nobody should write to the original meanwhile: if somebody does, this fails and may be tried again.

    Cost: the files are read twice and written once.

    Args:
        path: the folder.
        timeout: seconds for the copy and its verification.
        max_bytes: how many bytes the files may have; None for as many as the disk has left.

    Returns:
        A PersistDict that only reads (`mode="r"`). Pickled, it copies and verifies the original anew where it is used.

    Raises:
        NotAStoreError: if it is no store, or one of a newer format.
        CorruptStoreError: if anything is damaged, or the child did not survive it, or took too long.
        MismatchError: if it was written with another codec or a key_serializer; nothing is decoded then.
        UnsafePathError: if a file is a link, a pipe, or something else that is no regular file.
        OpenError: if there is nothing, or the system refuses.
        TooLargeError: if the files have more bytes than `max_bytes`.
        DiskFullError: if a copy does not fit on the disk.
        BusyError: if somebody writes to it all the time.

    >>> import tempfile
    >>> from persistdict import PersistDict, open_untrusted
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with PersistDict(f"{folder}/theirs") as d:
    ...         d["answer"] = 42
    ...     with open_untrusted(f"{folder}/theirs", max_bytes=1 << 30) as d:
    ...         d["answer"], d.mode
    (42, 'r')
    """
    number("timeout", timeout, more_than=0)
    if max_bytes is not None and (type(max_bytes) is not int or max_bytes < 1):
        raise ValueError("max_bytes must be an int of at least 1, or None for no bound")
    return _Untrusted(os.path.abspath(os.fspath(path)), timeout, max_bytes)


def _remove(store: list[Any], folder: str, process: int) -> None:
    """Remove a copy. What is open of it still, at the end of the program, has nothing to settle there."""
    from persistdict.stores.lmdb.foreign import remove_copy

    for finalizer in store:
        finalizer.detach()
    remove_copy(folder, process)


class _Untrusted(PersistDict[K, V]):
    """A handle on a copy, which it removes. Threads and processes: as PersistDict; the copy is the maker's."""

    def __init__(self, path: str, timeout: float, max_bytes: int | None) -> None:
        from persistdict.stores.lmdb.foreign import copy_privately
        from persistdict.stores.lmdb.proving import prove

        end = time.monotonic() + timeout
        self._source = path, timeout, max_bytes
        copy = copy_privately(path, max_bytes, timeout)
        store: list[Any] = []
        # Before the store has a finalizer: the one that was made last is called first, but at the end of the program.
        self._copy = weakref.finalize(self, _remove, store, copy.folder, os.getpid())
        try:
            limit = prove(copy, path, max(1.0, end - time.monotonic()))
            super().__init__(
                copy.folder,
                key_size_limit=limit,
                background_thread="disabled",
                name=os.path.basename(path),
                network_filesystem="allow",
                mode="r",
            )
        except BaseException:
            self._copy()
            raise
        store.append(self._finalizer)

    def close(self) -> None:
        """Let go of the copy, and remove it. May be called again."""
        try:
            super().close()
        finally:
            self._copy()

    def _title(self) -> str:
        return f"open_untrusted({self._source[0]!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _Untrusted, self._source
