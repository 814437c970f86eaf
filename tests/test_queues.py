"""Queues: against those of the standard library, with leases, across processes, and when things go wrong."""

import gc
import heapq
import itertools
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from drivers.running import answer_of, in_child, rounds, run_driver
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from persistdict import (
    ConflictError,
    CorruptEntryError,
    DamagedEntryWarning,
    DecodeError,
    DiskFullError,
    Job,
    KeyTypeError,
    LeaseLostError,
    MismatchError,
    PersistDict,
    PersistDictError,
    QueueEmptyError,
    QueueFullError,
    ReadOnlyError,
    SafeCodec,
    TooLargeError,
    TransactionError,
    Unsupported,
    ValueTypeError,
    queuerows,
    queuestate,
    queuewait,
)
from persistdict.spans import queue_head
from persistdict.store import Transaction
from persistdict.testing import Clock

QUIET = {"background_thread": "disabled"}
ORDERS = ("fifo", "lifo", "priority")
SEALED = "where keys are encrypted there are no priority queues"
LARGE = [b"l" * 5000, b"L" * 100_000, b"X" * (2 << 20)]
names = map("queue {}".format, itertools.count())
on_disk = pytest.mark.parametrize("opened", ["lmdb", "lmdb commit"], indirect=True)


@pytest.fixture
def opened(request, opened):
    """Handles that can do what the test is about."""
    ordered = request.node.get_closest_marker("priorities") or request.node.callspec.params.get("order") == "priority"
    if ordered and opened()._options.encryption_key is not None:
        pytest.skip(SEALED)
    return opened


@pytest.fixture
def d(opened):
    return opened()


@pytest.fixture
def q(d):
    return d.queue("q")


def rows_of(d, name="q"):
    """How many rows there are of a queue, of each kind."""
    head = queue_head(name)
    kinds = [item.kb[len(head)] for item in d._store.scan(values=False) if item.kb.startswith(head)]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def drained(q):
    """Everything that is in a queue, by `get`."""
    found = []
    while True:
        try:
            found.append(q.get_nowait())
        except queue.Empty:
            return found


class Waiting:
    """A call in a thread of its own, which waits for a queue by now; the test ends even if that never does."""

    def __init__(self, call):
        self._outcome = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(call,), daemon=True).start()
        end = time.monotonic() + 10
        while not queuewait._signals and time.monotonic() < end:
            time.sleep(0.001)

    def _run(self, call):
        try:
            self._outcome.put((call(), None))
        except Exception as error:
            self._outcome.put((None, error))

    def result(self):
        found, error = self._outcome.get(timeout=20)
        if error is not None:
            raise error
        return found


def item_of(order, number):
    """An item with one of three priorities, where there are any."""
    return (number * 7 % 3, number) if order == "priority" else number


# Against models


PLAIN = st.lists(
    st.sampled_from(["put", "put", "put_many", "get", "get", "peek", "handle", "flush", "reopen"]), max_size=40
)


@pytest.mark.parametrize("order", ORDERS)
@examples(rounds(40))
@given(operations=PLAIN)
def test_items_come_in_the_order_of_the_standard_library(opened, order, operations):
    """The same operations on a queue of the standard library, through several handles, with drains in between."""
    kind = {"fifo": queue.Queue, "lifo": queue.LifoQueue, "priority": queue.PriorityQueue}[order]
    model, name, numbers = kind(), next(names), itertools.count()
    handles = [opened(), opened()]
    q = handles[0].queue(name, order=order)
    for operation in operations:
        if operation in ("put", "put_many"):
            items = [item_of(order, next(numbers)) for _ in range(1 if operation == "put" else 40)]
            q.put(items[0]) if operation == "put" else q.put_many(items)
            for item in items:
                model.put(item)
        elif operation == "get":
            expected = None if model.empty() else model.get()
            assert (None if q.empty() else q.get()) == expected
        elif operation == "peek" and not model.empty():
            expected = model.get()
            model.put(expected)
            assert q.peek() == expected or order == "fifo"
        elif operation == "handle":
            q = handles[q._root is handles[0]].queue(name, order=order)
        elif operation == "flush":
            handles[0].flush()
        elif operation == "reopen":
            handles[0].close()
            handles[0] = opened()
            q = handles[0].queue(name, order=order)
        if operation == "peek" and order == "fifo" and not model.empty():
            for _ in range(model.qsize() - 1):
                model.put(model.get())  # what was looked at goes back to the front
        assert q.qsize() == len(q) == model.qsize()
        assert q.unfinished_tasks >= q.qsize()
    rest = [model.get() for _ in range(model.qsize())]
    assert drained(q) == rest
    for handle in handles:
        assert handle.verify().ok
        handle.close()


class Model:
    """A queue with leases, in a list. Shares no code with what it tests."""

    def __init__(self, order):
        self.order, self.ready, self.leased, self.number, self.unfinished = order, [], {}, 0, 0

    def put(self, item):
        first = {"fifo": 0, "lifo": 0, "priority": item[0] if self.order == "priority" else 0}[self.order]
        self.ready.append([(first, -self.number if self.order == "lifo" else self.number), item, 0])
        self.number += 1
        self.unfinished += 1

    def next(self):
        return min(self.ready, default=None)

    def take(self):
        found = self.next()
        self.ready.remove(found)
        return found

    def lease(self, job, begun, end):
        found = self.take()
        found[2] += 1
        self.leased[job] = [found, begun, end]
        return found

    def back(self, job):
        self.ready.append(self.leased.pop(job)[0])

    def sweep(self, now):
        for job, (_, begun, end) in list(self.leased.items()):
            if end <= now or begun > now + 60:
                self.back(job)


VERBS = (
    "put put put get lease lease ack nack extend clock back done many flush clear handle"  # the likely ones repeated
)
LEASED = st.lists(st.tuples(st.sampled_from(VERBS.split()), st.integers(0, 30)), max_size=40)


@pytest.mark.parametrize("order", ORDERS)
@examples(rounds(60))
@given(operations=LEASED)
def test_leases_are_as_in_a_model(opened, order, operations):
    """Jobs are acknowledged, given back, extended, run out, by any handle, with a clock that goes and jumps back."""
    clock, model, name, jobs = Clock(), Model(order), next(names), []
    handles = [opened(clock=clock), opened(clock=clock)]
    queues = [handle.queue(name, order=order) for handle in handles]
    q = queues[0]
    for operation, number in operations:
        if operation == "put":
            item = item_of(order, number)
            q.put(item)
            model.put(item)
        elif operation == "many":
            items = [item_of(order, n) for n in range(number * 2)]
            q.put_many(items)
            for item in items:
                model.put(item)
        elif operation == "get" and model.ready:
            assert q.get() == model.take()[1]
        elif operation == "lease" and model.ready:
            job = q.get(lease=number + 1)
            jobs.append(job)
            assert job.expires_at == clock.now + number + 1
            _, item, attempts = model.lease(job, clock.now, clock.now + number + 1)
            assert (job.item, job.attempts) == (item, attempts)
        elif operation in ("ack", "nack", "extend") and jobs:
            settle(jobs[number % len(jobs)], operation, model, clock)
        elif operation == "clock":
            clock.now += number
        elif operation == "back":
            clock.now -= number * 10
        elif operation == "done" and model.unfinished > len(model.ready) + len(model.leased):
            q.task_done()
            model.unfinished -= 1
        elif operation == "flush":
            handles[0].flush()
        elif operation == "clear" and number < 4:
            model.unfinished -= len(model.ready) + len(model.leased)
            model.ready, model.leased = [], {}
            q.clear()
        elif operation == "handle":
            q = queues[number % 2]
        model.sweep(clock.now)
        assert q.qsize() == len(model.ready)
        assert q.unfinished_tasks == model.unfinished
        if model.ready:
            assert q.peek() == model.next()[1]
    clock.now += 1e6
    model.sweep(clock.now)
    assert drained(q) == [item for _, item, _ in sorted(model.ready)]
    assert set(rows_of(handles[0], name)) <= {1}
    for handle in handles:
        assert handle.verify().ok
        handle.close()


def settle(job, operation, model, clock):
    """Do something with a job that may be lost."""
    verb = {"ack": job.ack, "nack": job.nack, "extend": lambda: job.extend(5)}[operation]
    if job not in model.leased:
        with pytest.raises(LeaseLostError):
            verb()
        return
    verb()
    if operation == "ack":
        del model.leased[job]
        model.unfinished -= 1
    elif operation == "nack":
        model.back(job)
    else:
        model.leased[job][1:] = clock.now, clock.now + 5


# The interface of the standard library


def test_a_full_queue_takes_no_more_and_an_empty_one_gives_none(opened):
    q, other = (opened().queue("q", 2) for _ in range(2))
    assert q.empty() and not q.full() and q.maxsize == 2
    q.put(1)
    other.put_nowait(2)
    assert q.full() and not q.empty() and len(other) == 2
    for attempt in (
        lambda: q.put_nowait(3),
        lambda: other.put(3, timeout=0.01),
        lambda: q.put(3, False),
        lambda: q.put_many([3]),
    ):
        with pytest.raises(queue.Full) as error:
            attempt()
        assert isinstance(error.value, QueueFullError) and isinstance(error.value, PersistDictError)
    assert [q.get(), other.get_nowait()] == [1, 2]
    with pytest.raises(QueueFullError):
        q.put_many([1, 2, 3])
    for attempt in (q.get_nowait, lambda: other.get(timeout=0.01), lambda: q.get(False, lease=5), q.peek):
        with pytest.raises(queue.Empty) as error:
            attempt()
        assert isinstance(error.value, QueueEmptyError) and isinstance(error.value, PersistDictError)
    for attempt in (lambda: q.put(1, timeout=-1), lambda: q.get(timeout=-1)):
        with pytest.raises(ValueError, match="timeout"):
            attempt()
    q.put_many([])
    assert (q.qsize(), q.unfinished_tasks) == (0, 2)


def test_timeouts_last_as_long_as_they_say(q):
    for timeout in (0, 0.15):
        before = time.monotonic()
        with pytest.raises(QueueEmptyError):
            q.get(timeout=timeout)
        assert timeout <= time.monotonic() - before < timeout + 5


@pytest.mark.parametrize("verb", ["get", "put", "join", "nack"])
def test_who_waits_is_woken_at_once_within_a_process(opened, monkeypatch, verb):
    """Through another handle too; without that they would wait for the next look, which is put off here."""
    monkeypatch.setattr(queuewait, "FIRST", 100.0)
    monkeypatch.setattr(queuewait, "LONGEST", 100.0)
    q, other = opened().queue("q", 1), opened().queue("q", 1)
    if verb != "get":
        other.put("old")
    job = other.get(lease=100) if verb == "nack" else None
    waits = {"get": q.get, "nack": q.get, "put": lambda: q.put("new"), "join": lambda: (q.get(), q.join())}
    waiting = Waiting(waits[verb])
    {"get": lambda: other.put("new"), "put": other.get, "join": other.task_done, "nack": lambda: job.nack()}[verb]()
    waiting.result()
    assert not queuewait._signals


def test_threads_get_everything_once(opened):
    """Four put and four get, through two handles, with a bound; an end for each getter."""
    queues = [opened().queue("q", 10), opened().queue("q", 10)]  # whoever puts first sets the size
    each = 150

    def produce(number):
        for n in range(each):
            queues[number % 2].put((number, n))

    def consume(number):
        found = []
        while (item := queues[number % 2].get()) is not None:
            found.append(item)
            queues[number % 2].task_done()
        queues[0].task_done()
        return found

    with ThreadPoolExecutor(8) as pool:
        consumers = [pool.submit(consume, number) for number in range(4)]
        producers = [pool.submit(produce, number) for number in range(4)]
        for producer in producers:
            producer.result()
        for _ in consumers:
            queues[0].put(None)
        queues[1].join()
        found = [consumer.result() for consumer in consumers]
    assert sorted(itertools.chain(*found)) == [(number, n) for number in range(4) for n in range(each)]
    for items in found:
        for number in range(4):
            own = [n for producer, n in items if producer == number]
            assert own == sorted(own)


def test_too_many_are_said_to_be_done(q):
    with pytest.raises(ValueError, match="too many"):
        q.task_done()
    q.put(1)
    q.get()
    q.task_done()
    with pytest.raises(ValueError, match="too many"):
        q.task_done()
    q.join()


def test_waiting_ends_with_ctrl_c(q):
    gc.disable()  # in a callback of the collector, as hypothesis has one, Python loses the interrupt
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            q.get()
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
        gc.enable()
    assert not queuewait._signals
    q.put(1)
    assert q.get() == 1


def test_waiting_ends_when_the_dictionary_is_closed(opened):
    d = opened()
    waiting = Waiting(d.queue("q").get)
    d.close()
    with pytest.raises(PersistDictError, match="closed"):
        waiting.result()


# Settings


@pytest.mark.priorities
def test_order_and_size_are_kept_by_the_first_put(opened):
    d, other = opened(), opened()
    first, second = d.queue("q", 3, order="lifo"), other.queue("q", order="priority")
    assert d.queues() == []
    assert rows_of(d) == {}
    first.put(1)
    assert d.queues() == other.queues() == ["q"]
    for attempt in (lambda: second.put((1, 2)), second.get, second.peek, second.qsize, lambda: other.queue("q")):
        with pytest.raises(MismatchError, match="lifo"):
            attempt()
    with pytest.raises(MismatchError, match="maxsize 3"):
        other.queue("q", 4, order="lifo")
    third = other.queue("q", order="lifo")
    assert (third.maxsize, third.order, third.name) == (3, "lifo", "q")
    third.put_many([2, 3])
    assert third.full() and first.full()
    assert drained(first) == [3, 2, 1]
    first.clear()
    with pytest.raises(MismatchError, match="lifo"):
        other.queue("q")
    first.remove()
    assert d.queues() == []
    second.put((1, 2))
    assert second.get() == (1, 2)


def test_looking_makes_nothing(opened):
    d = opened()
    q = d.queue("q")
    commit = d._store.begin().id()
    assert (q.qsize(), q.empty(), q.full(), q.maxsize, q.unfinished_tasks) == (0, True, False, 0, 0)
    q.join()
    with pytest.raises(QueueEmptyError):
        q.get(block=False)
    assert (d.queues(), rows_of(d), len(d)) == ([], {}, 0)
    q.clear()
    q.remove()
    assert rows_of(d) == {}
    assert d._store.begin().id() <= commit + 4


def test_what_is_no_queue_is_refused(opened):
    d = opened()
    for wrong in ({"order": "random"}, {"maxsize": True}, {"maxsize": 1 << 64}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            d.queue("q", **wrong)
    for name in ("", "n" * 201):
        with pytest.raises(ValueError, match="name"):
            d.queue(name)
    assert d.queue("q", -5).maxsize == 0
    q = d.queue("q")
    for lease in (0, -1, float("inf"), True):
        with pytest.raises((ValueError, TypeError), match="lease"):
            q.get(lease=lease)
    with pytest.raises(TypeError):
        iter(q)
    assert repr(q).endswith(".queue('q', order='fifo')>")


def test_a_limit_that_would_crop_the_rows_is_refused(tmp_path):
    """At the least limit that is taken, everything works."""
    with (
        PersistDict(tmp_path / "small", **QUIET, key_size_limit=34) as d,
        pytest.raises(Unsupported, match="key_size_limit of 35"),
    ):
        d.queue("q")
    with PersistDict(tmp_path / "least", **QUIET, key_size_limit=35) as d:
        for order in ORDERS:
            q = d.queue(order[0], order=order)
            q.put_many([2.0**52 + 0.5, -1.5, 0])
            q.get(lease=10).nack()
            assert sorted(drained(q)) == [-1.5, 0, 2.0**52 + 0.5]
        with pytest.raises(TooLargeError, match="priority"):
            q.put("p" * 30)
        assert q.empty()
        assert d.verify().ok


def test_names_are_apart_and_listed(opened):
    d = opened()
    found = ["b", "a", "ab", "grün 😀", "\ud800", "n" * 200]
    for name in found:
        d.queue(name).put(name)
    assert sorted(d.queues()) == sorted(found)
    d["a"] = d.space("a")["a"] = "another"
    assert [d.queue(name).get() for name in found] == found
    assert (len(d), d.spaces()) == (1, ["a"])


def test_queues_are_not_imported_before_use():
    code = (
        "import sys, persistdict; d = persistdict.PersistDict('memory://'); d['a'] = 1; d.queues(); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"queue", "persistdict.queues", "persistdict.jobs", "persistdict.queuerows"} & set(loaded)


# Priorities


@pytest.mark.priorities
def test_priorities_are_ordered_as_keys_are_and_equal_ones_by_insertion(opened):
    q = opened().queue("q", order="priority")
    numbers = [float("-inf"), -(10**40), -1.5, -1, 0, 0.5, 1, 1.5, 10**40, float("inf")]
    mixed = [None, *numbers, b"", b"a", "", "a", "a\x00", "ab", "b", (), (1, 2), (1, "a")]
    for rank, priority in reversed(list(enumerate(mixed))):
        q.put((priority, "first", rank))
    for rank, priority in enumerate(mixed):
        q.put((priority, "second", rank))
    assert [item[1:] for item in drained(q)] == [
        (turn, rank) for rank in range(len(mixed)) for turn in ("first", "second")
    ]
    q.put_many([(True, "b"), (1, "a"), (1.0, "c"), 1, "alone", ()])
    assert drained(q) == [(True, "b"), (1, "a"), (1.0, "c"), 1, "alone", ()]


@pytest.mark.priorities
def test_what_is_no_priority_is_refused_and_nothing_is_put(opened):
    q = opened().queue("q", order="priority")
    for item in ([1, 2], ({"a": 1}, 2), {"a": 1}, (object(), 1), ((1, [2]), 3)):
        with pytest.raises(KeyTypeError, match="priority"):
            q.put(item)
    with pytest.raises(TooLargeError, match="priority"):
        q.put(("p" * 500, 1))
    with pytest.raises(ValueTypeError):
        q.put_many([(1, 2), (1, object())])
    assert (q.qsize(), q._root.queues()) == (0, [])


@pytest.mark.priorities
def test_a_priority_queue_is_a_heap_whatever_comes_when(opened):
    """Urgent items come again and again while others wait; the model is heapq."""
    q, heap, numbers = opened().queue("q", order="priority"), [], itertools.count()
    for step in range(300):
        for _ in range(step % 4):
            item = (step * 31 % 17 if step % 3 else 0, next(numbers))
            q.put(item)
            heapq.heappush(heap, item)
        if heap:
            assert q.get() == heapq.heappop(heap)
    assert drained(q) == sorted(heap)


# Cost


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("lease", [None, 60])
def test_what_was_removed_costs_nothing(tmp_path, monkeypatch, order, lease):
    """Removed rows stay as notes until a drain, which is put off here; no search passes over them again and again."""
    from persistdict.stores.lmdb import population

    looks = itertools.count()
    plain = population._next
    monkeypatch.setattr(population, "_next", lambda *rest: (next(looks), plain(*rest))[1])
    with PersistDict(tmp_path / "d", **QUIET, sync_interval=1e6) as d:
        q = d.queue("q", order=order)
        for n in range(600):
            q.put(item_of(order, n))
        for n in range(500):
            if n % 10 == 0:
                q.put((-n, "urgent"))
            if lease:
                q.get(lease=lease).ack()
            else:
                q.get()
        assert next(looks) < 4000


def test_leases_that_ended_cost_nothing(tmp_path, monkeypatch):
    """A search for leases that are over begins where the last one ended."""
    from persistdict.stores.lmdb import population

    looks, clock = itertools.count(), Clock()
    plain = population._next
    monkeypatch.setattr(population, "_next", lambda *rest: (next(looks), plain(*rest))[1])
    with PersistDict(tmp_path / "d", **QUIET, sync_interval=1e6, clock=clock) as d:
        q = d.queue("q")
        q.put_many(range(400))
        q.get(lease=1e6)
        for _ in range(399):
            job = q.get(lease=10)
            clock.now += 6
            job.ack()
        assert next(looks) < 3000


# Items


@pytest.mark.priorities
def test_large_items_lie_apart_and_come_back_whole(opened):
    d, other = opened(), opened()
    for order in ORDERS:
        q, again = d.queue("q", order=order), other.queue("q", order=order)
        items = [(n, item) for n, item in enumerate(LARGE)]
        q.put_many(items)
        assert rows_of(d) == {1: 1, 2: 3, 4: 3}
        expected = items[::-1] if order == "lifo" else items
        assert again.peek() == expected[0]
        job = again.get(lease=60)
        assert job.item == expected[0]
        job.nack()
        with q.get(lease=60) as job:
            assert (job.item, job.attempts) == (expected[0], 2)
        assert rows_of(d) == {1: 1, 2: 2, 4: 2}
        assert [again.get(), q.get()] == expected[1:]
        assert rows_of(d) == {1: 1}
        q.put(items[1])
        q.clear()
        assert rows_of(d) == {1: 1}
        q.remove()
        assert rows_of(d) == {}


def test_an_item_that_cannot_be_stored_changes_nothing(q):
    for attempt in (lambda: q.put(object()), lambda: q.put_many([1, object()])):
        with pytest.raises(ValueTypeError):
            attempt()
    assert q.qsize() == 0


class Point:
    def __init__(self, x):
        self.x = x


def test_an_item_that_cannot_be_decoded_stays(opened):
    """For who lacks the type it is an error, whatever the way; who has it gets it."""
    codec = SafeCodec()
    codec.register(Point, lambda point: point.x, Point)
    knows, lacks = opened(codec=codec).queue("q"), opened().queue("q")
    knows.put_many(["before", Point(1), "behind"])
    assert lacks.get() == "before"
    target = queue.Queue()
    for attempt in (lacks.get, lambda: lacks.get(lease=5), lacks.peek, lambda: lacks.ingest(target)):
        with pytest.raises(DecodeError):
            attempt()
        assert (lacks.qsize(), target.qsize()) == (2, 0)
    job = knows.get(lease=5)
    assert (job.item.x, job.attempts) == (1, 1)
    job.nack()
    assert knows.get().x == 1
    assert lacks.get() == "behind"


def test_how_far_is_read_ahead_follows_from_what_is_used(q):
    """It grows for who takes all, shrinks for who uses little, and is never nothing, whatever threads have counted."""
    q.put_many(range(100))
    for n in range(40):
        assert q.get() == n
    assert q._width == 16
    for q._width, q._used in [(0, 0), (0, 7), (2, 1), (1, 0), (16, 1), (16, 16), (16, 0)]:
        assert 1 <= q._next_width() <= 16
        assert q.get() == (n := n + 1)
    q._width, q._used = 16, 1
    assert q._next_width() == 8


def test_what_was_read_ahead_is_not_handed_out_if_it_is_another_by_now(opened):
    q, other = opened().queue("q"), opened().queue("q")
    q.put_many(f"old {n}" for n in range(10))
    assert [q.get() for _ in range(4)] == [f"old {n}" for n in range(4)]
    assert q._ahead
    other.get(lease=60).nack()
    assert [q.get(), other.get(), q.get()] == ["old 4", "old 5", "old 6"]
    other.remove()
    other.put_many(f"new {n}" for n in range(10))
    assert drained(q) == [f"new {n}" for n in range(10)]


def test_a_commit_that_cannot_be_told_is_taken_for_a_new_one(d, q, monkeypatch):
    """As when the file has grown in another process: the next read sees to that."""

    def fail():
        raise RuntimeError("the map is too small")

    monkeypatch.setattr(getattr(d._store, "bare", d._store), "begin", fail)
    assert q._commit() == -1


def test_every_getter_has_an_object_of_its_own(opened):
    q, other = opened().queue("q"), opened().queue("q")
    q.put_many([[1], [2]])
    looked = q.peek()
    looked.append("mine")
    assert (other.peek(), q.get(), other.get()) == ([1], [1], [2])


def test_queues_are_no_cache(opened):
    """Bounds, time limits, evictions, `clear` and the time to live of the dictionary concern none of their rows."""
    clock = Clock()
    d = opened(max_entries=10, expiration_days=1, ttl=60, clock=clock)
    q = d.queue("q")
    for n in range(100):
        q.put(n)
        d[n] = n
    job = q.get(lease=1e6)
    clock.now += 86400 * 3
    assert d.expire() >= 0
    d.maintain()
    d.update({n: n for n in range(20)})
    d.clear()
    assert len(d) == 0
    assert (job.item, drained(q)) == (0, list(range(1, 100)))
    clock.now += 1e6
    assert q.get() == 0


def test_a_queue_does_not_make_the_cache_cold(opened):
    d = opened()
    q = d.queue("q")
    d["k"] = 1
    for change in (lambda: q.put(1), q.get, lambda: q.put(2), lambda: q.get(lease=5).ack(), q.clear):
        change()
        if d._options.durability != "commit":  # else a drain has followed
            assert d._front.mark == d._store.begin().id()


# Leases


def test_a_job_is_done_at_the_end_of_its_block_or_goes_back(q):
    q.put_many(["a", "b"])
    with q.get(lease=60) as job:
        assert isinstance(job, Job)
        assert (job.item, job.attempts, q.qsize(), q.unfinished_tasks) == ("a", 1, 1, 2)
    with pytest.raises(RuntimeError, match="no"), q.get(lease=60) as job:
        raise RuntimeError("no")
    with q.get(lease=60) as job:
        assert (job.item, job.attempts) == ("b", 2)
        job.ack()
    for verb in (job.ack, job.nack, lambda: job.extend(5)):
        with pytest.raises(LeaseLostError, match="settled"):
            verb()
    q.join()
    assert repr(job) == "<Job, attempt 2>"


def test_a_lease_that_ran_out_is_lost_to_its_worker(opened):
    clock = Clock()
    q, other = opened(clock=clock).queue("q"), opened(clock=clock).queue("q")
    q.put_many(["a", "b"])
    slow = q.get(lease=10)
    clock.now += 9.9
    assert q.qsize() == 1
    clock.now += 0.1
    job = other.get(lease=10)
    assert (job.item, job.attempts, q.qsize()) == ("a", 2, 1)
    for verb in (slow.nack, slow.ack, lambda: slow.extend(100)):
        with pytest.raises(LeaseLostError):
            verb()
    with pytest.raises(ValueError, match="in the block"), slow:
        raise ValueError("in the block")
    job.extend(100)
    clock.now += 50
    assert q.get() == "b"
    job.ack()
    assert (q.qsize(), q.unfinished_tasks) == (0, 1)


def test_a_late_worker_may_finish_what_nobody_has_put_back(opened):
    clock = Clock()
    q = opened(clock=clock).queue("q")
    q.put("a")
    job = q.get(lease=10)
    clock.now += 100
    job.ack()
    assert (q.qsize(), q.unfinished_tasks) == (0, 0)


def test_the_same_lease_given_twice_is_two(opened):
    """With a clock that came back to where it was, the rows of both are alike but for their versions."""
    clock = Clock()
    q = opened(clock=clock).queue("q")
    q.put("a")
    first = q.get(lease=10)
    clock.now -= 100
    assert q.qsize() == 1
    clock.now += 100
    second = q.get(lease=10)
    for verb in (first.ack, first.nack, lambda: first.extend(5)):
        with pytest.raises(LeaseLostError):
            verb()
    assert q.qsize() == 0
    second.ack()


def test_a_stale_job_harms_nobody_after_the_queue_was_made_anew(opened):
    q = opened(clock=Clock()).queue("q")
    q.put("a")
    job = q.get(lease=60)
    q.remove()
    q.put("a")
    new = q.get(lease=60)
    with pytest.raises(LeaseLostError):
        job.ack()
    new.ack()
    assert q.unfinished_tasks == 0


def test_a_clock_that_jumps_back_loses_nothing(opened):
    """Leases of a year ahead are over; such as were given a moment ahead are not."""
    clock = Clock()
    q = opened(clock=clock).queue("q")
    q.put_many(["a", "b", "c"])
    clock.now += 50
    mine = q.get(lease=10)
    clock.now -= 50
    assert q.qsize() == 2
    mine.extend(1000)
    clock.now += 86400 * 365
    q.get(lease=10), q.get(lease=10)
    clock.now -= 86400 * 365
    assert q.qsize() == 3
    assert drained(q) == ["a", "b", "c"]
    with pytest.raises(LeaseLostError):
        mine.ack()


def test_who_waits_gets_what_a_lease_gives_back(opened):
    """By the clock of the dictionary, with no commit of anybody."""
    clock = Clock()
    q, other = opened(clock=clock).queue("q"), opened(clock=clock).queue("q")
    q.put("a")
    q.get(lease=10)
    waiting = Waiting(other.get)
    clock.now += 10
    assert waiting.result() == "a"


def test_many_leases_run_out_at_once(opened):
    clock = Clock()
    q = opened(clock=clock).queue("q")
    many = queuerows.AT_ONCE + 50
    q.put_many(range(many))
    jobs = [q.get(lease=10) for _ in range(many)]
    clock.now += 100
    assert sorted(drained(q)) == list(range(many))
    with pytest.raises(LeaseLostError):
        jobs[0].ack()


# Moving to and from memory


@pytest.mark.parametrize("kind", [queue.Queue, queue.LifoQueue, queue.PriorityQueue, queue.SimpleQueue])
def test_a_queue_of_the_standard_library_is_flushed_and_ingested(q, kind):
    source = kind()
    for n in range(250):
        source.put(n)
    report = q.flush(source)
    assert (report.moved, report.failed, source.empty(), q.qsize()) == (250, [], True, 250)
    if kind is not queue.SimpleQueue:
        source.join()
    target = queue.Queue(30)
    assert q.ingest(target) == 30
    assert q.ingest(target) == 0
    assert (q.qsize(), q.unfinished_tasks) == (220, 220)
    first = [target.get() for _ in range(30)]
    assert q.ingest(target, 5) == 5
    rest = queue.SimpleQueue()
    assert q.ingest(rest) == 215
    found = first + [target.get() for _ in range(5)] + [rest.get() for _ in range(215)]
    assert found == (list(range(249, -1, -1)) if kind is queue.LifoQueue else list(range(250)))
    assert q.unfinished_tasks == 0


def test_a_bad_item_harms_no_other_and_comes_back(q):
    source, bad = queue.Queue(), object()
    for item in ("a", bad, "b"):
        source.put(item)
    report = q.flush(source)
    assert report.moved == 2
    [(item, error)] = report.failed
    assert item is bad and isinstance(error, ValueTypeError)
    assert drained(q) == ["a", "b"]


def test_a_flush_ends_where_the_queue_is_full(opened):
    q, source = opened().queue("q", 3), queue.Queue()
    for n in range(5):
        source.put(n)
    assert q.flush(source) == (3, [])
    assert source.qsize() == 2
    assert drained(q) == [0, 1, 2]


def test_what_the_store_refuses_is_told(q, monkeypatch):
    source = queue.Queue()
    source.put(1)
    monkeypatch.setattr(q, "_add", lambda *_, **__: (_ for _ in ()).throw(DiskFullError(28, "full")))
    report = q.flush(source)
    assert report.moved == 0
    assert [item for item, _ in report.failed] == [1]
    assert isinstance(report.failed[0][1], DiskFullError)


class Reluctant:
    """A queue that says nothing of its size, and takes three."""

    def __init__(self):
        self.items = []

    def put_nowait(self, item):
        if len(self.items) == 3:
            raise queue.Full
        self.items.append(item)


def test_what_has_no_room_goes_back_as_it_was(q):
    q.put_many(range(10))
    target = Reluctant()
    assert q.ingest(target) == 3
    assert target.items == [0, 1, 2]
    job = q.get(lease=60)
    assert (job.item, job.attempts) == (3, 1)
    job.ack()
    assert drained(q) == list(range(4, 10))


# Processes

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and kill")


@needs_fork
@pytest.mark.parametrize("durability", ["interval", "commit"])
def test_processes_wait_for_each_other(tmp_path, durability):
    """A child answers each item; the parent joins, and a full queue is waited for, across processes."""
    path = tmp_path / "d"

    def serve():
        with PersistDict(path, **QUIET, durability=durability) as d:
            asked, answers = d.queue("asked", 2), d.queue("answers")
            while (item := asked.get()) is not None:
                answers.put(item * 2)
                asked.task_done()
            asked.task_done()

    with PersistDict(path, **QUIET, durability=durability) as d:
        asked, answers = d.queue("asked", 2), d.queue("answers")
        asked.put(0)
        pid, pipe = in_child(serve)
        for n in range(1, 50):
            asked.put(n)
        asked.put(None)
        asked.join()
        assert (asked.empty(), answers.qsize()) == (True, 50)
        answer_of(pid, pipe)
        assert drained(answers) == [n * 2 for n in range(50)]


@needs_fork
def test_the_job_of_a_worker_that_was_killed_is_handed_out_again(tmp_path):
    path = tmp_path / "d"
    with PersistDict(path, **QUIET) as d:
        q = d.queue("q")
        q.put_many(["a", "b"])
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                with PersistDict(path, **QUIET) as other:
                    job = other.queue("q").get(lease=0.5)
                    os.write(writing, job.item.encode())
                    time.sleep(100)
            finally:
                os._exit(1)
        assert os.read(reading, 1) == b"a"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading), os.close(writing)
        assert q.get() == "b"
        q.task_done()
        with q.get(timeout=30, lease=60) as job:
            assert (job.item, job.attempts) == ("a", 2)
        q.join()
        assert d.verify().ok


@needs_fork
def test_a_forked_child_uses_the_queue_of_its_parent(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        q = d.queue("q")
        q.put("from the parent")
        waiting = Waiting(d.queue("other").get)  # whom the child has not

        def work():
            assert not queuewait._signals
            found = q.get(timeout=10)
            q.put("from the child")
            d.queue("other").put("end")
            return found

        pid, pipe = in_child(work)
        assert answer_of(pid, pipe) == "from the parent"
        assert waiting.result() == "end"
        assert q.get() == "from the child"


def put_squares(q, numbers):
    for number in numbers:
        q.put(number * number)
    q._root.close()


@needs_fork
def test_a_queue_is_an_argument_of_a_process(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        q = d.queue("q", order="priority")
        q.put(100)
        process = multiprocessing.get_context("spawn").Process(target=put_squares, args=(q, [3, 1, 2]))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert drained(q) == [1, 4, 9, 100]
        again = pickle.loads(pickle.dumps(q))
        assert (again.order, again.qsize()) == ("priority", 0)
        again._root.close()


@needs_fork
def test_producers_and_consumers_get_everything_once(tmp_path):
    """See drivers/queues.py."""
    counts = run_driver("queues", tmp_path / "d", rounds(4000), "calm")
    assert counts["delivered"] == counts["items"]
    assert counts["twice"] == 0


@needs_fork
def test_whoever_is_killed_nothing_is_lost_or_stranded(tmp_path):
    """See drivers/queues.py."""
    counts = run_driver("queues", tmp_path / "d", rounds(3000), "kill")
    assert counts["delivered"] == counts["items"]
    assert counts["kills"] > 0


# Failures


def test_a_write_that_is_taken_back_leaves_the_counts_right(tmp_path, monkeypatch):
    """With durability="commit" the row of an item and the state are taken back one by one; counted anew then."""
    from persistdict.stores.lmdb import durable

    def fail(*_):
        raise DiskFullError(28, "no space is left")

    with PersistDict(tmp_path / "d", **QUIET, durability="commit") as d:
        q = d.queue("q")
        q.put_many(["a", "b"])
        for attempt in (lambda: q.put("c"), q.get, lambda: q.get(lease=60)):
            with monkeypatch.context() as patch:
                patch.setattr(durable, "drain", fail)
                with pytest.raises(DiskFullError):
                    attempt()
            assert q.qsize() == 2
        assert drained(q) == ["a", "b"]
        assert q.unfinished_tasks == 2


@pytest.mark.priorities
def test_a_state_that_was_not_taken_back_is_counted_anew(opened):
    """As it is left behind where others wrote the state between a write and its being taken back."""
    for order in ORDERS:
        d = opened()
        q = d.queue("q", order=order)
        q.put_many([(n, n) for n in range(6)])
        taken = [q.get(), q.get()]
        q.get(lease=100)

        def bring_back(txn: Transaction, q=q, taken=taken):
            for _, n in taken:
                head = queue_head("q") + queuerows.READY
                place = (q._priority((n, n)) if q._priorities else b"") + queuestate.ID.pack(n)
                txn.put(head + place, b"", *txn_blob(q, (n, n)))

        d._store.update(bring_back)
        q._doubtful = True
        q.put((9, 9))
        assert (q.qsize(), q._doubtful) == (6, False)
        assert sorted(drained(q))[-1] == (9, 9)
        q.remove()


def test_counts_that_are_too_small_keep_nothing_back(opened):
    clock = Clock()
    d = opened(clock=clock)
    q = d.queue("q")
    q.put_many([1, 2, 3, 4])
    job = q.get(lease=1000)

    def forget(txn: Transaction):
        state = q._rows.load(txn, q._asked)
        state.ready = state.leased = state.unfinished = 0
        q._rows.save(txn, state)

    d._store.update(forget)
    assert (q.get(), q.get(lease=10).item) == (2, 3)
    job.ack()
    q.put(5)
    assert [q.get(), q.get()] == [4, 5]


def txn_blob(q, item):
    """The tag and the value of a ready row."""
    tag, blob = q._root._codec.encode(item)
    return tag, b"\0\0\0\0\0" + blob


def damage(d, kind, nth=0, name="q"):
    """Flip a bit in the n-th row of a kind, in the data, or in the recent writes."""
    d.flush()
    store, head = d._store, queue_head(name) + kind

    def work(txn):
        cursor = txn.cursor(store.k)
        cursor.set_range(head)
        for _ in range(nth):
            cursor.next()
        seq = cursor.value()[:8]
        raw = bytearray(txn.get(seq, db=store.e))
        raw[-5] ^= 1
        txn.put(seq, bytes(raw), db=store.e)

    store.env.data.update(work)


def damage_recent(d, kind, name="q"):
    """Flip a bit in the first row of a kind in the recent writes."""

    def work(txn):
        cursor = txn.cursor()
        cursor.set_range(queue_head(name) + kind)
        key, raw = bytes(cursor.key()), bytearray(cursor.value())
        raw[-5] ^= 1
        txn.put(key, bytes(raw))

    d._store.env.recent.update(work)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("lease", [None, 60])
def test_a_damaged_item_is_passed_over_and_stays(tmp_path, order, lease):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        q = d.queue("q", order=order)
        q.put_many([(n, n) for n in range(4)])
        damage(d, queuerows.READY, 1)
        damage(d, queuerows.READY, 3)
        expected = [(2, 2), (0, 0)] if order == "lifo" else [(0, 0), (2, 2)]
        with pytest.warns(DamagedEntryWarning, match="queue"):
            for item in expected:
                if lease:
                    with q.get(lease=lease) as job:
                        assert job.item == item
                else:
                    assert q.get() == item
                    q.task_done()
            with pytest.raises(QueueEmptyError):
                q.get(block=False)
        assert (q.qsize(), q.unfinished_tasks) == (0, 0)
        q.join()
        q.put((1, 1))
        q.put((0, 5))
        q.get(lease=5).nack()  # brings the search back before what is damaged: it is neither counted nor told again
        assert q.qsize() == 2
        assert not d.verify().ok
        d.verify(repair=True)
        assert d.verify().ok
        assert sorted(drained(q)) == [(0, 5), (1, 1)]
        assert len(list(d.quarantined())) == 2


@pytest.mark.parametrize("spoil", [damage, damage_recent])
def test_a_damaged_item_warns_before_anything_is_taken(tmp_path, spoil):
    """Where warnings are errors nothing is lost."""
    with PersistDict(tmp_path / "d", **QUIET) as d:
        q = d.queue("q")
        q.put_many(["a", "b"])
        spoil(d, queuerows.READY)
        with pytest.raises(DamagedEntryWarning):
            q.get()
        assert (q.qsize(), q.get()) == (1, "b")
        d.verify(repair=True)
        assert d.verify().ok


def test_a_damaged_lease_warns_before_anything_is_taken(tmp_path):
    clock = Clock()
    with PersistDict(tmp_path / "d", **QUIET, clock=clock) as d:
        q = d.queue("q")
        for attempt in (q.get, lambda: q.get(lease=100).item):
            q.put_many("abcdef")
            assert [q.get() for _ in range(3)] == ["a", "b", "c"]  # so that more is read ahead
            q.get(lease=10)
            damage(d, queuerows.LEASED)
            clock.now += 20
            with pytest.raises(DamagedEntryWarning):
                attempt()
            assert (q.qsize(), attempt(), q.get()) == (2, "e", "f")
            d.verify(repair=True)
        assert d.verify().ok


def test_a_damaged_lease_or_large_item_is_passed_over(tmp_path):
    clock = Clock()
    with PersistDict(tmp_path / "d", **QUIET, clock=clock) as d:
        q = d.queue("q")
        q.put_many(["a", b"l" * 5000, "c"])
        job = q.get(lease=10)
        damage(d, queuerows.LEASED)
        damage(d, queuerows.BODY)
        with pytest.raises(CorruptEntryError):
            job.ack()
        clock.now += 20
        with pytest.warns(DamagedEntryWarning):
            assert q.get() == "c"
        q.task_done()
        assert (q.qsize(), q.unfinished_tasks) == (0, 0)
        d.verify(repair=True)
        assert d.verify().ok
        q.put("d")
        assert q.get() == "d"


@pytest.mark.parametrize("order", ORDERS)
def test_what_a_repair_has_put_aside_is_not_waited_for(tmp_path, order):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        q = d.queue("q", order=order)
        q.put_many([(0, 0), (1, 1)])
        damage(d, queuerows.READY, 0)
        damage(d, queuerows.READY, 1)
        d.verify(repair=True)
        with pytest.raises(QueueEmptyError):
            q.get(block=False)
        assert (q.qsize(), q.unfinished_tasks) == (0, 0)
        q.put((2, 2))
        assert q.get() == (2, 2)


@pytest.mark.parametrize("order", ORDERS)
def test_a_queue_without_its_state_is_counted_anew(tmp_path, order):
    """A damaged state is an error until a repair has put it aside; then nothing is missing, no id given twice."""
    clock = Clock()
    with PersistDict(tmp_path / "d", **QUIET, clock=clock) as d:
        q = d.queue("q", 5, order=order)
        q.put_many([(n, n) for n in range(4)])
        job = q.get(lease=10)
        damage(d, queuerows.STATE)
        for attempt in (q.get, lambda: q.put((5, 5)), q.qsize):
            with pytest.raises(CorruptEntryError):
                attempt()
        d.verify(repair=True)
        other = d.queue("q", order="fifo" if order == "priority" else "priority")
        with pytest.raises(MismatchError):
            other.get()
        q.put((9, 9))
        assert (q.qsize(), q.unfinished_tasks) == (4, 5)
        clock.now += 100
        rest = drained(q)
        assert sorted(rest) == [(0, 0), (1, 1), (2, 2), (3, 3), (9, 9)]
        assert rest == (sorted(rest, reverse=True) if order == "lifo" else sorted(rest))
        with pytest.raises(LeaseLostError):
            job.ack()
        assert d.verify().ok


def test_a_newer_format_is_refused(opened):
    d = opened()
    q = d.queue("q")
    q.put(1)
    d._store.put(q._rows.state_key, b"", 0, b"\xff" + d._store.get(q._rows.state_key).blob[1:])
    with pytest.raises(PersistDictError, match="format 255"):
        q.get()


def test_everything_is_there_after_a_backup_and_a_salvage(tmp_path):
    from persistdict import salvage

    with PersistDict(tmp_path / "d", **QUIET) as d:
        q = d.queue("q", order="lifo")
        q.put_many(["a", "b", LARGE[1]])
        q.get(lease=1e6)
        d.backup(tmp_path / "copy")
    salvage(tmp_path / "d", tmp_path / "saved")
    for path in (tmp_path / "copy", tmp_path / "saved"):
        with PersistDict(path, **QUIET) as d:
            q = d.queue("q", order="lifo")
            assert (q.qsize(), q.unfinished_tasks, drained(q)) == (2, 3, ["b", "a"])
            assert d.verify().ok


# In transactions and modes


@pytest.mark.priorities
def test_a_transaction_holds_queues_too(opened):
    """An item is put, or taken, with what is written about it, or not at all; others see nothing of it before."""
    d, other = opened(), opened()
    q, theirs = d.queue("q"), other.queue("q")
    q.put_many(["first", "second"])
    with pytest.raises(RuntimeError, match="no"), d.transaction() as t:
        assert q.get() == "first"
        t.queue("new").put(1)
        t["done"] = "first"
        assert (q.qsize(), theirs.qsize()) == (1, 2)
        raise RuntimeError("no")
    assert (q.qsize(), "done" in d, d.queues()) == (2, False, ["q"])
    with d.transaction() as t:
        t["done"] = t.queue("q").get()
        q.put("third")
        t.queue("new", order="priority").put((1, "x" * 3_000_000))
    assert (other["done"], theirs.get(), theirs.get(), theirs.qsize()) == ("first", "second", "third", 0)
    assert other.queue("new", order="priority").get() == (1, "x" * 3_000_000)


def test_nothing_waits_in_a_transaction(opened):
    d = opened()
    q, full = d.queue("q"), d.queue("full", maxsize=1)
    full.put(1)
    with d.transaction():
        with pytest.raises(queue.Empty):
            q.get()
        with pytest.raises(queue.Full):
            full.put(2)


def test_who_uses_a_queue_meanwhile_is_in_conflict_with_it(opened):
    d, other = opened(), opened()
    other.queue("q").put_many([1, 2])
    with pytest.raises(ConflictError), d.transaction() as t:
        t["got"] = t.queue("q").get()
        assert other.queue("q").get() == 1
    assert "got" not in d
    assert other.queue("q").get() == 2


def test_queues_in_a_dictionary_that_keeps_its_entries(tmp_path):
    with PersistDict(tmp_path / "d", mode="append", background_thread="disabled") as d:
        q = d.queue("q")
        q.put_many([1, 2])
        with q.get(lease=60) as job:
            assert job.item == 1
        with PersistDict(tmp_path / "d", mode="r") as reader:
            assert (reader.queue("q").qsize(), reader.queue("q").peek()) == (1, 2)
            with pytest.raises(ReadOnlyError):
                reader.queue("q").get()
        assert q.get() == 2
        q.clear()


def test_what_a_transaction_took_and_gave_back_is_taken_by_nobody_else(opened):
    """Neither its own items that never were, nor those that others have read ahead."""
    d = opened()
    q = d.queue("lifo", order="lifo")
    with pytest.raises(RuntimeError, match="no"), d.transaction():
        q.put_many(["A", "B"])
        assert q.get() == "B"
        raise RuntimeError("no")
    with d.transaction():
        q.put("C")
        assert q.get() == "C"
    f = d.queue("fifo")
    f.put_many(range(8))
    assert f.get() == 0
    with pytest.raises(RuntimeError, match="no"), d.transaction():
        assert [f.get(), f.get()] == [1, 2]
        raise RuntimeError("no")
    assert [f.get() for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]
    for use in (lambda: f.get(lease=5), f.join):
        f.put(9)
        with pytest.raises(TransactionError), d.transaction():
            use()
    assert f.qsize() == 2


def test_a_queue_is_counted_where_nothing_is_written(tmp_path):
    clock = Clock()
    with PersistDict(tmp_path / "d", background_thread="disabled", clock=clock) as d:
        d.queue("q").put(1)
        d.queue("q").get(lease=5)
        with PersistDict(tmp_path / "d", mode="r", clock=clock) as reader:
            q = reader.queue("q")
            assert (q.qsize(), q.empty()) == (0, True)
            clock.now += 10
            assert (q.qsize(), q.empty(), q.peek()) == (1, False, 1)


def test_options_that_are_none_are_named(opened):
    d = opened()
    for wrong in (1.5, "x"):
        with pytest.raises(TypeError):
            d.queue("q", maxsize=wrong)
    with pytest.raises(ValueError, match="finite"):
        d.queue("q").get(lease=float("inf"))
    with pytest.raises(ValueError, match="timeout"):
        d.queue("q").get(timeout=float("nan"))
