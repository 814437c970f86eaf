"""Stores in odd places: held by others, deleted or replaced while open, read-only, on networks, short of resources."""

import contextlib
import errno
import gc
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from drivers.running import answer_of, ask_child, die_with_parent, in_child, run_driver

from persistdict import BusyError, OpenError, PersistDict, ReadOnlyError, ReadOnlyWarning, StoreError, StoreGoneError
from persistdict.stores.lmdb import drain
from persistdict.stores.lmdb.gate import DATA, RECENT
from persistdict.stores.lmdb.mounts import filesystem_of, is_network
from persistdict.tasks import check_all
from persistdict.testing import Clock

QUIET = {"background_thread": "disabled"}
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")


# Others in the way


@contextlib.contextmanager
def held(folder, byte):
    """A process that has come to the store and holds a lock of the gate."""
    code = (
        "import sys; from persistdict.stores.lmdb.company import Company; from persistdict.stores.lmdb.gate import *\n"
        "gate = Gate(sys.argv[1] + '/gate.lock'); gate.lock(int(sys.argv[2]))[0](); gate.share(USERS)\n"
        "Company(sys.argv[1], gate).meet(60); print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(folder), str(byte)]
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


@pytest.mark.parametrize("drained", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("what", ["new", "overwritten", "large", "with a tag and a time", "deleted"])
def test_a_write_that_is_undone_is_not_brought_back_by_a_drain_that_had_seen_it(tmp_path, monkeypatch, what, drained):
    """Another process drains, with a snapshot that has the write, while that is given up; before or after its commit.

    If it had committed by then, the write is durable, and is not given up.
    """
    clock = Clock()
    with PersistDict(tmp_path / "d", **QUIET, clock=clock, caching=False) as d:
        old = "o" * (300_000 if what == "large" else 10)
        d["other"] = 1
        if what != "new":
            d.set("y", old, ttl=100, tag="t") if what == "with a tag and a time" else d.update(y=old)
        d.flush()
        before = d.entry("y") if "y" in d else None

        def give_up():
            die_with_parent()
            with PersistDict(tmp_path / "d", **QUIET, timeout=0, durability="commit", clock=clock) as hasty:
                os.write(told[1], b".")
                assert os.read(go[0], 1) == b"."
                monkeypatch.setattr(type(hasty._store), "_take_back", stopping(type(hasty._store)._take_back))
                try:
                    hasty.__delitem__("y") if what == "deleted" else hasty.__setitem__("y", "new")
                except BusyError:
                    outcome = "given up"
                else:
                    outcome = "done"
                os.write(told[1], b".")
                assert os.read(go[0], 1) == b"."
                return outcome

        def stopping(take_back):
            def stopped(*arguments):
                os.write(told[1], b".")
                assert os.read(go[0], 1) == b"."
                return take_back(*arguments)

            return stopped

        def let_go():
            os.write(go[1], b".")
            assert os.read(told[0], 1) == b"."

        def snapshot_with_the_write(rows):
            let_go()  # it writes, and finds that it cannot make that durable
            found = snapshot(rows)
            if not drained:
                let_go()  # it takes that back
            return found

        def check():
            if drained:
                let_go()
            present()

        told, go = os.pipe(), os.pipe()
        pid, pipe = in_child(give_up)
        assert os.read(told[0], 1) == b"."
        d["other"] = 2
        snapshot, present = drain.snapshot_of, d._store.env.presence.check
        with monkeypatch.context() as patch:
            patch.setattr(drain, "snapshot_of", snapshot_with_the_write)
            patch.setattr(d._store.env.presence, "check", check)
            d.flush()
        for _ in range(2):
            if drained:
                assert d.get("y") == (None if what == "deleted" else "new")
            else:
                assert d.get("y") == (None if what == "new" else old)
                assert (d.entry("y") if "y" in d else None) == before
                assert list(d.tagged("t")) == (["y"] if what == "with a tag and a time" else [])
            d.flush()
        os.write(go[1], b".")
        assert answer_of(pid, pipe, "the one that gave up") == ("done" if drained else "given up")
        assert d.verify().ok


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
        deadline = time.monotonic() + 30
        with pytest.raises(StoreGoneError):
            while time.monotonic() < deadline:
                d["late"] = 2
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

        def read_twice():
            for _ in range(2):
                with pytest.raises(StoreGoneError):
                    d["k"]

        ask_child(read_twice)
        assert sorted(str(path) for path in tmp_path.rglob("*")) == before
        with pytest.raises(StoreGoneError):
            d.close()


@pytest.mark.parametrize("loss", ["folder deleted", "data.mdb replaced", "folder replaced"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_the_store_that_took_the_place(tmp_path, loss):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["k"] = 1
        d.flush()
        LOSSES[loss](tmp_path / "d")

        def open_the_new():
            with PersistDict(tmp_path / "d", **QUIET) as new:
                assert new.get("k") == ("other" if loss == "data.mdb replaced" else None)
                new["child"] = 1
                with pytest.raises(StoreGoneError):
                    d["k"]

        ask_child(open_the_new)
        with pytest.raises(StoreGoneError):
            d.close()
    with PersistDict(tmp_path / "d", **QUIET) as d:
        assert d["child"] == 1


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


# Read-only media

ROOT = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounting needs Linux and root"
)


@pytest.fixture
def frozen(tmp_path):
    """A folder on a file system of its own, and a function that makes it read-only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "none", disk], check=False).returncode:
        pytest.skip("cannot mount here")

    def freeze():
        gc.collect()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

    yield disk / "d", freeze
    gc.collect()
    subprocess.run(["umount", str(disk)], check=True)


@ROOT
@pytest.mark.parametrize("background_thread", [True, False, "disabled"])
def test_a_read_only_medium_is_read_with_one_warning_and_every_write_raises(frozen, background_thread):
    folder, freeze = frozen
    with PersistDict(folder, **QUIET) as d:
        d.update((number, str(number)) for number in range(600))
        d["large"] = b"l" * 50_000
        d.set("over", 1, ttl=1e-6)
    freeze()
    with pytest.warns(ReadOnlyWarning, match="read-only medium") as warned:
        d = PersistDict(folder, background_thread=background_thread, background_timeout=0.01)
    with d:
        assert len(warned) == 1
        assert len(d) == 601
        assert list(d.items())[:2] == [(0, "0"), (1, "1")]
        assert next(reversed(d)) == "large"
        assert d[5] == d.get_many([5])[5] == "5"
        assert d[5] == "5"
        assert d.entry(5).size == 1
        assert "over" not in d
        for write in (*WRITES.values(), lambda d: d.expire(), lambda d: d.compact(), lambda d: d(a=1)):
            with pytest.raises(ReadOnlyError, match="nothing was changed"):
                d.setdefault("k") if write is WRITES["del"] or write is WRITES["pop"] else write(d)
        d.flush()
        assert d.backup(folder.parent.parent / "b") > 0
    with PersistDict(folder.parent.parent / "b", **QUIET) as b:
        assert len(b) == 601


@ROOT
@pytest.mark.filterwarnings("ignore::persistdict.ReadOnlyWarning")
def test_recent_writes_of_the_same_boot_are_read_too(frozen):
    """Left there by a process that was killed, over what is in the data, in reads and in iteration."""
    folder, freeze = frozen
    with PersistDict(folder, **QUIET) as d:
        d.update(a=1, b=2, c=3)
    code = (
        "import os, sys; from persistdict import PersistDict\n"
        "d = PersistDict(sys.argv[1], background_thread='disabled')\n"
        "d['b'] = 'newer'; d['d'] = 4; del d['a']; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    freeze()
    with PersistDict(folder) as d:
        assert list(d.items()) == [("b", "newer"), ("c", 3), ("d", 4)]
        assert [d["b"], d["d"], "a" in d, len(d)] == ["newer", 4, False, 3]
        assert ask_child(lambda: list(d.items())) == [["b", "newer"], ["c", 3], ["d", 4]]


@ROOT
@pytest.mark.filterwarnings("ignore::persistdict.ReadOnlyWarning")
def test_a_backup_on_a_read_only_medium_is_opened(frozen):
    """It has neither lock files nor recent writes."""
    folder, freeze = frozen
    with PersistDict(folder.parent.parent / "d", **QUIET) as d:
        d["k"] = 1
        d.backup(folder)
    freeze()
    with PersistDict(folder) as b, PersistDict(folder) as other:
        assert b == other == {"k": 1}


@ROOT
@pytest.mark.filterwarnings("ignore::persistdict.ReadOnlyWarning")
@pytest.mark.skipif(sys.byteorder == "big", reason="the golden stores are of a little-endian machine")
def test_on_a_read_only_medium_a_store_made_before_there_were_tags_has_none(frozen):
    folder, freeze = frozen
    golden = Path(__file__).parent / "golden" / "whole.mdb.gz"
    folder.mkdir(mode=0o700)
    (folder / "data.mdb").write_bytes(gzip.decompress(golden.read_bytes()))
    freeze()
    with PersistDict(folder, **QUIET) as d:
        assert d.tags() == list(d.tagged("news")) == []
        assert d.evict(tag="news") == 0
        assert d["small"] == 1
        assert d.entry("small").tag is None
        assert d.verify().ok
        with pytest.raises(ReadOnlyError):
            d.set("small", 2, tag="news")


@ROOT
def test_on_a_read_only_medium_nothing_is_made(frozen):
    folder, freeze = frozen
    (folder.parent / "empty").mkdir(mode=0o700)
    freeze()
    with pytest.raises(OpenError, match="Read-only file system"):
        PersistDict(folder)
    with pytest.raises(OpenError, match="no dictionary is here"):
        PersistDict(folder.parent / "empty")


@ROOT
@pytest.mark.filterwarnings("ignore::persistdict.ReadOnlyWarning")
def test_who_reads_on_a_read_only_mount_and_who_writes_elsewhere_exclude_each_other(tmp_path):
    """A reader there is in no table, so a writer would take the pages that it reads."""
    view = tmp_path / "view"
    view.mkdir()
    PersistDict(tmp_path / "d", **QUIET).close()
    if subprocess.run(["mount", "--bind", tmp_path / "d", view], check=False).returncode:
        pytest.skip("cannot mount here")
    code = (
        "import sys; from persistdict import PersistDict, BusyError\n"
        "try: d = PersistDict(sys.argv[1], background_thread='disabled')\n"
        "except BusyError as error: print(error)\nelse: print('open', flush=True); input(); d.close()"
    )

    def opener(path):
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
        for first, second in ((view, tmp_path / "d"), (tmp_path / "d", view)):
            with opener(first) as one:
                assert one.stdout.readline() == "open\n"
                with opener(second) as two:
                    said = two.communicate("\n")[0]
                    assert f"the process {one.pid} " in said
                one.communicate("\n")
    finally:
        subprocess.run(["umount", str(view)], check=True)


@ROOT
def test_a_folder_without_permission_to_write_says_what_to_do(tmp_path):
    """That is no read-only medium: others may be writing."""
    code = (
        "import os, sys; from persistdict import PersistDict, OpenError\n"
        "PersistDict(sys.argv[1] + '/imports').close()\n"
        "os.chown(sys.argv[1], 65534, 65534)\nos.setgid(65534); os.setuid(65534); os.chmod(sys.argv[1], 0o500)\n"
        "try: PersistDict(sys.argv[1])\nexcept OpenError as error: print(error.errno, error)"
    )
    folder = tempfile.mkdtemp(dir="/tmp")
    try:
        done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
        assert done.stdout.startswith(f"{errno.EACCES} "), done.stderr
        assert "make the folder and its files writable" in done.stdout
    finally:
        shutil.rmtree(folder)


# Network file systems

# As a laptop, a container, a cluster node and WSL show it.
LAPTOP = r"""
22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
31 28 0:26 / /dev/shm rw,nosuid,nodev shared:4 - tmpfs tmpfs rw,inode64
97 28 0:48 / /home/me/far\040away rw,nosuid,nodev,relatime shared:51 - fuse.sshfs me@host:/data rw,user_id=1000
98 28 0:49 / /home/me/back\134slash rw,relatime shared:52 - cifs //server/share rw,vers=3.1.1
99 28 0:50 / /mnt/nas rw,relatime shared:53 - nfs4 10.0.0.2:/export rw,vers=4.2
100 99 259:3 / /mnt/nas/local rw,relatime shared:54 - xfs /dev/nvme0n1p3 rw,attr2
101 28 0:51 / /mnt/twice rw,relatime shared:55 - nfs 10.0.0.2:/old rw
102 101 259:4 / /mnt/twice rw,relatime shared:56 - btrfs /dev/sdb1 rw,subvol=/a - b
"""
CONTAINER = """
612 499 0:58 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A
640 612 254:1 /docker/volumes/v/_data /data rw,relatime master:2 - ext4 /dev/vda1 rw
641 612 0:44 / /shared rw,relatime - virtiofs shared rw
642 612 0:45 / /host rw,relatime - 9p host rw,trans=virtio
643 612 0:46 / /bucket rw,relatime - fuse.gcsfuse bucket rw
644 612 0:47 / /pool rw,relatime - fuse.mergerfs a:b rw
645 612 0:49 / /cold rw,noatime - zfs tank/cold rw
"""
CLUSTER = """
28 1 8:2 / / rw - ext4 /dev/sda2 rw
50 28 0:60 / /scratch rw,flock - lustre 10.1@o2ib:/scratch rw
51 28 0:61 / /ceph rw - ceph 10.0.0.1:6789:/ rw
52 28 0:62 / /gluster rw - fuse.glusterfs node:/volume rw
53 28 0:63 / /afs rw - afs none rw
54 28 0:64 / /beegfs rw - beegfs beegfs_nodev rw
"""


@pytest.mark.parametrize(
    ("mountinfo", "path", "filesystem", "network"),
    [
        (LAPTOP, "/home/me/cache", "ext4", False),
        (LAPTOP, "/dev/shm/cache", "tmpfs", False),
        (LAPTOP, "/dev/shmcache", "ext4", False),
        (LAPTOP, "/home/me/far away/cache", "fuse.sshfs", True),
        (LAPTOP, "/home/me/far away", "fuse.sshfs", True),
        (LAPTOP, "/home/me/far", "ext4", False),
        (LAPTOP, "/home/me/back\\slash/cache", "cifs", True),
        (LAPTOP, "/mnt/nas/cache", "nfs4", True),
        (LAPTOP, "/mnt/nas/local/cache", "xfs", False),
        (LAPTOP, "/mnt/twice/cache", "btrfs", False),
        (CONTAINER, "/app/cache", "overlay", False),
        (CONTAINER, "/data/cache", "ext4", False),
        (CONTAINER, "/shared/cache", "virtiofs", False),
        (CONTAINER, "/host/cache", "9p", True),
        (CONTAINER, "/bucket/cache", "fuse.gcsfuse", True),
        (CONTAINER, "/pool/cache", "fuse.mergerfs", False),
        (CONTAINER, "/cold/cache", "zfs", False),
        (CLUSTER, "/scratch/me", "lustre", True),
        (CLUSTER, "/ceph/me", "ceph", True),
        (CLUSTER, "/gluster/me", "fuse.glusterfs", True),
        (CLUSTER, "/afs/me", "afs", True),
        (CLUSTER, "/beegfs/me", "beegfs", True),
    ],
)
def test_the_file_system_of_a_path_is_told_from_mountinfo(mountinfo, path, filesystem, network):
    assert filesystem_of(path, mountinfo) == filesystem
    assert is_network(filesystem) is network


def test_mountinfo_that_tells_nothing_is_no_reason_to_refuse():
    assert filesystem_of("/a", "") is None
    assert filesystem_of("/a", "what is this\n1 2 3 - \n") is None


@LINUX
def test_where_this_runs_is_told():
    with open("/proc/self/mountinfo") as file:
        mountinfo = file.read()
    assert filesystem_of("/proc/self", mountinfo) == "proc"


@ROOT
def test_a_network_file_system_is_refused_unless_forced(tmp_path):
    """A real mount that is called sshfs; it is refused before it is asked anything, by a link too."""
    counts = run_driver("distant", tmp_path / "d", quiet=True)
    if "reason" in counts:
        pytest.skip(counts["reason"])
    for way in ("refused", "by a link"):
        assert counts[way].startswith("ENOTSUP: the folder lies on a network file system (fuse.sshfs)"), counts
        assert 'network_filesystem="allow"' in counts[way]
    assert counts["asked"] == 0
    assert counts["allowed"].startswith("ENOSYS: cannot make the folder"), "it went on, to a file system that is empty"
    assert counts["beside"] == "opened"


def test_impossible_values_of_network_filesystem_are_refused(tmp_path):
    with pytest.raises(ValueError, match='"refuse" or "allow"'):
        PersistDict(tmp_path / "d", network_filesystem="maybe")


# Limits of the process


def limited(tmp_path, limits, code, before=""):
    """Run `code` in a process with these limits; returns what it prints. `d` is open, `refused` collects errors."""
    program = (
        "import os, resource, sys\nfrom persistdict import PersistDict, PersistDictError, OpenError\n"
        "from persistdict import DiskFullError, StoreError\nimport lmdb_dict, persistdict.lru, traceback\n"
        f"folder = sys.argv[1]\nPersistDict(folder + '-imports').close()\n{before}\n"
        f"for name, limit in {limits!r}.items():\n    resource.setrlimit(getattr(resource, name), (limit, limit))\n"
        f"{code}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "d")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


GROW = """
d = PersistDict(folder, background_thread="disabled")
written = 0
try:
    for number in range(MANY):
        d[number] = number.to_bytes(4, "little") * (1 << 16)
        written += 1
    d.flush()
    print("all")
except StoreError as error:
    print(error.errno, error)
for number in range(written):
    assert d[number] == number.to_bytes(4, "little") * (1 << 16)
assert [key for key, _ in d.items()] == list(range(written))
try:
    d.close()
except StoreError as error:
    assert error.errno == 12, error
print(written)
"""


@LINUX
@pytest.mark.parametrize("size", [1 << 30, 512 << 20])
def test_with_little_address_space_it_opens_grows_and_reads(tmp_path, size):
    """200 MB in 512 MB of address space, compacted and backed up too."""
    more = "d = PersistDict(folder, background_thread='disabled'); d.compact(); d.backup(folder + '-b'); d.close()"
    said = limited(tmp_path, {"RLIMIT_AS": size}, GROW.replace("MANY", "600") + more)
    assert said == ["all", "600"]
    for name in ("d", "d-b"):
        with PersistDict(tmp_path / name, **QUIET) as d:
            assert len(d) == 600
            assert check_all(d._store) == []


@LINUX
def test_more_than_the_address_space_holds_is_refused_and_nothing_is_lost(tmp_path):
    said = limited(tmp_path, {"RLIMIT_AS": 400 << 20}, GROW.replace("MANY", "2000"))
    assert said[0].startswith(f"{errno.ENOMEM} ")
    assert "ulimit -v" in said[0]
    with PersistDict(tmp_path / "d", **QUIET) as d:
        assert len(d) == int(said[1]) > 100
        assert check_all(d._store) == []
    code = "try: PersistDict(folder)\nexcept OpenError as error: print(error.errno, 'ulimit -v' in str(error))"
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d.update((number, bytes(1 << 20)) for number in range(300))
    assert limited(tmp_path, {"RLIMIT_AS": 300 << 20}, code) == [f"{errno.ENOMEM} True"]


@LINUX
@pytest.mark.parametrize("files", range(4, 26, 3))
def test_with_few_files_it_opens_or_says_so_and_nothing_is_lost(tmp_path, files):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["k"] = 1
    code = """
def attempt(work):
    try:
        return work()
    except PersistDictError as error:
        assert error.errno == 24, error
        return "too many"
d = attempt(lambda: PersistDict(folder, background_thread="disabled"))
if d != "too many":
    assert d["k"] == 1
    d["k2"] = d["k"]
    attempt(lambda: d.backup(folder + "-b"))
    attempt(d.compact)
    assert d["k2"] == 1
    d["k3"] = 1
    d.close()
print("right")
"""
    assert limited(tmp_path, {"RLIMIT_NOFILE": files}, code) == ["right"]
    with PersistDict(tmp_path / "d", **QUIET) as d:
        assert len(d) in (1, 3)
        assert check_all(d._store) == []


@LINUX
@pytest.mark.parametrize("durability", ["interval", "commit"])
@pytest.mark.parametrize("size", [100_000, 3 << 20, 20 << 20])
def test_a_limit_of_file_sizes_is_a_full_disk(tmp_path, durability, size):
    """Reads go on, and all that was acknowledged is there without the limit."""
    code = f"""
d = PersistDict(folder, durability={durability!r}, background_thread="disabled")
written = 0
try:
    for number in range(10_000):
        d[number] = number.to_bytes(4, "little") * 4000
        written += 1
except DiskFullError as error:
    assert error.errno == {errno.EFBIG} and "ulimit -f" in str(error), error
for number in range(written):
    assert d[number] == number.to_bytes(4, "little") * 4000
assert len(d) == written < 10_000
try:
    d.close()
except DiskFullError:
    pass
print(written)
"""
    before = "PersistDict(folder).close()"
    written = int(limited(tmp_path, {"RLIMIT_FSIZE": size}, code, before)[0])
    assert written > 0 or size < 1 << 20
    with PersistDict(tmp_path / "d", **QUIET) as d:
        assert list(d) == list(range(written))
        assert all(value == number.to_bytes(4, "little") * 4000 for number, value in d.items())
        assert check_all(d._store) == []
        d.flush()
