"""Compaction: space is given back, nothing is lost, whoever uses the store meanwhile."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from drivers.running import answer_of, in_child, rounds, run_driver

from persistdict import BusyError, DiskFullError, PersistDict, Unsupported
from persistdict.tasks import check_all

QUIET = {"background_thread": "disabled"}
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files that are in use are not exchanged there")


def wasteful(path, **options):
    """A dictionary whose file is mostly free pages, with recent writes of every kind."""
    d = PersistDict(path, **QUIET, **options)
    d.update((number, bytes(2000)) for number in range(3000))
    d.delete_many(range(2900))
    d.flush()
    d["recent"] = [1]
    d[2950] = "overwritten"
    del d[2951]
    return d


def test_space_is_given_back_and_everything_is_there(tmp_path):
    with wasteful(tmp_path / "d") as d:
        before = (tmp_path / "d" / "data.mdb").stat().st_size
        entries = [(key, value, d.entry(key)) for key, value in d.items()]
        freed = d.compact()
        after = (tmp_path / "d" / "data.mdb").stat().st_size
        assert freed == before - after > before // 2
        assert [(key, value, d.entry(key)) for key, value in d.items()] == entries
        assert sorted(os.listdir(tmp_path / "d"))[:4] == ["data.mdb", "flags.map", "gate.lock", "lock.mdb"]
        assert (tmp_path / "d" / "data.mdb").stat().st_mode & 0o777 == 0o600
        assert d.compact() == 0
        d["more"] = 1
        assert d.compact() < 1 << 19  # what a drain keeps for deletions on a full disk
    with PersistDict(tmp_path / "d", **QUIET) as d:
        assert d["recent"] == [1]
        assert d["more"] == 1
        assert len(d) == len(entries) + 1
        assert check_all(d._store) == []


def test_numbers_and_versions_go_on_and_copies_in_memory_stay_right(tmp_path):
    """Through many compactions, with other handles and with direct changes in between."""
    with PersistDict(tmp_path / "d", **QUIET) as d, PersistDict(tmp_path / "d", **QUIET) as other:
        versions = []
        for count in range(6):
            d["k"] = count
            assert (d["k"], other["k"]) == (count, count)
            if count % 2:
                d.update((("many", count, number), number) for number in range(600))
            d.compact()
            assert (d["k"], other["k"]) == (count, count)
            versions.append(d.entry("k").version)
            other["k"] = [count]
            assert d["k"] == [count]
            d["new", count] = count
            versions += [d.entry("k").version, d.entry(("new", count)).version]
        assert versions == sorted(set(versions))
        assert [key[1] for key in d if key[0] == "new"] == list(range(6))
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["last"] = 1
        assert d.entry("last").version > versions[-1]
        assert list(d)[-1] == "last"
        assert check_all(d._store) == []


def test_another_process_that_has_it_open_is_named(tmp_path):
    """Whether it waits, times out or goes on when that process has closed it.

    As long as it has not, nothing is copied, and the data are not closed under our own threads.
    """
    with wasteful(tmp_path / "d") as d:
        opened = d._store.env.data.raw
        code = (
            "import sys; from persistdict import PersistDict\n"
            "d = PersistDict(sys.argv[1], background_thread='disabled')\n"
            "d['theirs'] = 1; print('open', flush=True); input(); d.close(); print('closed', flush=True); input()"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "d")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "open\n"
            for timeout in (0, 0.1):
                with pytest.raises(
                    BusyError, match=f"the process {child.pid} did not close the store within {timeout:g} s"
                ):
                    d.compact(timeout=timeout)
            assert d._store.env.data.raw is opened
            d["mine"] = d["theirs"]
            d.flush()
            waiting = threading.Thread(target=lambda: freed.append(d.compact(timeout=60)))
            freed = []
            waiting.start()
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "closed\n"
            waiting.join()
            assert freed[0] > 0
            child.communicate("\n")
        assert (d["mine"], d["theirs"]) == (1, 1)


def test_a_stranger_that_has_the_data_open_is_noticed(tmp_path):
    """A process that knows LMDB but not the gate."""
    with wasteful(tmp_path / "d") as d:
        code = (
            "import lmdb, sys; e = lmdb.open(sys.argv[1], max_dbs=32, map_size=1 << 36); print(1, flush=True); input()"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "d")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            child.stdout.readline()
            with pytest.raises(BusyError):
                d.compact()
            assert d["recent"] == [1]
            d["after"] = 1
            d.flush()
            child.communicate("\n")
        assert d.compact() > 0
        assert d["after"] == 1


def test_a_process_that_lost_its_lock_is_noticed_too(tmp_path):
    """One that has copied the files, and so dropped LMDB's lock, by which LMDB would notice it."""
    with wasteful(tmp_path / "d") as d:
        code = (
            "import sys; from persistdict import PersistDict\n"
            "d = PersistDict(sys.argv[1], background_thread='disabled'); d['theirs'] = 1\n"
            "open(sys.argv[1] + '/lock.mdb', 'rb').close(); print('open', flush=True); input()\n"
            "d['later'] = d['theirs']; d.close()"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "d")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "open\n"
            with pytest.raises(BusyError, match=f"the process {child.pid} did not close the store"):
                d.compact(timeout=0)
            child.communicate("\n")
        assert child.returncode == 0
        assert d.compact(timeout=0) > 0
        assert d["later"] == 1
        assert check_all(d._store) == []


def test_threads_and_iterators_go_on_while_it_is_compacted(tmp_path):
    """Readers, writers, iterators and backups in threads of several handles, twenty compactions."""
    with wasteful(tmp_path / "d") as d:
        handles = [PersistDict(tmp_path / "d", background_thread=True, sync_interval=0.05) for _ in range(3)]
        stop, errors, written = threading.Event(), [], [0, 0]

        def guarded(work):
            def run():
                count = 0
                try:
                    while not stop.is_set():
                        count += 1
                        work(count)
                except BaseException as error:
                    errors.append(error)
                    stop.set()

            return threading.Thread(target=run)

        def write(handle, name, count):
            handle[name] = count
            if count % 10 == 0:
                handle.update({(name, "large"): bytes(50_000), (name, count % 50): count})
            written[name] = count
            assert handle[name] == count

        def iterate(_):
            items = dict(handles[2].items())
            assert items[2950] == "overwritten"
            assert len([key for key in items if type(key) is int and key > 1]) == 99

        iterator = iter(d.items())
        next(iterator)
        threads = [
            guarded(lambda count: write(handles[0], 0, count)),
            guarded(lambda count: write(handles[1], 1, count)),
            guarded(iterate),
            guarded(lambda count: d.backup(tmp_path / f"b{count}") if count < 5 else stop.wait(0.01)),
        ]
        d[0] = d[1] = 0
        for thread in threads:
            thread.start()
        for _ in range(20):
            d.compact()
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == []
        assert [d[0], d[1]] == written
        assert [key for key, _ in iterator][:98] == [key for key in range(2901, 3000) if key != 2951]
        assert check_all(d._store) == []
        for handle in handles:
            handle.close()


def test_killed_at_any_moment_it_leaves_the_old_or_the_new(tmp_path):
    """A process that writes and compacts is killed; the next opens and compares; see drivers/compactions.py."""
    counts = run_driver("compactions", tmp_path / "d", rounds(40))
    assert counts["left behind"] == []
    assert counts["killed while compacting"] > counts["kills"] // 3


def test_a_power_cut_at_any_moment_leaves_the_old_or_the_new(tmp_path):
    """On ext4, each write durable: what was acknowledged is there."""
    reason = run_driver("disks", tmp_path / "try", "ext4", quiet=True)["reason"]
    if reason:
        pytest.skip(reason)
    counts = run_driver("compactions", tmp_path / "d", rounds(15), "cut")
    assert counts["left behind"] == []
    assert counts["writes"] > counts["kills"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_with_an_inherited_handle_sees_what_its_parent_compacted(tmp_path):
    """The child opens the files only when it uses them; before that it is in nobody's way, and afterwards it is."""
    with wasteful(tmp_path / "d") as d:
        d["k"] = "cached"
        assert d["k"] == "cached"
        to_child, from_child = os.pipe(), os.pipe()

        def use_when_told():
            signal.alarm(60)
            os.read(to_child[0], 1)
            assert d["k"] == "newer"
            assert d["recent"] == [1]
            d["k"] = "from the child"
            d["child"] = 1
            assert list(d)[-1] == "child"
            os.write(from_child[1], b"1")
            os.read(to_child[0], 1)
            d.close()

        pid, answer = in_child(use_when_told)
        version = d.entry("k").version
        for _ in range(3):
            d.compact()
        d["k"] = "newer"
        os.write(to_child[1], b"1")
        assert os.read(from_child[0], 1) == b"1"
        with pytest.raises(BusyError, match=f"process {pid} "):
            d.compact()
        assert d["k"] == "from the child"
        assert d.entry("child").version > d.entry("k").version > version
        os.write(to_child[1], b"1")
        answer_of(pid, answer)
        d.compact()
        assert d["k"] == "from the child"
        for fd in (*to_child, *from_child):
            os.close(fd)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_compacts_once_its_parent_is_out_of_the_way(tmp_path):
    d = wasteful(tmp_path / "d")
    back = os.pipe()
    reading, writing = os.pipe()

    def compact_twice():
        signal.alarm(60)
        with pytest.raises(BusyError, match=f"process {os.getppid()} "):
            d.compact()
        os.write(back[1], b"1")
        os.read(reading, 1)
        assert d.compact() > 0
        assert d.compact() == 0
        assert d["recent"] == [1]
        d["child"] = 1
        d.close()

    pid, answer = in_child(compact_twice)
    assert os.read(back[0], 1) == b"1"
    d.close()
    os.write(writing, b"1")
    answer_of(pid, answer)
    for fd in (reading, writing, *back):
        os.close(fd)
    with PersistDict(tmp_path / "d", **QUIET) as d:
        assert d["child"] == 1
        assert check_all(d._store) == []


def test_ctrl_c_at_any_moment_of_it_leaves_everything_in_order(tmp_path):
    code = (
        "import os, signal, sys, time\nfrom persistdict import PersistDict\n"
        "signal.signal(signal.SIGALRM, signal.default_int_handler)\n"
        "d = PersistDict(sys.argv[1], background_thread='disabled')\n"
        "d.update((n, bytes(1000)) for n in range(2000)); d['count'] = 0\nstopped = 0\n"
        "for n in range(150):\n"
        "    try:\n        try:\n"
        "            signal.setitimer(signal.ITIMER_REAL, 0.0002 + 0.0001 * n)\n            d.compact()\n"
        "        finally:\n            signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "    except KeyboardInterrupt:\n        stopped += 1\n"
        "    assert d['count'] == n\n    d['count'] = n + 1\n    assert d['count'] == n + 1\n"
        "    if n % 10 == 0: d.flush()\n"
        "end = time.monotonic() + 10\n"
        "while len(sys._current_frames()) > 1 and time.monotonic() < end: pass\n"  # threads that run, not those to be
        "assert len(sys._current_frames()) == 1\nd.flush()\nd.compact()\n"
        "print(stopped, *sorted(os.listdir(sys.argv[1]))[:-1])\nd.close()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "d")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stopped, *names = done.stdout.split()
    assert int(stopped) > 20
    assert names == ["data.mdb", "flags.map", "gate.lock", "lock.mdb"]
    with PersistDict(tmp_path / "d", **QUIET) as d:
        assert d["count"] == 150
        assert len(d) == 2001
        assert check_all(d._store) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to mount")
def test_a_disk_without_room_for_the_copy_changes_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "none", disk], check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        with PersistDict(disk / "d", **QUIET) as d:
            d.update((number, bytes(2000)) for number in range(2000))
            before = sorted(os.listdir(disk / "d"))
            with pytest.raises(DiskFullError, match="no space"):
                d.compact()
            assert sorted(os.listdir(disk / "d")) == before
            assert len(d) == 2000
            d[0] = "goes on"
            d.flush()
            del d
    finally:
        import gc

        gc.collect()
        subprocess.run(["umount", str(disk)], check=True)


def test_impossible_timeouts_and_stores_are_refused(tmp_path):
    with pytest.raises(Unsupported, match="no space"):
        PersistDict("memory://").compact()
    with PersistDict(tmp_path / "d", **QUIET) as d:
        with pytest.raises(ValueError, match="at least 0"):
            d.compact(timeout=-1)
        with pytest.raises(TypeError, match="timeout"):
            d.compact(timeout="soon")


def test_what_was_deleted_just_now_gives_its_space_back(tmp_path):
    """Also if the deletions are recent writes."""
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        d.update({n: bytes(10_000) for n in range(600)})
        d.delete_many(range(500))
        for n in range(500, 590):
            del d[n]
        assert d.compact() > 590 * 10_000
        assert list(d) == list(range(590, 600))
