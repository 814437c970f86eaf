"""Views: spaces and prefixes are dictionaries of their own over one store."""

import asyncio
import errno
import pickle
import random

import pytest
from drivers.running import answer_of, in_child
from hypothesis import given
from hypothesis import strategies as st
from strategies import KEYS, examples, same
from test import mapping_tests

from persistdict import DiskFullError, KeyTypeError, PersistDict, Unsupported
from persistdict.spans import KEPT_FROM
from persistdict.testing import Clock

QUIET = {"background_thread": "disabled"}


@pytest.fixture
def d(opened):
    return opened()


def space(*args, **kwargs):
    """A space that takes dict's arguments, among others in one dictionary."""
    d = PersistDict("memory://", **QUIET)
    d.update(a="the dictionary's")
    d.space("another")["key"] = "another's"
    view = d.space("one")
    view.update(*args, **kwargs)
    return view


def prefix(*args, **kwargs):
    """A prefix that takes dict's arguments."""
    d = PersistDict("memory://", **QUIET)
    d.update({"a": 1, ("a", 1.5): "another's", ("a",): 2})
    view = d.prefix("a", 1)
    view.update(*args, **kwargs)
    return view


class SpaceMappingTest(mapping_tests.BasicTestMappingProtocol):
    type2test = staticmethod(space)

    def test_fromkeys(self):
        """A view is not made by itself."""

    def test_setdefault(self):
        """As CPython tests it, but for changing a value in place: a stored value is never an alias."""
        d = self._empty_mapping()
        self.assertEqual([d.setdefault("key", []), d.setdefault("key", [1])], [[], []])


class PrefixMappingTest(SpaceMappingTest):
    type2test = staticmethod(prefix)


# Against models

PARTS = {
    "dictionary": lambda d: d,
    "space": lambda d: d.space("s"),
    "other space": lambda d: d.space("sp"),
    "prefix": lambda d: d.prefix("p", 1),
    "longer prefix": lambda d: d.prefix("p", 1).prefix(None),
    "prefix of a space": lambda d: d.space("s").prefix(2.5),
}
UNDER = {"prefix": ("dictionary", ("p", 1)), "longer prefix": ("dictionary", ("p", 1, None)),
         "prefix of a space": ("space", (2.5,))}  # fmt: skip
STEPS = st.tuples(
    st.sampled_from(sorted(PARTS)),
    st.sampled_from(["set", "set", "set", "delete", "popitem", "clear", "flush", "reopen", "update", "expire"]),
    KEYS,
    st.integers(),
)


class Model:
    """Dicts in place of the dictionary and its spaces; a prefix looks into them."""

    def __init__(self):
        self.dicts = {"dictionary": {}, "space": {}, "other space": {}}

    def of(self, part):
        """What is in a part: keys of the part, in order, and the real ones."""
        base, parts = UNDER.get(part, (part, None))
        if parts is None:
            return self.dicts[base], {key: key for key in self.dicts[base]}
        size = len(parts)
        real = {
            shortened(key[size:]): key for key in self.dicts[base] if isinstance(key, tuple) and key[:size] == parts
        }
        return self.dicts[base], real

    def real(self, part, key):
        parts = UNDER.get(part, (part, None))[1]
        if parts is None:
            return key
        return (*parts, *key) if isinstance(key, tuple) else (*parts, key)


def shortened(rest):
    return rest[0] if len(rest) == 1 and not isinstance(rest[0], tuple) else rest


def has_nan(key):
    return any(has_nan(part) for part in key) if isinstance(key, tuple) else key != key


@pytest.mark.parametrize("limit", [511, 20, 5])
@pytest.mark.parametrize("kind", ["lmdb", "memory"])
def test_every_part_is_as_a_dict(tmp_path, kind, limit):
    """And what is done to one is not seen in those that have nothing to do with it."""
    clock = Clock()
    path = f"memory://{tmp_path}" if kind == "memory" else tmp_path / "d"
    options = {**QUIET, "key_size_limit": limit, "clock": clock}
    keep = PersistDict(path, **options)  # so that memory stays

    @examples(60)
    @given(steps=st.lists(STEPS, max_size=25))
    def run(steps):
        steps = [step for step in steps if not has_nan(step[2])]
        d, model = PersistDict(path, **options), Model()
        for part, action, key, value in steps:
            view = PARTS[part](d)
            entries, real = model.of(part)
            if action == "set":
                view[key] = value
                entries[model.real(part, key)] = value
            elif action == "update":
                view.update({key: value, ("x", value): 1})
                for each, it in ((key, value), (("x", value), 1)):
                    entries[model.real(part, each)] = it
            elif action == "delete":
                assert view.pop(key, "absent") == entries.pop(model.real(part, key), "absent")
            elif action == "popitem" and real:
                last = list(real)[-1]
                assert same(view.popitem()[0], last)
                del entries[real[last]]
            elif action == "clear":
                view.clear()
                for each in real.values():
                    del entries[each]
            elif action == "expire":
                view.set(key, value, ttl=5)
                clock.now += 5
                entries.pop(model.real(part, key), None)
            elif action == "flush":
                d.flush()
            elif action == "reopen":
                d.close()
                d = PersistDict(path, **options)
        check(d, model)
        d.clear()
        for part in ("space", "other space"):
            PARTS[part](d).clear()
        assert keep._store.count() == 0
        assert d.verify().ok
        d.close()

    run()
    keep.close()


def check(d, model):
    for part, view_of in PARTS.items():
        view = view_of(d)
        entries, real = model.of(part)
        expected = [(key, entries[kept]) for key, kept in real.items()]
        found = list(view.items())
        assert list(map(repr, found)) == list(map(repr, expected)), part
        assert list(map(repr, reversed(view))) == [repr(key) for key, _ in reversed(expected)]
        assert len(view) == len(expected)
        assert bool(view) is bool(expected)
        assert view.newest(2) == [key for key, _ in expected[:-3:-1]]
        assert set(map(repr, view.range())) == {repr(key) for key, _ in expected}
        for key, value in expected[:3]:
            assert view[key] == value
            assert key in view
    assert d.spaces() == [name for name, part in (("s", "space"), ("sp", "other space")) if model.dicts[part]]


def test_looking_makes_nothing(d):
    empty = d.space("s"), d.prefix("a"), d.space("s").prefix(1)
    for view in empty:
        assert (list(view), len(view), view.get("k"), "k" in view, bool(view)) == ([], 0, None, False, False)
        assert view.pop("k", "none") == "none"
        view.clear()
    assert d.spaces() == []
    assert d._store.count() == 0


def test_views_share_the_cache_and_what_is_counted(d):
    d["a", "b"] = "x"
    view = d.prefix("a")
    assert view["b"] == d["a", "b"] == "x"
    view["b"] = "y"
    assert d["a", "b"] == "y"
    d["a", "b"] = "z"
    assert view["b"] == "z"
    s = d.space("s")
    s["k"] = "in the space"
    d["k"] = "not in it"
    assert (s["k"], d["k"], s["k"]) == ("in the space", "not in it", "in the space")
    assert d.stats().hits + d.stats().misses >= 6
    assert d.stats().entries == len(d) == 2


def test_every_verb_works_in_a_view(d):
    for view in (d.space("s"), d.prefix("p")):
        view.set("a", 1, tag="news", ttl=100)
        assert view.add("a", 2) is False
        assert view.incr("n") == 1
        version = view.get_versioned("a").version
        assert view.replace("a", 3, if_version=version)
        assert view.transform("a", lambda value: value + 1) == 4
        assert view.touch("a", ttl=50)
        view.set("b", 1, tag="news")
        d.set("outside", 1, tag="news")
        assert list(view.tagged("news")) == ["b"]
        assert view.get_many(["b", "x", "n"]) == {"b": 1, "n": 1}
        assert view.delete_many(["b", "x"]) == 1
        view.set("b", 1, tag="weather")
        assert view.tags() == ["weather"]
        assert view.evict(tag="weather") == 1
        assert view.evict(tag="news") == 0
        assert "outside" in d
        assert view.setdefault("n", 9) == 1
        assert view.sample(9) in (["a", "n"], ["n", "a"])
        assert list(view.range("b")) == ["n"]
        assert view.entry("a").size > 0
        assert view == {"a": 4, "n": 1} == dict(view) == view.copy() == view | {}
        assert type(view.copy()) is PersistDict
        view |= {"z": 1}
        assert view(first=1) is view
        view(second=1)
        assert ("first" in view, "second" in view, len(view)) == (True, False, 4)
        assert repr(view).startswith("<PersistDict(")
        view.clear()
    assert len(d) == 1


def test_a_copy_of_a_view_keeps_tags_and_ends(opened):
    clock = Clock()
    d = opened(clock=clock)
    view = d.space("s").prefix("p")
    view.set("a", 1, ttl=10, tag="news")
    copy = view.copy()
    assert (copy.entry("a").tag, copy.entry("a").expires_at) == ("news", clock.now + 10)


def test_names_and_parts_of_every_kind(d):
    names = ["a", "\x00", "\x00\xff", "ä" * 100, "a" * 200, "\ud800", " ", "a/b", "../x"]
    for name in names:
        d.space(name)["k"] = name
    assert [d.space(name)["k"] for name in names] == names
    assert set(d.spaces()) == set(names)
    parts = [(), (None,), (1,), (1, 2.5), ("a\x00", b"\x00\xff"), ((1, (2,)),), ("x" * 600,), (float("inf"),)]
    for number, each in enumerate(parts):
        d.prefix(*each)["own"] = number
    for number, each in enumerate(parts):
        assert d.prefix(*each)["own"] == number == d[(*each, "own")]
    for wrong in (1, None, b"a"):
        with pytest.raises(TypeError):
            d.space(wrong)
    for wrong in ("", "a" * 201):
        with pytest.raises(ValueError, match="1 to 200"):
            d.space(wrong)
    with pytest.raises(KeyTypeError):
        d.prefix(object())
    with pytest.raises(TypeError):
        d.space("s")[[1]]


def test_with_a_key_serializer_there_are_spaces_and_no_prefixes(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET, key_serializer=repr, key_unserializer=lambda raw: raw.decode()) as d:
        d.space("s")[{1: 2}.items()] = 1
        assert list(d.space("s")) == ["dict_items([(1, 2)])"]
        with pytest.raises(Unsupported, match="key_serializer"):
            d.prefix("a")


def test_a_view_travels(tmp_path):
    """By pickle and by fork; and is seen by others."""
    with PersistDict(tmp_path / "d", **QUIET) as d:
        view = d.space("s").prefix("p", 1)
        view["k"] = "v"
        sent = pickle.dumps(view)

        def work():
            found = [dict(view), dict(pickle.loads(sent))]
            view["child"] = 1
            return found

        assert answer_of(*in_child(work)) == [{"k": "v"}, {"k": "v"}]
        assert view["child"] == 1
        view.close()
        assert view["k"] == "v"
        assert not view.closed
    assert view.closed


def test_what_a_view_clears_is_gone_at_once(tmp_path):
    """Another process sees all of it or nothing."""
    with PersistDict(tmp_path / "d", **QUIET) as d:
        view = d.space("s")
        seen = []
        for _ in range(5):
            view.update(dict.fromkeys(range(2000), "v"))
            child = in_child(view.clear)
            while (count := len(view)) == 2000:
                seen.append(len(view))
            seen.append(count)
            answer_of(*child)
        assert set(seen) <= {0, 2000}


def test_many_entries_of_a_view_are_in_order(tmp_path, monkeypatch):
    """Also where they are too many to be put in order in memory."""
    from persistdict.stores.lmdb import scankeys

    with PersistDict(tmp_path / "d", **QUIET) as d:
        view = d.space("s")
        numbers = random.Random(1).sample(range(3000), 3000)
        for number in numbers[:100]:
            view[number] = number
            d[number] = "not in it"
        view.update((number, number) for number in numbers)
        assert list(view) == numbers
        monkeypatch.setattr(scankeys, "FEW", 1000)
        assert list(view) == numbers
        assert list(reversed(view)) == numbers[::-1]
        assert list(view.values()) == numbers


def test_bounds_hold_for_all_together(tmp_path):
    """And what is kept is no part of that."""
    with PersistDict(tmp_path / "d", **QUIET, max_entries=100) as d:
        kept = KEPT_FROM + b"\x01q"
        for number in range(300):
            d._store.put(kept + number.to_bytes(2, "big"), b"", 0, b"x")
            d[number] = 1
            d.space("s")[number] = 1
        assert 90 <= len(d) + len(d.space("s")) <= 100
        assert d._store.count() == len(d) + len(d.space("s")) + 300


def test_totals_are_counted_anew_by_a_repair(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d.space("s").update(dict.fromkeys(range(50), "x" * 40_000))
        d.update(a=1)
        d.flush()
        before = d._store.usage()

        def damage(txn):
            txn.put(d._store.env.dbs["k"] and b"outside", b"7 1", db=d._store.meta)
            txn.put(b"size", b"none", db=d._store.meta)

        d._store.env.data.update(damage)
        assert len(d) != 1
        d["b"] = 2
        d.flush()
        assert (len(d), len(d.space("s"))) == (2, 50)
        assert d._store.usage().entries == before.entries + 1


def test_views_are_used_by_tasks(d):
    """A view is as good as any object for asyncio: nothing in it is bound to a thread."""

    async def work(number):
        d.space("s")[number] = number
        await asyncio.sleep(0)
        return d.space("s")[number]

    async def main():
        return await asyncio.gather(*map(work, range(20)))

    assert asyncio.run(main()) == list(range(20))


@pytest.mark.parametrize("beside", ["nothing", "a space", "a space that is recent"])
def test_a_clear_without_room_takes_no_other_part_with_it(tmp_path, monkeypatch, beside):
    """Where recent writes cannot be drained, as the disk is full, clearing throws them away: not those of others."""
    from persistdict.stores.lmdb import writing

    really = writing.write_directly

    def without_room(rows, work, *, void=False):
        if not void:
            raise DiskFullError(errno.ENOSPC, "no space", rows.place)
        return really(rows, work, void=True)

    with PersistDict(tmp_path / "d", **QUIET) as d:
        d.update(dict.fromkeys(range(50)))
        if beside != "nothing":
            d.space("s")["k"] = 1
        if beside == "a space":
            d.flush()
            d.space("s")["k"] = 2
        with monkeypatch.context() as patched:
            patched.setattr(writing, "write_directly", without_room)
            if beside == "nothing":
                d.clear()
            else:
                with pytest.raises(DiskFullError):
                    d.clear()
                with pytest.raises(DiskFullError):
                    d.space("s").clear()
        assert len(d) == (0 if beside == "nothing" else 50)
        assert dict(d.space("s")) == {"nothing": {}, "a space": {"k": 2}}.get(beside, {"k": 1})
        d.flush()
        assert d.verify().ok
