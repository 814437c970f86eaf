"""persistdict: a persistent dictionary for Python, embedded, on LMDB.

from persistdict import PersistDict

d = PersistDict("cache")
"""

from typing import TYPE_CHECKING, Any

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
    LeaseLostError,
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
from persistdict.untrusted import open_untrusted

if TYPE_CHECKING:
    from persistdict.jobs import Job
    from persistdict.queueerrors import QueueEmptyError, QueueFullError
    from persistdict.queuemoves import Flushed
    from persistdict.queues import PersistQueue

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
    "Flushed",
    "FullError",
    "ImmutableError",
    "Job",
    "KeyTypeError",
    "LeaseLostError",
    "MaintenanceError",
    "Memoized",
    "MismatchError",
    "NestedFactoryError",
    "NestedWriteError",
    "NotAStoreError",
    "OpenError",
    "PersistDict",
    "PersistDictError",
    "PersistQueue",
    "Quarantined",
    "QueueEmptyError",
    "QueueFullError",
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
    "open_untrusted",
    "salvage",
]

_ROOMS = {
    "Flushed": "queuemoves",
    "Job": "jobs",
    "PersistQueue": "queues",
    "QueueEmptyError": "queueerrors",
    "QueueFullError": "queueerrors",
}


def __getattr__(name: str) -> Any:
    """What queues need is imported when it is asked for."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
