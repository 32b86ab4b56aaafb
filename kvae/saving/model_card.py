"""The card beside a saved model: what the file is, and what the run was that made it."""

import dataclasses
import datetime
import hashlib
import html
import json
import os
import platform
import re
import subprocess
import sys

import keras
import numpy as np
from keras import ops

from kvae.data import provenance

MOST_BYTES = 2**24
_PACKAGES = "kvae", "keras", "tensorflow", "numpy"
_GIT = "git", "--no-optional-locks", "-c", "core.fsmonitor=false"


@dataclasses.dataclass
class Record:
    """What a model remembers of its training.

    data: what each `fit` was given. start: the hash of the weights and seeds before the first one. epochs: all of
    them. metrics: the last epoch's.
    """

    data: list = dataclasses.field(default_factory=list)
    start: str | None = None
    epochs: int = 0
    metrics: dict = dataclasses.field(default_factory=dict)

    def encoded(self):
        """The record as an array of bytes, uint8."""
        return np.frombuffer(json.dumps(dataclasses.asdict(self)).encode(), "uint8")

    @classmethod
    def decoded(cls, array):
        return cls(**json.loads(np.asarray(array, "uint8").tobytes()))


class Recorder(keras.callbacks.Callback):
    """Notes in a model's record what it is trained on, counts the epochs, and keeps the last one's metrics.

    data, first: as those of `kvae.data.provenance.describe`. settings: a dict, of `fit`.
    """

    def __init__(self, model, data, first, settings):
        super().__init__()
        self.data = {**provenance.describe(data, first), **settings}
        self.start = weights_hash(_state(model))
        self.before = None

    def on_train_begin(self, logs=None):
        record = self.model.record  # that of the run which this one goes on from, where there is one
        record.start = record.start or self.start
        if self.data not in record.data:
            record.data.append(self.data)

    def on_epoch_begin(self, epoch, logs=None):
        if self.before is None:
            self.before = max(self.model.record.epochs - epoch, 0)

    def on_epoch_end(self, epoch, logs=None):
        self.model.record.epochs = self.before + epoch + 1
        self.model.record.metrics = {name: float(value) for name, value in (logs or {}).items()}


def _state(model):
    """The weights and the seeds, without what metrics have counted."""
    counted = {id(variable) for metric in model.metrics for variable in metric.variables}
    return [variable for variable in model.variables if id(variable) not in counted]


def card_paths(path):
    """Where the cards of a model's file are: (JSON, Markdown)."""
    return path.with_suffix(".card.json"), path.with_suffix(".card.md")


def described(model):
    """What there is to say of a model, a dict of which JSON can be made."""
    optimizer = getattr(model, "optimizer", None)
    return {
        "weights": {"sha256": weights_hash(model.weights), "parameters": model.count_params() if model.built else None},
        "start": {"sha256": model.record.start},
        "data": model.record.data,
        "seed": getattr(model, "seed", None),
        "steps": int(ops.convert_to_numpy(optimizer.iterations)) if optimizer else None,
        "epochs": model.record.epochs,
        "metrics": {name: x if np.isfinite(x) else str(x) for name, x in model.record.metrics.items()},
        "settings": keras.saving.serialize_keras_object(model),
        "versions": {
            "python": platform.python_version(),
            **{name: sys.modules[name].__version__ for name in _PACKAGES},
        },
        "machine": f"{platform.system()} {platform.machine()}",
        "git": _commit(),
        "saved": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def weights_hash(variables):
    """SHA-256 of the variables' dtypes, shapes and values, in their order."""
    found = hashlib.sha256()
    for variable in variables:
        array = np.ascontiguousarray(ops.convert_to_numpy(variable))
        found.update(f"{array.dtype} {tuple(variable.shape)} ".encode())
        found.update(array.reshape(-1).view("uint8"))
    return found.hexdigest()


def verify_checksum(path):
    """Raise ValueError where there is a card beside the file and the file isn't the one that it is of."""
    card = card_paths(path)[0]
    if not card.exists():
        return
    try:
        if card.stat().st_size > MOST_BYTES:
            raise ValueError
        expected = json.loads(card.read_bytes())["file"]["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path}'s card {card.name} is damaged: restore both, or delete the card") from None
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is damaged or altered: its SHA-256 isn't that of its card {card.name}; restore it, or delete the "
            "card if the file is the one that you mean"
        )


def markdown(card):
    """The card as Markdown, in which no text of the user's is markup."""
    rows = "\n".join(f"| {_plain(name)} | {_plain(value)} |" for name, value in _flat(card, {"settings"}))
    settings = html.escape(json.dumps(card["settings"], indent=1))
    name = _plain(card["file"]["name"])
    return (
        f"# {name}\n\n| | |\n| --- | --- |\n{rows}\n\n<details><summary>settings</summary>\n<pre>{settings}</pre>\n"
        "</details>\n"
    )


def _flat(value, without, name=""):
    """(name, value) of all that is within dicts and lists."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            if key not in without:
                yield from _flat(part, without, f"{name} {key}".strip())
    elif value is not None:
        yield name, value


def _plain(value):
    return re.sub(r"[^\w .,/+-]|(?<![^\W_])_|_(?![^\W_])", lambda found: f"&#{ord(found[0])};", str(value))


def file_entry(file, path):
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def _commit():
    """The commit of the working folder and whether its files differ from it; None where there is none."""
    try:
        found = [
            subprocess.run([*_GIT, *command], capture_output=True, text=True, timeout=10)
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.TimeoutExpired):
        return None
    if any(each.returncode for each in found):
        return None
    return {"commit": found[0].stdout.strip(), "changed": bool(found[1].stdout)}
