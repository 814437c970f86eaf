"""The operations that are interrupted: what each does, what it comes to, and what else must go on afterwards."""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Any, NamedTuple

from drivers.running import left_over

from persistdict import PersistDict
from persistdict.stores.lmdb.copying import copy_compacted
from persistdict.stores.lmdb.folder import remove_folder
from persistdict.stores.lmdb.pages import PageFile

LARGE = bytes(50_000)
KEY = b"1" * 32
KEYS = {1: KEY, 2: b"2" * 32}


def open_one(folder: str, **options: Any) -> PersistDict[Any, Any]:
    return PersistDict(folder, **{"background_thread": "disabled", **options})


class Case:
    """A dictionary that is in use, and a dict that holds what it should.

    Attributes:
        number: of the attempt; what is written differs by it.
        kept: what an operation has left for the looks afterwards.
    """

    def __init__(self, folder: str, neighbour: Any) -> None:
        self.folder, self.neighbour = folder, neighbour
        self.number = 0
        self.model: dict[Any, Any] = {}
        self.options: dict[str, Any] = {}
        self.d: Any = None
        self.kept: Any = None

    def begin(self, operation: Operation) -> None:
        """Make the dictionary."""
        self.options = operation.options or {}
        self.d = self.open()
        self.d.update(START)
        self.model = dict(self.d.items())

    def open(self, **options: Any) -> Any:
        return open_one(self.folder, **{**self.options, **options})


def nothing(case: Case) -> None:
    pass


class Operation(NamedTuple):
    """`ready` comes before it and `restore` after it; `change` does to the model what `do` does to the dictionary.

    `others` must go on for this thread and for another one. What is `loose` may leave anything that `restore` allows.
    `let_go`: of the exception, and so of all frames, before others look around: whoever holds a `with` whose end was
    interrupted as it began holds the transaction, or the open handle.
    """

    do: Callable[[Case], Any]
    change: Callable[[Case], Any] = nothing
    ready: Callable[[Case], Any] = nothing
    restore: Callable[[Case], Any] = nothing
    others: Callable[[Case], Any] = nothing
    options: dict[str, Any] | None = None
    loose: bool = False
    let_go: bool = False


START = {"k": 0, "b": [2], "large": LARGE, **{n: bytes(500) for n in range(40)}}


def both(change: Callable[[Any, int], Any], **rest: Any) -> Operation:
    """What is done to a dictionary and to a dict alike."""
    return Operation(lambda case: change(case.d, case.number), lambda case: change(case.model, case.number), **rest)


def write_before(case: Case) -> None:
    """So that there is something recent, and something to do."""
    for d in (case.d, case.model):
        d["recent"] = case.number


def delete_many(d: Any, n: int) -> None:
    if isinstance(d, dict):
        for key in (1, 2, 3, "k"):
            d.pop(key, None)
    else:
        d.delete_many([1, 2, 3, "k"])


def fill(case: Case) -> None:
    for d in (case.d, case.model):
        d.update(START)


# Of the whole folder


def reopen(case: Case) -> None:
    if case.d is None or case.d.closed:
        case.d = case.open()


def close(case: Case) -> None:
    case.d.close()


def close_again(case: Case) -> None:
    """One that was interrupted may be finished, and another handle opened beside it."""
    other = case.open()
    case.d.close()
    case.d = other


def open_it(case: Case) -> None:
    case.d = case.open()


def ready_to_open(case: Case) -> None:
    case.d.close()
    case.d = None


def ready_to_make(case: Case) -> None:
    case.d.close()
    case.d = None
    shutil.rmtree(case.folder)
    case.model = {}


def back_up(case: Case) -> None:
    case.d.backup(f"{case.folder}-backup")


def check_backup(case: Case) -> None:
    target, parent = f"{case.folder}-backup", os.path.dirname(case.folder)
    if os.path.exists(target):
        with open_one(target) as copy:
            assert dict(copy.items()) == case.model
        shutil.rmtree(target)
    assert os.listdir(parent) == [os.path.basename(case.folder)], "a part of a backup was left behind"


def check_nothing_left(case: Case) -> None:
    case.d.compact()
    assert not left_over(case.folder), left_over(case.folder)


def use_another(case: Case) -> None:
    with case.open() as d:
        d["k"]


def make_subfolder(case: Case) -> None:
    case.kept = f"{case.folder}-sub"
    os.makedirs(case.kept + "/inner")
    for name in ("a", "b", "inner/c"):
        with open(f"{case.kept}/{name}", "wb"):
            pass


def remove_rest(case: Case) -> None:
    remove_folder(case.kept)
    assert not os.path.exists(case.kept)


def copy_data(case: Case) -> None:
    """As `compact` and `backup` do."""
    raw = case.d._store.env.data.raw
    path = os.path.join(case.kept, f"copy {len(os.listdir(case.kept))}")
    copy_compacted(raw, raw.begin(), path, 0o700)


def read_pages(case: Case) -> None:
    file = PageFile(os.path.join(case.folder, "data.mdb"))
    file.meta(0)
    del file


def transact(case: Case) -> None:
    with case.d.transaction() as t:
        t["k"] = t["b"] + [case.number]
        with t.transaction() as inner:
            inner["large"] = case.number
        del t[1]


def transacted(case: Case) -> None:
    case.model["k"] = case.model["b"] + [case.number]
    case.model["large"] = case.number
    case.model.pop(1)


def ready_to_transact(case: Case) -> None:
    fill(case)
    case.d.flush()


def put_and_get(case: Case) -> None:
    queue = case.d.queue("q")
    queue.put(case.number)
    queue.get(timeout=5)
    queue.task_done()


def empty_queue(case: Case) -> None:
    """The item was put or not, taken or not."""
    queue = case.d.queue("q")
    assert queue.qsize() <= 1
    while not queue.empty():
        assert queue.get_nowait() == case.number
    queue.clear()


def wait_for_queue(case: Case) -> None:
    with suppress(Empty):
        case.d.queue("q").get(timeout=0.003)


def use_queue(case: Case) -> None:
    queue = case.d.queue("q")
    queue.put("item")
    assert queue.get(timeout=5) == "item"
    with suppress(Empty):
        queue.get(timeout=0.001)


def make_value(case: Case) -> None:
    case.d.get_or_create(("made", case.number), lambda: case.number, timeout=10)


def made_value(case: Case) -> None:
    case.model[("made", case.number)] = case.number


def unmake(case: Case) -> None:
    case.d.pop(("made", case.number - 1), None)
    case.model.pop(("made", case.number - 1), None)


def make_again(case: Case) -> None:
    """Neither flight nor lease is in the way of those who ask for the same."""
    assert case.d.get_or_create(("made", case.number), lambda: case.number, timeout=10) == case.number
    del case.d[("made", case.number)]


def text(number: int) -> str:
    return str(number)


def make_values(case: Case) -> None:
    made = case.d.memoize(text, lease=0.1)
    made(case.number)
    made(case.number)


def memoize_again(case: Case) -> None:
    made = case.d.memoize(text, timeout=10)
    assert made(case.number) == str(case.number)
    made.cache_clear()


def ready_to_reseal(case: Case) -> None:
    """Entries of another dictionary are sealed with the older key."""
    case.d.close()
    shutil.rmtree(case.folder)
    with case.open(encryption_key={1: KEY}) as d:
        d.update(START)
    case.model, case.d = dict(START), case.open()


def evict(case: Case) -> None:
    for n in range(60):
        case.d["evicted", case.number, n] = n


def after_evictions(case: Case) -> None:
    assert len(case.d) <= 80


def work_in_background(case: Case) -> None:
    with case.open(**BACKGROUND) as d:
        d["k"] = case.number


def wrote(case: Case) -> None:
    case.model["k"] = case.number


def see_upkeep(case: Case) -> None:
    """Another handle has upkeep, which does what it is there for."""
    with case.open(**BACKGROUND) as d:
        d.set("short", 1, ttl=0.002)
        end = time.monotonic() + 10
        while d.stats().expirations == 0:
            assert time.monotonic() < end, "there is no upkeep"
            time.sleep(0.001)


def settle(case: Case) -> None:
    """Handles that were dropped are closed by threads."""
    gc.collect()


BACKGROUND = {"background_thread": True, "background_timeout": 0.005, "sync_interval": 0.005}
OPERATIONS: dict[str, Operation] = {
    "compact": Operation(lambda case: case.d.compact(), ready=write_before, restore=check_nothing_left),
    "backup": Operation(back_up, ready=write_before, restore=check_backup),
    "remove": Operation(lambda case: remove_folder(case.kept), ready=make_subfolder, restore=remove_rest),
    "copy": Operation(copy_data, ready=make_subfolder, restore=remove_rest),
    "pages": Operation(read_pages),
    "set": both(lambda d, n: d.__setitem__("k", n)),
    "set durably": both(lambda d, n: d.__setitem__("k", n), options={"durability": "commit"}),
    "set large": both(lambda d, n: d.__setitem__("large", bytes(60_000 + n))),
    "add": both(lambda d, n: d.setdefault(("new", n % 500), n)),
    "update": both(lambda d, n: d.update(k=n, b=[n], other=n)),
    "update many": both(lambda d, n: d.update(dict.fromkeys(range(600), n))),
    "delete": both(lambda d, n: d.pop("k"), ready=fill),
    "delete many": both(delete_many, ready=fill),
    "clear": both(lambda d, n: d.clear(), ready=fill),
    "read": Operation(lambda case: (case.d["k"], case.d.get(1), "b" in case.d, case.d.get_many([1, 2]))),
    "iterate": Operation(lambda case: (list(case.d), next(iter(case.d.items())), len(case.d))),
    "count": Operation(
        lambda case: case.d.incr("count"), lambda case: case.model.update(count=case.model.get("count", 0) + 1)
    ),
    "transaction": Operation(transact, transacted, ready=ready_to_transact, let_go=True),
    "flush": Operation(lambda case: case.d.flush(), ready=write_before),
    "verify": Operation(lambda case: case.d.verify(), ready=write_before),
    "close": Operation(close, ready=write_before, restore=close_again),
    "open": Operation(open_it, ready=ready_to_open, restore=reopen),
    "make": Operation(open_it, ready=ready_to_make, restore=reopen),
    "open beside": Operation(use_another),
    "queue": Operation(put_and_get, restore=empty_queue, others=use_queue),
    "wait for a queue": Operation(wait_for_queue, restore=empty_queue, others=use_queue),
    "get or create": Operation(make_value, made_value, ready=unmake, others=make_again),
    "memoize": Operation(make_values, restore=memoize_again, others=memoize_again, loose=True),
    "evict": Operation(evict, restore=after_evictions, options={"max_entries": 80}, loose=True),
    "reseal": Operation(lambda case: case.d.reseal(), ready=ready_to_reseal, options={"encryption_key": KEYS}),
    "background": Operation(work_in_background, wrote, others=see_upkeep, restore=settle, let_go=True),
}
