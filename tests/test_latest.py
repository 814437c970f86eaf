"""A copy is served without asking LMDB, as long as no process has told of a later write."""

import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
from drivers.running import answer_of, ask_child, die_with_parent, in_child

from persistdict import PersistDict, StoreGoneError
from persistdict.stores.lmdb import room
from persistdict.stores.lmdb.folder import FLAGS, LATEST
from persistdict.stores.lmdb.recent import recent_folder

QUIET = {"background_thread": "disabled"}
pytestmark = pytest.mark.usefixtures("mapped")


@pytest.fixture
def d(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["key"] = 1
        yield d


def place_of(path):
    """The file in which it is told."""
    return Path(recent_folder(str(path)), LATEST)


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


WRITES = {
    "set": lambda d: d.update(key=2),
    "del": lambda d: d.__delitem__("key"),
    "many": lambda d: d.update({"key": 2} | dict.fromkeys(range(600), 1)),
    "large": lambda d: d.update(key=bytes(2 << 20)),
    "clear": lambda d: d.clear(),
    "delete many": lambda d: d.delete_many(["key", *range(600)]),
    "replace": lambda d: d.replace("key", 2),
    "evict": lambda d: d.evict(tag="tag"),
    "repair": lambda d: (d.__setitem__("key", 2), d.verify(repair=True)),
}


@pytest.mark.parametrize("drained", [False, True], ids=["recent", "drained"])
@pytest.mark.parametrize("what", WRITES)
def test_every_kind_of_write_is_told(tmp_path, d, what, drained):
    """Also if it is the only one: with nothing to drain before."""
    d.set("key", 1, tag="tag")
    if drained:
        d.flush()
    assert d["key"] == 1
    elsewhere(tmp_path / "d", lambda other: WRITES[what](other) and None)
    with PersistDict(tmp_path / "d", **QUIET, caching=False) as cold:
        assert d.get("key") == cold.get("key") != 1


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
def test_a_number_that_is_not_that_of_the_last_commit_tells_nothing(tmp_path, number):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["key"] = 1
    with open(place_of(tmp_path / "d"), "r+b") as file:
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


# Either all processes map the file, or none does


def spawned(path, code):
    """Run code on a dictionary in a process of its own; what it printed, and what went wrong."""
    head = "import sys\nfrom persistdict import PersistDict\nfrom persistdict.stores.lmdb import room\n"
    tail = "import os\nsys.stdout.flush()\nos._exit(0)\n"
    ended = subprocess.run([sys.executable, "-c", head + code + tail, path], capture_output=True, text=True)
    return ended.stdout, ended.stderr


COME = "d = PersistDict(sys.argv[1], background_thread='disabled')\nd['key'] = d['key'] + 1\n"
BLIND = "room.filesystem_under = lambda path: None\n"


def test_one_that_cannot_tell_the_file_system_tells_its_writes_where_others_do(tmp_path, d):
    assert d["key"] == 1
    assert spawned(tmp_path / "d", BLIND + COME) == ("", "")
    assert d["key"] == 2


def test_where_it_was_not_made_nobody_joins_who_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "filesystem_under", lambda path: None)
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["key"] = 1
        assert (d["key"], d._store.latest[0], place_of(tmp_path / "d").exists()) == (1, None, False)
        assert spawned(tmp_path / "d", BLIND + COME) == ("", "")
        assert d["key"] == 2
        assert "OpenError: [Errno 2] another process has this store open" in spawned(tmp_path / "d", COME)[1]
        assert d["key"] == 2
    monkeypatch.undo()
    with PersistDict(tmp_path / "d", **QUIET) as d:
        assert (d["key"], d["key"]) == (2, 2)
        assert spawned(tmp_path / "d", COME) == ("", "")
        assert d["key"] == 3


def test_one_that_was_deleted_is_noticed_by_whoever_comes_and_whoever_writes(tmp_path):
    d = PersistDict(tmp_path / "d", **QUIET)
    d["key"] = 1
    place_of(tmp_path / "d").unlink()
    assert "OpenError: [Errno 2] another process has this store open" in spawned(tmp_path / "d", COME)[1]
    d["other"] = 2
    with pytest.raises(StoreGoneError, match=r"latest\.map was deleted"):
        d.flush()
    with pytest.raises(StoreGoneError):
        d.close()


@pytest.mark.parametrize("size", [None, 0, 8, 4096])
def test_one_that_was_never_finished_is_made_by_who_is_alone(tmp_path, size):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["key"] = 1
    place_of(tmp_path / "d").unlink()
    if size is not None:
        with open(place_of(tmp_path / "d"), "wb") as file:
            file.truncate(size)  # a hole
    with PersistDict(tmp_path / "d", **QUIET) as d:
        assert os.stat(place_of(tmp_path / "d")).st_blocks
        assert (d["key"], d["key"]) == (1, 1)
        assert spawned(tmp_path / "d", COME) == ("", "")
        assert d["key"] == 2


# It is as old as the ids that it tells


def test_an_idle_child_of_a_fork_does_not_use_what_was_exchanged_meanwhile(tmp_path, d):
    """The folder is replaced by a copy of itself while the child has not used it."""
    d.close()
    held = PersistDict(tmp_path / "d", **QUIET)
    assert held["key"] == 1
    go = os.pipe()

    def child():
        die_with_parent()
        assert os.read(go[0], 1) == b"."
        assert held["key"] == held["key"] == 1
        held._store.env.recent.flags[100] = 7
        assert (tmp_path / "d" / FLAGS).read_bytes()[100] == 7
        assert spawned(tmp_path / "d", COME) == ("", "")
        return held["key"]

    pid, pipe = in_child(child)
    held.close()
    shutil.copytree(tmp_path / "d", tmp_path / "copy")
    shutil.rmtree(tmp_path / "d")
    os.rename(tmp_path / "copy", tmp_path / "d")
    os.write(go[1], b".")
    assert answer_of(pid, pipe, "the child") == 2
    assert PersistDict(tmp_path / "d", **QUIET).pop("key") == 2


def test_after_a_failure_ids_of_before_say_nothing(tmp_path, d):
    """The environments are given up and opened anew, and the recent writes were made anew meanwhile."""
    for _ in range(20):
        d["key"] = 1
    d.flush()
    assert d["key"] == 1
    env = d._store.env
    mark = d._front.mark
    with env.data.lock, env.recent.lock:
        env._abandon(lmdb.BadRslotError("lost"))
        shutil.rmtree(recent_folder(str(tmp_path / "d")))
    assert d["key"] == 1
    while d._store.begin().id() < mark:
        assert spawned(tmp_path / "d", COME) == ("", "")
        assert d["key"] == d["key"] == d.get_versioned("key")[0]


def test_one_whose_store_was_exchanged_does_not_disturb_the_others(tmp_path):
    """It writes on into files that nobody else has, until it notices."""
    old = PersistDict(tmp_path / "d", **QUIET)
    old["key"] = 1
    old.flush()
    shutil.copy(tmp_path / "d" / "data.mdb", tmp_path / "data.mdb")
    os.replace(tmp_path / "data.mdb", tmp_path / "d" / "data.mdb")
    write = """if True:
        import subprocess
        d = PersistDict(sys.argv[1], background_thread="disabled")
        for _ in range(10):
            d["key"] = 1
        assert d["key"] == 1
        come = "import sys; from persistdict import PersistDict; PersistDict(sys.argv[1])['key'] = 2"
        subprocess.run([sys.executable, "-c", come, sys.argv[1]], check=True)
        print("written", flush=True)
        sys.stdin.readline()
        print(d["key"])
    """
    code = "import sys\nfrom persistdict import PersistDict\n" + write
    new = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "d"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with new:
        assert new.stdout.readline() == "written\n"
        for _ in range(30):
            old["key"] = 3
        assert new.communicate("go on\n")[0] == "2\n"
    with pytest.raises(StoreGoneError):
        old.close()


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
