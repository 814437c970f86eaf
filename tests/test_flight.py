"""Values that are made once: by threads, tasks and processes that miss them at once, whoever fails, hangs or dies."""

import asyncio
import contextlib
import os
import signal
import threading
import time

import pytest
from drivers.running import answer_of, in_child

from persistdict import (
    FullError,
    NestedFactoryError,
    PersistDict,
    ReadOnlyError,
    StillComputingError,
    ValueTypeError,
    leases,
)
from persistdict.leases import Lease, lease_key
from persistdict.log import Log
from persistdict.making import cost_key
from persistdict.processes import Process, is_alive, this_process
from persistdict.testing import Clock

QUIET = {"background_thread": "disabled"}
LONG = 20.0  # seconds after which something that should happen at once is taken for stuck


@pytest.fixture
def d(opened):
    return opened()


def until(condition, what="it"):
    """Wait for something that is about to happen."""
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.001)


async def auntil(condition, what="it"):
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        await asyncio.sleep(0.001)


class Gated:
    """A factory that tells when it was called, and waits to be let go."""

    def __init__(self, value="value"):
        self.value, self.calls = value, 0
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self):
        self.calls += 1
        self.begun.set()
        assert self.go.wait(LONG)
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


class Caller(threading.Thread):
    """A thread that calls something, and keeps what comes of it."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.result, self.error = call, None, None
        self.start()

    def run(self):
        try:
            self.result = self.call()
        except BaseException as error:
            self.error = error

    def outcome(self):
        self.join(LONG)
        assert not self.is_alive(), "it hangs"
        return self.result if self.error is None else self.error


def forbidden():
    """A factory that is not to be called; what it raises is no Exception, which an early computation would survive."""
    pytest.fail("it was computed again")


# One thread


@pytest.mark.parametrize("value", [None, 0, "", [], False, b"", {"a": [1]}, "x" * (1 << 21)])
def test_a_value_is_made_once_and_then_there(opened, value):
    d, other = opened(), opened()
    assert d.get_or_create("k", lambda: value) == value
    for handle in (d, other):
        assert handle.get_or_create("k", forbidden) == value
        assert handle["k"] == value
    assert d._store.get(lease_key(d._locate("k")[1])) is None


def test_hits_and_misses_are_counted_once(d):
    d.get_or_create("k", lambda: 1)
    d.get_or_create("k", lambda: 1)
    stats = d.stats()
    assert (stats.hits, stats.misses, stats.sets, stats.deletes) == (1, 1, 1, 0)


def test_what_is_made_has_its_time_and_its_tag(opened):
    clock = Clock()
    d = opened(clock=clock, ttl=100)
    d.get_or_create("default", lambda: 1)
    d.get_or_create("own", lambda: 1, ttl=5, tag="news")
    d.get_or_create("for ever", lambda: 1, ttl=None)
    assert [d.entry(key).expires_at for key in ("default", "own", "for ever")] == [clock.now + 100, clock.now + 5, None]
    assert d.entry("own").tag == "news"
    clock.now += 5
    assert d.get_or_create("own", lambda: 2) == 2


def test_what_a_factory_raises_is_raised_and_not_stored(d):
    for error in (ValueError("no"), KeyError("k"), KeyboardInterrupt()):

        def fail(error=error):
            raise error

        with pytest.raises(type(error)) as caught:
            d.get_or_create("k", fail)
        assert caught.value is error
        assert "k" not in d
    assert d.get_or_create("k", lambda: 1) == 1


def test_what_cannot_be_stored_is_an_error_and_the_next_one_may_try(opened):
    d = opened(max_entries=3, eviction="none")
    with pytest.raises(ValueTypeError):
        d.get_or_create("k", object)
    d.update(a=1, b=2, c=3)
    with pytest.raises(FullError):
        d.get_or_create("k", lambda: 1)
    d.delete_many("abc")
    assert d.get_or_create("k", lambda: 2, timeout=0) == 2


def test_what_somebody_sets_meanwhile_stays(opened):
    d, other = opened(), opened()

    def compute():
        other["k"] = ["theirs"]
        return ["mine"]

    assert d.get_or_create("k", compute) == ["theirs"] == d["k"]
    assert d.get_or_create("k", forbidden) == ["theirs"]


def test_a_factory_that_asks_for_its_own_key_is_told_so(d):
    with pytest.raises(NestedFactoryError, match="asked for that key itself"):
        d.get_or_create("k", lambda: d.get_or_create("k", lambda: 1))
    inner = d.get_or_create("outer", lambda: d.get_or_create("inner", lambda: 1) + 1)
    assert (inner, d["inner"], d["outer"]) == (2, 1, 2)


def test_what_is_not_to_be_stored_is_returned(d):
    assert d.get_or_create("k", lambda: "error", cache_if=lambda value: value != "error") == "error"
    assert "k" not in d
    assert d.get_or_create("k", lambda: "good", cache_if=lambda value: value != "error") == "good"
    assert d["k"] == "good"
    unknown = object()
    assert d.get_or_create("other", lambda: unknown, cache_if=lambda _: False) is unknown


def test_impossible_terms_are_refused(d):
    for terms in ({"lease": 0}, {"timeout": -1}, {"early": -1}, {"ttl": 0}, {"tag": ""}):
        with pytest.raises(ValueError):
            d.get_or_create("k", forbidden, **terms)


# Many threads


def test_of_many_threads_and_handles_one_computes(opened):
    handles = [opened(), opened()]
    factory = Gated([1])
    callers = [Caller(lambda n=n: handles[n % 2].get_or_create("k", factory)) for n in range(8)]
    assert factory.begun.wait(LONG)
    factory.go.set()
    values = [caller.outcome() for caller in callers]
    assert values == [[1]] * 8
    assert len({id(value) for value in values}) == 8, "callers share an object"
    assert factory.calls == 1


def test_when_one_fails_a_waiter_calls_its_own_factory(d):
    first, second = Gated(ValueError("no")), Gated("second")
    failing = Caller(lambda: d.get_or_create("k", first))
    assert first.begun.wait(LONG)
    waiting = Caller(lambda: d.get_or_create("k", second))
    first.go.set()
    assert second.begun.wait(LONG)
    second.go.set()
    assert isinstance(failing.outcome(), ValueError)
    assert waiting.outcome() == "second" == d["k"]


def test_who_waits_too_long_is_told_so(d):
    factory = Gated()
    computing = Caller(lambda: d.get_or_create("k", factory))
    assert factory.begun.wait(LONG)
    for timeout in (0, 0.01):
        with pytest.raises(StillComputingError, match="still being computed") as caught:
            d.get_or_create("k", forbidden, timeout=timeout)
        assert isinstance(caught.value, TimeoutError)
    factory.go.set()
    assert computing.outcome() == "value"
    assert d.get_or_create("k", forbidden, timeout=0) == "value"


def test_what_is_not_stored_is_shared_with_those_who_wait(d):
    factory = Gated({"error": []})
    callers = [Caller(lambda: d.get_or_create("k", factory, cache_if=lambda _: False))]
    assert factory.begun.wait(LONG)
    arrived = []
    original = type(d)._making
    d._making = lambda *args: arrived.append(1) or original(d, *args)
    callers += [Caller(lambda: d.get_or_create("k", forbidden)) for _ in range(3)]
    until(lambda: len(arrived) == 3)
    making = original(d, "k", d._terms(None, None, None, 30, 0, None))
    assert not making.board()
    until(lambda: _waiting_for(making.flight) == 3)
    factory.go.set()
    values = [caller.outcome() for caller in callers]
    assert values == [{"error": []}] * 4
    assert len({id(value) for value in values}) == 4
    assert "k" not in d


def _waiting_for(flight):
    return len(flight.landed._bells)


def test_the_thread_of_renewals_is_there_while_something_is_computed(tmp_path):
    def renewing():
        return [thread for thread in threading.enumerate() if thread.name == "persistdict-leases"]

    with PersistDict(tmp_path / "d", **QUIET) as d:
        factories = [Gated(), Gated()]
        callers = [Caller(lambda n=n: d.get_or_create(n, factories[n])) for n in range(2)]
        for factory in factories:
            assert factory.begun.wait(LONG)
        assert len(renewing()) == 1
        factories[0].go.set()
        callers[0].outcome()
        assert len(renewing()) == 1
        factories[1].go.set()
        callers[1].outcome()
        until(lambda: not renewing(), "its end")


def test_copies_in_the_cache_stay_good(tmp_path):
    """A lease changes no entry, so what was cached before is served on."""
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["other"] = "text"
        d.get_or_create("k", lambda: d["other"])
        d["other"]
        assert d.stats().cached == 2


# Processes


class Scene:
    """Processes that share a dictionary and a log of what was computed."""

    def __init__(self, folder):
        self.path, self.log = folder / "d", folder / "log"
        self.children = []
        PersistDict(self.path, **QUIET).close()

    def note(self, word):
        with open(self.log, "a") as file:
            file.write(word + "\n")

    def noted(self, word):
        return self.log.read_text().split().count(word) if self.log.exists() else 0

    def child(self, work):
        """Start a process that opens the dictionary."""

        def run():
            with PersistDict(self.path, **QUIET) as d:
                return work(d)

        self.children.append(in_child(run))
        return self.children[-1]

    def answers(self):
        answers = [answer_of(pid, pipe) for pid, pipe in self.children]
        self.children = []
        return answers

    def end(self):
        for pid, pipe in self.children:
            with contextlib.suppress(OSError):
                os.close(pipe)
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path)
    yield scene
    scene.end()


def test_of_all_threads_of_all_processes_one_computes(scene):
    """Eight threads in each of four processes miss at once; the computation lasts until all of them have."""

    def compute():
        scene.note("computed")
        until(lambda: scene.noted("asked") == 32)
        return {"pid": os.getpid()}

    def ask(d):
        def one():
            scene.note("asked")
            return d.get_or_create("k", compute)

        return [caller.outcome() for caller in [Caller(one) for _ in range(8)]]

    for _ in range(4):
        scene.child(ask)
    answers = scene.answers()
    values = [value for answer in answers for value in answer]
    assert len(values) == 32
    assert all(value == values[0] for value in values)
    assert scene.noted("computed") == 1


def test_of_tasks_in_several_processes_one_computes(scene):
    async def compute():
        scene.note("computed")
        await auntil(lambda: scene.noted("asked") == 24)
        return os.getpid()

    async def ask(d):
        async def one():
            scene.note("asked")
            return await d.aget_or_create("k", compute)

        return await asyncio.gather(*[one() for _ in range(8)])

    for _ in range(3):
        scene.child(lambda d: asyncio.run(ask(d)))
    values = [value for answer in scene.answers() for value in answer]
    assert len(values) == 24
    assert len(set(values)) == scene.noted("computed") == 1


def hang(scene):
    """A factory that never ends."""
    scene.note("begun")
    time.sleep(1000)


@pytest.mark.parametrize("moment", ["before", "while waiting"])
@pytest.mark.parametrize("way", ["thread", "task"])
def test_when_the_computing_process_is_killed_another_takes_over_at_once(scene, moment, way):
    """Its lease would last for hours; it is dead, though nobody has waited for it."""
    pid, _ = scene.child(lambda d: d.get_or_create("k", lambda: hang(scene), lease=10_000.0))
    until(lambda: scene.noted("begun") == 1)
    with PersistDict(scene.path, **QUIET) as d:
        if moment == "before":
            os.kill(pid, signal.SIGKILL)

        def ask():
            if way == "task":
                return asyncio.run(d.aget_or_create("k", lambda: "mine"))
            return d.get_or_create("k", lambda: "mine")

        caller = Caller(ask)
        if moment == "while waiting":
            time.sleep(0.02)
            assert caller.is_alive()
            os.kill(pid, signal.SIGKILL)
        assert caller.outcome() == "mine" == d["k"]


def test_the_lease_of_one_who_computes_for_long_is_renewed(scene):
    def compute():
        scene.note("begun")
        until(lambda: scene.noted("go"))
        return "theirs"

    scene.child(lambda d: d.get_or_create("k", compute, lease=0.3))
    until(lambda: scene.noted("begun") == 1)
    with PersistDict(scene.path, **QUIET) as d:
        caller = Caller(lambda: d.get_or_create("k", lambda: scene.note("mine") or "mine"))
        row = lease_key(d._locate("k")[1])
        first = d._store.get(row)
        until(lambda: time.time() > first.deadline and d._store.get(row) is not None)
        assert d._store.get(row).version > first.version
        scene.note("go")
        assert caller.outcome() == "theirs"
    assert scene.answers() == ["theirs"]
    assert not scene.noted("mine")


def test_from_one_that_is_stopped_the_lease_is_taken(scene):
    """It goes on later, and gets the value that is there; and what is written after that, too."""

    def work(d):
        d["x"] = "old"

        def compute():
            scene.note("begun")
            until(lambda: scene.noted("go"))
            assert d["x"] == d["x"] == "old"
            return "late"

        found = d.get_or_create("k", compute, lease=0.2)
        scene.note("found")
        until(lambda: scene.noted("written"))
        return [found, d["x"]]

    pid, _ = scene.child(work)
    until(lambda: scene.noted("begun") == 1)
    os.kill(pid, signal.SIGSTOP)
    try:
        with PersistDict(scene.path, **QUIET) as d:
            assert d.get_or_create("k", lambda: "mine") == "mine"
            scene.note("go")
            os.kill(pid, signal.SIGCONT)
            until(lambda: scene.noted("found"))
            d["x"] = "new"
            scene.note("written")
            assert scene.answers() == [["mine", "new"]]
            assert d["k"] == "mine"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_when_one_process_fails_another_computes(scene):
    def fail():
        scene.note("begun")
        until(lambda: scene.noted("go"))
        raise ValueError("no")

    def ask(d):
        with pytest.raises(ValueError, match="no"):
            d.get_or_create("k", fail, lease=10_000.0)
        return "failed"

    scene.child(ask)
    until(lambda: scene.noted("begun") == 1)
    with PersistDict(scene.path, **QUIET) as d:
        caller = Caller(lambda: d.get_or_create("k", lambda: "mine"))
        with pytest.raises(StillComputingError):
            d.get_or_create("k", forbidden, timeout=0.01)
        assert caller.is_alive()
        scene.note("go")
        assert caller.outcome() == "mine"
    assert scene.answers() == ["failed"]


def test_a_child_that_was_forked_meanwhile_begins_anew(scene):
    """It has nothing in the air, holds no lease, and the one of its parent is respected."""
    with PersistDict(scene.path, **QUIET) as d:
        factory = Gated("parent's")
        computing = Caller(lambda: d.get_or_create("k", factory))
        assert factory.begun.wait(LONG)

        def in_the_child():
            with pytest.raises(StillComputingError):
                d.get_or_create("k", forbidden, timeout=0.01)
            scene.note("asked")
            assert not leases._held, "it would renew what its parent holds"
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("persistdict")]
            return [d.get_or_create("other", lambda: "child's"), d.get_or_create("k", forbidden, timeout=LONG)]

        child = in_child(in_the_child)
        until(lambda: scene.noted("asked"))
        factory.go.set()
        assert computing.outcome() == "parent's"
        assert answer_of(*child) == ["child's", "parent's"]
        assert d["other"] == "child's"


def test_a_factory_that_forks_keeps_its_lease(scene):
    with PersistDict(scene.path, **QUIET) as d:
        row = lease_key(d._locate("k")[1])

        def compute():
            pid = os.fork()
            if not pid:
                return "child's"
            assert os.waitpid(pid, 0)[1] == 0
            assert d._store.get(row) is not None, "the child has deleted the lease of its parent"
            return "parent's"

        me, value = os.getpid(), None
        try:
            value = d.get_or_create("k", compute)
        finally:
            if os.getpid() != me:
                os._exit(value != "child's")
        assert value == d["k"] == "child's", "what was written first stays"
        assert d._store.get(row) is None


def test_who_is_alive():
    here = this_process()
    assert is_alive(here)
    assert not is_alive(here._replace(began="1")), "another process of the same id"
    assert is_alive(Process(here.pid, "1", "another machine")), "that cannot be told"
    pid, pipe = in_child(lambda: list(this_process()))
    os.close(pipe)
    theirs = here._replace(pid=pid, began="")
    until(lambda: not is_alive(theirs._replace(began="1")))
    os.waitpid(pid, 0)
    assert not is_alive(theirs)


def test_a_lease_that_nobody_here_holds_any_more_is_taken(tmp_path):
    """A row of this process that was not deleted, because the disk was full or the dictionary closed."""
    with PersistDict(tmp_path / "d", **QUIET) as d:
        kb = d._locate("k")[1]
        left = Lease(d._store, kb, 10_000.0, lambda change: change(), d._log)
        assert left.acquire()
        with pytest.raises(StillComputingError):
            d.get_or_create("k", forbidden, timeout=0)
        left.end()
        assert d.get_or_create("k", lambda: 1, timeout=0) == 1


def test_a_lease_that_has_ended_is_not_taken(tmp_path):
    """By a thread that comes late, after its task was cancelled."""
    with PersistDict(tmp_path / "d", **QUIET) as d:
        lease = Lease(d._store, d._locate("k")[1], 10_000.0, lambda change: change(), d._log)
        lease.release()
        assert not lease.acquire()
        assert d._store.get(lease.kb) is None


def test_a_row_that_says_nothing_lasts_for_its_time(tmp_path):
    clock = Clock()
    with PersistDict(tmp_path / "d", **QUIET, clock=clock) as d:
        d._store.put(lease_key(d._locate("k")[1]), b"", 0, b"of another format", 60.0)
        with pytest.raises(StillComputingError):
            d.get_or_create("k", forbidden, timeout=0.01)
        clock.now += 60
        assert d.get_or_create("k", lambda: 1) == 1


def test_a_renewal_that_fails_is_told_and_tried_again(tmp_path, monkeypatch):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        told = []
        monkeypatch.setattr(type(d._log), "error", lambda self, message: told.append(message))
        factory = Gated()
        computing = Caller(lambda: d.get_or_create("k", factory, lease=0.03))
        assert factory.begun.wait(LONG)
        with monkeypatch.context() as patch:
            patch.setattr(Lease, "renew", lambda self: 1 / 0)
            until(lambda: len(told) >= 2)
        factory.go.set()
        assert computing.outcome() == "value"
        assert "a lease was not renewed: ZeroDivisionError" in told[0]


# Tasks


async def test_of_many_tasks_and_threads_one_computes(d):
    calls = []
    go = asyncio.Event()

    async def compute():
        calls.append(1)
        await go.wait()
        return [1]

    tasks = [asyncio.create_task(d.aget_or_create("k", compute)) for _ in range(8)]
    await auntil(lambda: calls)
    caller = Caller(lambda: d.get_or_create("k", forbidden))
    go.set()
    values = [*await asyncio.gather(*tasks), await asyncio.to_thread(caller.outcome)]
    assert values == [[1]] * 9
    assert len({id(value) for value in values}) == 9
    assert calls == [1]
    assert await d.aget_or_create("k", forbidden) == [1]


async def test_tasks_wait_for_a_thread(d):
    factory = Gated()
    computing = Caller(lambda: d.get_or_create("k", factory))
    assert await asyncio.to_thread(factory.begun.wait, LONG)
    with pytest.raises(StillComputingError):
        await d.aget_or_create("k", forbidden, timeout=0.01)
    waiting = asyncio.create_task(d.aget_or_create("k", forbidden))
    await asyncio.sleep(0)
    factory.go.set()
    assert await waiting == "value"
    await asyncio.to_thread(computing.outcome)


@pytest.mark.parametrize("kind", ["coroutine function", "function", "lambda of a coroutine", "object"])
async def test_what_a_factory_may_be(d, kind):
    async def compute():
        await asyncio.sleep(0)
        return kind

    class Factory:
        async def __call__(self):
            asyncio.get_running_loop()
            return kind

    made = {
        "coroutine function": compute,
        "function": lambda: kind,
        "lambda of a coroutine": lambda: compute(),
        "object": Factory(),
    }
    assert await d.aget_or_create("k", made[kind]) == kind == d["k"]


async def test_a_factory_that_blocks_does_not_block_the_loop(d):
    factory = Gated()
    task = asyncio.create_task(d.aget_or_create("k", factory))
    await auntil(factory.begun.is_set)
    factory.go.set()
    assert await task == "value"


@pytest.mark.parametrize("step", ["lease", "value"])
async def test_a_write_that_waits_does_not_block_the_loop(d, step):
    """As if a commit, or an fsync, took long: somebody else holds the lock of writes until the loop has gone on."""
    held, release = threading.Event(), threading.Event()
    holding = []

    def hold():
        with d._write_lock:
            held.set()
            assert release.wait(LONG)

    async def be_held():
        holding.append(Caller(hold))
        assert await asyncio.to_thread(held.wait, LONG)

    async def compute():
        if step == "value":
            await be_held()
        return "value"

    if step == "lease":
        await be_held()
    task = asyncio.create_task(d.aget_or_create("k", compute))
    await auntil(held.is_set)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not task.done()
    release.set()
    assert await task == "value"
    await asyncio.to_thread(holding[0].outcome)


async def test_a_waiter_that_is_cancelled_harms_no_other(d):
    begun, go = asyncio.Event(), asyncio.Event()

    async def compute():
        begun.set()
        await go.wait()
        return 1

    first = asyncio.create_task(d.aget_or_create("k", compute))
    await begun.wait()
    waiting = [asyncio.create_task(d.aget_or_create("k", forbidden)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]
    go.set()
    assert [await first, await waiting[0], await waiting[2]] == [1, 1, 1]


@pytest.mark.parametrize("kind", ["coroutine function", "function"])
async def test_when_the_computing_task_is_cancelled_another_takes_over(d, kind):
    begun, go = threading.Event(), threading.Event()

    async def hang():
        begun.set()
        await asyncio.sleep(1000)

    def block():
        begun.set()
        assert go.wait(LONG)

    first = asyncio.create_task(d.aget_or_create("k", hang if kind == "coroutine function" else block))
    await auntil(begun.is_set)
    waiting = asyncio.create_task(d.aget_or_create("k", lambda: "second"))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await waiting == "second" == d["k"]
    assert d._store.get(lease_key(d._locate("k")[1])) is None
    go.set()


@pytest.mark.parametrize("step", ["attempt", "settle"])
async def test_a_task_that_is_cancelled_while_it_writes_lets_go_of_the_lease(d, monkeypatch, step):
    """The thread that writes goes on; the lease and the flight end."""
    from persistdict.making import Making

    entered, go = threading.Event(), threading.Event()
    original = getattr(Making, step)

    def slow(self, *args):
        entered.set()
        assert go.wait(LONG)
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Making, step, slow)
        first = asyncio.create_task(d.aget_or_create("k", lambda: "first"))
        await auntil(entered.is_set)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go.set()
    if step == "attempt":
        assert await d.aget_or_create("k", lambda: "second", timeout=LONG) == "second"
    else:
        assert await d.aget_or_create("k", forbidden, timeout=LONG) == "first"
    assert d._store.get(lease_key(d._locate("k")[1])) is None


async def test_a_task_that_asks_for_its_own_key_is_told_so(d):
    async def compute():
        return await asyncio.gather(d.aget_or_create("k", forbidden))

    with pytest.raises(NestedFactoryError):
        await d.aget_or_create("k", compute)
    with pytest.raises(NestedFactoryError):
        await d.aget_or_create("k", lambda: d.get_or_create("k", forbidden))


async def test_what_an_async_factory_raises_is_raised_and_not_stored(d):
    async def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await d.aget_or_create("k", fail)
    assert "k" not in d
    assert await d.aget_or_create("k", lambda: 1, timeout=0) == 1


# Early


@pytest.fixture
def timed(opened):
    """A dictionary with a clock and drawn numbers of its own."""
    clock = Clock()
    d = opened(clock=clock)
    drawn = [1.0]
    d._draw = lambda: drawn[0]

    def compute(value, cost):
        def factory():
            clock.now += cost
            return value

        return factory

    return d, clock, drawn, compute


@pytest.mark.parametrize("way", ["thread", "task"])
def test_a_value_is_computed_anew_before_it_ends(timed, way):
    """When now - cost * beta * ln(drawn) has reached its end, as the paper says."""
    d, clock, drawn, compute = timed

    def ask(factory, **terms):
        if way == "task":
            return asyncio.run(d.aget_or_create("k", factory, **terms))
        return d.get_or_create("k", factory, **terms)

    assert ask(compute("old", 10.0), ttl=100, early=1.0) == "old"
    end = d.entry("k").expires_at
    drawn[0] = 0.049787068367863944  # its logarithm is -3: so 30 seconds early, or 60 with beta 2
    clock.now = end - 30.5
    assert ask(forbidden, ttl=100, early=1.0) == "old"
    clock.now = end - 29.5
    assert ask(forbidden, ttl=100) == "old", "the option is off"
    drawn[0] = 1.0
    assert ask(forbidden, ttl=100, early=1.0) == "old"
    drawn[0] = 0.049787068367863944
    assert ask(compute("new", 1.0), ttl=100, early=1.0) == "new"
    assert d["k"] == "new"
    assert d.entry("k").expires_at == clock.now + 100
    clock.now = d.entry("k").expires_at - 3.5
    assert ask(forbidden, ttl=100, early=1.0) == "new", "the cost is that of the last computation"
    assert ask(compute("newer", 1.0), ttl=100, early=2.0) == "newer"


def test_others_are_served_the_old_value_meanwhile(timed, opened):
    d, clock, drawn, compute = timed
    d.get_or_create("k", compute("old", 10.0), ttl=100, early=1.0)
    clock.now += 95
    drawn[0] = 0.01
    factory = Gated("new")
    computing = Caller(lambda: d.get_or_create("k", factory, ttl=100, early=1.0))
    assert factory.begun.wait(LONG)
    other = opened(clock=clock)
    other._draw = d._draw
    assert d.get_or_create("k", forbidden, ttl=100, early=1.0, timeout=0) == "old"
    assert other.get_or_create("k", forbidden, ttl=100, early=1.0, timeout=0) == "old"
    factory.go.set()
    assert computing.outcome() == "new"


def test_another_process_that_is_at_it_is_not_waited_for(tmp_path, monkeypatch):
    clock = Clock()
    told = []
    monkeypatch.setattr(Log, "warning", lambda self, message: told.append(message))
    with PersistDict(tmp_path / "d", **QUIET, clock=clock) as d:
        d._draw = lambda: 0.01

        def compute():
            clock.now += 10
            return "old"

        d.get_or_create("k", compute, ttl=100, early=1.0)
        clock.now += 95
        theirs = Lease(d._store, d._locate("k")[1], 60.0, lambda change: change(), d._log)
        assert theirs.acquire()
        assert d.get_or_create("k", forbidden, early=1.0) == "old"
        assert asyncio.run(d.aget_or_create("k", forbidden, early=1.0)) == "old"
        assert not told
        theirs.release()
        assert d.get_or_create("k", lambda: "new", early=1.0) == "new"


@pytest.mark.parametrize("way", ["thread", "task"])
def test_what_fails_early_is_told_and_the_old_value_served(timed, monkeypatch, way):
    d, clock, drawn, compute = timed
    told = []
    monkeypatch.setattr(type(d._log), "warning", lambda self, message: told.append(message))
    d.get_or_create("k", compute("old", 10.0), ttl=100, early=1.0)
    clock.now += 95
    drawn[0] = 0.01

    def fail():
        raise ValueError("secret")

    if way == "thread":
        assert d.get_or_create("k", fail, ttl=100, early=1.0) == "old"
    else:
        assert asyncio.run(d.aget_or_create("k", fail, ttl=100, early=1.0)) == "old"
    assert len(told) == 1
    assert "ValueError" in told[0]
    assert "secret" not in told[0]
    assert d.get_or_create("k", compute("new", 0.0), ttl=100, early=1.0) == "new"


def test_what_is_set_during_an_early_computation_stays(timed):
    d, clock, drawn, compute = timed
    d.get_or_create("k", compute("old", 10.0), ttl=100, early=1.0)
    clock.now += 95
    drawn[0] = 0.01

    def set_meanwhile():
        d["k"] = "theirs"
        return "mine"

    assert d.get_or_create("k", set_meanwhile, ttl=100, early=1.0) == "theirs" == d["k"]


def test_what_ends_during_an_early_computation_is_replaced(timed):
    d, clock, drawn, compute = timed
    d.get_or_create("k", compute("old", 10.0), ttl=100, early=1.0)
    clock.now += 95
    drawn[0] = 0.01
    assert d.get_or_create("k", compute("new", 10.0), ttl=100, early=1.0) == "new" == d["k"]


def test_what_never_ends_is_not_computed_anew(timed):
    d, _, drawn, compute = timed
    d.get_or_create("k", compute("old", 10.0), early=1.0)
    drawn[0] = 1e-300
    assert d.get_or_create("k", forbidden, early=1.0) == "old"
    assert d._store.get(cost_key(d._locate("k")[1])) is None


def test_what_is_drawn_is_never_zero(d):
    drawn = [d._draw() for _ in range(1000)]
    assert 0 < min(drawn) <= max(drawn) <= 1


# Elsewhere than in the dictionary itself


def test_a_view_makes_values_of_its_own(opened):
    d = opened()
    for number, view in enumerate((d, d.space("s"), d.prefix("p"))):
        assert view.get_or_create("k", lambda number=number: number) == number
        assert view.get_or_create("k", forbidden) == number
    assert (len(d), len(d.space("s"))) == (2, 1)
    assert d.space("s").memoize(name="f")(lambda x: x + 1)(1) == 2
    assert len(d.space("s")) == 2


def test_in_a_transaction_it_is_made_for_that_alone(opened):
    d = opened()
    with pytest.raises(RuntimeError, match="no"), d.transaction() as t:
        assert t.get_or_create("k", lambda: 1) == 1
        assert d.get_or_create("k", forbidden) == 1
        raise RuntimeError("no")
    assert "k" not in d
    with d.transaction() as t:
        assert t.get_or_create("k", lambda: 2, ttl=50, tag="news") == 2
        assert t.get_or_create("left out", lambda: 3, cache_if=lambda value: False) == 3
        double = t.memoize(name="double")(lambda x: 2 * x)
        assert (double(4), double(4), double.refresh(4)) == (8, 8, 8)
        assert double.cache_info().computed == 2
    assert (d["k"], d.entry("k").tag, "left out" in d, len(d)) == (2, "news", False, 2)


def test_what_is_only_read_or_added_to(tmp_path):
    with PersistDict(tmp_path / "d", mode="append", background_thread="disabled") as d:
        assert d.get_or_create("k", lambda: 1) == 1 == d.get_or_create("k", forbidden)
        with PersistDict(tmp_path / "d", mode="r") as reader:
            assert reader.get_or_create("k", forbidden) == 1
            with pytest.raises(ReadOnlyError):
                reader.get_or_create("l", forbidden)
        assert d._store.count() == len(d) == 1


def test_nobody_sees_who_is_computing(opened):
    """Not in iterations, sizes, nor what bounds count."""
    d = opened(max_entries=10)
    d.update(dict.fromkeys(range(10)))

    def look():
        assert list(d) == list(range(10))
        assert len(d) == 10 == d.copy().stats().entries
        assert repr(d).count("None") == 6
        assert d._store.usage(exact=True).entries == 10
        return 1

    assert d.get_or_create("k", look, ttl=60, early=1.0) == 1
    assert len(d) <= 10


@pytest.mark.parametrize("way", ["factory", "cache_if"])
def test_a_stop_iteration_hangs_nobody(opened, way):
    d, nothing = opened(), iter(())

    async def main():
        terms = {"cache_if": lambda value: next(nothing)} if way == "cache_if" else {}
        with pytest.raises(RuntimeError, match="StopIteration"):
            await d.aget_or_create("k", (lambda: next(nothing)) if way == "factory" else (lambda: 1), **terms)
        return await asyncio.wait_for(d.aget_or_create("k", lambda: 2), LONG)

    assert asyncio.run(main()) == 2
