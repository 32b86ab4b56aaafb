"""The position of a run in its epochs and its stream, and the settings that a resumed run must share with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kvae.data.runs import Run

_DATA_SETTINGS = "examples", "content", "seed", "batch_size", "shuffle"
_INCOMPATIBLE = keras.callbacks.BackupAndRestore, keras.callbacks.SwapEMAWeights


class RunPosition(NamedTuple):
    """`step` batches into `epoch`, both counted from 0.

    stream_epoch is the epoch of the stream that this epoch reads. first_epoch is the epoch that the run began with,
    and first_update the number of the optimizer's updates before it.
    """

    epoch: int
    step: int
    stream_epoch: int
    first_epoch: int
    first_update: int

    def batches(self, steps: int) -> int:
        """The batches that the run has had, with `steps` batches an epoch."""
        return (self.epoch - self.first_epoch) * steps + self.step


def start_of_run(model: Any, initial_epoch: int, steps: int | None) -> RunPosition:
    """The position of a new run: behind the updates that the model has taken, unless `initial_epoch` is given."""
    updates = int(ops.convert_to_numpy(model.optimizer.iterations))
    stream_epoch = initial_epoch or (-(-updates // steps) if steps else 0)
    return RunPosition(initial_epoch, 0, stream_epoch, initial_epoch, updates)


def find_checkpoint(callbacks: list) -> Any:
    """The `Checkpoint` among the callbacks, or None. Raises ValueError beside others that replace weights."""
    checkpoints = [callback for callback in callbacks if hasattr(callback, "protect")]
    others = [type(callback).__name__ for callback in callbacks if isinstance(callback, _INCOMPATIBLE)]
    if checkpoints and (others or checkpoints[1:]):
        other = others[0] if others else f"another {type(checkpoints[0]).__name__}"
        raise ValueError(
            f"{type(checkpoints[0]).__name__} can't go with {other}, which puts other weights in place: leave one of "
            "them out"
        )
    return checkpoints[0] if checkpoints else None


def settings(
    model: Any, steps: int | None, data: dict[str, Any], first_batches: dict[str, str | None] | None = None
) -> dict[str, Any]:
    """All that decides a run, a flat dict: the model's configuration, how it was compiled, its data.

    Args:
        model: compiled and built.
        steps: the batches of an epoch.
        data: the data's provenance, as a model card has it.
        first_batches: {name: hash of the first batch}, of the data and the validation data, None if it isn't the
            same each time.
    """
    names = _DATA_SETTINGS if data["name"] else ("seed",)
    flat = {"batches an epoch": steps, "weights": [list(weight.shape) for weight in model.weights]}
    flat.update({f"{name}'s first batch": found for name, found in (first_batches or {}).items() if found is not None})
    flat.update(flatten_config({name: data[name] for name in names if name in data}, "data"))
    for prefix, config in (("model", model.get_config), ("compile", model.get_compile_config)):
        try:
            flat.update(flatten_config(config(), prefix))
        except (NotImplementedError, TypeError, ValueError):  # of a user's own part without a configuration
            continue
    return flat


def flatten_config(config: Any, prefix: str) -> dict[str, Any]:
    """{path: leaf} of a configuration, with the names that Keras numbers counted from 0."""
    names = {}

    def gather(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("name"), str) and len(value) > 1:  # alone it is a dtype policy's
                names.setdefault(value["name"], f"name {len(names)}")
            value = list(value.values())
        if isinstance(value, list | tuple):
            for entry in value:
                gather(entry)

    def flatten(path: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and value.get("class_name") == "__lambda__":
            yield path, "lambda"  # its code holds its file's name, and each kernel of a notebook has another
        elif isinstance(value, dict):
            is_kvaes = str(value.get("registered_name")).startswith("kvae>")  # it may move to another module
            for inner, entry in value.items():
                if is_kvaes and inner == "module":
                    continue
                yield from flatten(f"{path}.{names.get(inner, inner)}", entry)
        elif isinstance(value, list | tuple):
            for number, entry in enumerate(value):
                yield from flatten(f"{path}.{number}", entry)
        elif isinstance(value, str):
            yield path, names.get(value, value)
        elif value is None or isinstance(value, bool | int | float):
            yield path, value
        else:
            yield path, repr(np.asarray(value).tolist())

    gather(config)
    return dict(flatten(prefix, config))


class ResumeAt(keras.callbacks.Callback):
    """Starts the training data at a position. Keras' own callbacks may still move the run to another epoch.

    Keras still counts the first epoch's batches before the position: for them a stand-in for `train_function` returns
    the logs and reads nothing.
    A context manager; its end puts the model's `train_function` back.

    Args:
        data: the training data, as Keras reads them.
        start: a `RunPosition`.
    """

    def __init__(self, data: Any, start: RunPosition):
        super().__init__()
        self.data, self.start, self.train_function = data, start, None

    def __enter__(self) -> ResumeAt:
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.train_function is not None:
            self.model.train_function = self.train_function

    def on_train_begin(self, logs=None):
        self.has_begun = False

    def on_epoch_begin(self, epoch, logs=None):
        if self.has_begun:
            return
        self.has_begun = True
        if isinstance(self.data, Run):
            self.data.next_epoch = self.start.stream_epoch if epoch == self.start.epoch else epoch
            self.data.skip = self.start.step
        if self.start.step:
            self._skip_past_batches()

    def _skip_past_batches(self):
        model, batches = self.model, 0
        self.train_function = model.train_function

        def report(iterator):
            nonlocal batches
            batches += model.steps_per_execution
            if batches >= self.start.step:
                model.train_function, self.train_function = self.train_function, None
            return model.get_metrics_result()

        model.train_function = report
