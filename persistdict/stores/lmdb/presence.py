"""Whether the files of an open store are still where they were.

A process goes on with files that were deleted or moved away, and what it writes there nobody will find. So whoever
makes writes durable looks behind it, before saying so. Reads look at nothing; they go on in what is mapped.
"""

from __future__ import annotations

import errno
import os

from persistdict.errors import StoreGoneError
from persistdict.stores.lmdb.folder import DATA, FLAGS, GATE, LATEST, LOCK
from persistdict.stores.lmdb.recent import recent_folder

__all__ = ["Presence", "gone", "places_of"]

Identity = tuple[int, int]


class Presence:
    """Files, by path, and which they were. Threads: any number."""

    def __init__(self, folder: str, paths: list[str]) -> None:
        self._folder = folder
        self._known = {path: known for path in paths if (known := _identity(path)) is not None}

    def check(self) -> None:
        """Raise StoreGoneError if a file was deleted or replaced."""
        for path, known in self._known.items():
            if _identity(path) != known:
                raise gone(self._folder, f"{os.path.basename(path)} was deleted or replaced")


def gone(folder: str, what: str) -> StoreGoneError:
    """The error for a store whose files are not those that were opened."""
    return StoreGoneError(
        errno.ESTALE,
        f"{what} while the store was open: what was written since the last flush may be lost; close this dictionary "
        "and open it again",
        folder,
    )


def _identity(path: str) -> Identity | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def places_of(folder: str) -> list[str]:
    """The files of a store that must stay where they are."""
    recent = recent_folder(folder)
    places = [os.path.join(folder, name) for name in (DATA, LOCK, GATE, FLAGS)]
    return places + [os.path.join(recent, name) for name in (DATA, LOCK, LATEST)]
