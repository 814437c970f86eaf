"""numpy arrays as bytes: no pickle, and no copy beyond the one that makes the result the caller's own.

    array  := header length u16 little end, header, data
    header := MessagePack [dtype description, shape, Fortran order?]
    number := MessagePack [dtype description, data]          a numpy scalar

A dtype is described as numpy's own file format does it (a str, or a list of fields); object dtypes are refused.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Any

import numpy
import ormsgpack

from persistdict.errors import DecodeError, ValueTypeError

__all__ = ["pack_array", "pack_number", "unpack_array", "unpack_number"]

STORED_KINDS = "biufcSUVmM"
SIMPLE_KINDS = "biufc"  # booleans and numbers: `dtype.str` says everything
# The only str that are given to numpy as a description: it parses more, and some of that kills the process.
_SIMPLE = re.compile(r"[<>|][biufcSUV][0-9]{1,9}|[<>][mM]8(\[([1-9][0-9]{0,8})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?")
LAST_CHARACTER = 0x10FFFF


def _describe(dtype: numpy.dtype[Any]) -> Any:
    """What says exactly how elements look. Raises ValueTypeError for objects and what has no exact description."""
    if dtype.kind in SIMPLE_KINDS and dtype.metadata is None:
        return dtype.str
    if dtype.kind not in STORED_KINDS or _has_metadata(dtype):
        raise ValueTypeError("numpy data of this dtype cannot be stored: it holds objects or metadata")
    try:
        description = numpy.lib.format.dtype_to_descr(dtype) if dtype.names != () else []
        packed = ormsgpack.packb(description)
        restored = _restore(ormsgpack.unpackb(packed))
        exact = restored == dtype and restored.type is dtype.type and restored.fields == dtype.fields
    except (DecodeError, ValueError, TypeError):
        exact = False
    if not exact:
        raise ValueTypeError("numpy data of this dtype cannot be stored: the dtype has no exact description")
    return description


def _has_metadata(dtype: numpy.dtype[Any]) -> bool:
    fields = [field[0] for field in (dtype.fields or {}).values()]
    return dtype.metadata is not None or any(_has_metadata(field) for field in fields)


def _restore(description: Any) -> numpy.dtype[Any]:
    """The dtype of a description that may come from a file. Raises DecodeError for what `_describe` never gives."""
    dtype: numpy.dtype[Any] = numpy.lib.format.descr_to_dtype(_checked(description))
    if dtype.hasobject or (dtype.itemsize == 0 and (dtype.kind != "V" or dtype.names)):
        raise DecodeError("a stored array claims to hold objects, or elements of no size")
    return dtype


def _checked(description: Any, depth: int = 0) -> Any:
    """The description, with tuples where MessagePack has lists."""
    if isinstance(description, str) and _SIMPLE.fullmatch(description):
        return description
    if not isinstance(description, list) or depth > 20:
        raise DecodeError("a stored array has an impossible dtype")
    fields = []
    for name, kind, *rest in description:
        if not isinstance(name, str) or len(rest) > 1:
            raise DecodeError("a stored array has an impossible dtype")
        shape = tuple(rest[0]) if rest else ()
        if any(type(size) is not int or size < 0 for size in shape):
            raise DecodeError("a stored array has an impossible dtype")
        fields.append((name, _checked(kind, depth + 1), *([shape] if rest else [])))
    return fields


def pack_array(array: numpy.ndarray[Any, numpy.dtype[Any]]) -> bytes:
    """The bytes of an array. Raises ValueTypeError for a dtype that cannot be stored exactly."""
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    header = ormsgpack.packb((_describe(array.dtype), array.shape, fortran))
    if len(header) >= 1 << 16:
        raise ValueTypeError("numpy data of this dtype cannot be stored: its description is too long")
    return b"".join((len(header).to_bytes(2, "little"), header, array.tobytes("F" if fortran else "C")))


def unpack_array(blob: bytes) -> numpy.ndarray[Any, numpy.dtype[Any]]:
    """The array, writable and the caller's own. Raises DecodeError or ValueError for bytes that are no array."""
    start = 2 + int.from_bytes(blob[:2], "little")
    dtype, shape, order, size = _layout(blob[2:start])
    if len(blob) - start != size:
        raise DecodeError("a stored array has more or less data than its shape says")
    if not size:
        return numpy.zeros(shape, dtype, order)
    data: numpy.ndarray[Any, numpy.dtype[Any]] = numpy.frombuffer(blob, dtype, offset=start)
    if dtype.kind == "U":
        _check_characters(data)
    array: numpy.ndarray[Any, numpy.dtype[Any]] = (data if len(shape) == 1 else data.reshape(shape, order=order)).copy(
        "K"
    )
    return array


def _check_characters(data: numpy.ndarray[Any, numpy.dtype[Any]]) -> None:
    """Refuse text that has numbers of no character: whoever looks at an element of it would get a SystemError."""
    if data.view(data.dtype.byteorder + "u4").max() > LAST_CHARACTER:
        raise DecodeError("a stored array has text of impossible characters")


@functools.lru_cache(maxsize=64)  # the arrays of a store are mostly of one kind
def _layout(header: bytes) -> tuple[numpy.dtype[Any], tuple[int, ...], Any, int]:
    """What a header says: dtype, shape, order and the bytes of the data. Raises DecodeError or ValueError."""
    description, shape, fortran = ormsgpack.unpackb(header)
    dtype = _restore(description)
    if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
        raise DecodeError("a stored array has an impossible shape")
    return dtype, tuple(shape), "F" if fortran is True else "C", math.prod(shape) * dtype.itemsize


def pack_number(number: numpy.generic) -> bytes:
    """The bytes of a numpy scalar. Raises ValueTypeError for one that would not come back exactly."""
    dtype = number.dtype
    description = dtype.str if dtype.itemsize == 0 and dtype.kind in "SU" else _describe(dtype)
    packed = ormsgpack.packb((description, number.tobytes() if dtype.itemsize else b""))
    found = unpack_number(packed)
    one: Any = number
    if dtype.names:  # what lies between the fields means nothing
        same = all(found[name].tobytes() == one[name].tobytes() for name in dtype.names)
    else:
        same = found.tobytes() == number.tobytes()
    if type(found) is not type(number) or found.dtype != dtype or not same:
        raise ValueTypeError(f"this {type(number).__name__} of numpy would not come back as it is")
    return packed


def unpack_number(blob: bytes) -> Any:
    """The numpy scalar, the caller's own."""
    description, data = ormsgpack.unpackb(blob)
    if description in ("|S0", "<U0", ">U0") and not data:
        return numpy.str_() if "U" in description else numpy.bytes_()
    dtype = _restore(description)
    if len(data) != dtype.itemsize:
        raise DecodeError("a stored number has more or less data than its dtype says")
    return numpy.frombuffer(data, dtype).copy()[0] if data else numpy.zeros((), dtype)[()]
