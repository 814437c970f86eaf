"""A copy is served without asking LMDB, as long as no process has told of a later write."""

import os
import signal
import struct
import subprocess
import sys

import pytest
from drivers.running import ask_child

from persistdict import PersistDict
from persistdict.stores.lmdb import company
from persistdict.stores.lmdb.folder import FLAGS
from persistdict.stores.lmdb.room import can_be_promised

QUIET = {"background_thread": "disabled"}


@pytest.fixture(autouse=True)
def where_it_is_told(tmp_path):
    if not can_be_promised(str(tmp_path)):
        pytest.skip("on this file system nothing is told")


@pytest.fixture
def d(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["key"] = 1
        yield d


def asked(d):
    """How often LMDB was asked which commit is the newest, from here on."""
    store, begin, times = d._store, d._store.begin, []
    store.begin = lambda *arguments: times.append(1) or begin(*arguments)
    return times


def elsewhere(path, work):
    """Do something to a dictionary in another process, which ends without closing it: that would be a write."""
    held = []
    ask_child(lambda: work(held.append(PersistDict(path, **QUIET)) or held[0]), "another process")


def test_what_nobody_has_written_to_is_read_without_lmdb(tmp_path, d):
    times = asked(d)
    assert (d["key"], d.get("key"), times) == (1, 1, [])
    elsewhere(tmp_path / "d", lambda other: other["key"])
    assert (d["key"], times) == (1, [])
    elsewhere(tmp_path / "d", lambda other: other.update(key=2))
    assert d["key"] == 2
    assert times
    times.clear()
    assert (d["key"], times) == (2, [])


def test_what_was_drained_is_read_without_a_look_at_the_recent_writes(tmp_path, d):
    d.flush()
    with PersistDict(tmp_path / "d", **QUIET, caching=False) as cold:
        times = asked(cold)
        assert (cold["key"], "key" in cold, "other" in cold, cold.get("other")) == (1, True, False, None)
        assert times == []
        d["other"] = 2
        assert (cold["other"], "other" in cold, "key" in cold) == (2, True, True)
        assert times == [1, 1, 1]


def test_a_write_is_told_before_anybody_can_see_it(d):
    """While it is under way nobody takes what was told for an answer, and everybody still gets what there was."""
    engine, times = d._store.env.recent, asked(d)

    def work(txn):
        txn.put(b"anything", b"")
        assert engine.latest[0] == txn.id() == d._front.mark + 1
        assert (d["key"], times) == (1, [1])

    engine.update(work)
    assert engine.latest[0] == engine.begin().id()
    engine.update(lambda txn: txn.delete(b"anything"))


@pytest.mark.parametrize("way", ["killed", "failed", "nothing changed"])
def test_a_write_that_was_told_and_not_done_costs_a_question(tmp_path, d, way):
    def write(other):
        if way == "nothing changed":
            assert not other.add("key", 2)
        elif way == "failed":
            with pytest.raises(RuntimeError):
                other._store.env.recent.update(fail)
        else:
            other._store.env.recent.update(lambda txn: os.kill(os.getpid(), signal.SIGKILL))

    def fail(txn):
        raise RuntimeError

    if way == "killed":
        with pytest.raises(AssertionError, match=f"ended with status {signal.SIGKILL}"):
            elsewhere(tmp_path / "d", write)
    else:
        elsewhere(tmp_path / "d", write)
    times = asked(d)
    assert (d["key"], times) == (1, [1])
    elsewhere(tmp_path / "d", lambda other: other.update(key=3))
    assert d["key"] == 3
    times.clear()
    assert (d["key"], times) == (3, [])


@pytest.mark.parametrize("number", [0, 1, 2, 3, 2**64 - 1])
def test_what_was_told_before_the_machine_was_started_tells_nothing(tmp_path, number):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["key"] = 1
    with open(tmp_path / "d" / FLAGS, "r+b") as file:
        file.seek(company.LATEST.start)
        file.write(struct.pack("=Q", number))
    with PersistDict(tmp_path / "d", **QUIET) as d, PersistDict(tmp_path / "d", **QUIET) as other:
        for value in range(2, 8):
            assert d["key"] == d["key"] == value - 1
            other["key"] = value


def test_handles_that_are_closed_or_forked_are_told_nothing(tmp_path, d):
    other = PersistDict(tmp_path / "d", **QUIET)
    assert other["key"] == 1
    other.close()
    with pytest.raises(ValueError, match="closed"):
        other["key"]

    def child():
        assert d._store.latest[0] is None
        assert d["key"] == 1
        d["key"] = 2

    ask_child(child, "a forked process")
    assert d["key"] == 2


# Who cannot map the file


def test_who_cannot_tell_does_not_write_beside_those_who_do(tmp_path, d, monkeypatch):
    come = """if True:
        import sys
        from persistdict import PersistDict
        from persistdict.stores.lmdb import company
        company.can_be_promised = lambda folder: False
        PersistDict(sys.argv[1])["key"] = 2"""
    ended = subprocess.run([sys.executable, "-c", come, tmp_path / "d"], capture_output=True, text=True)
    assert "OpenError: [Errno 95] another process has the store open that sees it on another kind" in ended.stderr
    assert d["key"] == 1
    d.close()
    monkeypatch.setattr(company, "can_be_promised", lambda folder: False)
    with PersistDict(tmp_path / "d", **QUIET) as alone:
        assert (alone["key"], alone._store.latest[0]) == (1, None)
        assert not (tmp_path / "d" / FLAGS).exists()
        monkeypatch.undo()
        elsewhere(tmp_path / "d", lambda other: other.update(key=2))
        assert not (tmp_path / "d" / FLAGS).exists(), "it was made beside a process that does not map it"
        assert alone["key"] == 2
    with PersistDict(tmp_path / "d", **QUIET) as d:
        assert (d["key"], d._store.latest[0] is None) == (2, False)


def test_that_nothing_is_recent_is_known_only_of_a_commit(d):
    """A drain that finds gone what it has applied takes nothing away, and the id that it had is the next write's."""
    from persistdict.stores.lmdb import drain

    store = d._store
    d.flush()
    drain._take_away(store, [(b"\x10gone", bytes(100))])
    assert store.env.settled == store.begin().id()
    with PersistDict(d._store.place, **QUIET, caching=False) as other:
        other["key"] = 2
    assert (d["key"], "key" in d) == (2, True)
