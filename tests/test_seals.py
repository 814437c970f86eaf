"""Seals: what is compressed, signed or encrypted comes back as it was, or not at all."""

import builtins
import contextlib
import functools
import hmac
import os
import pickle
import random
import secrets
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path

import pytest
from drivers import tamper
from loguru import logger

from persistdict import (
    BusyError,
    CorruptEntryError,
    DamagedEntryWarning,
    DecodeError,
    Lz4,
    MismatchError,
    MissingPackageError,
    PersistDict,
    TamperedError,
    Unsupported,
    WrongKeyError,
    Zlib,
    Zstd,
    salvage,
)
from persistdict.options import Options
from persistdict.seals import protection
from persistdict.seals.keyring import Keyring
from persistdict.seals.seal import Asked
from persistdict.seals.sealed import Sealed
from persistdict.stores.lmdb import LmdbStore
from persistdict.stores.memory import MemoryStore
from persistdict.testing import Clock, StoreContract

KEY, NEW = b"k" * 32, b"n" * 32
QUIET = {"background_thread": "disabled"}
COMPRESSIONS = ["zlib", "zstd", "lz4"]
SEALS = {
    "zlib": {"compression": "zlib"},
    "zstd": {"compression": "zstd"},
    "lz4": {"compression": "lz4"},
    "encrypted": {"encryption_key": KEY},
    "signed": {"signing_key": KEY},
    "zstd, encrypted": {"compression": "zstd", "encryption_key": KEY},
    "lz4, signed": {"compression": "lz4", "signing_key": KEY},
}
every_seal = pytest.mark.parametrize("seal", SEALS.values(), ids=SEALS)
protected = pytest.mark.parametrize("option", ["encryption_key", "signing_key"])


def sealed(store, compression=None, encryption=None, signing=None):
    """A store behind a seal, as a dictionary makes it."""
    asked = Asked(compression, Keyring.of("encryption_key", encryption), Keyring.of("signing_key", signing))
    if not asked.is_enrolled(store.info()):
        store.update(asked.enroll, whole=True)
    return Sealed(store, asked.open(store))


class OfAnotherSize(StoreContract):
    """Sizes are those of what was sealed; the tag is sealed with the value, and told with it only."""

    test_the_store_says_what_it_takes = None
    test_usage_counts_entries_and_their_bytes = None
    test_accesses_tell_the_last_use_in_order_of_creation = None
    test_entries_are_listed_by_their_label_in_order_of_creation = None


class TestSealedMemoryStore(OfAnotherSize):
    def open(self, **options):
        return sealed(MemoryStore(str(self.path), **options), compression=Zlib(), encryption=KEY)

    test_the_first_and_the_last_of_a_span = None  # encrypted keys have no order
    test_what_is_kept_is_no_cache = None  # candidates for eviction are named as they are in the store
    test_a_label_stands_beside_any_value_and_any_time_limit = None  # labels are 16 bytes shorter at most


class TestSignedLmdbStore(OfAnotherSize):
    def open(self, **options):
        return sealed(LmdbStore(str(self.path / "store"), **options), compression=Zstd(), signing=KEY)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "d"


@pytest.fixture
def log_lines():
    """What is logged while a test runs, as tools show it that tell what the lines of a traceback speak of."""
    lines = []
    sink = logger.add(lines.append, level=0, format="{message}", backtrace=False, diagnose=True)
    yield lines
    logger.remove(sink)


def dictionary(path, **options):
    return PersistDict(path, **{**QUIET, **options})


def contents(path: Path) -> dict[str, bytes]:
    """What is in the files of a store, as it is on the disk."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


# What comes back


@every_seal
def test_every_value_comes_back_from_another_handle(path, seal):
    values = {
        "text": "äx" * 5000,
        "bytes": b"\0" * 100_000,
        1: 2.5,
        ("t", 1.5): [1, {"a": (2, 3)}],
        None: "",
        7: "x" * 63,
    }
    values["large"] = random.Random(1).randbytes(3_000_000)
    with dictionary(path, **seal) as d:
        d.update(values)
        d.space("s")["k"] = "x" * 1000
        d.queue("q").put("item" * 100)
    with dictionary(path, **seal) as d:
        assert dict(d) == values
        assert [type(key) for key in d] == [type(key) for key in values]
        assert (dict(d.space("s")), d.queue("q").get()) == ({"k": "x" * 1000}, "item" * 100)
        assert d.entry("text").size == 15_000
        assert d.verify().ok


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_can_be_smaller_is_and_what_cannot_stays_as_it_is(compression):
    d = dictionary("memory://", compression=compression)
    d["text"], d["noise"], d["short"] = b"abc " * 1000, secrets.token_bytes(4000), b"x" * 30
    bare = d._opened().bare
    sizes = {item.kb[1:]: (item.tag & 0x0F, len(item.blob)) for item in bare.scan()}
    assert sizes[b"text"][0] == d._options.compression.number and sizes[b"text"][1] < 200
    assert sizes[b"noise"] == (0, 4001)
    assert sizes[b"short"] == (0, 31)


def test_what_is_too_large_to_be_compressed_is_stored_as_it_is():
    d = dictionary("memory://", compression=Zlib(max_size=1000, level=9))
    d["a"] = "x" * 5000
    assert d["a"] == "x" * 5000
    assert d._opened().bare.last().tag == 0x80


def test_many_keys_of_a_space_lie_in_it_whatever_their_bytes_become(path):
    """The hash of a key may begin with any byte."""
    d = dictionary(path, encryption_key=KEY)
    for name in ("a", "bb", "c"):
        d.space(name).update(dict.fromkeys(range(700), name))
    assert [len(list(d.space(name))) for name in ("a", "bb", "c")] == [700] * 3
    assert [len(d.space(name)) for name in ("a", "bb", "c")] == [700] * 3
    assert list(d.space("bb").range(690)) == list(range(690, 700))
    d.space("bb").clear()
    assert d.spaces() == ["a", "c"]
    d.close()


def test_threads_share_a_handle(path):
    d = dictionary(path, compression="zstd", encryption_key=KEY)
    failed = []

    def work(number):
        rng = random.Random(number)
        for n in range(200):
            value = [number, n, "text" * rng.randrange(100)]
            d[number, n] = value
            if d[number, n] != value or d.get((number, rng.randrange(n + 1)))[0] != number:
                failed.append((number, n))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(d) == 1200
    d.close()


# What reaches the disk


def test_nothing_in_the_clear_reaches_the_disk(path):
    """Neither while it is open, nor drained, nor in a backup."""
    canary = "canary-7fX"
    forms = [canary.encode(), canary.encode().hex().encode(), canary.encode("utf-16-le"), canary[:6].encode()]

    def check(folder):
        for name, data in contents(folder).items():
            assert not [form for form in forms if form in data], name

    d = dictionary(path, encryption_key=KEY, compression="zstd")
    d[canary] = canary
    d[canary, 1.5] = {canary: [canary]}
    d["x" * 600 + canary] = canary * 100_000
    d.set("tagged", canary, tag=canary)
    d.space(canary)(a=canary)
    d.prefix(canary)(b=canary)
    d.queue(canary).put(canary)
    d.queue(canary).get(lease=1000)
    d.memoize(name=canary)(lambda text: text * 2)(canary)
    with d.transaction() as t:
        t[canary + "2"] = canary
        t.set("tagged in it", canary, tag=canary + "2")
    d.set_many({canary + "4": canary}, tag=canary + "3")
    d.prefix(canary).prefix(1.5)[canary] = d.get_or_create(canary + "5", lambda: (check(path), canary)[1])
    d.update({f"{canary}{n}": f"{canary} {n} " * 5 for n in range(600)})
    d.train_dictionary(size=512)
    d[canary + "3"] = canary
    check(path)
    d.flush()
    check(path)
    d.backup(path.parent / "backup")
    d.close()
    check(path)
    check(path.parent / "backup")


def test_equal_values_do_not_look_alike_and_nonces_are_never_used_twice():
    d = dictionary("memory://", encryption_key=KEY)
    d.update(dict.fromkeys(range(5000), "the same"))
    for number in range(5000):
        d[number] = "the same"
    blobs = [item.blob for item in d._opened().bare.scan()]
    assert len({blob[1:13] for blob in blobs}) == len({blob[13:] for blob in blobs}) == 5000


def test_the_same_name_looks_another_in_every_place():
    """As a key, in two spaces, as a tag, and in another dictionary with the same key."""
    d, other = dictionary("memory://", encryption_key=KEY), dictionary("memory://", encryption_key=KEY)
    d.set("n", 1, tag="n")
    d.space("n")["n"], d.space("m")["n"], other["n"] = 1, 1, 1
    records = [store.bare.get(item.kb) for store in (d._opened(), other._opened()) for item in store.bare.scan()]
    pieces = [record.kb[-17:] for record in records] + [record.label[-17:] for record in records if record.label]
    assert len(set(pieces)) == len(pieces) == 5


# Formats, read by other means


def derived(salt, purpose):
    """A key for one purpose, as cryptography makes it."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), 32, salt, b"persistdict " + purpose).derive(KEY)


def test_an_encrypted_store_is_as_its_format_says():
    """Numbers, contexts and derived keys; see protection.py, names.py and seal.py."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

    d = dictionary("memory://", encryption_key={7: KEY}, compression="zlib")
    d.set(2.0, "text" * 50, tag="t")
    d.space("s")["k"] = 1
    d.queue("q").put(1)
    bare = d._opened().bare
    info = bare.info()
    number, note = info["seal keys"].split(":")
    salt, note = bytes.fromhex(info["seal salt"]), bytes.fromhex(note)
    assert (info["seal"], number, len(salt)) == ("zlib+aes-256-gcm", "7", 16)
    secret = AESGCM(derived(salt, b"secret")).decrypt(note[:12], note[12:], b"persistdict\x01secret")
    siv, gcm = AESSIV(secret), AESGCM(derived(salt, b"values"))
    items = list(bare.scan())
    record = bare.get(items[0].kb)
    kb = siv.decrypt(record.kb[1:], [b"key"])
    assert record.kb[:1] == b"\x60" and kb == d._keys.encode(2)[0]
    assert siv.decrypt(record.hint, [b"hint", kb]) == b"\x00f"
    assert siv.decrypt(record.label, [b"label"]) == b"t"
    assert (record.tag, record.blob[0]) == (0x80 | 2 << 4 | 1, 7)
    body = gcm.decrypt(record.blob[1:13], record.blob[13:], b"persistdict\x01" + bytes((record.tag,)) + record.kb)
    plain = zlib.decompress(body[4:])
    assert (int.from_bytes(body[:4], "little"), plain[1:]) == (201, b"text" * 50)
    head = b"\xf0\x11" + siv.encrypt(b"s", [b"space"])
    assert items[1].kb[:19] == head and siv.decrypt(items[1].kb[20:], [b"key" + head]) == b"0k"
    assert {item.kb[:19] for item in items[2:]} == {b"\xf1\x11" + siv.encrypt(b"q", [b"queue"])}
    d.close()


def test_a_signed_store_is_as_its_format_says():
    d = dictionary("memory://", signing_key={7: KEY})
    d[2.0] = "text"
    bare = d._opened().bare
    info = bare.info()
    key = derived(bytes.fromhex(info["seal salt"]), b"signing")
    kb = d._keys.encode(2)[0]
    record, length = bare.get(kb), len(kb).to_bytes(4, "little")

    def signed(data):
        return hmac.digest(key, b"persistdict\x01" + data, "sha256")

    assert (info["seal"], info["seal keys"]) == ("hmac-sha256", f"7:{signed(b'key 7').hex()}")
    assert (record.tag, record.blob[0], record.blob[34:]) == (0x90, 7, b"text")
    assert record.blob[1:33] == signed(b"\x90" + length + kb + record.blob[33:])
    assert record.hint == b"\x07" + signed(b"hint" + length + kb + b"f")[:16] + b"f"
    d.close()


# Keys and kinds


@protected
def test_a_wrong_or_missing_key_is_one_error_and_changes_nothing(path, option):
    with dictionary(path, **{option: KEY}) as d:
        d["a"] = 1
    before = contents(path)
    for options in ({}, {option: NEW}, {option: {1: KEY}}, {option: {0: NEW, 1: KEY}}, {"compression": "zlib"}):
        for mode in ("rw", "r"):
            with pytest.raises(WrongKeyError, match="nothing was changed"):
                dictionary(path, mode=mode, **options)
    after = contents(path)
    assert before["data.mdb"] == after["data.mdb"]
    with dictionary(path, **{option: KEY}) as d:
        assert dict(d) == {"a": 1}


@pytest.mark.parametrize("asked", [{}, *SEALS.values()])
@pytest.mark.parametrize("made", [{}, *SEALS.values()])
def test_a_seal_of_another_kind_is_refused(path, made, asked):
    with dictionary(path, **made) as d:
        d["a"] = 1
    if made == asked:
        dictionary(path, **asked).close()
        return
    with pytest.raises((MismatchError, WrongKeyError), match="nothing was changed"):
        dictionary(path, **asked)
    with dictionary(path, **made) as d:
        assert dict(d) == {"a": 1}


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"encryption_key": "password"}, TypeError, "scrypt"),
        ({"encryption_key": b"short"}, ValueError, "has 5 bytes"),
        ({"encryption_key": {}}, ValueError, "empty"),
        ({"encryption_key": {256: KEY}}, ValueError, "0 to 255"),
        ({"encryption_key": {"a": KEY}}, TypeError, "number of a key"),
        ({"signing_key": {1: 5}}, TypeError, "signing_key must be 32 bytes"),
        ({"encryption_key": KEY, "signing_key": KEY}, ValueError, "not both"),
        ({"compression": "gzip"}, ValueError, "'zlib', 'zstd', 'lz4'"),
        ({"compression": 5}, TypeError, "a name, Zlib"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_made(path, options, error, match):
    with pytest.raises(error, match=match):
        Options(path, **options).checked()
    with pytest.raises(error):
        dictionary(path, **options)
    assert not path.exists()


@pytest.mark.parametrize("make", [lambda: Zlib(level=0), lambda: Zstd(level=23), lambda: Lz4(max_size=0)])
def test_impossible_compressions_are_refused(make):
    with pytest.raises(ValueError, match="must be an int from"):
        make()


def the_key():
    return {3: KEY}


def test_a_key_is_not_pickled_but_the_function_that_returns_it_is(path):
    with dictionary(path, encryption_key=KEY) as d, pytest.raises(TypeError, match="the key would be in the pickle"):
        pickle.dumps(d)
    with dictionary(path.parent / "e", encryption_key=the_key, compression=Zstd(level=5)) as d:
        d["a"] = 1
        raw = pickle.dumps(d)
        assert KEY not in raw
        with pickle.loads(raw) as again:
            assert again["a"] == 1


def test_a_key_is_shown_by_nothing(path):
    d = dictionary(path, encryption_key=KEY)
    assert "kkk" not in repr(d._options) + repr(vars(d)) + str(d.stats())
    with pytest.raises(WrongKeyError) as caught:
        dictionary(path, encryption_key=NEW)
    assert "nnn" not in str(caught.value)
    d.close()


@pytest.mark.parametrize(
    "options",
    [
        {"encryption_key": b"canary" * 5},
        {"signing_key": {1: b"canary??" * 4, 2: b"short"}},
        {"encryption_key": {1: b"canary??" * 4}, "signing_key": KEY},
        {"encryption_key": b"canary??" * 4, "ttl": -1},
        {"encryption_key": b"canary??" * 4, "codec": "none of these"},
        {"encryption_key": lambda: {1: b"canary??" * 4, "a": KEY}},
        {"encryption_key": b"canary??" * 4},
    ],
)
def test_a_key_is_in_no_traceback_that_shows_what_its_lines_speak_of(path, options, log_lines):
    """As loguru's do. Those of the caller's own lines are his."""
    dictionary(path, encryption_key=KEY).close()
    with pytest.raises((TypeError, ValueError)) as caught:
        PersistDict(path, **{**QUIET, **options})
    error = caught.value
    logger.opt(exception=error.with_traceback(error.__traceback__.tb_next)).error("refused")
    shown = "".join(log_lines)
    assert "persistdict" in shown and "Error" in shown
    assert "canary" not in shown


@pytest.mark.parametrize(
    ("options", "module", "extra"),
    [
        ({"compression": "zstd"}, "zstandard", "zstd"),
        ({"compression": "lz4"}, "lz4.block", "lz4"),
        ({"encryption_key": KEY}, "cryptography.hazmat.primitives.ciphers.aead", "crypto"),
    ],
)
def test_a_missing_package_is_named(path, monkeypatch, options, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    for name in ("zstd", "lz4"):
        monkeypatch.delitem(sys.modules, f"persistdict.seals.{name}", raising=False)
    with pytest.raises(MissingPackageError, match=rf"persistdict\[{extra}\]"):
        dictionary(path, **options)
    assert not path.exists()


def test_without_seals_nothing_of_them_is_imported(path, monkeypatch):
    asked = []
    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *rest: (asked.append(name), real(name, *rest))[1])
    for name in [name for name in sys.modules if name.startswith("persistdict.seals")]:
        monkeypatch.delitem(sys.modules, name)
    with dictionary(path) as d:
        d["a"] = 1
    assert not [name for name in asked if "seals" in name or "crypto" in name or "zstandard" in name]


# What was changed


@pytest.mark.parametrize("name", tamper.SEALS)
def test_every_change_of_a_sealed_entry_is_noticed(name):
    outcome = tamper.run(tamper.SEALS[name], 1500, seed=11)
    assert (outcome.made, outcome.unnoticed) == (1500, [])
    assert len(outcome.by_kind) >= 9


@pytest.mark.parametrize("name", ["aes-gcm", "hmac"])
def test_the_driver_notices_a_seal_that_does_not_cover_the_key(name, monkeypatch):
    for kind in (protection.Encryption, protection.Signing):
        for verb in ("protect", "check"):
            real = getattr(kind, verb)
            monkeypatch.setattr(kind, verb, lambda self, kind, kb, body, real=real: real(self, kind, b"", body))
    outcome = tamper.run(tamper.SEALS[name], 500, seed=1)
    assert {sentence.split(":")[0] for sentence in outcome.unnoticed} >= {"swap"}


@protected
def test_what_was_changed_is_passed_over_by_a_loop_reported_by_verify_and_stays(path, option):
    d = dictionary(path, **{option: KEY}, caching=False)
    d.update(a=1, b=2, c=3)
    bare = d._opened().bare
    record = bare.get(d._opened().names.key(b"\x30b"))
    bare.put(record.kb, b"", record.tag, record.blob[:-1] + b"?")
    with pytest.raises(TamperedError, match="changed, or moved"):
        d["b"]
    assert issubclass(TamperedError, CorruptEntryError)
    with pytest.warns(DamagedEntryWarning, match="not as it was sealed"):
        assert dict(d.items()) == {"a": 1, "c": 3}
    report = d.verify()
    assert [fault.kind for fault in report.faults] == ["seal"] and not report.ok
    assert len(d) == 3
    d["b"] = "healed"
    assert d.verify().ok
    d.close()


@protected
def test_what_was_changed_is_passed_over_by_popitem_and_stays(option):
    """As a damaged entry is."""
    d = dictionary("memory://", **{option: KEY})
    d.update(a=1, b=2)
    bare, kb = d._opened().bare, d._opened().names.key(b"\x30b")
    record = bare.get(kb)
    bare.put(kb, b"", record.tag, record.blob[:-1] + b"?")
    with pytest.warns(DamagedEntryWarning, match="not as it was sealed"):
        assert d.popitem() == ("a", 1)
    with pytest.warns(DamagedEntryWarning), pytest.raises(KeyError):
        d.popitem()
    assert len(d) == 1


def test_a_tag_that_was_changed_is_passed_over_by_a_list_of_tags():
    d = dictionary("memory://", encryption_key=KEY)
    d.set("a", 1, tag="t")
    d.set("b", 2, tag="u")
    bare, kb = d._opened().bare, d._opened().names.key(b"\x30b")
    record = bare.get(kb)
    bare.put(kb, b"", record.tag, record.blob, label=b"planted")
    with pytest.warns(DamagedEntryWarning, match="the tag with the digest"):
        assert d.tags() == ["t"]


def test_a_plain_entry_in_a_sealed_dictionary_is_refused():
    for options in SEALS.values():
        d = dictionary("memory://", **options)
        d["a"] = 1
        kb = d._opened().names.key(b"\x30a")
        d._opened().bare.put(kb, b"", 1, b"planted")
        with pytest.raises(TamperedError, match="not sealed as this dictionary is"):
            d["a"]


def set_info(path, name, text):
    """Change a setting of a store, and tell what it was."""
    store = LmdbStore(str(path))
    before = store.info().get(name)
    store.update(lambda txn: txn.set_info(name, text), whole=True)
    store.close()
    return before


def remove_info(path, name):
    """Remove a setting of a store."""
    store = LmdbStore(str(path))
    store.update(lambda txn: txn._d.delete(name.encode(), db=store.meta), whole=True)
    store.close()


@protected
def test_notes_about_keys_that_were_changed_are_refused(path, option):
    with dictionary(path, **{option: KEY}) as d:
        d["a"] = 1
    for name, text in (("seal keys", "0:00ff"), ("seal keys", "nonsense"), ("seal salt", "zz"), ("seal salt", "00")):
        kept = set_info(path, name, text)
        with pytest.raises(WrongKeyError):
            dictionary(path, **{option: KEY})
        assert set_info(path, name, kept) == text
    dictionary(path, **{option: KEY}).close()


@protected
def test_notes_about_keys_that_are_missing_are_not_made_anew(path, option):
    """For without the old ones, nothing that is there could be opened any more."""
    with dictionary(path, **{option: KEY}) as d:
        d["a"] = 1
        kept = d._opened().info()
    for lost in (
        ("seal keys",),
        ("seal keys", "seal salt"),
        ("seal keys", "codec"),
        ("seal keys", "seal salt", "codec"),
    ):
        for name in lost:
            remove_info(path, name)
        for ring in (KEY, {0: KEY, 1: NEW}):
            with pytest.raises(WrongKeyError, match="missing; nothing was changed"):
                dictionary(path, **{option: ring})
        for name in lost:
            set_info(path, name, kept[name])
    with dictionary(path, **{option: KEY}) as d:
        assert dict(d) == {"a": 1}


# Bombs


@functools.cache
def bomb(name):
    """Some kilobytes that become 64 MB."""
    import lz4.block
    import zstandard

    zeros = bytes(64 << 20)
    pack = {
        "zlib": zlib.compress,
        "zstd": zstandard.ZstdCompressor().compress,
        "lz4": lambda data: lz4.block.compress(data, store_size=False),
    }
    return pack[name](zeros)


@pytest.mark.parametrize("said", [64 << 20, 1000, 0xFFFFFFFF, 1])
@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_bomb_is_an_error_within_the_bound(name, said):
    """Whatever size it says that it becomes."""
    body = said.to_bytes(4, "little") + bomb(name)
    kinds = {"zlib": Zlib, "zstd": Zstd, "lz4": Lz4}
    bound = 1 << 20
    d = dictionary("memory://", compression=kinds[name](max_size=bound))
    d["a"] = "x" * 100
    bare, number = d._opened().bare, kinds[name].number
    bare.put(b"\x30a", b"", 0x80 | number, body)
    d["warm"] = "x" * 1000
    assert len(d["warm"]) == 1000
    tracemalloc.start()
    with pytest.raises(DecodeError):
        d["a"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * bound


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_noise_instead_of_compressed_bytes_is_an_error_of_ours(name):
    rng = random.Random(5)
    d = dictionary("memory://", compression=name, caching=False)
    d["a"] = b"text " * 40
    bare = d._opened().bare
    good = bare.get(b"\x30a")
    for _ in range(3000):
        noise = tamper.flipped(good.blob, rng) if rng.random() < 0.7 else rng.randbytes(rng.randrange(60))
        bare.put(b"\x30a", b"", good.tag, noise)
        with contextlib.suppress(DecodeError):
            _ = d["a"]  # whatever it is: only a signature can tell


@pytest.mark.parametrize("name", ["zlib", "zstd"])
def test_what_follows_the_compressed_bytes_is_refused(name):
    d = dictionary("memory://", compression=name, caching=False)
    d["a"] = b"text " * 40
    good = d._opened().bare.get(b"\x30a")
    d._opened().bare.put(good.kb, b"", good.tag, good.blob + b"x")
    with pytest.raises(DecodeError):
        d["a"]


# Keys that change


def test_a_handle_that_only_reads_notes_no_key(path):
    with dictionary(path, encryption_key={1: KEY}) as d:
        d["a"] = 1
    with dictionary(path, mode="r", encryption_key={1: KEY, 2: NEW}) as d:
        assert dict(d) == {"a": 1}
    with dictionary(path, encryption_key={1: KEY}) as d:
        assert dict(d) == {"a": 1}


def test_what_was_not_sealed_so_is_not_sealed_anew(path):
    """A plain entry that somebody has planted does not become a sealed one."""
    with dictionary(path, encryption_key={0: KEY}) as d:
        d["a"] = 1
        kb = d._opened().names.key(b"\x30a")
        record = d._opened().bare.get(kb)
        d._opened().bare.put(kb, b"", 0x90, record.blob)
    with dictionary(path, encryption_key={0: KEY, 1: NEW}) as d:
        assert d.reseal() == 0
        with pytest.raises(TamperedError):
            d["a"]


@protected
def test_a_newer_key_takes_over_and_the_older_can_be_given_up(path, option):
    with dictionary(path, **{option: {1: KEY}}, compression="zstd") as d:
        d.update({n: f"value {n} " * 20 for n in range(700)})
        d.train_dictionary(size=1000)
        d[1.5], d["large"] = "float", b"l" * 300_000
        d.set("tagged", 1, tag="t", ttl=1000)
        d.queue("q").put("item")
        d.space("s")["k"] = "v"
        before = {key: d.entry(key) for key in d}
        expected = list(d.items())
    both = {option: {1: KEY, 2: NEW}, "compression": "zstd"}
    with dictionary(path, **both) as d:
        d["new"] = "under the new key"
        with pytest.raises(WrongKeyError, match="key number 2"):
            dictionary(path, **{option: {1: KEY}}, compression="zstd")
        with pytest.raises(WrongKeyError, match="key number 1"):
            dictionary(path, **{option: {2: NEW}}, compression="zstd")
        assert d.reseal() == 706
        assert d.reseal() == 0
        assert [item for item in d.items() if item[0] != "new"] == expected
        for key, entry in before.items():
            now = d.entry(key)
            assert now[:2] == entry[:2] and (now.expires_at, now.size, now.tag) == (
                entry.expires_at,
                entry.size,
                entry.tag,
            )
    with dictionary(path, **{option: {2: NEW}}, compression="zstd") as d:
        assert [item for item in d.items() if item[0] != "new"] == expected
        assert (d.queue("q").get(), d.space("s")["k"], list(d.tagged("t"))) == ("item", "v", ["tagged"])
        assert d.verify().ok
        assert not [item for item in d._opened().bare.scan() if item.blob[0] != 2]
    with pytest.raises(WrongKeyError):
        dictionary(path, **{option: {1: KEY}}, compression="zstd")


@protected
def test_the_hint_of_an_entry_that_was_overwritten_is_sealed_anew(path, option):
    """An overwrite keeps the first key object, and so what was sealed of it with the older key."""
    with dictionary(path, **{option: {1: KEY}}) as d:
        d.update({1.5: "a", True: "b", ("t", 2.0): "c"})
    with dictionary(path, **{option: {1: KEY, 2: NEW}}) as d:
        d.update({1.5: "A", True: "B", ("t", 2.0): "C"})
        d.reseal()
    with dictionary(path, **{option: {2: NEW}}) as d:
        assert list(d.items()) == [(1.5, "A"), (True, "B"), (("t", 2.0), "C")]
        assert d.verify().ok


@pytest.mark.parametrize("upkeep", [True, False])
def test_a_batch_that_failed_is_done_before_the_older_key_is_given_up(path, monkeypatch, upkeep):
    """By upkeep and by hand: a pass in which a write has failed begins again."""
    with dictionary(path, encryption_key={1: KEY}) as d:
        d.update({n: n for n in range(1000)})
    d = dictionary(path, encryption_key={1: KEY, 2: NEW})
    bare, calls = d._opened().bare, iter(range(100))
    real = bare.update

    def fails_once(*args, **options):
        if next(calls) == 1:
            raise BusyError("another process is in the way")
        return real(*args, **options)

    monkeypatch.setattr(bare, "update", fails_once)
    seal_anew = d.maintain if upkeep else d.reseal
    with pytest.raises(BusyError):
        seal_anew()
    seal_anew()
    d.close()
    with dictionary(path, encryption_key={2: NEW}) as d:
        assert dict(d) == {n: n for n in range(1000)}


def test_threads_that_seal_anew_at_once_each_do_all_of_it(path):
    """None tells that it is done, and gives up the older key, before it is."""
    with dictionary(path, encryption_key={1: KEY}) as d:
        d.update({n: n for n in range(2000)})
    d, outcomes = dictionary(path, encryption_key={1: KEY, 2: NEW}), []

    def work(seal_anew):
        seal_anew()
        outcomes.append({item.blob[0] for item in d._opened().bare.scan()})

    threads = [threading.Thread(target=work, args=(call,)) for call in (d.reseal, d.reseal, d.maintain, d.reseal)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4 and outcomes.count({2}) >= 3
    d.close()


def test_a_pass_that_ends_while_a_still_newer_key_is_in_use_gives_up_only_older_ones(path):
    with dictionary(path, encryption_key={1: KEY}) as d:
        d["a"] = 1
    d = dictionary(path, encryption_key={1: KEY, 2: NEW})
    with dictionary(path, encryption_key={1: KEY, 2: NEW, 3: b"3" * 32}):
        assert d.reseal() == 1
    with pytest.raises(WrongKeyError, match="key number 2,"):
        dictionary(path, encryption_key={3: b"3" * 32})
    d.close()
    with dictionary(path, encryption_key={2: NEW, 3: b"3" * 32}) as d:
        assert d.reseal() == 1
    with dictionary(path, encryption_key={3: b"3" * 32}) as d:
        assert dict(d) == {"a": 1}


@protected
def test_what_a_handle_with_the_older_key_has_written_late_is_sealed_anew_when_asked(path, option):
    late = dictionary(path, **{option: {1: KEY}})
    with dictionary(path, **{option: {1: KEY, 2: NEW}}) as d:
        d.reseal()
        late["a"] = 1
    late.close()
    with dictionary(path, **{option: {2: NEW}}) as d, pytest.raises(WrongKeyError, match="key number 1,"):
        d["a"]
    with dictionary(path, **{option: {1: KEY, 2: NEW}}) as d:
        assert d.reseal() == 1
    with dictionary(path, **{option: {2: NEW}}) as d:
        assert dict(d) == {"a": 1}


def test_by_a_clock_that_is_not_believed_no_key_is_given_up(path):
    """What is over by it was not sealed anew, and is there again when the clock is set right."""
    clock = Clock()
    with dictionary(path, encryption_key={1: KEY}, clock=clock) as d:
        d.set("a", 1, ttl=86400)
    clock.now += 300 * 86400
    with dictionary(path, encryption_key={1: KEY, 2: NEW}, clock=clock) as d:
        assert d.reseal() == 0
        d.maintain()
    clock.now -= 300 * 86400
    with pytest.raises(WrongKeyError, match="key number 1,"):
        dictionary(path, encryption_key={2: NEW}, clock=clock)
    with dictionary(path, encryption_key={1: KEY, 2: NEW}, clock=clock) as d:
        assert d.reseal() == 1
    with dictionary(path, encryption_key={2: NEW}, clock=clock) as d:
        assert d["a"] == 1


def test_large_entries_are_sealed_anew_a_few_at_a_time(path):
    """A batch is some megabytes, however large its entries are."""
    with dictionary(path, encryption_key={1: KEY}) as d:
        d.update({n: bytes(1 << 20) for n in range(40)})
    d = dictionary(path, encryption_key={1: KEY, 2: NEW})
    tracemalloc.start()
    assert d.reseal() == 40
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20
    d.close()


def test_upkeep_seals_anew_and_goes_on_where_it_was_stopped(path):
    with dictionary(path, encryption_key={0: KEY}) as d:
        d.update({n: n for n in range(3000)})
    d = dictionary(path, encryption_key={0: KEY, 1: NEW})
    rounds = 1
    while not d.maintain(seconds=0):
        rounds += 1
        assert rounds < 100
    assert rounds > 1
    d.close()
    with dictionary(path, encryption_key={1: NEW}) as d:
        assert len(list(d.items())) == 3000


def test_a_thread_of_upkeep_seals_anew(path):
    with dictionary(path, encryption_key={0: KEY}) as d:
        d.update({n: n for n in range(300)})
    with PersistDict(path, encryption_key={0: KEY, 1: NEW}) as d:
        while d._charge.resealing.is_due():
            threading.Event().wait(0.01)
    dictionary(path, encryption_key={1: NEW}).close()


def test_while_an_entry_cannot_be_opened_older_keys_stay_noted(path, log_lines):
    with dictionary(path, encryption_key={0: KEY}) as d:
        d.update(a=1, b=2)
        bare, kb = d._opened().bare, d._opened().names.key(b"\x30b")
        record = bare.get(kb)
        bare.put(kb, b"", record.tag, record.blob[:-1] + bytes((record.blob[-1] ^ 1,)))
    with dictionary(path, encryption_key={0: KEY, 1: NEW}) as d:
        assert d.reseal() == 1
    assert "cannot be sealed anew" in "".join(log_lines)
    with pytest.raises(WrongKeyError, match="key number 0"):
        dictionary(path, encryption_key={1: NEW})
    with dictionary(path, encryption_key={0: KEY, 1: NEW}) as d:
        assert d["a"] == 1
        d["b"] = "healed"
        d.reseal()
    dictionary(path, encryption_key={1: NEW}).close()


def test_a_store_that_dies_while_entries_are_sealed_anew_is_whole(path):
    """A pass that was cut off between two batches begins again, and both keys are needed until it is done."""
    with dictionary(path, encryption_key={0: KEY}) as d:
        d.update({n: n for n in range(2000)})
    pid = os.fork()
    if pid == 0:
        d = dictionary(path, encryption_key={0: KEY, 1: NEW})
        steps = iter(range(3))
        d._charge.resealing.go(lambda: next(steps, None) is not None)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    with pytest.raises(WrongKeyError):
        dictionary(path, encryption_key={1: NEW})
    with dictionary(path, encryption_key={0: KEY, 1: NEW}) as d:
        numbers = {item.blob[0] for item in d._opened().bare.scan()}
        assert numbers == {0, 1}
        assert dict(d) == {n: n for n in range(2000)}
        assert d.reseal() == 2000 - 3 * 256


# Dictionaries


def test_a_trained_dictionary_makes_small_values_smaller_for_everybody(path):
    texts = {n: f'{{"role": "assistant", "content": "reply number {n}", "tokens": {n * 7}}}' for n in range(3000)}
    d, other = dictionary(path, compression="zstd"), dictionary(path, compression="zstd")
    d.update(texts)
    former = sum(len(item.blob) for item in d._opened().bare.scan())
    trained = d.train_dictionary(size=2000, values=1000)
    assert trained.kept and trained.after < trained.before / 1.5
    d.update(texts)
    assert sum(len(item.blob) for item in d._opened().bare.scan()) < former
    assert dict(other) == texts  # it learns of the dictionary by what it reads
    d["by d"] = other["by other"] = texts[0]
    sizes = [len(d._opened().bare.get(b"\x30" + name).blob) for name in (b"by d", b"by other")]
    assert sizes[0] == sizes[1]
    assert (d.pop("by d"), d.pop("by other")) == (texts[0], texts[0])
    again = d.train_dictionary(size=1000, values=500)
    assert (len(d), again.values) == (3000, 400)
    d["one more"] = texts[0]
    d.close()
    other.close()
    with dictionary(path, compression="zstd") as d:
        assert d.pop("one more") == texts[0]
        assert dict(d) == texts


def test_a_dictionary_survives_backup_compaction_salvage_and_clear(path):
    texts = {n: f"this is the text number {n}, which is like all others" for n in range(1000)}
    d = dictionary(path, compression="zstd", encryption_key=KEY)
    d.update(texts)
    assert d.train_dictionary(size=1000).kept
    d.clear()
    d.update(texts)
    d.backup(path.parent / "backup")
    d.compact()
    d.close()
    salvage(path, path.parent / "salvaged")
    for folder in (path, path.parent / "backup", path.parent / "salvaged"):
        with dictionary(folder, compression="zstd", encryption_key=KEY) as d:
            assert dict(d) == texts
            assert d.verify().ok


def test_a_dictionary_needs_zstd_and_enough_values():
    for options in ({}, {"compression": "zlib"}, {"encryption_key": KEY}):
        with pytest.raises(Unsupported, match="zstd"):
            dictionary("memory://", **options).train_dictionary()
    d = dictionary("memory://", compression="zstd")
    with pytest.raises(ValueError, match="too few"):
        d.train_dictionary()
    with pytest.raises(ValueError, match="size must be"):
        d.train_dictionary(size=5)
    for values in (0, True):
        with pytest.raises(ValueError, match="values must be"):
            d.train_dictionary(values=values)


def test_a_dictionary_that_is_missing_is_an_error_of_ours(path):
    texts = {n: f"this is the text number {n}, which is like all others, or is it?" for n in range(1000)}
    d = dictionary(path, compression="zstd", caching=False)
    d.update(texts)
    assert d.train_dictionary(size=1000).kept
    d["a"] = texts[5]
    bare = d._opened().bare
    for item in list(bare.scan(values=False)):
        if item.kb[:1] == b"\xf4":
            bare.delete(item.kb)
    other = dictionary(path, compression="zstd")
    for handle in (d, other):
        assert handle[1] == texts[1]
    with pytest.raises(DecodeError, match="which is not there"):
        other["a"]
    d.close()
    other.close()


@pytest.mark.parametrize("seal", [{}, {"encryption_key": KEY}, {"signing_key": KEY}])
def test_a_dictionary_that_is_damaged_harms_only_what_was_made_with_it(path, seal):
    """The rest is read and written, and can be repaired."""
    texts = {n: f"this is the text number {n}, which is like all others, or is it?" for n in range(1000)}
    with dictionary(path, compression="zstd", **seal) as d:
        d.update(texts)
        assert d.train_dictionary(size=1000).kept
        d["with it"] = texts[5]
        bare = d._opened().bare
        row = next(item for item in bare.scan() if item.kb[:1] == b"\xf4")
        bare.put(row.kb, b"", row.tag ^ 0x40, row.blob)
    with pytest.warns(DamagedEntryWarning, match="dictionary of zstd cannot be read"):
        d = dictionary(path, compression="zstd", **seal)
    with pytest.raises(TamperedError):
        d["with it"]
    d["without"] = texts[7]
    assert (d[1], d["without"]) == (texts[1], texts[7])
    assert {fault.kind for fault in d.verify(repair=True).faults} == {"seal"}
    d.close()


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "7", "99999999999", "9" * 6000, "²"])
def test_a_note_about_a_dictionary_that_is_none_is_as_none(path, text):
    with dictionary(path, compression="zstd") as d:
        d["a"] = "text" * 100
    set_info(path, "seal dictionary", text)
    with dictionary(path, compression="zstd") as d:
        assert d["a"] == "text" * 100


# Names


def test_a_hint_that_was_taken_away_is_noticed():
    """Of a key with numbers a missing one would say that all are int, and of no bool or float."""
    for option in ("encryption_key", "signing_key"):
        d = dictionary("memory://", **{option: KEY})
        d.update({1: "int", 2.0: "float", ("t", False): "in a tuple"})
        d.space("s")[3.0] = "in a space"
        bare = d._opened().bare
        for item in list(bare.scan()):
            bare.delete(item.kb)
            bare.put(item.kb, b"", item.tag, item.blob)
        with pytest.warns(DamagedEntryWarning, match="not as it was sealed"):
            assert list(d) + list(d.space("s")) == []
        d.close()


@pytest.mark.parametrize("kind", [b"\xf0", b"\xf1"])
def test_a_head_that_names_another_length_is_no_head_and_is_not_remembered(kind):
    """Else the next entry of that space or queue would be put where nobody looks for it."""
    names = dictionary("memory://", encryption_key=KEY)._opened().names
    sealed = names.key(kind + b"\x01n")
    wrong = sealed[:1] + b"\xff" + sealed[2:]
    fresh = dictionary("memory://", encryption_key=KEY)._opened().names
    fresh._siv = names._siv  # of the same dictionary, with nothing remembered
    with pytest.raises(TamperedError):
        fresh.open_key(wrong)
    assert fresh.key(kind + b"\x01n") == sealed


def test_of_many_spaces_some_names_are_remembered():
    d = dictionary("memory://", encryption_key=KEY)
    names = d._opened().names
    for number in range(1100):
        d.space(f"s{number}")["k"] = number
    assert 0 < len(names._heads) <= 1024 and 0 < len(names._plain) <= 1024
    assert sorted(d.spaces()) == sorted(f"s{number}" for number in range(1100))
    assert [d.space(f"s{number}")["k"] for number in range(1100)] == list(range(1100))
    d.close()


def test_encrypted_keys_are_told_in_their_order(path):
    d = dictionary(path, encryption_key=KEY)
    for part in (d, d.space("s")):
        part.update({n * 7 % 50: n for n in range(50)})
        assert list(part.range()) == list(range(50))
        assert list(part.range(10, 13, reverse=True)) == [12, 11, 10]
    d.close()


def test_a_queue_works_with_the_smallest_key_size_limit_that_it_takes(path):
    """Encrypted names are longer, and rows of a queue must not be cropped."""
    for limit in range(40, 80):
        d = dictionary(path.parent / str(limit), encryption_key=KEY, key_size_limit=limit)
        try:
            q = d.queue("work", order="lifo")
        except Unsupported:
            d.close()
            continue
        q.put_many(["a", "b"])
        assert (q.get(lease=60).item, q.get(), len(q)) == ("b", "a", 0)
        assert not [item for item in d._opened().bare.scan() if len(item.kb) >= limit and item.kb[:1] == b"\xf1"]
        d.close()
        break


def test_tags_are_as_long_as_they_may_be(path):
    d = dictionary(path, encryption_key=KEY)
    d.set("a", 1, tag="t" * 239)
    assert d.tags() == ["t" * 239]
    with pytest.raises(ValueError, match="1 to 239 bytes"):
        d.set("a", 1, tag="t" * 240)
    assert d.entry("a").tag == "t" * 239
    d.close()


def test_where_keys_are_encrypted_there_are_no_priority_queues():
    with pytest.raises(Unsupported, match="fifo or lifo"):
        dictionary("memory://", encryption_key=KEY).queue("q", order="priority")


def test_a_loop_over_a_view_of_encrypted_keys_opens_each_key_once_and_only_its_own_values(path, monkeypatch):
    d = dictionary(path, encryption_key=KEY, compression="zlib")
    view = d.prefix("p")
    view.update({n: f"value {n}" for n in range(300)})
    d.update({("other", n): n for n in range(300)})
    store, opened, unsealed = d._opened(), [], []
    names, seal = store.names, store.seal
    open_key, unseal = names.open_key, seal.unseal
    monkeypatch.setattr(names, "open_key", lambda kb: (opened.append(kb), open_key(kb))[1])
    monkeypatch.setattr(seal, "unseal", lambda *args: (unsealed.append(args), unseal(*args))[1])
    assert [value for value in view.values()] == [f"value {n}" for n in range(300)]  # noqa: C416 - list() asks for len
    assert (len(opened), len(unsealed)) == (600, 300)
    opened.clear()
    assert view
    assert len(opened) == 1
    assert len(view) == 300
    assert len(opened) == 601
    d.close()


def test_a_handle_that_misses_a_newer_key_says_so_and_does_not_show_less(path):
    """A loop over entries that somebody else has sealed anew meanwhile is no loop over damaged ones."""
    with dictionary(path, encryption_key={0: KEY}) as old:
        old.update(a=1, b=2)
        with dictionary(path, encryption_key={0: KEY, 1: NEW}) as d:
            d["b"] = 3
        for ask in (
            lambda: dict(old), lambda: list(old.items()), lambda: old["b"], lambda: old.popitem(),
            lambda: [old[key] for key in old.range()], lambda: old.get_many(["b"]),
        ):  # fmt: skip
            with pytest.raises(WrongKeyError, match="key number 1"):
                ask()
        assert old["a"] == 1


def test_an_item_of_a_queue_whose_key_is_missing_is_not_lost(path):
    """It is whole; a worker that was started with the older key only must not take it for damaged."""
    with dictionary(path, encryption_key={0: KEY}) as old, dictionary(path, encryption_key={0: KEY, 1: NEW}) as d:
        q, late = d.queue("q"), old.queue("q")
        q.put("a")
        bare, names = old._opened().bare, old._opened().names
        state = late._rows.state_key
        kept = old._opened().seal.seal(names.key(state), 0, d._store.get(state).blob)
        bare.put(names.key(state), b"", *kept)  # as if only the item were sealed with the newer key
        with pytest.raises(WrongKeyError, match="key number 1"):
            late.get(False)
        assert (q.qsize(), q.get(False)) == (1, "a")


def test_the_second_pass_of_verify_can_be_stopped(path, monkeypatch):
    complete = threading.Event()
    with dictionary(path, signing_key=KEY) as d:
        d.update({n: n for n in range(5000)})
        bare = d._opened().bare
        first_pass = bare.verify

        def noted(**options):
            report = first_pass(**options)
            complete.set()
            return report

        monkeypatch.setattr(bare, "verify", noted)
        report = d.verify(progress=lambda *_: not complete.is_set())
        assert (report.position, report.ok) == (b"", False)
        assert d.verify(resume=report.position).ok


def test_long_prefixes_are_initialised_once(path):
    for options in ({}, {"encryption_key": KEY}):
        for _ in range(2):
            with dictionary(path / str(len(options)), **options) as d:
                for part in (d.prefix("x" * 300), d.prefix("x" * 216), d.space("s" * 200)):
                    part(a=1)
                    part["a"] += 1
        with dictionary(path / str(len(options)), **options) as d:
            assert [d.prefix("x" * 300)["a"], d.prefix("x" * 216)["a"], d.space("s" * 200)["a"]] == [3, 3, 3]


def test_what_was_initialised_is_known_by_every_handle(path):
    for _ in range(2):
        d = dictionary(path, encryption_key=KEY)
        for part in (d, d.space("s"), d.prefix("p")):
            part(a=1)
            part["a"] += 1
        assert [part["a"] for part in (d, d.space("s"), d.prefix("p"))] == [2 + _] * 3
        d.close()
