"""The memory store: the contract without a disk. For tests, for copies, and to prove that the contract is not LMDB.

Entries live as long as a handle on them. Handles with the same name share their entries within the process.
"""

from persistdict.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
