"""Everything that can be done with a dictionary, done with keys and values that must be seen nowhere else.

A canary is a random text, or a number of many digits. It is used as key, value, tag, item, priority, argument, part of
a prefix, name of a space or a queue, and as what the objects and the errors of the caller say of themselves. All the
while every place is watched in which something could be told: loguru (with backtrace and diagnose) or logging,
warnings, stdout and stderr, what threads raise, and of every error its text, its arguments, and those of all errors
that are displayed with it.

Not counted is what has to show it: `KeyError(key)`, the repr of a dictionary, which shows entries as dict does, and of
other handles, which show the names that they were given; and an error of the caller's own that comes straight out.

    canary.py FOLDER STATE SINK      STATE: see STATES; SINK: loguru or logging
"""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import os
import pickle
import queue
import random
import secrets
import shutil
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any

from drivers.running import finish

import persistdict
from persistdict import ANY, DELETE, Memoized, PersistDict, SafeCodec
from persistdict.jobs import Job
from persistdict.keys import TEXT as KEY_OF_TEXT
from persistdict.log import Log
from persistdict.maintenance import keeper_of
from persistdict.queues import PersistQueue
from persistdict.transactions import Transacted
from persistdict.views import View

TEXT = "canary" + secrets.token_hex(12)
NUMBER = 10**40 + secrets.randbelow(10**39)
RAW = TEXT.encode()
SIGNS = [
    TEXT[6:],
    RAW[6:].hex(),
    base64.b64encode(RAW[6:])[:-4].decode(),
    ", ".join(map(str, RAW[6:])),
    str(NUMBER),
    f"{NUMBER:x}",
    NUMBER.to_bytes(20, "little").strip(b"\0").hex(),
]


class OwnError(Exception):
    """An error of the caller's."""


class Unknown:
    """A type that no codec knows and that shows what it is."""

    def __repr__(self) -> str:
        return TEXT


class Known:
    """A type that is registered; what is in the file cannot be made one again."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def revive(parts: Any) -> Any:
    raise OwnError(parts)


class BadCodec:
    """A codec whose errors hold what they were about."""

    name = "bad"

    def dumps(self, value: Any) -> bytes:
        if isinstance(value, Unknown):
            raise OwnError(value)
        return pickle.dumps(value)

    def loads(self, blob: bytes) -> Any:
        raise KeyError(blob) if random.random() < 0.5 else OwnError(blob)


def make_codec() -> SafeCodec:
    codec = SafeCodec()
    codec.register(Known, str, revive, name="known")
    return codec


def fail(*_: Any, **__: Any) -> Any:
    raise OwnError(TEXT, NUMBER)


KEYS: list[Any] = [TEXT, RAW, NUMBER, (TEXT, 1, (NUMBER, RAW)), TEXT * 40, "\ud800" + TEXT]
BAD_KEYS: list[Any] = [Unknown(), [TEXT], (TEXT, Unknown()), {TEXT: 1}]
VALUES: list[Any] = [
    TEXT,
    RAW,
    NUMBER,
    [TEXT],
    {TEXT: NUMBER},
    {TEXT},
    (RAW, "\ud800" + TEXT),
    TEXT * 2000,
    Known(TEXT),
]
BAD_VALUES: list[Any] = [Unknown(), [Unknown()], {1: (TEXT, Unknown())}, (lambda: TEXT), memoryview(RAW)]
KEY, VALUE = TEXT, [TEXT, NUMBER]


# What is done. Each yields what to call, one thing at a time.

Calls = Iterator[Callable[[], Any]]


def mapping_operations() -> dict[str, Callable[[Any], Calls]]:
    """What can be done with a dictionary or a part of one, by the name of the method."""

    def sets(d: Any) -> Calls:
        for key in KEYS:
            for value in VALUES:
                yield lambda key=key, value=value: d.__setitem__(key, value)
        for value in BAD_VALUES:
            yield lambda value=value: d.__setitem__(KEY, value)
            yield lambda value=value: d.set(KEY, value)
            yield lambda value=value: d.update({1: 2, KEY: value})
        for key in BAD_KEYS:
            yield lambda key=key: d.__setitem__(key, VALUE)

    def per_key(method: str, *arguments: Any, **options: Any) -> Callable[[Any], Calls]:
        def calls(d: Any) -> Calls:
            for key in (*KEYS, *BAD_KEYS, "absent" + TEXT):
                yield lambda key=key: getattr(d, method)(key, *arguments, **options)

        return calls

    def all_of(*made: Callable[[Any], Any]) -> Callable[[Any], Calls]:
        def calls(d: Any) -> Calls:
            for make in made:
                yield lambda make=make: make(d)

        return calls

    def factories(d: Any) -> Calls:
        yield lambda: d.get_or_create(KEY, lambda: VALUE)
        yield lambda: d.get_or_create("new" + TEXT, lambda: VALUE, ttl=60, early=0.1)
        yield lambda: d.get_or_create("more" + TEXT, fail)
        yield lambda: d.get_or_create("more" + TEXT, Unknown)
        yield lambda: d.get_or_create("more" + TEXT, lambda: d.get_or_create("more" + TEXT, lambda: 1))

    def memoize(d: Any) -> Calls:
        yield from memoized_calls(d)

    return {
        "__setitem__": sets,
        "__getitem__": per_key("__getitem__"),
        "__delitem__": per_key("__delitem__"),
        "__contains__": per_key("__contains__"),
        "__iter__": all_of(list, lambda d: list(reversed(d)), len, bool, dict, lambda d: d == {KEY: VALUE}),
        "__or__": all_of(lambda d: d | {KEY: VALUE}, lambda d: {KEY: VALUE} | d, lambda d: d.__ior__({KEY: VALUE})),
        "__call__": all_of(lambda d: d({KEY: VALUE}), lambda d: d(**{TEXT: NUMBER})),
        "__enter__": all_of(lambda d: d.__enter__()),
        "get": per_key("get", TEXT),
        "set": per_key("set", VALUE, tag=TEXT, ttl=60),
        "add": per_key("add", VALUE, tag=TEXT),
        "setdefault": per_key("setdefault", VALUE),
        "incr": per_key("incr"),
        "touch": per_key("touch"),
        "entry": per_key("entry"),
        "get_versioned": per_key("get_versioned"),
        "replace": all_of(
            lambda d: d.replace(KEY, VALUE, if_version=ANY),
            lambda d: d.replace(KEY, VALUE, if_version=7),
            lambda d: d.replace(KEY, VALUE, if_version=TEXT),
            lambda d: d.replace(KEY, Unknown(), if_version=ANY),
        ),
        "transform": all_of(
            lambda d: d.transform(KEY, lambda value: VALUE),
            lambda d: d.transform(KEY, fail),
            lambda d: d.transform(KEY, lambda value: Unknown()),
            lambda d: d.transform("other" + TEXT, lambda value: DELETE),
        ),
        "pop": per_key("pop"),
        "popitem": all_of(lambda d: d.popitem()),
        "update": all_of(
            lambda d: d.update({KEY: VALUE}, **{TEXT: NUMBER}),
            lambda d: d.update([(KEY, VALUE), TEXT]),
            lambda d: d.update([(KEY,)]),
            lambda d: d.update(Unknown()),
            lambda d: d.update({str(n): TEXT * 1000 for n in range(50)}),
        ),
        "get_many": all_of(lambda d: d.get_many([*KEYS]), lambda d: d.get_many([KEY, Unknown()])),
        "set_many": all_of(
            lambda d: d.set_many({KEY: VALUE}, tag=TEXT, ttl=60),
            lambda d: d.set_many([(KEY, Unknown())]),
            lambda d: d.set_many([(KEY, VALUE), TEXT]),
            lambda d: d.set_many({KEY: VALUE}, tag=Unknown()),
        ),
        "delete_many": all_of(lambda d: d.delete_many([KEY, "x"]), lambda d: d.delete_many([Unknown()])),
        "tagged": all_of(lambda d: list(d.tagged(TEXT)), lambda d: list(d.tagged(Unknown()))),
        "tags": all_of(lambda d: d.tags()),
        "evict": all_of(
            lambda d: d.evict(tag=TEXT), lambda d: d.evict(tag=TEXT * 100), lambda d: d.evict(tag=Unknown())
        ),
        "range": all_of(lambda d: list(d.range(TEXT, TEXT + "z")), lambda d: list(d.range(Unknown(), TEXT))),
        "oldest": all_of(lambda d: d.oldest(9), lambda d: d.oldest(TEXT)),
        "newest": all_of(lambda d: d.newest(9)),
        "sample": all_of(lambda d: d.sample(9)),
        "items": all_of(
            lambda d: list(d.items()), lambda d: (KEY, VALUE) in d.items(), lambda d: d.items() & {(KEY, TEXT)}
        ),
        "keys": all_of(lambda d: d.keys() | {KEY}, lambda d: d.keys() ^ {KEY}, lambda d: list(reversed(d.keys()))),
        "values": all_of(lambda d: list(d.values()), lambda d: VALUE in d.values()),
        "copy": all_of(lambda d: d.copy()),
        "fromkeys": all_of(
            lambda d: PersistDict.fromkeys([KEY], VALUE, "memory://"),
            lambda d: PersistDict.fromkeys([Unknown()], VALUE, "memory://"),
        ),
        "get_or_create": factories,
        "aget_or_create": all_of(
            lambda d: asyncio.run(d.aget_or_create("anew" + TEXT, afail)),
            lambda d: asyncio.run(d.aget_or_create("anew" + TEXT, agive)),
            lambda d: asyncio.run(d.aget_or_create(Unknown(), agive)),
        ),
        "memoize": memoize,
        "prefix": all_of(
            lambda d: list(d.prefix(TEXT, NUMBER)), lambda d: d.prefix(Unknown()), lambda d: d.prefix(TEXT)[1]
        ),
        "space": all_of(
            lambda d: d.space(TEXT).update({KEY: VALUE}), lambda d: d.space(Unknown()), lambda d: d.space("")
        ),
        "spaces": all_of(lambda d: d.spaces()),
        "queue": queue_calls,
        "queues": all_of(lambda d: d.queues()),
        "transaction": transaction_calls,
        "quarantined": all_of(lambda d: list(d.quarantined())),
        "verify": all_of(
            lambda d: told(d.verify(progress=lambda *_: False)),
            lambda d: told(d.verify()),
            lambda d: told(d.verify(repair=True)),
            lambda d: told(d.verify(pages=True)) if random.random() < 0.2 else None,
        ),
        "stats": all_of(lambda d: told(d.stats())),
        "flush": all_of(lambda d: d.flush()),
        "expire": all_of(lambda d: d.expire()),
        "maintain": all_of(lambda d: told(d.maintain())),
        "compact": all_of(lambda d: d.compact()),
        "backup": all_of(lambda d: d.backup(f"{d.path}-{secrets.token_hex(4)}"), lambda d: d.backup(d.path)),
        "reseal": all_of(lambda d: d.reseal()),
        "train_dictionary": all_of(
            lambda d: told(d.train_dictionary(size=300)), lambda d: d.train_dictionary(size=TEXT)
        ),
        "path": all_of(lambda d: d.path),
        "name": all_of(lambda d: d.name),
        "mode": all_of(lambda d: d.mode),
        "codec": all_of(lambda d: d.codec),
        "closed": all_of(lambda d: d.closed),
        "clear": all_of(lambda d: d.clear()),
        "close": all_of(lambda d: pickle.dumps(d), lambda d: d.close()),
    }


async def afail() -> Any:
    raise OwnError(TEXT)


async def agive() -> Any:
    return VALUE


def memoized_calls(d: Any) -> Calls:
    for options in ({}, {"typed": True}, {"ttl": 60, "tag": TEXT}, {"key": lambda *args: args}):
        for function in (lambda x: VALUE, lambda x: Unknown(), fail):
            function.__qualname__ = "function"
            with watching("memoize"):
                memoized = d.memoize(**options)(function)
                assert set(public(Memoized)) == set(MEMOIZED), public(Memoized)
                for argument in (TEXT, NUMBER, [TEXT], {TEXT: 1}, Unknown()):
                    yield lambda f=memoized, argument=argument: f(argument)
                    for name in ("cache_key", "bypass", "refresh"):
                        yield lambda f=memoized, name=name, argument=argument: getattr(f, name)(argument)
                yield lambda f=memoized: told(f.cache_info())
                yield lambda f=memoized: f.cache_clear()


MEMOIZED = ("bypass", "cache_clear", "cache_info", "cache_key", "refresh")
JOB = ("ack", "expires_at", "extend", "nack")


def queue_operations(d: Any) -> dict[str, Callable[[Any], Any]]:
    """What can be done with a queue, by the name of the method."""
    memory: queue.Queue[Any] = queue.Queue()
    memory.put(VALUE)
    memory.put(Unknown())

    def leased(q: Any) -> None:
        job = q.get(False, lease=60)
        assert set(public(Job)) == set(JOB), public(Job)
        told(job)
        told(job.expires_at)
        job.extend(10)
        job.nack()
        job.ack()  # it is settled

    def done(q: Any) -> None:
        with q.get(False, lease=60):
            raise OwnError(TEXT)

    return {
        "put": lambda q: [q.put(item, False) for item in (*VALUES, (1, TEXT), (TEXT, VALUE), (NUMBER, RAW))],
        "put_nowait": lambda q: [q.put_nowait(item) for item in BAD_VALUES],
        "put_many": lambda q: q.put_many([VALUE, TEXT, Unknown()]),
        "get": leased,
        "get_nowait": done,
        "peek": lambda q: q.peek(),
        "task_done": lambda q: [q.get(False), q.task_done(), q.task_done(), q.task_done()],
        "join": lambda q: q.unfinished_tasks or q.join(),
        "flush": lambda q: told(q.flush(memory)),
        "ingest": lambda q: q.ingest(queue.Queue(1), 3),
        "qsize": lambda q: q.qsize(),
        "empty": lambda q: q.empty(),
        "full": lambda q: q.full(),
        "unfinished_tasks": lambda q: q.unfinished_tasks,
        "name": lambda q: q.name,
        "order": lambda q: q.order,
        "maxsize": lambda q: q.maxsize,
        "clear": lambda q: q.clear(),
        "remove": lambda q: q.remove(),
    }


def queue_calls(d: Any) -> Calls:
    for order in ("fifo", "lifo", "priority"):
        for maxsize in (0, 2):
            for name, work in queue_operations(d).items():
                yield lambda work=work, order=order, maxsize=maxsize: work(d.queue(TEXT + order, maxsize, order=order))
                assert name in public(PersistQueue)
    yield lambda: d.queue(TEXT, order="lifo").put(1)
    yield lambda: d.queue(TEXT, order=TEXT)
    yield lambda: d.queue(Unknown())


def transaction_calls(d: Any) -> Calls:
    def whole() -> None:
        with d.transaction() as t:
            watch_all("transaction", t, Transacted)

    def conflict() -> None:
        with d.transaction() as t:
            t.get(KEY)
            thread = threading.Thread(target=attempt, args=("conflict", lambda: d.__setitem__(KEY, [TEXT])))
            thread.start()
            thread.join()
            t[KEY] = VALUE

    def undone() -> None:
        with d.transaction() as t:
            t[KEY] = VALUE
            raise OwnError(TEXT)

    def after() -> None:
        with d.transaction() as t:
            t[KEY] = VALUE
        t[KEY]

    def within() -> Iterator[int]:
        with d.transaction() as t:
            t[KEY] = VALUE
            yield 1

    yield from ((lambda: None) if isinstance(d, Transacted) else whole, conflict, undone, after)
    yield lambda: list(within())


# What is seen

hits: list[str] = []
met: Counter[str] = Counter()
calls = 0
seen: list[str] = []  # what was told since it was last looked at


def public(cls: type) -> list[str]:
    """The methods and attributes that a class offers, also by operators."""
    common = set(dir(object)) | set(dir(type(cls)))
    operators = {"__getitem__", "__setitem__", "__delitem__", "__contains__", "__iter__", "__or__", "__call__"}
    return [
        name
        for name in dir(cls)
        if not name.startswith("_") or (name in operators and name not in common and cls is PersistDict)
    ]


def told(thing: object) -> None:
    """What shows something without being asked for entries: reports, statistics, jobs."""
    seen.append(f"{thing!r} {thing}")


def watch(text: str, what: str) -> None:
    for sign in SIGNS:
        at = text.lower().find(sign.lower())
        if at >= 0:
            hits.append(f"{what}: ...{text[max(0, at - 300) : at + 100]}")
            return


def errors_shown(error: BaseException) -> list[BaseException]:
    """An error and those that are displayed with it."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__cause__, None if one.__suppress_context__ else one.__context__]
    return found


def attempt(what: str, call: Callable[[], Any]) -> None:
    """Do something, and look at all that is said of it."""
    global calls
    calls += 1
    with watching(what):
        try:
            call()
        except Exception as error:
            met[type(error).__name__] += 1
            if not isinstance(error, OwnError) and type(error) is not KeyError:
                seen.extend(traceback.format_exception(error))
                seen.extend(f"{one} {one!r} {one.args!r}" for one in errors_shown(error))


@contextmanager
def watching(what: str) -> Iterator[None]:
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield
    seen.extend(f"{warning.message} {warning}" for warning in warned)
    watch(out.getvalue() + "\n".join(seen), what)
    seen.clear()


def watch_all(what: str, d: Any, cls: type) -> None:
    """Do everything that a handle offers, which closes it at the end."""
    operations = mapping_operations()
    uncovered = set(public(cls)) - set(operations)
    if uncovered:
        hits.append(f"not covered of {cls.__name__}: {sorted(uncovered)}")
    for name, made in operations.items():
        if hasattr(cls, name) and not (cls is not PersistDict and name in ("close", "fromkeys")):
            for call in made(d):
                attempt(f"{what} {name}", call)


# The states that a dictionary may be in


def opened(path: str, **options: Any) -> PersistDict[Any, Any]:
    return PersistDict(path, **{"verbose": True, "background_thread": "disabled", "codec": make_codec(), **options})


def filled(path: str, **options: Any) -> PersistDict[Any, Any]:
    d = opened(path, **options)
    with suppress(Exception):
        for number, key in enumerate(KEYS):
            d.set(key, VALUES[number % len(VALUES)], tag=TEXT, ttl=3600)
            d.space(TEXT)[key] = VALUE
            d[TEXT, number] = Known(TEXT)
        d.queue(TEXT).put_many(VALUES)
        d.flush()
    return d


def harm(d: PersistDict[Any, Any], names: str) -> None:
    """Change a byte in every row of these databases, behind the store's back."""
    env = d._store.env  # type: ignore[attr-defined]

    def work(txn: Any) -> None:
        for name in names:
            db = env.dbs[name]
            for key, value in [(bytes(key), bytes(value)) for key, value in txn.cursor(db)]:
                at = len(value) // 2
                txn.put(key, value[:at] + bytes((value[at] ^ 0x55,)) + value[at + 1 :] if value else b"x", db=db)

    env.data.update(work)


def sound(path: str) -> Iterator[Any]:
    yield filled(path)
    yield filled(path + "2", key_size_limit=8, durability="commit", caching=False)
    yield filled("memory://named")
    d = filled(path + "3")
    yield d.space(TEXT)
    yield d.prefix(TEXT)
    d.close()


def background(path: str) -> Iterator[Any]:
    """With a thread at work, and upkeep that fails with an error that shows what it was about."""
    yield filled(path, background_thread=True, background_timeout=0.001, sync_interval=0.001)
    d = filled(path + "2")
    for name in ("expire", "sync", "check", "flush_touched"):
        setattr(d._store, name, fail)
        attempt("upkeep", lambda: keeper_of(d._store).run_now(d._charge))
        attempt("upkeep", lambda: told(d.stats()))
        attempt("upkeep", lambda: d.expire())
        attempt("upkeep", lambda: keeper_of(d._store).raise_error())
        delattr(d._store, name)
    yield d


def damaged(path: str) -> Iterator[Any]:
    for number, names in enumerate(("e", "k", "v", "x", "t", "p", "a", "ekv")):
        place = f"{path}{number}"
        d = filled(place, caching=bool(number % 2))
        attempt("harm", lambda d=d, names=names: harm(d, names))
        yield d
        attempt("again", lambda place=place: opened(place).close())
        attempt("salvage", lambda place=place: told(persistdict.salvage(place, place + "-s", deep=True)))


def torn(path: str) -> Iterator[Any]:
    """Pages of the files overwritten, with what is on other pages and with other bytes."""
    for number in range(6):
        place = f"{path}{number}"
        filled(place).close()
        name = os.path.join(place, "data.mdb")
        with open(name, "r+b") as file:
            size = os.path.getsize(name) // 4096
            for _ in range(3):
                file.seek(random.randrange(2, size) * 4096)
                content = file.read(4096)
                file.seek(random.randrange(2, size) * 4096 + random.randrange(0, 4000))
                file.write(content[:64] if number % 2 else RAW)
        try:
            d = opened(place)
        except Exception as error:
            attempt("open", lambda error=error: raise_again(error))
        else:
            yield d
        attempt("salvage", lambda place=place: told(persistdict.salvage(place, place + "-s", deep=True)))


def raise_again(error: Exception) -> None:
    raise error


def undecodable(path: str) -> Iterator[Any]:
    """What one codec wrote, read by one that cannot; and codecs of the caller's that fail."""
    d = filled(path)
    for kb in (KEY_OF_TEXT + b"\xff" + RAW, b"\xfe" + RAW, KEY_OF_TEXT + RAW + b"\xff"):  # keys that are none
        attempt("plant", lambda kb=kb: d._store.put(kb, b"", 1, RAW))
    for find in (lambda: d.newest(1), lambda: d.oldest(99), lambda: d.popitem(), lambda: d.sample(99), lambda: list(d)):
        attempt("keys", find)
    d.close()
    for options in ({"codec": SafeCodec()}, {}):
        yield opened(path, **options)
    for codec in ("json", "raw", "pickle", BadCodec()):
        attempt("another codec", lambda codec=codec: opened(path, codec=codec, allow_pickle=True))
    yield filled(path + "2", codec=BadCodec())
    yield filled(path + "3", codec="safe", value_serializer=repr, value_unserializer=fail)
    yield filled(path + "4", key_serializer=repr, key_unserializer=fail)
    yield filled(
        path + "5", key_serializer=lambda key: fail() if random.random() < 0.3 else repr(key), key_unserializer=str
    )
    for codec in ("json", "raw", "pickle"):
        d = opened(f"{path}{codec}", codec=codec, allow_pickle=True)
        store: Any = d._store
        for number, blob in enumerate(
            (RAW, b"\xff" + RAW, b'{"' + RAW, pickle.dumps(Unknown())[:-3], b"c" + RAW + b"\nx\n.")
        ):
            kb, hint = d._keys.encode((TEXT, number))
            attempt("plant", lambda store=store, kb=kb, hint=hint, blob=blob: store.put(kb, hint, 32, blob))
        yield d


def read_only(path: str) -> Iterator[Any]:
    filled(path).close()
    yield opened(path, mode="r")
    for mode in ("append", "write_once"):
        yield filled(path + mode, mode=mode)


def closed(path: str) -> Iterator[Any]:
    d = filled(path)
    stored, view = pickle.dumps(d), d.space(TEXT)
    d.close()
    yield d
    yield view
    yield pickle.loads(stored)


def bounded(path: str) -> Iterator[Any]:
    for eviction in ("lru", "lfu", "fifo", "none"):
        yield filled(f"{path}{eviction}", max_entries=3, max_bytes=1 << 16, eviction=eviction)


def full(path: str) -> Iterator[Any]:
    """On a disk that is nearly full; the test has mounted it."""
    for durability in ("interval", "commit"):
        d = filled(path + durability, durability=durability)
        attempt("fill", lambda d=d: [d.__setitem__((TEXT, n), TEXT * 5000) for n in range(1000)])
        attempt("fill", lambda d=d: d.update({(TEXT, -n): TEXT * 500 for n in range(10000)}))
        yield d
        d.close()
        shutil.rmtree(path + durability)


def sealed(path: str) -> Iterator[Any]:
    """With every kind of seal; entries that somebody has changed; other keys than the right ones, canaries too."""
    key, other = RAW[:30] + b"-1", RAW[:30] + b"-2"
    seals: list[dict[str, Any]] = [
        {"compression": "zstd", "encryption_key": key},
        {"compression": "zlib", "signing_key": key},
        {"compression": "lz4"},
    ]
    for number, options in enumerate(seals):
        place = f"{path}{number}"
        d = filled(place, **options)
        told(d._options)
        yield d
        attempt("reopen", lambda place=place: opened(place))
        for option in ("encryption_key", "signing_key"):
            for keys in (other, {1: key}, {0: key, 1: TEXT}, RAW, TEXT, fail):
                attempt("other keys", lambda place=place, one={option: keys}: opened(place, **one))
        d = filled(place + "changed", **options)
        attempt("change", lambda d=d: change(d))
        yield d
    d = filled(path + "rotated", encryption_key={0: key})
    d.close()
    yield opened(path + "rotated", encryption_key={0: key, 1: other})


def change(d: PersistDict[Any, Any]) -> None:
    """Change a byte of every entry below the seal, with a right checksum."""
    store: Any = d._opened()
    for item in [*store.bare.scan()]:
        store.bare.put(item.kb, item.hint, item.tag, item.blob[:-1] + bytes((item.blob[-1] ^ 1,)))


def adapted(path: str) -> Iterator[Any]:
    """Through LangChain's interfaces, with what they cannot keep, and with entries that are something else."""
    from langchain_core.outputs import Generation

    from persistdict.integrations.langchain import CachedEmbeddings, PersistDictCache, PersistDictStore

    class Model:
        """Embeds a text as something that shows it."""

        def embed_documents(self, texts: list[str]) -> list[Any]:
            if len(texts) > 2:
                raise OwnError(texts)
            return [[TEXT] if text == TEXT else [1e300] if text == "large" else [0.5] for text in texts]

        def embed_query(self, text: str) -> Any:
            return self.embed_documents([text])[0]

    d = opened(path, codec="safe")
    attempt("adapter", lambda: PersistDictCache(opened(path + "raw", codec="raw")))
    attempt("adapter", lambda: PersistDictStore(opened(path + "bad", codec=BadCodec()), namespace=TEXT))
    answers, store = PersistDictCache(d), PersistDictStore(d, namespace=TEXT)
    embeddings = CachedEmbeddings(Model(), d, namespace=TEXT)  # type: ignore[arg-type]
    for value in (
        [Generation(text=TEXT)],
        [Generation(text=TEXT, generation_info={"a": Unknown()})],
        [TEXT],
        Unknown(),
    ):
        attempt("answers", lambda value=value: answers.update(TEXT, TEXT, value))
        attempt("answers", lambda: answers.lookup(TEXT, TEXT))
    for pairs in ([(TEXT, RAW)], [(TEXT, TEXT)], [(Unknown(), RAW)], [(RAW, RAW)]):
        attempt("store", lambda pairs=pairs: store.mset(pairs))
        attempt("store", lambda pairs=pairs: store.mget([pairs[0][0]]))
        attempt("store", lambda: list(store.yield_keys(prefix=TEXT)))
        attempt("store", lambda pairs=pairs: store.mdelete([pairs[0][0]]))
    for texts in ([TEXT], ["large"], [TEXT + "a"], [TEXT + "1", TEXT + "2", TEXT + "3"], [Unknown()]):
        attempt("embeddings", lambda texts=texts: embeddings.embed_documents(texts))
        attempt("embeddings", lambda texts=texts: embeddings.embed_query(texts[0]))
    for key in list(d):
        d[key] = TEXT  # which none of them has written
    attempt("answers", lambda: answers.lookup(TEXT, TEXT))
    attempt("store", lambda: store.mget([TEXT]))
    attempt("embeddings", lambda: embeddings.embed_documents([TEXT + "a"]))
    attempt("answers", answers.clear)
    yield d


STATES = [adapted, sound, background, damaged, torn, undecodable, read_only, closed, bounded, full, sealed]


def main(folder: str, state: str, sink: str) -> None:
    if sink == "loguru":
        from loguru import logger

        logger.remove()
        logger.add(seen.append, level=0, backtrace=True, diagnose=True, format="{message} {extra} {exception}")
    else:
        sys.modules["loguru"] = None  # type: ignore[assignment]
        logging.basicConfig(level=0, handlers=[_Handler()])
    threading.excepthook = lambda args: seen.extend(traceback.format_exception(args.exc_value))
    sys.unraisablehook = lambda args: seen.extend(traceback.format_exception(args.exc_value))
    control()
    make = next(one for one in STATES if one.__name__ == state)
    states = make(os.path.join(folder, "d"))
    while True:
        with watching(state):
            d = next(states, None)
        if d is None:
            break
        watch_all(state, d, View if isinstance(d, View) else PersistDict)
        if not isinstance(d, View):
            attempt("close", d.close)
    finish({"hits": len(hits), "first": hits[:5], "calls": calls, "met": dict(met)})


def control() -> None:
    """What watches must see a canary wherever there is one."""

    def in_thread() -> None:
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()

    ways = [
        lambda: print(TEXT),
        lambda: print(NUMBER, file=sys.stderr),
        lambda: warnings.warn(TEXT, stacklevel=1),
        lambda: Log("name", True).info(TEXT),
        lambda: told(RAW),
        lambda: raise_again(ValueError(NUMBER)),
        lambda: raise_again(chained(ValueError("text"), KeyError(RAW))),
        in_thread,
    ]
    for way in ways:
        attempt("control", way)
    assert len(hits) == len(ways), hits
    hits.clear()


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        seen.append(self.format(record) + repr(record.args))


if __name__ == "__main__":
    main(*sys.argv[1:])
