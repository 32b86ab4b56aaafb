"""A file of the results of a long measurement so far, to resume it after an interruption."""

import hashlib
import json
import os
import pathlib
import tempfile
import time
import warnings
import zipfile
from typing import Any

import keras
import numpy as np
from keras import ops

from kvae import files
from kvae.saving import model_card
from kvae.training.position import flatten_config

_SECONDS = 10  # between two writes


class PartialResults:
    """Arrays of results, one row per example. As a context manager it writes them at its end, also after an error.

    Args:
        path: of the file. None keeps the results in memory only.
        model: the measured model. A file of other weights, or of another configuration, is refused. The names and
            seeds of the layers don't count.
        arguments: the measurement's arguments. A file of other ones is refused.

    Attributes:
        examples: number of examples with results in the file. Give their x to `skip`, and the others' to `add`.

    Raises:
        ValueError: if the file belongs to another measurement or isn't a file of results.
        OSError: if nothing can be written to `path`.
    """

    def __init__(self, path: str | pathlib.Path | None, model: keras.Model, **arguments: Any):
        self.path = None if path is None else files.absolute(path, "resume")
        self.examples, self.added = 0, 0
        self.rows: list = []
        self.digests: dict = {}  # the SHA-256 of each array of x, however many pieces it comes in
        self.expected = None
        self.written = time.monotonic()
        if self.path is not None:
            arguments |= {"weights": model_card.weights_hash(model.weights), "configuration": _configuration(model)}
            self.identity = {name: str(value) for name, value in arguments.items()}
            if os.path.lexists(self.path):
                self._read(self.path)
            else:
                _check_writable(self.path)

    def _read(self, path):
        try:
            with files.open_regular(path) as opened, np.load(opened) as file:
                identity = {name: str(file[f"of_{name}"]) for name in self.identity}
                columns = [file[f"column_{number}"] for number in range(int(file["columns"]))]
                self.expected = str(file["seen"])
        except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
            raise ValueError(f"{path} holds no unfinished measurement: give the path of one, or a new one.") from None
        self._refuse(*(name for name, value in self.identity.items() if identity[name] != value))
        self.rows, self.examples = [columns], len(columns[0])

    def _refuse(self, *different):
        if different:
            raise ValueError(
                f"{self.path} was measured with other {' and '.join(different)}: give another path, or delete the file."
            )

    def skip(self, x: Any) -> None:
        """Compare x, an array or several, with the examples of the file."""
        for number, array in enumerate(keras.tree.flatten(x) if self.path is not None else ()):
            digest = self.digests.setdefault(number, hashlib.sha256())
            digest.update(np.ascontiguousarray(ops.convert_to_numpy(array)).tobytes())

    def add(self, x: Any, *columns: np.ndarray) -> None:
        """Add the results of x: arrays (n, ...), the same number of them each time."""
        self._check_examples()
        self.skip(x)
        self.rows.append(columns)
        self.added += len(columns[0])
        if self.path is not None and time.monotonic() - self.written > _SECONDS:
            self._write()

    def columns(self) -> list[np.ndarray]:
        """The results of all examples."""
        self._check_examples()
        return [np.concatenate(column) for column in zip(*self.rows, strict=True)]

    def _fingerprint(self):
        return " ".join(digest.hexdigest() for digest in self.digests.values())

    def _check_examples(self):
        if self.expected not in (None, self._fingerprint()):
            self._refuse("examples")
        self.expected = None

    def _write(self):
        assert self.path is not None
        columns = self.columns()
        arrays: dict[str, Any] = {f"of_{name}": value for name, value in self.identity.items()}
        arrays |= {f"column_{number}": column for number, column in enumerate(columns)}
        with files.lock_file(self.path), files.atomic_write(self.path) as file:
            np.savez(file, seen=self._fingerprint(), columns=len(columns), **arrays)
        self.written = time.monotonic()

    def __enter__(self) -> "PartialResults":
        return self

    def __exit__(self, kind, *error):
        if self.path is None or not self.added:
            return
        try:
            self._write()
        except OSError as unwritten:
            if kind is not None:
                raise
            warnings.warn(f"{self.path} couldn't be written, and lacks the last examples: {unwritten}", stacklevel=3)


def _check_writable(path):
    try:
        with tempfile.NamedTemporaryFile(prefix=f"{path.name}.", dir=path.parent):
            pass
    except OSError as error:
        raise OSError(
            f"{path} can't be written ({error.strerror}): give a path in a folder that exists and can be written to."
        ) from None


def _configuration(model):
    """SHA-256 of the model's configuration, without the names and seeds of its layers."""
    try:
        flat = flatten_config(model.get_config(), type(model).__name__)
    except (NotImplementedError, TypeError, ValueError):  # of a user's own part without a configuration
        flat = {}
    kept = {path: value for path, value in flat.items() if path.split(".")[-1] not in ("seed", "trainable")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
