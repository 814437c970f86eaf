"""Damaged files: refused before they are mapped, read around, checked in a child, salvaged; and no signal, ever."""

import bisect
import os
import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import lmdb
import pytest
from drivers.damage import build, extents, mutant
from drivers.running import rounds, run_driver

from persistdict import (
    CorruptEntryError,
    CorruptStoreError,
    DamagedEntryWarning,
    NotAStoreError,
    OpenError,
    PersistDict,
    PersistDictError,
    salvage,
)
from persistdict.keys import KeyCodec
from persistdict.stores.lmdb import survey
from persistdict.stores.lmdb.guard import Guard
from persistdict.stores.lmdb.offline import check_pages
from persistdict.stores.lmdb.pages import BRANCH, LEAF, META_SIZE, PageFile, loose_metas, nodes_of, offsets_of
from persistdict.stores.lmdb.recent import recent_folder
from persistdict.stores.lmdb.repair import repair
from persistdict.stores.lmdb.trees import check_file, leaves, named_trees
from persistdict.stores.lmdb.trees import leaf_numbers as trees_leaf_numbers
from persistdict.stores.lmdb.verify import verify

PAGE = 4096
MINUTES = 60


def opened(path, **options):
    return PersistDict(path, background_thread="disabled", caching=False, **options)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A store with entries of all sorts: its folder, and what is in it."""
    path = tmp_path_factory.mktemp("original")
    path.chmod(0o700)
    return path, build(str(path))


@pytest.fixture
def folder(original, tmp_path):
    """A copy of it, and what is in it."""
    path = tmp_path / "d"
    path.mkdir(mode=0o700)
    shutil.copyfile(original[0] / "data.mdb", path / "data.mdb")
    return path, original[1]


def page_file(path):
    file = PageFile(str(path / "data.mdb"))
    meta = max(loose_metas(file), key=lambda meta: meta.transaction)
    return file, meta, named_trees(file, meta)


def leaf_numbers(path, name):
    file, _, trees = page_file(path)
    return [number for number, _ in leaves(file, trees[name])]


def overwrite(path, at, data):
    with open(path / "data.mdb", "r+b") as file:
        file.seek(at)
        file.write(data)


def passing_over(work):
    """What `work` returns; DamagedEntryWarning is expected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedEntryWarning)
        return work()


# Before LMDB maps a file


def test_a_file_that_is_cut_short_is_refused_wherever_it_is_cut(folder):
    """LMDB would open it, and the first read behind the end would be a SIGBUS."""
    path, _ = folder
    size = (page_file(path)[1].last + 1) * PAGE  # behind which there may be room that is not used yet
    for at in (size - 1, size - PAGE, size // 2, 3 * PAGE + 17, 2 * PAGE):
        os.truncate(path / "data.mdb", at)
        before = (path / "data.mdb").read_bytes()
        with pytest.raises(CorruptStoreError, match=r"salvage") as error:
            opened(path)
        assert isinstance(error.value, OSError)
        assert error.value.filename == str(path / "data.mdb")
        assert (path / "data.mdb").read_bytes() == before
        assert sorted(os.listdir(path)) == ["data.mdb", "flags.map", "gate.lock"]


def test_a_known_store_that_is_empty_does_not_start_anew(folder):
    path, _ = folder
    opened(path, key_size_limit=60).close()
    os.truncate(path / "data.mdb", 0)
    with pytest.raises(NotAStoreError, match="too short"):
        opened(path, key_size_limit=60)


def test_damaged_header_pages_are_refused(folder):
    """One of the two, either; that they contradict each other; a root that is none."""
    path, _ = folder
    whole = (path / "data.mdb").read_bytes()
    _, meta, trees = page_file(path)
    new, old = meta.slot * PAGE, (1 - meta.slot) * PAGE
    transaction = 16 + 24 + 96 + 8
    for at, data in [
        (new, bytes(PAGE)),
        (old, bytes(PAGE)),
        (new + 16, b"xxxx"),
        (new + 20, b"\x03\x00\x00\x00"),
        (old + 40, b"\x00\x20\x00\x00"),
        (old + transaction, (meta.transaction + 6).to_bytes(8, "little")),
        (new + transaction, (meta.transaction + 2).to_bytes(8, "little")),
        (new + transaction - 8, (2).to_bytes(8, "little")),
        (new + 16 + 24 + 48 + 40, b"\x01"),
        (trees[b"e"].root * PAGE, bytes(PAGE)),
        (trees[b"k"].root * PAGE, b"\x01"),
        (meta.main.root * PAGE + 10, b"\x10"),
    ]:
        overwrite(path, at, data)
        with pytest.raises(CorruptStoreError):
            check_file(str(path / "data.mdb"))
        with pytest.raises(CorruptStoreError):
            opened(path)
        (path / "data.mdb").write_bytes(whole)
    check_file(str(path / "data.mdb"))


@pytest.mark.parametrize("bit", [30, 40, 62])
def test_a_damaged_number_of_pages_is_refused_and_takes_no_memory(bit, folder, tmp_path):
    """The last page cannot lie behind the end of the map; LMDB would make the file that large."""
    path, content = folder
    file = path / "data.mdb"
    raw = bytearray(file.read_bytes())
    for slot in (0, 1):
        at = slot * PAGE + META_SIZE - 16
        raw[at : at + 8] = (int.from_bytes(raw[at : at + 8], "little") | 1 << bit).to_bytes(8, "little")
    file.write_bytes(raw)
    with pytest.raises(CorruptStoreError, match="more pages than its map can hold"):
        opened(path)
    assert file.stat().st_size == len(raw)
    salvage(path, tmp_path / "saved")
    with opened(tmp_path / "saved", key_size_limit=60) as d:
        assert dict(d) == content


def test_a_database_of_another_engine_or_page_size_is_told_from_a_damaged_one(tmp_path):
    env = lmdb.open(str(tmp_path / "new"), lib_version=1)
    with env.begin(write=True) as txn:
        txn.put(b"a", b"b")
    env.close()
    with pytest.raises(NotAStoreError, match="not a database of this kind"):
        opened(tmp_path / "new")
    for content in (bytes(PAGE * 4), b"\xff" * PAGE * 4, random.Random(1).randbytes(PAGE * 4)):
        (tmp_path / "other").mkdir(exist_ok=True, mode=0o700)
        (tmp_path / "other" / "data.mdb").write_bytes(content)
        with pytest.raises(NotAStoreError, match="not a database of this kind"):
            opened(tmp_path / "other")


def test_a_store_that_is_being_written_is_never_refused(tmp_path):
    """The headers are read while another process commits as fast as it can, and the file grows."""
    path = tmp_path / "d"
    opened(path).close()
    code = (
        "import sys; from persistdict import PersistDict\nd = PersistDict(sys.argv[1], background_thread='disabled')\n"
        "for n in range(100_000): d[n % 500] = 'x' * (n % 7000)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
    try:
        for _ in range(rounds(3000)):
            check_file(str(path / "data.mdb"))
        for _ in range(rounds(30)):
            opened(path).close()
    finally:
        writer.kill()
        writer.wait()


# Recent writes


@pytest.fixture
def undrained(tmp_path):
    """A store whose process died: its folder, and the file of its recent writes."""
    path = tmp_path / "d"
    with opened(path) as d:
        d.update({n: f"value {n}" for n in range(600)})
    code = (
        "import os, sys; from persistdict import PersistDict\n"
        "d = PersistDict(sys.argv[1], background_thread='disabled')\n"
        "for n in range(300): d[n] = f'newer {n}'\n"
        "d['recent'] = 'r' * 10000; del d[599]; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    return path, Path(recent_folder(str(path)), "data.mdb")


def newest(n):
    return f"{'newer' if n < 300 else 'value'} {n}"


@pytest.mark.parametrize(
    "harm", ["empty", "cut", "foreign", "page", "meta", "row missing", "another key", "branch", "base"]
)
def test_damaged_recent_writes_are_refused_and_stay_where_they_are(harm, undrained, tmp_path):
    """They override the data: without one of them an older value would be taken for the newest. They are salvaged."""
    path, recent = undrained
    raw = recent.read_bytes()
    file = PageFile(str(recent))
    meta = max(loose_metas(file), key=lambda meta: meta.transaction)
    leaf = [number for number, _ in leaves(file, meta.main)][1]
    lower = leaf * PAGE + 12
    spoiled = bytearray(raw)
    if harm == "empty":
        spoiled = bytearray()
    elif harm == "cut":
        del spoiled[PAGE * 5 :]
    elif harm == "foreign":
        spoiled = bytearray(random.Random(1).randbytes(len(raw)))
    elif harm == "page":
        spoiled[leaf * PAGE : (leaf + 1) * PAGE] = bytes(PAGE)
    elif harm == "meta":
        spoiled[meta.slot * PAGE : (meta.slot + 1) * PAGE] = bytes(PAGE)
    elif harm == "row missing":
        spoiled[lower : lower + 2] = (int.from_bytes(raw[lower : lower + 2], "little") - 2).to_bytes(2, "little")
    elif harm == "branch":
        branch = raw[meta.main.root * PAGE : (meta.main.root + 1) * PAGE]
        at = offsets_of(branch, meta.main.root, BRANCH)[2] + 8
        spoiled[meta.main.root * PAGE + at + 1] ^= 0x01
    elif harm == "another key":
        page = raw[leaf * PAGE : (leaf + 1) * PAGE]
        at = offsets_of(page, leaf, LEAF)[3] + 8
        spoiled[leaf * PAGE + at + int.from_bytes(page[at - 2 : at], "little") - 1] ^= 0x80
    else:
        spoiled[raw.index(b"\x00base") + 8] ^= 1
    recent.write_bytes(spoiled)
    before = (path / "data.mdb").read_bytes()
    for _ in range(2):
        with pytest.raises(CorruptStoreError, match=r"recent writes .*salvage") as error:
            opened(path)
        assert recent.read_bytes() == spoiled
        assert (path / "data.mdb").read_bytes() == before
    assert error.value.filename == str(recent.parent)
    report = salvage(path, tmp_path / "new")
    with opened(tmp_path / "new") as d:
        back = sum(d.get(n) == newest(n) for n in range(599))
        assert verify(d._store).ok
    assert back >= 290 if harm in ("empty", "cut", "foreign") else back >= 540
    assert report.foreign == 0
    shutil.move(recent.parent, tmp_path / "aside")  # as the error says
    with opened(path) as d:
        assert d[0] == "value 0"
        d[0] = "goes on"


def test_recent_writes_are_salvaged_on_top_of_the_data(undrained, tmp_path):
    """Also from a copy of the folder, if that is asked for: there the files are others."""
    path, _ = undrained
    report = salvage(path, tmp_path / "new")
    assert (report.recent, report.foreign, report.damaged) == (302, 0, 0)
    shutil.copytree(path, tmp_path / "copy")
    assert salvage(tmp_path / "copy", tmp_path / "without").foreign == 302
    assert salvage(tmp_path / "copy", tmp_path / "with", deep=True).recent == 302
    for name in ("new", "with"):
        with opened(tmp_path / name) as d:
            assert dict(d) == {**{n: newest(n) for n in range(599)}, "recent": "r" * 10_000}
            assert list(d)[:599] == list(range(599))
            assert verify(d._store).ok
            newest_version = max(d.entry(key).version for key in d)
            d["after"] = 1
            assert d.entry("after").version > newest_version
    with opened(path) as d:
        assert d["recent"] == "r" * 10_000


# Reading around damaged pages


@pytest.mark.parametrize("met", ["when it is opened", "later"])
@pytest.mark.parametrize("content", [bytes(PAGE), b"\x00" * 10 + b"\x01" + b"\xff" * (PAGE - 11)], ids=["0", "other"])
@pytest.mark.parametrize("name", ["e", "k"])
def test_an_iteration_passes_over_a_damaged_page_in_either_direction(name, content, met, tmp_path, monkeypatch):
    """LMDB itself ends the process there. What is on other pages is all read, once."""
    if met == "later":
        monkeypatch.setattr(survey, "SURVEY", 0)
    path, expected = tmp_path / "d", {f"key {n}": "v" * 60 for n in range(700)}
    with opened(path, key_size_limit=60) as d:
        d.update(expected)
    numbers = leaf_numbers(path, name.encode())
    assert len(numbers) > 4
    for which in ([0], [3, 4], [len(numbers) - 1], range(len(numbers) - 1)):
        whole = (path / "data.mdb").read_bytes()
        for number in which:
            overwrite(path, numbers[number] * PAGE, content)
        with opened(path, key_size_limit=60) as d:
            readable = {}
            for key, value in expected.items():
                try:
                    assert d[key] == value
                    readable[d._keys.encode(key)[0]] = value
                except (CorruptStoreError, CorruptEntryError):
                    pass
            for reverse in (False, True):
                for by_key in (name == "k",):
                    with pytest.warns(DamagedEntryWarning):
                        found = [record.kb for record in d._store.scan(reverse=reverse, by_key=by_key)]
                    assert sorted(found) == sorted(readable)
            report = verify(d._store)
            assert "page" in {fault.kind for fault in report.faults}
            passing_over(lambda d=d: len(d))
            with pytest.raises(CorruptStoreError, match="nothing is written"):
                d["new"] = 1
            mended = repair(d._store)
            assert mended.repaired == mended.quarantined == 0
            assert not mended.ok
        (path / "data.mdb").write_bytes(whole)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("by_key", [False, True])
def test_an_iteration_that_meets_a_damaged_page_goes_on_without_lmdb(by_key, reverse, tmp_path, monkeypatch):
    """The first batches come from LMDB; the rest is read another way, and no entry comes twice."""
    monkeypatch.setattr(survey, "SURVEY", 0)
    path, expected = tmp_path / "d", {f"key {n:05}": "v" * 60 for n in range(5000)}
    with opened(path) as d:
        d.update(expected)
    numbers = leaf_numbers(path, b"k" if by_key else b"e")
    overwrite(path, numbers[len(numbers) // 2] * PAGE, bytes(PAGE))
    with opened(path) as d:
        assert d._store.damage == ""
        found = [item.kb for item in passing_over(lambda: list(d._store.scan(reverse=reverse, by_key=by_key)))]
        assert d._store.damage != ""
        assert len(found) == len(set(found))
        assert len(expected) - 400 < len(found) < len(expected)
        assert found == sorted(found, reverse=reverse)
        with pytest.raises(CorruptStoreError, match="nothing is written"):
            d["new"] = 1


def test_deadlines_on_damaged_pages_stop_neither_len_nor_expiry(tmp_path):
    now = [1e9]
    with opened(tmp_path / "d", clock=lambda: now[0]) as d:
        for n in range(2000):
            d._store.clock = lambda n=n: 1e9 + n / 1e6
            if n == 0:
                d.set_many({("same", i): i for i in range(1500)}, ttl=5)
        d._store.clock = lambda: now[0]
        for n in range(40):
            now[0] += 0.001
            d.set_many({(n, i): i for i in range(20)}, ttl=5)
        d["stays"] = 1
    numbers = leaf_numbers(tmp_path / "d", b"x")
    assert len(numbers) > 1
    overwrite(tmp_path / "d", numbers[0] * PAGE, bytes(PAGE))
    now[0] += 100
    with opened(tmp_path / "d", clock=lambda: now[0]) as d:
        assert d["stays"] == 1
        assert passing_over(lambda: len(d)) > 0
        with pytest.raises(CorruptStoreError):
            d.expire()
        assert verify(d._store).faults


def test_labels_on_damaged_pages_stop_neither_reading_nor_listing(tmp_path):
    """What is listed then is of whole pages; and what has no label is read as ever."""
    with opened(tmp_path / "d") as d:
        for n in range(400):
            d.set_many({(n, i): i for i in range(3)}, tag=f"tag {n:03} {'x' * 40}")
        d.set_many({("one", i): i for i in range(2500)}, tag="one")
        d["plain"] = 1
        tags = d.tags()
    numbers = leaf_numbers(tmp_path / "d", b"t")
    assert len(numbers) > 4
    overwrite(tmp_path / "d", numbers[-3] * PAGE, bytes(PAGE))
    with opened(tmp_path / "d") as d:
        assert d["plain"] == 1
        found = passing_over(d.tags)
        assert set(found) < set(tags)
        assert len(found) > 250
        assert d._store.damage
        assert passing_over(lambda: list(d.tagged("one"))) == [("one", i) for i in range(2500)]
        assert passing_over(lambda: list(d.tagged(tags[-1]))) == [(399, i) for i in range(3)]
        with pytest.raises(CorruptStoreError):
            d.evict(tag="one")
        assert "page" in {fault.kind for fault in passing_over(lambda: verify(d._store)).faults}
    salvage(tmp_path / "d", tmp_path / "new")
    with opened(tmp_path / "new") as d:
        assert d.tags() == tags
        assert verify(d._store).ok
        assert d.evict(tag="one") == 2500


def test_looking_ahead_reads_little(tmp_path, monkeypatch):
    """Some pages per batch, and none of a store of one page."""
    with opened(tmp_path / "d") as d:
        d.update((n, "x") for n in range(20))
        asked = []
        monkeypatch.setattr(Guard, "clear", lambda *args, **options: asked.append(args) or True)
        assert len(list(d.items())) == 20
        assert asked == []
        monkeypatch.undo()
        d.update((n, "x" * 100) for n in range(10_000))
        read = []
        page = PageFile.page
        monkeypatch.setattr(PageFile, "page", lambda self, number: (read.append(number), page(self, number))[1])
        assert sum(1 for _ in d._store.scan()) == 10_000
        pages = len(leaf_numbers(tmp_path / "d", b"e"))
        assert len(read) < 2 * pages + 200


def test_the_leaves_of_a_tree_are_told_in_order_from_any_key_in_both_directions(tmp_path):
    with opened(tmp_path / "d") as d:
        d.update((n, "x" * 100) for n in range(10_000))
        keys = [key for key, _ in d._store.begin_data().cursor(d._store.k)]
    file, _, trees = page_file(tmp_path / "d")
    tree = trees[b"k"]
    assert tree.depth > 1
    numbers = [number for number, _ in trees_leaf_numbers(file, tree)]
    first = [nodes_of(file.page(number), number)[0].key for number in numbers]
    assert first == sorted(first)
    assert [number for number, _ in trees_leaf_numbers(file, tree, reverse=True)] == numbers[::-1]
    for key in keys[::97]:
        at = bisect.bisect_right(first, key) - 1
        assert [number for number, _ in trees_leaf_numbers(file, tree, key)] == numbers[at:]
        assert [number for number, _ in trees_leaf_numbers(file, tree, key, True)] == numbers[at::-1]


# The check of all pages


def test_the_check_of_all_pages_finds_nothing_in_a_sound_store_and_much_in_a_damaged_one(folder):
    path, _ = folder
    assert check_pages(str(path)) == []
    with opened(path, key_size_limit=60) as d:
        d["new"] = 1
        assert check_pages(str(path)) == []
        d["newer"] = 2  # and nothing is locked any more
    overwrite(path, leaf_numbers(path, b"e")[2] * PAGE, bytes(PAGE))
    faults = check_pages(str(path))
    assert faults
    assert {fault.kind for fault in faults} >= {"page"}
    os.truncate(path / "data.mdb", 100)
    assert [fault.kind for fault in check_pages(str(path))] == ["page"]
    (path / "data.mdb").write_bytes(b"x" * 100_000)
    assert "cannot be verified" in check_pages(str(path))[0].sentence


def test_pages_that_lmdb_leaves_unused_are_no_damage(tmp_path):
    """The verifier calls a file corrupt in which a transaction put a large value and then a smaller one."""
    env = lmdb.open(str(tmp_path), lib_version=0)
    with env.begin(write=True) as txn:
        txn.put(b"k", b"x" * 20_000)
        txn.put(b"k", b"x" * 100)
    env.close()
    assert {fault.kind for fault in check_pages(str(tmp_path))} == {"leak"}


def test_a_check_that_dies_or_does_not_end_is_a_fault(folder, monkeypatch):
    from persistdict.stores.lmdb import offline

    path, _ = folder
    for code, told in [
        ("import os; os.abort()", "SIGABRT"),
        ("import os; os.kill(os.getpid(), 7)", "SIGBUS"),
        ("import sys; sys.exit('oh')", "oh"),
        ("import time; time.sleep(60)", "did not end"),
    ]:
        monkeypatch.setattr(offline, "_CHILD", code)
        (fault,) = check_pages(str(path), timeout=1 if "sleep" in code else None)
        assert told in fault.sentence


# Salvage


def test_a_sound_store_is_salvaged_exactly(folder, tmp_path):
    """Values, order, times, ends, versions and settings; the old one is not touched."""
    path, expected = folder
    before = (path / "data.mdb").read_bytes()
    told = []
    report = salvage(path, tmp_path / "new", progress=lambda done, total: told.append((done, total)))
    assert (report.written, report.reached) == (len(expected), len(expected))
    assert (report.stranded, report.unsure, report.damaged, report.duplicates, report.pages) == (0, 0, 0, 0, 0)
    assert report.settings
    assert (path / "data.mdb").read_bytes() == before
    assert os.listdir(path) == ["data.mdb"]
    assert all(0 <= done <= total for done, total in told)
    with opened(tmp_path / "new", key_size_limit=60) as new, opened(path, key_size_limit=60) as old:
        assert list(new.items()) == list(old.items()) == list(expected.items())
        assert [new.entry(key) for key in expected] == [old.entry(key) for key in expected]
        assert verify(new._store).ok
        assert check_pages(str(tmp_path / "new")) == []
        newest = max(new.entry(key).version for key in expected)
        new["new"] = 1
        assert new.entry("new").version > newest
        assert list(new)[-1] == "new"
    with pytest.raises(OpenError, match="new folder"):
        salvage(path, tmp_path / "new")
    with pytest.raises(OpenError, match="new folder"):
        salvage(path, path)
    with pytest.raises(OpenError, match="cannot read"):
        salvage(tmp_path / "nothing", tmp_path / "newer")


def test_deleted_entries_come_back_only_if_asked_for(tmp_path):
    path = tmp_path / "d"
    with opened(path) as d:
        d.update({n: f"value {n}" for n in range(300)})
        d.flush()
        d.update({n: f"newer {n}" for n in range(100)})
        d.flush()
        d.delete_many(range(200, 300))
    assert salvage(path, tmp_path / "plain").remnants > 0
    with opened(tmp_path / "plain") as d:
        assert len(d) == 200
        assert d[5] == "newer 5"
    report = salvage(path, tmp_path / "deep", deep=True)
    with opened(tmp_path / "deep") as d:
        assert len(d) == report.written == 200 + report.remnants
        assert [d[n] for n in range(200)] == [f"{'newer' if n < 100 else 'value'} {n}" for n in range(200)]
        assert all(d[n] == f"value {n}" for n in d if n >= 200)


@pytest.mark.parametrize("what", ["main", "free", "e", "k", "v", "p", "t", "info", "meta", "both metas"])
def test_what_the_lost_root_of_a_tree_led_to_is_salvaged(what, folder, tmp_path):
    path, expected = folder
    _, meta, trees = page_file(path)
    roots = {"main": [meta.main.root], "free": [meta.free.root], "meta": [meta.slot], "both metas": [0, 1]}
    for number in roots.get(what) or [trees[what.encode()].root]:
        overwrite(path, number * PAGE, bytes(PAGE))
    report = salvage(path, tmp_path / "new", deep=what == "both metas")
    with opened(tmp_path / "new", key_size_limit=report.key_size_limit) as d:
        found = dict(d)
        assert verify(d._store).ok
    back = sum(found.get(key) == value for key, value in expected.items())
    assert back >= 0.99 * len(expected)
    if what not in ("meta", "both metas"):
        assert back == len(expected)
        assert found.keys() == expected.keys()


def test_salvage_holds_nothing_of_what_it_found_in_memory(folder, tmp_path, monkeypatch):
    """It writes as it goes."""
    from persistdict.stores.lmdb import salvage as module

    monkeypatch.setattr(module, "AT_ONCE", 10)
    sizes = []
    write = module._Target._write
    monkeypatch.setattr(module._Target, "_write", lambda self, batch: (sizes.append(len(batch)), write(self, batch))[1])
    path, expected = folder
    assert salvage(path, tmp_path / "new").written == len(expected)
    assert max(sizes) == 10


# Mutants


def test_the_places_of_records_are_where_the_driver_thinks(original):
    """Otherwise its counts would mean nothing."""
    path, expected = original
    keys = {KeyCodec().encode(key)[0]: key for key in expected}
    found = extents(str(path / "data.mdb"), keys)
    assert {key for *_, key in found} == set(expected)
    data = (path / "data.mdb").read_bytes()
    for first, end, key in found:
        if isinstance(key, str) and end - first < 40_000:
            assert key.encode() in data[first:end]
    kinds = [mutant(data, number, 1)[0] for number in range(300)]
    assert set(kinds) == {"flip", "cut", "zeros", "garbage", "exchange", "smear"}
    file = PageFile(str(path / "data.mdb"))
    assert offsets_of(file.page(leaf_numbers(path, b"e")[0]), leaf_numbers(path, b"e")[0], LEAF)


def test_damaged_files_end_no_process_and_never_lie(tmp_path):
    """Opened, read in every way, verified, closed; PERSISTDICT_ROUNDS=250 for 100,000 of them."""
    counts = run_driver("damage", tmp_path, rounds(400), "read", timeout=MINUTES * 60)
    assert counts["mutants"] == rounds(400)
    assert counts["in records"] > rounds(400) / 8
    assert counts["failures"] == []


def test_writing_to_damaged_files_ends_no_process(tmp_path):
    counts = run_driver("damage", tmp_path, rounds(200), "write", timeout=MINUTES * 60)
    assert counts["failures"] == []


def test_damaged_recent_writes_end_no_process_and_never_lie(tmp_path):
    """Refused, or read: each key has its newest value or raises, also after a drain; nothing older is ever read."""
    counts = run_driver("damage", tmp_path, rounds(200), "recent", timeout=MINUTES * 60)
    assert counts["mutants"] == rounds(200)
    assert counts["failures"] == []


def test_nearly_all_that_is_intact_is_salvaged(tmp_path):
    counts = run_driver("damage", tmp_path, rounds(200), "salvage", timeout=MINUTES * 60)
    for kind in ("flip", "smear", "zeros", "garbage", "exchange", "cut"):
        assert counts[f"{kind}: back"] >= 0.99 * counts[f"{kind}: intact"]
        assert counts[f"{kind}: faults"] == 0
        if kind != "cut":
            assert counts[f"{kind}: undead"] == counts[f"{kind}: old versions"] == 0


def test_no_error_shows_a_key_or_a_value(tmp_path):
    with opened(tmp_path / "d") as d:
        d.update({f"SECRET {n}": f"SECRET {n}" * 20 for n in range(300)})
    numbers = leaf_numbers(tmp_path / "d", b"e")
    overwrite(tmp_path / "d", numbers[1] * PAGE, bytes(PAGE))
    told = []
    with opened(tmp_path / "d") as d, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(300):
            try:
                d[f"SECRET {n}"]
            except PersistDictError as error:
                told.append(str(error))
        list(d.items())
        told += [str(warning.message) for warning in caught]
        told.append(repr(verify(d._store)))
    told += [repr(check_pages(str(tmp_path / "d"))), repr(salvage(tmp_path / "d", tmp_path / "new"))]
    assert len(told) > 10
    assert "SECRET" not in "".join(told)
