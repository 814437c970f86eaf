"""What the other tests rely on: the package runs under beartype."""

import importlib

import pytest
from typechecking import check_types_of

from persistdict.codecs import names_agree
from persistdict.keys import KeyCodec
from persistdict.testing import Clock

SAMPLE = """
from typing import NamedTuple

def function(number: int) -> object: ...

def wrong() -> str:
    return 1

async def coroutine(number: int) -> None: ...

class Pair(NamedTuple):
    left: int

class Class:
    def __init__(self, number: int = 0) -> None: ...
    def method(self, number: int) -> None: ...
    @classmethod
    def of_the_class(cls, number: int) -> None: ...
    @staticmethod
    def static(number: int) -> None: ...
    @property
    def wrong(self) -> str:
        return 1

    class Inner:
        def method(self, number: int) -> None: ...

def variable(number):
    local: int = number

def outer():
    def nested(number: int) -> None: ...
    class Nested:
        def method(self, number: int) -> None: ...
    return nested, Nested().method
"""


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A module that is checked as the package is."""
    folder = tmp_path_factory.mktemp("sample")
    (folder / "sample_of_types.py").write_text(SAMPLE)
    check_types_of("sample_of_types")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("sample_of_types")


def violation():
    return pytest.raises(TypeError, match="violates type hint")


def test_functions_of_a_module_are_checked(sample):
    for call in (sample.function, sample.variable):
        with violation():
            call("text")
    with violation():
        sample.wrong()


async def test_coroutines_are_checked(sample):
    with violation():
        await sample.coroutine("text")


def test_methods_are_checked(sample):
    calls = [
        sample.Class,
        sample.Class().method,
        sample.Class.of_the_class,
        sample.Class.static,
        sample.Class.Inner().method,
        sample.Pair,
    ]
    for call in calls:
        with violation():
            call("text")
    with violation():
        _ = sample.Class().wrong


def test_what_is_defined_within_a_function_costs_nothing(sample):
    for call in sample.outer():
        call("text")


def test_the_package_is_checked():
    with violation():
        names_agree("text", 1)
    with violation():
        KeyCodec().decode("text", b"")
    with violation():
        Clock("text")
