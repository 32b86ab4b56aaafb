"""A formula that is broken breaks its test: mistakes are planted, one at a time, in a copy of the package."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from planted_mistakes import MISTAKES, MUTATIONS

ROOT = pathlib.Path(__file__).parents[1]


def run(root, *tests):
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *(f"tests/{name}" for name in tests)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    for folder in ("kvae", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "benchmarks"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("test, file, text, mistake", MISTAKES)
def test_a_mistake_has_its_place_and_its_test(test, file, text, mistake):
    path, name = test.split("::")
    assert (ROOT / "kvae" / file).read_text().count(text) == 1
    assert f"def {name}(" in (ROOT / "tests" / path).read_text()


@pytest.mark.slow
def test_without_a_mistake_they_pass(copy):
    done = run(copy, *MUTATIONS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("test, file, text, mistake", MISTAKES)
def test_a_mistake_fails_its_test(copy, test, file, text, mistake):
    path = copy / "kvae" / file
    source = path.read_text()
    assert source.count(text) == 1
    path.write_text(source.replace(text, mistake))
    done = run(copy, test)
    assert done.returncode == 1 and "AssertionError" in done.stdout, done.stdout + done.stderr
