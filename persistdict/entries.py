"""The entries of a dictionary, or of a part of one: reading and writing them one by one.

Order of locks: the dictionary's write lock, then the store's; the lock of the front is taken last and briefly. No lock
is held while code of the caller runs (codecs, serializers, iteration).

The hot paths `__getitem__`, `__setitem__`, `__delitem__` and `__contains__` are written out in one body each; the tests
count their Python frames. How a copy in the front is validated is said in front.py.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any, TypeVar, overload

from persistdict.conditions import Conditions, condition_of
from persistdict.core import MISSING
from persistdict.dictlike import DictLike
from persistdict.entry import Entry
from persistdict.keys import TEXT
from persistdict.memoize import Memoizing
from persistdict.options import seconds
from persistdict.ordered import Ordered
from persistdict.store import ABSENT, ANY, Transaction, When
from persistdict.tags import Tags, label_of, tag_of

__all__ = ["Entries"]

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

IMMUTABLE = frozenset((str, bytes, int, float, bool, type(None)))


class Entries(Tags[K, V], Ordered[K, V], Conditions[K, V], Memoizing[K, V], DictLike[K, V]):
    """What a dictionary and a view of it are alike in: everything but the store itself."""

    # Reading

    def __getitem__(self, key: K) -> V:
        if type(key) is self._fast_type:
            kept_as: Any = key
            kb = None
        else:
            kept_as, kb, _ = self._locate(key)
        front, store = self._front, self._store
        mark, lookup = front.mark, front.lookup  # what an instance has is called faster by a name of its own
        copy = lookup(kept_as)
        if copy is not None:
            value, tag, seq, stamp, until = copy
            try:
                valid = (
                    (store.latest[0] == mark or store.begin().id() == mark)
                    and stamp >= front.floor
                    and (until is None or store.clock() < until)
                )
                if valid:
                    promote = front.promote
                    promote(kept_as)
            except Exception:  # another thread has just dropped the copy, or the store is in trouble and will say so
                valid = False
            if valid:
                for _ in front.hits:  # next(front.hits), without the cost of a call
                    break
                store.touched[seq] = None if until is None else store.clock()
                return value if tag is None else self._codec.decode(tag, value)  # type: ignore[no-any-return]
        if kb is None:
            try:
                kb = TEXT + kept_as.encode()
            except UnicodeEncodeError:
                kb = self._keys.encode(key)[0]
        found = store.read(kb)
        if found is None:
            next(self._tally.missed)
            raise KeyError(key)
        tag, blob, seq, until, stamp = found
        value = self._codec.decode(tag, blob)
        next(self._tally.found)
        if copy is not None or next(front.chances) or stamp != front.mark:
            kept = (value, None) if type(value) in IMMUTABLE else (blob, tag)
            front.admit(kept_as, (*kept, seq, stamp, until), len(kb) + len(blob))
        return value  # type: ignore[no-any-return]

    @overload
    def get(self, key: K, default: None = None, /) -> V | None: ...
    @overload
    def get(self, key: K, default: D, /) -> V | D: ...
    def get(self, key: K, default: Any = None, /) -> Any:
        """The value of `key`, or `default` if it is absent.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.get("a"), d.get("a", 0)
        (None, 0)
        """
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        """Whether the key is there; does not count as a read of the entry."""
        if type(key) is self._fast_type:
            try:
                return self._store.contains(TEXT + key.encode())
            except UnicodeEncodeError:
                pass  # lone surrogates: the general way encodes them
        return self._store.contains(self._keys.encode(key)[0])

    def __len__(self) -> int:
        """The number of entries. With `expiration_days`, entries that are over count until upkeep removes them."""
        return self._store.count(self._span)

    def __bool__(self) -> bool:
        """Whether there is any entry that can be read and is not over."""
        return self._store.any(self._span)

    def entry(self, key: K) -> Entry:
        """The times, size, version and tag of an entry; does not count as a read. Raises KeyError.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.set("a", b"12345", tag="news")
        >>> entry = d.entry("a")
        >>> entry.size, entry.tag, entry.expires_at, entry.ctime == entry.mtime
        (5, 'news', None, True)
        """
        record = self._store.get(self._keys.encode(key)[0])
        if record is None:
            raise KeyError(key)
        tag = tag_of(record.label) if record.label else None
        times = record.ctime, record.mtime, record.atime, record.expires_at
        return Entry(*times, len(record.blob), record.version, tag)

    # Writing

    def __setitem__(self, key: K, value: V, ttl: float | None = MISSING, label: bytes = b"") -> None:
        if type(key) is self._fast_type:
            kept_as: Any = key
            try:
                kb, hint = TEXT + key.encode(), b""  # type: ignore[attr-defined]
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
                receipt = self._store.put(kb, hint, tag, blob, self._ttl if ttl is MISSING else ttl, ANY, label)
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

    def set(self, key: K, value: V, *, ttl: float | timedelta | None = MISSING, tag: str | None = None) -> None:
        """Set an entry, as `d[key] = value` does, with a time to live and a tag of its own.

        Both belong to the write: if the key is set again without a tag, its entry has none any more.

        Args:
            key: the key.
            value: the value.
            ttl: seconds or timedelta after which the entry is absent; None for never; default that of the handle.
            tag: a text of 1 to 255 bytes in UTF-8, by which `tagged` lists and `evict` removes entries; None for none.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.set("token", "secret", ttl=60, tag="session")
        >>> d["token"], d.tags()
        ('secret', ['session'])
        """
        if ttl is MISSING and tag is None:
            self[key] = value
        else:
            label = b"" if tag is None else label_of(tag)
            Entries.__setitem__(self, key, value, self._ttl if ttl is MISSING else seconds(ttl), label)

    def touch(self, key: K, *, ttl: float | timedelta | None = MISSING) -> bool:
        """Let the time of an entry begin anew. Returns whether it is there.

        Args:
            key: the key.
            ttl: seconds or timedelta from now on after which the entry is absent; None for never. By default the time
                to live of this handle begins anew; if it has none, the touch counts as a read, which matters to
                `expiration_days` and to eviction, and a time to live of the entry's own stays as it is.

        With a time to live it is a write, atomic and as durable as others: it costs as much as to set the value again,
        and `mtime` and `version` of the entry change.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.set("a", 1, ttl=1)
        >>> d.touch("a", ttl=3600), d.touch("b")
        (True, False)
        """
        lifetime = self._ttl if ttl is MISSING else seconds(ttl)
        kept_as, kb, _ = self._locate(key)
        if lifetime is None and ttl is MISSING:
            return self._store.contains(kb) and self._store.read(kb) is not None  # what is over is no miss

        def work(txn: Transaction) -> int:
            record = txn.get(kb)
            if record is None:
                return 0
            txn.put(kb, record.hint, record.tag, record.blob, ttl=lifetime, label=record.label)
            return txn.id()

        return self._write_many(work, [kept_as], 1)

    def __delitem__(self, key: K) -> None:
        if type(key) is self._fast_type and key.isascii():  # type: ignore[attr-defined]
            kept_as, kb = key, TEXT + key.encode()  # type: ignore[attr-defined]
        else:
            kept_as, kb, _ = self._locate(key)
        front = self._front
        with self._write_lock:
            try:
                front.writing = True
                receipt = self._store.delete(kb)
                if receipt is None:
                    raise KeyError(key)
                commit = receipt.id
                front.wrote(commit, kept_as, None)
            finally:
                front.writing = False
        if self._confirms:
            self._store.confirm(commit)
        next(self._tally.deletes)

    @overload
    def pop(self, key: K, /, *, if_version: int | When = ...) -> V: ...
    @overload
    def pop(self, key: K, default: V | D, /, *, if_version: int | When = ...) -> V | D: ...
    def pop(self, key: K, default: Any = MISSING, /, *, if_version: int | When = ANY) -> Any:
        """Remove an entry and return its value, atomically: of several callers one gets it.

        Raises KeyError if it is absent and no default is given. An entry that cannot be decoded stays.

        Args:
            if_version: the version that the entry must have, see `get_versioned`; one with another counts as absent.
                ANY for no condition.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d["a"] = 1
        >>> d.pop("a"), d.pop("a", "none")
        (1, 'none')
        """
        kept_as, kb, _ = self._locate(key)
        version = condition_of(if_version)
        while (record := self._store.get_many([kb])[0]) is not None and version in (ANY, record.version):
            value = self._codec.decode(record.tag, record.blob)
            if self._delete_version(record, kept_as):
                next(self._tally.found)
                return value
        next(self._tally.missed)
        if default is MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[K, V]:
        """Remove and return the entry that was inserted last, atomically. Raises KeyError if there is none.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.update(a=1, b=2)
        >>> d.popitem()
        ('b', 2)
        """
        while (record := self._store.last(span=self._span)) is not None:
            key, value = self._decoded(record)
            if self._delete_version(record, self._locate(key)[0]):
                return key, value
        raise KeyError("popitem(): dictionary is empty")

    def setdefault(self, key: K, default: Any = None, /) -> Any:
        """The value of `key`; if it is absent, `default`, which is stored. Atomic: all callers get the same value.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.setdefault("a", 1), d.setdefault("a", 2)
        (1, 1)
        """
        with contextlib.suppress(KeyError):
            return self[key]
        kept_as, kb, hint = self._locate(key)
        tag, blob = self._codec.encode(default)
        while True:
            record = self._store.get(kb)
            if record is not None:
                return self._codec.decode(record.tag, record.blob)
            if self._write(
                lambda: self._put(kb, hint, tag, blob, self._ttl, ABSENT),
                lambda front, receipt: front.wrote_many(receipt.id, [kept_as]),
            ):
                next(self._tally.sets)
                return default
