"""The LMDB store: the reference engine. One folder, any number of threads, handles and processes.

record.py       the bytes of an entry and of the index
folder.py       who may use a folder, and how a new database appears in it whole
gate.py         the locks that stand around opening and around every write
company.py      who is alone with a store, and so needs no gate for a small write
engine.py       one LMDB environment: locks, growth, errors
environment.py  the two environments of a folder in a process: opening, retries, fork
registry.py     each environment once in a process
recent.py       recent writes, which are not synced
latest.py       the last of them, told to all processes in mapped memory
drain.py        bringing them into the data
backup.py       a store of one moment elsewhere
compact.py      giving space back
presence.py     whether the files are still where they were
mounts.py       network file systems
readonly.py     media that cannot be written to
limits.py       what the limits of the process leave
store.py        the contract
scan.py         iteration in short snapshots
"""

from persistdict.stores.lmdb.store import LmdbStore

__all__ = ["LmdbStore"]
