"""Tags: entries that belong together are listed and removed together.

In the stores a tag is called a label, see store.py. Messages never contain one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar

from persistdict.core import Core
from persistdict.errors import DecodeError
from persistdict.store import Transaction

__all__ = ["MAX_TAG_SIZE", "Tags", "label_of", "tag_of"]

K = TypeVar("K")
V = TypeVar("V")

MAX_TAG_SIZE = 255  # bytes
BATCH = 1024  # entries that one transaction removes


def label_of(tag: Any) -> bytes:
    """The bytes of a tag. Raises TypeError or ValueError for what is none."""
    if not isinstance(tag, str):
        raise TypeError(f"a tag must be a str, not {type(tag).__qualname__}")
    try:
        label = str.encode(tag)
    except UnicodeEncodeError:
        raise ValueError("a tag must be text: this one has lone surrogates") from None  # the cause shows the tag
    if not 0 < len(label) <= MAX_TAG_SIZE:
        raise ValueError(f"a tag must have 1 to {MAX_TAG_SIZE} bytes in UTF-8, not {len(label)}")
    return label


def tag_of(label: bytes) -> str:
    """The tag that is stored as these bytes. Raises DecodeError for what is none."""
    try:
        return label.decode()
    except UnicodeDecodeError:
        raise DecodeError("the tag of an entry is no text") from None


class Tags(Core[K, V]):
    """The part of a dictionary that deals with tags. An entry gets its tag by `set` or `set_many`."""

    def tagged(self, tag: str) -> Iterator[K]:
        """The keys of the entries that have this tag, in order of insertion; does not count as a read of them.

        No lock and no snapshot is held between two keys. Entries added meanwhile are not visited. Cost: a look at each
        entry that has the tag, and one at all recent writes for some hundreds of them.

        Raises TypeError or ValueError for what is no tag.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.set("a", 1, tag="news")
        >>> d.set("b", 2)
        >>> list(d.tagged("news")), d.tags(), d.entry("a").tag
        (['a'], ['news'], 'news')
        """
        return self._iter_keys(False, label_of(tag))

    def tags(self) -> list[str]:
        """The tags of all entries, sorted. Cost: a look at one entry of each tag, and at all recent writes.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.set("a", 1, tag="news")
        >>> d.tags()
        ['news']
        """
        found = []
        for label in self._store.labels():
            if any(self._labelled(label)):
                try:
                    found.append(tag_of(label))
                except DecodeError as error:
                    self._warn_passed_over(error)
        return found

    def evict(self, *, tag: str) -> int:
        """Remove all entries that have this tag. Returns how many.

        In batches of about a thousand, each of which is one transaction; readers and writers go on in between. Whether
        an entry still has the tag is decided again in the transaction that removes it: one that was set anew meanwhile
        with another tag, or with none, stays. Entries added meanwhile may stay.

        Raises TypeError or ValueError for what is no tag; StoreError or DiskFullError, after which what was removed
        before stays removed.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> d.set_many({"a": 1, "b": 2}, tag="news")
        >>> d.evict(tag="news"), len(d)
        (2, 0)
        """
        label = label_of(tag)
        found = self._labelled(label)
        removed = 0
        while kbs := [item.kb for item in islice(found, BATCH)]:
            removed += self._remove_labelled(label, kbs)
        return removed

    def _remove_labelled(self, label: bytes, kbs: list[bytes]) -> int:
        counts = [0]

        def work(txn: Transaction) -> int:
            counts[0] = sum(txn.discard(kb, label) for kb in kbs)
            return txn.id()

        # To the front it is as a commit of others: it cannot tell which of its copies the keys have.
        self._write(lambda: self._store.update(work, size=len(kbs)), lambda front, commit: None)
        self._tally.deletes.add(counts[0])
        return counts[0]
