"""The design's rule: imports go down only, and TensorFlow stands in few places."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1] / "kvae"
LEVELS = [
    ["_compat", "arguments", "files", "html", "noise", "replicas"],
    ["distributions"],
    ["layers", "quantising", "schedules", "flows"],
    ["networks", "posteriors", "priors", "likelihoods", "objectives", "optimizers"],
    ["data"],
    ["saving", "training"],
    ["models"],
    ["evaluation", "plots"],
    ["callbacks"],
    ["widgets"],
    ["__init__", "__main__"],
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
TENSORFLOW = {
    "_compat.py",
    "evaluation/draws.py",
    "evaluation/annealing.py",
    "models/base.py",
    "models/skipping.py",
    "models/training.py",
    "optimizers.py",
    "replicas.py",
    "saving/weights.py",
}
FILES = sorted(ROOT.rglob("*.py"))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    for name in imported(path):
        if not name.startswith("kvae."):
            continue
        other = name.split(".")[1]
        if other == parts[0]:
            continue
        if other not in LEVEL:
            assert parts[0] in ("__main__",), name
        else:
            assert LEVEL[other] < LEVEL[parts[0]], f"{'/'.join(parts)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tensorflow_stands_in_few_places(path):
    place = str(path.relative_to(ROOT))
    if not place.startswith("data/") and place not in TENSORFLOW:
        assert not any(name.split(".")[0] == "tensorflow" for name in imported(path))


def test_every_part_of_the_package_has_its_level():
    assert {path.relative_to(ROOT).with_suffix("").parts[0] for path in FILES} <= LEVEL.keys()
