"""Reading, setting and deleting many entries at once, each in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from persistdict.core import MISSING, Core
from persistdict.keys import TEXT, crop
from persistdict.options import seconds
from persistdict.spans import INITIALISED
from persistdict.store import Transaction
from persistdict.tags import label_of

__all__ = ["Many"]

K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S", bound="Many[Any, Any]")

LONG = 216  # bytes
Encoded = tuple[bytes, bytes, int, bytes]  # key, hint, tag, blob


class Many(Core[K, V]):
    """The part of a dictionary that deals with many entries at once."""

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The entries of those keys that are there, from one snapshot, in the order asked; not through the cache.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.set_many({"a": 1, "b": 2})
        >>> d.get_many(["b", "x", "a"])
        {'b': 2, 'a': 1}
        """
        wanted: list[Any] = list(dict.fromkeys(keys)) if self._keys.plain else list(keys)
        encode, fast, decode = self._keys.encode, self._fast_type, self._codec.decode
        kbs = [TEXT + key.encode() if type(key) is fast and key.isascii() else encode(key)[0] for key in wanted]
        answers = self._store.read_many(kbs)
        values = {
            key: decode(found[0], found[1]) for key, found in zip(wanted, answers, strict=True) if found is not None
        }
        missed = answers.count(None)
        self._tally.found.add(len(answers) - missed)
        self._tally.missed.add(missed)
        return values

    def update(self, other: Any = (), /, **kwargs: V) -> None:
        """Set entries from a mapping, an iterable of pairs, or keywords, in one transaction: all or nothing.

        Batches beyond 1,048,576 entries are written in parts of that size. Everything is encoded before the first byte
        is written, so what cannot be stored changes nothing.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.update({"a": 1}, b=2)
        >>> dict(d)
        {'a': 1, 'b': 2}
        """
        self._set_pairs(_pairs(other, kwargs), self._ttl)

    def set_many(
        self,
        items: Mapping[K, V] | Iterable[tuple[K, V]],
        *,
        ttl: float | timedelta | None = MISSING,
        tag: str | None = None,
    ) -> None:
        """Set many entries in one transaction; see `update`. `ttl` and `tag` as for `set`, for all of them.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.set_many({"a": 1, "b": 2}, tag="news")
        >>> list(d.tagged("news"))
        ['a', 'b']
        """
        label = b"" if tag is None else label_of(tag)
        self._set_pairs(_pairs(items, {}), self._ttl if ttl is MISSING else seconds(ttl), label)

    def _set_pairs(self, pairs: Iterable[tuple[Any, Any]], ttl: float | None, label: bytes = b"") -> None:
        kept, rows = self._encoded(pairs)
        size = self._store.max_batch
        for start in range(0, len(rows), size):
            part = rows[start : start + size]

            def work(txn: Transaction, part: list[Encoded] = part) -> int:
                txn.put_many(part, ttl=ttl, label=label)
                return txn.id()

            written = [(row[0], row[3]) for row in part] if self._bounds is not None else []
            weight = len(part) + (sum(len(row[3]) for row in part) >> 11)
            self._write_many(work, kept[start : start + size], weight, written)
            self._tally.sets.add(len(part))

    def _encoded(self, pairs: Iterable[tuple[Any, Any]]) -> tuple[list[Any], list[Encoded]]:
        """Under what the front keeps the keys; and keys, hints, tags and blobs."""
        encode, fast, kept, rows = self._codec.encode, self._fast_type, [], []
        for key, value in pairs:
            if type(key) is fast and key.isascii():
                kept_as, kb, hint = key, TEXT + key.encode(), b""
            else:
                kept_as, kb, hint = self._locate(key)
            kept.append(kept_as)
            rows.append((kb, hint, *encode(value)))
        return kept, rows

    def delete_many(self, keys: Iterable[K]) -> int:
        """Remove those of the keys that are there, in one transaction. Returns how many there were.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.update(a=1, b=2)
        >>> d.delete_many(["a", "x"]), dict(d)
        (1, {'b': 2})
        """
        located = [self._locate(key) for key in keys]
        counts = [0]

        def work(txn: Transaction) -> int:
            counts[0] = sum(txn.discard(kb) for _, kb, _ in located)
            return txn.id()

        self._write_many(work, [kept_as for kept_as, *_ in located], len(located))
        self._tally.deletes.add(counts[0])
        return counts[0]

    def clear(self) -> None:
        """Remove all entries, readable or not, in one transaction.

        Those of spaces and queues stay. Cost: where there are any, a look at each entry that goes.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.update(a=1)
        >>> d.clear()
        >>> len(d)
        0
        """
        counts = [0]

        def work(txn: Transaction) -> int:
            counts[0] = txn.clear(self._span)
            return txn.id()

        self._write(lambda: self._store.update(work, whole=True), lambda front, _: front.clear())
        self._tally.deletes.add(counts[0])

    def __call__(self: S, other: Any = (), /, **kwargs: V) -> S:
        """Initialise the dictionary, once per database, with arguments as for dict(); returns the dictionary itself.

        What is there already is kept; only the first call for a database, ever, in any process, writes (also if it was
        cleared since).

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d = d(a=1, b="string")
        >>> d = d(a=2)
        >>> dict(d)
        {'a': 1, 'b': 'string'}
        """
        encode, ttl, noted = self._codec.encode, self._ttl, INITIALISED + _cropped(self._span.start).hex()
        encoded = [(*self._keys.encode(key), *encode(value)) for key, value in _pairs(other, kwargs)]

        def work(txn: Transaction) -> int:
            if txn.get_info(noted) is not None:
                return 0
            txn.set_info(noted, "yes")
            for kb, hint, tag, blob in encoded:
                txn.put(kb, hint, tag, blob, ttl=ttl)
            return txn.id()

        pairs = [(kb, blob) for kb, _, _, blob in encoded]
        done = None
        if noted not in self._store.info():
            done = self._write(lambda: self._change(work, pairs, whole=True), lambda front, _: front.clear())
        if done:
            self._tally.sets.add(len(encoded))
            self._log.info(f"initialised with {len(encoded)} entries")
        else:
            self._log.info("was initialised before; what is there is kept")
        return self


def _cropped(start: bytes) -> bytes:
    """The beginning of a span, short enough for the name of a setting, also where it is sealed."""
    return start if len(start) < LONG else crop(start, LONG)


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
