"""Small file systems of our own: ext4 and xfs in a file, and tmpfs; and cutting the power of the first two.

They are mounted in a mount namespace of the driver, so the kernel unmounts them and frees the loop devices when the
last process of the driver is gone, however it ends.

    disks.py FOLDER FILESYSTEM      prints why such a file system cannot be had here, or nothing
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from drivers.running import WATCHDOG, ask_child, finish, hush

SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
NO_LOG_FLUSH = 2  # neither data nor the journal is written any more
CLONE_NEWNS = 0x20000
SMALLEST = {"ext4": 16 << 20, "xfs": 320 << 20, "tmpfs": 1 << 20}
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F", "-m", "0"], "xfs": ["mkfs.xfs", "-q", "-f"]}


def run(*command: str) -> None:
    """Run a command of the system. Raises OSError with what it said if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")


def keep_mounts_private() -> None:
    """Let what this process mounts from now on end with it and its children."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
    run("mount", "--make-rprivate", "/")


class Disk:
    """A file system in a folder: mounted at `place`, its content in `image`.

    `keep_mounts_private` must have been called before.
    """

    def __init__(self, folder: str, filesystem: str, size: int) -> None:
        self.filesystem = filesystem
        self.size = max(size, SMALLEST[filesystem])
        self.place = os.path.join(folder, "mounted")
        self.image = os.path.join(folder, "image")
        os.makedirs(self.place, exist_ok=True)
        if filesystem in MAKE:
            with open(self.image, "wb") as file:
                file.truncate(self.size)
            run(*MAKE[filesystem], self.image)

    def mount(self, *options: str) -> None:
        if self.filesystem == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", self.place)
        else:
            run("mount", "-o", ",".join(["loop", *options]), self.image, self.place)

    def unmount(self) -> None:
        """Unmount, as soon as the processes that were killed have let go of it."""
        end = time.monotonic() + WATCHDOG
        while True:
            try:
                return run("umount", self.place)
            except OSError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.01)

    def cut(self) -> None:
        """Cut the power: what was not synced is gone, and nothing can be written any more until it is mounted again."""
        import fcntl

        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def free(self) -> int:
        """The bytes that are left."""
        status = os.statvfs(self.place)
        return status.f_bavail * status.f_frsize

    def occupy(self, name: str, size: int) -> str:
        """Make a file that takes so much room; returns its path."""
        path = os.path.join(self.place, name)
        with open(path, "wb") as file:
            if size > 0:
                os.posix_fallocate(file.fileno(), 0, size)
        return path

    def fill(self) -> None:
        """Leave not a byte."""
        self.occupy("filling", self.free() - (1 << 20))
        with contextlib.suppress(OSError), open(os.path.join(self.place, "last"), "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def remove(self) -> None:
        """Unmount, and remove the image."""
        self.unmount()
        if os.path.exists(self.image):
            os.unlink(self.image)


def on_disk(folder: str | os.PathLike[str], filesystem: str, work: Callable[[Disk], object]) -> Any:
    """What `work` returns in a child, with a small disk that is gone when the child is."""

    def mount_and_work() -> object:
        hush()
        keep_mounts_private()
        disk = Disk(os.fspath(folder), filesystem, 24 << 20)
        disk.mount()
        if os.path.exists(disk.image):
            os.unlink(disk.image)
        return work(disk)

    return ask_child(mount_and_work, f"a child on {filesystem}")


def why_not(folder: str, filesystem: str) -> str:
    """Why such a file system cannot be made, mounted and cut here; changes the mounts that this process sees."""
    if not sys.platform.startswith("linux"):
        return "loop mounts and FS_IOC_SHUTDOWN are Linux's"
    if os.geteuid():
        return "mounting needs root"
    if filesystem in MAKE and not shutil.which(MAKE[filesystem][0]):
        return f"{MAKE[filesystem][0]} is not installed"
    try:
        keep_mounts_private()
        disk = Disk(folder, filesystem, 0)
        disk.mount()
        if filesystem in MAKE:
            disk.cut()
        disk.remove()
    except OSError as error:
        return f"{filesystem} cannot be mounted: {error}"
    return ""


if __name__ == "__main__":
    finish({"reason": why_not(*sys.argv[1:])})
