"""A run that can be killed at any moment."""

import contextlib
import dataclasses
import json
import signal
import threading
import zlib

import keras
import numpy as np
from keras import ops

from kvae import replicas
from kvae.models.places import Place
from kvae.saving.model_card import Record
from kvae.training.checkpoint_files import CheckpointFolder


class Checkpoint(keras.callbacks.Callback):
    """Keeps a run's state on the disk; `fit` with the same directory goes on where the last checkpoint was.

    The state is the weights, the optimizer, the seeds, the metrics, the history and the place in the stream, so that
    a run that was killed, in the middle of an epoch too, ends with the weights of one that wasn't, bit by bit on the
    same machine: for a `kvae.data.Stream`, an array, or a stream that gives the same batches each time that it is
    iterated, as `tf.data.Dataset.shuffle` doesn't. The last two checkpoints are kept; a damaged one is told by its
    checksum, and the one before it is taken, with a warning. Ctrl-C and SIGTERM wait for the end of a batch and a
    checkpoint; a second one doesn't wait. Other callbacks, such as EarlyStopping, start anew, as they do in Keras.

    Of several workers the first writes and all read, so that the folder has to be within reach of all; each of them
    ends at a signal at once, and goes on from the last checkpoint with the others.

    Args:
        directory: a folder of this run alone, made where it isn't there.
        save_every: int, batches from one checkpoint to the next, hence the most that a kill loses. There is one at
            the start, where errors of the disk are found, and at the end of each epoch too.

    `fit` raises ValueError where the directory holds a run of another model, other settings or other data, or is
    another one for some of the workers, and OSError where it can't be written; the model in memory and the
    checkpoints that there are stay as they are.
    """

    def __init__(self, directory, save_every=1_000):
        super().__init__()
        if isinstance(save_every, bool) or not isinstance(save_every, int | np.integer) or save_every < 1:
            raise ValueError(f"save_every is {save_every!r}, expected a number of batches of at least 1")
        self.folder = CheckpointFolder(directory)
        self.save_every = self.most_steps = int(save_every)  # `fit` takes no more at a time
        self._unwritten = self._start = None

    @contextlib.contextmanager
    def protect(self, model, place, settings, epochs, said):
        """Within it the run is this folder's. Gives the `Place` where it starts: `place` unless it goes on.

        model: built, with a built optimizer. settings: a dict of what the run must have in common with the one that
        it goes on from. epochs: at which it ends. said: whether the line about that is printed.
        """
        self._model, self._settings, self._signal = model, settings, None
        strategy, nothing = model.distribute_strategy, contextlib.nullcontext()
        several, self._writes = replicas.workers(strategy) > 1, replicas.is_first(strategy)
        with self.folder.lock() if self._writes else nothing, nothing if several else self._deferred_signals():
            self._start = self._place = self._begin(place, epochs, said)
            if self._path is None:
                self._save()
            yield self._start
            self._raise_deferred()

    def _begin(self, place, epochs, said):
        self._history, self._counts, self._path = {}, None, None
        found = self._unwritten or self.folder.latest()
        number = zlib.crc32(json.dumps(found and found[0]).encode())
        if not replicas.agree(self._model.distribute_strategy, number):
            raise ValueError(
                f"the workers don't find the same checkpoints in {self.folder.directory}: give all of them one folder "
                "that is within reach of all"
            )
        if found is None:
            return place
        content, arrays, self._path = found
        _check_same(self.folder.directory, content, self._settings)
        variables = self._variables()
        counts = len(self._count_variables())
        for variable, array in zip(variables, arrays[counts:], strict=True):
            variable.assign(array)
        self._history, self._counts, self._settings = content["history"], arrays[:counts], content["settings"]
        self._model.record = Record(**content["record"])
        place = Place(*content["place"])
        if said:
            behind = f", behind {place.step} batches" if place.step else ""
            goes_on = f"goes on in epoch {place.epoch + 1}{behind}."
            over = f"has had its {epochs} epochs: say more epochs, or another directory, to train."
            print(f"Checkpoint: the run in {self.folder.directory} {goes_on if place.epoch < epochs else over}")
        return place

    def on_train_begin(self, logs=None):
        if self._start is None:
            raise TypeError(
                f"Checkpoint can't protect a {type(self.model).__name__}: it is for the models of kvae, others have "
                "keras.callbacks.BackupAndRestore"
            )

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self._start.epoch:
            self._restore_history()
            if self._start.step and self._counts is not None:
                _assign(self._count_variables(), self._counts)
        moved = epoch - self._start.epoch
        step = 0 if moved else self._start.step
        self._place = self._start._replace(epoch=epoch, step=step, stream_epoch=self._start.stream_epoch + moved)
        self._saved_step = step

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 <= self._place.step:
            return  # a batch of the run before
        taken = min(batch + 1, self._settings["batches an epoch"])  # the last group may be smaller
        self._place = self._place._replace(step=taken)
        self._counts = None
        next_step = batch + 1 + self._model.steps_per_execution
        if self._signal or next_step - self._saved_step > self.save_every:
            self._save()
        self._raise_deferred()

    def on_test_begin(self, logs=None):
        self._counts = _values(self._count_variables())

    def on_test_batch_end(self, batch, logs=None):
        if self._signal:
            self._save()
        self._raise_deferred()

    def on_epoch_end(self, epoch, logs=None):
        if self._model.stop_training and self._place.step < self._settings["batches an epoch"]:
            self._save()  # in the middle of an epoch, where a callback has stopped it
            return
        history = self._model.history  # this epoch isn't in it yet
        self._history = {name: list(map(float, values)) for name, values in history.history.items()}
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(float(value))
        self._history["epoch"] = [*history.epoch, epoch]
        self._place = self._place._replace(epoch=epoch + 1, step=0, stream_epoch=self._place.stream_epoch + 1)
        self._save()
        self._raise_deferred()

    def on_train_end(self, logs=None):
        self._restore_history(only_if_empty=True)

    # The state

    def _variables(self):
        """What the run depends on, but for what an epoch has counted so far."""
        model = self._model
        variables = [*model.variables, *model.optimizer.variables]
        counted = {id(variable) for variable in self._count_variables()}
        return list({id(v): v for v in variables if id(v) not in counted}.values())

    def _count_variables(self):
        return [variable for metric in self._model.metrics for variable in metric.variables] + self._model.counters

    def _save(self):
        # Each worker reads the values, which are sums over all of them.
        counts = _values(self._count_variables()) if self._counts is None else self._counts
        content = {
            "place": list(self._place),
            "history": self._history,
            "settings": self._settings,
            "record": dataclasses.asdict(self._model.record),
            "learning_rate": float(ops.convert_to_numpy(self._model.optimizer.learning_rate)),
        }
        arrays = [*counts, *_values(self._variables())]
        if self._writes:
            self._unwritten = content, arrays, None  # fit of this callback goes on from here if the disk is full
            self._path = self.folder.save(content, arrays)
            self._unwritten = None
        self._saved_step = self._place.step

    def _restore_history(self, only_if_empty=False):
        history = self._model.history
        if history is None or (only_if_empty and history.epoch):
            return
        history.history = {name: list(values) for name, values in self._history.items() if name != "epoch"}
        history.epoch = list(self._history.get("epoch", []))

    # Signals

    @contextlib.contextmanager
    def _deferred_signals(self):
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def restore():
            for number, handler in before.items():
                signal.signal(number, handler)

        def note(number, frame):
            self._signal = number
            restore()

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            restore()

    def _raise_deferred(self):
        number, self._signal = self._signal, None
        if number is not None:
            print(f"Checkpoint: interrupted, and kept in {self.folder.directory}; fit goes on from there.")
            signal.raise_signal(number)


def _check_same(directory, content, here):
    there = content["settings"]
    for name, value in here.items():
        lowered = name.endswith("learning_rate") and value == content["learning_rate"]  # by a callback of this run
        if there.get(name) != value and not lowered:
            raise ValueError(
                f"{directory} holds a run whose {name} is {there.get(name)!r}, and this one's is {value!r}: fit what "
                "that is a run of, or give another directory"
            )


def _values(variables):
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables, arrays):
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
