"""persistdict: a persistent dictionary for Python, embedded, on LMDB.

from persistdict import PersistDict

d = PersistDict("cache")
"""

from persistdict.codecs import Codec, SafeCodec
from persistdict.conditions import DELETE, KEEP, Versioned
from persistdict.dictionary import PersistDict
from persistdict.entry import Entry
from persistdict.errors import (
    BusyError,
    ClosedError,
    ConflictError,
    CorruptEntryError,
    CorruptStoreError,
    DamagedEntryWarning,
    DecodeError,
    DiskFullError,
    FullError,
    ImmutableError,
    KeyTypeError,
    MaintenanceError,
    MismatchError,
    NestedFactoryError,
    NestedWriteError,
    NotAStoreError,
    OpenError,
    PersistDictError,
    ReadOnlyError,
    ReadOnlyWarning,
    StillComputingError,
    StoreError,
    StoreGoneError,
    TargetExistsError,
    TooLargeError,
    TransactionError,
    UnsafePathError,
    Unsupported,
    ValueTypeError,
)
from persistdict.memoized import CacheInfo, Memoized
from persistdict.reports import Fault, Quarantined, Report, Salvaged
from persistdict.requests import make_key
from persistdict.rescue import salvage
from persistdict.statistics import Stats, TaskStatus
from persistdict.store import ABSENT, ANY

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "ANY",
    "DELETE",
    "KEEP",
    "BusyError",
    "CacheInfo",
    "ClosedError",
    "Codec",
    "ConflictError",
    "CorruptEntryError",
    "CorruptStoreError",
    "DamagedEntryWarning",
    "DecodeError",
    "DiskFullError",
    "Entry",
    "Fault",
    "FullError",
    "ImmutableError",
    "KeyTypeError",
    "MaintenanceError",
    "Memoized",
    "MismatchError",
    "NestedFactoryError",
    "NestedWriteError",
    "NotAStoreError",
    "OpenError",
    "PersistDict",
    "PersistDictError",
    "Quarantined",
    "ReadOnlyError",
    "ReadOnlyWarning",
    "Report",
    "SafeCodec",
    "Salvaged",
    "Stats",
    "StillComputingError",
    "StoreError",
    "StoreGoneError",
    "TargetExistsError",
    "TaskStatus",
    "TooLargeError",
    "TransactionError",
    "UnsafePathError",
    "Unsupported",
    "ValueTypeError",
    "Versioned",
    "make_key",
    "salvage",
]
