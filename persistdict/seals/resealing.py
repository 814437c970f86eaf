"""Sealing entries anew with the newest key, so that older keys can be given up.

In batches, each of which is one transaction; readers and writers go on in between. An entry keeps its times, its label
and its place; its version changes. What cannot be opened stays as it is, and then the older keys stay noted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from persistdict.clocked import is_believed
from persistdict.errors import PersistDictError
from persistdict.keys import key_digest
from persistdict.log import Log
from persistdict.records import Item, Transaction
from persistdict.seals.sealed import Sealed

__all__ = ["Resealing"]

BATCH = 256
BATCH_BYTES = 4 << 20


class Resealing:
    """One pass over a store, which may be stopped and go on.

    Threads: any number; while one is at it, the others do nothing.

    Args:
        store: the store.
        log: told of what cannot be opened.
    """

    def __init__(self, store: Sealed, log: Log) -> None:
        self._store, self._log = store, log
        self._turn = threading.Lock()  # guards the rest
        self._items: Iterator[Item] | None = None
        self._failed = 0

    def anew(self) -> Resealing:
        """Another pass, from the beginning."""
        return Resealing(self._store, self._log)

    def is_due(self) -> bool:
        """Whether there may be entries that are sealed with an older key."""
        return self._store.seal.is_changing

    def go(self, proceed: Callable[[], bool]) -> int:
        """Go on as long as `proceed` says. How many entries were sealed anew."""
        if not self._turn.acquire(blocking=False):
            return 0
        try:
            return self._go(proceed)
        except BaseException:
            self._items = None  # what was taken out of it may not be done: the next time it begins again
            raise
        finally:
            self._turn.release()

    def _go(self, proceed: Callable[[], bool]) -> int:
        bare, done = self._store.bare, 0
        if self._items is None:
            self._items, self._failed = bare.scan(), 0
        while proceed():
            old, more = self._batch(self._items)
            if old:
                done += bare.update(lambda txn, old=old: self._renew(txn, old), size=len(old), whole=True)
            if not more:
                self._finish()
                break
        return done

    def _batch(self, items: Iterator[Item]) -> tuple[list[bytes], bool]:
        """Which of the next entries are sealed with an older key, some megabytes of them; and whether more follow."""
        kbs: list[bytes] = []
        size = 0
        for looked, item in enumerate(items, 1):
            if self._store.seal.is_old(item.hint, item.blob):
                kbs.append(item.kb)
                size += len(item.blob)
            if looked == BATCH or size > BATCH_BYTES:
                return kbs, True
        return kbs, False

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
        """Do without the older keys, if nothing is left that needs them."""
        self._items = None
        bare, seal = self._store.bare, self._store.seal
        if not is_believed(bare.clocks(), bare.clock()):
            return  # what is over now, and was passed over, may be there again tomorrow
        if not self._failed and seal.is_changing:
            bare.update(seal.forget_older_keys, whole=True)
            self._log.info("all entries are sealed with the newest key")
        seal.is_changing = False
