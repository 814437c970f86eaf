"""A FUSE file system of this process that calls itself sshfs, and holds nothing; a dictionary is opened on it.

distant.py FOLDER
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
import threading

from drivers.disks import keep_mounts_private
from drivers.running import finish

from persistdict import OpenError, PersistDict

LOOKUP, FORGET, GETATTR, STATFS, INIT = 1, 2, 3, 17, 26
HEADER = struct.Struct("<IIQQIIII")
ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")


def serve(device: int, asked: list[int]) -> None:
    """Answer for an empty root; everything else there is not."""
    while True:
        try:
            request = os.read(device, 1 << 17)
        except OSError:
            return
        _, kind, unique, *_ = HEADER.unpack_from(request)
        asked.append(kind)
        if kind == FORGET:
            continue
        body, error = b"", 0
        if kind == INIT:
            body = struct.pack("<IIIIHHIIHHI", 7, 31, 1 << 16, 0, 12, 10, 1 << 16, 1, 0, 0, 0) + bytes(28)
        elif kind == GETATTR:
            body = struct.pack("<QII", 1, 0, 0)
            body += ATTRIBUTES.pack(1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40700, 2, os.getuid(), os.getgid(), 0, 4096, 0)
        elif kind == STATFS:
            body = struct.pack("<QQQQQIIII", *[0] * 9) + bytes(24)
        else:
            error = -(errno.ENOENT if kind == LOOKUP else errno.ENOSYS)
        os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


def mount(place: str) -> tuple[int, list[int]]:
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if libc.mount(b"host:/data", os.fsencode(place), b"fuse.sshfs", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")
    asked: list[int] = []
    threading.Thread(target=serve, args=(device, asked), daemon=True).start()
    return device, asked


def outcome(path: str, **options: str) -> str:
    try:
        PersistDict(path, background_thread="disabled", **options).close()  # type: ignore[arg-type]
    except OpenError as error:
        return f"{errno.errorcode[error.errno]}: {error.strerror}"
    return "opened"


def main(folder: str) -> None:
    place = os.path.join(folder, "far away")
    os.makedirs(place)
    try:
        keep_mounts_private()
        device, asked = mount(place)
    except OSError as error:
        finish({"reason": str(error)})
    link = os.path.join(folder, "link")
    os.symlink(place, link)
    counts = {"refused": outcome(os.path.join(place, "d")), "asked": len(asked) - asked.count(INIT)}
    counts["by a link"] = outcome(os.path.join(link, "d"))
    counts["allowed"] = outcome(os.path.join(place, "d"), network_filesystem="allow")
    counts["beside"] = outcome(os.path.join(folder, "d"))
    os.close(device)
    finish(counts)


if __name__ == "__main__":
    main(sys.argv[1])
