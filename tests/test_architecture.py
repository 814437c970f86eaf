"""The rooms of the package and the arrows between them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import persistdict

ROOT = Path(persistdict.__file__).parent
# A module may import from its own room and from those to the left of it.
ROOMS = [
    ["checksum", "errors", "forking", "log", "flights", "turn", "waking"],
    ["entry", "keys", "codecs", "lru", "records", "reports", "setviews", "spans", "statistics"],
    ["canonical", "binding", "requests"],
    ["bounded", "clocked"],
    ["front", "store"],
    ["stores.memory", "stores.lmdb", "overlay", "routing", "modes"],
    ["seals"],
    ["ranking", "eviction"],
    ["tasks", "processes", "leases"],
    ["maintenance"],
    ["options", "rescue", "lifecycle"],
    ["agreement"],
    ["openable"],
    ["core"],
    ["upkeep", "tags", "making"],
    ["awaiting"],
    ["queuestate", "queueparts", "queuerows", "queuewait", "queueerrors"],
    ["queuecore"],
    ["jobs", "queuemoves"],
    ["queues"],
    ["queueing"],
    ["creation", "many", "dictlike", "conditions", "ordered"],
    ["memoized"],
    ["decorating"],
    ["memoize"],
    ["entries"],
    ["views"],
    ["transactions"],
    ["sealing"],
    ["dictionary"],
    ["untrusted"],
    ["__init__", "testing"],
    ["integrations"],
]


def room(module: str) -> int:
    """The number of the room that a module is in."""
    for number, names in enumerate(ROOMS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return number
    raise AssertionError(f"{module} is in no room; add it to ROOMS")


def modules() -> dict[str, Path]:
    """All modules of the package by their names within it."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        if name not in ("stores", "integrations", "seals"):  # empty packages
            found[name] = path
    return found


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("persistdict"):
            module = node.module.removeprefix("persistdict").lstrip(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".lstrip(".")
                found.add(inner if inner in modules() else module or "__init__")
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("persistdict.") for a in node.names if a.name.startswith("persistdict.")}
    return found


def test_arrows_run_only_to_the_left():
    """No module imports from a room to the right of its own."""
    for name, path in modules().items():
        for target in imports(path):
            assert room(target) <= room(name), f"{name} imports {target}"


def test_there_is_no_import_cycle():
    """No module leads back to itself by imports."""
    graph = {name: imports(path) - {name} for name, path in modules().items()}
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for target in graph.get(name, ()):
                walk(target, [*trail, name])
            done.add(name)

    for name in graph:
        walk(name, [])


def test_modules_stay_small():
    """A module has about 300 lines at most; the facade may have more."""
    for name, path in modules().items():
        if name != "dictionary":
            assert len(path.read_text().splitlines()) <= 330, name


def loaded_by(statement: str) -> set[str]:
    """The modules that a new interpreter has loaded after a statement."""
    code = f"import sys; before = {{*sys.modules}}; {statement}; print(*{{*sys.modules}} - before)"
    return {*subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()}


def test_the_package_itself_loads_nothing():
    """What is in it is loaded when it is asked for."""
    assert loaded_by("import persistdict") == {"persistdict"}


def test_optional_packages_are_not_imported_before_use():
    """PersistDict loads neither optional packages nor the slow ones, of the standard library or not."""
    loaded = loaded_by("from persistdict import PersistDict")
    optional = {"numpy", "loguru", "beartype", "langchain_core", "zstandard", "lz4", "cryptography"}
    slow = {"pickle", "lmdb_dict", "cachetools", "logging", "inspect", "dataclasses", "json", "hashlib", "asyncio"}
    assert not (optional | slow | {"ormsgpack", "subprocess", "tempfile", "shutil", "queue"}) & loaded


def test_every_name_of_the_package_is_there():
    """Also in what type checkers see."""
    assert {*persistdict.__all__} == {*persistdict._ROOM_OF} <= {*dir(persistdict)}
    for name in persistdict.__all__:
        assert getattr(persistdict, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_it"):
        _ = persistdict.nothing_of_it
    tree = ast.parse((ROOT / "__init__.py").read_text())
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert named == {*persistdict.__all__}
