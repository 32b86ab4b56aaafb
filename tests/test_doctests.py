"""The examples in kvae's docstrings run and print what they say, all in one process."""

import doctest
import importlib
import pkgutil

import keras
import numpy as np
import pytest

import kvae

MODULES = [module.name for module in pkgutil.walk_packages(kvae.__path__, "kvae.") if "__main__" not in module.name]


@pytest.mark.parametrize("name", ["kvae", *MODULES])
def test_examples_print_what_they_say(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"kvae": kvae, "keras": keras, "ops": keras.ops, "np": np}
    results = doctest.testmod(importlib.import_module(name), extraglobs=names)
    assert results.failed == 0
    assert list(tmp_path.iterdir()) == []
