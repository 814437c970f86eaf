"""The shim of iofaults.c from Python: compiling it, starting a driver anew with it, and telling it what to do."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

SOURCE = Path(__file__).with_name("iofaults.c")
# As in iofaults.c.
MODES = ["count", "EIO", "ENOSPC", "short", "die before", "die after", "tear", "lie", "slow"]
CALLS = [
    "none", "open", "write", "pwrite", "writev", "pwritev", "fdatasync", "fsync", "msync", "ftruncate", "rename",
    "mkdir",
]  # fmt: skip
FIELDS = struct.Struct("<9I476s")
NOTE = 8  # the place of the driver's own field


def compiler() -> str | None:
    """The C compiler, if there is one."""
    return shutil.which("gcc") or shutil.which("cc")


def start_anew(folder: str, below: str) -> NoReturn:
    """Compile the shim into a folder, and replace this process by itself with the shim, for the files `below`."""
    library, control = os.path.join(folder, "iofaults.so"), os.path.join(folder, "iofaults.control")
    built = subprocess.run(
        [str(compiler()), "-O2", "-shared", "-fPIC", "-o", library, str(SOURCE), "-ldl"], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    with open(control, "wb") as file:
        file.write(bytes(mmap.PAGESIZE))
    os.environ |= {
        "IOFAULTS_CONTROL": control,
        "IOFAULTS_FOLDER": below,
        "LD_PRELOAD": " ".join(filter(None, [library, os.environ.get("LD_PRELOAD")])),
    }
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def is_loaded() -> bool:
    """Whether this process was started with the shim."""
    return "IOFAULTS_CONTROL" in os.environ


class Control:
    """What the shim does in this process and in those forked from it."""

    def __init__(self) -> None:
        with open(os.environ["IOFAULTS_CONTROL"], "r+b") as file:
            self._map = mmap.mmap(file.fileno(), FIELDS.size)

    def arm(self, mode: str, at: int = 0, *, sticky: bool = False) -> None:
        """Let the call of this number fail, counting from now; `count` and `lie` need none.

        `slow`: each sync takes `at` milliseconds; these are counted, and in `fired` those of the main thread.
        """
        self._map[:] = FIELDS.pack(1, MODES.index(mode), sticky, at, 0, 0, 0, 0, self.note, b"")

    def disarm(self) -> None:
        self._set(0, 0)

    def _get(self, place: int) -> int:
        return int(FIELDS.unpack(self._map[:])[place])

    def _set(self, place: int, number: int) -> None:
        self._map[4 * place : 4 * place + 4] = struct.pack("<I", number)

    @property
    def count(self) -> int:
        """Calls since it was armed."""
        return self._get(4)

    @property
    def fired(self) -> int:
        """Faults since it was armed."""
        return self._get(5)

    @property
    def hit(self) -> str:
        """The call and the file that the first fault hit."""
        path = FIELDS.unpack(self._map[:])[9].rstrip(b"\0").decode()
        below = os.environ["IOFAULTS_FOLDER"]
        return f"{CALLS[self._get(6)]} of {os.path.relpath(path, below) if path else '?'}"

    @property
    def hit_note(self) -> int:
        """What the driver's own number was when the first fault hit."""
        return self._get(7)

    @property
    def note(self) -> int:
        """A number that survives the process that wrote it."""
        return self._get(NOTE)

    @note.setter
    def note(self, number: int) -> None:
        self._set(NOTE, number)
