"""The card beside a saved model: the checksum of the file, and the run behind it."""

import datetime
import hashlib
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from io import BufferedReader
from typing import Any

import keras
import numpy as np
from keras import ops

from kvae import files
from kvae.data import provenance

_MAX_CARD = 2**24  # bytes
_MAX_PENDING = 8
_MOST_ROWS = 8  # of data, and of metrics, in Markdown
_NOT_SHOWN = "name", "trainable", "dtype", "autocast"
_PACKAGES = "kvae", "keras", "tensorflow", "numpy"
_GIT = "git", "--no-optional-locks", "-c", "core.fsmonitor=false"


class Record:
    """A model's memory of its training.

    Args:
        data: list of dicts, the data and settings of each `fit`.
        start: hash of the weights and seeds before the first `fit`, or None.
        epochs: int, the number of all epochs.
        metrics: dict, the metrics of the last epoch.
        x: {"dtype": str, "largest": float}, the dtype of the last `fit`'s x and the largest magnitude in its first
            batch, scaled; or None.
    """

    def __init__(
        self,
        data: Iterable[dict[str, Any]] = (),
        start: str | None = None,
        epochs: int = 0,
        metrics: dict[str, float] | None = None,
        x: dict[str, Any] | None = None,
    ):
        self._data, self._pending = list(data), []
        self.start, self.epochs, self.metrics = start, epochs, metrics or {}
        self.x = x

    def add_data(self, describe: Callable[[], dict[str, Any]]) -> None:
        """Adds an entry to `data` unless it is there. `describe` makes the entry once someone reads `data`."""
        if len(self._pending) == _MAX_PENDING:
            self._resolve()
        self._pending.append(describe)

    @property
    def data(self) -> list[dict[str, Any]]:
        self._resolve()
        return self._data

    def _resolve(self):
        pending, self._pending = self._pending, []
        for describe in pending:
            entry = describe()
            if entry not in self._data:
                self._data.append(entry)

    def as_dict(self) -> dict[str, Any]:
        return {"data": self.data, "start": self.start, "epochs": self.epochs, "metrics": self.metrics, "x": self.x}

    def encode(self) -> np.ndarray:
        """The record as an array of bytes, uint8."""
        return np.frombuffer(json.dumps(self.as_dict()).encode(), "uint8")

    @classmethod
    def decode(cls, array: Any) -> "Record":
        """The record of `encode`. Raises ValueError for values of other types."""
        record = cls(**json.loads(np.asarray(array, "uint8").tobytes()))
        is_right = (
            all(isinstance(entry, dict) for entry in record.data)
            and isinstance(record.start, str | None)
            and type(record.epochs) is int
            and record.epochs >= 0
            and isinstance(record.metrics, dict)
            and all(isinstance(value, int | float) for value in record.metrics.values())
        )
        if not is_right:
            raise ValueError(f"the record of its training holds values of other types: {str(record.as_dict())[:100]}")
        return record

    def __eq__(self, other):
        return isinstance(other, Record) and self.as_dict() == other.as_dict()


class Recorder(keras.callbacks.Callback):
    """Records in `model.record` the data of a `fit`, the number of epochs and the last metrics.

    Args:
        model: the model, built.
        data: (x, y, sample_weight) as `fit` reads them.
        first: a batch of x (see `kvae.data.provenance.Description`).
        settings: dict of further arguments of `fit`.
        x: see `Record`.
    """

    def __init__(self, model: Any, data: tuple, first: np.ndarray | None, settings: dict[str, Any], x: dict[str, Any]):
        super().__init__()
        self._x = x
        description = provenance.Description(data, first)
        self._describe = lambda: {**description.complete, **settings}
        self._start = model.record.start or weights_hash(_state(model))
        self._epochs_before = None

    @property
    def data(self) -> dict[str, Any]:
        """The entry for the record. Reads and hashes examples of a stream, at the first call."""
        return self._describe()

    def on_train_begin(self, logs=None):
        record = self.model.record  # of the resumed run, if this run resumes one
        record.start = record.start or self._start
        record.add_data(self._describe)
        record.x = self._x

    def on_epoch_begin(self, epoch, logs=None):
        if self._epochs_before is None:
            self._epochs_before = max(self.model.record.epochs - epoch, 0)

    def on_epoch_end(self, epoch, logs=None):
        self.model.record.epochs = self._epochs_before + epoch + 1
        self.model.record.metrics = {name: float(value) for name, value in (logs or {}).items()}


def _state(model):
    """The weights and seeds, without the counts of the metrics."""
    counted = {id(variable) for metric in model.metrics for variable in metric.variables}
    return [variable for variable in model.variables if id(variable) not in counted]


def card_paths(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The paths of the cards (JSON, Markdown) of a model's file."""
    return path.with_suffix(".card.json"), path.with_suffix(".card.md")


def make_card(model: Any, file: pathlib.Path, name: str) -> dict[str, Any]:
    """The card of a model, a dict for JSON.

    Args:
        model: has a `record`.
        file: the saved model.
        name: the name that the file will have.
    """
    optimizer, record = getattr(model, "optimizer", None), model.record
    return {
        "format": "kvae card",
        "version": 1,
        "file": {"name": name, "bytes": file.stat().st_size, "sha256": _file_hash(file)},
        "latent_dim": getattr(model, "latent_dim", None),
        "weights": {"sha256": weights_hash(model.weights), "parameters": model.count_params() if model.built else None},
        "start": {"sha256": record.start},
        "data": record.data,
        "seed": getattr(model, "seed", None),
        "steps": int(ops.convert_to_numpy(optimizer.iterations)) if optimizer else None,
        "epochs": record.epochs,
        "metrics": {name: x if np.isfinite(x) else str(x) for name, x in record.metrics.items()},
        "settings": keras.saving.serialize_keras_object(model),
        "versions": {
            "python": platform.python_version(),
            **{package: sys.modules[package].__version__ for package in _PACKAGES},
        },
        "machine": f"{platform.system()} {platform.machine()}",
        "git": _commit(),
        "saved": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def weights_hash(variables: Iterable[keras.Variable]) -> str:
    """SHA-256 of the dtypes, shapes and values of the variables, in their order."""
    sha256 = hashlib.sha256()
    for variable in variables:
        array = np.ascontiguousarray(ops.convert_to_numpy(variable))
        sha256.update(f"{array.dtype} {tuple(variable.shape)} ".encode())
        sha256.update(array.reshape(-1).view("uint8").data)
    return sha256.hexdigest()


def versions(path: pathlib.Path) -> list[tuple[int, ...] | None]:
    """What changes if another process saves to `path`: the identities of the file and its card."""
    found = []
    for each in (path, card_paths(path)[0]):
        try:
            status = os.stat(each)
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            found.append(None)
    return found


def verify_checksum(path: pathlib.Path, file: BufferedReader) -> None:
    """Raises ValueError if there is a card beside the file, and the open file differs from the card's checksum."""
    card = card_paths(path)[0]
    if not card.exists():
        return
    try:
        expected = json.loads(files.read_regular(card, _MAX_CARD))["file"]
        size, sha256 = expected["bytes"], expected["sha256"]
    except FileNotFoundError:  # another process saves
        return
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path}'s card {card.name} is damaged: restore both, or delete the card") from None
    is_same = os.fstat(file.fileno()).st_size == size and hashlib.file_digest(file, "sha256").hexdigest() == sha256
    file.seek(0)
    if not is_same:
        raise ValueError(
            f"{path} is damaged or altered: its SHA-256 isn't that of its card {card.name}; restore it, or delete the "
            "card if the file is the one that you mean"
        )


def markdown(card: dict[str, Any]) -> str:
    """The card's main entries as Markdown, at most 40 lines. Texts of the user are escaped."""
    name, json_name = (_escape(card_name) for card_name in (card["file"]["name"], _json_name(card)))
    rows = [f"| {_escape(row)} | {_escape(value)} |" for row, value in _main_entries(card) if value not in (None, "")]
    table = "\n".join(["| | |", "| --- | --- |", *rows])
    return f"# {name}\n\n{table}\n\nEverything else, such as the networks' settings, is in {json_name}.\n"


def _json_name(card):
    return card_paths(pathlib.Path(card["file"]["name"]))[0].name


def _main_entries(card) -> Iterator[tuple[str, Any]]:
    """Yields (name, value) of the rows."""
    settings, metrics, data = card.get("settings", {}), card.get("metrics", {}), card.get("data", [])
    config, compiled = settings.get("config", {}), settings.get("compile_config") or {}
    yield "model", settings.get("class_name")
    yield "codes", card.get("latent_dim")
    yield "parameters", card.get("weights", {}).get("parameters")
    for role in ("likelihood", "prior", "posterior_family"):
        yield role.replace("_", " "), _in_words(config.get(role))
    yield "objective", _in_words(compiled.get("loss"))
    yield "optimizer", _in_words(compiled.get("optimizer"), "learning_rate")
    for entry in data[-_MOST_ROWS:]:
        parts = [str(entry[key]) for key in ("name", "version", "part") if entry.get(key) is not None]
        numbers = [f"{entry[key]} {key.replace('_', ' ')}" for key in ("examples", "batch_size") if entry.get(key)]
        yield "data", ", ".join([" ".join(parts), *numbers])
    yield "trained", ", ".join(f"{card[key]} {key}" for key in ("epochs", "steps") if card.get(key))
    yield "seed", card.get("seed")
    for metric, value in list(metrics.items())[:_MOST_ROWS]:
        yield metric, value if isinstance(value, str) else f"{value:.6g}"
    if len(metrics) > _MOST_ROWS or len(data) > _MOST_ROWS:
        yield "in all", f"{len(metrics)} metrics, data of {len(data)} kinds"
    yield "versions", ", ".join(f"{package} {version}" for package, version in card.get("versions", {}).items())
    yield "machine", card.get("machine")
    yield "commit", (card.get("git") or {}).get("commit")
    yield "saved", card.get("saved")
    yield "SHA-256 of the file", card["file"].get("sha256")


def _in_words(serialized: Any, *names: str) -> str | None:
    """A serialized object as its class and plain settings: all of them, or those of `names`."""
    if not isinstance(serialized, dict):
        return f"{serialized:g}" if isinstance(serialized, float) else serialized
    config = serialized.get("config") or {}
    config = {name: _in_words(config[name]) for name in names or config if config.get(name) is not None}
    plain = [f"{key}={value}" for key, value in config.items() if key not in _NOT_SHOWN]
    return f"{serialized.get('class_name')}" + (f"({', '.join(plain)})" if plain else "")


def _escape(value: Any) -> str:
    """A text for a cell. A colon stays where no address can begin with it, and so do quotes, parentheses and = ; %."""
    special = r"""[^\w .,/+\-:()='";%?]|:(?![\s\d]|$)|(?<![^\W_])_|_(?![^\W_])"""
    return re.sub(special, lambda found: f"&#{ord(found[0])};", str(value))


def _file_hash(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _commit() -> dict[str, Any] | None:
    """The commit of the working folder, or None outside a repository.

    Whether files differ from it isn't asked: for that git runs commands that the repository's configuration names.
    """
    try:
        result = subprocess.run([*_GIT, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if result.returncode else {"commit": result.stdout.strip()}
