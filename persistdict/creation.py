"""Values that are made when they are missed: by one caller, however many miss them at once."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

from persistdict.core import MISSING, Core
from persistdict.errors import TransactionError
from persistdict.making import Making, Terms, alone_aboard, cost_key, is_due
from persistdict.options import number, seconds
from persistdict.records import ABSENT, ANY
from persistdict.tags import label_of

__all__ = ["Creation", "raise_in_transaction"]

K = TypeVar("K")
V = TypeVar("V")


class Creation(Core[K, V]):
    """The part of a dictionary that makes values."""

    def get_or_create(
        self,
        key: K,
        factory: Callable[[], V],
        *,
        ttl: float | timedelta | None = MISSING,
        tag: str | None = None,
        timeout: float | None = None,
        lease: float = 30.0,
        early: float = 0.0,
        cache_if: Callable[[V], bool] | None = None,
    ) -> V:
        """The value of a key; if it is absent, what `factory()` returns, which is stored.

        Of all threads, tasks and processes that miss the key at once, one calls its factory; the others wait and get
        that value, each an object of his own. What a factory raises is raised to its own caller and not stored, and
        one of those who wait calls his own factory. So does another one, at once, if the process that computes dies.
        None, 0, "" and [] are values like others.

        If somebody else sets the key meanwhile, that value stays and is returned by all; that somebody deletes it is
        not noticed. The value and the end of the computation are one transaction, as durable as other writes.

        Args:
            key: the key.
            factory: computes the value; it is called without any lock, in the caller's thread.
            ttl, tag: as for `set`.
            timeout: seconds to wait for others who compute; None for as long as they do. One's own computation is not
                limited.
            lease: seconds after which another process may take over from one that neither ends nor dies, because it
                was stopped. While it runs, however long, it renews its lease in the background.
            early: at 1.0 an entry with a time to live is computed anew some time before it ends, so that nobody has to
                wait: by one caller at random, the more likely the nearer the end and the longer the last computation
                took; others are served the old value. Larger is earlier, 0 is never. If it fails, that is logged, and
                the old value is returned. Cost: reads go to the store, with a second one for what the value has cost.
            cache_if: is given the computed value and tells whether to store it. If not, it is returned all the same, to
                those who wait for it in this process too if the codec can copy it; others compute their own.

        In a transaction the value is computed for it alone, and stored with the rest.

        Raises StillComputingError when `timeout` is over, NestedFactoryError if the factory asks for its own key, what
        the factory raises, and what a write raises; then the value is lost.

        Cost of a hit: that of `d[key]`. Of a miss: two writes, of which the second has the value.

        `early` is probabilistic early expiration, by A. Vattani, F. Chierichetti and K. Lowenstein, "Optimal
        Probabilistic Cache Stampede Prevention", PVLDB 8(8), 2015.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.get_or_create("answer", lambda: 6 * 7)
        42
        >>> d.get_or_create("answer", lambda: 0), d["answer"]
        (42, 42)
        """
        terms = self._terms(ttl, tag, timeout, lease, early, cache_if)
        return self._get_or_create(key, factory, terms)  # type: ignore[no-any-return]

    async def aget_or_create(
        self,
        key: K,
        factory: Callable[[], V | Awaitable[V]],
        *,
        ttl: float | timedelta | None = MISSING,
        tag: str | None = None,
        timeout: float | None = None,
        lease: float = 30.0,
        early: float = 0.0,
        cache_if: Callable[[V], bool] | None = None,
    ) -> V:
        """As `get_or_create`, for asyncio: the event loop waits neither for others nor for the disk.

        Tasks, threads and processes that miss the same key all wait for the same computation. If a task that waits is
        cancelled, no other one notices; if the one that computes is, another one takes over.

        Args:
            factory: a coroutine function; or a function, which is called in a thread of the loop's executor, and what
                it returns is awaited if it is awaitable (so a lambda that calls a coroutine function will do).
            key, ttl, tag, timeout, lease, early, cache_if: as for `get_or_create`.

        >>> import asyncio
        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> async def compute():
        ...     return 42
        >>> asyncio.run(d.aget_or_create("answer", compute))
        42
        """
        terms = self._terms(ttl, tag, timeout, lease, early, cache_if)
        return await self._aget_or_create(key, factory, terms)  # type: ignore[no-any-return]

    def _terms(self, ttl: Any, tag: Any, timeout: Any, lease: Any, early: Any, cache_if: Any) -> Terms:
        return Terms(
            self._ttl if ttl is MISSING else seconds(ttl),
            b"" if tag is None else label_of(tag),
            None if timeout is None else number("timeout", timeout, at_least=0),
            number("lease", lease, more_than=0),
            number("early", early, at_least=0),
            cache_if,
        )

    def _get_or_create(self, key: Any, factory: Any, terms: Terms) -> Any:
        return self._made(self._find(key, terms), key, factory, terms)

    def _made(self, found: tuple[Any, Making | None] | None, key: Any, factory: Any, terms: Terms) -> Any:
        """What was found, or made where it was not, or is due."""
        within = self._in_transaction()
        if found is None:
            return self._make_within(key, factory, terms) if within else self._making(key, terms).run(factory)
        value, making = found
        return value if making is None or within else making.run_unless_busy(factory, value)

    def _make_within(self, key: Any, factory: Any, terms: Terms, anew: bool = False) -> Any:
        """Make a value within a transaction, of which nobody else may see anything."""
        kept_as, kb, hint = self._locate(key)
        with alone_aboard((self._store.shared, kb)):
            value = factory()
        if terms.cache_if is not None and not terms.cache_if(value):
            return value
        encoded = self._codec.encode(value)
        receipt = self._write(
            lambda: self._put(kb, hint, *encoded, terms.ttl, ANY if anew else ABSENT, terms.label),
            lambda front, receipt: front.wrote_many(receipt.id, [kept_as]),
        )
        return value if receipt is not None else self[key]  # type: ignore[index]

    async def _aget_or_create(self, key: Any, factory: Any, terms: Terms) -> Any:
        return await self._amade(self._find(key, terms), key, factory, terms)

    async def _amade(self, found: tuple[Any, Making | None] | None, key: Any, factory: Any, terms: Terms) -> Any:
        from persistdict import awaiting  # with asyncio, which who comes here has loaded

        if self._in_transaction():
            raise_in_transaction()
        if found is None:
            return await awaiting.run(self._making(key, terms), factory)
        value, making = found
        return value if making is None else await awaiting.run_unless_busy(making, factory, value)

    def _making(self, key: Any, terms: Terms, anew: bool = False) -> Making:
        return Making(self, self._locate(key), terms, anew=anew)

    def _find(self, key: Any, terms: Terms) -> tuple[Any, Making | None] | None:
        """The value of a key, and what makes it anew if this caller is to; None if it is absent. Counts as a read."""
        if not terms.early:
            try:
                return self[key], None  # type: ignore[index]
            except KeyError:
                return None
        located = self._locate(key)
        record = self._store.get_many([located[1]])[0]
        if record is None:
            next(self._tally.missed)
            return None
        value = self._codec.decode(record.tag, record.blob)
        next(self._tally.found)
        cost = None if record.deadline is None else self._store.get(cost_key(located[1]))
        if is_due(record, cost, terms.early, self._store.clock(), self._draw):
            return value, Making(self, located, terms, record.version)
        return value, None

    def _draw(self) -> float:
        """A number above 0 and up to 1, at random."""
        return 1.0 - random.random()


def raise_in_transaction() -> NoReturn:
    """Refuse what would go on beyond an await."""
    raise TransactionError("this goes across an await, which a transaction cannot; use get_or_create in it")
