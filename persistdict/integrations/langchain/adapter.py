"""What the adapters have in common."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from typing_extensions import Self

from persistdict.dictionary import PersistDict
from persistdict.errors import KeyTypeError, ValueTypeError, withheld

__all__ = ["BATCH", "Adapter", "Source", "strings"]

Source = PersistDict[Any, Any] | str | os.PathLike[str]
BATCH = 512  # keys removed in one transaction, or fetched in one go


class Adapter:
    """Holds the PersistDict of an adapter, and closes it if the adapter opened it.

    `sample` is a value of the kind that the adapter stores: a codec that cannot keep it is refused at once, not after
    a model was paid for an answer.
    """

    def __init__(self, cache: Source, sample: Any) -> None:
        self._opened_here = not isinstance(cache, PersistDict)
        self._dict: PersistDict[Any, Any] = cache if isinstance(cache, PersistDict) else PersistDict(cache)
        if self._opened_here:
            return
        if self._dict._options.key_serializer is not None:
            raise ValueError("the keys of a LangChain adapter are tuples: use a PersistDict without key_serializer")
        try:
            kept = self._dict.codec.decode(*self._dict.codec.encode(sample))
        except Exception as error:  # a codec may be anybody's code
            raise ValueTypeError(f"{type(self).__name__} stores values that this codec refuses") from withheld(error)
        if type(kept) is not type(sample):
            raise ValueTypeError(f"{type(self).__name__} stores values that this codec returns as something else")

    def close(self) -> None:
        """Close the PersistDict if it was opened from a path by this adapter. May be called again."""
        if self._opened_here:
            self._dict.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __bool__(self) -> bool:
        """True, also when nothing is stored: callers ask `if cache:` to find out whether there is one."""
        return True

    def _own_keys(self, *prefix: str) -> Iterator[Any]:
        """The keys of three str that begin with `prefix`. Reads all keys of the PersistDict."""
        for key in self._dict:
            if isinstance(key, tuple) and len(key) == 3 and key[: len(prefix)] == prefix and isinstance(key[2], str):
                yield key


def strings(texts: Iterable[str]) -> list[str]:
    """A list of str. A lone str is refused: it would be taken for its letters."""
    if isinstance(texts, str):
        raise KeyTypeError("give a list of str, not one str")
    texts = list(texts)
    for text in texts:
        if not isinstance(text, str):
            raise KeyTypeError(f"keys and texts must be str, not {type(text).__qualname__}")
    return texts
