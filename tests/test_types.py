"""Types of the package and of calls to it, as pyright sees them."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.processes
@pytest.mark.parametrize("path", ["kvae", "tests/typed_use.py"])
def test_pyright_finds_no_errors(path):
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, path]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
