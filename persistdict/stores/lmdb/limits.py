"""What the limits of the process leave: address space for maps (RLIMIT_AS), and how large a file may be (RLIMIT_FSIZE).

A map that cannot be made larger is lost: py-lmdb closes the environment. So it is tried out before with memory that
nobody uses.
"""

from __future__ import annotations

import mmap
import os
import sys
from glob import escape, glob

__all__ = ["fits", "is_at_file_limit"]

NEAR = 1 << 19  # bytes; a file that is so near to the limit has reached it, as there is room in it for deletions


def fits(size: int) -> bool:
    """Whether so many bytes of address space are left. True where it is not limited."""
    if sys.platform == "win32":
        return True
    import resource

    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return True
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def is_at_file_limit(folder: str) -> bool:
    """Whether a database in the folder, or one below it, is as large as files of this process may be."""
    if sys.platform == "win32":
        return False
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return False
    paths = glob(os.path.join(escape(folder), "**", "data.mdb"), recursive=True)
    return any(os.path.getsize(path) + NEAR > limit for path in paths)
