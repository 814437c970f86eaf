"""The checksum is the same whoever computes it."""

import subprocess
import sys
import zlib

import pytest

from persistdict import checksum

isal_zlib = pytest.importorskip("isal.isal_zlib")


def run(code):
    """What a new process prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_it_is_that_of_zlib_for_every_length_and_start_and_for_parts_of_buffers():
    data = bytes(range(256)) * 600
    for size in (*range(300), 4095, 4096, 4097, 65_535, 65_536, len(data)):
        part = memoryview(data)[7 : 7 + size]
        for start in (0, 1, 0xFFFFFFFF):
            assert checksum.crc32(part, start) == isal_zlib.crc32(part, start) == zlib.crc32(part, start)


def test_isal_computes_it_where_it_is_installed():
    assert checksum.crc32 is isal_zlib.crc32


def test_without_isal_zlib_does():
    assert run(
        "import sys; sys.modules['isal'] = None\n"
        "import zlib; from persistdict.checksum import crc32; print(crc32 is zlib.crc32)"
    ) == ["True"]


def test_one_that_computes_something_else_is_not_believed():
    assert run(
        "from isal import isal_zlib; isal_zlib.crc32 = isal_zlib.adler32\n"
        "import zlib; from persistdict.checksum import crc32; print(crc32 is zlib.crc32)"
    ) == ["True"]


def test_a_store_that_was_written_with_it_is_read_without_it_and_the_other_way_round(tmp_path):
    code = (
        "import sys; sys.modules.update({}) \n"
        "from persistdict import PersistDict\n"
        "with PersistDict({!r}) as d:\n    for n in range({}, {}): d[n] = str(n) * n * 20\n"
        "    print(d.verify().ok, all(d[n] == str(n) * n * 20 for n in range({})))"
    )
    path = str(tmp_path / "d")
    assert run(code.format("", path, 0, 100, 100)) == ["True", "True"]
    assert run(code.format("isal=None", path, 50, 150, 150)) == ["True", "True"]
    assert run(code.format("", path, 100, 200, 200)) == ["True", "True"]
