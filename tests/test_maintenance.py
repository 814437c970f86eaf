"""Upkeep, with and without its thread."""

import contextlib
import gc
import subprocess
import sys
import threading
import weakref

import pytest

from persistdict import CorruptEntryError, MaintenanceError, PersistDict
from persistdict.maintenance import Keeper, keeper_of
from persistdict.stores.lmdb.gate import EVICTION
from persistdict.stores.lmdb.pieces import piece_key
from persistdict.tasks import Charge, check_all, expire_all, purpose_of, run_round
from persistdict.testing import Clock
from persistdict.waking import Latch


def upkeep_threads():
    return [thread for thread in threading.enumerate() if thread.name == "persistdict-upkeep"]


def test_one_thread_serves_all_handles_of_a_folder_and_ends_with_the_last(tmp_path):
    first = PersistDict(tmp_path / "d")
    second = PersistDict(tmp_path / "d")
    other = PersistDict(tmp_path / "other")
    assert len(upkeep_threads()) == 2
    first.close()
    assert len(upkeep_threads()) == 2
    second.close()
    other.close()
    assert not upkeep_threads()
    with PersistDict(tmp_path / "d"):
        assert len(upkeep_threads()) == 1


def test_no_thread_runs_unless_asked(tmp_path):
    with (
        PersistDict(tmp_path / "d", background_thread=False),
        PersistDict(tmp_path / "e", background_thread="disabled"),
    ):
        assert not upkeep_threads()


def test_a_round_writes_access_times_and_removes_what_is_over(tmp_path):
    clock = Clock()
    with PersistDict(tmp_path / "d", clock=clock, ttl=100, background_thread="disabled") as d:
        d.update((number, number) for number in range(2000))
        d.set("stays", 1, ttl=None)
        clock.now += 50
        assert d["stays"] == 1
        d.maintain()
        clock.now += 50
        d.maintain()
        d.flush()
        assert list(d) == ["stays"]
        assert d.entry("stays").atime == clock.now - 50
        txn = d._store.begin_data()
        for db in ("k", "e"):
            assert txn.stat(d._store.env.dbs[db])["entries"] == 1
        assert txn.stat(d._store.env.dbs["x"])["entries"] == 0


def test_false_does_one_round_in_the_constructor(tmp_path):
    clock = Clock()
    with PersistDict(tmp_path / "d", clock=clock, ttl=10, background_thread="disabled") as d:
        d.update(a=1, b=2)
    clock.now += 10
    with PersistDict(tmp_path / "d", clock=clock, background_thread=False) as d:
        d._store.sync()
        assert d._store.begin_data().stat(d._store.e)["entries"] == 0


def test_the_thread_sweeps_without_being_asked(tmp_path):
    """The first round begins at once; it is over when the thread is told to stop by close()."""
    clock = Clock()
    with PersistDict(tmp_path / "d", clock=clock, ttl=10, background_thread="disabled") as d:
        d.update(a=1, b=2)
    clock.now += 10
    swept = threading.Event()

    def ticking():
        swept.set()
        return clock.now

    with PersistDict(tmp_path / "d", clock=ticking, background_timeout=0.01) as d:
        assert swept.wait(60)
        store = d._store
        while store.begin_data().stat(store.e)["entries"]:
            assert upkeep_threads()


def test_a_pass_can_be_stopped_between_two_steps(tmp_path):
    clock = Clock()
    with PersistDict(tmp_path / "d", clock=clock, ttl=10, background_thread="disabled") as d:
        d.update((number, number) for number in range(5000))
        clock.now += 10
        answers = iter([True, True, False])
        assert expire_all(d._store, lambda: next(answers)) == 1024
        answers = iter([True, False])
        assert check_all(d._store, lambda: next(answers)) == []
        assert d.expire() == 5000 - 1024


def damaged(path):
    d = PersistDict(path, background_thread="disabled")
    d.update(a=1, b=2, big="x" * 50_000)
    d.flush()
    record = d._store.get(d._keys.encode("a")[0])
    d._store.env.data.update(lambda txn: txn.put(record.seq, b"rubbish", db=d._store.e))
    d.close()


def test_damage_is_found_at_start_and_told_by_the_next_explicit_call(tmp_path):
    damaged(tmp_path / "d")
    d = PersistDict(tmp_path / "d", background_thread=False)
    assert d["b"] == 2
    with pytest.raises(MaintenanceError, match="damaged"):
        d.flush()
    d.flush()
    d.close()
    d = PersistDict(tmp_path / "d", background_thread=False)
    with pytest.raises(MaintenanceError, match="1 faults"):
        d.close()
    assert d.closed


@pytest.mark.parametrize(
    ("harm", "finding"),
    [
        (lambda s, t, r: t.delete(r.kb, db=s.k), "not in the index"),
        (lambda s, t, r: t.delete(r.seq, db=s.e), "leads to no entry"),
        (lambda s, t, r: t.delete(r.seq, db=s.v), "large value"),
        (lambda s, t, r: t.put(r.seq, b"y" * 50_000, db=s.v), "large value"),
        (lambda s, t, r: t.delete(next(t.cursor(s.p).iternext(values=False)), db=s.p), "large value"),
        (lambda s, t, r: t.put(piece_key(r.seq, 0), b"y", db=s.p), "pieces of large values"),
        (lambda s, t, r: t.drop(s.x, delete=False), "deadlines"),
        (lambda s, t, r: t.put(r.kb, b"12345", db=s.k), "impossible length"),
        (lambda s, t, r: t.put(r.kb, b"12345678", db=s.k), "not in the index"),
    ],
)
def test_the_check_finds_every_kind_of_disagreement(tmp_path, harm, finding):
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        d.update(a=1, b=2)
        d.set("big", "x" * 50_000, ttl=10_000)
        d["huge"] = "x" * 150_000
        d.flush()
        assert check_all(d._store) == []
        record = d._store.get(d._keys.encode("big")[0])
        d._store.env.data.update(lambda txn: harm(d._store, txn, record))
        faults = check_all(d._store)
        assert any(finding in fault for fault in faults)
        d.clear()
        assert check_all(d._store) == []


def test_an_error_in_the_background_is_kept_and_told(tmp_path, monkeypatch):
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        d["k"] = 1
        keeper = keeper_of(d._store)
        monkeypatch.setattr(d._store, "expire", lambda *_: 1 / 0)
        keeper.run_now(d._charge)
        monkeypatch.undo()
        with pytest.raises(MaintenanceError, match="ZeroDivisionError") as caught:
            d.expire()
        assert isinstance(caught.value.__cause__.__context__, ZeroDivisionError)
        assert d.expire() == 0


def test_a_keeper_forgets_stores_that_are_gone():
    keeper = Keeper()
    d = PersistDict("memory://", background_thread="disabled")
    keeper._charges[1] = (weakref.ref(d._charge), 5.0)
    del d
    gc.collect()
    assert keeper.step(Latch()) is None


def test_logs_show_neither_keys_nor_values(tmp_path):
    """A canary in a key and a value, through opening, damage and upkeep."""
    from loguru import logger

    lines = []
    sink = logger.add(lines.append, level=0, backtrace=True, diagnose=True)
    try:
        d = PersistDict(tmp_path / "d", verbose=True, name="named", background_thread=False)
        d["canary-key"] = "canary-value" * 10
        d.flush()
        record = d._store.get(d._keys.encode("canary-key")[0])
        d._store.env.data.update(lambda txn: txn.put(record.seq, b"rubbish", db=d._store.e))
        keeper_of(d._store).run_now(d._charge)
        with pytest.raises(MaintenanceError) as caught:
            d.close()
    finally:
        logger.remove(sink)
    assert any("[named] opened" in line for line in lines)
    assert any("damaged" in line for line in lines)
    assert "canary" not in "".join(lines) + str(caught.value)


# Several processes, long passes


def test_one_process_does_the_periodic_work_and_another_takes_over_when_it_is_gone(tmp_path):
    """The lease is the lock of a file: whoever dies, however, has given it back."""
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        d["k"] = 1
        with leaseholder(tmp_path / "d", "work"):
            assert not d._store.lease("work")
            assert d._store.lease("other work")
        assert d._store.lease("work")
        assert d._store.lease("work")


def test_who_closes_is_in_charge_no_longer(tmp_path):
    """Also if the process goes on using the files by another handle, which does not do that work."""
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        one, two = (PersistDict(tmp_path / "d", background_thread="disabled") for _ in range(2))
        with one, two:
            assert one._store.lease("work")
            assert two._store.lease("work")
        with leaseholder(tmp_path / "d", "work"):
            assert not d._store.lease("work")
        assert d._store.lease("work")


def test_a_process_without_the_lease_syncs_and_notes_reads_but_does_not_sweep(tmp_path):
    clock = Clock()
    with PersistDict(tmp_path / "d", clock=clock, ttl=10, background_thread="disabled") as d:
        d.update(a=1, b=2)
        d.maintain()
        with leaseholder(tmp_path / "d", purpose_of(d._charge)):
            clock.now += 10
            d.set("c", 3, ttl=None)
            assert d["c"] == 3
            assert run_round(d._charge, keeper_of(d._store).tasks)
            assert d._store.usage().entries == 3
            assert d.entry("c").atime == clock.now
        run_round(d._charge, keeper_of(d._store).tasks)
        assert d._store.usage(exact=True).entries == 1


def test_writes_become_durable_in_time_while_a_long_pass_goes_on(tmp_path):
    """Between two steps of a pass, the thread does what is urgent."""
    with PersistDict(tmp_path / "d", background_thread="disabled", sync_interval=1e-3) as d:
        d.update((number, number) for number in range(5000))
        charge = Charge(d._store, d._log, None)
        durable_at = []
        check = d._store.check

        def checking(budget, after=b""):
            if not durable_at:
                d["written during the pass"] = 1
            durable_at.append(d._store.env.settled == d._store.begin().id())
            return check(budget, after)

        d._store.check = checking
        keeper = keeper_of(d._store)
        keeper.add(charge, 1000.0)
        while charge.checking.position is not None:
            assert upkeep_threads()
        keeper.remove(d._store)
        del d._store.check
        assert not durable_at[0]
        assert durable_at[-1]
        assert len(durable_at) > 10


def test_maintain_stops_when_its_time_is_over_and_goes_on_with_the_next_call(tmp_path):
    clock = Clock()
    with PersistDict(tmp_path / "d", clock=clock, ttl=10, background_thread="disabled") as d:
        d.update((number, number) for number in range(3000))
        clock.now += 10
        assert not d.maintain(seconds=0)
        assert 0 < d._store.usage(exact=True).entries < 3000
        while not d.maintain(seconds=0):
            pass
        assert d._store.usage(exact=True).entries == 0
        assert d.maintain()
        assert d.stats().tasks["check"].runs >= 1
        for seconds in (-1, float("nan"), "1", True):
            with pytest.raises((ValueError, TypeError)):
                d.maintain(seconds=seconds)


def test_maintain_finds_damage_once_and_again_when_asked(tmp_path):
    damaged(tmp_path / "d")
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        with pytest.raises(CorruptEntryError, match="1 faults"):
            d.maintain()
        assert d.maintain()
        with pytest.raises(CorruptEntryError, match="1 faults"):
            d.maintain(check=True)


def test_a_long_pass_tells_how_far_it_is_if_the_dictionary_is_verbose(tmp_path, monkeypatch):
    from loguru import logger

    monkeypatch.setattr("persistdict.tasks.PROGRESS", 0.0)
    lines = []
    sink = logger.add(lines.append, level=0)
    try:
        with PersistDict(tmp_path / "d", verbose=True, background_thread="disabled") as d:
            d.update((number, number) for number in range(1000))
            d.maintain()
    finally:
        logger.remove(sink)
    assert any("has examined about 256 rows" in line for line in lines)


def test_a_round_removes_what_is_beyond_the_bounds(tmp_path):
    """Another handle without bounds has written more than this one wants."""
    with (
        PersistDict(tmp_path / "d", background_thread="disabled") as d,
        PersistDict(tmp_path / "d", max_entries=100, background_thread="disabled") as bounded,
    ):
        d.update((number, number) for number in range(1000))
        assert bounded.maintain()
        assert len(d) == 95
        assert d[999] == 999
        assert bounded.stats().evictions == 905
        assert bounded.stats().tasks["evict"].runs == 1


def test_of_several_processes_one_evicts_at_a_time(tmp_path):
    """Else each would make the room that all need. And nothing is evicted but behind that lock."""
    with PersistDict(tmp_path / "d", max_entries=10, background_thread="disabled") as d:
        store, inside, evicted = d._store, [], []
        hold, free = store.env.gate.lock(EVICTION)
        other = other_process(tmp_path / "d", "[keep.append(d._store.evicting()), keep[0].__enter__()][1] is None")
        with other, pytest.raises(BlockingIOError):
            hold()
        hold()
        free()

        @contextlib.contextmanager
        def evicting():
            inside.append(True)
            yield
            inside.clear()

        evict = store.evict
        store.evicting = evicting
        store.evict = lambda *args, **kwargs: evicted.append(bool(inside)) or evict(*args, **kwargs)
        d.update((number, number) for number in range(10))
        d["one more"] = 1
        del store.evicting, store.evict
        assert evicted == [True]


def leaseholder(path, purpose):
    """Another process that has the lease, until it is killed."""
    return other_process(path, f"d._store.lease({purpose!r})")


@contextlib.contextmanager
def other_process(path, expression):
    """Another process for which this expression of the dictionary `d` is true, until it is killed."""
    code = """if True:
        import sys
        from persistdict import PersistDict
        d = PersistDict(sys.argv[1], background_thread="disabled")
        keep = []
        print(eval(sys.argv[2]), flush=True)
        sys.stdin.read()"""
    command = [sys.executable, "-c", code, str(path), expression]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        yield
        process.kill()


def test_the_thread_makes_room_before_a_writer_has_to(tmp_path):
    """A writer that comes near a bound asks for it; it is not the time of the next round."""
    with PersistDict(tmp_path / "d", max_entries=2000, background_timeout=1e6) as d:
        while not d.stats().tasks["check"].runs:  # the first round is over
            assert upkeep_threads()
        runs = d.stats().tasks["evict"].runs
        d.update((number, number) for number in range(1970))
        d["near"] = 1
        d["nearer"] = 1
        while d.stats().tasks["evict"].runs == runs or len(d) > 1902:
            assert upkeep_threads()
        assert d["nearer"] == 1


def test_the_thread_rests_four_times_as_long_as_a_step_took(monkeypatch):
    """A millisecond at least and a tenth of a second at most; what is urgent is done behind each rest."""
    from persistdict import maintenance

    now, rests, urgent = [100.0], [], []

    class Stop(Latch):
        def wait(self, seconds=None):
            rests.append(round(seconds, 6))
            now[0] += seconds
            return len(rests) == 4

    monkeypatch.setattr(maintenance.time, "monotonic", lambda: now[0])
    pace = maintenance._Pace(Stop(), lambda: urgent.append(now[0]))
    goes_on = []
    for step in (0.0, 0.01, 5.0, 0.01):
        now[0] += step
        goes_on.append(pace())
    assert rests == [0.001, 0.04, 0.1, 0.04]
    assert goes_on == [True, True, True, False]
    assert len(urgent) == 3
