"""persistdict: a persistent dictionary for Python, embedded, on LMDB.

from persistdict import PersistDict

d = PersistDict("cache")
"""

TYPE_CHECKING = False  # typing is slow to import
if TYPE_CHECKING:
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
        MissingPackageError,
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
        TamperedError,
        TargetExistsError,
        TooLargeError,
        TransactionError,
        UnsafePathError,
        Unsupported,
        ValueTypeError,
        WrongKeyError,
    )
    from persistdict.jobs import Job
    from persistdict.memoized import CacheInfo, Memoized
    from persistdict.queueerrors import QueueEmptyError, QueueFullError
    from persistdict.queuemoves import Flushed
    from persistdict.queues import PersistQueue
    from persistdict.reports import Fault, Quarantined, Report, Salvaged
    from persistdict.requests import make_key
    from persistdict.rescue import salvage
    from persistdict.sealing import Trained
    from persistdict.seals.compression import Lz4, Zlib, Zstd
    from persistdict.statistics import Stats, TaskStatus
    from persistdict.store import ABSENT, ANY
    from persistdict.untrusted import open_untrusted

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
    "Lz4",
    "MaintenanceError",
    "Memoized",
    "MismatchError",
    "MissingPackageError",
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
    "TamperedError",
    "TargetExistsError",
    "TaskStatus",
    "TooLargeError",
    "Trained",
    "TransactionError",
    "UnsafePathError",
    "Unsupported",
    "ValueTypeError",
    "Versioned",
    "WrongKeyError",
    "Zlib",
    "Zstd",
    "make_key",
    "open_untrusted",
    "salvage",
]

_ROOMS = {
    "codecs": "Codec SafeCodec",
    "conditions": "DELETE KEEP Versioned",
    "dictionary": "PersistDict",
    "entry": "Entry",
    "errors": (
        "BusyError ClosedError ConflictError CorruptEntryError CorruptStoreError DamagedEntryWarning "
        "DecodeError DiskFullError FullError ImmutableError KeyTypeError LeaseLostError MaintenanceError "
        "MismatchError MissingPackageError NestedFactoryError NestedWriteError NotAStoreError OpenError "
        "PersistDictError ReadOnlyError ReadOnlyWarning StillComputingError StoreError StoreGoneError "
        "TamperedError TargetExistsError TooLargeError TransactionError UnsafePathError Unsupported "
        "ValueTypeError WrongKeyError"
    ),
    "jobs": "Job",
    "memoized": "CacheInfo Memoized",
    "queueerrors": "QueueEmptyError QueueFullError",
    "queuemoves": "Flushed",
    "queues": "PersistQueue",
    "reports": "Fault Quarantined Report Salvaged",
    "requests": "make_key",
    "rescue": "salvage",
    "sealing": "Trained",
    "seals.compression": "Lz4 Zlib Zstd",
    "statistics": "Stats TaskStatus",
    "store": "ABSENT ANY",
    "untrusted": "open_untrusted",
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Everything is imported when it is asked for first."""
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
