"""The store contract on LMDB. What happens within transactions is in rows.py, pair.py and drain.py.

`read` and `contains` are the hot paths: they repeat, for the common case, what `Pair.locate` does in general.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import lmdb

from persistdict.bounded import NO_USES, Uses
from persistdict.checksum import crc32
from persistdict.clocked import Clocks
from persistdict.errors import DiskFullError, MismatchError
from persistdict.keys import MAX_KEY_SIZE
from persistdict.spans import ALL, Span
from persistdict.statistics import Counts, Sizes
from persistdict.store import NOT_TOLD, Capability, Found, Item, Record, Store, Transaction
from persistdict.stores.lmdb.backup import back_up
from persistdict.stores.lmdb.closed import CLOSED
from persistdict.stores.lmdb.compact import compact
from persistdict.stores.lmdb.engine import TIMEOUT
from persistdict.stores.lmdb.environment import MUCH, open_environment
from persistdict.stores.lmdb.integrity import Integrity
from persistdict.stores.lmdb.labels import labels_in_use, scan_labelled
from persistdict.stores.lmdb.mounts import check_filesystem
from persistdict.stores.lmdb.ownership import PRIVATE
from persistdict.stores.lmdb.population import count_in
from persistdict.stores.lmdb.reading import MAX_TOUCHED, Reading
from persistdict.stores.lmdb.recent import MARK
from persistdict.stores.lmdb.record import COUNTER_BITS, EXPIRES, GONE, HEADER_SIZE, PREFIX, RESIDUE
from persistdict.stores.lmdb.scan import scan_by_creation
from persistdict.stores.lmdb.scankeys import scan_by_key, scan_span
from persistdict.stores.lmdb.sizes import sizes
from persistdict.stores.lmdb.times import clocks_of, put_clocks
from persistdict.stores.lmdb.upkeep import expire_entries, rebase_entries, write_access_times
from persistdict.stores.lmdb.writing import Writing

__all__ = ["LmdbStore"]

T = TypeVar("T")

_prefix = PREFIX.unpack_from


class LmdbStore(Reading, Writing, Integrity, Store):
    """A handle on the entries in one folder.

    Args:
        path: the folder; made if missing.
        key_size_limit: encoded keys of so many bytes and more are cropped for the index (1-511).
        idle: seconds after which an entry ends that is neither read nor written; None for never.
        interval: seconds after which a write is on the disk at the latest; 0 for before `confirm` returns.
        timeout: seconds that opening and a write wait for other processes; what makes writes durable waits longer.
        network: whether the folder may lie on a network file system.
        counting: whether to note how often entries are read.
        clock: tells the time, seconds since the epoch.
        map_size: the size of the memory map to begin with; None for as large as the system allows.
        permissions: of the folder; files have them without the rights to execute.

    Raises:
        UnsafePathError, NotAStoreError, OpenError: see `open_environment`.
        MismatchError: if the store was made with another key_size_limit.
    """

    capabilities = Capability.ORDERED | Capability.CAS | Capability.TRANSACTIONS | Capability.SHARED | Capability.TTL
    max_batch = 1 << COUNTER_BITS

    def __init__(
        self,
        path: str,
        *,
        key_size_limit: int = MAX_KEY_SIZE,
        idle: float | None = None,
        interval: float = 1.0,
        timeout: float = TIMEOUT,
        network: bool = False,
        counting: bool = False,
        clock: Callable[[], float] = time.time,
        map_size: int | None = None,
        permissions: int = PRIVATE,
    ) -> None:
        self.limit = key_size_limit
        self.idle = idle
        self.interval, self.timeout = interval, timeout
        self.undo = {}
        self._opening = 0
        self.clock = clock
        if not network:
            check_filesystem(path)
        self.env = CLOSED
        try:
            self.env = open_environment(self, path, map_size, timeout, permissions)
            self.touched = Uses() if counting else self.env.touched
            self.read_only = self.env.read_only
            self.shared = self.env
            self.counts = Counts(self.env.removed)
            self.place = self.env.folder
            self.env.follow(self)
            self.bind()
            self._check_limit()
        except BaseException:
            self.close()
            raise

    def bind(self) -> None:
        if self._opening != self.env.openings:
            self.renumbered()
            self._opening = self.env.openings
        super().bind()

    def _check_limit(self) -> None:
        """Keep the limit in the store, or compare: another one would look for keys in the wrong place."""
        asked = str(self.limit)

        def work(txn: Transaction) -> str:
            stored = txn.get_info("key_size_limit")
            if stored is None:
                txn.set_info("key_size_limit", asked)
            return stored or asked

        stored = self.info().get("key_size_limit") or self.update(work, whole=True)
        if stored != asked:
            raise MismatchError(
                f"{self.place} was made with key_size_limit={stored} and must be opened with it, not with {asked}"
            )

    # Reading

    def read(self, kb: bytes) -> Found | None:
        try:
            if self.idle is None and len(kb) < self.limit and len(self.touched) < MAX_TOUCHED:
                env = self.env
                row: bytes | None = None
                commit: Any = self.latest[0]
                settled = commit == env.settled  # so there are no recent writes
                if not settled:
                    r = self.begin()
                    commit = r.id()
                    settled = commit == env.settled
                    row = None if settled else r.get(kb)
                if row is not None:
                    seq, raw = row[:8], row[8:]
                elif settled or commit == env.unmarked or self._is_unmarked(r):
                    d = self.begin_data(self.k)  # behind the other snapshot: what was drained in between is here
                    seq = d.get(kb)
                    if seq is None:
                        return None
                    raw = d.get(seq, b"", self.e) if len(seq) == 8 else b""
                else:
                    raw = b""
                if crc32(raw) == RESIDUE:
                    tag, flags, hint_size, key_size = _prefix(raw)
                    key_at = HEADER_SIZE + hint_size
                    if not flags and raw[key_at : key_at + key_size] == kb:
                        self.touched[seq] = None
                        return tag, raw[key_at + key_size : -4], seq, None, commit
        except (lmdb.Error, struct.error):
            pass  # the general way meets it again, and knows what to do
        return self.env.attempt(self._read, kb)

    def _is_unmarked(self, r: Any) -> bool:
        """Whether no mark is in the recent writes: what is read may be kept as a copy."""
        self.is_settled(r)
        if r.get(MARK) is not None:
            return False
        self.env.unmarked = r.id()
        return True

    def _read(self, kb: bytes) -> Found | None:
        r = self.begin()
        commit = r.id()
        settled = self.is_settled(r)
        d = self.begin_data(self.k)
        place = self.locate(None if settled else r, d, kb)
        if place is None:
            return None
        record = self.entry_of(d, kb, place)
        if record is None:
            next(self.counts.expired)
            return None
        self._note(record.seq, self.clock())
        if not settled and not self._is_unmarked(r):
            commit = -1  # the data are being changed; no copy of this may be kept
        return record.found(commit)

    def get(self, kb: bytes) -> Record | None:
        return self.env.attempt(lambda: self.get_in(self.begin(), self.begin_data(self.k), kb))

    def contains(self, kb: bytes) -> bool:
        try:
            if self.idle is None and len(kb) < self.limit:
                row = None
                if self.latest[0] != self.env.settled:  # else there are no recent writes
                    r = self.begin()
                    row = None if r.id() == self.env.settled else r.get(kb)
                if row is not None:
                    if row[9] & EXPIRES == 0:
                        return not row[9] & GONE
                else:
                    index = self.begin_data(self.k).get(kb)
                    if index is None:
                        return False
                    if len(index) == 8:
                        return True
        except (lmdb.Error, IndexError):
            pass  # the general way meets it again, and knows what to do
        return self.env.attempt(self._contains, kb)

    def _contains(self, kb: bytes) -> bool:
        r = self.begin()
        settled = self.is_settled(r)
        d = self.begin_data(self.k)
        place = self.locate(None if settled else r, d, kb)
        return place is not None and self.alive(d, place, self.clock())

    def last(self, *, values: bool = True, span: Span = ALL) -> Record | None:
        if self.env.pending > MUCH >> 8:
            # else a loop that removes the newest would pass over ever more that is gone already
            with contextlib.suppress(DiskFullError):
                self.sync()
        return self.env.attempt(self._last, values, span)

    def _last(self, values: bool, span: Span) -> Record | None:
        d, r = self.snapshots()
        return self.last_in(r, d, values, span)

    def any(self, span: Span = ALL) -> bool:
        return self.env.attempt(self._last, False, span) is not None

    def count(self, span: Span = ALL) -> int:
        known = self.env.attempt(count_in, self, span)
        return sum(1 for _ in scan_by_key(self, reverse=False, values=False, span=span)) if known is None else known

    def scan(
        self,
        *,
        reverse: bool = False,
        values: bool = True,
        by_key: bool = False,
        span: Span = ALL,
    ) -> Iterator[Item]:
        if by_key:
            return scan_by_key(self, reverse=reverse, values=values, span=span)
        if span.start:
            return scan_span(self, reverse=reverse, values=values, span=span)
        return scan_by_creation(self, reverse=reverse, values=values, span=span)

    def labelled(self, label: bytes) -> Iterator[Item]:
        return scan_labelled(self, label)

    def labels(self) -> list[bytes]:
        return labels_in_use(self)

    def info(self) -> dict[str, str]:
        return self.env.attempt(self._info)

    def _info(self) -> dict[str, str]:
        return {name.decode(): text.decode() for name, text in self.begin_data(self.meta).cursor()}

    # Upkeep

    def touch(self, batch: Mapping[bytes, float], uses: Mapping[bytes, int] = NO_USES) -> None:
        if not self.read_only:
            write_access_times(self, batch, uses)

    def lease(self, purpose: str) -> bool:
        return self.env.lease(self, purpose)

    def clocks(self) -> Clocks:
        return self.env.attempt(lambda: clocks_of(self, self.begin_data()))

    def set_clocks(self, clocks: Clocks) -> None:
        self.env.data.update(put_clocks, self, clocks)

    def rebase(self, budget: int, after: bytes = b"") -> tuple[int, bytes | None]:
        return rebase_entries(self, budget, after)

    def expire(self, budget: int, after: bytes = b"") -> tuple[int, bytes | None]:
        return expire_entries(self, budget, after)

    def sizes(self) -> Sizes:
        return sizes(self)

    def backup(self, path: str) -> int:
        return back_up(self, path)

    def compact(self, timeout: float) -> int:
        return compact(self, timeout)

    def tidy(self) -> None:
        self.env.attempt(self.env.tidy)

    def on_reopen(self, call: Callable[[], None]) -> None:
        self.env.reopened.append(call)

    def is_entered(self) -> bool:
        return self.env.is_entered()

    def close(self) -> None:
        env = self.env
        if env is CLOSED:
            return
        env.unfollow(self)  # each of these may be done twice: by another thread, or if it was interrupted
        env.release(self)
        # What a write under way still uses, the databases and the base, stays as it is.
        self.env = CLOSED
        self.latest = NOT_TOLD
        self.begin = self.begin_data = CLOSED.begin
