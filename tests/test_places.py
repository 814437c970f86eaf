"""Stores in odd places: held by others, deleted or replaced while open, read-only, on networks, short of resources."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from persistdict import BusyError, PersistDict, StoreError, StoreGoneError
from persistdict.maintenance import check_all
from persistdict.stores.lmdb.gate import DATA, RECENT

QUIET = {"background_thread": "disabled"}
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")


# Others in the way


@contextlib.contextmanager
def held(folder, byte):
    """A process that holds a lock of the gate."""
    code = (
        "import sys; from persistdict.stores.lmdb.gate import Gate\ngate = Gate(sys.argv[1])\n"
        "gate.lock(int(sys.argv[2]))[0](); print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(folder / "gate.lock"), str(byte)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        yield child.pid
        child.communicate("\n")


WRITES = {
    "set": lambda d: d.__setitem__("k", 2),
    "del": lambda d: d.__delitem__("k"),
    "update": lambda d: d.update(k=2, other=3),
    "many": lambda d: d.update((number, 2) for number in range(600)),
    "large": lambda d: d.__setitem__("k", bytes(2 << 20)),
    "clear": lambda d: d.clear(),
    "pop": lambda d: d.pop("k"),
    "setdefault": lambda d: d.setdefault("new", 1),
}


@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("timeout", [0, 0.05])
def test_a_write_waits_as_long_as_its_handle_says_and_names_who_is_in_the_way(tmp_path, what, timeout):
    """Of two handles on one store the patient one does its write when the lock is free; nothing was changed before."""
    with (
        PersistDict(tmp_path / "d", timeout=timeout, **QUIET) as hasty,
        PersistDict(tmp_path / "d", timeout=1e9, **QUIET) as patient,
    ):
        hasty["k"] = 1
        hasty.flush()
        byte = DATA if what in ("many", "large", "clear") else RECENT
        with held(tmp_path / "d", byte) as pid:
            with pytest.raises(BusyError, match=f"process {pid} did not finish a write within {timeout:g} s"):
                WRITES[what](hasty)
            assert patient == {"k": 1}
        WRITES[what](patient)
        assert patient != {"k": 1}


def test_timeout_counts_with_durability_commit_too(tmp_path):
    """A write that cannot be made durable in time is undone."""
    with PersistDict(tmp_path / "d", timeout=0, durability="commit", **QUIET) as d:
        d["k"] = 1
        with held(tmp_path / "d", DATA), pytest.raises(BusyError, match="nothing was changed"):
            d["k"] = 2
        assert d == {"k": 1}


def test_opening_waits_no_longer_than_timeout(tmp_path):
    PersistDict(tmp_path / "d", **QUIET).close()
    with held(tmp_path / "d", DATA) as pid, pytest.raises(BusyError, match=f"process {pid} .* within 0 s"):
        PersistDict(tmp_path / "d", timeout=0, **QUIET)
    PersistDict(tmp_path / "d", timeout=0, **QUIET).close()


@pytest.mark.parametrize("wrong", [-1, float("inf"), float("nan"), True])
def test_impossible_timeouts_are_refused(tmp_path, wrong):
    with pytest.raises((ValueError, TypeError), match="timeout"):
        PersistDict(tmp_path / "d", timeout=wrong)
    assert not (tmp_path / "d").exists()


# Deleted or replaced while open


def replace_data(folder):
    with PersistDict(folder.parent / "other", **QUIET) as other:
        other["k"] = "other"
    os.rename(folder.parent / "other" / "data.mdb", folder / "data.mdb")


def replace_folder(folder):
    PersistDict(folder.parent / "other", **QUIET).close()
    os.rename(folder, folder.parent / "away")
    os.rename(folder.parent / "other", folder)


LOSSES = {
    "data.mdb deleted": lambda folder: (folder / "data.mdb").unlink(),
    "lock.mdb deleted": lambda folder: (folder / "lock.mdb").unlink(),
    "gate.lock deleted": lambda folder: (folder / "gate.lock").unlink(),
    "recent deleted": lambda folder: shutil.rmtree(next(folder.glob("recent-*"))),
    "folder deleted": shutil.rmtree,
    "folder moved away": lambda folder: os.rename(folder, folder.parent / "away"),
    "data.mdb replaced": replace_data,
    "folder replaced": replace_folder,
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("notice", ["flush", "close", "many", "commit", "expire"])
def test_files_that_are_gone_are_noticed_before_anything_is_called_durable(tmp_path, loss, notice):
    """Reads go on; whatever promises durability raises, then every write does; nothing is made anew in the void."""
    d = PersistDict(tmp_path / "d", durability="commit" if notice == "commit" else "interval", **QUIET)
    try:
        d["k"] = 1
        d.flush()
        LOSSES[loss](tmp_path / "d")
        if notice != "commit":
            d["late"] = 2
        before = sorted(str(path) for path in tmp_path.rglob("*"))
        with pytest.raises(StoreGoneError, match="deleted or replaced"):
            {
                "flush": d.flush,
                "close": d.close,
                "many": lambda: d.update((number, 0) for number in range(600)),
                "commit": lambda: d.__setitem__("k", 2),
                "expire": d.expire,
            }[notice]()
        if notice != "close":
            assert d["k"] in (1, 2)
            assert len(d) >= 1
            if notice == "flush":
                with pytest.raises(StoreGoneError):
                    d["more"] = 1
        assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    finally:
        with contextlib.suppress(StoreGoneError):
            d.close()


def test_upkeep_notices_and_says_so(tmp_path):
    with PersistDict(tmp_path / "d", sync_interval=0.01) as d:
        d["k"] = 1
        d.flush()
        shutil.rmtree(tmp_path / "d")
        d["late"] = 2
        deadline = time.monotonic() + 30
        with pytest.raises(StoreGoneError):
            while time.monotonic() < deadline:
                d["again"] = 3
        with contextlib.suppress(StoreError):
            d.close()
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("loss", ["data.mdb deleted", "folder deleted", "data.mdb replaced", "folder replaced"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_open_what_is_not_the_store(tmp_path, loss):
    """It would have to open the files anew; where there are none, it makes none."""
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["k"] = 1
        d.flush()
        LOSSES[loss](tmp_path / "d")
        before = sorted(str(path) for path in tmp_path.rglob("*"))
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            try:
                for _ in range(2):
                    with contextlib.suppress(StoreGoneError):
                        d["k"]
                        os._exit(2)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert sorted(str(path) for path in tmp_path.rglob("*")) == before
        with pytest.raises(StoreGoneError):
            d.close()


def test_a_new_store_in_the_old_place_is_used_at_once(tmp_path):
    """Also if its files get the inode numbers of the old ones."""
    old = PersistDict(tmp_path / "d", **QUIET)
    old["k"] = "old"
    old.flush()
    for number in range(5):
        shutil.rmtree(tmp_path / "d")
        with PersistDict(tmp_path / "d", **QUIET) as new:
            assert new == {}
            new["k"] = number
            new.flush()
            assert old["k"] == "old"
    with pytest.raises(StoreGoneError):
        old.close()
    with PersistDict(tmp_path / "d", **QUIET) as new:
        assert new == {"k": 4}
        assert check_all(new._store) == []
