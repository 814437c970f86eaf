"""Codecs: values to bytes and back.

A codec turns a value into a tag (a small number that says how the bytes are to be read) and a blob. Its `name` is
kept in the store: a store is only opened with the codec that wrote it.

Threads: a codec may be used by any number of threads at once; register types before sharing it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from persistdict.codecs.other import CallableCodec, JsonCodec, ObjectCodec, PickleCodec, RawCodec
from persistdict.codecs.safe import SafeCodec

__all__ = ["Codec", "JsonCodec", "PickleCodec", "RawCodec", "SafeCodec", "make_codec", "names_agree"]


@runtime_checkable
class Codec(Protocol):
    """What a store needs of a codec."""

    name: str

    def encode(self, value: Any) -> tuple[int, bytes]:
        """The tag (0-255) and the bytes of `value`. Raises ValueTypeError for what would not come back exactly."""
        ...

    def decode(self, tag: int, blob: bytes) -> Any:
        """The value. Raises DecodeError for a tag or bytes that are not this codec's."""
        ...


def make_codec(
    codec: str | Any,
    *,
    allow_pickle: bool = False,
    serializer: Callable[[Any], str | bytes] | None = None,
    unserializer: Callable[[bytes], Any] | None = None,
) -> Codec:
    """The codec that the options of PersistDict ask for.

    Args:
        codec: "safe", "json", "raw", "pickle", a Codec, or any object with `dumps` and `loads`.
        allow_pickle: must be True for "pickle": unpickling runs code that is in the file.
        serializer: with `unserializer`, replaces the codec.
        unserializer: is given bytes.

    Raises:
        ValueError: for an unknown name, for half a pair, and for "pickle" that was not allowed.
        TypeError: for an object that is no codec.
    """
    if (serializer is None) != (unserializer is None):
        raise ValueError("value_serializer and value_unserializer must be given together")
    if serializer is not None and unserializer is not None:
        if codec != "safe":
            raise ValueError("give either codec or value_serializer and value_unserializer, not both")
        return CallableCodec(serializer, unserializer)
    if codec == "pickle" and not allow_pickle:
        raise ValueError(
            'codec="pickle" runs code that is in the file; if nobody else can write to it, say allow_pickle=True'
        )
    if isinstance(codec, str):
        known: dict[str, Callable[[], Codec]] = {
            "safe": SafeCodec,
            "json": JsonCodec,
            "raw": RawCodec,
            "pickle": PickleCodec,
        }
        if codec not in known:
            raise ValueError(f"codec must be one of {', '.join(known)} or an object with dumps and loads")
        return known[codec]()
    if isinstance(codec, PickleCodec) and not allow_pickle:
        raise ValueError("a PickleCodec runs code that is in the file; say allow_pickle=True to use it")
    if isinstance(codec, type):
        raise TypeError("codec must be an object, not a class: say codec=MyCodec()")
    if isinstance(codec, Codec):
        return codec
    if callable(getattr(codec, "dumps", None)) and callable(getattr(codec, "loads", None)):
        return ObjectCodec(codec)
    raise TypeError("codec must be a name or an object with dumps and loads")


def names_agree(stored: str, asked: str) -> bool:
    """Whether two codec names mean the same code.

    Functions of the main script have no lasting module name, so for them only the qualified name counts.
    """
    if stored == asked:
        return True
    stored_module, stored_bar, stored_name = stored.partition("|")
    asked_module, asked_bar, asked_name = asked.partition("|")
    if not stored_bar or not asked_bar or stored_name != asked_name:
        return False
    kind, _, module = stored_module.partition(":")
    asked_kind, _, asked_module = asked_module.partition(":")
    return kind == asked_kind and "__main__" in (module, asked_module)
