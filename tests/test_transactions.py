"""Transactions: all or nothing, seen by its own thread, refused where they cannot hold."""

import asyncio
import contextlib
import gc
import os
import pickle
import random
import signal
import threading

import pytest
from drivers.running import answer_of, in_child
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from persistdict import (
    BusyError,
    ConflictError,
    FullError,
    NestedFactoryError,
    NestedWriteError,
    PersistDict,
    TransactionError,
    ValueTypeError,
)
from persistdict.overlay import Overlay
from persistdict.testing import Clock

QUIET = {"background_thread": "disabled"}


@pytest.fixture
def d(opened):
    return opened()


class Rollback(Exception):
    """Ends a transaction without effect."""


def in_thread(work):
    """What `work` returns or raises in another thread."""
    outcome = []

    def run():
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


# All or nothing


@pytest.mark.parametrize("way", ["del", "pop", "over at once", "within"])
@pytest.mark.parametrize("whose", ["own", "another handle's"])
def test_one_that_takes_back_what_it_did_leaves_no_copy_behind(opened, way, whose):
    """Nothing is written at its end; the commit that comes next is taken for what it is."""
    d = opened()
    writer = d if whose == "own" else opened()
    d.update(x=1, y=1)
    assert (d["x"], d["y"]) == (1, 1)
    with d.transaction() as t:
        if way == "over at once":
            t.set("new", 1, ttl=1e-9)
        elif way == "within":
            with d.transaction():
                d["new"] = 1
            del t["new"]
        else:
            t["new"] = 1
            assert t.pop("new") == 1 if way == "pop" else not t.__delitem__("new")
    writer["x"] = 2
    assert (d["x"], d["y"]) == (2, 1)
    del writer["y"]
    assert (d["x"], d.get("y"), "y" in d, dict(d)) == (2, None, False, {"x": 2})


def test_others_see_nothing_until_the_end_and_then_everything(opened):
    d, other = opened(), opened()
    d.update(a=1, b=2, c=3)
    s = d.space("s")
    s["x"] = "old"
    with d.transaction() as t:
        t["a"] = 10
        del t["b"]
        t["new"] = "n" * 2_000_000
        t.space("s")["x"] = "new"
        t.prefix("p")["q"] = [1, 2]
        assert dict(other) == {"a": 1, "b": 2, "c": 3}
        assert dict(other.space("s")) == {"x": "old"}
        assert in_thread(lambda: (dict(d), dict(s), len(d))) == ({"a": 1, "b": 2, "c": 3}, {"x": "old"}, 3)
    expected = {"a": 10, "c": 3, "new": "n" * 2_000_000, ("p", "q"): [1, 2]}
    for handle in (d, other):
        assert list(handle.items()) == list(expected.items())
        assert dict(handle.space("s")) == {"x": "new"}


@pytest.mark.parametrize("error", [Rollback, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_whatever_is_raised_undoes_everything(d, error):
    d.update(a=1, b=[2])
    before = {key: d.entry(key).version for key in d}
    with pytest.raises(error), d.transaction() as t:
        t.clear()
        t["a"] = 2
        t.space("s")["x"] = 1
        d.set("late", 1, tag="news")
        raise error
    assert dict(d) == {"a": 1, "b": [2]}
    assert {key: d.entry(key).version for key in d} == before
    assert (d.tags(), d.spaces(), d._store.count()) == ([], [], 2)


def test_what_fails_at_the_end_changes_nothing(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET, max_entries=10, eviction="none") as d:
        d.update(dict.fromkeys(range(8)))
        with pytest.raises(FullError), d.transaction() as t:
            t[0] = "changed"
            t.update(dict.fromkeys(range(100, 105)))
        assert dict(d) == dict.fromkeys(range(8))
        with d.transaction() as t:
            for number in range(8):
                del t[number]
            t.update(dict.fromkeys(range(100, 110)))
        assert list(d) == list(range(100, 110))
        with d.transaction() as t:
            t.clear()
            t.update(dict.fromkeys(range(9)))
        assert list(d) == list(range(9))


def test_what_cannot_be_stored_is_told_at_once_and_the_rest_goes_on(d):
    with d.transaction() as t:
        t["a"] = 1
        with pytest.raises(ValueTypeError):
            t["b"] = object()
        with pytest.raises(KeyError, match="absent"):
            t["absent"]
    assert dict(d) == {"a": 1}


def test_many_and_large_entries(opened):
    d = opened()
    with d.transaction() as t:
        t.update((number, b"x" * 20) for number in range(3000))
        t["large"] = b"y" * 5_000_000
        del t[7]
    assert len(d) == 3000
    assert d["large"] == b"y" * 5_000_000
    assert list(opened())[:8] == [0, 1, 2, 3, 4, 5, 6, 8]


# Reading what it wrote

ACTIONS = st.tuples(
    st.sampled_from(
        ["set", "set", "set", "delete", "popitem", "clear", "update", "incr", "expire", "nested", "undone"]
    ),
    st.sampled_from(["dictionary", "space", "prefix"]),
    st.integers(0, 6),
)


def part_of(d, name):
    return {"dictionary": d, "space": d.space("s"), "prefix": d.prefix("p")}[name]


def act(view, action, key, clock):
    """One step, on a view or on the dict that stands for it."""
    if action == "set":
        view[key] = key
    elif action == "delete":
        view.pop(key, None)
    elif action == "popitem" and len(view):
        view.popitem()
    elif action == "clear":
        view.clear()
    elif action == "update":
        view.update({key: "u", key + 1: "u"})
    elif action == "incr":
        if isinstance(view, dict):
            view[key] = view[key] + 1 if isinstance(view.get(key), int) else 1
        elif isinstance(view.get(key), int):
            view.incr(key)
        else:
            view[key] = 1
    elif action == "expire":
        if isinstance(view, dict):
            view.pop(key, None)
        else:
            view.set(key, "over", ttl=5)
            clock.now += 5


def same_as(d, models):
    for name, model in models.items():
        view = part_of(d, name)
        expected = dict(model)
        if name == "dictionary":
            expected = {**model}
            found = [(key, value) for key, value in view.items() if not isinstance(key, tuple)]
            assert found == list(expected.items())
            assert len(view) == len(expected) + len(models["prefix"])
        else:
            assert list(view.items()) == list(expected.items())
            assert list(view)[::-1] == list(reversed(view))
            assert len(view) == len(expected)
            assert list(view.range()) == sorted(expected)
        for key in range(8):
            assert view.get(key, "none") == expected.get(key, "none")
            assert (key in view) is (key in expected)
        assert bool(view) is (len(view) > 0)


@pytest.mark.parametrize("kind", ["lmdb", "memory"])
def test_a_transaction_is_as_dicts_that_are_copied_back(tmp_path, kind):
    """At each step within it, and after its end, however it ends; also transactions within it."""
    clock = Clock()
    path = f"memory://{tmp_path}" if kind == "memory" else tmp_path / "d"
    d = PersistDict(path, **QUIET, clock=clock)

    def step(t, models, action, name, key):
        """All of the dictionary but its tuples is one model: the prefix is another."""
        if action in ("clear", "popitem") and name == "dictionary":
            action, name = "set", "space"
        act(part_of(t, name), action, key, clock)
        act(models[name], action, key, clock)

    @examples(80)
    @given(before=st.lists(ACTIONS, max_size=6), steps=st.lists(ACTIONS, max_size=12), kept=st.booleans())
    def run(before, steps, kept):
        d.clear()
        d.space("s").clear()
        models = {"dictionary": {}, "space": {}, "prefix": {}}
        for action, name, key in before:
            if action not in ("nested", "undone"):
                step(d, models, action, name, key)
        d.flush()
        within = {name: dict(model) for name, model in models.items()}
        with contextlib.suppress(Rollback), d.transaction() as t:
            for action, name, key in steps:
                if action in ("nested", "undone"):
                    kept_here = action == "nested"
                    deeper = {name: dict(model) for name, model in within.items()}
                    with contextlib.suppress(Rollback), t.transaction() if key % 2 else d.transaction() as inner:
                        for each in range(3):
                            step(inner, deeper, ("set", "delete", "set")[each], name, key + each % 2)
                        same_as(inner, deeper)
                        if not kept_here:
                            raise Rollback
                    if kept_here:
                        within = deeper
                else:
                    step(t, within, action, name, key)
                same_as(t, within)
            same_as(d, within)
            if not kept:
                raise Rollback
        same_as(d, within if kept else models)

    run()
    assert d.verify().ok
    d.close()


def test_every_verb_works_in_a_transaction(opened):
    clock = Clock()
    d = opened(clock=clock, ttl=1000)
    d.set("k", 1, ttl=100, tag="news")
    d.set("gone", 1, tag="news")
    with d.transaction() as t:
        assert t.incr("k") == 2
        assert (t.entry("k").tag, t.entry("k").expires_at) == ("news", clock.now + 100)
        version = t.get_versioned("k").version
        assert t.replace("k", 3, if_version=version) not in (None, version)
        assert t.replace("k", 4, if_version=version) is None
        assert t.add("k", 5) is False
        assert t.add("added", 5, tag="new")
        assert t.transform("k", lambda value: value + 1, tag="weather") == 4
        assert sorted(t.tags()) == ["new", "news", "weather"]
        assert t.evict(tag="news") == 1
        assert sorted(t.tags()) == ["new", "weather"]
        assert list(t.tagged("new")) == ["added"]
        assert t.touch("k", ttl=7)
        assert t.get_many(["k", "x", "added"]) == {"k": 4, "added": 5}
        assert t.setdefault("k") == 4
        assert t.newest() == ["added"]
        assert t.copy() == {"k": 4, "added": 5} == t | {}
        assert t(k=0, first=1)["k"] == 0
    assert dict(d) == {"k": 0, "added": 5, "first": 1}
    assert (d.tags(), d.entry("added").expires_at) == (["new"], clock.now + 1000)
    assert d(never=1) == d
    with d.transaction() as t:
        t.set("short", 1, ttl=10)
        t.set("k", 2, ttl=10)
        clock.now += 5
        assert t["short"] == 1
        clock.now += 5
        assert ("short" in t, "k" in t, t.get("k")) == (False, False, None)
    assert ("short" in d, "k" in d, "added" in d) == (False, False, True)
    assert d.verify().ok


def test_an_entry_that_was_removed_and_made_anew_comes_last(d):
    d.update(a=1, b=2)
    with d.transaction() as t:
        del t["a"]
        t["a"] = 3
        t["b"] = 4
        assert list(t.items()) == [("b", 4), ("a", 3)]
    assert list(d.items()) == [("b", 4), ("a", 3)]
    with d.transaction() as t:
        t.clear()
        t["b"] = 5
        t["a"] = 6
    assert list(d.items()) == [("b", 5), ("a", 6)]


def test_the_order_is_that_in_which_entries_were_made(opened):
    """Also of those that were made in transactions within, or that ended meanwhile."""
    clock = Clock()
    d = opened(clock=clock)
    with d.transaction() as t:
        t.update(a=1, b=2)
        with t.transaction() as inner:
            del inner["a"]
            inner["a"] = 3
        assert list(t) == ["b", "a"]
        t.set("short", 1, ttl=5)
        t["c"] = 4
        clock.now += 5
        t["short"] = 5
        assert list(t) == ["b", "a", "c", "short"]
        with t.transaction() as inner:
            del inner["b"]
        t["b"] = 6
        assert list(t) == ["a", "c", "short", "b"] == list(reversed(t))[::-1]
    assert list(d) == ["a", "c", "short", "b"]


def test_an_iteration_may_change_what_it_goes_through(d):
    d.update(dict.fromkeys(range(1000), 0))
    with d.transaction() as t:
        for key in t:
            if key % 2:
                del t[key]
            else:
                t[key] = 1
            t[key, "new"] = 1
        left_over = iter(t.items())
    assert len(d) == 1500
    assert set(d.values()) == {1}
    with pytest.raises(TransactionError, match="has ended"):
        list(left_over)


def test_copies_in_memory_are_right_before_within_and_after(d):
    d["k"] = "old"
    assert d["k"] == "old"
    with d.transaction() as t:
        assert t["k"] == d["k"] == "old"
        t["k"] = "new"
        assert t["k"] == d["k"] == "new"
        assert in_thread(lambda: d["k"]) == "old"
    assert d["k"] == "new"
    with contextlib.suppress(Rollback), d.transaction() as t:
        t["k"] = "never"
        assert d["k"] == "never"
        raise Rollback
    assert d["k"] == d["k"] == "new"


# Others


def test_transactions_of_threads_and_processes_do_not_lose_anything(tmp_path):
    """Money that goes from one to another by read and write, while others look: the sum is always the same."""
    path, people, rounds = tmp_path / "d", 5, 40
    with PersistDict(path, **QUIET) as d:
        d.update(dict.fromkeys(range(people), 100))

        def pay(seed):
            rng = random.Random(seed)
            with PersistDict(path, **QUIET) as mine:
                for _ in range(rounds):
                    giver, taker = rng.sample(range(people), 2)
                    with mine.transaction() as t:
                        assert sum(t.values()) == 100 * people
                        t[giver] -= 1
                        t[taker] += 1
            return "done"

        children = [in_child(lambda seed=seed: pay(seed)) for seed in range(3)]
        threads = [threading.Thread(target=pay, args=(seed,)) for seed in range(10, 12)]
        for thread in threads:
            thread.start()
        for _ in range(200):
            assert sum(d.get_many(range(people)).values()) == 100 * people
        for thread in threads:
            thread.join()
        assert [answer_of(*child) for child in children] == ["done"] * 3
        assert sum(d.values()) == 100 * people


@pytest.mark.parametrize("look", ["read", "absent", "tested", "condition", "deleted", "only read"])
def test_what_was_looked_at_must_still_be_so(opened, look):
    d, other = opened(), opened()
    d.update(a=1, b=2)
    with pytest.raises(ConflictError, match="do it again"), d.transaction() as t:
        if look in ("read", "only read"):
            assert t["a"] == 1
        elif look == "absent":
            assert "x" not in t
        elif look == "tested":
            assert "a" in t
        elif look == "condition":
            assert t.add("a", 5) is False
        elif look == "deleted":
            del t["a"]
        other["x" if look == "absent" else "a"] = 7
        if look != "only read":
            t["b"] = 3
    assert d["b"] == 2
    assert d["x" if look == "absent" else "a"] == 7


def test_what_was_not_looked_at_may_change(opened):
    d, other = opened(), opened()
    d.update(a=1, b=2)
    with d.transaction() as t:
        t["a"] = t["b"] + 1
        other["a"] = "theirs"
        other["c"] = "theirs"
    assert dict(d) == {"a": 3, "b": 2, "c": "theirs"}


def test_other_writers_do_not_wait(d):
    """No lock that they need is held while code of the caller runs."""
    with d.transaction() as t:
        t["mine"] = 1
        in_thread(lambda: d.__setitem__("theirs", 2))
        in_thread(d.flush)
        assert in_thread(lambda: dict(d)) == {"theirs": 2}
    assert sorted(d) == ["mine", "theirs"]


def test_who_waits_too_long_is_told(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET, timeout=0.05) as d, d.transaction():

        def try_it():
            with d.transaction():
                return "came in"

        with pytest.raises(BusyError, match="transaction"):
            in_thread(try_it)

        def in_another_process():
            with PersistDict(tmp_path / "d", **QUIET, timeout=0.05) as mine:
                try:
                    with mine.transaction():
                        return "came in"
                except BusyError as error:
                    return str(error)

        assert "did not finish a transaction" in answer_of(*in_child(in_another_process))
        with (
            PersistDict(tmp_path / "d", **QUIET) as other,
            pytest.raises(NestedWriteError, match="by another handle"),
            other.transaction(),
        ):
            pass
    with PersistDict(tmp_path / "d", **QUIET, timeout=0.05) as d, d.transaction() as t:
        t["free"] = "again"


def test_a_transaction_of_a_process_that_dies_leaves_nothing(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["k"] = 1

        def die():
            with PersistDict(tmp_path / "d", **QUIET) as mine, mine.transaction() as t:
                t["k"] = 2
                t.space("s")["x"] = 1
                os.kill(os.getpid(), signal.SIGKILL)

        pid, reading = in_child(die)
        os.waitpid(pid, 0)
        os.close(reading)
        with d.transaction() as t:  # the turn is free
            t["l"] = 1
        assert dict(d) == {"k": 1, "l": 1}
        assert d.spaces() == []


# Where it is refused


def test_another_thread_cannot_use_it(d):
    with d.transaction() as t:
        t["a"] = 1
        for use in (lambda: t["a"], lambda: t.space("s").get("x"), lambda: len(t.prefix("p"))):
            with pytest.raises(TransactionError, match="belongs to the thread"):
                in_thread(use)
        with pytest.raises(TransactionError, match="belongs to the thread"):
            in_thread(lambda: t.__setitem__("b", 1))
    assert dict(d) == {"a": 1}


def test_it_is_over_at_its_end(d):
    with d.transaction() as t:
        view = t.space("s")
        view["x"] = 1
    for use in (lambda: t.get("x"), lambda: view["x"], lambda: t.__setitem__("x", 2), lambda: len(t)):
        with pytest.raises(TransactionError, match="has ended"):
            use()
    with pytest.raises(TransactionError, match="pickled"):
        pickle.dumps(t)
    assert dict(d.space("s")) == {"x": 1}


def test_it_is_refused_across_await(d):
    async def main():
        with d.transaction() as t:
            t["a"] = 1
            await asyncio.sleep(0)

    with pytest.raises(TransactionError, match="await"):
        asyncio.run(main())

    async def use_it_later():
        with pytest.raises(TransactionError, match="await"), d.transaction() as t:
            t["a"] = 1
            await asyncio.sleep(0)
            t["b"] = 1

    asyncio.run(use_it_later())
    assert dict(d) == {}


def test_other_tasks_are_not_drawn_into_it(d):
    """A task that runs while the function of a transaction is suspended is refused, and the transaction too."""
    refused = []

    async def other():
        try:
            d["other"] = 1
        except TransactionError as error:
            refused.append(error)

    async def main():
        with pytest.raises(TransactionError), d.transaction() as t:
            t["a"] = 1
            await asyncio.gather(other())

    asyncio.run(main())
    assert len(refused) == 1
    assert dict(d) == {}


def test_a_coroutine_may_have_one_between_its_pauses(d):
    async def main():
        await asyncio.sleep(0)
        for number in range(3):
            with d.transaction() as t:
                t[number] = len(t)
            await asyncio.sleep(0)

    asyncio.run(main())
    assert dict(d) == {0: 0, 1: 1, 2: 2}


def test_it_is_refused_across_yield(d):
    def numbers():
        with d.transaction() as t:
            t["a"] = 1
            yield 1
            t["b"] = 1

    with pytest.raises(TransactionError, match="yield"):
        list(numbers())
    going = numbers()
    next(going)
    for use in (lambda: d.get("a"), lambda: d.__setitem__("c", 1)):
        with pytest.raises(TransactionError, match="suspended"):
            use()
    going.close()
    assert dict(d) == {}
    d["c"] = 1

    @contextlib.contextmanager
    def wrapped():
        with d.transaction() as t:
            yield t

    with pytest.raises(TransactionError), wrapped() as t:
        t["a"] = 1
    assert dict(d) == {"c": 1}


def test_it_may_be_entered_by_a_stack(d):
    with contextlib.ExitStack() as stack:
        t = stack.enter_context(d.transaction())
        t["a"] = 1
        assert in_thread(lambda: dict(d)) == {}
    assert dict(d) == {"a": 1}


def test_a_forked_child_is_not_in_it(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        reading, writing = os.pipe()

        def work():
            d["childs"] = 1
            os.write(writing, repr(dict(d)).encode())
            with d.transaction() as mine:
                mine["childs"] += 1
            return "done"

        with d.transaction() as t:
            t["parent's"] = 1
            child = in_child(work)
            assert os.read(reading, 99) == b"{'childs': 1}"
        assert answer_of(*child) == "done"
        assert dict(d) == {"parent's": 1, "childs": 2}
        outcome = b"nothing"
        try:
            with d.transaction() as t:
                t["k"] = 1
                pid = os.fork()
                if pid:
                    os.waitpid(pid, 0)
        except TransactionError:
            outcome = b"refused"
        finally:
            if not pid:
                os.write(writing, outcome)
                os._exit(0)
        assert os.read(reading, 99) == b"refused"
        os.close(reading)
        os.close(writing)
        assert d["k"] == 1


def test_a_dictionary_is_not_closed_within(d):
    with d.transaction() as t:
        t["a"] = 1
        with pytest.raises(TransactionError, match="after its end"):
            d.close()
        t.close()
        d.flush()
        assert d.stats().entries == 0
        assert d.verify().ok
    assert dict(d) == {"a": 1}


def test_a_transaction_that_does_nothing_leaves_no_trace(opened):
    d, other = opened(), opened()
    d["k"] = 1
    before = other._store.begin().id()
    with d.transaction() as t:
        assert t["k"] == 1
    with d.transaction():
        pass
    assert other._store.begin().id() == before


def test_processes_that_are_killed_leave_whole_transactions(tmp_path):
    """Each moves one from here to there and writes it down in a space; killed anywhere, it did both or neither."""
    rng = random.Random(5)
    path, rounds = tmp_path / "d", 6
    with PersistDict(path, **QUIET) as d:
        d.update(here=10_000, there=0)

        def move(ready):
            with PersistDict(path, **QUIET) as mine:
                number = 0
                while True:
                    with mine.transaction() as t:
                        t["here"] -= 1
                        t["there"] += 1
                        t.space("log")[os.getpid(), number] = b"x" * (30_000 if number % 5 == 0 else 10)
                        if number % 7 == 0:
                            t.update(((os.getpid(), number, each), number) for each in range(600))
                    number += 1
                    os.write(ready, b".")

        for _ in range(rounds):
            reading, writing = os.pipe()
            children = [in_child(lambda ready=writing: move(ready)) for _ in range(2)]
            for _ in range(rng.randrange(1, 40)):
                os.read(reading, 1)
            for pid, answer in children:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(answer)
            os.close(reading)
            os.close(writing)
            log = d.space("log")
            assert d["here"] + d["there"] == 10_000
            assert d["there"] == len(log) == len(list(log))
            many = {key[:2] for key in d if isinstance(key, tuple)}
            assert many == {key for key in log if key[1] % 7 == 0}
            assert len(d) == 2 + 600 * len(many)
        assert d["there"] > rounds
        assert d.verify().ok


# What a review has found


def test_a_version_of_one_transaction_is_never_that_of_another(opened):
    d = opened()
    with contextlib.suppress(Rollback), d.transaction() as t:
        t["a"] = "never"
        version = t.get_versioned("a").version
        raise Rollback
    with d.transaction() as t:
        t["a"] = "kept"
        assert t.replace("a", "overwritten", if_version=version) is None
    assert d["a"] == "kept"


@pytest.mark.parametrize("point", ["turn", "Routed", "Overlay", "Transacted", "_leave", "_finish", "_end"])
def test_whatever_a_signal_interrupts_the_transaction_ends(opened, monkeypatch, point):
    """Where it begins and where it ends: then nothing is written, or everything, and the next one goes on."""
    from persistdict import transactions

    d, other = opened(), opened()
    d["k"] = "before"
    interrupted = []

    def interrupting(function):
        def wrapped(*args, **kwargs):
            if not interrupted:
                interrupted.append(point)
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patched:
        if point == "turn":
            patched.setattr(d._store, "turn", interrupting(d._store.turn))
        elif point.startswith("_"):
            patched.setattr(transactions._Block, point, interrupting(getattr(transactions._Block, point)))
        else:
            made = getattr(transactions, point)
            patched.setattr(made, "__init__", interrupting(made.__init__))
        with pytest.raises(KeyboardInterrupt), d.transaction() as t:
            t["k"] = "within"
    gc.collect()
    d["late"] = 1
    assert other.get("late") == 1
    assert d["k"] == other["k"] == ("within" if point == "_end" else "before")
    with other.transaction() as t:
        t["next"] = 1
    with d.transaction() as t:
        t["own"] = 1
    assert d["next"] == other["own"] == 1


# One that comes while Python ends a generator that an earlier one has left is told there, and raised nowhere.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_signals_at_any_moment_leave_no_transaction_open(tmp_path):
    """A timer raises KeyboardInterrupt somewhere in short transactions, again and again."""
    with PersistDict(tmp_path / "d", **QUIET) as d, PersistDict(tmp_path / "d", **QUIET) as other:

        def interrupt(*_):
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGVTALRM, interrupt)
        rng = random.Random(3)
        stopped = 0
        try:
            for number in range(150):
                try:
                    signal.setitimer(signal.ITIMER_VIRTUAL, rng.uniform(0.00005, 0.002))
                    for _ in range(1000):
                        with d.transaction() as t:
                            t["a"] = t["b"] = number
                except KeyboardInterrupt:
                    stopped += 1
                finally:
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                d["after"] = number
                assert other["after"] == number, "it went into a transaction that had ended"
                assert other.get("a") == other.get("b")
        finally:
            signal.signal(signal.SIGVTALRM, before)
        assert stopped > 100
        with other.transaction() as t:
            t["a"] = "the turn is free"


def test_a_generator_that_another_thread_ends_gives_the_turn_back(d):
    def numbers():
        with d.transaction() as t:
            t["k"] = 1
            yield 1

    going = numbers()
    in_thread(lambda: next(going))
    in_thread(going.close)
    with d.transaction() as t:
        t["k"] = 2
    assert in_thread(lambda: d.__setitem__("late", 1)) is None
    assert dict(d) == {"k": 2, "late": 1}


def test_what_is_removed_and_written_again_in_bulk_comes_last(d):
    d.update({"a": 1, "b": 2, 1: "int"})
    with d.transaction() as t:
        del t["a"]
        t.update(a=9)
        del t[1]
        t.update({True: "bool"})
        assert list(map(repr, t)) == ["'b'", "'a'", "True"]
    assert list(map(repr, d)) == ["'b'", "'a'", "True"]


@pytest.mark.parametrize("way", ["iter", "range", "tagged", "reversed"])
def test_what_is_overwritten_meanwhile_is_visited_once(d, way):
    d.set_many({number: number for number in range(6)}, tag="t")
    with d.transaction() as t:
        t.set(2, "x", tag="t")
        ways = {"iter": lambda: t, "range": t.range, "tagged": lambda: t.tagged("t"), "reversed": lambda: reversed(t)}
        seen = []
        for key in ways[way]():
            seen.append(key)
            for other in (key - 1, key + 1):
                if 0 <= other < 6:
                    t.set(other, "x", tag="t")
    assert sorted(seen) == list(range(6))


def test_room_that_is_made_at_the_end_is_no_conflict(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET, max_entries=50) as d:
        for number in range(60):
            d[number] = number
        for number in range(100, 160):
            with d.transaction() as t:
                assert all(t.get(key, key) == key for key in list(t)[:10])
                t[number] = number
        assert len(d) <= 50
        with PersistDict(tmp_path / "d", **QUIET) as other, pytest.raises(ConflictError), d.transaction() as t:
            first = next(iter(t))
            assert t[first] == first
            del other[first]
            t["new"] = 1
        assert "new" not in d


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("what", ["made", "changed"])
def test_what_others_do_while_room_is_made_is_a_conflict(tmp_path, monkeypatch, what, full):
    """Whether anything was evicted for the transaction or not."""
    with PersistDict(tmp_path / "d", **QUIET, max_entries=50) as d, PersistDict(tmp_path / "d", **QUIET) as other:
        for number in range(50 if full else 10):
            d[number] = "old"
        last = next(reversed(d))
        asked, name = (Overlay, "forgive") if full else (d._bounds, "make_room")  # what comes last before the end
        really = getattr(asked, name)

        def meanwhile(*args):
            really(*args)
            other["key" if what == "made" else last] = "theirs"

        with pytest.raises(ConflictError), d.transaction() as t:
            assert t.add("key", "mine")
            assert t[last] == "old"
            t.update(dict.fromkeys(range(100, 103)))
            monkeypatch.setattr(asked, name, meanwhile)
        monkeypatch.undo()
        assert other.get("key") == ("theirs" if what == "made" else None)
        assert 100 not in d


def test_what_is_made_in_a_transaction_is_seen_by_nobody_else(d):
    """By a memoized function too; and nobody waits for anybody."""
    calls = []

    @d.memoize(name="f")
    def f(number):
        calls.append(number)
        return d["x"] + number

    @d.memoize(name="g")
    async def g(number):
        return number

    d["x"] = 1
    with contextlib.suppress(Rollback), d.transaction() as t:
        t["x"] = 100
        assert (f(1), f(1)) == (101, 101)
        assert in_thread(lambda: f(2)) == 3
        raise Rollback
    assert f(1) == 2
    assert calls == [1, 2, 1]

    async def main(make):
        with d.transaction():
            await make()

    for make in (lambda: g(1), lambda: g.refresh(1), lambda: d.aget_or_create("k", lambda: 1)):
        with pytest.raises(TransactionError):
            asyncio.run(main(make))
    assert "k" not in d
    with d.transaction() as t:

        def factory():
            t["k"] = "newer"
            return "computed"

        assert t.get_or_create("k", factory) == "newer"
        with pytest.raises(NestedFactoryError):
            t.get_or_create("r", lambda: t.get_or_create("r", lambda: 1))
    assert d["k"] == "newer"
