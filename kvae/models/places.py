"""Where a run stands, and what a run that goes on from there must have in common with it."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from kvae.data.runs import Run

_DATA = "examples", "content", "seed", "batch_size", "shuffle"
_NOT_BESIDE = keras.callbacks.BackupAndRestore, keras.callbacks.SwapEMAWeights


class Place(NamedTuple):
    """`step` batches into `epoch`, both counted from 0.

    stream_epoch: the epoch of the stream that this one reads. first_epoch, first_update: the epoch that the run
    began with, and the optimizer's updates before it.
    """

    epoch: int
    step: int
    stream_epoch: int
    first_epoch: int
    first_update: int

    def batches(self, steps):
        """How many the run has had, of epochs of so many."""
        return (self.epoch - self.first_epoch) * steps + self.step


def first(model, initial_epoch, steps):
    """The place of a run that begins: behind the updates that the model has taken, unless it is told an epoch."""
    updates = int(ops.convert_to_numpy(model.optimizer.iterations))
    stream_epoch = initial_epoch or (-(-updates // steps) if steps else 0)
    return Place(initial_epoch, 0, stream_epoch, initial_epoch, updates)


def protector(callbacks):
    """The callback that keeps the run's state, or None. Raises ValueError beside others that put weights in place."""
    found = [callback for callback in callbacks if hasattr(callback, "protect")]
    others = [type(callback).__name__ for callback in callbacks if isinstance(callback, _NOT_BESIDE)]
    if found and (others or found[1:]):
        other = others[0] if others else f"another {type(found[0]).__name__}"
        raise ValueError(
            f"{type(found[0]).__name__} can't go with {other}, which puts other weights in place: leave one of them out"
        )
    return found[0] if found else None


def settings(model, steps, data):
    """What decides a run, a flat dict: the model's configuration, how it was compiled, the batches of an epoch.

    data: what `fit` was given, as a card has it. Of a stream without a name only the seed counts: its first batch may
    be another each time.
    """
    known = _DATA if data["name"] else ("seed",)
    found = {"batches an epoch": steps, "weights": [list(weight.shape) for weight in model.weights]}
    found.update(_flat({name: data[name] for name in known if name in data}, "data"))
    for part, config in (("model", model.get_config), ("compile", model.get_compile_config)):
        try:
            found.update(_flat(config(), part))
        except (NotImplementedError, TypeError, ValueError):  # of a user's own part, which has none
            continue
    return found


def _flat(config, part):
    """{path: leaf} of a configuration, in which names that Keras numbers count from 0."""
    names = {}

    def gather(value):
        if isinstance(value, dict):
            if isinstance(value.get("name"), str) and len(value) > 1:  # alone it is a dtype policy's
                names.setdefault(value["name"], f"name {len(names)}")
            value = list(value.values())
        if isinstance(value, list | tuple):
            for entry in value:
                gather(entry)

    def flatten(path, value):
        if isinstance(value, dict) and value.get("class_name") == "__lambda__":
            yield path, "lambda"  # its code holds the name of its file, another one in each kernel of a notebook
        elif isinstance(value, dict):
            for inner, entry in value.items():
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
    return dict(flatten(part, config))


class StartsAt(keras.callbacks.Callback):
    """Starts the data, if they are a `Run`, at a place, which a callback of Keras may still move to another epoch.

    Batches of the first epoch that were taken before are counted, and not read: for them `train_function` only
    reports. Its context ends that however the run ends.
    """

    def __init__(self, data, place):
        super().__init__()
        self.data, self.place, self.train = data, place, None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.train is not None:
            self.model.train_function = self.train

    def on_train_begin(self, logs=None):
        self.begun = False

    def on_epoch_begin(self, epoch, logs=None):
        if self.begun:
            return
        self.begun = True
        if isinstance(self.data, Run):
            self.data.next_epoch = self.place.stream_epoch if epoch == self.place.epoch else epoch
            self.data.skip = self.place.step
        if self.place.step:
            self._pass_over()

    def _pass_over(self):
        model, taken = self.model, 0
        self.train = model.train_function

        def report(iterator):
            nonlocal taken
            taken += model.steps_per_execution
            if taken >= self.place.step:
                model.train_function, self.train = self.train, None
            return model.get_metrics_result()

        model.train_function = report
