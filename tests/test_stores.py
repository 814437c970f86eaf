"""The store contract, for every store and for the option that changes most of the code: the key size limit."""

import pytest

from persistdict.store import Store
from persistdict.stores.lmdb import LmdbStore
from persistdict.stores.memory import MemoryStore
from persistdict.testing import StoreContract


class TestMemoryStore(StoreContract):
    def open(self, **options) -> Store:
        return MemoryStore(str(self.path), **options)


class TestLmdbStore(StoreContract):
    def open(self, **options) -> Store:
        return LmdbStore(str(self.path / "store"), **options)


@pytest.mark.parametrize("limit", [1, 9, 18])
class TestLmdbStoreWithCroppedKeys(StoreContract):
    @pytest.fixture(autouse=True)
    def _limit(self, limit):
        self.limit = limit

    def open(self, **options) -> Store:
        return LmdbStore(str(self.path / "store"), key_size_limit=self.limit, **options)

    test_the_first_and_the_last_of_a_span = None  # cropped keys have no order


class TestLmdbStoreInASmallMap(StoreContract):
    """Every test runs into the end of the map, and does not notice."""

    def open(self, **options) -> Store:
        return LmdbStore(str(self.path / "store"), map_size=1 << 16, **options)
