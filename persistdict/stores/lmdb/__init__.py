"""The LMDB store: the reference engine. One folder, any number of threads, handles and processes.

record.py       the bytes of an entry and of the index
folder.py       who may use a folder, and how a new database appears in it whole
gate.py         the lock that stands around opening and around every write
environment.py  one LMDB environment per folder and process: registry, retries, growth, fork
store.py        the contract
scan.py         iteration in short snapshots
"""

from persistdict.stores.lmdb.store import LmdbStore

__all__ = ["LmdbStore"]
