"""Zstandard, by the package zstandard.

A dictionary is known by the number that it has in itself; frames that were made with it name it.

Threads: any number may use a compressor; the objects of zstandard are for one thread each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import zstandard

from persistdict.errors import DecodeError
from persistdict.seals.compressors import wrong_size

__all__ = ["ZstdCompressor"]


class ZstdCompressor:
    """See `Zstd` in compression.py.

    Args:
        number, max_size, level: as there.
        find: gives the bytes of a trained dictionary by its number, None if there is none; of the newest for None.
    """

    def __init__(self, number: int, max_size: int, level: int, find: Callable[[int | None], bytes | None]) -> None:
        self.number, self.max_size, self._level = number, max_size, level
        self._find = find
        self._local = threading.local()
        self._dictionaries: dict[int, zstandard.ZstdCompressionDict] = {}
        self._newest: zstandard.ZstdCompressionDict | None = None
        self._generation = 0
        self.refresh()

    def refresh(self) -> None:
        """Use the newest dictionary from now on."""
        raw = self._find(None)
        if raw is not None:
            newest = zstandard.ZstdCompressionDict(raw)
            self._newest = self._dictionaries[newest.dict_id()] = newest
        self._generation += 1  # last: whoever sees it sees the dictionary

    def compress(self, data: bytes) -> bytes:
        local = self._local
        if getattr(local, "generation", None) != self._generation:
            local.generation = self._generation
            local.engine = zstandard.ZstdCompressor(level=self._level, dict_data=self._newest, write_checksum=False)
        packed: bytes = local.engine.compress(data)
        return packed

    def train(self, samples: list[bytes], size: int) -> tuple[int, bytes]:
        """A dictionary of up to so many bytes for values like these, and its number. Raises ValueError."""
        try:
            made = zstandard.train_dictionary(size, [*samples])
        except zstandard.ZstdError as error:
            raise ValueError("the values are too few, or too unlike each other, for a dictionary") from error
        return made.dict_id(), made.as_bytes()

    def compress_with(self, raw: bytes, samples: list[bytes]) -> list[bytes]:
        """These values, compressed with a dictionary that is not in use yet."""
        engine = zstandard.ZstdCompressor(
            level=self._level, dict_data=zstandard.ZstdCompressionDict(raw), write_checksum=False
        )
        return [engine.compress(sample) for sample in samples]

    def decompress(self, data: bytes, size: int) -> bytes:
        try:
            frame = zstandard.get_frame_parameters(data)
            if frame.content_size != size:
                raise wrong_size()
            plain = self._engine(frame.dict_id).decompress(data, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise DecodeError("the compressed bytes of an entry are damaged") from error
        if len(plain) != size:
            raise wrong_size()
        return plain

    def _engine(self, number: int) -> zstandard.ZstdDecompressor:
        """The decompressor of this thread for frames with the dictionary of this number; 0 for none."""
        engines = self._local.__dict__.setdefault("engines", {})
        engine = engines.get(number)
        if engine is None:
            engine = engines[number] = zstandard.ZstdDecompressor(dict_data=self._dictionary(number))
        return engine  # type: ignore[no-any-return]

    def _dictionary(self, number: int) -> zstandard.ZstdCompressionDict | None:
        if number and number not in self._dictionaries:
            raw = self._find(number)
            if raw is None:
                raise DecodeError(f"an entry was compressed with the dictionary {number}, which is not there")
            self._dictionaries[number] = zstandard.ZstdCompressionDict(raw)
            self.refresh()  # others have trained it, and may have done so just now
        return self._dictionaries.get(number)
