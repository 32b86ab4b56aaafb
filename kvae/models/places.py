"""Where a run stands, and what a run that goes on from there must have in common with it."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from kvae.data.stream import Run


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


def settings(model, steps):
    """What decides a run, a flat dict: the model's configuration, how it was compiled, the batches of an epoch."""
    found = {"batches an epoch": steps, "weights": [list(weight.shape) for weight in model.weights]}
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
        if isinstance(value, dict):
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
    reports.
    """

    def __init__(self, data, place):
        super().__init__()
        self.data, self.place = data, place

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
            _pass_over(self.model, self.place.step)


def _pass_over(model, steps):
    train, taken = model.train_function, 0

    def report(iterator):
        nonlocal taken
        taken += model.steps_per_execution
        if taken >= steps:
            model.train_function = train
        return model.get_metrics_result()

    model.train_function = report
