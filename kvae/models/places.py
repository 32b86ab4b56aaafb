"""Where a run stands, and what a run that goes on from there must have in common with it."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kvae.data.arrays import in_memory, passes
from kvae.data.stream import Run, Stream

BATCH_SIZE = 32  # Keras', of arrays


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


def first(model, initial_epoch, steps):
    """The place of a run that begins: behind the updates that the model has taken, unless it is told an epoch."""
    updates = int(ops.convert_to_numpy(model.optimizer.iterations))
    stream_epoch = initial_epoch or (-(-updates // steps) if steps else 0)
    return Place(initial_epoch, 0, stream_epoch, initial_epoch, updates)


def length(data):
    """The batches of a dataset; None of arrays, of an endless dataset, and of one that doesn't know it."""
    if isinstance(data, tf.data.Dataset) and int(data.cardinality()) >= 0:
        return int(data.cardinality())
    return None


def streamed(arrays, kwargs):
    """(x, y, sample_weight), None where there is none, as a Stream; what `fit` was told of arrays leaves its kwargs."""
    if kwargs.pop("validation_split", 0):
        raise ValueError("validation_split can't go with a Checkpoint: give the two parts as x and validation_data")
    batch_size = kwargs.pop("batch_size", None) or BATCH_SIZE
    kwargs.setdefault("validation_batch_size", batch_size)
    arrays = tuple(array for array in arrays if array is not None)
    return in_memory(arrays, batch_size, shuffle=kwargs.pop("shuffle", True))


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

    def gather(key, value):
        if isinstance(value, dict):
            for inner, entry in value.items():
                gather(inner, entry)
        elif isinstance(value, list | tuple):
            for entry in value:
                gather(None, entry)
        elif key == "name" and isinstance(value, str):
            names.setdefault(value, f"name {len(names)}")

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

    gather(None, config)
    return dict(flatten(part, config))


def rest(data, steps, place):
    """A dataset as a run in epochs of so many steps reads it from its place on: Streams, and plain ones made so.

    A plain dataset of `steps` batches is passed over in each epoch; the batches of any other follow on each other
    without end. Raises ValueError for one of unknown length.
    """
    if isinstance(data, Stream):
        return data
    count = int(data.cardinality())
    if count == tf.data.UNKNOWN_CARDINALITY:
        raise ValueError(
            "x is a stream of unknown length, in which a run can't find its place: add "
            ".apply(tf.data.experimental.assert_cardinality(batches)) to it"
        )
    if count == steps:
        return passes(data, steps)
    endless = data if count == tf.data.INFINITE_CARDINALITY else data.repeat()
    return endless.skip((place.epoch - place.first_epoch) * steps + place.step)


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
