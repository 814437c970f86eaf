"""The operations that are interrupted: what each does, what it comes to, and what else must go on afterwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

from drivers.running import left_over

from persistdict import PersistDict
from persistdict.stores.lmdb.folder import remove_folder
from persistdict.stores.lmdb.pages import PageFile

LARGE = bytes(50_000)


def open_one(folder: str, **options: Any) -> PersistDict[Any, Any]:
    return PersistDict(folder, **{"background_thread": "disabled", **options})


class Case:
    """A dictionary that is in use, and a dict that holds what it should.

    Attributes:
        number: of the attempt; what is written differs by it.
        kept: what an operation has left for the looks afterwards.
    """

    def __init__(self, folder: str, neighbour: Any) -> None:
        self.folder, self.neighbour = folder, neighbour
        self.number = 0
        self.model: dict[Any, Any] = {}
        self.options: dict[str, Any] = {}
        self.d: Any = None
        self.kept: Any = None

    def begin(self, operation: Operation) -> None:
        """Make the dictionary."""
        self.options = operation.options or {}
        self.d = self.open()
        self.d.update(START)
        self.model = dict(self.d.items())

    def open(self) -> Any:
        return open_one(self.folder, **self.options)


def nothing(case: Case) -> None:
    pass


class Operation(NamedTuple):
    """`ready` comes before it and `restore` after it; `change` does to the model what `do` does to the dictionary.

    `others` must go on for this thread and for another one.
    """

    do: Callable[[Case], Any]
    change: Callable[[Case], Any] = nothing
    ready: Callable[[Case], Any] = nothing
    restore: Callable[[Case], Any] = nothing
    others: Callable[[Case], Any] = nothing
    options: dict[str, Any] | None = None


START = {"k": 0, "b": [2], "large": LARGE, **{n: bytes(500) for n in range(40)}}


def both(change: Callable[[Any, int], Any], **rest: Any) -> Operation:
    """What is done to a dictionary and to a dict alike."""
    return Operation(lambda case: change(case.d, case.number), lambda case: change(case.model, case.number), **rest)


def write_before(case: Case) -> None:
    """So that there is something recent, and something to do."""
    for d in (case.d, case.model):
        d["recent"] = case.number


def delete_many(d: Any, n: int) -> None:
    if isinstance(d, dict):
        for key in (1, 2, 3, "k"):
            d.pop(key, None)
    else:
        d.delete_many([1, 2, 3, "k"])


def fill(case: Case) -> None:
    for d in (case.d, case.model):
        d.update(START)


# Of the whole folder


def reopen(case: Case) -> None:
    if case.d is None or case.d.closed:
        case.d = case.open()


def close(case: Case) -> None:
    case.d.close()


def close_again(case: Case) -> None:
    """One that was interrupted may be finished, and another handle opened beside it."""
    other = case.open()
    case.d.close()
    case.d = other


def open_it(case: Case) -> None:
    case.d = case.open()


def ready_to_open(case: Case) -> None:
    case.d.close()
    case.d = None


def ready_to_make(case: Case) -> None:
    case.d.close()
    case.d = None
    shutil.rmtree(case.folder)
    case.model = {}


def back_up(case: Case) -> None:
    case.d.backup(f"{case.folder}-backup")


def check_backup(case: Case) -> None:
    target, parent = f"{case.folder}-backup", os.path.dirname(case.folder)
    if os.path.exists(target):
        with open_one(target) as copy:
            assert dict(copy.items()) == case.model
        shutil.rmtree(target)
    assert os.listdir(parent) == [os.path.basename(case.folder)], "a part of a backup was left behind"


def check_nothing_left(case: Case) -> None:
    case.d.compact()
    assert not left_over(case.folder), left_over(case.folder)


def use_another(case: Case) -> None:
    with case.open() as d:
        d["k"]


def make_subfolder(case: Case) -> None:
    case.kept = f"{case.folder}-sub"
    os.makedirs(case.kept + "/inner")
    for name in ("a", "b", "inner/c"):
        with open(f"{case.kept}/{name}", "wb"):
            pass


def remove_rest(case: Case) -> None:
    remove_folder(case.kept)
    assert not os.path.exists(case.kept)


def read_pages(case: Case) -> None:
    file = PageFile(os.path.join(case.folder, "data.mdb"))
    file.meta(0)
    del file


FOLDERS = {
    "compact": Operation(lambda case: case.d.compact(), ready=write_before, restore=check_nothing_left),
    "backup": Operation(back_up, ready=write_before, restore=check_backup),
    "remove": Operation(lambda case: remove_folder(case.kept), ready=make_subfolder, restore=remove_rest),
    "pages": Operation(read_pages),
}
OPERATIONS = FOLDERS
