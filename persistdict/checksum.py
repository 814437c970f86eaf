"""CRC-32, the checksum of all that lies on a disk: the one of zlib, PNG and Ethernet.

`isal` computes the same in a fraction of the time, and is used where it is installed (persistdict[speedups]).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

__all__ = ["crc32"]

CHECK = 0xCBF43926  # of b"123456789", in every catalogue of such sums

crc32: Callable[..., int] = zlib.crc32
try:
    from isal import isal_zlib
except ImportError:
    pass
else:
    if isal_zlib.crc32(b"123456789") == CHECK:
        crc32 = isal_zlib.crc32
