"""Iteration, and keys by their order: that of insertion, that of the keys themselves, or none."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar, cast

from persistdict.codecs.safe import STR
from persistdict.core import MISSING, Core
from persistdict.keys import TEXT
from persistdict.setviews import Items, Keys, Values
from persistdict.spans import Span
from persistdict.store import Item, Record

__all__ = ["Ordered"]

K = TypeVar("K")
V = TypeVar("V")

TEXT_CODE = TEXT[0]


class Ordered(Core[K, V]):
    """The part of a dictionary that iterates, over all or some of it. Nothing here counts as a read of an entry."""

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
        return Keys(cast(Any, self))

    def items(self) -> Items[K, V]:
        """A live view of the (key, value) pairs; see `keys`.

        An entry that is damaged or cannot be decoded is passed over with a DamagedEntryWarning.
        """
        return Items(cast(Any, self))

    def values(self) -> Values[V]:
        """A live view of the values; see `items`."""
        return Values(cast(Any, self))

    def _iter_items(self, reverse: bool) -> Iterator[tuple[K, V]]:
        decode_key, decode, plain, exact = self._keys.decode, self._codec.decode, self._keys.plain, self._exact
        for kb, hint, tag, blob in self._store.scan(reverse=reverse, span=self._span):
            try:
                if plain and kb[0] == TEXT_CODE and kb.isascii():
                    key: Any = kb[1:].decode()
                else:
                    key = decode_key(kb, hint)
                value: Any = blob.decode() if exact and tag == STR and blob.isascii() else decode(tag, blob)
            except Exception as error:
                self._warn_passed_over(error)
                continue
            yield key, value

    def _decoded(self, record: Item | Record) -> tuple[K, V]:
        key = self._keys.decode(record.kb, record.hint)
        return key, cast(V, self._codec.decode(record.tag, record.blob))

    def range(self, start: K = MISSING, stop: K = MISSING, *, reverse: bool = False) -> Iterator[K]:
        """The keys from `start` on and before `stop`, in order of the keys.

        Numbers are in order of their size, texts in that of their code points, and tuples as tuples are, so that a
        tuple comes before all that begin with it; keys of different types are in the order None, numbers, bytes, text,
        tuples. With a `key_serializer` it is the order of the bytes that it gives.

        No lock and no snapshot is held between two keys. Cost: what lies outside is not looked at.

        Args:
            start: the first key, there or not; from the beginning if it is not given.
            stop: the key before which it ends; to the end if it is not given.
            reverse: begin with the last.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.update({(user, day): day for user in ("ann", "bob") for day in (3, 1, 20)})
        >>> list(d.range(("ann",), ("ann", 10)))
        [('ann', 1), ('ann', 3)]
        >>> next(d.range(reverse=True))
        ('bob', 20)
        """
        first = self._span.start if start is MISSING else self._keys.encode(start)[0]
        last = self._span.stop if stop is MISSING else self._keys.encode(stop)[0]
        span = Span(max(first, self._span.start), min(last, self._span.stop))
        return self._keys_of(self._store.scan(reverse=reverse, values=False, by_key=True, span=span))

    def oldest(self, n: int = 1) -> list[K]:
        """The `n` keys that were inserted first, the first of them first; an overwrite is no insertion.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.update(a=1, b=2, c=3)
        >>> d.oldest(2), d.newest(2)
        (['a', 'b'], ['c', 'b'])
        """
        return list(islice(self._iter_keys(False), n))

    def newest(self, n: int = 1) -> list[K]:
        """The `n` keys that were inserted last, the last of them first; an overwrite is no insertion.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.update(a=1, b=2, c=3)
        >>> d.newest(2)
        ['c', 'b']
        """
        return list(islice(self._iter_keys(True), n))

    def sample(self, n: int = 1, *, rng: random.Random | None = None) -> list[K]:
        """`n` different keys at random, in random order; all of them if there are not so many.

        Args:
            n: how many.
            rng: what to draw them with; by default the module `random`.

        Each set of `n` keys is as likely as any other. Cost: a look at every key, and `n` of them in memory.

        >>> import random
        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.update({number: None for number in range(100)})
        >>> sorted(d.sample(100)) == list(range(100)), len(d.sample(3, rng=random.Random(1)))
        (True, 3)
        """
        draw: Any = rng or random
        keys = self._iter_keys(False)
        found = list(islice(keys, n))
        for seen, key in enumerate(keys, n + 1):
            at = draw.randrange(seen)
            if at < n:
                found[at] = key
        draw.shuffle(found)
        return found
