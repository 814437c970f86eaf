"""The benchmark runs, in the smallest form, so that it is there when it is needed. Nothing here is measured."""

import random
import shutil
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from benchmark import charts, codecs, docs, goals, instructions, panels, probes, profiling, repeating, spending, tables
from benchmark.floors import floors
from benchmark.keys import STRIDE, key_of
from benchmark.mixing import steps
from benchmark.operations import OPERATIONS
from benchmark.registry import BASE, LEAN, REQUIRED, libraries, library
from benchmark.results import Results
from benchmark.timing import Cell, Samples
from benchmark.values import values_of

SIZES = (40, 120)
SYNCED = ("persistdict, commit", "lmdb, lean, sync")
DUMP = """# callgrind format
version: 1
desc: Trigger: --dump-before=getpgrp

positions: line
events: Ir
summary: 1120


ob=(3) /usr/lib/libpython3.11.so.1.0
fl=(1) ceval.c
fn=(7) _PyEval_EvalFrameDefault
0 700
cob=(4) /env/site-packages/lmdb/cpython.cpython-311-x86_64-linux-gnu.so
cfi=(2) mdb.c
cfn=(9) mdb_get
calls=1 0
0 410
+3 10

ob=(4)
fl=(2)
fn=(9)
0 300
cob=(5) /usr/lib/libc.so.6
cfn=(11) memcpy
calls=2 0
* 100

ob=(5)
fn=(11)
-2 100

ob=(3)
fn=(8) dict_get
16 10

totals: 1120
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A run with one round over stores of a few entries, by what the tests install."""
    found = Results()
    light = [operation.name for operation in OPERATIONS if not operation.heavy]
    stores = {size: [*REQUIRED, *SYNCED] for size in SIZES}
    panels.measure(panels.Panel(goals.MAIN, stores, light, 0.0, 0.001, 60, 1), tmp_path_factory.mktemp("bench"), found)
    heavy = [operation.name for operation in OPERATIONS if operation.heavy]
    stores = {SIZES[0]: [BASE, "dict"]}  # its processes take a while to start
    panels.measure(panels.Panel(goals.MAIN, stores, heavy, 0.0, 0.001, 60, 1), tmp_path_factory.mktemp("bench"), found)
    return found


@pytest.mark.parametrize("name", REQUIRED)
def test_every_operation_is_measured_or_says_why_not(results, name):
    """Each cell of a round has a number or a reason, and persistdict lacks nothing."""
    for operation in OPERATIONS:
        if operation.heavy and name not in (BASE, "dict"):
            continue
        for size in SIZES[:1] if operation.heavy else SIZES:
            measured = Cell(goals.MAIN, size, operation.name, name) in results.samples
            assert measured != bool(results.reason(Cell(goals.MAIN, size, operation.name, name))), operation.name
            assert measured or name != BASE


@pytest.mark.parametrize("name", SYNCED)
def test_what_is_synced_one_by_one_is_measured_where_it_differs(results, name):
    """Libraries that differ in writing only are measured in writing only."""
    operations = {cell.operation for cell in results.samples if cell.library == name}
    assert operations == library(name).only


def test_tables_and_charts_are_made_of_a_run(results):
    """Every table of the operations holds all libraries of the run, and every chart is SVG."""
    for make in (tables.operations, tables.by_size):
        for name in REQUIRED:
            assert f"| {name} |" in make(results)
    assert all(goal.text in goals.table(results) for goal in goals.GOALS)
    for draw in charts.CHARTS.values():
        assert xml.etree.ElementTree.fromstring(draw(results)).tag.endswith("svg")


def test_a_part_that_was_not_run_has_no_table():
    """Where nothing was measured there is nothing to show, but for what is known beforehand."""
    made = {name: make(Results()) for name, make in {**tables.TABLES, **charts.CHARTS}.items()}
    assert [name for name, text in made.items() if text] == ["durability"]


def test_a_run_is_the_same_after_it_was_saved(results, tmp_path):
    """Tables can be made of the JSON of a run."""
    results.save(tmp_path / "run.json")
    assert tables.everything(Results.load(tmp_path / "run.json")) == tables.everything(results)


def test_the_page_keeps_its_prose_and_what_was_not_measured(results, tmp_path):
    """Only what stands between marks is replaced, and only by something."""
    page = tmp_path / "page.md"
    text = "Prose.\n<!-- bench: goals -->\nold\n<!-- end -->\nMore.\n<!-- bench: imports -->\nkept\n<!-- end -->\n"
    page.write_text(text)
    docs.write(results, page)
    assert page.read_text().startswith("Prose.\n<!-- bench: goals -->\n\n| goal |")
    assert page.read_text().endswith("<!-- end -->\nMore.\n<!-- bench: imports -->\nkept\n<!-- end -->\n")
    assert {path.stem for path in (tmp_path / "page").iterdir()} == set(charts.CHARTS)


def test_the_page_of_the_project_has_a_mark_for_each_table():
    """No table is measured in vain, and no mark names a table that is not there."""
    marks = [match["name"] for match in docs.MARK.finditer(docs.PAGE.read_text())]
    assert sorted(marks) == sorted(tables.TABLES)


def test_a_peer_that_is_not_installed_is_left_out_and_says_so(monkeypatch, tmp_path):
    """The run goes on without it."""
    monkeypatch.setattr(panels, "is_installed", lambda one: one.name != "lmdb, usual")
    found = Results()
    panels.measure(panels.Panel("100 B", {20: REQUIRED}, ["get, hot"], 0.0, 0.001, 60, least=1), tmp_path, found)
    assert found.reason(Cell("100 B", 20, "get, hot", "lmdb, usual")) == "is not installed"
    assert Cell("100 B", 20, "get, hot", LEAN) in found.samples


def test_a_peer_that_fails_is_left_out_and_the_run_goes_on(monkeypatch, tmp_path):
    """An error of a peer is its reason; one of persistdict ends the run."""

    def fail(*_):
        raise OSError

    panel = panels.Panel("100 B", {20: ["dict", BASE]}, ["get, hot"], 0.0, 0.001, 60, least=1)
    monkeypatch.setattr(type(library("dict")), "get", fail)
    found = Results()
    panels.measure(panel, tmp_path, found)
    assert found.reason(Cell("100 B", 20, "get, hot", "dict")).startswith("OSError")
    assert Cell("100 B", 20, "get, hot", BASE) in found.samples


def test_ratios_are_taken_within_their_rounds():
    """Rounds in which one of the two is missing do not count."""
    samples = Samples()
    ours, theirs = Cell("v", 1, "get", "ours"), Cell("v", 1, "get", "theirs")
    for number, seconds in enumerate((1.0, 10.0, 100.0)):
        samples.add(ours, number, seconds)
        if number != 1:
            samples.add(theirs, number, 2 * seconds)
    assert samples.ratio(theirs, ours) == (2, 2, 2)
    assert samples.ratio(theirs, ours._replace(library="nobody")) is None


def test_the_probes_answer(tmp_path):
    """persistdict gives back exactly what was put, and space is told for what has a bulk write."""
    found = Results()
    probes.fidelity(tmp_path, found)
    assert set(found.fidelity[BASE].values()) == {"exact", "yes"}
    assert found.fidelity["dict"]["own copy"] == "no"
    probes.space(tmp_path, found, "100 B", 50)
    probes.space_of_databases(tmp_path, found, "100 B", 5)
    assert found.samples.middle(Cell("100 B", 50, "bytes on the disk", BASE)) > 100
    assert goals.named_databases(found).startswith("With a named LMDB database for every key")


def test_codecs_are_compared():
    """SafeCodec and pickle are measured on the same values."""
    samples, sizes = codecs.measure(0.0)
    assert all(f"| {label} |" in codecs.table(samples, sizes) for label in sizes)


def test_the_data_are_the_same_for_all_libraries():
    """A walk visits every key, the values of a kind are the same each time, and few keys are asked for often."""
    assert len({key_of(number * STRIDE % 1000) for number in range(1000)}) == 1000
    assert values_of("100 B") == values_of("100 B")
    asked = [key for key, _ in steps(library("dict"), values_of("100 B"), 1000, 5000, random.Random(1))]
    assert asked.count(max(set(asked), key=asked.count)) > 50 * len(asked) / 1000
    assert len({one.name for one in libraries()}) == len(libraries())


def test_what_callgrind_writes_is_split_by_object_and_not_counted_for_callers():
    """An object has what its own functions took, wherever they stand in the dump."""
    lmdb = "lmdb/cpython.cpython-311-x86_64-linux-gnu.so"
    found = instructions.by_object(DUMP.splitlines())
    assert found == {"lib/libpython3.11.so.1.0": 720, lmdb: 300, "lib/libc.so.6": 100}
    assert instructions.by_group(found) == {"interpreter": 720, "lmdb": 300, "libc": 100}


def test_a_dump_that_does_not_add_up_is_refused():
    """No number is shown that was read wrongly."""
    with pytest.raises(ValueError, match="1120 instructions instead of 1121"):
        instructions.by_object(DUMP.replace("summary: 1120", "summary: 1121").splitlines())


@pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind")
def test_instructions_are_counted_between_marks():
    """A part holds what was done since the mark before it, and nothing of what came first."""
    mark = f"os.{instructions.MARK}()"
    work = f"import os, zlib; {mark}; zlib.crc32(bytes(100_000)); {mark}; sum(range(1000)); {mark}; print(1)"
    printed, [first, checksum, addition] = instructions.parts([sys.executable, "-S", "-c", work])
    assert printed == "1\n"
    (crc, _), (adding, every) = (map(instructions.by_group, part) for part in (checksum, addition))
    assert first[0].total() > 1_000_000
    assert 25_000 < crc["checksum"] < 1_000_000
    assert "checksum" not in adding and 10_000 < adding["interpreter"] <= every["interpreter"] < 1_000_000


def test_what_belongs_to_one_operation_is_the_difference_of_the_last_two_sections():
    """What comes once, however often the operation is done, does not count, and neither does warming up."""
    sections = [
        ("get", 5, {"sys: read": 1000}),
        ("get", 10, {"sys: read": 27, "sys: open": 1}),
        ("get", 110, {"sys: read": 227, "sys: open": 1}),
        ("open", 1, {"sys: open": 4}),
        ("open", 0, {}),
    ]
    found = profiling.differences(sections)
    assert found == {"get": {"sys: read": 2, "sys: open": 0}, "open": {"sys: open": 4}}


@pytest.mark.parametrize("name", [BASE, floors()[0].name, *(floor.name for floor in floors()[-2:])])
def test_every_operation_is_done_between_marks(name, tmp_path, monkeypatch):
    """The child does all that its library can, and persistdict can everything."""
    monkeypatch.setattr(repeating, "COUNTED", [one._replace(numbers=(1, 0, 2)) for one in repeating.COUNTED])
    one = profiling.repeated(name)
    profiling.load(one, tmp_path / "store")
    child = repeating.Child(one, tmp_path / "store", calls=True)
    child.run()
    done = {operation for operation, *_ in child.sections}
    assert done <= {*repeating.NAMES}
    assert name != BASE or done == {*repeating.NAMES} - {repeating.IMPORT}


def test_what_was_counted_is_shown_beside_the_floors():
    """A row has the groups and the kernel, and a goal the numbers that speak for or against it."""
    results = Results()
    counts = {"in lib/libpython3.so": 2000.0, "in lmdb/c.so": 900.0, "in lib/libc.so": 100.0, "sys: pwrite64": 5.0}
    least = {"in lib/libpython3.so": 500.0}
    theirs = {"in lib/libpython3.so": 1000.0, "Python calls": 1.0, "C calls": 2.0}
    results.profile["get, hot"] = {BASE: counts, LEAN: theirs, "floor: dict + number": least}
    assert "| get, hot | persistdict |  | 3,000 | 3.00 | 2,000 | 900 | 0 | 100 | 5.0 pwrite64 |" in spending.table(
        results
    )
    assert "| get, hot | lmdb, lean | 1 + 2 | 1,000 | 1.00 | 1,000 | 0 | 0 | 0 |  |" in spending.table(results)
    assert "| hot get against lmdb, lean | ≤ 0.4 | 3.00 | 0.50 | 3,000 | 500 | 1,000 |" in spending.goals(results)
