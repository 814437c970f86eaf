"""What the documentation shows is run."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import persistdict

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", README.read_text(), re.DOTALL)
# What the examples take for granted.
GIVEN = """
import warnings
warnings.simplefilter("error")
from langchain_core.embeddings import DeterministicFakeEmbedding
model, texts = DeterministicFakeEmbedding(size=8), ["a", "b", "a"]
"""


def modules():
    for module in pkgutil.walk_packages(persistdict.__path__, "persistdict."):
        yield module.name


@pytest.mark.parametrize("name", list(modules()))
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_examples_in_the_readme_run_and_print_what_it_says(number, tmp_path):
    code, output = BLOCKS[number]
    (tmp_path / "example.py").write_text(GIVEN * ("model" in code) + code)
    for _ in range(2):  # what is stored is there the second time
        done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
        told = [line for line in done.stderr.splitlines() if "entries are evicted from now on" not in line]
        assert (done.returncode, told) == (0, [])
        assert done.stdout == output


def test_public_things_have_docstrings():
    """Every public class and method says what it does for the caller."""
    for name in persistdict.__all__:
        thing = getattr(persistdict, name)
        assert thing.__doc__, name
        for member, value in vars(thing).items():
            if not member.startswith("_") and callable(value) and name in ("PersistDict", "SafeCodec", "Codec"):
                assert value.__doc__, f"{name}.{member}"
