"""The store contract as tests, for engines of your own: derive from `StoreContract`, make the stores, run pytest.

    class TestMyStore(StoreContract):
        def open(self, **options):
            return MyStore(self.path / "store", **options)

`options` are `clock` and `idle`, as for the stores of this package. Every call opens another handle on the same
entries; the kit closes all of them. What is written is read through another handle, so that a store is not tested
with its own memory.
"""

from persistdict.testing.base import Clock
from persistdict.testing.entries import EntryTests
from persistdict.testing.labels import LabelTests
from persistdict.testing.many import ManyTests
from persistdict.testing.spans import SpanTests
from persistdict.testing.time import TimeTests
from persistdict.testing.use import UseTests

__all__ = ["Clock", "StoreContract"]


class StoreContract(EntryTests, ManyTests, TimeTests, UseTests, LabelTests, SpanTests):
    """One test for each sentence of the contract in `persistdict.store`."""
