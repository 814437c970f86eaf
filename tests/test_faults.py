"""Power cuts, full disks and failing calls. The programs are in tests/drivers; scripts/crash runs their long forms.

What is known to go wrong today is a test of its own, marked as expected to fail with the reason.
"""

import contextlib
import functools
import os
import shutil
import sys

import pytest
from drivers import full, iofaults, power, shim
from drivers.disks import on_disk
from drivers.running import outcome_of, rounds, run_driver

from persistdict import DiskFullError, PersistDict
from persistdict.stores.lmdb.recent import recent_folder

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts and preloading are Linux's")

DURABILITIES = ["commit", "interval"]
QUIET = {"background_thread": "disabled"}
FORKING = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@functools.cache
def why_no_durability(durability):
    """Why this version has no such durability, if it has not."""
    try:
        PersistDict("memory://", durability=durability, background_thread="disabled").close()
    except ValueError as error:
        return str(error)
    return ""


@functools.cache
def why_no_disk(folder, filesystem):
    return run_driver("disks", folder, filesystem, quiet=True)["reason"]


@pytest.fixture(scope="module")
def need(tmp_path_factory):
    """Skips a test that needs what is not there."""
    scratch = tmp_path_factory.mktemp("disks")

    def skip_without(durability, filesystem=None, compiler=False):
        reason = why_no_durability(durability)
        if not reason and filesystem:
            reason = why_no_disk(scratch / filesystem, filesystem)
        if not reason and compiler and not shim.compiler():
            reason = "there is no C compiler"
        if reason:
            pytest.skip(reason)

    return skip_without


# Power


@pytest.mark.parametrize(("filesystem", "durability"), [("ext4", "commit"), ("xfs", "commit"), ("ext4", "interval")])
def test_a_power_cut_loses_nothing_that_the_durability_promises(tmp_path, need, filesystem, durability):
    """Four writers; after each cut the store holds what they had at one moment, and that is not too old."""
    need(durability, filesystem)
    many = rounds(6 if (filesystem, durability) == ("ext4", "commit") else 3)
    counts = run_driver("power", tmp_path / "d", many, filesystem, durability)
    assert counts["cuts"] == many
    assert counts["acknowledged"] > 20 * many
    assert durability == "interval" or counts["acknowledged and lost"] == 0


@pytest.mark.parametrize(
    ("durability", "fault"), [(durability, fault) for durability in DURABILITIES for fault in power.FAULTS[durability]]
)
def test_the_power_driver_notices_a_planted_fault(tmp_path, need, durability, fault):
    """Syncs that do nothing, a write that is acknowledged early, damaged or lost, and files of the boot before."""
    need(durability, "ext4", compiler=fault == "nosync")
    counts = run_driver("power", tmp_path / "d", 20, "ext4", durability, fault, quiet=True)
    assert counts.get("noticed"), counts


# Full disks


@pytest.fixture(
    scope="module",
    params=[(name, durability) for durability in DURABILITIES for name in ("ext4", "xfs", "tmpfs")],
)
def filled(request, need, tmp_path_factory):
    """The counts of small disks that were filled twice, compared at every step."""
    filesystem, durability = request.param
    need(durability, filesystem)
    return run_driver("full", tmp_path_factory.mktemp("full") / "d", rounds(2), filesystem, durability)


def test_a_full_disk_refuses_writes_and_everything_acknowledged_stays(filled):
    """The driver compares; here only that it did, and that the same handle wrote again when there was room."""
    assert filled["compared"] == 6 * filled["rounds"]
    assert filled["set while filling: refused"] > 0
    assert filled["set after room was made: done"] == 2 * filled["rounds"]


def test_a_full_disk_is_always_told_by_the_same_error(filled):
    assert filled.get("refused with another error", 0) == 0
    assert not any(filled.get(f"made another: {name}") for name in ("OpenError", "StoreError"))


def test_no_process_is_killed_by_a_full_disk(filled):
    assert filled.get("killed by a signal", 0) == 0


def test_deletes_go_on_when_the_disk_is_full(filled):
    assert filled.get("deletes given up", 0) == 0
    assert filled.get("clear: done", 0) + filled.get("clear: refused", 0) == filled["rounds"]  # and nothing in between


def write_until_refused(d, size):
    """How many values of this size a dictionary takes, each in a write of its own."""
    written = 0
    with contextlib.suppress(DiskFullError):
        while True:
            d["written", written] = bytes(size)
            written += 1
    assert d["written", written - 1] == bytes(size) and ("written", written) not in d
    return written


@FORKING
@pytest.mark.parametrize("filesystem", ["ext4", "tmpfs"])
def test_small_writes_leave_the_room_on_a_full_disk_that_deletions_need(tmp_path, need, filesystem):
    """When nothing more is taken, some entries are deleted at once; and all of them, which lists all pages."""
    need("commit", filesystem)

    def work(disk):
        d = PersistDict(os.path.join(disk.place, "d"), durability="commit", **QUIET)
        d.update((number, bytes(1000)) for number in range(3000))
        disk.fill()
        written = write_until_refused(d, 300)
        d.delete_many(range(0, 3000, 300))
        left = len(d) - written
        d.clear()
        return written > 0, left, len(d)

    assert on_disk(tmp_path, filesystem, work) == [True, 2990, 0]


@FORKING
@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "tmpfs"])
@pytest.mark.parametrize("before", [0, 300])
def test_recent_writes_go_on_a_full_disk_to_pages_that_nobody_has_touched(tmp_path, need, filesystem, before):
    """Their file, new or grown, has all its blocks: who touches a page without one is killed (SIGBUS)."""
    need("interval", filesystem)

    def work(disk):
        d = PersistDict(os.path.join(disk.place, "d"), sync_interval=1e6, **QUIET)
        for number in range(before):
            d[number] = bytes(1000)
        d.flush()
        disk.fill()
        return write_until_refused(d, 1000)

    assert on_disk(tmp_path, filesystem, work) > before + 100


@FORKING
@pytest.mark.parametrize("filesystem", ["ext4", "tmpfs"])
def test_after_a_restart_on_a_nearly_full_disk_opening_is_refused_or_writes_have_room(tmp_path, need, filesystem):
    """The file of recent writes is then made anew: whole, or not at all."""
    need("interval", filesystem)
    with PersistDict(tmp_path / "original", **QUIET) as d:
        recent = os.path.basename(recent_folder(d._store.env.folder))

    def work(disk):
        folder = os.path.join(disk.place, "d")

        def open_and_write():
            assert write_until_refused(PersistDict(folder, sync_interval=1e6, **QUIET), 1000) > 100

        outcomes = []
        for room in range(0, 1 << 20, 64 << 10):
            shutil.copytree(tmp_path / "original", folder, ignore=shutil.ignore_patterns(recent))
            filler = disk.occupy("filler", disk.free() - room)
            outcomes.append(outcome_of(open_and_write, DiskFullError))
            os.unlink(filler)
            shutil.rmtree(folder)
        return outcomes

    assert set(on_disk(tmp_path, filesystem, work)) == {"DiskFullError", "done"}


@FORKING
def test_what_could_not_be_opened_is_opened_once_there_is_room_whoever_holds_the_error(tmp_path, need):
    """A program that tries again within `except`, or keeps the error, is not told that the store is open already."""
    need("interval", "tmpfs")

    def work(disk):
        folder = os.path.join(disk.place, "d")
        with PersistDict(folder, **QUIET) as d:
            d["k"] = "v"
            recent = recent_folder(d._store.env.folder)
        shutil.rmtree(recent)  # as after a restart of the machine
        filler = disk.occupy("filler", disk.free() - (64 << 10))
        try:
            PersistDict(folder, **QUIET)
        except DiskFullError as error:
            os.unlink(filler)
            with PersistDict(folder, **QUIET) as d:
                return d["k"], type(error).__name__

    assert on_disk(tmp_path, "tmpfs", work) == ["v", "DiskFullError"]


@pytest.mark.parametrize("fault", full.FAULTS)
def test_the_driver_of_full_disks_notices_a_planted_fault(tmp_path, need, fault):
    """An error of another kind, a write that is lost, a delete that is undone, a refused write that is half done."""
    need("commit", "tmpfs")
    counts = run_driver("full", tmp_path / "d", 2, "tmpfs", "commit", fault, quiet=True)
    assert counts.get("noticed"), counts


# Failing calls


@pytest.fixture(scope="module", params=DURABILITIES)
def failed(request, need, tmp_path_factory):
    """The counts of one in so many calls that were let fail in every way; PERSISTDICT_ROUNDS=15 takes each."""
    need(request.param, compiler=True)
    stride = max(1, round(15 / rounds(1)))
    return run_driver("iofaults", tmp_path_factory.mktemp("iofaults") / "d", stride, request.param)


def test_a_call_that_fails_raises_and_harms_nothing(failed):
    """Nothing acknowledged is lost, nothing undead, nothing swallowed, and the same handle works again afterwards."""
    assert failed["cases"] > 40
    assert all(failed[way] > 0 for way in iofaults.WAYS)
    assert failed["failures"] == []


@pytest.mark.parametrize("fault", iofaults.FAULTS)
def test_the_driver_of_failing_calls_notices_a_planted_fault(tmp_path, need, fault):
    """An error that is swallowed, a write that is lost, a handle that stays dead, and an error that is not ours."""
    need("commit", compiler=True)
    counts = run_driver("iofaults", tmp_path / "d", 61, "commit", fault, quiet=True)
    assert counts["failures"], counts
