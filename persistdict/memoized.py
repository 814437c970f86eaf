"""Functions whose results are kept in a dictionary.

A result lies under the text `name#digest`: the name of the function, and the digest of the arguments as canonical.py
writes them, each after the name of its parameter, behind the version. So all entries of a function are one range of
keys, whatever its arguments.

For arguments of plain types the keys used last are remembered, so that a hit takes a look into a dict and one into the
dictionary.
"""

from collections.abc import Callable
from functools import partial, update_wrapper
from itertools import islice
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar, cast, overload

from persistdict.binding import Binding, is_async
from persistdict.canonical import PLAIN, Canonical, digest
from persistdict.creation import Creation, raise_in_transaction
from persistdict.errors import KeyTypeError, Unsupported
from persistdict.making import Terms
from persistdict.spans import Span
from persistdict.statistics import Counter
from persistdict.store import Transaction

__all__ = ["CacheInfo", "Memoized", "Plan"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")

BATCH = 1024  # entries that one transaction removes
MAX_KNOWN, MAX_LENGTH = 1024, 1024  # calls whose keys are remembered, and of how many characters at most
DIGITS = 32  # of a digest


class CacheInfo(NamedTuple):
    """What `cache_info` of a memoized function returns: counts of this process.

    Attributes:
        hits: calls for which the result was there.
        misses: calls for which it was not.
        computed: how often the function itself was called, and returned: for a miss, early, or by `refresh`. Misses
            that got the result of another call are not in it.
    """

    hits: int
    misses: int
    computed: int


class Plan(NamedTuple):
    """How results are kept: the name ("" if `key` gives the whole key), what makes the keys, and on what terms."""

    name: str
    version: Any
    binding: Binding | None
    key: Callable[..., Any] | None
    typed: bool
    terms: Terms


class Memoized(Generic[P, R]):
    """A function whose results are kept in a dictionary; see `PersistDict.memoize`, which makes it.

    It is called as the function is, and works as a method. `__wrapped__` is the function itself.

    Threads and tasks: any number may call one. Processes: it can be pickled where the function can.
    """

    __wrapped__: Callable[P, R]

    def __init__(self, home: Creation[Any, Any], function: Callable[P, R], plan: Plan, canonical: Canonical) -> None:
        update_wrapper(self, function)
        self._home, self._plan, self._canonical = home, plan, canonical
        self._skip = int(plan.binding is not None and plan.binding.skip)
        self._known: dict[Any, str] = {}
        self._hits, self._misses, self._computed = Counter(), Counter(), Counter()
        self._is_async = is_async(function)
        self._is_plain = not self._is_async and not plan.terms.early
        self._read: Any = home.__getitem__  # type: ignore[index]
        if self._is_async:
            _mark_as_coroutine_function(self)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        key = None
        if not kwargs:
            shown = args[1:] if self._skip else args
            call = (shown, *map(type, shown))
            try:
                key = self._known.get(call)
            except TypeError:  # not hashable
                pass
        if key is None:
            key = self._key(args, kwargs)
        if self._is_plain:
            try:
                value = self._read(key)
            except KeyError:
                pass
            else:
                for _ in self._hits:  # next(self._hits), without the cost of a call
                    break
                return value  # type: ignore[no-any-return]
        return self._call(key, args, kwargs)  # type: ignore[no-any-return]

    def _call(self, key: Any, args: Any, kwargs: Any) -> Any:
        if self._is_async:
            return self._acall(key, args, kwargs)
        found = None if self._is_plain else self._home._find(key, self._plan.terms)
        next(self._misses if found is None else self._hits)
        return self._home._made(found, key, partial(self._compute, args, kwargs), self._plan.terms)

    async def _acall(self, key: Any, args: Any, kwargs: Any) -> Any:
        found = self._home._find(key, self._plan.terms)
        next(self._misses if found is None else self._hits)
        return await self._home._amade(found, key, partial(self._acompute, args, kwargs), self._plan.terms)

    def _compute(self, args: Any, kwargs: Any) -> Any:
        value = self.__wrapped__(*args, **kwargs)
        next(self._computed)
        return value

    async def _acompute(self, args: Any, kwargs: Any) -> Any:
        value = await cast(Any, self.__wrapped__(*args, **kwargs))
        next(self._computed)
        return value

    # Keys

    def cache_key(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """The key under which the result of this call is kept: `d[f.cache_key(1)]`. Raises TypeError as a call does."""
        return self._key(args, kwargs)

    def _key(self, args: Any, kwargs: Any) -> Any:
        plan = self._plan
        if plan.key is not None:
            return plan.key(*args, **kwargs)
        assert plan.binding is not None
        parts = [self._canonical.encode(plan.version)]
        for name, value in plan.binding.bind(args, kwargs):
            try:
                parts += [self._canonical.encode(name), self._canonical.encode(value)]
            except KeyTypeError as error:
                raise KeyTypeError(
                    f"the argument {name} of {plan.name} cannot be part of a key: {error}; leave it out with "
                    f"ignore=({name!r},), or make the key yourself with key="
                ) from error
        key = f"{plan.name}#{digest(b''.join(parts))}"
        if not kwargs:
            self._remember(args[1:] if self._skip else args, key)
        return key

    def _remember(self, shown: Any, key: str) -> None:
        """Remember the key of a call, if equal arguments of these types always have the same key."""
        types = tuple(map(type, shown))
        if PLAIN.issuperset(types) and all(len(value) <= MAX_LENGTH for value in shown if type(value) in (str, bytes)):
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            call = (shown, *types)
            self._known[call] = key

    # What else can be asked of it

    def bypass(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself; nothing is read or stored."""
        return self.__wrapped__(*args, **kwargs)

    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Compute the result anew and store it, whether it is there or not.

        Calls that miss it meanwhile wait for it, and it waits for a computation that was begun before. If somebody sets
        the entry meanwhile by other means, that value stays and is returned. Raises as `get_or_create` does.
        """
        key = self._key(args, kwargs)
        if self._home._in_transaction():
            if self._is_async:
                raise_in_transaction()
            compute = partial(self._compute, args, kwargs)
            return self._home._make_within(key, compute, self._plan.terms, anew=True)  # type: ignore[no-any-return]
        making = self._home._making(key, self._plan.terms, anew=True)
        if self._is_async:
            return cast(R, _refresh(making, partial(self._acompute, args, kwargs)))
        return making.run(partial(self._compute, args, kwargs))  # type: ignore[no-any-return]

    def cache_info(self) -> CacheInfo:
        """How often it was called, and what came of it, in this process."""
        return CacheInfo(self._hits.value(), self._misses.value(), self._computed.value())

    def cache_clear(self) -> int:
        """Remove all results of this function, of every version and, of a method, of every object. Returns how many.

        In batches of about a thousand, each of which is one transaction; results stored meanwhile may stay. The counts
        of `cache_info` go on. Cost: a look at each entry of this function; in a dictionary with a `key_serializer`, at
        every entry.

        Raises Unsupported if the function was memoized with `key=`: then its entries look like others.
        """
        home = self._home
        if self._plan.key is not None:
            raise Unsupported("the entries of a function with key= cannot be told from others; give them a tag=")
        found = self._entries()
        removed = 0
        while kbs := list(islice(found, BATCH)):
            removed += _remove(home, kbs)
        return removed

    def _entries(self) -> Any:
        """The encoded keys of the results."""
        home, prefix = self._home, f"{self._plan.name}#"
        span = home._span
        if home._keys.plain:
            span = Span(*(home._keys.encode(text)[0] for text in (prefix, prefix[:-1] + chr(ord("#") + 1))))
        for item in home._store.scan(values=False, by_key=True, span=span):
            try:
                key = home._keys.decode(item.kb, item.hint)
            except Exception:
                continue  # it is none of ours: these are text
            if isinstance(key, str) and key.startswith(prefix) and len(key) == len(prefix) + DIGITS:
                yield item.kb

    # As an attribute of a class

    @overload
    def __get__(self, instance: None, owner: Any = None) -> "Memoized[P, R]": ...
    @overload
    def __get__(self: "Memoized[Concatenate[Any, Q], R]", instance: object, owner: Any = None) -> "Memoized[Q, R]": ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else _Method(self, instance)

    def __reduce__(self) -> str:
        return str(cast(Any, self).__qualname__)  # as functions are pickled: by name

    def __repr__(self) -> str:
        return f"<memoized {self.__wrapped__!r}>"


class _Method(Memoized[P, R]):
    """A memoized function with its first argument."""

    __slots__ = ("__self__",)

    def __init__(self, function: Memoized[Any, R], instance: Any) -> None:
        self.__dict__ = function.__dict__  # the counts, too, are those of the function
        self.__self__ = instance

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return Memoized.__call__(cast(Any, self), self.__self__, *args, **kwargs)  # type: ignore[no-any-return]

    def cache_key(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """As of the function."""
        return self._key((self.__self__, *args), kwargs)

    def bypass(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """As of the function."""
        return Memoized.bypass(cast(Any, self), self.__self__, *args, **kwargs)  # type: ignore[no-any-return]

    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """As of the function."""
        return Memoized.refresh(cast(Any, self), self.__self__, *args, **kwargs)  # type: ignore[no-any-return]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self

    def __reduce__(self) -> Any:
        return getattr, (self.__self__, cast(Any, self).__name__)


async def _refresh(making: Any, compute: Any) -> Any:
    from persistdict import awaiting

    return await awaiting.run(making, compute)


def _remove(home: Creation[Any, Any], kbs: list[bytes]) -> int:
    """Remove entries in one transaction. Tells how many there were."""
    counts = [0]

    def work(txn: Transaction) -> int:
        counts[0] = sum(txn.discard(kb) for kb in kbs)
        return txn.id()

    # To the front it is as a commit of others: it cannot tell which of its copies the keys have.
    home._write(lambda: home._store.update(work, size=len(kbs)), lambda front, commit: None)
    home._tally.deletes.add(counts[0])
    return counts[0]


def _mark_as_coroutine_function(thing: Any) -> None:
    """Let `inspect` or, before Python 3.12, asyncio take an object for a coroutine function."""
    import inspect

    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is not None:
        mark(thing)
    else:
        from asyncio import coroutines

        thing._is_coroutine = getattr(coroutines, "_is_coroutine", None)
