"""CPython's own tests of mappings, run on PersistDict."""

import itertools
import tempfile
from pathlib import Path

from test import mapping_tests

from persistdict import PersistDict

_numbers = itertools.count()


def setUpModule():
    global _folder
    _folder = tempfile.TemporaryDirectory(prefix="persistdict-mapping-", dir=_fast_folder())


def tearDownModule():
    _folder.cleanup()


def _fast_folder():
    shm = Path("/dev/shm")
    return str(shm) if shm.is_dir() else None


class Fresh(PersistDict):
    """A PersistDict in a folder of its own, which takes dict's arguments."""

    def __init__(self, *args, **kwargs):
        super().__init__(f"{_folder.name}/{next(_numbers)}", background_thread="disabled")
        self.update(*args, **kwargs)


class FreshInMemory(PersistDict):
    """The same without a disk."""

    def __init__(self, *args, **kwargs):
        super().__init__("memory://", background_thread="disabled")
        self.update(*args, **kwargs)


class _Protocol:
    def test_setdefault(self):
        """As CPython tests it, but for changing a value in place: a stored value is never an alias."""
        mapping_tests.BasicTestMappingProtocol.test_setdefault(self)
        d = self._empty_mapping()
        self.assertTrue(d.setdefault("key0") is None)
        d.setdefault("key0", [])
        self.assertTrue(d.setdefault("key0") is None)
        d.setdefault("key", []).append(3)
        self.assertEqual(d["key"], [])

    def test_hash_protocol_where_keys_allow(self):
        """What TestHashMappingProtocol demands beyond, for keys that can be stored."""
        d = self._empty_mapping()
        self.assertRaises(TypeError, hash, d)
        self.assertRaises(TypeError, lambda: d[[]])
        self.assertRaises(TypeError, lambda: [] in d)
        self.assertEqual(self._full_mapping({1: 2}), self._full_mapping({1: 2}))
        self.assertNotEqual(self._full_mapping({1: 2}), self._full_mapping({1: 3}))


class LmdbMappingTest(_Protocol, mapping_tests.TestMappingProtocol):
    type2test = Fresh


class MemoryMappingTest(_Protocol, mapping_tests.TestMappingProtocol):
    type2test = FreshInMemory
