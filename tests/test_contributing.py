"""The three additions that CONTRIBUTING.md shows work as they stand there."""

import inspect
import pathlib
import re
import sys
import types

import pytest

BLOCKS = re.findall(r"```python\n(.*?)```", (pathlib.Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(), re.S)
PAIRS = list(zip(BLOCKS[::2], BLOCKS[1::2], strict=True))


def name_of(block):
    return re.match(r'"""(\w+)\.py', block)[1]


@pytest.mark.parametrize(("addition", "test"), PAIRS, ids=[name_of(addition) for addition, _ in PAIRS])
def test_an_addition_passes_its_test(addition, test, tmp_path, monkeypatch):
    assert len(addition.splitlines()) <= 40 and name_of(test) == f"test_{name_of(addition)}"
    module = types.ModuleType(name_of(addition))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(addition, module.__dict__)
    names = {}
    exec(test, names)
    for name, function in names.items():
        if name.startswith("test_"):
            function(**({"tmp_path": tmp_path} if "tmp_path" in inspect.signature(function).parameters else {}))


def test_there_is_a_prior_a_likelihood_and_a_data_source():
    assert [name_of(addition) for addition, _ in PAIRS] == ["learned_normal", "laplace", "idx"]
