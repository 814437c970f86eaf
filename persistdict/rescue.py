"""Reading what can be read from a damaged store."""

from __future__ import annotations

import os
from collections.abc import Callable

from persistdict.reports import Salvaged

__all__ = ["salvage"]


def salvage(
    path: str | os.PathLike[str],
    into: str | os.PathLike[str],
    *,
    deep: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Salvaged:
    """Make a new store in the folder `into` of everything that can be read in the damaged one at `path`.

    The damaged files are only read, never changed, and never mapped into memory: whatever they hold, the process
    lives. Entries come back with their times, their order and their settings; those whose checksums do not fit are
    counted. Memory: a byte per page of the file, the recent writes, and what one transaction writes. Time: some seconds
    for 100 MB; nobody writes to the old store meanwhile, and this process opens and closes no other.

    Recent writes that were not in the data yet come on top. Where one of them cannot be read, the version of its key
    that was in the data is taken, and `damaged` counts.

    What was deleted is not brought back, as far as the file tells. If it does not tell any more (the list of free pages
    and the index are both damaged), an entry that is found is taken, and counted as `unsure`.

    Args:
        path: the folder of the damaged store, or its data file.
        into: a new folder.
        deep: also take, for keys of which nothing else was found, what lies on pages that are free: deleted entries,
            old versions; and recent writes that belong to another data file, as in a copy of the folder.
        progress: called now and then with the number of the page that is read and how many there are.

    Returns:
        What was found, see `Salvaged`. Open the new store with the options of the old one.

    Raises:
        OpenError: if there is nothing to read, or a store in `into` already.
        NotAStoreError: if the store is of a format that this release does not know.
    """
    from persistdict.stores.lmdb.salvage import salvage_folder

    return salvage_folder(os.fspath(path), os.fspath(into), deep, progress)
