"""The store contract: bytes to bytes, small on purpose. Everything a user sees is built on it.

A store holds entries. An entry has a key (`kb`, ordered bytes, and a `hint`, opaque), a value (`tag`, `blob`), times,
and a `version` that grows with every write of the key. Its identity is `seq`, 8 opaque bytes given at creation and
kept by overwrites; entries are in the order of creation. `tag` is the codec's and tells how to decode the blob; what
users call the tag of an entry is its `label` in every store: 1 to 255 bytes; b"" for none.

Guarantees that every store gives, and `persistdict.testing.StoreContract` checks:

- `put`, `delete`, `update` and `touch` are atomic, and seen by every thread, handle and process that shares the
  store once they return. A failed one changes nothing.
- An entry whose time is over is absent from every read at once, whether or not it was removed already.
- `begin().id()` tells which commit a reader sees now. It never falls, grows with every commit of anybody, and
  costs next to nothing: a copy made at id N is valid as long as the id is N. `latest[0]` costs less still: a copy made
  at id N is valid if `latest[0]` is N; any other value tells nothing. After a failure ids may begin anew: `renumbered`
  is called before anybody sees one, and copies made at earlier ids are worth nothing.
- No lock and no snapshot is held while a caller's code runs between two items of `scan`.

Threads: any number may use a store. Arguments are encoded already; no user code runs in here, except the function given
to `update`, which must be quick, must not touch the store by another way, and may be called again by the engine.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from typing import TypeVar

from persistdict.bounded import Evictable
from persistdict.clocked import Clocked
from persistdict.errors import Unsupported
from persistdict.records import (
    ABSENT,
    ANY,
    KEPT,
    Capability,
    Condition,
    Found,
    Item,
    Moment,
    Receipt,
    Record,
    Transaction,
    When,
)
from persistdict.reports import Fault, Quarantined, Report
from persistdict.spans import ALL, Span
from persistdict.statistics import Counted

__all__ = [
    "ABSENT",
    "ANY",
    "KEPT",
    "NOT_TOLD",
    "Capability",
    "Condition",
    "Found",
    "Item",
    "Moment",
    "Receipt",
    "Record",
    "Store",
    "Transaction",
    "When",
]

T = TypeVar("T")

NOT_TOLD = (None,)  # stands for `Store.latest` where it cannot be told, or not at less cost


class Store(Counted, Clocked, Evictable):
    """A handle on stored entries. Several handles may share the same entries; each has its own idle limit."""

    capabilities: Capability
    place: str  # what to call it in messages: the path or the URL
    shared: Hashable  # equal for all handles on the same entries in this process
    begin: Callable[[], Moment]
    latest: Sequence[int | None] = NOT_TOLD
    renumbered: Callable[[], object] = staticmethod(lambda: None)  # is called before ids begin anew
    idle: float | None
    read_only: bool = False  # every write raises ReadOnlyError; reads are not noted
    max_batch: int = 1 << 62  # writes in one transaction

    # Reading

    @abc.abstractmethod
    def read(self, kb: bytes) -> Found | None:
        """The value of a key, as fast as the store can. Counts in `counts.expired` if it is there but over."""

    @abc.abstractmethod
    def get(self, kb: bytes) -> Record | None:
        """The whole entry of a key."""

    @abc.abstractmethod
    def get_many(self, kbs: list[bytes]) -> list[Record | None]:
        """The entries of several keys, from one snapshot, in the order asked. Counts those that are over, as `read`."""

    def read_many(self, kbs: list[bytes]) -> list[Found | None]:
        """What `read` answers, for several keys, from one snapshot, in the order asked. No copy may be kept of it."""
        return [None if record is None else record.found() for record in self.get_many(kbs)]

    @abc.abstractmethod
    def contains(self, kb: bytes) -> bool:
        """Whether the key is there."""

    @abc.abstractmethod
    def last(self, *, values: bool = True, span: Span = ALL) -> Record | None:
        """The entry that was created last, of those that can be read. Without `values` the blob is empty."""

    def any(self, span: Span = ALL) -> bool:
        """Whether there is an entry that can be read and is not over."""
        return self.last(values=False, span=span) is not None

    @abc.abstractmethod
    def count(self, span: Span = ALL) -> int:
        """The number of entries. Those that are over by their idle limit count until they are removed.

        The spans of spans.py are counted quickly, others by a look at each entry.
        """

    @abc.abstractmethod
    def info(self) -> dict[str, str]:
        """All settings kept in the store."""

    @abc.abstractmethod
    def scan(
        self,
        *,
        reverse: bool = False,
        values: bool = True,
        by_key: bool = False,
        span: Span = ALL,
    ) -> Iterator[Item]:
        """All entries with keys in a span that stay in the store while it runs, each once, in order of creation or key.

        Entries created after the first step are not visited. Without `values` the blobs are empty.
        """

    @abc.abstractmethod
    def labelled(self, label: bytes) -> Iterator[Item]:
        """All entries that have this label while it runs, each once, in order of creation. The blobs are empty.

        Entries created after the first step are not visited; to those that get or lose the label meanwhile either may
        happen.
        """

    @abc.abstractmethod
    def labels(self) -> list[bytes]:
        """The labels that entries have which are not over, in order of their bytes."""

    # Writing

    @abc.abstractmethod
    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None = None, when: Condition = ANY,
        label: bytes = b"",
    ) -> Receipt | None:  # fmt: skip
        """Set one entry; see `Transaction.put`."""

    @abc.abstractmethod
    def delete(self, kb: bytes, when: Condition = ANY) -> Receipt | None:
        """Remove one entry; None if there was nothing to remove."""

    @abc.abstractmethod
    def update(self, work: Callable[[Transaction], T], *, size: int = 1, whole: bool = False) -> T:
        """Run `work` in one transaction and return what it returns.

        `size` is about how many entries it writes: a store may have another way for many. `whole` allows `clear` and
        `set_info` within it, and may cost more.
        """

    # Upkeep

    @abc.abstractmethod
    def expire(self, budget: int, after: bytes = b"") -> tuple[int, bytes | None]:
        """Remove entries that are over, looking at about `budget` entries behind the position `after`.

        Returns how many were removed, and the position to go on from (None: the pass is done).
        """

    @abc.abstractmethod
    def check(self, budget: int, after: bytes = b"") -> tuple[list[str], bytes | None]:
        """Examine about `budget` entries behind the position `after` for damage.

        Returns a sentence for each thing found, and the position to go on from (None: the pass is done).
        """

    def verify(
        self, *, repair: bool = False, pages: bool = False, resume: bytes = b"",
        progress: Callable[[int, int], object] | None = None,
    ) -> Report:  # fmt: skip
        """The integrity pass, see `PersistDict.verify`; this one is for stores that have nothing to repair."""
        faults: list[Fault] = []
        position: bytes | None = resume
        while position is not None:
            found, position = self.check(1 << 10, position)
            faults += [Fault("entry", "", sentence) for sentence in found]
            if progress is not None and progress(0, 0) is False:
                break
        return Report(self.count(), tuple(faults), 0, 0, tuple(faults), position)

    def quarantined(self) -> Iterator[Quarantined]:
        """What a repair has moved out of the way, oldest first."""
        return iter(())

    @property
    def damage(self) -> str:
        """What is wrong with the whole store, so that nothing is written; "" if nothing is."""
        return ""

    def sync(self) -> None:  # most stores have nothing to wait for
        """Make durable what was written before, by whatever handle or process."""

    def confirm(self, commit: int) -> None:  # most stores promise nothing more
        """Wait until this handle's commit of that id is durable, if the handle promises so; the id is a receipt's.

        If it cannot be made durable, it is undone (unless it was overwritten meanwhile) and the error is raised.
        """

    def waive(self, commit: int) -> None:  # most stores promise nothing more
        """Do without `confirm` for a commit: it becomes durable with the next one, if at all."""

    def on_unsynced(self, call: Callable[[float], bool]) -> None:  # see `sync`
        """Have `call(seconds)` called when something was written that `sync` should make durable within so long.

        It tells whether it will see to that; else writers do, at their next write.
        """

    def backup(self, path: str) -> int:
        """Make a store of its own at `path` that holds what this one holds at one moment; tells its size in bytes."""
        raise Unsupported(f"{self.place}: this engine makes no backups")

    def compact(self, timeout: float) -> int:
        """Give unused space back, tells how many bytes. Waits so many seconds for others to let go of the store."""
        raise Unsupported(f"{self.place}: this engine has no space to give back")

    def tidy(self) -> None:  # most stores have nothing to tidy
        """Free what users that died have left behind."""

    def turn(self) -> Generator[None, None, None]:
        """From its `next` to its `close`, no other thread or process that shares the store has it; plain writes go on.

        Not a context manager: `close` may be called at any time, also if Ctrl-C has interrupted the beginning.

        Raises BusyError if it took too long to come in, NestedWriteError within one of the same thread.
        """
        raise Unsupported(f"{self.place}: this engine has no transactions over several calls")

    def lease(self, purpose: str) -> bool:
        """Whether this process is the one that does the work of this purpose, of all that share the store.

        It stays so until the store is closed, or the process dies.
        """
        return True

    def on_reopen(self, call: Callable[[], None]) -> None:  # most stores never reopen
        """Have `call` called whenever the store was opened again in a forked child."""

    def is_entered(self) -> bool:
        """Whether this thread is inside the store, holding a lock of it: then a finaliser must not wait for others."""
        return False

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the store; the last handle frees its resources. May be called again."""
