"""The design's rule: imports go down only, and TensorFlow stands in few places; no circles."""

import ast
import pathlib

from fit_trace import circles, imports, runtime_nodes

ROOT = pathlib.Path(__file__).parents[1] / "kvae"
LEVELS = [
    ["_compat", "arguments"],
    ["files"],
    ["columns", "html", "noise", "replicas"],
    ["distributions"],
    ["layers", "schedules", "flows"],
    ["posteriors"],
    ["networks", "priors", "likelihoods", "objectives", "optimizers"],
    ["data"],
    ["saving", "plots"],
    ["training"],
    ["models"],
    ["evaluation"],
    ["auditing", "compression"],
    ["callbacks"],
    ["widgets", "exercises", "sklearn"],
    ["__init__", "__main__"],
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
TENSORFLOW = {
    "_compat.py",
    "auditing/densities.py",
    "compression/exact.py",
    "compression/files.py",
    "evaluation/scoring.py",
    "evaluation/annealing.py",
    "layers.py",
    "models/base.py",
    "models/autoencoder.py",
    "models/factor_vae.py",
    "models/scoring.py",
    "models/step.py",
    "models/vae.py",
    "models/vq_vae.py",
    "training/nonfinite.py",
    "training/plan.py",
    "optimizers.py",
    "replicas.py",
    "saving/safety.py",
}
FILES = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.py"))}


def imported(path):
    for node in runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(file):
    """Its folder or file directly in the package."""
    return file.split("/")[0].removesuffix(".py")


def goes_down(file, name):
    """Whether a file of this name may import the module or object `name`."""
    if not name.startswith("kvae."):
        return True
    here, there = room(file), name.split(".")[1]
    return here in (there, "__main__") or LEVEL.get(there, len(LEVELS)) < LEVEL[here]


def test_imports_go_down_only():
    assert {room(file) for file in FILES} <= LEVEL.keys()
    offenders = [(file, name) for file, path in FILES.items() for name in imported(path) if not goes_down(file, name)]
    assert not offenders


def test_tensorflow_stands_in_few_places():
    users = {file for file, path in FILES.items() if any(name.split(".")[0] == "tensorflow" for name in imported(path))}
    assert {file for file in users if not file.startswith("data/")} == TENSORFLOW


def test_scipy_stats_is_not_imported():
    """It is an eighth of the time of `import kvae` without scikit-learn. (With it, Keras imports both.)"""
    assert not [file for file, path in FILES.items() if any("scipy.stats" in name for name in imported(path))]


def test_no_modules_import_each_other():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]
    assert not circles(imports())
