"""Bytes under str keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice

from langchain_core.runnables import run_in_executor
from langchain_core.stores import ByteStore

from persistdict.errors import DecodeError, ValueTypeError
from persistdict.integrations.langchain.adapter import BATCH, Adapter, Source, strings

__all__ = ["PersistDictStore"]

STORE = "langchain-store"


class PersistDictStore(Adapter, ByteStore):
    """LangChain's ByteStore on disk: bytes under any str, for CacheBackedEmbeddings, parent documents and the like.

    Args:
        cache: a PersistDict, which may be shared with other users, or the path of one, which is opened here.
        namespace: stores with different namespaces in one PersistDict do not see each other's keys.

    Raises:
        ValueTypeError: if the PersistDict has a codec that cannot keep bytes.
        TypeError: if the namespace is no str; and what PersistDict raises if a path cannot be opened.

    Each call is one transaction. Threads and processes: any number.

    >>> store = PersistDictStore("memory://", namespace="pages")
    >>> store.mset([("a", b"1"), ("b", b"2")])
    >>> store.mget(["b", "x", "b"])
    [b'2', None, b'2']
    >>> store.mdelete(["a"])
    >>> list(store.yield_keys())
    ['b']
    """

    def __init__(self, cache: Source, *, namespace: str = "") -> None:
        if not isinstance(namespace, str):
            raise TypeError("namespace must be a str")
        self._prefix = (STORE, namespace)
        super().__init__(cache, b"")

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of the keys, None for those that are absent, in the order asked; all from one snapshot.

        Raises KeyTypeError for a key that is no str, DecodeError if what is stored is not bytes.
        """
        full = [(*self._prefix, key) for key in strings(keys)]
        found = self._dict.get_many(full)
        for value in found.values():
            if not isinstance(value, bytes):
                raise DecodeError(f"a ByteStore holds bytes, but {type(value).__qualname__} was stored in its place")
        return [found.get(key) for key in full]

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Set all of these, or none: one transaction, durable. Of equal keys the last one counts.

        Raises KeyTypeError for a key that is no str, ValueTypeError for a value that is not bytes; both are
        TypeErrors, and nothing is stored.
        """
        pairs = dict(key_value_pairs)
        strings(pairs)
        for value in pairs.values():
            if type(value) is not bytes:
                raise ValueTypeError(f"a ByteStore stores bytes, not {type(value).__qualname__}")
        if pairs:
            self._dict.set_many(((*self._prefix, key), value) for key, value in pairs.items())

    def mdelete(self, keys: Sequence[str]) -> None:
        """Remove those of the keys that are there: one transaction, durable. Raises KeyTypeError as `mget`."""
        full = [(*self._prefix, key) for key in strings(keys)]
        if full:
            self._dict.delete_many(full)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """The keys that begin with `prefix`, or all, oldest first. Reads all keys of the PersistDict.

        Holds no lock and no snapshot; the store may be changed meanwhile.
        """
        for key in self._own_keys(*self._prefix):
            if key[2].startswith(prefix or ""):
                yield key[2]

    async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[str]:
        """As `yield_keys`; 512 at a time are fetched in an executor."""
        keys = self.yield_keys(prefix=prefix)
        while batch := await run_in_executor(None, lambda: list(islice(keys, BATCH))):
            for key in batch:
                yield key
