"""PersistDict: a dictionary that lives in a store.

Order of locks: the dictionary's write lock, then the store's; the lock of the front is taken last and briefly. No lock
is held while code of the caller runs (codecs, serializers, iteration).

The hot paths `__getitem__`, `__setitem__` and `__contains__` are written out in one body each; the tests count their
Python frames. How a copy in the front is validated is said in front.py.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import timedelta
from functools import partial
from itertools import islice
from reprlib import Repr
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar, cast, overload

from persistdict.bounded import Usage
from persistdict.codecs import Codec, SafeCodec, names_agree
from persistdict.entry import Entry
from persistdict.errors import (
    ClosedError,
    CorruptEntryError,
    DamagedEntryWarning,
    MismatchError,
    ReadOnlyWarning,
)
from persistdict.front import Front
from persistdict.keys import MAX_KEY_SIZE
from persistdict.lifecycle import CLOSED, Unopened, close_store, finalizer_of, watch
from persistdict.log import Log
from persistdict.maintenance import keeper_of
from persistdict.options import Options, make_store, seconds
from persistdict.setviews import Items, Keys, Values
from persistdict.statistics import Tally
from persistdict.store import ABSENT, ANY, Item, Receipt, Record, Store, Transaction
from persistdict.tags import Tags, label_of
from persistdict.tasks import Charge
from persistdict.upkeep import Upkeep

__all__ = ["PersistDict"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
T = TypeVar("T")

IMMUTABLE = frozenset((str, bytes, int, float, bool, type(None)))
_MISSING: Any = object()
_STR = b"\x30"  # the type code of a str key, see keys.py
_SHOWN = 6  # entries in a repr
_OWN_ATTRIBUTES = frozenset(
    (
        "_options",
        "_keys",
        "_codec",
        "_exact",
        "_ttl",
        "_log",
        "_front",
        "_tally",
        "_fast_type",
        "_confirms",
        "_write_lock",
        "_bounds",
        "_charge",
        "_store",
        "_finalizer",
    )
)
_repr = Repr()
_repr.maxstring = _repr.maxother = 60


class PersistDict(Upkeep, Tags[K], MutableMapping[K, V], Generic[K, V]):
    """A dictionary on disk that any number of threads, handles and processes share.

    It has the whole interface of dict, in order of insertion, and survives the process. A write is atomic, and on the
    disk when it returns. A read never waits for a writer and never returns a stale or an expired value.

    Args:
        database_path: a folder, made with mode 0700 if missing; or "memory://" for a dictionary without a disk.
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
            earlier, and while it is at work the bound may be exceeded by 2 %. The file is larger, as its pages are
            never quite full.
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
        clock: tells the time in seconds since the epoch, UTC.

    Raises:
        UnsafePathError: if the folder is somebody else's, or a file in it is a link.
        OpenError: if the system refuses, or the folder lies on a network file system.
        NotAStoreError: if the folder holds another kind of database.
        MismatchError: if the store was made with another codec, key serializer or key_size_limit.
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

    _store: Store  # or what stands for it before opening and after closing

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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._configure(
            Options(
                database_path, expiration_days, key_serializer, key_unserializer, key_size_limit,
                value_serializer, value_unserializer, caching, verbose, background_thread, background_timeout, name,
                codec, allow_pickle, ttl, max_bytes, max_entries, eviction, durability, sync_interval, timeout,
                network_filesystem, clock,
            )
        )  # fmt: skip
        self._open()

    # Opening and closing

    def _configure(self, options: Options, codec: Codec | None = None) -> None:
        """Take over the options; the store is opened at the first use."""
        self._options = options = options.checked()
        self._keys = options.make_keys()
        self._codec = codec or options.make_codec()
        self._exact = type(self._codec) is SafeCodec  # what is read is what was written
        self._ttl = seconds(options.ttl)
        self._log = Log(options.label, options.verbose)
        self._front = Front(_cache(options.caching))
        self._tally = Tally(self._front.hits)
        self._fast_type = str if self._keys.plain else None  # keys of exactly this type are encoded in place
        self._confirms = options.durability == "commit"
        self._write_lock = threading.RLock()
        self._store = cast(Store, Unopened(self))
        self._bounds = options.make_bounds(self._store, self._log)
        self._finalizer: Any = None
        watch(self)

    def _open(self) -> None:
        with self._write_lock:
            if not isinstance(self._store, Unopened):
                return
            store = make_store(self._options)
            self._tally.follow(store.counts)
            try:
                self._check_names(store)
                if store.read_only:
                    self._warn_read_only(store)
                bounds = self._options.make_bounds(store, self._log)
                self._charge = charge = Charge(store, self._log, bounds)
                if self._options.background_thread is True:
                    keeper_of(store).add(charge, self._options.background_timeout)
                elif self._options.background_thread is False:
                    keeper_of(store).run_now(charge)
            except BaseException:
                store.close()
                raise
            self._finalizer = finalizer_of(self, store)
            self._store, self._bounds = store, bounds
        self._log.info(f"opened {store.place}")
        if store.damage:
            self._log.error(f"{store.place} is damaged ({store.damage}): it can be read, but nothing is written")

    def _warn_read_only(self, store: Store) -> None:
        text = f"{store.place} lies on a read-only medium: it can be read, and every write will raise ReadOnlyError"
        self._log.warning(text)
        warnings.warn(text, ReadOnlyWarning, stacklevel=4)

    def _opened(self) -> Store:
        """The store itself, opened if it was not yet."""
        if isinstance(self._store, Unopened):
            self._open()
        return self._store

    def _check_names(self, store: Store) -> None:
        """Keep the names of the codecs in the store, or compare: others would misread what is there."""
        asked = {"codec": self._codec.name, "keys": self._options.key_name()}

        def work(txn: Transaction) -> dict[str, str]:
            for name, text in asked.items():
                if txn.get_info(name) is None:
                    txn.set_info(name, text)
            return {name: txn.get_info(name) or "" for name in asked}

        stored = store.info()
        if not asked.keys() <= stored.keys():
            stored = store.update(work, whole=True)
        for name, text in asked.items():
            if not names_agree(stored[name], text):
                raise MismatchError(
                    f"{store.place} was written with {name} {stored[name]!r} and must be opened with it, not with "
                    f"{text!r}; nothing was changed"
                )

    def close(self) -> None:
        """Make durable what was written, and let go of the store. May be called again.

        Raises, after closing, StoreError or DiskFullError if the last writes are not durable yet: they are there, and
        become durable when the dictionary is opened again before the machine restarts. Raises MaintenanceError if
        upkeep in the background failed and nobody was told yet.
        """
        store, finalizer = self._store, self._finalizer
        if isinstance(store, Unopened):
            self._store = CLOSED
            return
        if finalizer is not None and finalizer.detach():
            keeper = keeper_of(store)
            try:
                close_store(store, self._log, wait=True)
            finally:
                self._front.clear()
                self._log.info("closed")
            keeper.raise_error()

    def __enter__(self) -> PersistDict[K, V]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path == "memory://":
            raise TypeError("a dictionary in memory without a name cannot be pickled; give it one: memory://name")
        options = self._options
        if not isinstance(options.caching, bool):
            options = options._replace(caching=True)  # cached values do not travel
        if options.codec == "safe" and self._exact:
            options = options._replace(codec=self._codec)  # with the types that were registered
        return _restore, (type(self), options), self._extras() or None

    def _extras(self) -> dict[str, Any]:
        """The attributes that a subclass has added."""
        return {name: value for name, value in vars(self).items() if name not in _OWN_ATTRIBUTES}

    # Reading

    def __getitem__(self, key: K) -> V:
        if type(key) is self._fast_type:
            kept_as: Any = key
            kb = None
        else:
            kept_as, kb, _ = self._locate(key)
        front, store = self._front, self._store
        mark = front.mark
        copy = front.lookup(kept_as)
        if copy is not None:
            value, tag, seq, stamp, until = copy
            try:
                valid = store.begin().id() == mark and stamp >= front.floor and (until is None or store.clock() < until)
                if valid:
                    front.promote(kept_as)
            except Exception:  # another thread has just dropped the copy, or the store is in trouble and will say so
                valid = False
            if valid:
                for _ in front.hits:  # next(front.hits), without the cost of a call
                    break
                store.touched[seq] = None if until is None else store.clock()
                return value if tag is None else self._codec.decode(tag, value)  # type: ignore[no-any-return]
        if kb is None:
            try:
                kb = _STR + kept_as.encode()
            except UnicodeEncodeError:
                kb = self._keys.encode(key)[0]
        found = store.read(kb)
        if found is None:
            next(self._tally.missed)
            raise KeyError(key)
        tag, blob, seq, until, stamp = found
        value = self._codec.decode(tag, blob)
        next(self._tally.found)
        if type(value) in IMMUTABLE:
            front.admit(kept_as, (value, None, seq, stamp, until), len(kb) + len(blob))
        else:
            front.admit(kept_as, (blob, tag, seq, stamp, until), len(kb) + len(blob))
        return value  # type: ignore[no-any-return]

    def _locate(self, key: object) -> tuple[Any, bytes, bytes]:
        """Under what the front keeps a key (equal for equal keys), its bytes and its hint."""
        kb, hint = self._keys.encode(key)
        if self._fast_type is not None and isinstance(key, str):
            return str.__str__(key), kb, hint
        return kb, kb, hint

    @overload
    def get(self, key: K, default: None = None, /) -> V | None: ...
    @overload
    def get(self, key: K, default: D, /) -> V | D: ...
    def get(self, key: K, default: Any = None, /) -> Any:
        """The value of `key`, or `default` if it is absent."""
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        """Whether the key is there; does not count as a read of the entry."""
        if type(key) is self._fast_type:
            try:
                return self._store.contains(_STR + key.encode())
            except UnicodeEncodeError:
                pass  # lone surrogates: the general way encodes them
        return self._store.contains(self._keys.encode(key)[0])

    def __len__(self) -> int:
        """The number of entries. With `expiration_days`, entries that are over count until upkeep removes them."""
        return self._store.count()

    def __bool__(self) -> bool:
        """Whether there is any entry that can be read and is not over."""
        return self._store.any()

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The entries of those keys that are there, from one snapshot, in the order asked; not through the cache.

        >>> d = PersistDict("memory://")
        >>> d.set_many({"a": 1, "b": 2})
        >>> d.get_many(["b", "x", "a"])
        {'b': 2, 'a': 1}
        """
        wanted = list(dict.fromkeys(keys)) if self._keys.plain else list(keys)
        records = self._store.get_many([self._keys.encode(key)[0] for key in wanted])
        found = {
            key: self._codec.decode(record.tag, record.blob)
            for key, record in zip(wanted, records, strict=True)
            if record is not None
        }
        missed = records.count(None)
        self._tally.found.add(len(records) - missed)
        self._tally.missed.add(missed)
        return found

    def entry(self, key: K) -> Entry:
        """The times, size, version and tag of an entry; does not count as a read. Raises KeyError."""
        record = self._store.get(self._keys.encode(key)[0])
        if record is None:
            raise KeyError(key)
        tag = record.label.decode() if record.label else None
        times = record.ctime, record.mtime, record.atime, record.expires_at
        return Entry(*times, len(record.blob), record.version, tag)

    # Iteration

    def __iter__(self) -> Iterator[K]:
        """The keys in order of insertion. The dictionary may be changed meanwhile, see `keys`."""
        return self._iter_keys(False)

    def __reversed__(self) -> Iterator[K]:
        """The keys, newest first."""
        return self._iter_keys(True)

    def keys(self) -> Keys[K]:
        """A live view of the keys, in order of insertion.

        An iteration yields each key once that stays while it runs; keys added meanwhile are not visited. It holds no
        lock and no snapshot, so it never blocks a writer and may be left unfinished.
        """
        return Keys(self)

    def items(self) -> Items[K, V]:
        """A live view of the (key, value) pairs; see `keys`.

        An entry that is damaged or cannot be decoded is passed over with a DamagedEntryWarning.
        """
        return Items(self)

    def values(self) -> Values[V]:
        """A live view of the values; see `items`."""
        return Values(self)

    def _iter_keys(self, reverse: bool, label: bytes = b"") -> Iterator[K]:
        store = self._store
        for record in store.labelled(label) if label else store.scan(reverse=reverse, values=False):
            try:
                key = self._keys.decode(record.kb, record.hint)
            except Exception as error:
                self._warn_passed_over(error)
                continue
            yield key

    def _iter_items(self, reverse: bool) -> Iterator[tuple[K, V]]:
        for record in self._store.scan(reverse=reverse):
            try:
                item = self._decoded(record)
            except Exception as error:
                self._warn_passed_over(error)
                continue
            yield item

    def _decoded(self, record: Item | Record) -> tuple[K, V]:
        key = self._keys.decode(record.kb, record.hint)
        return key, cast(V, self._codec.decode(record.tag, record.blob))

    def _warn_passed_over(self, error: Exception) -> None:
        message = f"an entry of {self._log.name} was passed over: {type(error).__name__}: {error}"
        warnings.warn(message, DamagedEntryWarning, stacklevel=4)

    # Writing

    def __setitem__(self, key: K, value: V, ttl: float | None = _MISSING, label: bytes = b"") -> None:
        if type(key) is self._fast_type:
            kept_as: Any = key
            try:
                kb, hint = _STR + key.encode(), b""  # type: ignore[attr-defined]
            except UnicodeEncodeError:
                kb, hint = self._keys.encode(key)
        else:
            kept_as, kb, hint = self._locate(key)
        tag, blob = self._codec.encode(value)
        front = self._front
        with self._write_lock:
            if self._bounds is not None:
                self._make_room([(kb, blob)])
            try:
                front.writing = True
                receipt = self._store.put(kb, hint, tag, blob, self._ttl if ttl is _MISSING else ttl, ANY, label)
                seq, _, until, commit = receipt  # type: ignore[misc] # only a condition gives None
                if self._exact and type(value) in IMMUTABLE:
                    front.wrote(commit, kept_as, (value, None, seq, commit, until), len(kb) + len(blob))
                else:
                    front.wrote(commit, kept_as, (blob, tag, seq, commit, until), len(kb) + len(blob))
            finally:
                front.writing = False
        if self._confirms:
            self._store.confirm(commit)
        next(self._tally.sets)

    def set(self, key: K, value: V, *, ttl: float | timedelta | None = _MISSING, tag: str | None = None) -> None:
        """Set an entry, as `d[key] = value` does, with a time to live and a tag of its own.

        Both belong to the write: if the key is set again without a tag, its entry has none any more.

        Args:
            key: the key.
            value: the value.
            ttl: seconds or timedelta after which the entry is absent; None for never; default that of the handle.
            tag: a text of 1 to 255 bytes in UTF-8, by which `tagged` lists and `evict` removes entries; None for none.
        """
        if ttl is _MISSING and tag is None:
            self[key] = value
        else:
            label = b"" if tag is None else label_of(tag)
            PersistDict.__setitem__(self, key, value, self._ttl if ttl is _MISSING else seconds(ttl), label)

    def touch(self, key: K, *, ttl: float | timedelta | None = _MISSING) -> bool:
        """Let the time of an entry begin anew. Returns whether it is there.

        Args:
            key: the key.
            ttl: seconds or timedelta from now on after which the entry is absent; None for never. By default the time
                to live of this handle begins anew; if it has none, the touch counts as a read, which matters to
                `expiration_days` and to eviction, and a time to live of the entry's own stays as it is.

        With a time to live it is a write, atomic and as durable as others: it costs as much as to set the value again,
        and `mtime` and `version` of the entry change.
        """
        lifetime = self._ttl if ttl is _MISSING else seconds(ttl)
        kept_as, kb, _ = self._locate(key)
        if lifetime is None and ttl is _MISSING:
            return self._store.contains(kb) and self._store.read(kb) is not None  # what is over is no miss

        def work(txn: Transaction) -> int:
            record = txn.get(kb)
            if record is None:
                return 0
            txn.put(kb, record.hint, record.tag, record.blob, ttl=lifetime, label=record.label)
            return txn.id()

        return self._write_many(work, [kept_as], 1)

    def __delitem__(self, key: K) -> None:
        kept_as, kb, _ = self._locate(key)
        if (
            self._write(lambda: self._store.delete(kb), lambda front, receipt: front.wrote(receipt.id, kept_as, None))
            is None
        ):
            raise KeyError(key)
        next(self._tally.deletes)

    @overload
    def pop(self, key: K, /) -> V: ...
    @overload
    def pop(self, key: K, default: V | D, /) -> V | D: ...
    def pop(self, key: K, default: Any = _MISSING, /) -> Any:
        """Remove an entry and return its value, atomically: of several callers one gets it.

        Raises KeyError if it is absent and no default is given. An entry that cannot be decoded stays.
        """
        kept_as, kb, _ = self._locate(key)
        while (record := self._store.get_many([kb])[0]) is not None:
            value = self._codec.decode(record.tag, record.blob)
            if self._delete_version(record, kept_as):
                next(self._tally.found)
                return value
        next(self._tally.missed)
        if default is _MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[K, V]:
        """Remove and return the entry that was inserted last, atomically. Raises KeyError if there is none."""
        while (record := self._store.last()) is not None:
            key, value = self._decoded(record)
            if self._delete_version(record, self._locate(key)[0]):
                return key, value
        raise KeyError("popitem(): dictionary is empty")

    def _delete_version(self, record: Record, kept_as: Any) -> bool:
        """Remove an entry if it is still as it was read."""
        receipt = self._write(
            lambda: self._store.delete(record.kb, record.version),
            lambda front, receipt: front.wrote(receipt.id, kept_as, None),
        )
        if receipt is None:
            return False
        next(self._tally.deletes)
        return True

    def setdefault(self, key: K, default: Any = None, /) -> Any:
        """The value of `key`; if it is absent, `default`, which is stored. Atomic: all callers get the same value."""
        with contextlib.suppress(KeyError):
            return self[key]
        kept_as, kb, hint = self._locate(key)
        tag, blob = self._codec.encode(default)
        while True:
            record = self._store.get(kb)
            if record is not None:
                return self._codec.decode(record.tag, record.blob)
            if self._write(
                lambda: self._put_absent(kb, hint, tag, blob),
                lambda front, receipt: front.wrote_many(receipt.id, [kept_as]),
            ):
                next(self._tally.sets)
                return default

    def _put_absent(self, kb: bytes, hint: bytes, tag: int, blob: bytes) -> Receipt | None:
        self._make_room([(kb, blob)])
        return self._store.put(kb, hint, tag, blob, self._ttl, ABSENT)

    def update(self, other: Any = (), /, **kwargs: V) -> None:
        """Set entries from a mapping, an iterable of pairs, or keywords, in one transaction: all or nothing.

        Batches beyond 1,048,576 entries are written in parts of that size. Everything is encoded before the first byte
        is written, so what cannot be stored changes nothing.
        """
        self._set_pairs(_pairs(other, kwargs), self._ttl)

    def set_many(
        self,
        items: Mapping[K, V] | Iterable[tuple[K, V]],
        *,
        ttl: float | timedelta | None = _MISSING,
        tag: str | None = None,
    ) -> None:
        """Set many entries in one transaction; see `update`. `ttl` and `tag` as for `set`, for all of them."""
        label = b"" if tag is None else label_of(tag)
        self._set_pairs(_pairs(items, {}), self._ttl if ttl is _MISSING else seconds(ttl), label)

    def _set_pairs(self, pairs: Iterable[tuple[Any, Any]], ttl: float | None, label: bytes = b"") -> None:
        encode = self._codec.encode
        encoded = [(*self._locate(key), *encode(value)) for key, value in pairs]
        size = self._store.max_batch
        for start in range(0, len(encoded), size):
            part = encoded[start : start + size]

            def work(txn: Transaction, part: list[Any] = part) -> int:
                for _, kb, hint, tag, blob in part:
                    txn.put(kb, hint, tag, blob, ttl=ttl, label=label)
                return txn.id()

            pairs = [(kb, blob) for _, kb, _, _, blob in part]
            weight = len(part) + (sum(len(blob) for *_, blob in part) >> 11)
            self._write_many(work, [kept_as for kept_as, *_ in part], weight, pairs)
            self._tally.sets.add(len(part))

    def _change(
        self,
        work: Callable[[Transaction], T],
        pairs: Sequence[tuple[bytes, bytes]],
        *,
        size: int = 1,
        whole: bool = False,
    ) -> T:
        if pairs:
            self._make_room(pairs)
        return self._store.update(work, size=size, whole=whole)

    def _make_room(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """See that there is room within the bounds for these keys and values; they are written before the lock is free.

        So threads that write at once do not take the same room.
        """
        if self._bounds is not None:
            self._bounds.make_room([len(kb) + len(blob) for kb, blob in pairs], partial(self._present, pairs))

    def _present(self, pairs: Sequence[tuple[bytes, bytes]]) -> Usage:
        """How many of these are overwrites, also of each other, and the bytes of what is there."""
        kbs = {kb for kb, _ in pairs}
        entries, size = len(pairs) - len(kbs), 0
        for kb in kbs:
            with contextlib.suppress(CorruptEntryError):  # the write will heal it
                record = self._store.get(kb)
                if record is not None:
                    entries, size = entries + 1, size + len(kb) + len(record.blob)
        return Usage(entries, size)

    def _write_many(
        self,
        work: Callable[[Transaction], int],
        kept_as: list[Any],
        size: int,
        pairs: Sequence[tuple[bytes, bytes]] = (),
    ) -> bool:
        """Run a transaction that changes the keys kept as these, and returns its id, or 0 if it changed nothing.

        There is room for the keys and values of `pairs` first.
        """
        done = self._write(
            lambda: self._change(work, pairs, size=size),
            lambda front, commit: front.wrote_many(commit, kept_as),
        )
        return bool(done)

    def delete_many(self, keys: Iterable[K]) -> int:
        """Remove those of the keys that are there, in one transaction. Returns how many there were."""
        located = [self._locate(key) for key in keys]
        counts = [0]

        def work(txn: Transaction) -> int:
            counts[0] = sum(txn.discard(kb) for _, kb, _ in located)
            return txn.id() if counts[0] else 0

        self._write_many(work, [kept_as for kept_as, *_ in located], len(located))
        self._tally.deletes.add(counts[0])
        return counts[0]

    def clear(self) -> None:
        """Remove all entries, readable or not, in one transaction."""
        removed = self._write(
            lambda: self._store.update(lambda txn: txn.clear(), whole=True), lambda front, _: front.clear()
        )
        self._tally.deletes.add(removed or 0)

    def __call__(self, other: Any = (), /, **kwargs: V) -> PersistDict[K, V]:
        """Initialise the dictionary, once per database, with arguments as for dict(); returns the dictionary itself.

        What is there already is kept; only the first call for a database, ever, in any process, writes (also if it was
        cleared since).

        >>> d = PersistDict("memory://")
        >>> d = d(a=1, b="string")
        >>> d = d(a=2)
        >>> dict(d)
        {'a': 1, 'b': 'string'}
        """
        encode, ttl = self._codec.encode, self._ttl
        encoded = [(*self._keys.encode(key), *encode(value)) for key, value in _pairs(other, kwargs)]

        def work(txn: Transaction) -> bool:
            if txn.get_info("initialised") is not None:
                return False
            txn.set_info("initialised", "yes")
            for kb, hint, tag, blob in encoded:
                txn.put(kb, hint, tag, blob, ttl=ttl)
            return True

        pairs = [(kb, blob) for kb, _, _, blob in encoded]
        if "initialised" not in self._store.info() and self._write(
            lambda: self._change(work, pairs, whole=True), lambda front, _: front.clear()
        ):
            self._tally.sets.add(len(encoded))
            self._log.info(f"initialised with {len(encoded)} entries")
        else:
            self._log.info("was initialised before; what is there is kept")
        return self

    def _write(self, change: Callable[[], T | None], account: Callable[[Front, T], None]) -> T | None:
        """Change the store, and if that did anything, account for it in the front.

        Not a context manager: its lines could be interrupted by a signal with the lock held.
        """
        front = self._front
        with self._write_lock:
            try:
                front.writing = True
                done = change()
                if done:
                    account(front, done)
            finally:
                front.writing = False
        if done and self._confirms:
            commit = done.id if isinstance(done, Receipt) else done
            self._store.confirm(commit if type(commit) is int else self._store.begin().id())
        return done

    # Like dict

    def __eq__(self, other: object) -> bool:
        """Equal to any mapping with equal entries, in any order."""
        if other is self:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        count = 0
        for key, value in self.items():
            theirs = other.get(key, _MISSING)
            if theirs is _MISSING or (theirs is not value and theirs != value):
                return False
            count += 1
        return count == len(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The first few entries, abbreviated."""
        label = f"{type(self).__name__}({self._options.path!r}"
        if isinstance(self._store, Unopened):
            return f"{label}, not open)"
        try:
            shown = [f"{_repr.repr(key)}: {_repr.repr(value)}" for key, value in islice(self.items(), _SHOWN)]
            more = len(self) - len(shown)
        except ClosedError:
            return f"{label}, closed)"
        if more > 0:
            shown.append(f"... {more} more")
        return f"{label}, {{{', '.join(shown)}}})"

    def copy(self) -> PersistDict[K, V]:
        """An independent dictionary in memory with the same entries and options."""
        return self._in_memory(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> PersistDict[K, V]:
        return self.copy()

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

    def __or__(self, other: Any) -> PersistDict[K, V]:
        """A dictionary in memory with the entries of both; those of `other` win."""
        if not isinstance(other, Mapping):
            return NotImplemented
        new = self.copy()
        new.update(other)
        return new

    def __ror__(self, other: Any) -> PersistDict[K, V]:
        if not isinstance(other, Mapping):
            return NotImplemented
        new = self._in_memory(other)
        new.update(self)
        return new

    def __ior__(self, other: Any) -> PersistDict[K, V]:
        self.update(other)
        return self

    def _in_memory(self, other: Mapping[Any, Any]) -> PersistDict[K, V]:
        """A dictionary in memory with this one's options and the entries of `other`."""
        new = type(self).__new__(type(self))
        options = self._options._replace(
            database_path="memory://", background_thread="disabled", caching=bool(self._options.caching is not False)
        )
        new._configure(options, self._codec)
        new.__dict__.update(self._extras())
        new._set_pairs(_pairs(other, {}), self._ttl)
        new._tally.reset()
        return new

    @property
    def path(self) -> str:
        """The folder or URL."""
        return self._options.path

    @property
    def name(self) -> str:
        """What messages call this dictionary."""
        return self._log.name

    @property
    def codec(self) -> Any:
        """The codec; for `d.codec.register(cls, encode, decode)`."""
        return self._codec

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._store is CLOSED or (self._finalizer is not None and not self._finalizer.alive)


def _cache(caching: bool | MutableMapping[Any, Any]) -> MutableMapping[Any, Any] | str | None:
    """What the option `caching` asks of the front."""
    if isinstance(caching, bool):
        return "lru" if caching else None
    return caching


def _pairs(other: Any, kwargs: Mapping[str, Any]) -> Iterable[tuple[Any, Any]]:
    """The entries that dict(other, **kwargs) would take, in its order, by its rules."""
    if isinstance(other, Mapping):
        yield from other.items()
    elif hasattr(other, "keys"):
        for key in other.keys():  # noqa: SIM118 - dict asks for keys(), whatever __iter__ does
            yield key, other[key]
    else:
        for number, pair in enumerate(other):
            parts = tuple(pair)
            if len(parts) != 2:
                raise ValueError(f"update element #{number} has length {len(parts)}; 2 is required")
            yield parts
    yield from kwargs.items()


def _restore(cls: type[PersistDict[Any, Any]], options: Options) -> PersistDict[Any, Any]:
    new = cls.__new__(cls)
    new._configure(options)
    return new
