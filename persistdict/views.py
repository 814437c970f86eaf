"""Views: parts of a dictionary that are dictionaries themselves, by nothing but their keys.

A view owns nothing: it uses the store, the thread, the cache, the locks and the transactions of its dictionary, and
ends with it. Its entries are found by what their keys have in front.
"""

from __future__ import annotations

from typing import Any, TypeVar

from persistdict.entries import Entries
from persistdict.errors import Unsupported
from persistdict.keys import KeyBytes, KeyCodec
from persistdict.spans import KEPT_FROM, OUTSIDE, Span, space_head

__all__ = ["Prefixed", "Spaces", "View"]

K = TypeVar("K")
V = TypeVar("V")


class _SpaceKeys(KeyCodec):
    """Keys with the head of a space in front."""

    def __init__(self, inner: KeyCodec, head: bytes) -> None:
        self._inner, self._head, self.plain = inner, head, inner.plain

    def encode(self, key: object) -> KeyBytes:
        kb, hint = self._inner.encode(key)
        return self._head + kb, hint

    def decode(self, kb: bytes, hint: bytes) -> Any:
        return self._inner.decode(kb[len(self._head) :], hint)


class _PrefixKeys(KeyCodec):
    """Keys with some parts in front; a key of one part is that part."""

    def __init__(self, inner: KeyCodec, parts: tuple[Any, ...]) -> None:
        self._inner, self._parts, self.plain = inner, parts, True

    def longer(self, parts: tuple[Any, ...]) -> _PrefixKeys:
        """Those with more parts in front."""
        return _PrefixKeys(self._inner, self._parts + parts)

    def encode(self, key: object) -> KeyBytes:
        rest = key if isinstance(key, tuple) else (key,)
        return self._inner.encode((*self._parts, *rest))

    def decode(self, kb: bytes, hint: bytes) -> Any:
        rest = self._inner.decode(kb, hint)[len(self._parts) :]
        return rest[0] if len(rest) == 1 and not isinstance(rest[0], tuple) else rest


class Prefixed(Entries[K, V]):
    """What a dictionary and a view have that has views."""

    def prefix(self, *parts: Any) -> View[Any, V]:
        """A live view of the entries whose keys are tuples that begin with these parts.

        It has the whole interface of a dictionary. Its keys are what follows the parts: `view["a", "b"]` is
        `d[(*parts, "a", "b")]`, `view["a"]` is `d[(*parts, "a")]`, and `view[()]` the entry of the parts alone. So a
        tuple of one part is the same key as that part, unless that is a tuple.

        Nothing is made by looking, and nothing has to be closed. What the view removes with `clear` is one transaction.
        Cost: an entry as in the dictionary; `len`, and the order of insertion, take a look at every entry of the view.

        Args:
            parts: what a key may consist of; none for all keys that are tuples.

        Raises KeyTypeError for what can be no part of a key; Unsupported with a `key_serializer`.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> ann = d.prefix("user", "ann")
        >>> ann["age"] = 30
        >>> ann["pets", "cat"] = "Tom"
        >>> dict(ann), d["user", "ann", "age"], dict(ann.prefix("pets"))
        ({'age': 30, ('pets', 'cat'): 'Tom'}, 30, {'cat': 'Tom'})
        >>> ann.clear()
        >>> len(d)
        0
        """
        if not self._keys.plain:
            raise Unsupported("prefix() needs keys that are tuples; this dictionary has a key_serializer of its own")
        before = self._keys
        keys = before.longer(parts) if isinstance(before, _PrefixKeys) else _PrefixKeys(before, parts)
        start = keys.encode(())[0]
        return View(self, "prefix", parts, keys, Span(start, start + b"\xff"))


class View(Prefixed[K, V]):
    """A part of a dictionary, see `PersistDict.prefix` and `PersistDict.space`.

    Threads and processes: as for the dictionary. A view that is pickled opens its dictionary where it arrives.
    """

    def __init__(
        self, owner: Prefixed[Any, Any], verb: str, arguments: tuple[Any, ...], keys: KeyCodec, span: Span
    ) -> None:
        root = owner._root
        self._made_by = owner, verb, arguments
        self._main, self._keys, self._span = root, keys, span
        self._options, self._log, self._ttl = root._options, root._log, root._ttl
        self._codec, self._exact, self._confirms = root._codec, root._exact, root._confirms
        self._front, self._tally = root._front, root._tally
        self._fast_type = None  # the front of the dictionary keeps texts as its own keys

    @property
    def _root(self) -> Any:
        return self._main

    # What changes while the dictionary lives: when it is opened and closed, forked, or has a transaction.

    @property
    def _store(self) -> Any:  # type: ignore[override]
        return self._made_by[0]._store

    @property
    def _bounds(self) -> Any:  # type: ignore[override]
        return self._main._bounds

    @property
    def _write_lock(self) -> Any:  # type: ignore[override]
        return self._main._write_lock

    def _opened(self) -> Any:
        return self._main._opened()

    @property
    def closed(self) -> bool:
        """Whether the dictionary was closed."""
        return bool(self._main.closed)

    def close(self) -> None:
        """Nothing: a view has nothing of its own. Close the dictionary."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_by, self._made_by

    def _shown(self, content: str) -> str:
        return f"<{self._title()}: {content}>"

    def _title(self) -> str:
        owner, verb, arguments = self._made_by
        return f"{owner._title()}.{verb}({', '.join(map(repr, arguments))})"


class Spaces(Prefixed[K, V]):
    """What a dictionary has that a view has not."""

    def space(self, name: str) -> View[Any, Any]:
        """A dictionary of its own in the same files: its keys have nothing to do with those of this one.

        It shares the thread, the cache, the options and the transactions; bounds hold for all together. It comes into
        being by the first entry, and is gone with the last; looking makes nothing. `len` and iteration of this
        dictionary do not see it, and `clear` leaves it alone.

        Args:
            name: any text of 1 to 200 bytes in UTF-8.

        Raises TypeError or ValueError for what is no name.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> users = d.space("users")
        >>> users["ann"] = {"age": 30}
        >>> d["ann"] = "another"
        >>> dict(users), len(d), d.spaces()
        ({'ann': {'age': 30}}, 1, ['users'])
        """
        head = space_head(name)
        return View(self, "space", (name,), _SpaceKeys(self._keys, head), Span(head, head + b"\xff"))

    def spaces(self) -> list[str]:
        """The names of the spaces that hold anything, the shortest first. Cost: a look into each.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.space("users")["ann"] = 1
        >>> d.spaces()
        ['users']
        """
        return self._names_in(Span(OUTSIDE, KEPT_FROM))


def _made_by(owner: Any, verb: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(owner, verb)(*arguments)
