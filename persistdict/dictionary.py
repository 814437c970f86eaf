"""PersistDict: a dictionary that lives in a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from datetime import timedelta
from typing import Any, Literal, TypeVar

from persistdict.codecs import Codec
from persistdict.keys import MAX_KEY_SIZE
from persistdict.options import Options
from persistdict.sealing import Sealing
from persistdict.transactions import Transactions

__all__ = ["PersistDict"]

K = TypeVar("K")
V = TypeVar("V")


class PersistDict(Sealing[K, V], Transactions[K, V]):
    """A dictionary on disk that any number of threads, handles and processes share.

    It has the whole interface of dict, in order of insertion, and survives the process. A write is atomic, and on the
    disk when it returns. A read never waits for a writer and never returns a stale or an expired value.

    Args:
        database_path: a folder, made if missing, for you alone; or "memory://" for a dictionary without a disk.
        expiration_days: entries that were neither read nor written for so many days are absent, and removed in the
            background; 0 for never.
        key_serializer: turns any key into str or bytes; without it keys are str, bytes, int, float, bool, None and
            tuples of these.
        key_unserializer: the inverse; is given bytes.
        key_size_limit: encoded keys of so many bytes and more are found by a digest (1-511). Every key works with
            every limit; a small one saves space in the index and costs comparisons.
        value_serializer: turns any value into str or bytes; replaces the codec.
        value_unserializer: the inverse; is given bytes.
        caching: True for a cache of the 128 values used last, False for none, or a cachetools cache. Cached values are
            never stale, and mutable ones are decoded anew for every caller. What is put into a cachetools cache (and
            given to its getsizeof) is a tuple whose first item is the value, or its bytes if it is mutable.
        verbose: log what is done, not only warnings and errors.
        background_thread: True for upkeep in the background; False for one round of it now and none later; "disabled"
            for none at all (expired entries are absent all the same).
        background_timeout: seconds between rounds of upkeep.
        name: what messages call this dictionary; default the name of the folder.
        codec: "safe" (default; runs no code of the file), "json", "raw", "pickle", or an object with dumps and loads.
        allow_pickle: must be True for codec="pickle".
        ttl: seconds or timedelta after which an entry is absent that was written through this handle, read or not.
        max_bytes: how many bytes the entries may take with their keys and times; at least 65,536; None for no bound.
            Before a write goes beyond it, entries are removed until there is 5 % of room. A background thread begins
            earlier, and while it is at work the bound may be exceeded by 2 %. What is beyond a bound already when the
            store is opened is removed by the thread, or without one by the first write. The file is larger, as its
            pages are never quite full.
        max_entries: how many entries there may be; None for no bound. As for `max_bytes`. Each handle keeps its own
            bounds; several processes that write at once may exceed one for a moment.
        eviction: which entries go first: "lru", those that were neither read nor written for the longest time; "lfu",
            those that were read least often; "fifo", those that were inserted first; "none", nothing: writes that
            have no room raise FullError.
        durability: "interval": a write that returned survives the death of any process; a power cut or a crash of the
            system loses at most the writes of the last `sync_interval`, never more, and never damages anything.
            "commit": a write is on the disk when it returns, and survives both. If it cannot be brought there it is
            undone and the error is raised; other threads may have seen it meanwhile.
        sync_interval: seconds.
        timeout: seconds that opening and a write wait for other processes before they raise BusyError, which names the
            one that is in the way; 0 for not at all. Making durable what was written (`flush`, `close`, upkeep) waits
            for 60 seconds, whatever this says. A dictionary in memory has nobody to wait for.
        network_filesystem: "refuse" or "allow" a folder on NFS, SMB, sshfs and the like (told on Linux only). The
            processes that use a dictionary share memory, and must run on one machine.
        mode: "rw"; "r": nothing is written or made through this handle, and upkeep is left to others. "append", for a
            new dictionary: entries are only ever added, and neither changed nor removed, by whatever handle;
            "write_once": likewise, and to set an entry again to an equal value does nothing. These two are kept in
            the store, and hold for handles that do not ask for them.
        compression: "zstd", "lz4" or "zlib" for a new dictionary, or `Zstd()`, `Lz4()` or `Zlib()` with options; the
            first two need a package: pip install persistdict[zstd], persistdict[lz4]. Every value of 32 bytes and more
            that becomes smaller is stored compressed; others as they are. It never becomes larger than it was.
        encryption_key: 32 bytes, for a new dictionary of which nothing can be read without them: keys, values, tags
            and names are encrypted (AES-256-GCM; names by AES-SIV), and what is changed or moved is noticed
            (TamperedError). Needs a package: pip install persistdict[crypto]. Or a mapping of numbers to keys, for keys
            that change: the one with the highest number is used for writing, see `reseal`. Or a function that returns
            any of these. The key is never stored, and not pickled with the handle (a function is). Keys then have no
            order on the disk: `range` sorts them first, and there are no priority queues. What shows: how many entries
            there are, how large, which of them are in one space or queue or have one tag, and when they were written
            and read. What is not noticed: that an entry was taken away, or is again what it was earlier, or has other
            times or another one's tag.
        signing_key: likewise, for a dictionary that everybody can read, and in which nobody can change a key or a value
            unnoticed (HMAC-SHA-256). Tags are not signed.
        clock: tells the time in seconds since the epoch, UTC.
        permissions: those of a new folder, whatever the umask; its files have them without the rights to execute. 0o700
            is for you alone. 0o770 shares the dictionary with the group of the folder, which is that of the folder
            above if you are in it: each member opens it with 0o770, and is trusted with the content. Also 0o750, 0o755
            and 0o775, for those who copy the files.

    Raises:
        UnsafePathError: if the folder is somebody else's or others can write to it, or a file in it is a link.
        OpenError: if the system refuses, or the folder lies on a network file system.
        NotAStoreError: if the folder holds another kind of database.
        MismatchError: if the store was made with another codec, compression, key serializer, key_size_limit or mode.
        WrongKeyError: if it is sealed with a key that was not given.
        MissingPackageError: if an option needs a package that is not installed.
        BusyError: if another process was in the way for longer than `timeout`.
        ValueError, TypeError: for impossible options.

    On a medium that cannot be written to, it is opened for reading, with a ReadOnlyWarning; writes raise ReadOnlyError.

    Threads: any number may use one handle. Processes: any number may open the same folder; a handle that is inherited
    by fork works in the child, and one that is pickled opens the folder anew where it is used first.

    >>> d = PersistDict("memory://")
    >>> d["answer"] = 42
    >>> d["answer"], len(d), list(d)
    (42, 1, ['answer'])
    """

    def __init__(
        self,
        database_path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        expiration_days: float = 0,
        key_serializer: Callable[[Any], str | bytes] | None = None,
        key_unserializer: Callable[[bytes], Any] | None = None,
        key_size_limit: int = MAX_KEY_SIZE,
        value_serializer: Callable[[Any], str | bytes] | None = None,
        value_unserializer: Callable[[bytes], Any] | None = None,
        caching: bool | MutableMapping[Any, Any] = True,
        verbose: bool = False,
        background_thread: bool | Literal["disabled"] = True,
        background_timeout: float = 30,
        name: str | None = None,
        *,
        codec: str | Codec | Any = "safe",
        allow_pickle: bool = False,
        ttl: float | timedelta | None = None,
        max_bytes: int | None = None,
        max_entries: int | None = None,
        eviction: str = "lru",
        durability: str = "interval",
        sync_interval: float = 1.0,
        timeout: float = 60.0,
        network_filesystem: str = "refuse",
        mode: str = "rw",
        compression: str | Any | None = None,
        encryption_key: bytes | Mapping[int, bytes] | Callable[[], Any] | None = None,
        signing_key: bytes | Mapping[int, bytes] | Callable[[], Any] | None = None,
        clock: Callable[[], float] = time.time,
        permissions: int = 0o700,
    ) -> None:
        self._configure(
            Options(
                database_path, expiration_days, key_serializer, key_unserializer, key_size_limit,
                value_serializer, value_unserializer, caching, verbose, background_thread, background_timeout, name,
                codec, allow_pickle, ttl, max_bytes, max_entries, eviction, durability, sync_interval, timeout,
                network_filesystem, mode, compression, encryption_key, signing_key, clock, permissions,
            )
        )  # fmt: skip
        self._open()

    @classmethod
    def fromkeys(cls, iterable: Iterable[Any], value: Any = None, /, *args: Any, **options: Any) -> Any:
        """A dictionary opened with `args` and `options`, as the constructor takes them, with the keys set to `value`.

        >>> PersistDict.fromkeys("ab", 0, "memory://") == {"a": 0, "b": 0}
        True
        """
        new = cls(*args, **options)
        if cls.__setitem__ is PersistDict.__setitem__ and isinstance(new, PersistDict):
            new.set_many((key, value) for key in iterable)
        else:
            for key in iterable:
                new[key] = value
        return new
