"""The codecs beside the safe one: JSON, raw bytes, pickle, and whatever the caller brings.

All of them write one tag, so that a value of one is never taken for a value of another.
Tags on disk, never to be reused: 32 json, 33 raw, 34 pickle, 35 the caller's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from persistdict.errors import DecodeError, ValueTypeError, withheld

__all__ = ["CallableCodec", "JsonCodec", "ObjectCodec", "PickleCodec", "RawCodec", "name_of"]

TAG_JSON, TAG_RAW, TAG_PICKLE, TAG_OWN = 32, 33, 34, 35


def name_of(thing: object) -> str:
    """The lasting name of a function or a class: its module and qualified name, `module|qualname`."""
    owner = thing if hasattr(thing, "__qualname__") else type(thing)
    module = getattr(owner, "__module__", None) or type(thing).__module__
    return f"{module}|{getattr(owner, '__qualname__', type(thing).__qualname__)}"


class _OneTag:
    """A codec that has one tag for all of its values."""

    name: str
    tag: int

    def encode(self, value: Any) -> tuple[int, bytes]:
        return self.tag, self._dump(value)

    def decode(self, tag: int, blob: bytes) -> Any:
        if tag != self.tag:
            raise DecodeError(f"the entry was not written by the codec {self.name!r} (its tag is {tag})")
        return self._load(blob)

    def _dump(self, value: Any) -> bytes:
        raise NotImplementedError

    def _load(self, blob: bytes) -> Any:
        raise NotImplementedError


class JsonCodec(_OneTag):
    """JSON text, readable by anything. Refuses what JSON would change (a tuple, a key that is no str)."""

    name = "json"
    tag = TAG_JSON

    def _dump(self, value: Any) -> bytes:
        import json  # slow to import, and not needed by others

        _check_json(value)
        try:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:
            return self._dump_surrogates(value)
        except (ValueError, RecursionError) as error:
            raise ValueTypeError("the value is nested too deep, or contains itself") from error

    def _dump_surrogates(self, value: Any) -> bytes:
        """Lone surrogates are written as escapes; two of them side by side would come back as one character."""
        import json

        data = json.dumps(value, separators=(",", ":")).encode()
        if json.dumps(json.loads(data), separators=(",", ":"), ensure_ascii=False) != json.dumps(
            value, separators=(",", ":"), ensure_ascii=False
        ):
            raise ValueTypeError("JSON would join two surrogates of a str to one character")
        return data

    def _load(self, blob: bytes) -> Any:
        import json

        try:
            return json.loads(blob)
        except (ValueError, RecursionError) as error:
            raise DecodeError("the bytes of the entry are not JSON") from withheld(error)


def _check_json(value: Any, depth: int = 0) -> None:
    """Refuse what would come back from JSON as something else."""
    if depth > 200:
        raise ValueTypeError("the value is nested too deep, or contains itself")
    kind = type(value)
    if kind in (str, int, float, bool, type(None)):
        return
    if kind is list:
        for item in value:
            _check_json(item, depth + 1)
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise ValueTypeError(f"JSON turns a {type(key).__qualname__} as key of a dict into a str")
            _check_json(item, depth + 1)
    else:
        raise ValueTypeError(
            f"JSON cannot keep a {kind.__qualname__} as it is; the default codec can, or use a value_serializer"
        )


class RawCodec(_OneTag):
    """Bytes as they are, and nothing else."""

    name = "raw"
    tag = TAG_RAW

    def _dump(self, value: Any) -> bytes:
        if type(value) is not bytes:
            raise ValueTypeError(f'codec="raw" stores bytes only, not {type(value).__qualname__}')
        return value

    def _load(self, blob: bytes) -> bytes:
        return blob


class PickleCodec(_OneTag):
    """Pickle, for data that nobody else can write: unpickling runs code that is in the file."""

    name = "pickle"
    tag = TAG_PICKLE

    def __init__(self) -> None:
        import pickle

        self._pickle = pickle

    def _dump(self, value: Any) -> bytes:
        try:
            return self._pickle.dumps(value, protocol=5)
        except (self._pickle.PicklingError, AttributeError, TypeError, RecursionError) as error:
            raise ValueTypeError(f"a value of type {type(value).__qualname__} cannot be pickled") from withheld(error)

    def _load(self, blob: bytes) -> Any:
        try:
            return self._pickle.loads(blob)
        except Exception as error:  # unpickling may raise anything
            raise DecodeError(f"unpickling failed with {type(error).__name__}") from withheld(error)


class CallableCodec(_OneTag):
    """The caller's own pair of functions. What they return may be str or bytes; what they are given is bytes."""

    tag = TAG_OWN

    def __init__(self, dumps: Callable[[Any], str | bytes], loads: Callable[[bytes], Any]) -> None:
        self.name = f"call:{name_of(dumps)}"
        self._dumps = dumps
        self._loads = loads

    def _dump(self, value: Any) -> bytes:
        data = self._dumps(value)
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        if not isinstance(data, (bytes, bytearray)):
            raise ValueTypeError(f"the serializer returned {type(data).__qualname__}; it must return str or bytes")
        return bytes(data)

    def _load(self, blob: bytes) -> Any:
        try:
            return self._loads(blob)
        except KeyError as error:  # would be taken for an absent key
            raise DecodeError("the unserializer raised KeyError") from withheld(error)


class ObjectCodec(CallableCodec):
    """An object or a module with `dumps` and `loads`, and a `name` or `__name__` if it has one."""

    def __init__(self, codec: Any) -> None:
        super().__init__(codec.dumps, codec.loads)
        name = getattr(codec, "name", None) or getattr(codec, "__name__", None)
        self.name = f"object:{name}" if isinstance(name, str) else f"object:{name_of(codec)}"
