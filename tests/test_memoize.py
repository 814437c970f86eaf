"""Results that are kept: which calls are one entry, what is kept, and whose it is."""

import asyncio
import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import inspect
import os
import pickle
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
from drivers.running import answer_of, in_child

from persistdict import PersistDict, SafeCodec, Unsupported
from persistdict.canonical import Canonical
from persistdict.testing import Clock

QUIET = {"background_thread": "disabled"}


@pytest.fixture
def d(opened):
    return opened()


class Color(enum.Enum):
    RED = "red"


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


Pair = collections.namedtuple("Pair", "left right")
calls = []


def plain(a, b=2, *, c=3):
    calls.append((a, b, c))
    return [a, b, c]


@pytest.fixture(autouse=True)
def no_calls():
    calls.clear()


# Which calls are one entry


def test_calls_with_the_same_arguments_are_one_entry(d):
    """Given by position, by name, in any order, or by default."""
    f = d.memoize(plain)
    ways = [f(1), f(a=1), f(1, 2), f(b=2, a=1), f(1, c=3), f(c=3, b=2, a=1), f(1, b=2, c=3)]
    assert ways == [[1, 2, 3]] * 7
    assert calls == [(1, 2, 3)]
    assert len({id(way) for way in ways}) == 7
    assert f(2) == [2, 2, 3]
    assert f(1, 3) == [1, 3, 3]
    assert f(1, c=4) == [1, 2, 4]
    assert len(calls) == 4


@pytest.mark.parametrize("with_parentheses", [True, False])
def test_it_is_a_decorator(d, with_parentheses):
    if with_parentheses:

        @d.memoize()
        def f(x):
            """Doubles."""
            return 2 * x

    else:

        @d.memoize
        def f(x):
            """Doubles."""
            return 2 * x

    assert (f(2), f(2), f.__name__, f.__doc__) == (4, 4, "f", "Doubles.")
    assert f.__wrapped__(3) == 6
    assert "memoized" in repr(f)
    assert str(inspect.signature(f)) == "(x)"


def test_parameters_of_every_kind(d):
    @d.memoize
    def f(a, /, b, *rest, c=0, **more):
        calls.append(1)
        return [a, b, list(rest), c, more]

    assert f(1, 2) == f(1, b=2) == f(1, 2, c=0) == [1, 2, [], 0, {}]
    assert len(calls) == 1
    assert f(1, 2, 3, x=1, y=2) == f(1, 2, 3, y=2, x=1) == [1, 2, [3], 0, {"x": 1, "y": 2}]
    assert len(calls) == 2
    assert f(1, 2, a=5)[4] == {"a": 5}, "the name of a parameter that is given by position only"
    assert f(1, 2, (3,)) != f(1, 2, 3)
    assert len(calls) == 5


def test_a_call_that_the_function_would_refuse_is_refused(d):
    f = d.memoize(plain)
    for args, kwargs in [((), {}), ((1, 2, 3), {}), ((1,), {"a": 1}), ((1,), {"z": 1})]:
        with pytest.raises(TypeError, match="argument"):
            f(*args, **kwargs)
    assert not calls
    assert f.cache_info() == (0, 0, 0)


def test_equal_numbers_are_alike_unless_types_are_to_be_told_apart(d):
    f, g = d.memoize(plain), d.memoize(typed=True, name="g")(plain)
    for function, expected in ((f, 1), (g, 3)):
        calls.clear()
        for _ in range(2):
            for value in (1, 1.0, True):
                function(value)
        assert len(calls) == expected
        calls.clear()
        for value in ([1], [1.0], [True]):
            function(value)
        assert len(calls) == expected
    assert g({1}) == g({1})
    assert g.cache_key({1}) != g.cache_key(frozenset({1}))
    assert f.cache_key({1}) == f.cache_key(frozenset({1}))


def test_what_is_only_equal_in_python_is_told_apart(d):
    """Also where the key of an equal call is remembered."""

    @d.memoize
    def f(x):
        return [type(x).__name__]

    assert [f(1), f(decimal.Decimal(1)), f(1)] == [["int"], ["Decimal"], ["int"]]

    class Text(str, enum.Enum):
        A = "a"

    assert [f("a"), f(Text.A), f("a")] == [["str"], ["Text"], ["str"]]


@pytest.mark.parametrize("typed", [False, True])
def test_equal_arguments_have_the_same_key_and_different_ones_have_not(typed):
    morning = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
    different = [
        None, 0, 1, -1, 0.5, 10**40, "", "a", "1", b"a", b"", [], (), {}, set(), [1], (1,), {1}, [[1]], [1, 2], [2, 1],
        ["1"], [b"1"], {"a": 1}, {"a": 2}, {1: "a"}, {"a": {"b": [1]}}, [{}], ["ab", "c"], ["a", "bc"], [[], []],
        [[[]]],
        Color.RED, Mode.READ, Mode.READ | Mode.WRITE, Point(1), Point(1, 2), Pair(1, 2), (1, 2), {"x": 1, "y": 0},
        int, float, Point, decimal.Decimal("1.5"), morning, morning.date(),
        datetime.timedelta(1), uuid.UUID(int=1), Path("a"), 1j, bytearray(b"a"), float("inf"), float("nan"), "\ud800",
    ]  # fmt: skip
    encode = Canonical(SafeCodec(), typed).encode
    encoded = [encode(value) for value in different]
    assert len(set(encoded)) == len(different)
    assert encode({"a": 1, "b": [2]}) == encode({"b": [2], "a": 1})
    assert encode({f"{n}" for n in range(50)}) == encode({f"{n}" for n in reversed(range(50))})
    assert encode({1: {"x": 1, "y": 2}}) == encode({1: {"y": 2, "x": 1}})
    assert encode(Point(1)) == encode(Point(1, 0))


def test_keys_are_the_same_in_every_version():
    """They are on disk."""

    def key(*args):
        return Canonical(SafeCodec()).encode(list(args))

    assert key(1, "a", None) == (b"LK\0\0\0\0\0\0\0\x03\x10\x81\x01K\0\0\0\0\0\0\0\x020aK\0\0\0\0\0\0\0\x01\x01.")
    assert key({"a": ()}, {b"b"}) == b"LDK\0\0\0\0\0\0\0\x020aT..SK\0\0\0\0\0\0\0\x02 b.."
    with PersistDict("memory://") as d:
        f = d.memoize(name="name", version=2)(plain)
        assert f.cache_key(1) == "name#77db85c7cdd157f01daf699be8443a9f"


def test_arguments_that_make_no_key_are_named(d):
    f = d.memoize(plain)
    loop = []
    loop.append(loop)
    for wrong in (object(), lambda: 1, [object()], collections.OrderedDict(a=1), type("Text", (str,), {})("a"), loop):
        with pytest.raises(TypeError, match=r"argument b of .*plain cannot be part of a key.*ignore=\('b',\).*key="):
            f(1, wrong)
    assert not calls
    codec = SafeCodec()
    codec.register(complex_type := type("Own", (), {}), lambda value: "own", lambda text: complex_type())
    with PersistDict("memory://", **QUIET, codec=codec) as own:
        g = own.memoize(name="g")(lambda x: 1)
        assert g(complex_type()) == 1
        assert g.cache_key(complex_type()) == g.cache_key(complex_type()) != g.cache_key("own")


def test_what_is_ignored_makes_no_difference(d):
    @d.memoize(ignore=("verbose", "client", "token"))
    def f(x, verbose=False, *, client=None, **more):
        calls.append(1)
        return [x, sorted(more)]

    f(1)
    assert f(1, True, client=object(), token="secret") == [1, []]
    assert f(x=1, verbose=object()) == [1, []]
    assert len(calls) == 1
    f(1, other=1)
    f(1, other=1, token="another")
    assert len(calls) == 2

    @d.memoize(ignore=("more",))
    def g(x, **more):
        calls.append(1)
        return x

    g(1, a=1), g(1, b=2)
    assert len(calls) == 3


def test_impossible_options_are_refused(d):
    for options, error in [
        ({"ignore": ("z",)}, ValueError),
        ({"ignore": "a"}, TypeError),
        ({"version": object()}, TypeError),
        ({"key": str, "ignore": ("a",)}, ValueError),
        ({"key": str, "name": "name"}, ValueError),
        ({"key": str, "version": 1}, ValueError),
        ({"key": str, "typed": True}, ValueError),
        ({"ttl": -1}, ValueError),
        ({"early": -1}, ValueError),
    ]:
        with pytest.raises(error):
            d.memoize(**options)(plain)
    with pytest.raises(TypeError, match="generator"):

        @d.memoize
        def numbers():
            yield 1

    with pytest.raises(TypeError, match="for functions"):
        d.memoize(1)


# Whose entry it is


def test_functions_that_could_be_mixed_up_need_a_name(d):
    for function in (lambda x: x, functools.partial(plain, 1)):
        with pytest.raises(ValueError, match="name="):
            d.memoize(function)
        assert d.memoize(name="named")(function).cache_key(1).startswith("named#")
        assert d.memoize(key=lambda x: x)(function).cache_key(1) == 1

    def make(n):
        def add(x):
            return x + n

        return add

    with pytest.raises(ValueError, match=r"variables of the function around it \(n\)"):
        d.memoize(make(1))
    one, two = (d.memoize(name=f"add {n}")(make(n)) for n in (1, 2))
    assert (one(1), two(1)) == (2, 3)

    @d.memoize
    def countdown(n):
        return [n, *countdown(n - 1)] if n else []

    assert countdown(3) == [3, 2, 1]

    class Base:
        def f(self):
            return 1

    class Derived(Base):
        @d.memoize(ignore=("self",))
        def f(self):
            return super().f() + 1

    assert Derived().f() == 2


def test_names_and_versions_keep_entries_apart(d):
    f, again = d.memoize(plain), d.memoize(plain)
    g, newer = d.memoize(name="other")(plain), d.memoize(version=2)(plain)
    f(1), again(1)
    assert len(calls) == 1, "the same function has the same entries"
    g(1), newer(1)
    assert len(calls) == 3
    assert f.cache_key(1).startswith("test_memoize.plain#")


def test_the_key_may_be_ones_own(d):
    f = d.memoize(key=lambda a, **_: ("mine", a), tag="news")(plain)
    assert f(1) == f(1, c=object()) == [1, 2, 3]
    assert len(calls) == 1
    assert list(d) == [("mine", 1)]
    assert f.cache_key(1) == ("mine", 1)
    with pytest.raises(Unsupported, match="tag="):
        f.cache_clear()
    assert d.evict(tag="news") == 1


def test_methods(d):
    class Model:
        @d.memoize(ignore=("self",))
        def ask(self, question):
            """Asks."""
            calls.append(question)
            return [question]

        @d.memoize
        def tell(self, question):
            return question

        @classmethod
        @d.memoize
        def of_the_class(cls, x):
            calls.append(x)
            return [cls.__name__, x]

        @d.memoize
        @classmethod
        def of_the_class_too(cls, x):
            return [cls.__name__, x]

        @staticmethod
        @d.memoize
        def static(x):
            calls.append(x)
            return x

        @d.memoize()
        @staticmethod
        def static_too(x):
            return x

    class Other(Model):
        pass

    assert Model().ask("a") == Model().ask(question="a") == ["a"]
    assert calls == ["a"]
    model = Model()
    assert d[model.ask.cache_key("a")] == ["a"] == model.ask.bypass("a") == model.ask.refresh("a")
    assert len(calls) == 3
    assert model.ask.cache_info() == Model.ask.cache_info() == (1, 1, 2)
    assert model.ask.__doc__ == "Asks."
    with pytest.raises(TypeError, match=r"argument self .*ignore=\('self',\)"):
        model.tell("a")
    assert (Model.of_the_class(1), Other.of_the_class(1), Model().of_the_class(1)) == (
        ["Model", 1],
        ["Other", 1],
        ["Model", 1],
    )
    assert calls[3:] == [1, 1]
    assert (Model.of_the_class_too(1), Other.of_the_class_too(1)) == (["Model", 1], ["Other", 1])
    assert Model.static(2) == Model().static(2) == Model.static_too(2) == Model().static_too(2) == 2
    assert calls[5:] == [2]
    assert model.ask.cache_clear() == 1


def test_an_object_that_makes_a_key_takes_part_in_it(d):
    @dataclasses.dataclass
    class Adder:
        n: int

        @d.memoize
        def add(self, x):
            return self.n + x

    assert [Adder(1).add(1), Adder(2).add(1), Adder(1).add(1)] == [2, 3, 2]
    assert Adder.add.cache_info() == (1, 2, 2)


# What is kept


@pytest.mark.parametrize("value", [None, 0, "", [], {}])
def test_what_is_empty_is_kept(d, value):
    f = d.memoize(name="f")(lambda: calls.append(1) or value)
    assert f() == f() == value
    assert len(calls) == 1


def test_what_is_raised_is_not_kept(d):
    @d.memoize
    def f(x):
        calls.append(x)
        raise KeyError(x)

    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            f(1)
        assert caught.value.__context__ is None
    assert len(calls) == 2
    assert f.cache_info() == (0, 2, 0)
    assert len(d) == 0


def test_results_have_their_time_and_their_tag(opened):
    clock = Clock()
    d = opened(clock=clock)
    f = d.memoize(ttl=10, tag="news")(plain)
    f(1)
    assert (d.entry(f.cache_key(1)).expires_at, d.entry(f.cache_key(1)).tag) == (clock.now + 10, "news")
    clock.now += 10
    f(1)
    assert len(calls) == 2


def test_some_results_are_not_kept(d):
    f = d.memoize(cache_if=lambda value: value[0] > 0)(plain)
    f(0), f(0), f(1), f(1)
    assert len(calls) == 3


def test_what_can_be_asked_of_it(d):
    f = d.memoize(plain)
    f(1), f(1), f(2)
    assert f.cache_info() == (1, 2, 2)
    assert f.cache_info()._fields == ("hits", "misses", "computed")
    assert d[f.cache_key(1)] == d[f.cache_key(a=1, b=2)] == [1, 2, 3]
    assert f.bypass(3) == [3, 2, 3]
    assert f.cache_key(3) not in d
    d[f.cache_key(1)] = "old"
    assert f(1) == "old"
    assert f.refresh(1) == [1, 2, 3] == f(1)
    assert f.refresh(4) == [4, 2, 3] == d[f.cache_key(4)]
    assert f.cache_info() == (3, 2, 4)


def test_what_is_set_during_a_refresh_stays(d):
    @d.memoize(name="f")
    def f(x):
        if calls:
            d[f.cache_key(x)] = "theirs"
        calls.append(1)
        return "mine"

    assert f(1) == "mine"
    assert f.refresh(1) == "theirs" == f(1)


def test_a_refresh_that_fails_leaves_the_result(d):
    @d.memoize
    def f(x):
        calls.append(1)
        if len(calls) > 1:
            raise ValueError("no")
        return "old"

    f(1)
    with pytest.raises(ValueError, match="no"):
        f.refresh(1)
    assert f(1) == "old"


@pytest.mark.parametrize("serializer", [False, True])
def test_all_results_of_one_function_are_removed(tmp_path, serializer):
    options = {"key_serializer": repr, "key_unserializer": lambda data: eval(data)} if serializer else {}
    with PersistDict(tmp_path / "d", **QUIET, **options) as d:
        f, newer, longer, other = (
            d.memoize(name="f")(plain),
            d.memoize(name="f", version=2)(plain),
            d.memoize(name="f#f")(plain),
            d.memoize(name="f2")(plain),
        )
        for n in range(1500):
            f(n)
        newer(1), longer(1), other(1)
        d["f#"] = d["f"] = d["f#" + "0" * 31] = d[("f", 1)] = 1
        assert f(7) == [7, 2, 3]
        assert f.cache_clear() == 1501
        assert len(d) == 6
        calls.clear()
        f(7), longer(1), other(1)
        assert calls == [(7, 2, 3)]
        assert f.cache_clear() == 1


def test_one_computes_for_all(d):
    go = threading.Event()

    @d.memoize(name="f")
    def f(x):
        calls.append(x)
        assert go.wait(20)
        return [x]

    results = []
    threads = [threading.Thread(target=lambda: results.append(f(1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert results == [[1]] * 8
    assert calls == [1]
    info = f.cache_info()
    assert (info.hits + info.misses, info.computed) == (8, 1)


def test_processes_share_results(tmp_path):
    path = tmp_path / "d"

    def ask():
        with PersistDict(path, **QUIET) as d:
            f = d.memoize(plain)
            return [f(1, b=[1, 2]), list(f.cache_info())]

    assert answer_of(*in_child(ask)) == [[1, [1, 2], 3], [0, 1, 1]]
    assert answer_of(*in_child(ask)) == [[1, [1, 2], 3], [1, 0, 0]]


def test_early_recomputation(opened):
    clock = Clock()
    d = opened(clock=clock)
    drawn = [1.0]
    d._draw = lambda: drawn[0]

    @d.memoize(ttl=100, early=1.0, name="f")
    def f(x):
        clock.now += 10
        calls.append(x)
        return len(calls)

    @d.memoize(ttl=100, early=1.0, name="g")
    async def g(x):
        return f.bypass(x)

    assert (f(1), f(1), asyncio.run(g(1)), asyncio.run(g(1))) == (1, 1, 2, 2)
    clock.now += 70
    drawn[0] = 0.01
    assert (f(1), asyncio.run(g(1))) == (3, 4)
    assert f.cache_info() == g.cache_info() == (2, 1, 2)


def test_what_was_called_is_remembered_up_to_a_bound(d):
    f = d.memoize(name="f")(lambda x: 1)
    for n in range(1030):
        f.cache_key(n)
    f.cache_key("x" * 10_000), f.cache_key([1])
    assert 0 < len(f._known) <= 1024
    assert not any("x" * 10 in str(call) for call in f._known)


# Coroutine functions


async def test_coroutine_functions(d):
    go = asyncio.Event()

    @d.memoize(name="f")
    async def f(x, *, y=0):
        """Asks."""
        calls.append(x)
        await go.wait()
        return [x, y]

    tasks = [asyncio.create_task(f(1)) for _ in range(8)]
    await asyncio.sleep(0.001)
    go.set()
    values = await asyncio.gather(*tasks)
    assert values == [[1, 0]] * 8
    assert calls == [1]
    assert await f(1, y=0) == [1, 0]
    assert await f.bypass(1) == [1, 0]
    assert len(calls) == 2
    assert await f.refresh(1) == [1, 0] == d[f.cache_key(1)]
    assert f.cache_info() == (1, 8, 2)
    assert asyncio.iscoroutinefunction(f) if sys.version_info < (3, 12) else inspect.iscoroutinefunction(f)
    assert f.cache_clear() == 1


async def test_coroutine_methods(d):
    class Model:
        @d.memoize(ignore=("self",))
        async def ask(self, question):
            calls.append(question)
            return question

    assert await Model().ask("a") == await Model().ask(question="a") == await Model().ask.bypass("a") == "a"
    assert calls == ["a", "a"]

    @d.memoize
    async def fail():
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await fail()


# Pickling, types


memory = PersistDict("memory://", background_thread="disabled")
remembered = memory.memoize(plain)
remembered.__qualname__ = "remembered"


def test_it_is_pickled_by_its_name():
    assert pickle.loads(pickle.dumps(remembered)) is remembered


SNIPPET = """
from typing import reveal_type
from persistdict import PersistDict

d: PersistDict[str, object] = PersistDict("memory://")

@d.memoize
def plain(a: int, b: str = "") -> list[int]:
    return [a]

@d.memoize(ttl=60, ignore=("self",))
async def later(a: int) -> str:
    return ""

class Model:
    @d.memoize(ignore=("self",))
    def ask(self, question: str) -> float:
        return 1.0
    @staticmethod
    @d.memoize
    def static(x: int) -> int:
        return x

async def main() -> None:
    reveal_type(plain(1, b="x"))
    reveal_type(plain.refresh(1))
    reveal_type(plain.bypass(1))
    reveal_type(await later(1))
    reveal_type(Model().ask("x"))
    reveal_type(Model().ask.refresh("x"))
    reveal_type(Model.static(1))
    reveal_type(plain.cache_info().hits)
    reveal_type(d.get_or_create("k", lambda: 1))
    plain("x")
    plain()
    Model().ask(1)
    plain.refresh(b=1)
"""


def test_type_checkers_see_the_function_itself(tmp_path):
    (tmp_path / "snippet.py").write_text(SNIPPET)
    root = Path(__file__).parent.parent
    options = [
        "--strict",
        "--ignore-missing-imports",
        "--follow-imports=silent",
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    command = [sys.executable, "-m", "mypy", *options, "snippet.py"]
    env = {**os.environ, "MYPYPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=env)
    revealed = [line.partition('Revealed type is "')[2][:-1] for line in done.stdout.splitlines() if "Revealed" in line]
    assert [each.replace("builtins.", "") for each in revealed] == [
        "list[int]", "list[int]", "list[int]", "str", "float", "float", "int", "int", "object",
    ], done.stdout  # fmt: skip
    errors = [line.partition("error: ")[2] for line in done.stdout.splitlines() if "error:" in line]
    assert len(errors) == 5, done.stdout  # of them refresh has two: a is missing, and b is of a wrong type
    assert all("arg" in error or "Missing" in error for error in errors)


class Scaled:
    """Has a method, a class method, and one that is wrapped."""

    def __init__(self, factor):
        self.factor = factor

    def times(self, x):
        return self.factor * x

    @classmethod
    def who(cls):
        return cls.__name__


def scaled_by(factor):
    def decorate(function):
        @functools.wraps(function)
        def wrapped(x):
            return factor * function(x)

        return wrapped

    return decorate


def unscaled(x):
    return x


def test_what_has_more_to_it_than_its_name_needs_another(opened):
    """A bound method has its object, and a function that is wrapped what its wrapper uses."""
    d = opened()
    for function in (Scaled(1).times, Scaled.who, scaled_by(2)(unscaled)):
        with pytest.raises(ValueError, match="name="):
            d.memoize(function)
    twice, thrice = (d.memoize(name=f"times {n}")(scaled_by(n)(unscaled)) for n in (2, 3))
    assert (twice(5), thrice(5)) == (10, 15)


@dataclasses.dataclass
class Seeded:
    x: int
    seed: dataclasses.InitVar[int] = 0


class Tagged(Seeded):
    """Has more than its fields."""


def test_dataclasses_count_by_their_fields(opened):
    d = opened()

    @d.memoize(name="f")
    def f(point):
        return point.x

    assert (f(Seeded(1, seed=5)), f(Seeded(1)), f.cache_info().computed) == (1, 1, 1)
    with pytest.raises(TypeError, match="point"):
        f(Tagged(1))
