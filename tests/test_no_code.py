"""No code that is in a file is ever run, and nothing is imported that could, unless the caller asks for pickle."""

import ast
import os
import pickle
from pathlib import Path

import pytest
from drivers.running import run_driver

import persistdict
from persistdict import DecodeError, PersistDict

ROOT = Path(persistdict.__file__).parent
# Where a name that stands for running code is meant: pickle where it is asked for, our own modules by a fixed list.
MEANT = {("codecs/other.py", "pickle"), ("__init__.py", "importlib")}
RUNS_CODE = {"eval", "exec", "compile", "__import__", "breakpoint"}
LOADS_CODE = {
    "pickle",
    "_pickle",
    "shelve",
    "marshal",
    "dill",
    "cloudpickle",
    "runpy",
    "imp",
    "importlib",
    "code",
    "codeop",
}
LOADS_CODE |= {"multiprocessing", "joblib", "jsonpickle", "yaml", "copyreg", "types"}


@pytest.mark.parametrize("how", ["imports", "calls", "audit"])
def test_the_default_path_loads_no_pickle_and_runs_no_code(how, tmp_path):
    """All that can be done without codec="pickle": with pickle out of reach, with its loaders cut off, and listened to.

    The last is the interpreter's own word that it compiles, executes, unmarshals and imports nothing.
    """
    found = run_driver("nopickle", tmp_path, how, quiet=True)
    assert found["events"] == []
    if how == "imports":
        assert found["loaded"] == []


def test_the_source_names_nothing_that_runs_code():
    """Whatever is called: neither eval and its like nor a module that makes objects or code of bytes."""
    found = set()
    for path in ROOT.rglob("*.py"):
        where = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RUNS_CODE:
                found.add((where, node.func.id))
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {(where, name.partition(".")[0]) for name in names if name.partition(".")[0] in LOADS_CODE}
    assert found - {(where, "types") for where, _ in found} == MEANT


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (self.place,)


@pytest.mark.parametrize("codec", ["safe", "json", "raw"])
def test_a_pickle_in_the_file_is_bytes_whatever_the_file_says_it_is(codec, tmp_path):
    """Under every tag that a record may have."""
    sprung = tmp_path / "sprung"
    for protocol in (0, 2, 5):
        with PersistDict(tmp_path / f"{protocol}", codec=codec, background_thread="disabled") as d:
            blob = pickle.dumps(Trap(str(sprung)), protocol)
            for tag in range(256):
                kb, hint = d._keys.encode(tag)
                d._store.put(kb, hint, tag, blob)
            for tag in range(256):
                try:
                    value = d[tag]
                except DecodeError:
                    continue
                assert value == {} or type(value) in (str, bytes, int), (tag, value)  # {}: what its first byte means
            assert d.verify().ok
    assert not sprung.exists()
    pickle.loads(blob)
    assert sprung.exists()  # the trap does work
