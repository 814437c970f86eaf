"""The benchmark runs, in the smallest form, so that it is there when it is needed. Nothing here is measured."""

import random
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from benchmark import charts, codecs, docs, goals, panels, probes, tables
from benchmark.keys import STRIDE, key_of
from benchmark.mixing import steps
from benchmark.operations import OPERATIONS
from benchmark.registry import BASE, LEAN, REQUIRED, libraries, library
from benchmark.results import Results
from benchmark.timing import Cell, Samples
from benchmark.values import values_of

SIZES = (40, 120)
SYNCED = ("persistdict, commit", "lmdb, lean, sync")


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
