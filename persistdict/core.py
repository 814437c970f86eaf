"""What every part of a dictionary stands on: its options and its store, opening and closing, and one way to write."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from persistdict.bounded import Usage
from persistdict.codecs import Codec, SafeCodec, names_agree
from persistdict.errors import CorruptEntryError, DamagedEntryWarning, MismatchError, ReadOnlyWarning, TransactionError
from persistdict.front import Front
from persistdict.lifecycle import CLOSED, Unopened, close_store, finalizer_of, watch
from persistdict.log import Log
from persistdict.maintenance import keeper_of
from persistdict.options import Options, make_store, seconds
from persistdict.routing import Routed, bare_store
from persistdict.spans import OWN
from persistdict.statistics import Tally
from persistdict.store import Condition, Item, Receipt, Record, Store, Transaction
from persistdict.tasks import Charge

__all__ = ["MISSING", "Core"]

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
S = TypeVar("S", bound="Core[Any, Any]")

MISSING: Any = object()
_STR = b"\x30"  # the type code of a str key, see keys.py


class Core(Generic[K, V]):
    """What the parts of a dictionary share."""

    _store: Store  # or what stands for it before opening and after closing
    _charge: Charge  # once it is open

    # Opening and closing

    def _configure(self, options: Options, codec: Codec | None = None) -> None:
        """Take over the options; the store is opened at the first use."""
        of_subclass = set(vars(self))
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
        self._own = frozenset(vars(self)) - of_subclass | {"_own", "_charge"}
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
        """The store itself, whatever transactions there are; opened if it was not yet."""
        if isinstance(self._store, Unopened):
            self._open()
        return cast(Store, bare_store(self._store))

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

        Raises TransactionError, and does nothing, while there is a transaction.

        Raises, after closing, StoreError or DiskFullError if the last writes are not durable yet: they are there, and
        become durable when the dictionary is opened again before the machine restarts. Raises MaintenanceError if
        upkeep in the background failed and nobody was told yet.
        """
        store, finalizer = self._store, self._finalizer
        if isinstance(store, Routed):
            raise TransactionError("a transaction is under way; close the dictionary after its end")
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
        return {name: value for name, value in vars(self).items() if name not in self._own}

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

    @property
    def _root(self) -> Any:
        """The dictionary that this is a part of, or is."""
        return self

    def _title(self) -> str:
        """What makes it."""
        return f"{type(self).__name__}({self._options.path!r})"

    # Reading

    def _iter_keys(self, reverse: bool, label: bytes = b"") -> Iterator[K]:
        """The keys in order of insertion, or of the entries with a label."""
        if label:
            return self._keys_of(self._labelled(label))
        return self._keys_of(self._store.scan(reverse=reverse, values=False, span=self._span))

    def _labelled(self, label: bytes) -> Iterator[Item]:
        return (item for item in self._store.labelled(label) if item.kb in self._span)

    def _keys_of(self, items: Iterator[Item]) -> Iterator[K]:
        for item in items:
            try:
                key = self._keys.decode(item.kb, item.hint)
            except Exception as error:
                self._warn_passed_over(error)
                continue
            yield key

    def _warn_passed_over(self, error: Exception) -> None:
        message = f"an entry of {self._log.name} was passed over: {type(error).__name__}: {error}"
        warnings.warn(message, DamagedEntryWarning, stacklevel=4)

    # Writing

    def _locate(self, key: object) -> tuple[Any, bytes, bytes]:
        """Under what the front keeps a key (equal for equal keys), its bytes and its hint."""
        kb, hint = self._keys.encode(key)
        if self._fast_type is not None and isinstance(key, str):
            return str.__str__(key), kb, hint
        return kb, kb, hint

    def _kept_as(self, kb: bytes) -> Any:
        """Under what the front keeps the key of these bytes."""
        is_text = self._fast_type is not None and kb[:1] == _STR
        return kb[1:].decode("utf-8", "surrogatepass") if is_text else kb

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
        store: Any = self._store
        if self._bounds is not None and not (isinstance(store, Routed) and store.mine()):  # else it is for the end
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

    def _put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None, when: Condition, label: bytes = b""
    ) -> Receipt | None:
        """Set an entry under a condition, within `_write`. None if it does not hold."""
        self._make_room([(kb, blob)])
        return self._store.put(kb, hint, tag, blob, ttl, when, label)

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


def _cache(caching: bool | MutableMapping[Any, Any]) -> MutableMapping[Any, Any] | str | None:
    """What the option `caching` asks of the front."""
    if isinstance(caching, bool):
        return "lru" if caching else None
    return caching


def _restore(cls: type[S], options: Options) -> S:
    new = cls.__new__(cls)
    new._configure(options)
    return new
