"""The decorator that keeps the results of a function; what it makes of one is in decorating.py and memoized.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from persistdict.core import MISSING
from persistdict.creation import Creation

if TYPE_CHECKING:
    from persistdict.memoized import Memoized

__all__ = ["Memoizing"]

K = TypeVar("K")
V = TypeVar("V")
P = ParamSpec("P")
R = TypeVar("R")


class Memoizing(Creation[K, V]):
    """The part of a dictionary that keeps the results of functions."""

    @overload
    def memoize(self, function: Callable[P, R], /) -> Memoized[P, R]: ...
    @overload
    def memoize(
        self,
        /,
        *,
        ttl: float | timedelta | None = ...,
        tag: str | None = ...,
        ignore: Iterable[str] = ...,
        key: Callable[..., Any] | None = ...,
        name: str | None = ...,
        version: Any = ...,
        typed: bool = ...,
        cache_if: Callable[[Any], bool] | None = ...,
        early: float = ...,
        timeout: float | None = ...,
        lease: float = ...,
    ) -> Callable[[Callable[P, R]], Memoized[P, R]]: ...
    def memoize(
        self,
        function: Any = None,
        /,
        *,
        ttl: float | timedelta | None = MISSING,
        tag: str | None = None,
        ignore: Iterable[str] = (),
        key: Callable[..., Any] | None = None,
        name: str | None = None,
        version: Any = None,
        typed: bool = False,
        cache_if: Callable[[Any], bool] | None = None,
        early: float = 0.0,
        timeout: float | None = None,
        lease: float = 30.0,
    ) -> Any:
        """Keep the results of a function: `@d.memoize` or `@d.memoize(ttl=60)`, also on methods and `async def`.

        Of all threads, tasks and processes that miss the same result at once, one computes it; see `get_or_create`.
        Exceptions are not kept. Every caller gets an object of his own.

        Calls with the same arguments have one entry, be they given by position, by name or by default. They may be of
        any type that the safe codec stores, members of an Enum, dataclasses, named tuples and classes; dicts are equal
        in any order. Equal numbers are alike, as for a dict. Others raise TypeError, which names the parameter. So does
        an object whose method it is, unless it can be such an argument or `ignore=("self",)` leaves it out.

        Entries are found by the name of the function with its module, so they are there in the next run and in other
        processes; a function that was changed gets the results of the old one, unless `version` differs.

        Args:
            ttl, tag: as for `set`.
            ignore: names of parameters that make no difference; also of keywords that a `**` parameter takes.
            key: called with the arguments of a call, returns the whole key of its entry; instead of `ignore`, `name`,
                `version` and `typed`. With a function that others have too they share their entries.
            name: what stands for the name of the function. Needed for lambdas, and for functions that use variables of
                a function around them: two of them would not be told apart.
            version: any value that a key can be made of; with another one nothing of before is found.
            typed: tell 1, 1.0 and True apart, and sets from frozensets.
            cache_if: is given the result and tells whether to keep it.
            early, timeout, lease: as for `get_or_create`.

        Returns what is called as the function is, with its signature for type checkers, and has beside that

            __wrapped__         the function itself
            cache_key(...)      the key of the entry of a call
            bypass(...)         calls the function; nothing is read or stored
            refresh(...)        computes the result anew, and stores it
            cache_info()        hits, misses and computations in this process
            cache_clear()       removes all results of the function, and tells how many

        Raises ValueError for names that are no parameters, names that are not unique and options that exclude each
        other, TypeError for what is no function, or one that gives a generator.

        Cost of a hit: that of `d[key]`, and a look into a dict where all arguments are given by position and are
        numbers, None, or short str or bytes; else the arguments are written out and digested.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://")
        >>> @d.memoize(ignore=("verbose",))
        ... def double(x, verbose=False):
        ...     print("computing")
        ...     return 2 * x
        >>> double(4), double(x=4, verbose=True)
        computing
        (8, 8)
        >>> double.cache_info()
        CacheInfo(hits=1, misses=1, computed=1)
        >>> d[double.cache_key(4)], double.cache_clear(), len(d)
        (8, 1, 0)
        """
        terms = self._terms(ttl, tag, timeout, lease, early, cache_if)
        if isinstance(ignore, str):
            raise TypeError("ignore must be several names, such as ('self',), not one str")
        from persistdict.decorating import Plan, decorated  # which needs modules that are slow to import

        plan, names = Plan(name or "", version, None, key, typed, terms), tuple(ignore)

        def decorate(function: Any) -> Any:
            return decorated(self, function, plan, names)

        return decorate if function is None else decorate(function)
