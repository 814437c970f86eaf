"""numpy arrays as bytes: no pickle, and no copy beyond the one that makes the result the caller's own.

    array  := header length u16 little end, header, data
    header := MessagePack [dtype description, shape, Fortran order?]
    number := MessagePack [dtype description, data]          a numpy scalar

A dtype is described as numpy's own file format does it (a str, or a list of fields); object dtypes are refused.
"""

from __future__ import annotations

from typing import Any

import numpy
import ormsgpack

from persistdict.errors import DecodeError, ValueTypeError

__all__ = ["pack_array", "pack_number", "unpack_array", "unpack_number"]

SIMPLE_KINDS = "biufc"  # booleans and numbers: `dtype.str` says everything


def _describe(dtype: numpy.dtype[Any]) -> Any:
    if dtype.kind in SIMPLE_KINDS:
        return dtype.str
    if dtype.hasobject or dtype.metadata:
        raise ValueTypeError(f"numpy data of dtype {dtype} holds Python objects or metadata and cannot be stored")
    description = numpy.lib.format.dtype_to_descr(dtype)
    if _restore(_as_tuples(description)) != dtype:
        raise ValueTypeError(f"numpy data of dtype {dtype} cannot be stored: the dtype has no exact description")
    return description


def _as_tuples(description: Any) -> Any:
    """MessagePack gives lists for the tuples within a description of fields."""
    if not isinstance(description, (list, tuple)):
        return description
    fields = []
    for name, kind, *shape in description:
        fields.append((name, _as_tuples(kind), *(tuple(part) for part in shape)))
    return fields


def _restore(description: Any) -> numpy.dtype[Any]:
    dtype: numpy.dtype[Any] = numpy.lib.format.descr_to_dtype(description)
    if dtype.hasobject:
        raise DecodeError("a stored array claims to hold Python objects")
    return dtype


def pack_array(array: numpy.ndarray[Any, numpy.dtype[Any]]) -> bytes:
    """The bytes of an array. Raises ValueTypeError for dtypes that hold objects."""
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    header = ormsgpack.packb((_describe(array.dtype), array.shape, fortran))
    return b"".join((len(header).to_bytes(2, "little"), header, array.tobytes("F" if fortran else "C")))


def unpack_array(blob: bytes) -> numpy.ndarray[Any, numpy.dtype[Any]]:
    """The array, writable and the caller's own. Raises DecodeError or ValueError for bytes that are no array."""
    start = 2 + int.from_bytes(blob[:2], "little")
    description, shape, fortran = ormsgpack.unpackb(blob[2:start])
    dtype = _restore(_as_tuples(description)) if isinstance(description, list) else _restore(description)
    if dtype.itemsize == 0 or 0 in shape:
        if len(blob) != start:
            raise DecodeError("a stored array has data but no elements")
        return numpy.zeros(shape, dtype, "F" if fortran else "C")
    flat = numpy.frombuffer(blob, dtype, offset=start)
    array: numpy.ndarray[Any, numpy.dtype[Any]] = flat.reshape(shape, order="F" if fortran else "C").copy("K")
    return array


def pack_number(number: numpy.generic) -> bytes:
    """The bytes of a numpy scalar."""
    return ormsgpack.packb((_describe(number.dtype), number.tobytes()))


def unpack_number(blob: bytes) -> Any:
    """The numpy scalar."""
    description, data = ormsgpack.unpackb(blob)
    dtype = _restore(_as_tuples(description))
    return numpy.frombuffer(data, dtype)[0] if dtype.itemsize else numpy.zeros((), dtype)[()]
