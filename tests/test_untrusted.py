"""Dictionaries of somebody else: whatever their files hold, they are read safely or refused by an error of ours."""

import contextlib
import gc
import glob
import os
import pickle
import resource
import shutil
import struct
import sys
import tempfile
import threading
import warnings

import lmdb
import pytest
from drivers.damage import build, mutant
from drivers.running import rounds, seed

from persistdict import (
    BusyError,
    CorruptStoreError,
    DecodeError,
    DiskFullError,
    MismatchError,
    NotAStoreError,
    OpenError,
    PersistDict,
    PersistDictError,
    ReadOnlyError,
    TooLargeError,
    UnsafePathError,
    open_untrusted,
)
from persistdict.keys import KeyCodec
from persistdict.stores.lmdb import foreign, proving
from persistdict.stores.lmdb.recent import recent_folder
from persistdict.stores.lmdb.record import pack_record, seq_bytes


@pytest.fixture(autouse=True)
def copies(tmp_path_factory, monkeypatch):
    """The folder in which copies are made; at the end of a test none is left."""
    folder = tmp_path_factory.mktemp("copies")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    gc.collect()
    assert os.listdir(folder) == []


def made(path, **options):
    """A dictionary of somebody else."""
    with PersistDict(path, background_thread="disabled", **options) as d:
        d.update({f"key {n}": [n, "v" * n] for n in range(300)})
        d.set("tagged", (1, 2), tag="news", ttl=1e6)
        d["large"] = b"x" * 200_000
        d["long " * 200] = 1
        return dict(d)


def left_behind(path, work):
    """Let a process that dies use the dictionary."""
    child = os.fork()
    if not child:
        d = PersistDict(path, background_thread="disabled")
        work(d)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def state_of(path):
    """All that can be seen of the files, but for the time of a look at a folder."""
    found = {}
    for folder, names, files in os.walk(path):
        for name in (*names, *files):
            status = os.lstat(os.path.join(folder, name))
            found[os.path.join(folder, name)] = (
                status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode,
                status.st_atime_ns if name in files else 0,
            )  # fmt: skip
    return found


def test_it_reads_what_is_there_and_writes_nothing(tmp_path):
    expected = made(tmp_path / "d")
    with open_untrusted(tmp_path / "d") as d:
        assert dict(d) == expected and d.tags() == ["news"] and d.mode == "r" and d.verify().ok
        with pytest.raises(ReadOnlyError):
            d["a"] = 1
        with pytest.raises(ReadOnlyError):
            d.clear()
        assert repr(d).startswith(f"open_untrusted({str(tmp_path / 'd')!r}")


def test_the_original_is_not_touched(tmp_path):
    """Neither its content nor its lock files nor any time of it, whether it is at rest or not."""
    made(tmp_path / "d")
    for path in glob.glob(str(tmp_path / "d" / "*")):
        if not path.endswith(("data.mdb", "lock.mdb")):
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    before = state_of(tmp_path)
    with open_untrusted(tmp_path / "d") as d:
        assert d["key 1"] == [1, "v"]
        assert state_of(tmp_path) == before
    assert state_of(tmp_path) == before
    left_behind(tmp_path / "d", lambda d: d.__setitem__("a", 1))
    before = state_of(tmp_path)
    open_untrusted(tmp_path / "d").close()
    assert state_of(tmp_path) == before


def test_the_copy_is_private_and_goes_with_the_handle(tmp_path):
    """When it is closed, when it is collected, and when it cannot be opened; a forked child leaves it alone."""
    made(tmp_path / "d")
    d = open_untrusted(tmp_path / "d")
    assert os.stat(d.path).st_mode & 0o777 == 0o700
    child = os.fork()
    if not child:
        d.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert os.path.exists(d.path) and d["key 2"] == [2, "vv"]
    path = d.path
    d.close()
    d.close()
    assert not os.path.exists(path)
    d = open_untrusted(tmp_path / "d")
    path = d.path
    del d
    gc.collect()
    assert not os.path.exists(path)


def test_the_copy_goes_at_the_end_of_the_program(tmp_path, copies):
    made(tmp_path / "d")
    import subprocess

    code = f"import persistdict; d = persistdict.open_untrusted({str(tmp_path / 'd')!r}); print(d['key 1'], d.path)"
    environment = {**os.environ, "TMPDIR": str(copies)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.startswith(f"[1, 'v'] {copies}") and done.stderr == "" and os.listdir(copies) == []


def test_recent_writes_of_a_process_that_died_are_read(tmp_path):
    expected = made(tmp_path / "d")

    def work(d):
        d["key 1"], d["new"] = "newer", {"a": {1}}
        del d["key 2"]

    left_behind(tmp_path / "d", work)
    expected |= {"key 1": "newer", "new": {"a": {1}}}
    del expected["key 2"]
    with open_untrusted(tmp_path / "d") as d:
        assert dict(d) == expected
    with open_untrusted(tmp_path / "d") as d:  # they are still there
        assert dict(d) == expected


def test_recent_writes_of_another_data_file_are_not_read(tmp_path):
    """As by anybody who opens a folder that was copied."""
    expected = made(tmp_path / "d")
    left_behind(tmp_path / "d", lambda d: d.__setitem__("new", 1))
    shutil.copytree(tmp_path / "d", tmp_path / "e")
    with open_untrusted(tmp_path / "e") as d:
        assert dict(d) == expected


def test_it_is_read_while_it_is_open_here(tmp_path):
    """In the same process too: no file of it is opened by LMDB a second time, and its locks stay."""
    with PersistDict(tmp_path / "d", background_thread="disabled") as mine:
        mine["a"] = 1
        with open_untrusted(tmp_path / "d") as d:
            assert dict(d) == {"a": 1}
        mine["b"] = 2
        with open_untrusted(tmp_path / "d") as d:
            assert dict(d) == {"a": 1, "b": 2}


def test_a_handle_can_be_pickled(tmp_path):
    """It makes a copy of its own where it is used."""
    made(tmp_path / "d")
    with open_untrusted(tmp_path / "d") as d, pickle.loads(pickle.dumps(d)) as other:
        assert other["key 3"] == d["key 3"] and other.path != d.path and other.mode == "r"


@pytest.mark.parametrize("limit", [1, 20, 100])
def test_the_key_size_limit_is_that_of_the_file(tmp_path, limit):
    expected = made(tmp_path / "d", key_size_limit=limit)
    with open_untrusted(tmp_path / "d") as d:
        assert dict(d) == expected


# What is refused


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_store_of_another_codec_is_refused_and_nothing_is_decoded(tmp_path):
    with PersistDict(tmp_path / "d", codec="pickle", allow_pickle=True, background_thread="disabled") as d:
        d["bomb"] = Bomb(tmp_path / "ran")
    with pytest.raises(MismatchError, match="pickle"):
        open_untrusted(tmp_path / "d")
    with PersistDict(tmp_path / "e", key_serializer=str, key_unserializer=bytes, background_thread="disabled") as d:
        d[1] = 1
    with pytest.raises(MismatchError):
        open_untrusted(tmp_path / "e")
    with PersistDict(tmp_path / "f", value_serializer=str, value_unserializer=eval, background_thread="disabled") as d:
        d[1] = 1
    with pytest.raises(MismatchError):
        open_untrusted(tmp_path / "f")
    assert not (tmp_path / "ran").exists()


def test_a_pickle_under_the_name_of_the_safe_codec_is_not_run(tmp_path):
    """Nor is what a value of any tag may hold."""
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        for tag in (8, 34, 35):
            d._store.put(*KeyCodec().encode(tag), tag, pickle.dumps(Bomb(tmp_path / "ran")))
    with open_untrusted(tmp_path / "d") as d:
        for tag in (8, 34, 35):
            with contextlib.suppress(DecodeError):
                assert d[tag] == {}  # the first byte of a pickle, to MessagePack
    assert not (tmp_path / "ran").exists()


def test_deep_nesting_is_one_entry_that_cannot_be_decoded(tmp_path):
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        d["good"] = 1
        d._store.put(*KeyCodec().encode("deep"), 8, b"\x91" * 100_000 + b"\xc0")
        d._store.put(b"\x40" * 400, b"", 1, b"deep key")
    with open_untrusted(tmp_path / "d") as d:
        assert d["good"] == 1
        with pytest.raises(PersistDictError):
            d["deep"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert dict(d.items()) == {"good": 1}


@pytest.mark.parametrize("name", ["data.mdb", "recent"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "socket"])
def test_what_is_no_regular_file_is_refused(tmp_path, name, kind):
    """Nobody waits for the other end of a pipe, and no link is followed, to a file or a folder."""
    made(tmp_path / "d")
    left_behind(tmp_path / "d", lambda d: d.__setitem__("a", 1))
    folder = recent_folder(str(tmp_path / "d")) if name == "recent" else str(tmp_path / "d")
    path = os.path.join(folder, "data.mdb")
    os.rename(path, tmp_path / "elsewhere")
    if kind == "link":
        os.symlink(tmp_path / "elsewhere", path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        os.mkdir(path)
    else:
        os.mknod(path, 0o140600)
    with pytest.raises(UnsafePathError):
        open_untrusted(tmp_path / "d", timeout=20)


def test_a_folder_of_recent_writes_that_is_a_link_is_refused(tmp_path):
    made(tmp_path / "d")
    recent = recent_folder(str(tmp_path / "d"))
    os.rename(recent, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", recent)
    with pytest.raises(UnsafePathError):
        open_untrusted(tmp_path / "d")


def test_lock_files_are_not_even_looked_at(tmp_path):
    """They may be links to anything."""
    expected = made(tmp_path / "d")
    (tmp_path / "victim").write_bytes(b"precious")
    for name in ("lock.mdb", "gate.lock", "flags.map"):
        os.unlink(tmp_path / "d" / name)
        os.symlink(tmp_path / "victim", tmp_path / "d" / name)
    with open_untrusted(tmp_path / "d") as d:
        assert dict(d) == expected
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_what_is_not_there_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    for name in ("nothing", "file", "empty"):
        with pytest.raises(OpenError):
            open_untrusted(tmp_path / name)


def test_the_size_is_bounded(tmp_path, monkeypatch):
    """Of all files together, before anything is written; a hole counts as what it would be read as."""
    expected = made(tmp_path / "d")
    left_behind(tmp_path / "d", lambda d: d.__setitem__("a", 1))
    data = os.path.getsize(tmp_path / "d" / "data.mdb")
    size = data + os.path.getsize(os.path.join(recent_folder(str(tmp_path / "d")), "data.mdb"))
    for bound in (1, data, size - 1):
        with pytest.raises(TooLargeError):
            open_untrusted(tmp_path / "d", max_bytes=bound)
    with open_untrusted(tmp_path / "d", max_bytes=size) as d:
        assert dict(d) == {**expected, "a": 1}
    os.truncate(tmp_path / "d" / "data.mdb", 1 << 44)
    with pytest.raises(TooLargeError):
        open_untrusted(tmp_path / "d", max_bytes=1 << 30)
    with pytest.raises(DiskFullError):
        open_untrusted(tmp_path / "d")
    for bad in (0, -1, 1.5, True, "1"):
        with pytest.raises((ValueError, TypeError)):
            open_untrusted(tmp_path / "d", max_bytes=bad)


def test_a_hole_stays_one(tmp_path):
    """A file of a gigabyte of nothing takes no gigabyte."""
    expected = made(tmp_path / "d")
    os.truncate(tmp_path / "d" / "data.mdb", 1 << 30)
    copy = foreign.copy_privately(str(tmp_path / "d"), None, 60)
    try:
        assert os.stat(os.path.join(copy.folder, "data.mdb")).st_blocks * 512 < 16 << 20
    finally:
        foreign.remove_copy(copy.folder, os.getpid())
    assert expected


def test_files_that_change_all_the_time_are_an_error(tmp_path, monkeypatch):
    """They are copied again a few times."""
    expected = made(tmp_path / "d")
    pump, changes = foreign._pump, []

    def changing(source, path, end):
        pump(source, path, end)
        if len(changes) < limit:
            changes.append(os.utime(source.path, ns=(1, len(changes))))

    monkeypatch.setattr(foreign, "_pump", changing)
    limit = 1
    with open_untrusted(tmp_path / "d") as d:
        assert dict(d) == expected
    limit = 100
    with pytest.raises(BusyError):
        open_untrusted(tmp_path / "d")


@pytest.mark.parametrize(
    "content", [b"", b"x" * 100, b"x" * 100_000, bytes(8192), bytes(100_000), b"SQLite format 3\0" * 1000]
)
def test_what_is_no_database_is_refused(tmp_path, content):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "data.mdb").write_bytes(content)
    with pytest.raises(NotAStoreError):
        open_untrusted(tmp_path / "d")


def test_databases_of_other_programs_and_versions_are_refused(tmp_path):
    for name, version in (("old", 0), ("new", 1)):
        with (
            lmdb.open(str(tmp_path / name), lib_version=version, map_size=1 << 20) as env,
            env.begin(write=True) as txn,
        ):
            txn.put(b"a", b"b")
        with pytest.raises(NotAStoreError):
            open_untrusted(tmp_path / name)
    made(tmp_path / "d")
    with lmdb.open(str(tmp_path / "d"), max_dbs=32, lib_version=0, map_size=1 << 26) as env:
        info = env.open_db(b"info")
        for key, text in ((b"key_size_limit", b"9" * 5000), (b"key_size_limit", b"0"), (b"format", b"2")):
            with env.begin(write=True) as txn:
                txn.put(key, text, db=info)
            with pytest.raises(NotAStoreError):
                open_untrusted(tmp_path / "d")


def test_a_row_that_is_damaged_refuses_the_whole(tmp_path):
    """A checksum that does not fit, or an entry that nothing leads to."""
    made(tmp_path / "d")
    raw = pack_record(1, b"\x30stray", b"", 1 << 20, 1.0, 1.0, b"v")
    with lmdb.open(str(tmp_path / "d"), max_dbs=32, lib_version=0, map_size=1 << 26) as env:
        e = env.open_db(b"e", integerkey=True)
        with env.begin(write=True) as txn:
            txn.put(seq_bytes(7), raw, db=e)
    with pytest.raises(CorruptStoreError, match="index"):
        open_untrusted(tmp_path / "d")


@pytest.mark.slow
def test_damaged_files_are_refused_or_read_and_this_process_lives(tmp_path):
    """Flips, cuts, garbage, zeros, exchanged pages: of what is opened all is as it was."""
    expected = build(str(tmp_path / "original"))
    data, base = (tmp_path / "original" / "data.mdb").read_bytes(), seed()
    (tmp_path / "d").mkdir()
    opened = 0
    for number in range(rounds(25)):
        (tmp_path / "d" / "data.mdb").write_bytes(mutant(data, number, base)[2])
        try:
            with open_untrusted(tmp_path / "d") as d:
                assert dict(d) == expected, f"mutant {number} of seed {base}"
                opened += 1
        except (CorruptStoreError, NotAStoreError, MismatchError):
            continue
    assert opened < rounds(25)


def test_recent_writes_that_are_damaged_are_refused(tmp_path):
    made(tmp_path / "d")
    left_behind(tmp_path / "d", lambda d: d.update({f"recent {n}": "r" * 50 for n in range(100)}))
    path = os.path.join(recent_folder(str(tmp_path / "d")), "data.mdb")
    with open(path, "rb") as file:
        data = file.read()
    sound = b"r" * 50
    for spoilt in (data.replace(sound, b"s" + sound[1:]), data[:12288], data.replace(b"recent 1", b"recent 2")):
        with open(path, "wb") as file:
            file.write(spoilt)
        with pytest.raises((CorruptStoreError, NotAStoreError)):
            open_untrusted(tmp_path / "d")


def test_trees_that_lead_in_circles_are_refused(tmp_path):
    """A branch that leads to itself, or again and again to the same page, keeps the child busy, not its parent."""
    made(tmp_path / "d", key_size_limit=60)
    path = tmp_path / "d" / "data.mdb"
    data = bytearray(path.read_bytes())
    for page in range(2, len(data) // 4096):
        flags, lower = struct.unpack_from("=HH", data, page * 4096 + 10)
        if flags == 1:  # all children are the page itself
            for at in struct.unpack_from(f"={(lower - 16) // 2}H", data, page * 4096 + 16):
                struct.pack_into("=HHH", data, page * 4096 + at, page & 0xFFFF, page >> 16, 0)
    path.write_bytes(data)
    with pytest.raises(CorruptStoreError):
        open_untrusted(tmp_path / "d", timeout=20)


# The child


@pytest.mark.parametrize(
    "code, words",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("while True: pass", "seconds|SIG"),
        ("x = [bytes(1 << 20) for _ in range(1 << 20)]", "MemoryError"),
        ("import sys; sys.exit(3)", "failed"),
        ("print('[' * 100000)", "failed"),
        ("print('[1]')", "failed"),
        ("print('{}')", "unknown"),
        ("print('x' * 100_000_000)", "failed"),
    ],
)
def test_a_child_that_does_not_end_well_is_damage(tmp_path, monkeypatch, code, words):
    made(tmp_path / "d")
    limits = (
        "import json, sys\nsys.path[:] = json.loads(sys.argv[1])\n"
        "from persistdict.stores.lmdb.proving import _limit_process\n_limit_process(1 << 20, 1)\n"
    )
    monkeypatch.setattr(proving, "_CHILD", limits + code)
    with pytest.raises((CorruptStoreError, MismatchError), match=words):
        open_untrusted(tmp_path / "d", timeout=5)


def test_the_child_finds_the_package_wherever_it_is_and_no_other(tmp_path, monkeypatch):
    """What lies in the folder that the user works in, or is named by the environment, is not imported."""
    expected = made(tmp_path / "d")
    for name in ("persistdict.py", "lmdb.py", "json.py", "sitecustomize.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(1)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "json.py"))
    with open_untrusted("d") as d:
        assert dict(d) == expected
    assert not (tmp_path / "ran").exists()


def test_the_limits_of_the_child_are_not_those_of_the_parent(tmp_path):
    before = [resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE)]
    made(tmp_path / "d")
    open_untrusted(tmp_path / "d").close()
    assert before == [
        resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE)
    ]


def test_many_threads_open_it_at_once(tmp_path):
    expected = made(tmp_path / "d")
    found = []

    def work():
        with open_untrusted(tmp_path / "d") as d:
            found.append(dict(d) == expected)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


def test_a_time_that_is_over_is_an_error(tmp_path, monkeypatch):
    made(tmp_path / "d")
    for bad in (0, -1, float("nan"), "1"):
        with pytest.raises((ValueError, TypeError)):
            open_untrusted(tmp_path / "d", timeout=bad)
    monkeypatch.setattr(foreign.time, "monotonic", iter(range(0, 10**9, 100)).__next__)
    with pytest.raises(OpenError, match="in time"):
        open_untrusted(tmp_path / "d", timeout=50)
