"""What a long measurement has found so far, in a file from which it goes on."""

import hashlib
import json
import pathlib
import tempfile
import time
import warnings
import zipfile

import keras
import numpy as np
from keras import ops

from kvae import files

_SECONDS = 10  # between two writes


class Unfinished:
    """Rows of numbers, one row an example; a context at whose end they are written, be that end an error.

    examples: how many the file has; their x are to be given to `skip`, those after them to `add`.

    Args:
        path: of the file, or None for none.
        model: whose weights and configuration, but for names and seeds, must be those that the file is of, as
            `arguments` and the examples must.
        arguments: {name: value}.

    Raises:
        ValueError: for a file of another measurement, or of none.
        OSError: for a path that nothing can be written to.
    """

    def __init__(self, path, model, **arguments):
        self.path = None if path is None else pathlib.Path(path)
        self.examples, self.parts, self.added = 0, [], 0
        self.seen, self.expected = {}, None  # a hash for each part of x, however it comes in pieces
        self.written = time.monotonic()
        if self.path is not None:
            own = {"weights": _weights(model), "configuration": _configuration(model)}
            self.identity = {**own, **{name: str(value) for name, value in arguments.items()}}
            if self.path.exists():
                self._read()
            else:
                self._check_writable()

    def _read(self):
        try:
            with np.load(self.path) as file:
                stored = {name: file[name] for name in file.files}
            identity = {name: str(stored[f"of_{name}"]) for name in self.identity}
            self.parts = [[stored[f"column_{number}"] for number in range(int(stored["columns"]))]]
            self.expected = str(stored["seen"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise ValueError(
                f"{self.path} holds no unfinished measurement: give the path of one, or a new one."
            ) from None
        self._refuse([name for name, value in self.identity.items() if identity[name] != value])
        self.examples = len(self.parts[0][0])

    def _refuse(self, other):
        if other:
            raise ValueError(
                f"{self.path} was measured with other {' and '.join(other)}: give another path, or delete the file."
            )

    def _check_writable(self):
        try:
            with tempfile.NamedTemporaryFile(prefix=f"{self.path.name}.", dir=self.path.parent):
                pass
        except OSError as error:
            raise OSError(
                f"{self.path} can't be written ({error.strerror}): give a path in a folder that exists and can be "
                "written to."
            ) from None

    def skip(self, x):
        self._see(x)

    def add(self, x, *columns):
        """x, an array or more of them, (n, ...), and what was found of them, arrays (n, ...)."""
        self._check_examples()
        self._see(x)
        self.parts.append(columns)
        self.added += len(columns[0])
        if self.path is not None and time.monotonic() - self.written > _SECONDS:
            self._write()

    def columns(self):
        """All that was found, a list of arrays (n, ...)."""
        self._check_examples()
        return [np.concatenate(column) for column in zip(*self.parts, strict=True)]

    def _see(self, x):
        for number, part in enumerate(keras.tree.flatten(x) if self.path is not None else ()):
            seen = self.seen.setdefault(number, hashlib.sha256())
            seen.update(np.ascontiguousarray(ops.convert_to_numpy(part)).tobytes())

    def _fingerprint(self):
        return " ".join(seen.hexdigest() for seen in self.seen.values())

    def _check_examples(self):
        if self.expected is not None:
            self._refuse(["examples"] if self._fingerprint() != self.expected else [])
            self.expected = None

    def _write(self):
        columns = self.columns()
        with files.atomic_write(self.path) as file:
            np.savez(
                file,
                seen=self._fingerprint(),
                columns=len(columns),
                **{f"of_{name}": value for name, value in self.identity.items()},
                **{f"column_{number}": column for number, column in enumerate(columns)},
            )
        self.written = time.monotonic()

    def __enter__(self):
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


def _weights(model):
    """A fingerprint of the weights' shapes and values, in their order."""
    found = hashlib.sha256()
    for weight in model.weights:
        found.update(str(tuple(weight.shape)).encode() + ops.convert_to_numpy(weight).tobytes())
    return found.hexdigest()


def _configuration(model):
    """A fingerprint of what the model's layers, its likelihood, prior and posterior among them, were made with."""
    found = [type(model).__name__]
    for layer in _layers(model):
        found.append(type(layer).__name__)
        if not isinstance(layer, keras.Model):  # whose layers come after it
            found.append(_anonymous(_config(layer)))
    text = json.dumps(found, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _layers(layer):
    for part in getattr(layer, "layers", ()):
        yield part
        yield from _layers(part)


def _config(layer):
    try:
        return layer.get_config()
    except NotImplementedError:  # a reader's own layer
        return {}


def _anonymous(config):
    """The config without what says nothing of the numbers: names, seeds, and whether weights are trained."""
    if isinstance(config, list | tuple):
        return [_anonymous(part) for part in config]
    if not isinstance(config, dict):
        return config
    left_out = ("name", "seed", "trainable")
    kept = {str(key): value for key, value in config.items() if key not in left_out}
    return {key: value if key == "dtype" else _anonymous(value) for key, value in kept.items()}


def _plain(value):
    return value.tolist() if hasattr(value, "tolist") else type(value).__name__
