"""A store of which everything that a user has written is sealed. What is not about entries is the store's own.

Above it keys, hints, values and labels are as ever; below it they are as names.py and seal.py say. An entry that cannot
be opened is passed over with a warning by what goes through many, as a damaged one is; asked for by its key it raises.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from persistdict.errors import CorruptEntryError, DamagedEntryWarning, PersistDictError, Unsupported, WrongKeyError
from persistdict.keys import key_digest
from persistdict.records import ANY, Condition, Found, Item, Receipt, Record, Transaction
from persistdict.reports import Fault, Report
from persistdict.seals.seal import Seal
from persistdict.spans import ALL, INITIALISED, Span
from persistdict.store import Store

__all__ = ["Sealed"]

T = TypeVar("T")

GRAINS = 4096  # entries between two words about progress


@Store.register
class Sealed:
    """A store behind a seal. Threads: any number.

    Args:
        bare: the store itself.
        seal: what is done to its entries.
    """

    def __init__(self, bare: Any, seal: Seal) -> None:
        self.bare, self.seal, self.names = bare, seal, seal.names

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)

    @property
    def begin(self) -> Any:
        return self.bare.begin

    @property
    def latest(self) -> Any:
        return self.bare.latest

    @property
    def touched(self) -> Any:
        return self.bare.touched

    @property
    def clock(self) -> Any:
        return self.bare.clock

    # Opening what was sealed

    def record(self, record: Record | None) -> Record | None:
        """An entry as it was written."""
        if record is None:
            return None
        kb = self.names.open_key(record.kb)
        tag, blob = self.seal.unseal(record.kb, record.tag, record.blob)
        hint, label = self.names.open_hint(kb, record.hint), self.names.open_label(record.label)
        return record._replace(kb=kb, hint=hint, tag=tag, blob=blob, label=label)

    def _item(self, item: Item, values: bool, span: Span = ALL) -> Item | None:
        kb = self.names.open_key(item.kb)
        if kb not in span:
            return None
        tag, blob = self.seal.unseal(item.kb, item.tag, item.blob) if values else (0, b"")
        return Item(kb, self.names.open_hint(kb, item.hint), tag, blob)

    def _items(self, items: Iterable[Item], values: bool, span: Span = ALL) -> Iterator[Item]:
        for item in items:
            try:
                opened = self._item(item, values, span)
            except PersistDictError as error:
                self._pass_over("entry", item.kb, error)
                continue
            if opened is not None:
                yield opened

    def _pass_over(self, what: str, sealed: bytes, error: PersistDictError) -> None:
        """Warn of what cannot be opened; raise the error if a key is missing with which all may be sealed by now."""
        if isinstance(error, WrongKeyError) and self.seal.misses_a_key():
            raise error
        text = f"{self.bare.place}: the {what} with the digest {key_digest(sealed)} was passed over: {error}"
        warnings.warn(text, DamagedEntryWarning, stacklevel=5)

    def _get_or_pass_over(self, kb: bytes) -> Record | None:
        """The entry of a key that going through many has come upon."""
        try:
            return self.get(kb)
        except PersistDictError as error:
            self._pass_over("entry", self.names.key(kb), error)
            return None

    # Reading

    def read(self, kb: bytes) -> Found | None:
        kb = self.names.key(kb)
        found: Found | None = self.bare.read(kb)
        if found is None:
            return None
        return (*self.seal.unseal(kb, found[0], found[1]), *found[2:])

    def read_many(self, kbs: list[bytes]) -> list[Found | None]:
        kbs = [self.names.key(kb) for kb in kbs]
        return [
            None if found is None else (*self.seal.unseal(kb, found[0], found[1]), *found[2:])
            for kb, found in zip(kbs, self.bare.read_many(kbs), strict=True)
        ]

    def get(self, kb: bytes) -> Record | None:
        return self.record(self.bare.get(self.names.key(kb)))

    def get_many(self, kbs: list[bytes]) -> list[Record | None]:
        return [self.record(record) for record in self.bare.get_many([self.names.key(kb) for kb in kbs])]

    def contains(self, kb: bytes) -> bool:
        return bool(self.bare.contains(self.names.key(kb)))

    def last(self, *, values: bool = True, span: Span = ALL) -> Record | None:
        for item in self.scan(reverse=True, values=False, span=span):
            record = self._get_or_pass_over(item.kb)
            if record is not None:
                return record if values else record._replace(blob=b"")
        return None

    def any(self, span: Span = ALL) -> bool:
        return next(self.scan(values=False, span=span), None) is not None

    def count(self, span: Span = ALL) -> int:
        inside = self.names.span(span)
        if type(inside) is Span:
            return int(self.bare.count(inside))
        return sum(1 for _ in self.scan(values=False, span=span))

    def scan(
        self, *, reverse: bool = False, values: bool = True, by_key: bool = False, span: Span = ALL
    ) -> Iterator[Item]:
        """As of the store. Where keys are encrypted they have no order there: to give it, all are opened first."""
        if by_key and not self.names.has_order(span):
            return self._sorted(reverse, values, span)
        inside = self.names.span(span)
        items = self.bare.scan(reverse=reverse, values=values, by_key=by_key, span=Span(*inside))
        return self._items(items, values, ALL if type(inside) is Span else span)

    def _sorted(self, reverse: bool, values: bool, span: Span) -> Iterator[Item]:
        for item in sorted(self.scan(values=False, span=span), reverse=reverse):
            record = self._get_or_pass_over(item.kb) if values else None
            if not values:
                yield item
            elif record is not None:
                yield Item(*record[:4])

    def labelled(self, label: bytes) -> Iterator[Item]:
        return self._items(self.bare.labelled(self.names.label(label)), False)

    def labels(self) -> list[bytes]:
        labels = []
        for label in self.bare.labels():
            try:
                labels.append(self.names.open_label(label))
            except PersistDictError as error:
                self._pass_over("tag", label, error)
        return sorted(labels)

    # Writing

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None = None, when: Condition = ANY,
        label: bytes = b"",
    ) -> Receipt | None:  # fmt: skip
        names = self.names
        sealed = names.key(kb)
        receipt: Receipt | None = self.bare.put(
            sealed, names.hint(kb, hint), *self.seal.seal(sealed, tag, blob), ttl, when, names.label(label)
        )
        return receipt

    def delete(self, kb: bytes, when: Condition = ANY) -> Receipt | None:
        receipt: Receipt | None = self.bare.delete(self.names.key(kb), when)
        return receipt

    def update(self, work: Callable[[Transaction], T], *, size: int = 1, whole: bool = False) -> T:
        done: T = self.bare.update(lambda txn: work(_Inside(self, txn)), size=size, whole=whole)
        return done

    def info(self) -> dict[str, str]:
        """As of the store; where names of settings tell of keys, these are as ever."""
        return {self._plain_name(name): text for name, text in self.bare.info().items()}

    def _plain_name(self, name: str) -> str:
        if len(name) <= len(INITIALISED) or not name.startswith(INITIALISED):
            return name
        try:
            return INITIALISED + self.names.open_key(bytes.fromhex(name[len(INITIALISED) :])).hex()
        except (PersistDictError, ValueError):
            return name

    # Upkeep

    def verify(
        self, *, repair: bool = False, pages: bool = False, resume: bytes = b"",
        progress: Callable[[int, int], object] | None = None,
    ) -> Report:  # fmt: skip
        """As of the store; when its pass is complete, each entry is opened, too. What cannot be is left as it is.

        If that second pass is stopped, all of it begins again.
        """
        report: Report = self.bare.verify(repair=repair, pages=pages, resume=resume, progress=progress)
        if report.position is not None:
            return report
        faults: list[Fault] = []
        for number, item in enumerate(self.bare.scan(), 1):
            try:
                self._item(item, True)
            except PersistDictError as error:
                faults.append(Fault("seal", key_digest(item.kb), f"an entry cannot be opened: {error}"))
            if progress is not None and number % GRAINS == 0 and progress(report.checked, report.checked) is False:
                report = report._replace(position=b"")
                break
        return report._replace(faults=report.faults + tuple(faults), left=report.left + tuple(faults))


class _Inside(Transaction):
    """The inside of `Sealed.update`."""

    def __init__(self, sealed: Sealed, txn: Transaction) -> None:
        self._sealed, self._txn, self._names = sealed, txn, sealed.names

    def get(self, kb: bytes) -> Record | None:
        return self._sealed.record(self._txn.get(self._names.key(kb)))

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, *, ttl: float | None = None, when: Condition = ANY,
        label: bytes = b"",
    ) -> Receipt | None:  # fmt: skip
        names = self._names
        sealed = names.key(kb)
        tag, blob = self._sealed.seal.seal(sealed, tag, blob)
        return self._txn.put(sealed, names.hint(kb, hint), tag, blob, ttl=ttl, when=when, label=names.label(label))

    def put_many(
        self, batch: Sequence[tuple[bytes, bytes, int, bytes]], *, ttl: float | None = None, label: bytes = b""
    ) -> None:
        names, seal = self._names, self._sealed.seal.seal
        rows = ((names.key(kb), names.hint(kb, hint), tag, blob) for kb, hint, tag, blob in batch)
        sealed = [(kb, hint, *seal(kb, tag, blob)) for kb, hint, tag, blob in rows]
        self._txn.put_many(sealed, ttl=ttl, label=names.label(label))

    def delete(self, kb: bytes, *, when: Condition = ANY) -> Record | None:
        return self._sealed.record(self._txn.delete(self._names.key(kb), when=when))

    def discard(self, kb: bytes, label: bytes | None = None) -> bool:
        return self._txn.discard(self._names.key(kb), None if label is None else self._names.label(label))

    def clear(self, span: Span = ALL) -> int:
        return self._txn.clear(self._names.span(span))

    def first(self, span: Span, *, reverse: bool = False) -> Record | None:
        if not self._names.has_order(span):
            raise Unsupported("encrypted keys have no order, so there is no first one")
        try:
            found = self._txn.first(self._names.span(span), reverse=reverse)
        except CorruptEntryError as error:
            error.kb = self._names.open_key(error.kb) if error.kb else error.kb
            raise
        try:
            return self._sealed.record(found)
        except WrongKeyError:
            raise  # the entry is whole, and whoever has the key can open it
        except PersistDictError as error:
            kb = self._names.open_key(found.kb) if found is not None else b""
            raise _damaged(kb, error) from error

    def rewrite(self, kb: bytes, hint: bytes, tag: int, blob: bytes) -> bool:
        sealed = self._names.key(kb)
        return self._txn.rewrite(sealed, self._names.hint(kb, hint), *self._sealed.seal.seal(sealed, tag, blob))

    def get_info(self, name: str) -> str | None:
        return self._txn.get_info(self._name(name))

    def set_info(self, name: str, text: str) -> None:
        self._txn.set_info(self._name(name), text)

    def _name(self, name: str) -> str:
        start = name[len(INITIALISED) :] if name.startswith(INITIALISED) else ""
        return INITIALISED + self._names.key(bytes.fromhex(start)).hex() if start else name

    def id(self) -> int:
        return self._txn.id()


def _damaged(kb: bytes, error: Exception) -> CorruptEntryError:
    """The error for an entry that a search came upon."""
    damaged = CorruptEntryError(str(error))
    damaged.kb = kb
    return damaged
