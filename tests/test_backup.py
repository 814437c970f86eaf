"""Backups: consistent, online, whole or not there."""

import gc
import os
import subprocess
import sys

import pytest
from drivers.running import ask_child, rounds, run_driver

from persistdict import (
    CorruptEntryError,
    DiskFullError,
    MismatchError,
    PersistDict,
    StoreError,
    TargetExistsError,
    Unsupported,
)
from persistdict.stores.lmdb.drain import drain
from persistdict.tasks import check_all
from persistdict.testing import Clock

QUIET = {"background_thread": "disabled"}


def test_a_backup_holds_everything_and_the_recent_writes(tmp_path):
    """Overwrites, deletions and new entries that are not in the data yet; large values, limits, order, versions."""
    clock = Clock()
    with PersistDict(tmp_path / "d", clock=clock, key_size_limit=40, **QUIET) as d:
        d.update({number: str(number) for number in range(1000)})
        d["large"] = b"l" * 100_000
        d.set("timed", 1, ttl=100)
        d.flush()
        d[5] = "recent"
        d["k" * 300] = "cropped"
        d["large too"] = b"m" * 50_000
        del d[7], d["large"]
        d.set("recently timed", 2, ttl=100)
        size = d.backup(tmp_path / "backups" / "b")
        assert size == os.path.getsize(tmp_path / "backups" / "b" / "data.mdb")
        with PersistDict(tmp_path / "backups" / "b", clock=clock, key_size_limit=40, **QUIET) as b:
            assert list(b.items()) == list(d.items())
            assert [b.entry(key) for key in b] == [d.entry(key) for key in d]
            assert check_all(b._store) == []
            d["later"] = b["later too"] = 1
            assert "later" not in b
            assert "later too" not in d
            clock.now += 101
            assert "timed" not in b
            assert "recently timed" not in b
            assert len(b) == len(d)


def test_a_backup_is_private_and_nothing_else_is_left(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["k"] = 1
        d.backup(tmp_path / "b")
    assert os.listdir(tmp_path / "b") == ["data.mdb"]
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "b" / "data.mdb").stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["b", "d"]


def test_settings_are_in_a_backup(tmp_path):
    with PersistDict(tmp_path / "d", codec="json", key_size_limit=30, **QUIET) as d:
        d(a=1).backup(tmp_path / "b")
    for wrong in ({"codec": "json"}, {"key_size_limit": 30}):
        with pytest.raises(MismatchError):
            PersistDict(tmp_path / "b", **wrong, **QUIET)
    with PersistDict(tmp_path / "b", codec="json", key_size_limit=30, **QUIET) as b:
        assert b(a=2) == {"a": 1}


def test_a_backup_goes_on_with_higher_numbers(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        for number in range(50):
            d[number % 5] = number
        newest = max(d.entry(key).version for key in d)
        d.backup(tmp_path / "b")
    with PersistDict(tmp_path / "b", **QUIET) as b:
        b["new"] = 1
        b[0] = 1
        assert b.entry(0).version > b.entry("new").version > newest
        assert list(b) == [0, 1, 2, 3, 4, "new"]


def test_backups_under_load_are_each_of_one_moment(tmp_path):
    """Three processes write transactions meanwhile; see drivers/backups.py."""
    counts = run_driver("backups", tmp_path / "d", rounds(25))
    assert counts["left behind"] == ["store"]
    assert counts["different numbers"] > counts["backups"]


@pytest.mark.parametrize("what", ["file", "full folder", "link", "store", "itself", "inside"])
def test_a_target_that_is_there_already_is_refused_and_untouched(tmp_path, what):
    target = tmp_path / "b"
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["k"] = 1
        if what == "file":
            target.write_text("mine")
        elif what == "full folder":
            target.mkdir()
            (target / "mine").write_text("mine")
        elif what == "link":
            target.symlink_to(tmp_path / "d")
        elif what == "store":
            PersistDict(target, **QUIET).close()
        target = {"itself": tmp_path / "d", "inside": tmp_path / "d" / "b"}.get(what, target)
        before = sorted(str(path) for path in tmp_path.rglob("*"))
        with pytest.raises(StoreError if what in ("link", "itself", "inside") else TargetExistsError, match="folder"):
            d.backup(target)
        assert sorted(str(path) for path in tmp_path.rglob("*")) == before
        assert d["k"] == 1


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "b").mkdir()
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["k"] = 1
        d.backup(os.fsencode(tmp_path / "b"))
    with PersistDict(tmp_path / "b", **QUIET) as b:
        assert b == {"k": 1}


def test_ctrl_c_ends_a_backup_and_leaves_nothing(tmp_path):
    """At any moment of it. Then the dictionary works, and a second backup is whole."""
    code = (
        "import os, signal, sys, threading\nfrom persistdict import PersistDict\n"
        "d = PersistDict(sys.argv[1] + '/d', background_thread='disabled')\n"
        "d.update((n, bytes(20_000)) for n in range(1000)); d['recent'] = 1\n"
        "stopped = 0\n"
        "for n in range(60):\n"
        "    try:\n        try:\n"
        "            signal.setitimer(signal.ITIMER_REAL, 0.0002 + 0.0008 * n)\n"
        "            d.backup(f'{sys.argv[1]}/b{n}')\n"
        "        finally:\n            signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "    except KeyboardInterrupt:\n        stopped += 1\n"
        "assert d['recent'] == 1 and threading.active_count() == 1\nd['k'] = 1\n"
        "print(stopped)\nd.backup(sys.argv[1] + '/last'); d.close()"
    )
    code = code.replace("d = Pers", "signal.signal(signal.SIGALRM, signal.default_int_handler)\nd = Pers", 1)
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
    for name in os.listdir(tmp_path):
        with PersistDict(tmp_path / name, **QUIET) as b:
            assert len(b) >= 1001, name
            assert check_all(b._store) == []
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize("room", ["1m", "5m"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, room):
    """Full while the data are copied, and while the recent writes are brought in."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room},mode=700", "none", disk], check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        with PersistDict(tmp_path / "d", **QUIET) as d:
            d.update((number, bytes(2000)) for number in range(1000))
            for number in range(300):
                d["recent", number] = bytes(20_000)
            with pytest.raises(DiskFullError, match="no space"):
                d.backup(disk / "b")
            assert os.listdir(disk) == []
            assert d.backup(tmp_path / "b") > 0
    finally:
        gc.collect()
        subprocess.run(["umount", str(disk)], check=True)


def test_a_damaged_recent_write_is_told_and_no_backup_pretends_to_be_whole(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["k"] = 1
        store = d._store
        with store.env.recent.raw.begin(write=True) as txn:
            row = txn.get(b"\x30k")
            txn.put(b"\x30k", row[:-1] + bytes([row[-1] ^ 1]))
        with pytest.raises(CorruptEntryError, match="no backup"):
            d.backup(tmp_path / "b")
        assert not (tmp_path / "b").exists()
        d["k"] = 2
        d.backup(tmp_path / "b")
        drain(store)


def test_a_dictionary_in_memory_makes_no_backup(tmp_path):
    with pytest.raises(Unsupported, match="no backups"):
        PersistDict("memory://").backup(tmp_path / "b")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_a_backup_of_an_inherited_handle(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["k"] = 1
        assert ask_child(lambda: d.backup(tmp_path / "b")) > 0
        d["later"] = 1
    with PersistDict(tmp_path / "b", **QUIET) as b:
        assert b == {"k": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a crash must not end the tests")
@pytest.mark.parametrize("at_once", [True, False])
def test_entries_that_end_at_the_same_moment_are_copied(tmp_path, at_once):
    """By a clock that stands still. LMDB's copying ends the process where one key has very many values."""

    def child():
        clock = Clock()
        with PersistDict(tmp_path / "d", clock=clock, ttl=100, **QUIET) as d:
            if at_once:
                d.set_many({number: number for number in range(3000)})
            for number in range(3000):
                d[number] = number
            d.backup(tmp_path / "b")
            d.compact()
            assert d.verify().ok
            clock.now += 99.99
            assert len(d) == 3000
            clock.now += 0.01
            assert d.expire() == 3000
        with PersistDict(tmp_path / "b", clock=Clock(), **QUIET) as copy:
            assert copy.verify().ok
            return len(copy)

    assert ask_child(child, "a child with many entries of one deadline") == 3000
