"""What a user can ask for of upkeep, all of which also happens in the background, or is never done unasked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from persistdict.core import Core
from persistdict.maintenance import keeper_of
from persistdict.modes import refuse_to_write
from persistdict.options import number
from persistdict.reports import Quarantined, Report
from persistdict.statistics import Stats
from persistdict.store import Store
from persistdict.tasks import Pass, expire_all, run_round

__all__ = ["Upkeep"]

K = TypeVar("K")
V = TypeVar("V")


class Upkeep(Core[K, V]):
    """The part of a dictionary that looks after its store."""

    def _writable(self) -> Store:
        """The store itself. Raises ReadOnlyError if this handle only reads."""
        store = self._opened()
        if self._mode == "r":
            refuse_to_write(store.place)
        return store

    def expire(self) -> int:
        """Remove all entries that are over, now. Returns how many.

        They are absent for every reader anyway; this frees their space. Raises MaintenanceError if upkeep in the
        background failed since the last call.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.set("a", 1, ttl=3600)
        >>> d.expire()
        0
        """
        store = self._writable()
        keeper_of(store).raise_error()
        return expire_all(store)

    def maintain(self, *, seconds: float | None = None, check: bool = False) -> bool:
        """Do now what the background thread does now and then, in this thread; for dictionaries without one.

        The urgent comes first: what was written becomes durable, access times are noted, what is beyond the bounds or
        over is removed, and once after opening, every entry is examined for damage. It goes in small steps, between
        which others read and write.

        Args:
            seconds: stop after so many, at the next step; what was begun goes on with the next call, and each call does
                some steps at least. None for all.
            check: examine the entries again.

        Returns whether nothing is left to do. Raises what goes wrong, CorruptEntryError if damage is found, and
        MaintenanceError if upkeep in the background failed since the last call.
        """
        store = self._writable()
        end = float("inf") if seconds is None else time.monotonic() + number("seconds", seconds, at_least=0)
        keeper = keeper_of(store)
        keeper.raise_error()
        if check and self._charge.checking.position is None:
            self._charge.checking = Pass()
        granted = iter(range(4))  # steps that are done in any case, so that every call brings it further
        proceed = lambda: next(granted, None) is not None or time.monotonic() < end  # noqa: E731
        return run_round(self._charge, keeper.tasks, proceed, alone=True)

    def flush(self) -> None:
        """Make durable what was written before, through whatever handle or process; and note the access times.

        Raises StoreError or DiskFullError if that fails: then it is all still there, and is tried again. Raises
        MaintenanceError if upkeep in the background failed since the last call. With mode="r" it does nothing.
        """
        store = self._opened()
        if self._mode == "r":
            return
        store.sync()
        keeper_of(store).raise_error(synced=True)
        store.flush_touched(store.clock())

    def stats(self, *, reset: bool = False) -> Stats:
        """How often this dictionary was read and written, how large it is, and how its upkeep goes; see `Stats`.

        Args:
            reset: also set what is counted to zero, in the same step: what other threads do meanwhile is in these
                numbers or in the next.

        Takes about as long as `len`. What failed in the background is told in `tasks`, not raised.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d["a"] = 1
        >>> d["a"], d.get("b")
        (1, None)
        >>> stats = d.stats(reset=True)
        >>> stats.hits, stats.misses, stats.sets, stats.entries
        (1, 1, 1, 1)
        >>> d.stats().hits
        0
        """
        store = self._opened()
        return self._tally.stats(store.count(self._span), store.sizes(), keeper_of(store).tasks.status(), reset=reset)

    def backup(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> int:
        """Make a copy on disk that holds everything as it is at one moment; reads and writes go on meanwhile.

        The copy is a store like this one: `PersistDict(path, ...)` opens it, with the same codec and key options. It
        is made beside `path` and moved there when it is whole and on the disk, so a backup is there or it is not. If
        it fails, by a full disk or Ctrl-C, nothing is left behind (a process that is killed may leave a folder
        `.persistdict-backup-*`, which can be removed).

        Do not copy the files of an open dictionary by other means (cp, shutil.copytree): such a copy is torn, and to
        read its lock files takes away the locks of the process that does it.

        Args:
            path: a folder that is new or empty, outside of this dictionary's; missing parents are made.

        Returns the size of the copy in bytes. Takes time and space in proportion to it. Space that is freed by writes
        meanwhile can be used again only when the copy is done.

        Raises TargetExistsError, DiskFullError, StoreError; CorruptEntryError if a write of the last moments is
        damaged; Unsupported for a dictionary in memory.
        """
        return self._opened().backup(os.fsdecode(path))

    def compact(self, *, timeout: float = 0.0) -> int:
        """Give the space that deleted and overwritten entries have left back to the file system.

        Without this the space is kept for new entries, and the file never shrinks. A compacted copy is made and takes
        the place of the data by one rename: whatever kills the process, or the power, leaves the old or the new, and
        nothing is lost. Reads and small writes go on meanwhile, also through other handles of this process; large
        writes, and whoever opens the dictionary, wait. The copy needs as much space as it will take.

        Args:
            timeout: seconds to wait until no other process has the dictionary open; 0 for not at all.

        Returns how many bytes smaller the data became. The file of recent writes, some megabytes, is left as it is.
        Mappings of lmdb-dict that this process has on the same folder must be opened anew.

        Raises BusyError, which names a process that has it open, DiskFullError, StoreError; then nothing was changed.
        Unsupported for a dictionary in memory, and on Windows (open a backup instead).
        """
        return self._writable().compact(number("timeout", timeout, at_least=0))

    def verify(
        self,
        *,
        repair: bool = False,
        pages: bool = False,
        resume: bytes = b"",
        progress: Callable[[int, int], object] | None = None,
    ) -> Report:
        """Examine every entry, and everything that leads to one, for damage; and mend it if asked.

        Without `repair` nothing is changed. The pass goes in small steps, and neither readers nor writers wait for it.
        With `repair`, what others can be made of (the index, deadlines) is made anew; what cannot be read is moved to
        the quarantine (see `quarantined`), with its bytes, and a warning is logged. Nothing is deleted. If pages of the
        file are damaged, nothing is written at all: `persistdict.salvage` makes a new store of what can be read.

        Args:
            repair: mend what is found.
            pages: afterwards also look at every page of the files, in a child process: about a second for 100 MB, in
                which nobody can write, nor this process open or close a dictionary.
            resume: the `position` of a report whose pass was stopped: go on there. Not with `repair`.
            progress: called after each step with the number of rows that were examined and how many there are; if it
                returns False, the pass stops, and the report's `position` tells where it can go on, in any process.

        Returns:
            What was found and done; `report.ok` if nothing is wrong any more.

        Raises CorruptStoreError if the recent writes, which override the rest, cannot be read.
        """
        store = self._writable() if repair else self._opened()
        report = store.verify(repair=repair, pages=pages, resume=resume, progress=progress)
        if report.quarantined:
            names = ", ".join(sorted({fault.name for fault in report.faults})[:20])
            self._log.warning(f"{report.quarantined} damaged rows were moved to the quarantine, concerning: {names}")
        if report.position is None:
            keeper_of(store).forget_damage()
        return report

    def quarantined(self) -> Iterator[Quarantined]:
        """What `verify(repair=True)` has moved out of the way because it could not be read, oldest first, as raw bytes.

        It takes no part in anything else, survives `clear`, and stays for good.
        """
        return self._opened().quarantined()
