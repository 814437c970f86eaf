"""The default cache in front of a dictionary: lmdb-dict's LRUCache128 with its items in an OrderedDict.

Imported when the first dictionary is opened, because lmdb-dict and cachetools are slow to import.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from lmdb_dict.cache import LRUCache128

__all__ = ["FastLRUCache128"]


class FastLRUCache128(LRUCache128):  # type: ignore[misc]
    """The 128 least recently used items, every one of size 1.

    cachetools keeps its items behind Python code; here a lookup is one call of C. `entries` is public so that a
    caller who validates items anyway can do without a method call: `entries.get`, `entries.move_to_end`.

    Threads: single operations on `entries` are atomic; the methods of the cache need a lock.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries: OrderedDict[Any, Any] = OrderedDict()

    def __getitem__(self, key: Any) -> Any:
        value = self.entries[key]
        self.entries.move_to_end(key)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        entries = self.entries
        if key not in entries and len(entries) >= self.maxsize:
            entries.popitem(last=False)
        entries[key] = value
        entries.move_to_end(key)

    def __delitem__(self, key: Any) -> None:
        del self.entries[key]

    def __contains__(self, key: Any) -> bool:
        return key in self.entries

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self.entries))

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def currsize(self) -> int:
        return len(self.entries)

    def popitem(self) -> tuple[Any, Any]:
        """Remove and return the item that was not used for longest."""
        try:
            return self.entries.popitem(last=False)
        except KeyError:
            raise KeyError(f"{type(self).__name__} is empty") from None
