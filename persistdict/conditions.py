"""Writes under a condition: what one caller decides about an entry holds for all threads, handles and processes.

Every entry has a version, an int that each write of it raises and no two writes share. A write that names the version
that was read changes nothing if somebody else has written meanwhile.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

from persistdict.core import MISSING, Core
from persistdict.options import seconds
from persistdict.store import ABSENT, KEPT, Condition, Receipt, When
from persistdict.tags import label_of

__all__ = ["DELETE", "KEEP", "Conditions", "Versioned", "condition_of"]

K = TypeVar("K")
V = TypeVar("V")


class Versioned(NamedTuple):
    """A value and the version of its entry; ABSENT in place of the version if there is no entry."""

    value: Any
    version: int | When


class _Verdict:
    """What the function of `transform` may return in place of a value. It is never one: it cannot be stored."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> Any:
        raise TypeError(f"{self._name} means something as what the function of `transform` returns, and nowhere else")


KEEP = _Verdict("KEEP")
DELETE = _Verdict("DELETE")


class Conditions(Core[K, V]):
    """The part of a dictionary that writes under a condition. Every method is atomic and as durable as other writes."""

    def get_versioned(self, key: K, default: Any = None) -> Versioned:
        """The value of an entry and its version, of one moment; `default` and ABSENT if there is none.

        The version is for `replace` and `pop`. Counts as a read; not through the cache.

        >>> from persistdict import ABSENT, PersistDict
        >>> d = PersistDict("memory://")
        >>> d.get_versioned("a") == (None, ABSENT)
        True
        >>> value, version = d.get_versioned("a")
        >>> first = d.replace("a", 1, if_version=version)
        >>> d.get_versioned("a") == (1, first)
        True
        """
        record = self._store.get_many([self._locate(key)[1]])[0]
        if record is None:
            next(self._tally.missed)
            return Versioned(default, ABSENT)
        value = self._codec.decode(record.tag, record.blob)
        next(self._tally.found)
        return Versioned(value, record.version)

    def add(self, key: K, value: V, *, ttl: float | timedelta | None = MISSING, tag: str | None = None) -> bool:
        """Set an entry if there is none. Returns whether there was none: of several callers one is told so.

        Args: as for `set`.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.add("a", 1), d.add("a", 2), d["a"]
        (True, False, 1)
        """
        return self._put_if(*self._prepared(key, value, ttl, tag), ABSENT) is not None

    def replace(
        self,
        key: K,
        value: V,
        *,
        if_version: int | When = MISSING,
        ttl: float | timedelta | None = MISSING,
        tag: str | None = None,
    ) -> int | None:
        """Set an entry if it is as it should be. Returns its new version, or None if it is not and nothing was changed.

        Args:
            key: the key.
            value: the new value.
            if_version: the version that the entry must have, see `get_versioned`; ABSENT if there must be none, ANY for
                no condition; by default there must be one.
            ttl, tag: as for `set`.

        Raises TypeError for what is no version.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d["a"] = 1
        >>> value, version = d.get_versioned("a")
        >>> d["a"] = 2
        >>> d.replace("a", value + 1, if_version=version) is None, d["a"]
        (True, 2)
        """
        prepared = self._prepared(key, value, ttl, tag)
        if if_version is not MISSING:
            receipt = self._put_if(*prepared, condition_of(if_version))
            return None if receipt is None else receipt.version
        (_, kb, _), *_ = prepared
        while (record := self._store.get(kb)) is not None:
            receipt = self._put_if(*prepared, record.version)
            if receipt is not None:
                return receipt.version
        return None

    def transform(
        self,
        key: K,
        fn: Callable[[Any], Any],
        *,
        ttl: float | timedelta | None = MISSING,
        tag: str | None = MISSING,
    ) -> Any:
        """Set an entry to what a function makes of its value, and return that.

        The function is called without any lock, and again if somebody else has written the entry meanwhile, with the
        newer value; so it should do nothing else. What it raises is raised, and nothing is changed.

        Args:
            key: the key.
            fn: is given the value, or ABSENT if there is none; returns the new value, or KEEP to change nothing, or
                DELETE to remove the entry. It may change the value that it is given and return it.
            ttl: as for `set`; by default the entry ends when it would have, or if it is new, as others that are set.
            tag: as for `set`; by default the entry keeps the one that it has.

        Returns the value that the entry has now, or ABSENT if there is none.

        >>> from persistdict import ABSENT, DELETE, PersistDict
        >>> d = PersistDict("memory://")
        >>> def append(seen):
        ...     return [*([] if seen is ABSENT else seen), "more"]
        >>> d.transform("a", append), d.transform("a", append)
        (['more'], ['more', 'more'])
        >>> d.transform("a", lambda seen: DELETE), "a" in d
        (ABSENT, False)
        """
        return self._transform(key, fn, ttl, tag)

    def _transform(self, key: K, fn: Callable[[Any], Any], ttl: Any, tag: Any) -> Any:
        located = self._locate(key)
        lifetime: Any = MISSING if ttl is MISSING else seconds(ttl)
        label = b"" if tag is None or tag is MISSING else label_of(tag)
        while True:
            record = self._store.get(located[1])
            before = ABSENT if record is None else self._codec.decode(record.tag, record.blob)
            after = fn(before)
            if after is KEEP:
                return before
            if after is DELETE:
                if record is None or self._delete_version(record, located[0]):
                    return ABSENT
                continue
            rest: tuple[float | None, bytes, Condition]
            if record is None:
                rest = self._ttl if lifetime is MISSING else lifetime, label, ABSENT
            else:
                kept = record.label if tag is MISSING else label
                rest = KEPT if lifetime is MISSING else lifetime, kept, record.version
            if self._put_if(located, self._codec.encode(after), *rest) is not None:
                return after

    def incr(
        self,
        key: K,
        delta: Any = 1,
        *,
        default: Any = 0,
        ttl: float | timedelta | None = MISSING,
        tag: str | None = MISSING,
    ) -> Any:
        """Add to a number, and return the sum; an entry that is absent counts as `default`.

        Args:
            key: the key.
            delta: what is added.
            default: what is added to if there is no entry.
            ttl, tag: as for `transform`: so a counter keeps the time at which it ends.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.incr("visits"), d.incr("visits", 10)
        (1, 11)
        """
        return self._transform(key, lambda value: (default if value is ABSENT else value) + delta, ttl, tag)

    def _prepared(
        self, key: K, value: V, ttl: Any, tag: str | None
    ) -> tuple[tuple[Any, bytes, bytes], tuple[int, bytes], float | None, bytes]:
        """What `_put_if` takes."""
        label = b"" if tag is None else label_of(tag)
        return self._locate(key), self._codec.encode(value), self._ttl if ttl is MISSING else seconds(ttl), label

    def _put_if(
        self,
        located: tuple[Any, bytes, bytes],
        encoded: tuple[int, bytes],
        ttl: float | None,
        label: bytes,
        when: Condition,
    ) -> Receipt | None:
        """Set an entry under a condition. None if it does not hold."""
        kept_as, kb, hint = located
        receipt = self._write(
            lambda: self._put(kb, hint, *encoded, ttl, when, label),
            lambda front, receipt: front.wrote_many(receipt.id, [kept_as]),
        )
        if receipt is not None:
            next(self._tally.sets)
        return receipt


def condition_of(if_version: Any) -> Condition:
    """The condition that a version stands for. Raises TypeError for what is none."""
    if isinstance(if_version, When) or type(if_version) is int:
        return if_version
    raise TypeError(f"if_version must be a version, ABSENT or ANY, not {type(if_version).__qualname__}")
