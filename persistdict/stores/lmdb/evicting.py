"""Eviction on LMDB: what is there, entries by their last use, and removing them by way of the recent writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from persistdict.bounded import Access, Evictable, Usage
from persistdict.errors import CorruptEntryError
from persistdict.spans import KEPT_FROM
from persistdict.stores.lmdb.access import access_of
from persistdict.stores.lmdb.durable import Durable
from persistdict.stores.lmdb.engine import TIMEOUT
from persistdict.stores.lmdb.gate import EVICTION, TRANSACTION, Patience
from persistdict.stores.lmdb.recent import RESERVED
from persistdict.stores.lmdb.record import HEADER, HEADER_SIZE, LARGE, large_size
from persistdict.stores.lmdb.totals import kept_total, pages_of, total_size
from persistdict.stores.lmdb.walk import beyond, stretches
from persistdict.turn import Wish

__all__ = ["Evicting"]

_make: Callable[..., Access] = partial(tuple.__new__, Access)
_header = HEADER.unpack_from
_ROW = 100  # bytes of a note that an entry is gone


class Evicting(Durable, Evictable):
    """How much is there, what was used when, and removing it."""

    def usage(self, *, exact: bool = False) -> Usage:
        """The entries of the data, and all recent writes, each of which may turn out to be an overwrite."""
        if exact:
            self.sync()
        return self.env.attempt(self._usage)

    def _usage(self) -> Usage:
        d, r = self.snapshots()
        entries, size, kept = d.stat(self.e)["entries"], total_size(self, d), kept_total(self, d)
        if size is None:
            size = sum(pages_of(d.stat(db)) for db in (self.e, self.v, self.p) if db is not None)
        entries, size = entries - kept.entries, size - kept.size
        if r is not None:
            stat = r.stat()
            entries, size = entries + stat["entries"] - RESERVED, size + pages_of(stat)
        at, gone = self.env.evicted
        if at == d.id():  # the notes that these are gone are among the recent writes still
            entries, size = entries - 2 * gone.entries, size - gone.size
        return Usage(max(0, entries), max(0, size))

    def accesses(
        self, budget: int, after: bytes = b"", *, before: float = float("inf")
    ) -> tuple[list[Access], bytes | None]:
        return self.env.attempt(self._accesses, budget, after, before)

    def _accesses(self, budget: int, after: bytes, before: float) -> tuple[list[Access], bytes | None]:
        d = self.begin_data(self.e)
        found: list[Access] = []
        for rows in stretches(self, d, "e", after):
            if budget <= 0 and beyond("e", after, rows[0][0]):
                return found, rows[0][0]
            budget -= len(rows)
            found += [access for seq, raw in rows if (access := self._access(d, seq, raw, before)) is not None]
        return found, None

    def _access(self, d: Any, seq: bytes, raw: bytes, before: float) -> Access | None:
        if len(raw) <= HEADER_SIZE:
            return None  # the integrity pass reports it
        _, flags, hint_size, key_size, version, _, mtime = _header(raw)
        key_at = HEADER_SIZE + hint_size
        if mtime >= before or seq in self.touched or raw[key_at : key_at + 1] >= KEPT_FROM:
            return None
        read_at, uses = access_of(d, self.a, seq)
        if read_at >= before:
            return None
        size = len(raw) + (large_size(raw[-16:-4]) if flags & LARGE else 0)
        return _make((raw[key_at : key_at + key_size], seq, version, max(mtime, read_at), uses, size))

    @contextmanager
    def evicting(self) -> Iterator[None]:
        with self.env.recent.evicting, self._alone(EVICTION, TIMEOUT, "did not finish an eviction"):
            yield

    def turn(self) -> Generator[None, None, None]:
        env, wish = self.env, Wish()
        _, free = env.gate.lock(TRANSACTION)
        process = os.getpid()
        try:
            env.turn.take(wish, self.timeout, self.place)
            try:
                self._hold(TRANSACTION, self.timeout, "did not finish a transaction")
                yield
            finally:
                if os.getpid() == process:
                    with suppress(OSError):  # the file was closed meanwhile, and the lock went with it
                        free()
        finally:
            env.turn.give(wish)

    def _hold(self, byte: int, timeout: float, what: str) -> None:
        """Wait for a lock of the gate, behind a thread lock."""
        hold, _ = self.env.gate.lock(byte)
        patience = Patience(self.env.gate, byte, timeout, self.place, what)
        while not self.env.read_only:
            with suppress(BlockingIOError):
                hold()
                break
            patience.pause()

    @contextmanager
    def _alone(self, byte: int, timeout: float, what: str) -> Iterator[None]:
        """Hold a lock of the gate, behind a thread lock."""
        _, free = self.env.gate.lock(byte)
        process = os.getpid()
        try:
            self._hold(byte, timeout, what)
            yield
        finally:
            if os.getpid() == process:
                with suppress(OSError):  # the file was closed meanwhile, and the lock went with it
                    free()

    def evict(self, batch: list[Access], *, unless: str = "used") -> Usage:
        env = self.env

        def work(r: Any) -> tuple[Usage, int]:
            d = self.begin_data(self.k)
            gone = [a for n, a in enumerate(batch) if self._evict(r, d, n, a, unless)]
            return Usage(len(gone), sum(access.size for access in gone)), d.id()

        gone, now = env.recent.update_urgently(work, timeout=self.timeout)
        if gone.entries:
            at, before = env.evicted
            earlier = before if at == now else Usage(0, 0)
            env.evicted = now, Usage(earlier.entries + gone.entries, earlier.size + gone.size)
            self.owe(env, gone.entries * _ROW)
        return gone

    def _evict(self, r: Any, d: Any, n: int, access: Access, unless: str) -> bool:
        try:
            place = self.locate(r, d, access.kb)
        except CorruptEntryError:  # the integrity pass reports it; it stays
            return False
        if place is None or place.slot[0] != access.seq or place.record is None:
            return False
        if unless and place.record.version != access.version:
            return False
        if unless == "used" and self.atime(d, access.seq, float("inf")) > access.used_at:
            return False
        self.note_gone(r, n, access.kb, place, self.clock())
        return True
