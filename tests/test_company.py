"""Who is alone with a store writes without the gate; whoever comes is seen."""

import os
import signal
import threading

import pytest
from drivers.running import answer_of, ask_child, in_child, rounds, run_driver

from persistdict import BusyError, PersistDict
from persistdict.stores.lmdb.company import BUSY, COMPANY, Company
from persistdict.stores.lmdb.folder import FLAGS
from persistdict.stores.lmdb.gate import DATA, RECENT, Gate

QUIET = {"background_thread": "disabled"}
pytestmark = pytest.mark.usefixtures("mapped")


@pytest.fixture
def locks(monkeypatch):
    """What was locked at the gate: bytes, in order."""
    taken = []
    make = Gate.lock

    def lock(self, byte):
        hold, free = make(self, byte)
        return (lambda: taken.append(byte) or hold()), free

    monkeypatch.setattr(Gate, "lock", lock)
    return taken


def wait_for(pipe):
    assert os.read(pipe, 1) == b"."


def test_a_write_takes_no_lock_of_the_kernel_while_nobody_else_is_there(tmp_path, locks):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        locks.clear()
        d["key"] = 1
        del d["key"]
        with PersistDict(tmp_path / "d", **QUIET) as other:  # of the same process, so behind the same thread lock
            other["key"] = 2
        assert RECENT not in locks
        d.flush()
        assert DATA in locks


def test_with_company_every_write_takes_it_until_a_flush_finds_that_nobody_is_left(tmp_path, locks):
    def stay():
        with PersistDict(tmp_path / "d", **QUIET) as d:
            d["child"] = 1
            os.write(told[1], b".")
            wait_for(go[0])

    told, go = os.pipe(), os.pipe()
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["before"] = 1
        pid, pipe = in_child(stay)
        wait_for(told[0])
        locks.clear()
        d["beside"] = 1
        assert len(locks) == 1
        d.flush()
        locks.clear()
        d["beside"] = 2
        assert len(locks) == 1, "it did without the gate while another process had the store open"
        os.write(go[1], b".")
        answer_of(pid, pipe, "the child")
        d.flush()
        locks.clear()
        d["after"] = 1
        assert locks == []
        assert dict(d) == {"before": 1, "child": 1, "beside": 2, "after": 1}


def test_who_comes_waits_until_a_write_without_the_gate_is_over(tmp_path):
    """And names the one that does not finish, when it is to wait no longer."""
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["key"] = 0
        env = d._store.env
        inside, on = threading.Event(), threading.Event()

        def work(txn):
            inside.set()
            assert on.wait(60)

        def come(timeout):
            with PersistDict(tmp_path / "d", **QUIET, timeout=timeout) as other:
                other["key"] += 1

        writer = threading.Thread(target=env.recent.update, args=(work,))
        writer.start()
        assert inside.wait(60)
        assert env.recent.flags[BUSY] and not env.recent.flags[COMPANY]
        for _ in range(2):  # the first that gives up opens no door to the second
            with pytest.raises(AssertionError, match=rf"BusyError.*process {os.getpid()} did not finish a write"):
                ask_child(lambda: come(0.05), "who comes first")
        pid, pipe = in_child(lambda: come(60))
        on.set()
        writer.join()
        answer_of(pid, pipe, "who comes next")
        assert d["key"] == 1


@pytest.mark.parametrize("met", [False, True])
def test_what_a_killed_process_left_is_not_waited_for(met, tmp_path):
    """Killed in the middle of a write, alone or with company."""

    def die():
        d = PersistDict(tmp_path / "d", **QUIET)
        d["key"] = 1
        assert bool(d._store.env.recent.flags[COMPANY]) is met
        d._store.env.recent.flags[BUSY] = 1
        os.kill(os.getpid(), signal.SIGKILL)

    held = [PersistDict(tmp_path / "d", **QUIET)] if met else []
    if met:
        held[0]["first"] = 1
    pid, _ = in_child(die)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    for d in held:
        d.flush()
        assert not d._store.env.recent.flags[BUSY]
    ask_child(lambda: PersistDict(tmp_path / "d", **QUIET, timeout=1)["key"], "the next")
    for d in held:
        d.close()
    with PersistDict(tmp_path / "d", **QUIET, timeout=1) as d:
        assert d["key"] == 1
        assert list(d._store.env.recent.flags[:2]) == [0, 0]


def test_a_check_of_the_pages_keeps_out_who_is_alone(tmp_path):
    """It is another process's, and has not opened the store."""
    from persistdict.stores.lmdb.offline import at_rest

    def check():
        def rest():
            os.write(told[1], b".")
            wait_for(go[0])

        at_rest(str(tmp_path / "d"), rest)

    told, go = os.pipe(), os.pipe()
    with PersistDict(tmp_path / "d", **QUIET, timeout=0.05) as d:
        d["key"] = 1
        pid, pipe = in_child(check)
        wait_for(told[0])
        with pytest.raises(BusyError, match=f"process {pid}"):
            d["key"] = 2
        os.write(go[1], b".")
        answer_of(pid, pipe, "the check")
        d["key"] = 3
        assert d["key"] == 3


@pytest.mark.parametrize("what", ["give_room", "open_own"])
def test_without_room_for_the_flags_nobody_is_alone(what, tmp_path, monkeypatch, locks):
    """A hole in a mapped file would kill who writes to it once the disk is full."""
    import persistdict.stores.lmdb.company as company
    from persistdict import DiskFullError

    def refuse(*_, **__):
        raise DiskFullError(28, "no space is left on the disk")

    monkeypatch.setattr(company, what, refuse)
    with PersistDict(tmp_path / "d", **QUIET) as d:
        locks.clear()
        d["key"] = 1
        assert len(locks) == 1
        d.flush()
        locks.clear()
        d["key"] = 2
        assert len(locks) == 1


def test_the_flags_have_their_block_on_the_disk(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET):
        assert os.stat(tmp_path / "d" / FLAGS).st_blocks * 512 >= 4096


def test_nobody_waits_for_lmdb_while_processes_come_and_go(tmp_path):
    did = run_driver("company", tmp_path / "d", rounds(120))
    assert did["writes alone"] > 1000 < did["writes with company"]


def test_the_driver_notices_who_says_nothing(tmp_path):
    assert "noticed" in run_driver("company", tmp_path / "d", 300, "nobody tells", quiet=True)


def test_one_that_is_met_while_it_leaves_is_not_waited_for(tmp_path):
    """Its share of the lock is what tells that it is there, not what it has left in the file."""
    with PersistDict(tmp_path / "d", **QUIET) as d:
        flags = d._store.env.recent.flags
        flags[BUSY] = 1
        company = Company(str(tmp_path / "d"), d._store.env.gate)
        company.meet(0.05)
        assert list(flags[:2]) == [0, 0]
