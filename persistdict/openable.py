"""Opening a dictionary and letting go of it, and what it is made of meanwhile."""

from __future__ import annotations

import threading
import warnings
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from persistdict.agreement import agree
from persistdict.codecs import Codec, SafeCodec
from persistdict.errors import ReadOnlyWarning, TransactionError
from persistdict.front import Front
from persistdict.lifecycle import CLOSED, Unopened, close_store, finalizer_of, watch
from persistdict.log import Log
from persistdict.maintenance import keeper_of
from persistdict.modes import IMMUTABLE, Appending, Reading, bare_store
from persistdict.options import Options, make_store, seconds
from persistdict.routing import Routed
from persistdict.spans import OWN
from persistdict.statistics import Tally
from persistdict.store import Store
from persistdict.tasks import Charge

__all__ = ["MISSING", "Openable"]

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
S = TypeVar("S", bound="Openable[Any, Any]")

MISSING: Any = object()
ATTRIBUTES = frozenset(
    (
        *("_options", "_keys", "_codec", "_exact", "_span", "_ttl", "_log", "_front", "_tally", "_fast_type"),
        *("_confirms", "_write_lock", "_store", "_bounds", "_finalizer", "_charge", "_mode"),
    )
)


class Openable(Generic[K, V]):
    """The part of a dictionary that has a store.

    Its attributes are those of ATTRIBUTES and what a subclass adds. Nothing asks for its `__dict__` but pickling: from
    then on CPython 3.11 takes several times as many instructions for each attribute.
    """

    _store: Store  # or what stands for it before opening and after closing
    _charge: Charge  # once it is open
    _mode: str  # likewise

    # Opening and closing

    def _configure(self, options: Options, codec: Codec | None = None) -> None:
        """Take over the options; the store is opened at the first use."""
        self._options = options = options.checked()
        self._keys = options.make_keys()
        self._codec = codec or options.make_codec()
        self._exact = type(self._codec) is SafeCodec  # what is read is what was written
        self._span = OWN  # where its keys are
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
            seal = self._options.seal()
            store = make_store(self._options)
            store.renumbered = self._front.clear
            self._tally.follow(store.counts)
            try:
                self._mode = agree(store, self._options, self._codec.name, seal)
                store, resealing = _sealed(store, seal, self._log)
                if store.read_only:
                    self._warn_read_only(store)
                bounds = self._options.make_bounds(store, self._log)
                self._charge = charge = Charge(store, self._log, bounds, resealing)
                if self._mode == "r":
                    pass  # what is to be done is for those that write
                elif self._options.background_thread is True:
                    keeper_of(store).add(charge, self._options.background_timeout)
                elif self._options.background_thread is False:
                    keeper_of(store).run_now(charge)
            except BaseException:
                self._abandon(store)
                raise
            self._finalizer = finalizer_of(self, store)
            self._store, self._bounds = self._guarded(store), bounds
        self._log.info(f"opened {store.place}")
        if store.damage:
            self._log.error(f"{store.place} is damaged ({store.damage}): it can be read, but nothing is written")

    def _warn_read_only(self, store: Store) -> None:
        text = f"{store.place} lies on a read-only medium: it can be read, and every write will raise ReadOnlyError"
        self._log.warning(text)
        warnings.warn(text, ReadOnlyWarning, stacklevel=4)

    def _opened(self) -> Store:
        """The store itself, whatever transactions there are; opened if it was not yet."""
        if isinstance(self._store, Unopened):
            self._open()
        return cast(Store, bare_store(self._store))

    def _guarded(self, store: Store) -> Any:
        """The store as the mode lets it be used."""
        if self._mode == "r":
            return Reading(store)
        if self._mode in IMMUTABLE:
            return Appending(store, self._mode == "write_once", self._codec.decode)
        return store

    def close(self) -> None:
        """Make durable what was written, and let go of the store. May be called again.

        Raises TransactionError, and does nothing, while there is a transaction.

        Raises, after closing, StoreError or DiskFullError if the last writes are not durable yet: they are there, and
        become durable when the dictionary is opened again before the machine restarts. Raises MaintenanceError if
        upkeep in the background failed and nobody was told yet.
        """
        store, finalizer = self._store, self._finalizer
        if isinstance(store, Routed) and store.is_used():
            raise TransactionError("a transaction is under way; close the dictionary after its end")
        if isinstance(store, Unopened):
            self._store = CLOSED
            return
        if finalizer is not None and finalizer.alive:
            store = bare_store(store)
            keeper = keeper_of(store)
            try:
                if not finalizer.detach():
                    return  # another thread is closing it
                self._let_go(store)
            except BaseException:
                finalizer.detach()
                self._abandon(store)  # all of it again: Ctrl-C may have come before it was done
                raise
            keeper.raise_error()

    def _abandon(self, store: Store) -> None:
        """Let go of a store at once, whatever of it was taken into use."""
        try:
            keeper_of(store).remove(store, wait=False)
        finally:
            store.close()

    def _let_go(self, store: Store) -> None:
        try:
            close_store(store, self._log, wait=True)
        finally:
            self._front.clear()
            self._log.info("closed")

    def __enter__(self: S) -> S:
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
        return {name: value for name, value in vars(self).items() if name not in ATTRIBUTES}

    @property
    def _root(self) -> Any:
        """The dictionary that this is a part of, or is."""
        return self

    @property
    def path(self) -> str:
        """The folder or URL."""
        return self._options.path

    @property
    def name(self) -> str:
        """What messages call this dictionary."""
        return self._log.name

    @property
    def mode(self) -> str:
        """What may be done with entries: "rw", "r", "append" or "write_once"; the last two also if others said so."""
        self._opened()
        return str(self._root._mode)

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


def _sealed(store: Store, asked: Any, log: Log) -> tuple[Store, Any]:
    """The store behind the seal that was asked for, and what seals its entries anew; None for none."""
    if asked is None:
        return store, None
    from persistdict.seals.resealing import Resealing
    from persistdict.seals.sealed import Sealed

    sealed: Any = Sealed(store, asked.open(store))
    return sealed, None if asked.ring is None else Resealing(sealed, log)


def _restore(cls: type[S], options: Options) -> S:
    new = cls.__new__(cls)
    new._configure(options)
    return new
