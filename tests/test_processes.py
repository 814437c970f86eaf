"""Several processes on one folder: coherence of caches, kills, stops, ends. The programs are in tests/drivers.

PERSISTDICT_ROUNDS=10 does ten times as much of everything; PERSISTDICT_SEED repeats what was drawn.
"""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from drivers.running import outcome_of, rounds, run_driver
from drivers.steps import OPERATIONS
from drivers.workload import FAULTS

from persistdict import PersistDict, PersistDictError
from persistdict.stores.lmdb.direct import write_directly
from persistdict.stores.lmdb.transaction import ClearingTransaction

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and kill")


# Coherence


@pytest.mark.parametrize(
    ("processes", "threads", "handles"),
    [(2, 1, 1), (2, 3, 2), (1, 6, 1), (3, 2, 1)],
    ids=["two processes", "three threads and two handles each", "six threads, one handle", "three processes"],
)
def test_a_read_that_begins_after_a_write_returned_sees_it_or_something_newer(tmp_path, processes, threads, handles):
    """Readers with the cache on never get what somebody, anywhere, had replaced before."""
    reads = rounds(150_000)
    counts = run_driver("coherence", tmp_path / "d", reads, processes, threads, handles)
    assert counts["first"] == [] and counts["stale"] == 0
    assert counts["reads"] >= reads
    assert counts["writes"] >= 50
    assert counts["cold"] < counts["reads"] * 0.75


@pytest.mark.parametrize(
    "fault",
    ["no validation", "floor stays", "late admission", "own write forgotten", "writes not told", "told too late"],
)
def test_the_coherence_driver_notices_a_planted_fault(tmp_path, fault):
    """With the validation of cached copies weakened, stale reads are counted."""
    for attempt in range(5):
        counts = run_driver("coherence", tmp_path / f"d{attempt}", 60_000, 2, 4, 1, fault, quiet=True)
        if counts["stale"]:
            return
    pytest.fail("no stale read was noticed")


# Kills


def test_what_was_acknowledged_survives_kill_9_whole_and_once(tmp_path):
    """Four writing processes, killed at random moments; nothing is lost, undead, torn, foreign or stuck."""
    many = rounds(30)
    counts = run_driver("kills", tmp_path / "d", many)
    assert counts["rounds"] == many
    assert counts["kills"] == 4 * many
    assert counts["acknowledged"] > 10 * many


@pytest.mark.parametrize("fault", FAULTS)
def test_the_kill_driver_notices_a_planted_fault(tmp_path, fault):
    """A write that is acknowledged early, lost, halved or torn, and a read that is stale, are noticed."""
    counts = run_driver("kills", tmp_path / "d", 20, fault, quiet=True)
    assert counts.get("noticed"), counts


def test_no_writer_hangs_because_another_that_waited_was_killed(tmp_path):
    """Five processes write in a tight loop, one is killed every few milliseconds; after each kill the others go on."""
    many = rounds(150)
    counts = run_driver("waiters", tmp_path / "d", many)
    assert counts["kills"] == many
    assert counts["survivors that went on"] == 4 * many


def test_a_folder_whose_first_openers_were_killed_opens_and_works(tmp_path):
    """Four processes open a new folder at once and die within milliseconds; what they acknowledged is there."""
    many = rounds(50)
    counts = run_driver("births", tmp_path / "d", many)
    assert counts["rounds"] == many
    assert counts["database made by them"] > 0


@pytest.mark.parametrize("operation", ["make", "open", *OPERATIONS])
def test_an_operation_that_dies_at_any_step_was_done_or_was_not(tmp_path, operation):
    """A process kills itself at the n-th call within an operation, for many n; the store is as before, or as after."""
    stride = max(1, round({"many": 1000, "open": 50, "make": 50}.get(operation, 20) / rounds(1)))
    counts = run_driver("steps", tmp_path / "d", operation, stride)
    assert counts["killed"] > 0


# Threads and ends


@pytest.mark.parametrize(
    ("case", "times"),
    [
        ("mixed", 600),
        ("close_during_writes", 60),
        ("close_during_reads", 100),
        ("open_and_close", 60),
        ("leaks", 300),
        ("collected_at_any_moment", 4),
        ("cleared_meanwhile", 1),
        ("crossing_gates", 100),
        ("stopped_reader", 60),
        ("dead_maker", 1),
    ],
)
def test_threads_and_handles(tmp_path, case, times):
    """Each case is a function of drivers/thread_cases.py, and says what it proves."""
    run_driver("thread_cases", tmp_path / "d", case, rounds(times) if times > 1 else times)


def test_a_process_ends_cleanly_whatever_its_threads_are_doing(tmp_path):
    """Open handles, daemon threads that read and write, half an iterator: status 0 and nothing on stderr."""
    with ThreadPoolExecutor(3) as pool:
        ends = pool.map(
            lambda number: run_driver("thread_cases", tmp_path / f"d{number % 5}", "exits", number, quiet=True),
            range(rounds(20)),
        )
        assert len(list(ends)) == rounds(20)


def dying(folder, moment, change):
    """Do a change of the data in a process that is killed at this function of direct.py."""
    from persistdict.stores.lmdb import direct

    def work():
        setattr(direct, moment, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        change(PersistDict(folder, background_thread="disabled"))

    assert outcome_of(work, PersistDictError) == "SIGKILL"


def test_a_large_batch_whose_process_dies_before_its_last_step_takes_no_numbers_from_others(tmp_path):
    """It is there, for every way of reading; and what is written next is another entry than those of the batch."""
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        d.update(a=1, b=2)
    many = {f"many {n}": n for n in range(600)}
    dying(tmp_path / "d", "_remove_mark", lambda d: d.update(many))
    expected = {"a": 1, "b": 2, **many}
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        assert dict(d) == expected and len(d) == len(expected) == len(list(reversed(d)))
        d["new"] = 3
        assert list(d.items()) == [*expected.items(), ("new", 3)]
        d.flush()
        assert list(d.items()) == [*expected.items(), ("new", 3)]
        assert len({d.entry(key).version for key in d}) == 603
        assert d.verify().ok


def test_a_clear_on_a_full_disk_whose_process_dies_is_done_or_not(tmp_path):
    """Recent writes that were made before are void if the data were cleared; what is written next is not."""

    def clear(d):
        clearing = lambda txn, number: ClearingTransaction(d._store, txn, number).clear()  # noqa: E731
        write_directly(d._store, clearing, void=True)

    for moment, left in [("_remove_all", {}), ("_set_void_mark", {"a": 1, "b": 2, "recent": 3})]:
        folder = tmp_path / moment
        with PersistDict(folder, background_thread="disabled") as d:
            d.update(a=1, b=2)
            d.flush()
            d["recent"] = 3
            dying(folder, moment, clear)
            d["new"] = 4
            d.flush()
            assert dict(d) == {**left, "new": 4} and len(d) == len(left) + 1
            assert d.verify().ok
