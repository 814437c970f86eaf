"""The folder of a store: who may use it, whose files are refused, and that what is refused is not touched."""

import errno
import os
import pickle
import shutil
import stat
from pathlib import Path

import lmdb
import pytest

from persistdict import NotAStoreError, OpenError, PersistDict, PersistDictError, StoreGoneError, UnsafePathError
from persistdict.stores.lmdb import folder as folders
from persistdict.stores.lmdb.recent import recent_folder

FILES = ("data.mdb", "lock.mdb", "gate.lock", "flags.map")
RECENT = os.path.basename(recent_folder(""))
posix_only = pytest.mark.skipif(os.name != "posix", reason="modes, owners and links of POSIX")
root_only = pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root can give files away")


def opened(path, **options):
    return PersistDict(path, background_thread="disabled", **options)


def make(path):
    """A store with one entry, closed."""
    with opened(path) as d:
        d["k"] = 1
    return path


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


# Modes and owners


@posix_only
def test_the_folder_is_private_whatever_the_umask(tmp_path):
    """0700, and its files 0600; the folders above it are as the user's umask has them."""
    for umask in (0o000, 0o022, 0o077, 0o007):
        before = os.umask(umask)
        try:
            with opened(tmp_path / f"{umask:o}" / "d") as d:
                d["k"] = "x" * 100_000
                d["k"] = 1
        finally:
            os.umask(before)
        assert mode(tmp_path / f"{umask:o}") == 0o777 & ~umask
        assert mode(tmp_path / f"{umask:o}" / "d") == 0o700
        found = {path.name: mode(path) for path in (tmp_path / f"{umask:o}" / "d").iterdir()}
        assert found == dict.fromkeys(FILES, 0o600) | {RECENT: 0o700}
        recent = {mode(path) for path in (tmp_path / f"{umask:o}" / "d" / RECENT).iterdir()}
        assert recent == {0o600}


@posix_only
def test_a_folder_that_is_there_keeps_its_mode(tmp_path):
    for wanted in (0o700, 0o750, 0o755, 0o770, 0o500):
        folder = tmp_path / f"{wanted:o}"
        folder.mkdir()
        folder.chmod(wanted)
        if wanted == 0o500 and os.geteuid() != 0:
            continue
        make(folder)
        assert mode(folder) == wanted
        assert {mode(path) for path in folder.iterdir() if path.name != RECENT} == {0o600}


@posix_only
def test_a_folder_that_everybody_may_write_to_is_refused(tmp_path):
    """Sticky or not: anybody could put a link there. Nothing is made in it."""
    for wanted in (0o777, 0o1777, 0o702):
        folder = tmp_path / f"{wanted:o}"
        folder.mkdir()
        folder.chmod(wanted)
        with pytest.raises(UnsafePathError, match="writable by everybody"):
            opened(folder)
        assert list(folder.iterdir()) == []
        assert mode(folder) == wanted


@posix_only
@root_only
def test_the_folder_of_another_user_is_refused(tmp_path):
    """Also for root, who could be led to write where that user wants."""
    folder = make(tmp_path / "d")
    os.chown(folder, 12345, -1)
    with pytest.raises(UnsafePathError, match="belongs to the user 12345"):
        opened(folder)
    os.chown(folder, 0, -1)
    for name in FILES:
        os.chown(folder / name, 12345, -1)
        with pytest.raises(UnsafePathError, match="belongs to the user 12345") as error:
            opened(folder)
        assert error.value.filename == str(folder / name)
        assert isinstance(error.value, PermissionError)
        os.chown(folder / name, 0, -1)
    with opened(folder) as d:
        assert dict(d) == {"k": 1}


# Files that are not what they seem


@posix_only
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_a_link_is_refused_and_what_it_leads_to_is_not_touched(name, tmp_path):
    """Symbolic or hard, to a file or to nothing, in an old folder or a new one."""
    folder, target = make(tmp_path / "d"), tmp_path / "target"
    shutil.move(folder / name, target)
    content, before = target.read_bytes(), os.stat(target)
    (folder / name).symlink_to(target)
    with pytest.raises(UnsafePathError, match="link"):
        opened(folder)
    (folder / name).unlink()
    os.link(target, folder / name)
    with pytest.raises(UnsafePathError, match="several names"):
        opened(folder)
    (folder / name).unlink()
    assert target.read_bytes() == content
    assert (os.stat(target).st_mtime_ns, mode(target)) == (before.st_mtime_ns, stat.S_IMODE(before.st_mode))

    (tmp_path / "new").mkdir()
    for place in (folder, tmp_path / "new"):
        (place / name).symlink_to(tmp_path / "nowhere")
        with pytest.raises(UnsafePathError, match="link"):
            opened(place)
        assert not (tmp_path / "nowhere").exists()
    assert os.listdir(tmp_path / "new") == [name]


@posix_only
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_plain_file_is_refused(name, tmp_path):
    """A folder or a pipe, at which opening would wait for ever."""
    for make_other in (os.mkdir, os.mkfifo):
        folder = make(tmp_path / make_other.__name__)
        (folder / name).unlink()
        make_other(folder / name)
        with pytest.raises(UnsafePathError, match="no plain file"):
            opened(folder)


@posix_only
@pytest.mark.parametrize("name", ["gate.lock", "flags.map"])
def test_a_file_that_becomes_a_link_between_the_check_and_the_opening_is_refused(name, tmp_path, monkeypatch):
    """Whoever can write there may be quick; the file is opened in a way that follows no link."""
    folder = make(tmp_path / "d")
    (tmp_path / "target").write_text("untouched")
    for plant in (
        lambda: os.symlink(tmp_path / "target", folder / name),
        lambda: os.link(tmp_path / "target", folder / name),
    ):
        prepare = folders.prepare

        def prepare_then_plant(*args, prepare=prepare, plant=plant):
            found = prepare(*args)
            (folder / name).unlink(missing_ok=True)
            plant()
            return found

        with monkeypatch.context() as patched:
            patched.setattr(folders, "prepare", prepare_then_plant)
            with pytest.raises(UnsafePathError):
                opened(folder)
        (folder / name).unlink()
    assert (tmp_path / "target").read_text() == "untouched"
    with opened(folder) as d:
        assert dict(d) == {"k": 1}


# Data files that are no store


def test_a_data_file_that_is_too_short_is_refused_and_nothing_is_changed(tmp_path):
    """LMDB would take an empty one for a new database. A crash cannot leave one: a database appears whole."""
    for content in (b"", b"x", b"\x00" * 8191):
        folder = tmp_path / f"{len(content)}"
        folder.mkdir()
        (folder / "data.mdb").write_bytes(content)
        with pytest.raises(NotAStoreError, match="too short"):
            opened(folder)
        assert (folder / "data.mdb").read_bytes() == content
        assert os.listdir(folder) == ["data.mdb"]


def test_a_data_file_of_another_kind_is_refused_and_not_changed(tmp_path):
    for number, content in enumerate(
        [b"hello\n" * 5000, bytes(8192), bytes(range(256)) * 256, b"SQLite format 3\x00" * 1000]
    ):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / "data.mdb").write_bytes(content)
        with pytest.raises(NotAStoreError, match="not a database of this kind"):
            opened(folder)
        assert (folder / "data.mdb").read_bytes() == content


def foreign(path, write):
    """An LMDB database that somebody else made."""
    env = lmdb.open(str(path), max_dbs=20)
    with env.begin(write=True) as txn:
        write(env, txn)
    env.close()
    return (path / "data.mdb").read_bytes()


def refused(path, before):
    """What the opening of a foreign database raises; that nothing was changed in it."""
    with pytest.raises(NotAStoreError) as error:
        opened(path)
    assert (path / "data.mdb").read_bytes() == before
    return str(error.value)


def test_a_foreign_lmdb_database_is_refused_and_not_changed(tmp_path):
    """Whatever is in it: entries, databases of other names, or an entry that is called as ours are."""
    for number, write in enumerate(
        [
            lambda env, txn: txn.put(b"a", b"b"),
            lambda env, txn: txn.put(b"info", b"text"),
            lambda env, txn: env.open_db(b"other", txn=txn),
            lambda env, txn: [env.open_db(name, txn=txn) for name in (b"k", b"e", b"v")],
        ]
    ):
        assert "did not make" in refused(tmp_path / f"{number}", foreign(tmp_path / f"{number}", write))


def test_a_foreign_database_with_settings_of_its_own_is_refused_in_the_same_way(tmp_path):
    """Settings that are no text, no numbers, or without the databases; and nothing is said of a newer release."""

    def with_info(*entries):
        def write(env, txn):
            info = env.open_db(b"info", txn=txn)
            for name, text in entries:
                txn.put(name, text, db=info)

        return write

    def broken_base(env, txn):
        with_info((b"format", b"1"), (b"base", b"zz"))(env, txn)
        for name in "kev":
            env.open_db(name.encode(), txn=txn, integerkey=name != "k")
        for name in "xa":
            env.open_db(name.encode(), txn=txn, integerkey=True)

    cases = {
        "binary": with_info((b"\xff", b"\xff")),
        "other": with_info((b"version", b"7")),
        "alone": with_info((b"format", b"1")),
        "base": broken_base,
    }
    for name, write in cases.items():
        assert "newer" not in refused(tmp_path / name, foreign(tmp_path / name, write))


# How a database appears


def test_what_a_killed_creator_left_behind_is_removed_by_the_next(tmp_path):
    folder = tmp_path / "d"
    for name in (".persistdict-new-abc", ".persistdict-new-xyz"):
        (folder / name).mkdir(parents=True)
        (folder / name / "data.mdb").write_bytes(b"half")
        (folder / name / "lock.mdb").write_bytes(b"")
    (folder / "notes.txt").write_text("mine")
    make(folder)
    assert sorted(os.listdir(folder)) == sorted([*FILES, RECENT, "notes.txt"])


@posix_only
def test_a_file_or_a_link_with_the_name_of_a_leftover_is_no_obstacle(tmp_path):
    """And what a link leads to is not removed."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("untouched")
    for number, plant in enumerate(
        [lambda path: path.write_text("x"), lambda path: path.symlink_to(tmp_path / "elsewhere")]
    ):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        plant(folder / ".persistdict-new-abc")
        make(folder)
        with opened(folder) as d:
            assert dict(d) == {"k": 1}
    assert (tmp_path / "elsewhere" / "file").read_text() == "untouched"


def test_a_creator_that_fails_leaves_nothing_that_looks_like_a_database(tmp_path, monkeypatch):
    """The data file appears last, whole, by one rename."""

    def fail(*_):
        raise OSError(errno.EIO, "no rename today")

    with monkeypatch.context() as patched:
        patched.setattr(folders.os, "rename", fail)
        with pytest.raises(OSError, match="no rename today"):
            opened(tmp_path / "d")
    assert sorted(os.listdir(tmp_path / "d")) == ["flags.map", "gate.lock"]
    make(tmp_path / "d")
    assert sorted(os.listdir(tmp_path / "d")) == sorted([*FILES, RECENT])


# Spellings of a path


def test_all_spellings_of_a_path_are_one_store(tmp_path, monkeypatch):
    """Relative, with dots, a slash at the end, through links, as Path: one environment, and each sees the others."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "above").symlink_to(".")
    with opened(tmp_path / "real" / "d") as first:
        first["first"] = 1
        for number, path in enumerate(
            [
                str(tmp_path / "real" / "d"), tmp_path / "real" / "d", "real/d", "real/d/", "./real/../real//d",
                "link/d",
                tmp_path / "above" / "link" / "d", Path("link/d"), f"{tmp_path}/real/d/.",
            ]
        ):  # fmt: skip
            with opened(path) as second:
                assert second._store.env is first._store.env
                assert second["first"] == 1
                second[f"second {number}"] = number
                assert first[f"second {number}"] == number
        assert len(first) == 10


def test_a_folder_may_be_a_link_to_a_folder_that_is_not_there_yet(tmp_path):
    """A store is made where it leads; the link stays."""
    (tmp_path / "link").symlink_to(tmp_path / "real")
    make(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert mode(tmp_path / "real") == 0o700
    with opened(tmp_path / "real") as d:
        assert dict(d) == {"k": 1}


def test_a_relative_path_keeps_its_meaning_when_the_working_directory_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with opened("d") as d:
        d["k"] = 1
        stored = pickle.dumps(d)
        assert d.path == str(tmp_path / "d")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    with pickle.loads(stored) as d:
        assert dict(d) == {"k": 1}
    assert os.listdir(tmp_path / "other") == []


def test_a_tilde_is_a_name_like_any_other(tmp_path, monkeypatch):
    """Expanding it is the shell's business, or the caller's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    make("~")
    make("~/inner")
    assert (tmp_path / "~" / "inner" / "data.mdb").exists()
    assert not (tmp_path / "home").exists()


def test_any_name_that_the_system_allows_is_a_path(tmp_path):
    """Spaces, line ends, quotes, other letters, colons that are no scheme."""
    for name in (" ", "a\nb", "é😀", "'\"", "-rf", "C:", "a:b", "%s{}", "name.mdb", "x" * 200):
        with opened(tmp_path / name) as d:
            d["k"] = name
        with opened(os.path.join(str(tmp_path), name)) as d:
            assert d["k"] == name
            assert d.name == name


@posix_only
def test_a_name_that_is_not_utf_8_works_or_is_refused_as_a_path(tmp_path):
    """Not with an error of decoding, after the folder was made."""
    path = os.path.join(str(tmp_path), os.fsdecode(b"\xff"))
    try:
        make(path)
    except PersistDictError:
        assert os.listdir(tmp_path) == []
    else:
        with opened(path) as d:
            assert dict(d) == {"k": 1}


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "d", tmp_path / "file" / "d" / "e"):
        with pytest.raises(OpenError) as error:
            opened(path)
        assert error.value.errno == errno.ENOTDIR
        assert isinstance(error.value, OSError)
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / ("x" * 300)):
        with pytest.raises(OpenError):
            opened(path)
    for path in ("", "a\x00b"):
        with pytest.raises(ValueError, match=r"folder|null"):
            opened(path)


def test_a_folder_that_was_removed_and_made_anew_is_another_store(tmp_path):
    """A handle on what was removed reads on in it, says so when it is closed, and neither disturbs the other."""
    with pytest.raises(StoreGoneError, match="deleted or replaced"), opened(tmp_path / "d") as old:
        old["k"] = "old"
        shutil.rmtree(tmp_path / "d")
        with opened(tmp_path / "d") as new:
            assert new._store.env is not old._store.env
            assert dict(new) == {}
            new["k"] = "new"
            assert old["k"] == "old"
            old["k"] = "older"
            assert new["k"] == "new"
    with opened(tmp_path / "d") as d:
        assert dict(d) == {"k": "new"}


def test_a_store_that_was_moved_is_the_same_store(tmp_path):
    make(tmp_path / "d")
    with opened(tmp_path / "d") as d:
        os.rename(tmp_path / "d", tmp_path / "moved")
        with opened(tmp_path / "moved") as moved:
            assert moved._store.env is d._store.env
            moved["m"] = 2
        assert dict(d) == {"k": 1, "m": 2}


def test_a_copy_of_a_store_is_another_store(tmp_path):
    """Copied while nobody writes, it has all the entries, and goes its own way."""
    make(tmp_path / "d")
    shutil.copytree(tmp_path / "d", tmp_path / "copy")
    with opened(tmp_path / "d") as d, opened(tmp_path / "copy") as copy:
        assert copy._store.env is not d._store.env
        assert dict(copy) == {"k": 1}
        copy["k"] = 2
        assert d["k"] == 1


def test_a_refused_opening_leaves_the_store_usable(tmp_path):
    """Nothing stays open or locked: the next opening works at once."""
    make(tmp_path / "d")
    for wrong in ({"key_size_limit": 5}, {"codec": "json"}, {"codec": "raw"}):
        for _ in range(3):
            with pytest.raises(ValueError, match="with it, not with"):
                opened(tmp_path / "d", **wrong)
    with opened(tmp_path / "d") as d:
        assert dict(d) == {"k": 1}
        with pytest.raises(ValueError, match="with it, not with"):
            opened(tmp_path / "d", codec="json")
        assert dict(d) == {"k": 1}


@posix_only
def test_removing_a_folder_follows_no_link(tmp_path):
    """What links in it lead to stays; and a link in its own place is refused."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").touch()
    (tmp_path / "ours" / "inner").mkdir(parents=True)
    (tmp_path / "ours" / "inner" / "file").touch()
    (tmp_path / "ours" / "folder").symlink_to(tmp_path / "theirs")
    (tmp_path / "ours" / "file").symlink_to(tmp_path / "theirs" / "file")
    folders.remove_folder(str(tmp_path / "ours"))
    (tmp_path / "ours").symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError):
        folders.remove_folder(str(tmp_path / "ours"))
    (tmp_path / "ours").unlink()
    folders.remove_folder(str(tmp_path / "ours"))
    assert os.listdir(tmp_path / "theirs") == ["file"]
