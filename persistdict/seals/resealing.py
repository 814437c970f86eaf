"""Sealing entries anew with the newest key, so that older keys can be given up.

In batches, each of which is one transaction; readers and writers go on in between. An entry keeps its times, its label
and its place; its version changes. What cannot be opened stays as it is, and then the older keys stay noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from persistdict.errors import PersistDictError
from persistdict.keys import key_digest
from persistdict.log import Log
from persistdict.records import Item, Transaction
from persistdict.seals.sealed import Sealed

__all__ = ["Resealing"]

BATCH = 256


class Resealing:
    """One pass over a store, which may be stopped and go on. Threads: one at a time.

    Args:
        store: the store.
        log: told of what cannot be opened.
    """

    def __init__(self, store: Sealed, log: Log) -> None:
        self._store, self._log = store, log
        self._items: Iterator[Item] | None = None
        self._failed = 0

    def is_due(self) -> bool:
        """Whether there may be entries that are sealed with an older key."""
        return self._store.seal.is_changing

    def go(self, proceed: Callable[[], bool]) -> int:
        """Go on as long as `proceed` says. How many entries were sealed anew."""
        bare, seal, done = self._store.bare, self._store.seal, 0
        if self._items is None:
            self._items, self._failed = bare.scan(), 0
        while proceed():
            batch = list(islice(self._items, BATCH))
            if not batch:
                self._finish()
                break
            old = [item.kb for item in batch if seal.is_old(item.hint, item.blob)]
            if old:
                done += bare.update(lambda txn, old=old: self._renew(txn, old), size=len(old), whole=True)
        return done

    def _renew(self, txn: Transaction, kbs: list[bytes]) -> int:
        seal, names = self._store.seal, self._store.names
        done, failed = 0, []
        for kb in kbs:
            try:
                record = txn.get(kb)
                if record is None or not seal.is_old(record.hint, record.blob):
                    continue
                plain = names.open_key(kb)
                hint = names.hint(plain, names.open_hint(plain, record.hint))
                done += txn.rewrite(kb, hint, record.tag, seal.renew(kb, record.tag, record.blob))
            except PersistDictError as error:
                failed.append(f"the entry with the digest {key_digest(kb)} cannot be sealed anew: {error}")
        self._failed += len(failed)
        for sentence in failed[:20]:
            self._log.error(sentence)
        return done

    def _finish(self) -> None:
        self._items = None
        seal = self._store.seal
        seal.is_changing = False
        if not self._failed:
            self._store.bare.update(seal.forget_old_keys, whole=True)
            self._log.info("all entries are sealed with the newest key")
