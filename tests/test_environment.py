"""The LMDB environment: one per folder and process, growth, the disk's end, locks."""

import contextlib
import gc
import os
import resource
import subprocess
import sys
import threading

import lmdb
import pytest
from drivers.running import ask_child

from persistdict import DiskFullError, NotAStoreError, OpenError, PersistDict
from persistdict.stores.lmdb import LmdbStore
from persistdict.stores.lmdb.gate import DATA, HIGH, RECENT, Gate
from persistdict.stores.lmdb.registry import environments as registered

QUIET = {"background_thread": "disabled"}


def test_nothing_touches_the_disk_or_starts_a_thread_at_import(tmp_path):
    code = "import threading, persistdict, os; print(threading.active_count(), os.listdir('.'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "1 []\n"


def test_a_thousand_readers_have_room(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["k"] = 1
        assert d._store.env.data.raw.max_readers() >= 1024
        held = [d._store.env.data.raw.begin() for _ in range(1000)]
        assert PersistDict(tmp_path / "d", caching=False, **QUIET)["k"] == 1
        del held


def test_a_full_reader_table_is_cleared_of_the_dead(tmp_path):
    """Slots of processes that were killed are taken back when they are needed."""
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["k"] = 1
        child = (
            "import lmdb, os, sys; env = lmdb.open(sys.argv[1], max_readers=1024, max_dbs=32, map_size=1 << 30)\n"
            "held = [env.begin() for _ in range(1000)]\nos.kill(os.getpid(), 9)"
        )
        subprocess.run([sys.executable, "-c", child, str(tmp_path / "d")], check=False)
        held = []
        with contextlib.suppress(lmdb.ReadersFullError):
            while True:
                held.append(d._store.env.data.raw.begin())
        del held[-10:]
        with PersistDict(tmp_path / "d", caching=False, **QUIET) as other:
            assert other["k"] == 1
        del held


def test_the_map_grows_under_readers_and_writers(tmp_path):
    """With a map of 64 KB to begin with, threads write 8 MB and read meanwhile; nobody notices."""
    store = LmdbStore(str(tmp_path / "d"), map_size=1 << 16)
    errors = []

    def write(number):
        try:
            for count in range(100):
                store.put(b"\x30%d-%d" % (number, count), b"", 1, b"v" * 20_000)
        except BaseException as error:
            errors.append(error)

    def read():
        try:
            while threads[0].is_alive() or threads[1].is_alive():
                for record in store.scan():
                    assert store.read(record.kb) is not None
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads + readers:
        thread.start()
    for thread in threads + readers:
        thread.join()
    assert not errors
    assert store.count() == 200
    assert store.check(1000) == ([], None)
    store.close()


def test_growth_by_another_process_is_adopted(tmp_path):
    store = LmdbStore(str(tmp_path / "d"), map_size=1 << 16)
    store.put(b"\x30a", b"", 1, b"here")
    child = (
        "import sys; from persistdict.stores.lmdb import LmdbStore; s = LmdbStore(sys.argv[1], map_size=1 << 16)\n"
        "for number in range(300): s.put(b'\\x30%d' % number, b'', 1, b'v' * 20_000)\n"
    )
    subprocess.run([sys.executable, "-c", child, str(tmp_path / "d")], check=True)
    assert store.count() == 301
    assert store.read(b"\x30299") is not None
    assert store.put(b"\x30b", b"", 1, b"v" * 100_000) is not None
    store.close()


def test_little_address_space_means_a_smaller_map(tmp_path):
    child = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "from persistdict import PersistDict\nd = PersistDict(sys.argv[1])\n"
        "d['k'] = 'v' * 1000; print(len(d['k']) == 1000)\n"
        "print(d._store.env.data.raw.info()['map_size'] < 2 << 30); d.close()"
    )
    command = [sys.executable, "-c", child, str(tmp_path / "d")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["True", "True"]


def close_where_room_is_short(d):
    """What is recent needs its room a second time when it is drained; if there is none, closing says so."""
    if d._options.durability == "commit":
        d.close()
    else:
        with contextlib.suppress(DiskFullError):
            d.close()
    assert d.closed


@pytest.mark.skipif(os.geteuid() != 0 or not sys.platform.startswith("linux"), reason="needs root to mount")
@pytest.mark.parametrize("durability", ["interval", "commit"])
def test_a_full_disk_is_one_error_and_reads_deletes_and_later_writes_go_on(tmp_path, durability):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", str(disk)], check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        with contextlib.ExitStack() as stack:
            d = PersistDict(disk / "d", durability=durability, **QUIET)
            stack.callback(close_where_room_is_short, d)
            d["small"] = "kept"
            with pytest.raises(DiskFullError, match="no space"):
                for number in range(1000):
                    d[number] = "x" * 10_000
            stored = number
            assert d["small"] == "kept"
            assert list(d) == ["small", *range(stored)]
            with pytest.raises(DiskFullError):
                d.update((f"more {number}", "x" * 10_000) for number in range(100))
            assert len(d) == stored + 1
            for number in range(20):
                del d[number]
            d["after"] = "x" * 10_000
            assert d["after"] == "x" * 10_000
            assert d._store.check(10_000) == ([], None)
    finally:
        gc.collect()  # the errors hold on to what they were raised in
        subprocess.run(["umount", str(disk)], check=True)


def test_only_one_environment_is_open_for_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("d")
    handles = [PersistDict(path, **QUIET) for path in ("d", "./d/", tmp_path / "d", tmp_path / "link")]
    environments = {id(handle._store.env) for handle in handles}
    assert len(environments) == 1
    assert [id(environment) for environment in registered.values()] == list(environments)
    for handle in handles:
        handle.close()
    assert not registered


def test_an_environment_that_somebody_else_opened_is_a_clear_error(tmp_path):
    PersistDict(tmp_path / "d", **QUIET).close()
    env = lmdb.open(str(tmp_path / "d"), max_dbs=32)
    with pytest.raises(OpenError, match="already open in this process"):
        PersistDict(tmp_path / "d", **QUIET)
    env.close()
    PersistDict(tmp_path / "d", **QUIET).close()


def test_lmdb_dict_mappings_and_we_share_one_environment(tmp_path, monkeypatch):
    from lmdb_dict import StrLmdbDict

    monkeypatch.chdir(tmp_path)
    foreign = StrLmdbDict("foreign", name="own", max_dbs=32)
    with pytest.raises(NotAStoreError):
        PersistDict("foreign", **QUIET)
    assert "own" in str(foreign.full_path())
    del foreign
    with PersistDict("d", **QUIET) as d:
        for path in ("d", "./d", str(tmp_path / "d")):
            info = StrLmdbDict(path, name="info", max_dbs=32)
            assert info["format"] == "1"
        own = StrLmdbDict("d", name="own", max_dbs=32)
        own["a"] = "b"
        d["k"] = 1
    with PersistDict(tmp_path / "d", **QUIET) as d:  # the mappings still have it open
        assert d["k"] == 1
        d["k"] = 2
    assert own["a"] == "b"
    del own, info


def test_a_blank_environment_of_lmdb_dict_becomes_a_store(tmp_path):
    from lmdb_dict import StrLmdbDict

    mapping = StrLmdbDict(str(tmp_path / "d"), max_dbs=32)
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d.update((number, "x" * 100_000) for number in range(200))  # beyond the 10 MB map that the mapping chose
        assert len(d) == 200
    del mapping
    with PersistDict(tmp_path / "d", **QUIET) as d:
        assert len(d) == 200


def test_the_gate_is_high_exclusive_and_survives_a_low_limit_of_files(tmp_path):
    gate = Gate(str(tmp_path / "gate"))
    assert gate._fd >= HIGH
    (hold, free), (hold_recent, free_recent) = gate.lock(DATA), gate.lock(RECENT)
    hold()
    code = (
        "import sys; from persistdict.stores.lmdb.gate import Gate\ngate = Gate(sys.argv[1])\n"
        "for byte in (0, 1):\n    try: gate.lock(byte)[0](); print('free')\n"
        "    except BlockingIOError: print('held by', gate.holder(byte))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "gate")]

    def held():
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    me = f"held by the process {os.getpid()}"
    assert held() == [me, "free"]
    hold_recent()
    free()
    free()
    assert held() == ["free", me]
    free_recent()
    assert held() == ["free", "free"]
    gate.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        gate = Gate(str(tmp_path / "gate"))
        assert 100 < gate._fd < 256
        gate.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_compacted_copy_goes_on_with_higher_numbers(tmp_path):
    """Transaction ids of a copy start again; sequence numbers and versions must not."""
    with PersistDict(tmp_path / "d", **QUIET) as d:
        for number in range(50):
            d[number % 5] = number
        d.flush()
        newest = max(d.entry(key).version for key in d)
        (tmp_path / "copy").mkdir(mode=0o700)
        d._store.env.data.raw.copy(str(tmp_path / "copy"), compact=True)
    with PersistDict(tmp_path / "copy", **QUIET) as d:
        assert list(d.values()) == [45, 46, 47, 48, 49]
        d["new"] = 1
        d[0] = 1
        assert d.entry(0).version > d.entry("new").version > newest
        assert list(d) == [0, 1, 2, 3, 4, "new"]
        assert d._store.check(100) == ([], None)


def test_an_unknown_format_is_refused(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d._store.update(lambda txn: txn.set_info("format", "999"), whole=True)
    with pytest.raises(NotAStoreError, match="newer"):
        PersistDict(tmp_path / "d", **QUIET)


def test_a_lost_lock_is_taken_again(tmp_path):
    """Whoever copies the folder within the process drops LMDB's locks; the next opener takes its readers for dead."""
    with PersistDict(tmp_path / "d", caching=False, **QUIET) as d:
        d["k"] = 1
        d.flush()
        assert d["k"] == 1
        for lock in (tmp_path / "d").glob("**/lock.mdb"):
            lock.read_bytes()
        code = "import sys; from persistdict import PersistDict; print(PersistDict(sys.argv[1])['k'])"
        for _ in range(2):
            done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "d")], capture_output=True, text=True)
            assert (done.stdout, done.stderr) == ("1\n", "")
            assert d["k"] == 1 and dict(d) == {"k": 1}
        if os.path.exists("/proc/locks"):
            inodes = {f":{lock.stat().st_ino}" for lock in (tmp_path / "d").glob("**/lock.mdb")}
            with open("/proc/locks") as locks:
                held = [line.split() for line in locks]
            mine = {
                inode
                for words in held
                for inode in inodes
                if words[-4] == str(os.getpid()) and words[-3].endswith(inode)
            }
            assert mine == inodes


def test_processes_that_make_the_map_larger_at_once_harm_nothing(tmp_path):
    """Recent writes begin with a small map; three processes fill it and make it larger, each in its turn."""
    code = (
        "import sys; from persistdict import PersistDict\n"
        "d = PersistDict(sys.argv[1], sync_interval=1e6, background_thread='disabled'); n = int(sys.argv[2])\n"
        "for i in range(300): d[n, i] = bytes([n]) * (10 * i)"
    )
    for round_ in range(3):
        folder = tmp_path / str(round_)
        writers = [subprocess.Popen([sys.executable, "-c", code, str(folder), str(n)]) for n in range(3)]
        assert [writer.wait() for writer in writers] == [0, 0, 0]
        with PersistDict(folder, **QUIET) as d:
            assert all(d[n, i] == bytes([n]) * (10 * i) for n in range(3) for i in range(300))
            assert len(d) == 900 and d.verify().ok


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_another_process_wrote_behind_our_map_is_not_written_over(tmp_path, mapped):
    """It was quicker to make the map larger: by the reserve, having no room, so that the file is as long as before."""
    other = (
        "import os, resource, sys; from persistdict import PersistDict\n"
        "d = PersistDict(sys.argv[1], background_thread='disabled'); recent = d._store.env.recent; raw = recent.raw\n"
        "size = os.path.getsize(os.path.join(os.fsdecode(raw.path()), 'data.mdb'))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)); recent.resize(grow=True, urgent=True)\n"
        "assert raw.info()['map_size'] == size\n"
        "for n in range(2): d['theirs', n] = b'theirs' * 3000\n"
        "print(raw.info()['last_pgno'] * raw.stat()['psize']); os._exit(sys.stdout.flush() or 0)"
    )

    def be_late():
        d = PersistDict(tmp_path / "d", **QUIET)
        recent, used, number = d._store.env.recent, [], 0
        before, resize = recent.raw.info()["map_size"], recent.resize

        def let_the_other_be_first(**options):
            recent.resize = resize
            used.append(int(subprocess.check_output([sys.executable, "-c", other, str(tmp_path / "d")])))
            resize(**options)

        recent.resize = let_the_other_be_first
        while not used:
            d["ours", number] = bytes(1000)
            number += 1
        assert used[0] > before, "the other wrote nothing behind our map"
        assert d["theirs", 0] == d["theirs", 1] == b"theirs" * 3000
        assert len(d) == number + 2 and d.verify().ok

    ask_child(be_late, "a child that would be killed by overwritten pages")
