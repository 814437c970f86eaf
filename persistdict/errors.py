"""Every error that persistdict raises, once, grouped by the moment at which it can occur.

A missing key is `KeyError(key)` and nothing else; it is not in this tree. Every other error derives from
`PersistDictError` and from the built-in that a dict user would expect:

    PersistDictError
    |-- opening:  UnsafePathError (PermissionError), NotAStoreError (ValueError), MismatchError (ValueError),
    |             WrongKeyError (ValueError), MissingPackageError (ImportError), OpenError (OSError)
    |-- any time: ClosedError (ValueError), Unsupported (NotImplementedError), StoreError (OSError),
    |             StoreGoneError (StoreError), CorruptStoreError (StoreError)
    |-- reading:  CorruptEntryError (ValueError), TamperedError (CorruptEntryError), DecodeError (ValueError)
    |-- making:   StillComputingError (TimeoutError), NestedFactoryError (RuntimeError)
    |-- writing:  KeyTypeError (TypeError), ValueTypeError (TypeError), DiskFullError (OSError),
    |             ReadOnlyError (PermissionError),
    |             NestedWriteError (RuntimeError), ConflictError (RuntimeError), TransactionError (RuntimeError),
    |             ImmutableError (TypeError),
    |             BusyError (TimeoutError), FullError (RuntimeError), TooLargeError (ValueError)
    |-- upkeep:   MaintenanceError (RuntimeError), TargetExistsError (FileExistsError)
    `-- queues:   LeaseLostError (RuntimeError); QueueEmptyError (queue.Empty), QueueFullError (queue.Full), which are
                  in queueerrors.py, so that the module queue is imported only where it is used

and two warnings: DamagedEntryWarning (UserWarning), where raising would end an iteration, and ReadOnlyWarning
(UserWarning), in opening.

Messages name keys only by a digest and never contain values. Nor does what is displayed with them: where the cause is
an error of other code, a serializer's or a codec's, a stand-in takes its place (`withheld`).
"""

from __future__ import annotations

import errno

__all__ = [
    "BusyError",
    "ClosedError",
    "ConflictError",
    "CorruptEntryError",
    "CorruptStoreError",
    "DamagedEntryWarning",
    "DecodeError",
    "DiskFullError",
    "FullError",
    "ImmutableError",
    "KeyTypeError",
    "LeaseLostError",
    "MaintenanceError",
    "MismatchError",
    "MissingPackageError",
    "NestedFactoryError",
    "NestedWriteError",
    "NotAStoreError",
    "OpenError",
    "PersistDictError",
    "ReadOnlyError",
    "ReadOnlyWarning",
    "StillComputingError",
    "StoreError",
    "StoreGoneError",
    "TamperedError",
    "TargetExistsError",
    "TooLargeError",
    "TransactionError",
    "UnsafePathError",
    "Unsupported",
    "ValueTypeError",
    "WithheldError",
    "WrongKeyError",
    "refused",
    "told",
    "withheld",
]


class PersistDictError(Exception):
    """The base of every error of this package."""


# Opening


class UnsafePathError(PersistDictError, PermissionError):
    """The folder or a file in it belongs to somebody else, is a link, or may be written by everybody."""


class NotAStoreError(PersistDictError, ValueError):
    """The folder holds something that is not a persistdict store, or a newer format of it."""


class MismatchError(PersistDictError, ValueError):
    """The store was written with another codec, key serializer or key size limit than the opener asked for."""


class WrongKeyError(PersistDictError, ValueError):
    """The dictionary, or an entry of it, is sealed with a key that was not given. Nothing was changed."""


class MissingPackageError(PersistDictError, ImportError):
    """An option needs a package that is not installed; the message says how to install it."""


class OpenError(PersistDictError, OSError):
    """The operating system or LMDB refused to open the store."""


class ReadOnlyWarning(UserWarning):
    """The dictionary lies on a medium that cannot be written to: it can be read, and every write will raise."""


# At any time


class ClosedError(PersistDictError, ValueError):
    """The dictionary was used after close()."""


class Unsupported(PersistDictError, NotImplementedError):
    """The engine behind this dictionary cannot do what was asked."""


class StoreError(PersistDictError, OSError):
    """The engine failed in a way that has no error of its own; the cause is chained."""


class StoreGoneError(StoreError):
    """The files of an open store were deleted or replaced. What was written since the last flush may be lost."""


class CorruptStoreError(StoreError):
    """The store's file is cut short, or pages of it are damaged. `persistdict.salvage` reads what can be read."""


# Reading


class CorruptEntryError(PersistDictError, ValueError):
    """An entry's bytes on disk are damaged. Other entries are not affected, and nothing was deleted.

    Attributes:
        kb: the encoded key, where a search came upon it; else empty.
    """

    kb: bytes = b""


class TamperedError(CorruptEntryError):
    """An entry is intact, but not as it was sealed: somebody has changed or moved it. Nothing was deleted."""


class DecodeError(PersistDictError, ValueError):
    """An entry is intact, but this codec cannot turn its bytes into a value. Nothing was deleted."""


class DamagedEntryWarning(UserWarning):
    """An iteration passed over an entry that is damaged or that the codec cannot decode."""


# Making values


class StillComputingError(PersistDictError, TimeoutError):
    """Somebody else was still computing the value when the timeout was over. Nothing was changed."""


class NestedFactoryError(PersistDictError, RuntimeError):
    """A factory asked for the very value that it was called to make, and would have waited for itself for ever."""


# Writing


class KeyTypeError(PersistDictError, TypeError):
    """The key is of a type that has no encoding, and no key_serializer was given."""


class ValueTypeError(PersistDictError, TypeError):
    """The codec cannot store this value so that the same type and value come back."""


class DiskFullError(PersistDictError, OSError):
    """No space is left for the write. What was stored before is unharmed, and reads go on."""


class ReadOnlyError(PersistDictError, PermissionError):
    """The dictionary lies on a medium that cannot be written to. Reads go on."""


class NestedWriteError(PersistDictError, RuntimeError):
    """A write was begun by code that runs inside another write of the same thread."""


class BusyError(PersistDictError, TimeoutError):
    """Another process, which the message names, was in the way for longer than the timeout. Nothing was changed."""


class ConflictError(PersistDictError, RuntimeError):
    """What a transaction has read was changed by others before its end. Nothing was written; do it again."""


class TransactionError(PersistDictError, RuntimeError):
    """A transaction was used outside of its `with`, its thread or its function. Nothing of it is written."""


class ImmutableError(PersistDictError, TypeError):
    """The dictionary was made to keep every entry as it is, and this one is there already. Nothing was changed."""


class FullError(PersistDictError, RuntimeError):
    """The dictionary holds as much as its bounds allow, and eviction="none". Nothing was changed."""


class TooLargeError(PersistDictError, ValueError):
    """One entry is larger than all that the dictionary may hold, or a priority is too long. Nothing was changed."""


# Upkeep


class MaintenanceError(PersistDictError, RuntimeError):
    """Upkeep in the background failed or found damage since the last explicit call; the cause is chained."""


class WithheldError(Exception):
    """Stands in tracebacks for an error of other code, whose text and arguments may show a key or a value.

    It says what type of error that was and has its traceback. The error itself is its `__context__`, which nothing
    displays.
    """


def withheld(error: BaseException) -> BaseException:
    """What may be displayed as the cause of an error: an error of ours as it is, a stand-in for any other."""
    if isinstance(error, PersistDictError):
        return error
    stand_in = WithheldError(f"{type(error).__qualname__} (what it says may show data; it is the __context__ of this)")
    stand_in.__context__, stand_in.__suppress_context__ = error, True
    return stand_in.with_traceback(error.__traceback__)


def told(error: BaseException) -> str:
    """What messages say of an error: its type and, if it is ours, the system's or LMDB's, its text."""
    kind = type(error)
    ours = (
        isinstance(error, PersistDictError) or kind.__module__ == "lmdb" or (isinstance(error, OSError) and error.errno)
    )
    return f"{kind.__name__}: {error}" if ours else kind.__name__


def refused(error: OSError, what: str, path: str) -> PersistDictError:
    """The error for what the operating system refused while a store was opened: DiskFullError or OpenError."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(error.errno, f"cannot {what}: no space is left on the disk", path)
    advice = "; make the folder and its files writable for you" if error.errno == errno.EACCES else ""
    return OpenError(error.errno, f"cannot {what}: {error.strerror}{advice}", path)


class TargetExistsError(PersistDictError, FileExistsError):
    """A backup needs a new or empty folder, and something is there. Nothing was changed."""


# Queues


class LeaseLostError(PersistDictError, RuntimeError):
    """The lease of a job had run out, and the job went back to the queue; or the job is settled already."""
