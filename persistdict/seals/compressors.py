"""The compressors that Python has by itself. All give back exactly as many bytes as asked, or raise DecodeError.

Threads: any number may use one.
"""

from __future__ import annotations

import zlib

from persistdict.errors import DecodeError

__all__ = ["ZlibCompressor", "wrong_size"]


class ZlibCompressor:
    """See `Zlib` in compression.py."""

    def __init__(self, number: int, max_size: int, level: int) -> None:
        self.number, self.max_size, self._level = number, max_size, level

    def compress(self, data: bytes) -> bytes:
        return zlib.compress(data, self._level)

    def decompress(self, data: bytes, size: int) -> bytes:
        engine = zlib.decompressobj()
        try:
            plain = engine.decompress(data, size + 1)
        except zlib.error as error:
            raise DecodeError("the compressed bytes of an entry are damaged") from error
        if len(plain) != size or not engine.eof or engine.unused_data:
            raise wrong_size()
        return plain


def wrong_size() -> DecodeError:
    """The error for bytes that do not become what they say."""
    return DecodeError("the compressed bytes of an entry do not become as many as they say")
