"""LZ4, by the package lz4. Threads: any number may use a compressor."""

from __future__ import annotations

import lz4.block

from persistdict.errors import DecodeError
from persistdict.seals.compressors import wrong_size

__all__ = ["Lz4Compressor"]


class Lz4Compressor:
    """See `Lz4` in compression.py."""

    def __init__(self, number: int, max_size: int) -> None:
        self.number, self.max_size = number, max_size

    def compress(self, data: bytes) -> bytes:
        return bytes(lz4.block.compress(data, store_size=False))

    def decompress(self, data: bytes, size: int) -> bytes:
        try:
            plain = bytes(lz4.block.decompress(data, uncompressed_size=size))
        except (lz4.block.LZ4BlockError, ValueError, OverflowError) as error:
            raise DecodeError("the compressed bytes of an entry are damaged") from error
        if len(plain) != size:
            raise wrong_size()
        return plain
