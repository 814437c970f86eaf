"""persistdict: a persistent dictionary for Python, embedded, on LMDB.

from persistdict import PersistDict

d = PersistDict("cache")
"""

from persistdict.codecs import Codec, SafeCodec
from persistdict.dictionary import PersistDict
from persistdict.entry import Entry
from persistdict.errors import (
    BusyError,
    ClosedError,
    CorruptEntryError,
    DamagedEntryWarning,
    DecodeError,
    DiskFullError,
    KeyTypeError,
    MaintenanceError,
    MismatchError,
    NestedWriteError,
    NotAStoreError,
    OpenError,
    PersistDictError,
    ReadOnlyError,
    ReadOnlyWarning,
    StoreError,
    StoreGoneError,
    TargetExistsError,
    UnsafePathError,
    Unsupported,
    ValueTypeError,
)

__version__ = "0.1.0"

__all__ = [
    "BusyError",
    "ClosedError",
    "Codec",
    "CorruptEntryError",
    "DamagedEntryWarning",
    "DecodeError",
    "DiskFullError",
    "Entry",
    "KeyTypeError",
    "MaintenanceError",
    "MismatchError",
    "NestedWriteError",
    "NotAStoreError",
    "OpenError",
    "PersistDict",
    "PersistDictError",
    "ReadOnlyError",
    "ReadOnlyWarning",
    "SafeCodec",
    "StoreError",
    "StoreGoneError",
    "TargetExistsError",
    "UnsafePathError",
    "Unsupported",
    "ValueTypeError",
]
