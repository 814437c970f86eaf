"""How values are compressed: what a user chooses.

Decompression is bounded: a value says how large it is, that is compared with `max_size` first, and not a byte more is
made. A value that does not become smaller is stored as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from persistdict.errors import MissingPackageError

__all__ = ["COMPRESSIONS", "Compression", "Lz4", "Zlib", "Zstd", "compression_of"]

GIB = 1 << 30


@dataclass(frozen=True)
class Compression:
    """The base of all of them.

    Attributes:
        max_size: bytes of the largest value that is compressed, and that is decompressed: a larger one is stored as it
            is, and one that says it becomes larger is refused with DecodeError.
    """

    max_size: int = GIB

    name = ""
    number = 0  # on disk: never change or reuse one

    def __post_init__(self) -> None:
        _check("max_size", self.max_size, 1, (1 << 32) - 1)

    def compressor(self, find: Any) -> Any:
        """What does it, see compressors.py. `find`: gives a trained dictionary by its number; None."""
        raise NotImplementedError


@dataclass(frozen=True)
class Zlib(Compression):
    """zlib (DEFLATE), which every Python has. Small results, and slow.

    Args:
        max_size: see `Compression`.
        level: 1 (fast) to 9 (small).
    """

    level: int = 6

    name = "zlib"
    number = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("level", self.level, 1, 9)

    def compressor(self, find: Any) -> Any:
        from persistdict.seals.compressors import ZlibCompressor

        return ZlibCompressor(self.number, self.max_size, self.level)


@dataclass(frozen=True)
class Zstd(Compression):
    """Zstandard, RFC 8878. Fast, with small results. Needs the package zstandard: pip install persistdict[zstd].

    Small values that are alike become much smaller with a dictionary: see `PersistDict.train_dictionary`.

    Args:
        max_size: see `Compression`.
        level: 1 (fast) to 22 (small).
    """

    level: int = 3

    name = "zstd"
    number = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("level", self.level, 1, 22)

    def compressor(self, find: Any) -> Any:
        try:
            from persistdict.seals.zstd import ZstdCompressor
        except ImportError as error:
            raise _missing("zstd", "zstandard") from error
        return ZstdCompressor(self.number, self.max_size, self.level, find)


@dataclass(frozen=True)
class Lz4(Compression):
    """LZ4, the fastest, with larger results. Needs the package lz4: pip install persistdict[lz4].

    Args:
        max_size: see `Compression`.
    """

    name = "lz4"
    number = 3

    def compressor(self, find: Any) -> Any:
        try:
            from persistdict.seals.lz4 import Lz4Compressor
        except ImportError as error:
            raise _missing("lz4", "lz4") from error
        return Lz4Compressor(self.number, self.max_size)


COMPRESSIONS = {kind.name: kind for kind in (Zlib, Zstd, Lz4)}


def compression_of(given: Any) -> Compression:
    """What the option means. Raises TypeError or ValueError."""
    if isinstance(given, Compression):
        return given
    if not isinstance(given, str):
        raise TypeError(f"compression must be a name, Zlib(), Zstd() or Lz4(), not {type(given).__qualname__}")
    if given not in COMPRESSIONS:
        raise ValueError(f"compression must be one of {', '.join(map(repr, COMPRESSIONS))}, or None")
    return COMPRESSIONS[given]()


def _check(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be an int from {least} to {most:,}")


def _missing(compression: str, package: str) -> MissingPackageError:
    return MissingPackageError(
        f'compression="{compression}" needs the package {package}: pip install persistdict[{compression}]'
    )
