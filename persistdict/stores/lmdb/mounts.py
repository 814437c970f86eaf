"""On what kind of file system a folder lies, as /proc/self/mountinfo tells; elsewhere than on Linux nobody is asked.

Refused are those whose files other machines may change at the same time: there neither the memory map nor the locks
are shared, and LMDB would damage the data without noticing. Folders that a virtual machine shares with its host (9p,
vboxsf, vmhgfs, prl_fs) are of that kind. Not refused: local file systems of any kind, tmpfs, overlayfs, and FUSE in
general, which is local more often than not; virtiofs, on which whole containers live: there all processes must be on
the same side.

A line of mountinfo: id, parent, device, root, mount point, options, optional fields, "-", type, source, options;
in the mount point, blanks and backslashes are written as a backslash and three octal digits.
"""

from __future__ import annotations

import errno
import os
import re
import sys

from persistdict.errors import OpenError

__all__ = ["check_filesystem", "filesystem_of", "filesystem_under", "is_network"]

MOUNTS = "/proc/self/mountinfo"
NETWORK = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p", "vboxsf", "vmhgfs", "prl_fs", "ceph"),
        *("glusterfs", "lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "gfs2", "ocfs2", "panfs", "davfs", "davfs2"),
        *("acfs", "wekafs", "fhgfs"),
    )
)
NETWORK_FUSE = frozenset(
    (
        *("sshfs", "rclone", "s3fs", "s3ql", "gcsfuse", "goofys", "geesefs", "blobfuse", "blobfuse2", "mount-s3"),
        *("glusterfs", "ceph", "ceph-fuse", "juicefs", "JuiceFS", "seaweedfs", "mfs", "moosefs", "lizardfs", "davfs"),
        *("smbnetfs", "curlftpfs", "ltfs", "hdfs", "fuse_dfs", "gvfsd-fuse", "kio-fuse", "vmhgfs-fuse", "nfs", "cifs"),
    )
)
_ESCAPED = re.compile(r"\\([0-7]{3})")


def filesystem_of(path: str, mountinfo: str) -> str | None:
    """The type of the file system that an absolute path without links lies on; None if that is not told.

    Of several mounts on one place the last is the one that is seen.
    """
    found, length, inside = None, -1, os.path.join(path, "")
    for line in mountinfo.splitlines():
        front, dash, back = line.partition(" - ")
        words, kinds = front.split(" "), back.split(" ")
        if not dash or len(words) < 6:
            continue
        point = words[4]
        if "\\" in point:
            point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), point)
        if len(point) >= length and inside.startswith(point if point.endswith("/") else point + "/"):
            found, length = kinds[0], len(point)
    return found


def filesystem_under(path: str) -> str | None:
    """The type of the file system that a path, without links, lies on; None if that cannot be told."""
    mountinfo = _mountinfo()
    return None if mountinfo is None else filesystem_of(path, mountinfo)


def is_network(filesystem: str) -> bool:
    """Whether other machines may change the files on a file system of this type."""
    kind, _, subtype = filesystem.partition(".")
    return kind in NETWORK or (kind == "fuse" and subtype in NETWORK_FUSE)


def check_filesystem(path: str) -> None:
    """Refuse a folder, there or not, on a network file system. Raises OpenError."""
    mountinfo = _mountinfo()
    if mountinfo is None:
        return
    filesystem = filesystem_of(os.path.abspath(path), mountinfo)
    if filesystem is None or not is_network(filesystem):
        filesystem = filesystem_of(os.path.realpath(path), mountinfo)  # asks the file systems, which may be far away
    if filesystem is not None and is_network(filesystem):
        raise OpenError(
            errno.ENOTSUP,
            f"the folder lies on a network file system ({filesystem}), where neither the memory map nor the locks of "
            "LMDB are shared between machines, and data would be damaged; choose a local folder, or say "
            'network_filesystem="allow" if never more than one machine uses it',
            path,
        )


def _mountinfo() -> str | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:  # there is no /proc
        return None
