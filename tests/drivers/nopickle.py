"""Everything of the default path, where nothing that could run code from a file can be imported or called.

nopickle.py FOLDER imports     pickle and its like cannot be imported
nopickle.py FOLDER calls       they can, numpy needs them, but loading fails; numpy arrays are values too
nopickle.py FOLDER audit       the second time that all is done, the interpreter compiles, executes, imports, loads
                               nothing
"""

import sys

HOW = sys.argv[2]
LOADERS = ("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "joblib", "jsonpickle", "dbm")
events: list[str] = []
WATCHED = (
    "compile",
    "exec",
    "marshal.load",
    "marshal.loads",
    "pickle.find_class",
    "import",
    "code.__new__",
    "os.system",
)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a pickle is being loaded")


if HOW == "imports":
    for name in (*LOADERS, "multiprocessing", "_multiprocessing"):
        sys.modules[name] = None  # type: ignore[assignment]
elif HOW == "calls":
    import pickle

    import numpy
    import yaml  # lmdb-dict imports it

    yaml.load = yaml.load_all = yaml.safe_load = yaml.full_load = yaml.unsafe_load = refuse

    pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = refuse  # type: ignore[assignment,misc,attr-defined]
    sys.modules["_pickle"].__dict__.update(load=refuse, loads=refuse, Unpickler=refuse)

import asyncio  # noqa: E402
import datetime  # noqa: E402
import decimal  # noqa: E402
import fractions  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import pathlib  # noqa: E402
import queue  # noqa: E402
import uuid  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

from persistdict import ConflictError, PersistDict, SafeCodec, make_key, salvage  # noqa: E402
from persistdict.maintenance import keeper_of  # noqa: E402


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


VALUES: dict[str, Any] = {
    "str": "text", "large": "x" * 200_000, "bytes": b"\x80\x04.", "int": 1 << 90, "float": 1.5,
    "none": None, "bool": True,
    "list": [1, [2]], "dict": {"a": {1: 2}}, "tuple": (1, (2,)), "set": {1, 2}, "frozenset": frozenset((1,)),
    "bytearray": bytearray(b"x"), "complex": 1j, "decimal": decimal.Decimal("1.10"),
    "fraction": fractions.Fraction(1, 3),
    "datetime": datetime.datetime(2024, 1, 2, 3, 4, 5, 6, datetime.timezone.utc), "date": datetime.date(2024, 1, 2),
    "delta": datetime.timedelta(1, 2, 3), "uuid": uuid.UUID(int=7), "path": pathlib.PurePosixPath("/a/b"),
    "point": Point(7), "surrogate": "\ud800",
}  # fmt: skip
if HOW == "calls":
    VALUES |= {"array": numpy.arange(6.0).reshape(2, 3), "number": numpy.float32(1.5), "many": [numpy.int64(7)]}


def make_codec() -> SafeCodec:
    codec = SafeCodec()
    codec.register(Point, lambda point: point.x, Point, name="point")
    return codec


def use_mapping(d: Any) -> None:
    for key, value in VALUES.items():
        d[key] = value
        d[key, 1, None] = value
        assert type(d[key]) is type(value), key
    d.set_many(VALUES, tag="t", ttl=3600)
    assert len(d.get_many(list(VALUES))) == len(VALUES)
    d.incr("count")
    d.add("new", 1)
    d.transform("new", lambda value: value)
    d.replace("new", 2, if_version=d.get_versioned("new").version)
    d.get_or_create("made", lambda: [1])
    asyncio.run(d.aget_or_create("made later", make))
    assert list(d.tagged("t")) and d.tags() and d.oldest(2) and d.newest(2) and d.sample(2) and list(d.range("a", "z"))
    d.memoize(lambda x, y=2: (x, y), name="f")([1], y={"a": 2})
    d[make_key("model", [{"role": "user", "content": "Why?"}], temperature=0)] = "Because."
    d.pop("new")
    d.popitem()
    assert list(d.copy()) == list(d)
    d.evict(tag="t")


async def make() -> Any:
    return [2]


def use_queue(d: Any) -> None:
    for order in ("fifo", "lifo", "priority"):
        q = d.queue(order, order=order)
        q.put_many([(1, "a"), (2, "b"), (3, "c")])
        q.peek()
        with q.get(lease=60):
            pass
        q.get_nowait()
        memory: queue.Queue[Any] = queue.Queue()
        q.ingest(memory)
        q.flush(memory)
        q.remove()


def use(folder: str, **options: Any) -> None:
    d: Any = PersistDict(folder, codec=options.pop("codec", None) or make_codec(), **options)
    with d:
        d(first=1)
        use_mapping(d)
        use_mapping(d.space("s"))
        use_mapping(d.prefix("p", 1))
        use_queue(d)
        with d.transaction() as t:
            t["a"] = [1]
            t.space("s")["b"] = (2,)
            t.queue("q").put(1)
        try:
            with d.transaction() as t:
                t.get("a")
                raise ConflictError("for once")
        except ConflictError:
            pass
        if not folder.startswith("memory"):
            d.flush()
            d.compact()
            backup = f"{folder}-{os.urandom(4).hex()}"
            d.backup(backup)
            salvage(backup, f"{backup}-salvaged")
        d.expire()
        d.maintain()
        keeper_of(d._store).run_now(d._charge)
        assert d.verify().ok and d.verify(repair=True).ok
        d.stats()
        d.clear()


def use_all(folder: str) -> None:
    use(f"{folder}/d", background_thread=True, background_timeout=0.01, verbose=True)
    use(f"{folder}/small", key_size_limit=64, caching=False, durability="commit", background_thread="disabled")
    use(f"{folder}/bounded", max_entries=10_000, max_bytes=1 << 24, eviction="lfu", expiration_days=1)
    use("memory://", background_thread=False)
    with PersistDict(f"{folder}/json", codec="json") as d:
        d["k"] = {"a": [1, 2.5, None, "x"]}
        assert d["k"] == {"a": [1, 2.5, None, "x"]}
    with PersistDict(f"{folder}/raw", codec="raw") as d:
        d["k"] = b"raw"
    with PersistDict(f"{folder}/own", value_serializer=json.dumps, value_unserializer=json.loads) as d:
        d["k"] = [1]
        assert d["k"] == [1]


def audit(work: Callable[[], object]) -> None:
    """What the interpreter tells of while it does this."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if on and event in WATCHED:
            events.append(f"{event} {str(arguments)[:200]} {sys._getframe(1).f_code.co_filename}")

    on = False
    sys.addaudithook(hook)
    on = True
    eval("1")  # it is heard
    assert events, "nothing is heard"
    events.clear()
    work()
    on = False


folder = sys.argv[1]
if HOW != "imports":  # it imports pickle and multiprocessing itself
    from loguru import logger

    logger.remove()
    logger.add(lambda message: None, level=0)
use_all(folder)
if HOW == "audit":
    audit(lambda: use_all(folder))
print(
    json.dumps(
        {"events": events[:20], "loaded": [name for name in (*LOADERS, "multiprocessing") if sys.modules.get(name)]}
    )
)
