"""The callback that keeps a run on the disk: killed at any moment, it goes on bit by bit."""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import threading
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kvae import replicas
from kvae.saving.model_card import Record
from kvae.training import callback_states
from kvae.training.checkpoint_files import CheckpointFolder
from kvae.training.position import RunPosition

_RENAMED = {"model.posterior.": "model.posterior_family.", "quantisation_loss": "quantization_loss"}  # of 0.1.0


class Checkpoint(keras.callbacks.Callback):
    """Keeps a run's state on the disk; `fit` with the same directory goes on behind the last checkpoint.

    The state is the weights, the optimizer, the seeds, the metrics, the history and the position in the stream. A
    run that was killed, even in the middle of an epoch, ends with the weights of an uninterrupted run, bit by bit on
    the same machine. This holds for a `kvae.data.Stream`, an array, and any stream that repeats its batches;
    `tf.data.Dataset.shuffle` doesn't.

    The last two checkpoints are kept. A damaged one is found by its checksum: `fit` warns and takes the one before
    it. Ctrl-C and SIGTERM wait for the end of a batch and for a checkpoint; a second signal doesn't wait. The states
    of `EarlyStopping`, `ReduceLROnPlateau` and `ModelCheckpoint` are kept too; other callbacks start anew, and `fit`
    says so. Of several workers the first writes and all read: the folder must be within reach of all. A signal ends
    each worker at once.

    Args:
        directory: a local folder for this run alone, made if it isn't there; upload it from there to other places.
        save_every: int, the batches from one checkpoint to the next: the most that a kill loses. The run also saves
            at its start, so that a full disk is found then, and at the end of each epoch.

    Raises:
        ValueError: for a `save_every` below 1. In `fit`, if the directory holds a run of another model, with other
            settings or on other data, or if the workers see different folders; the model and the checkpoints stay.
        OSError: in `fit`, if the directory can't be written.

    Example:
        >>> callback = kvae.callbacks.Checkpoint("run", save_every=500)
        >>> # vae.fit(train, epochs=100, callbacks=[callback]): killed, the same line goes on
    """

    def __init__(self, directory: str | pathlib.Path, save_every: int = 1_000):
        super().__init__()
        if isinstance(save_every, bool) or not isinstance(save_every, int | np.integer) or save_every < 1:
            raise ValueError(f"save_every is {save_every!r}, expected a number of batches of at least 1")
        self.folder = CheckpointFolder(directory)
        self.save_every = self.most_steps = int(save_every)  # `fit` groups no more steps than that
        self._unwritten: Any = None
        self._start: Any = None

    @contextlib.contextmanager
    def protect(
        self,
        model: Any,
        start: RunPosition,
        settings: dict[str, Any],
        epochs: int,
        verbose: bool,
        others: Sequence = (),
    ) -> Iterator[RunPosition]:
        """Context manager. Locks the folder for this run and gives the position where the run starts.

        Args:
            model: built, with a built optimizer.
            start: the position of a new run.
            settings: what a resumed run must share with the one that it continues.
            epochs: the number of epochs at which the run ends.
            verbose: whether to print a line about a resumed run.
            others: the other callbacks of the run.
        """
        self._model, self._settings, self._signal, self._others = model, settings, None, others
        strategy, nothing = model.distribute_strategy, contextlib.nullcontext()
        several, self._writes = replicas.workers(strategy) > 1, replicas.is_first(strategy)
        with self.folder.lock() if self._writes else nothing, nothing if several else self._deferred_signals():
            self._start = self._position = self._begin(start, epochs, verbose)
            if self._path is None:
                self._save()
            yield self._start
            self._raise_deferred()

    def _begin(self, start, epochs, verbose):
        """The position of the last checkpoint, with its state in the model; without a checkpoint, `start`."""
        self._history, self._counts, self._path, self._states = {}, None, None, None
        self.has_ended = False  # by EarlyStopping, before this run
        saved = self._unwritten or self.folder.latest()
        number = zlib.crc32(json.dumps(saved and saved[0]).encode())
        if not replicas.agree(self._model.distribute_strategy, number):
            raise ValueError(
                f"the workers don't find the same checkpoints in {self.folder.directory}: give all of them one folder "
                "that is within reach of all"
            )
        if saved is None:
            return start
        content, arrays, self._path = saved
        content = {**content, **{part: _renamed(content[part]) for part in ("settings", "history")}}
        _check_same_settings(self.folder.directory, content, self._settings)
        variables = self._variables()
        counts = len(self._count_variables())
        states = counts + len(variables)
        for variable, array in zip(variables, arrays[counts:states], strict=True):
            variable.assign(array)
        self._states = content.get("callbacks"), arrays[states:]
        stopped = content.get("stopped", False)
        self.has_ended = stopped and callback_states.has_lost_patience(self._others, self._states[0])
        self._history, self._counts, self._settings = content["history"], arrays[:counts], content["settings"]
        self._model.record = Record(**content["record"])
        position = RunPosition(*content["place"])
        if verbose:
            behind = f", behind {position.step} batches" if position.step else ""
            message = f"goes on in epoch {position.epoch + 1}{behind}."
            if position.epoch >= epochs:
                at = (
                    f"is in epoch {position.epoch + 1}{behind}" if position.step else f"has had {position.epoch} epochs"
                )
                message = f"{at}, and {epochs} are asked for: say more epochs, or another directory, to train."
            if self.has_ended:
                message = f"was stopped early after {position.epoch} epochs: raise the patience to train on."
            print(f"Checkpoint: the run in {self.folder.directory} {message}")
            anew = sorted({type(each).__name__ for each in self._others if callback_states.starts_anew(each)})
            if anew and position.epoch < epochs:
                print(f"Checkpoint: {', '.join(anew)} can't be resumed, and start anew.")
        return position

    def on_train_begin(self, logs=None):
        if self._start is None:
            raise TypeError(
                f"Checkpoint can't protect a {type(self.model).__name__}: it is for the models of kvae, others have "
                "keras.callbacks.BackupAndRestore"
            )
        if self._states is not None:
            callback_states.restore(self._others, *self._states)

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self._start.epoch:
            self._restore_history()
            if self._start.step and self._counts is not None:
                _assign(self._count_variables(), self._counts)
        moved = epoch - self._start.epoch
        step = 0 if moved else self._start.step
        self._position = self._start._replace(epoch=epoch, step=step, stream_epoch=self._start.stream_epoch + moved)
        self._saved_step = step

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 <= self._position.step:
            return  # the run has had this batch
        taken = min(batch + 1, self._settings["batches an epoch"])  # the last group may be smaller
        self._position = self._position._replace(step=taken)
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
        if self._model.stop_training and self._position.step < self._settings["batches an epoch"]:
            self._save()  # a callback stopped the run in the middle of an epoch
            return
        history = self._model.history  # this epoch isn't in it yet
        self._history = {name: list(map(float, values)) for name, values in history.history.items()}
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(float(value))
        self._history["epoch"] = [*history.epoch, epoch]
        self._position = self._position._replace(epoch=epoch + 1, step=0, stream_epoch=self._position.stream_epoch + 1)
        self._save()
        self._raise_deferred()

    def on_train_end(self, logs=None):
        self._restore_history(only_if_empty=True)

    # The state

    def _variables(self):
        """The variables that decide the run, without the counts of the epoch."""
        model = self._model
        optimizers = [optimizer for optimizer, _ in model._optimized()]
        variables = [*model.variables, *(variable for optimizer in optimizers for variable in optimizer.variables)]
        counted = {id(variable) for variable in self._count_variables()}
        return list({id(v): v for v in variables if id(v) not in counted}.values())

    def _count_variables(self):
        return [variable for metric in self._model.metrics for variable in metric.variables] + [
            *self._model._guard.variables
        ]

    def _save(self):
        # All workers read the values: they are sums over the workers.
        counts = _values(self._count_variables()) if self._counts is None else self._counts
        content = {
            "place": list(self._position),
            "history": self._history,
            "settings": self._settings,
            "record": self._model.record.as_dict(),
            "learning_rate": float(ops.convert_to_numpy(self._model.optimizer.learning_rate)),
        }
        content["callbacks"], states = callback_states.collect(self._others)
        content["stopped"] = bool(self._model.stop_training)
        arrays = [*counts, *_values(self._variables()), *states]
        if self._writes:
            self._unwritten = content, arrays, None  # if the disk is full, the next `fit` goes on from here
            self._path = self.folder.save(content, arrays)
            self._unwritten = None
        self._saved_step = self._position.step

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


def _check_same_settings(directory, content, settings):
    """Raise ValueError for the first setting that differs from the saved run's."""
    saved = content["settings"]
    for name, value in settings.items():
        lowered = name.endswith("learning_rate") and value == content["learning_rate"]  # by a callback of this run
        if name in saved and saved[name] != value and not lowered:
            raise ValueError(
                f"{directory} holds a run whose {name} is {saved[name]!r}, and this one's is {value!r}: fit what "
                "that is a run of, or give another directory"
            )


def _renamed(values):
    """The same values with today's names."""
    for old, new in _RENAMED.items():
        values = {name.replace(old, new): value for name, value in values.items()}
    return values


def _values(variables):
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables, arrays):
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
