"""How many files of kvae a reader enters to follow one `fit`: `python tests/benchmarks/fit_trace.py [--list]`.

Packs 640 images, loads them and trains a VAE for an epoch with validation, under `sys.setprofile` in the main thread.
For each stage it prints the files of kvae with a call, and the moves: pairs of successive calls in different files.
Then it prints circles of imports, those inside functions included.
"""

import argparse
import ast
import itertools
import os
import pathlib
import sys
import tempfile
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import kvae

ROOT = pathlib.Path(kvae.__file__).parent


class Trace(NamedTuple):
    calls: int
    files: list
    moves: int


class Recorder:
    """Context manager. Collects (file, function) of each call into kvae, and of those below `train_step` apart."""

    def __init__(self):
        self.all, self.steps, self._step = [], [], None

    def __enter__(self):
        sys.setprofile(self._note)
        return self

    def __exit__(self, *exception):
        sys.setprofile(None)

    def _note(self, frame, event, argument):
        if event not in ("call", "return"):
            return
        path = frame.f_code.co_filename
        if not path.startswith(str(ROOT)):
            return
        if event == "call":
            call = path[len(str(ROOT)) + 1 :], frame.f_code.co_name
            self.all.append(call)
            if call[1] == "train_step" and self._step is None:
                self._step = frame
                self.steps.append([])
            if self._step is not None:
                self.steps[-1].append(call)
        elif frame is self._step:
            self._step = None


def summary(calls):
    files = [file for file, _ in calls]
    moves = sum(first != second for first, second in itertools.pairwise(files))
    return Trace(len(calls), list(dict.fromkeys(files)), moves)


def traced():
    """{stage: Trace} of pack, load, the first `fit` and one `train_step` of it."""
    x = np.random.default_rng(0).integers(0, 256, (640, 8, 8, 1), "uint8")
    keras.utils.set_random_seed(0)
    model = kvae.VAE(
        kvae.networks.dense_encoder((8, 8, 1), 2, hidden=(16,)),
        kvae.networks.dense_decoder((8, 8, 1), 2, hidden=(16,)),
        seed=0,
    )
    model.compile()
    with tempfile.TemporaryDirectory() as folder:
        with Recorder() as packing:
            kvae.data.pack(x, f"{folder}/packed")
        with Recorder() as loading:
            train, validation, _ = kvae.data.load(f"{folder}/packed", 64)
        with Recorder() as fitting:
            model.fit(train, validation_data=validation, epochs=1, verbose=0)
    return {
        "pack": summary(packing.all),
        "load": summary(loading.all),
        "fit": summary(fitting.all),
        "train_step": summary(fitting.steps[0]),
    }


def imports(root=ROOT):
    """{module: modules of kvae that it imports}, at its top or in a function; `if TYPE_CHECKING` is left out."""
    paths = {module_name(path, root): path for path in root.rglob("*.py")}
    found = {}
    for name, path in paths.items():
        found[name] = set()
        for node in runtime_nodes(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names if alias.name in paths}
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    module = f"{node.module}.{alias.name}"
                    found[name] |= {module} if module in paths else {node.module} & set(paths)
    return found


def module_name(path, root):
    parts = ("kvae", *path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def runtime_nodes(node):
    """All nodes below this one that are executed."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from runtime_nodes(child)


def circles(graph):
    """Sets of modules that import each other, each as a sorted list."""

    def reached(start):
        seen, waiting = set(), [start]
        while waiting:
            for other in graph.get(waiting.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return seen

    below = {module: reached(module) for module in graph}
    groups = {tuple(sorted(o for o in below[m] if m in below[o])) for m in graph if m in below[m]}
    return [list(group) for group in sorted(groups)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name the files as well")
    options = parser.parse_args()
    for stage, trace in traced().items():
        print(f"{stage:11} {trace.calls:5} calls, {len(trace.files):3} files, {trace.moves:4} moves")
        if options.list:
            print("           ", ", ".join(trace.files))
    for circle in circles(imports()):
        print("circle of imports:", ", ".join(circle))


if __name__ == "__main__":
    main()
