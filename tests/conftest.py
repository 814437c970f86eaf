"""The package runs under beartype here: a wrong type anywhere fails the test that caused it."""

import gc
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typechecking import check_types_of

check_types_of("persistdict")

import persistdict  # noqa: E402
from persistdict import PersistDict  # noqa: E402 - checked from here on
from persistdict.stores.lmdb.room import can_be_promised  # noqa: E402

HOME = str(Path(persistdict.__file__).parent)


def open_files() -> set[str]:
    """The files below the test folders that this process has open."""
    found: set[str] = set()
    for fd in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return {name for name in found if name.endswith((".mdb", "gate.lock", "flags.map", "latest.map"))}


def threads_of_ours() -> set[str]:
    """The threads of the package that run, those that `threading` knows by name and those that it does not."""
    known = {str(thread) for thread in threading.enumerate() if thread.name.startswith("persistdict")}
    return known | {where for frame in sys._current_frames().values() if (where := outermost(frame)).startswith(HOME)}


def outermost(frame: Any) -> str:
    """Where a thread has begun."""
    while frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}: {frame.f_code.co_name}"


def pytest_collection_finish():
    """Modules and tests stay to the end; so that not every collection after a test goes through all of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Fail a test that leaves a thread or an open database behind.

    Nobody waits for the thread of a handle that was collected, nor for that which closes its store: they have been
    told to end, and do so a moment later.
    """
    before = open_files()
    yield
    end = time.monotonic() + 10
    while left := threads_of_ours() | (open_files() - before):
        gc.collect()
        assert time.monotonic() < end, f"left behind: {left}"
        threading.Event().wait(0.01)


@pytest.fixture
def mapped(tmp_path):
    """Skip where recent writes do not go through a map: there nobody is taken for alone, and no write is told."""
    if not can_be_promised(str(tmp_path)):
        pytest.skip("on this file system recent writes do not go through a map")


@pytest.fixture(params=["lmdb", "lmdb commit sealed", "memory"])
def opened(request, tmp_path):
    """A function that opens handles on one dictionary, which must be whole at the end."""
    handles = []

    def open_one(**options):
        options = {"background_thread": "disabled", **options}
        if "commit" in request.param:
            options["durability"] = "commit"
        if "sealed" in request.param:
            options = {"compression": "zlib", "encryption_key": b"k" * 32, "caching": False, **options}
        path = f"memory://{tmp_path}" if request.param == "memory" else tmp_path / "d"
        handles.append(PersistDict(path, **options))
        return handles[-1]

    yield open_one
    for handle in handles:
        if not handle.closed:
            assert handle.verify().ok
        handle.close()
