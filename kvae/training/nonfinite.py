"""NaN and infinite values: the step that would bring one into the weights is found, skipped and reported."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kvae import replicas
from kvae.data.errors import NOT_FINITE, NOT_FINITE_ADVICE
from kvae.data.runs import Run

SKIPPED_IN_A_ROW = 10
_LOCATIONS = 4  # kept of an epoch: the first ones and the last
_LARGE = 1e12  # a sum of losses and gradients above it is looked at closely
_SECONDS_BETWEEN_LOOKS = 1.0
_PRODUCTS = "MatMul", "Conv2DBackpropFilter", "Conv3DBackpropFilterV2"
_CAUSES = (f"x has {NOT_FINITE}", "the loss isn't finite", "the gradients aren't finite")


class NonFiniteGuard:
    """Keeps steps with NaN or infinite values from the weights, and counts them on the device.

    Args:
        limit: int. After so many skipped steps in a row the device skips all further steps: the weights stay good
            until the host looks, once a second, and raises. 0 looks for no such values.

    Raises:
        ValueError: for a limit that isn't an integer of at least 0.
    """

    def __init__(self, limit: int):
        if isinstance(limit, bool) or not isinstance(limit, int | np.integer) or limit < 0:
            raise ValueError(f"skip_nonfinite is {limit!r}, expected a number of steps, or 0 to look for nothing")
        self.limit, self.strategy = int(limit), tf.distribute.get_strategy()
        self.counts = _counter((3,))  # steps and skipped steps of the epoch, skipped steps in a row
        self.locations = _counter((_LOCATIONS, 3))  # step, row, cause
        self.variables = [self.counts, self.locations]

    def apply(self, x: Sequence, losses: Any, gradients: Sequence, update: Callable, restore: Callable, *args: Any):
        """Call update(*args) if x, losses and gradients are finite, else restore(*args). All replicas do the same.

        Args:
            x: tensors (n, ...), as the stream gives them.
            losses: (n,).
            gradients: tensors or None; empty if the optimizer looks after them.
            update, restore: functions of args, structures of tensors; they return nothing.
        """
        if not self.limit:
            update(*args)
            return
        x = [values for values in x if values.dtype.is_floating]
        gradients = [gradient for gradient in gradients if gradient is not None]
        is_alone = tf.distribute.get_strategy().num_replicas_in_sync == 1  # the one that runs, not that of `compile`
        all_finite = _all_finite if is_alone else _all_finite_on_replicas
        is_fine = all_finite([*x, losses], gradients) & (self.counts[2] < self.limit)
        location = None if is_alone else _locate(x, losses)  # replicas can't reduce within a condition

        def updated(location, *args):
            update(*args)
            self.counts.assign(self.counts * [1, 1, 0] + [1, 0, 0])

        def skipped(location, *args):
            restore(*args)
            location = _locate(x, losses) if location is None else location
            step, skipped_before, in_a_row = tf.unstack(self.counts)
            locations = tf.tensor_scatter_nd_update(
                self.locations, [[tf.minimum(skipped_before, _LOCATIONS - 1)]], [tf.concat([[step], location], 0)]
            )
            goes_on = in_a_row < self.limit
            self.locations.assign(tf.where(goes_on, locations, self.locations))
            self.counts.assign(self.counts + tf.cast(goes_on, tf.int64))

        if tf.distribute.has_strategy():
            replicas.either(is_fine, updated, skipped, location, *args)
        else:
            ops.cond(is_fine, lambda: updated(location, *args), lambda: skipped(location, *args))

    def begin(self, step: int, in_a_row: int | None = None) -> None:
        """Count an epoch from its step `step` on."""
        in_a_row = self.read()[2] if in_a_row is None else in_a_row
        for counts in self.strategy.experimental_local_results(self.counts):
            counts.assign([step, 0, in_a_row])

    def read(self) -> list[int]:
        """[steps, skipped steps, skipped steps in a row]."""
        return self.strategy.experimental_local_results(self.counts)[0].numpy().tolist()

    def skipped_at(self) -> list[list[int]]:
        """[[step, row or -1, index of the cause]] of the epoch's first skipped steps and the last."""
        locations = self.strategy.experimental_local_results(self.locations)[0].numpy().tolist()
        return locations[: min(self.read()[1], _LOCATIONS)]


class ReportSkippedSteps(keras.callbacks.Callback):
    """Adds `skipped_steps` to an epoch's logs, warns of their locations, and stops a run that skips all steps.

    Args:
        guard: the model's `NonFiniteGuard`.
        start: the `RunPosition` of the run's start.
        data: the training data, as Keras reads them.
    """

    def __init__(self, guard: NonFiniteGuard, start: Any, data: Any):
        super().__init__()
        self.guard, self.start, self.data = guard, start, data
        self.epoch = self.next_look = 0
        self.any_skipped = False

    def on_train_begin(self, logs=None):
        self.guard.begin(0, in_a_row=0)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.guard.begin(self.start.step if epoch == self.start.epoch else 0)

    def on_train_batch_begin(self, batch, logs=None):
        if time.monotonic() >= self.next_look:
            self.next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS
            self._stop_at_limit()

    def on_epoch_end(self, epoch, logs=None):
        self._stop_at_limit()
        steps, skipped, _ = self.guard.read()
        if skipped:
            warnings.warn(f"fit skipped {skipped} of {steps} steps of epoch {epoch}: {self._report()}", stacklevel=2)
        if skipped and not self.any_skipped:
            self.any_skipped = True
            history = self.model.history
            if history is not None and history.epoch:
                history.history.setdefault("skipped_steps", [0] * len(history.epoch))
        if self.any_skipped and logs is not None:
            logs["skipped_steps"] = skipped

    def _stop_at_limit(self):
        *_, in_a_row = self.guard.read()
        if in_a_row >= self.guard.limit:
            raise ValueError(
                f"fit stopped in epoch {self.epoch} after {in_a_row} skipped steps in a row, with the weights of the "
                f"step before them: {self._report()}"
            )

    def _report(self):
        """Causes, locations and advice, as the end of a sentence."""
        skipped_at = self.guard.skipped_at()
        causes = sorted({cause for *_, cause in skipped_at})
        listing = "; ".join(f"{_CAUSES[cause]} in {self._listing(skipped_at, cause)}" for cause in causes)
        advice = NOT_FINITE_ADVICE if 0 in causes else "look at these examples, or lower the learning rate"
        return f"{listing} (counted from 0); {advice}"

    def _listing(self, skipped_at, cause):
        listing = [self._location(step, row) for step, row, its_cause in skipped_at if its_cause == cause]
        return ", ".join([*listing, "..."] if self.guard.read()[1] > _LOCATIONS else listing)

    def _location(self, step, row):
        epoch = self.epoch
        if isinstance(self.data, Run):  # name the stream's own epoch and batch
            epoch += self.start.stream_epoch - self.start.epoch
            epoch, step = divmod(epoch * self.data.steps_per_epoch + step, self.data.stream.num_batches)
        row = f", row {row}" if row >= 0 else ""
        return f"epoch {epoch}, batch {step}{row}"


def _counter(shape):
    return tf.Variable(
        tf.zeros(shape, tf.int64),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,  # each replica has its own, all alike
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _all_finite(values, gradients):
    """Whether all values and gradients are finite.

    A sum is finite only if all its terms are. A NaN or infinity that enters a matrix product fills a row or a column
    of it, so one row and one column stand for such a gradient. If the sum is large, a single entry may have
    overflowed, and all entries are summed.
    """
    gradients = [_values(gradient) for gradient in gradients]
    samples = [part for gradient in gradients for part in _row_and_column(gradient)]
    total = _sum([*values, tf.concat(samples, 0)] if samples else values)
    return tf.cond(tf.abs(total) < _LARGE, lambda: True, lambda: tf.math.is_finite(total + _sum(gradients)))


def _all_finite_on_replicas(values, gradients):
    """Whether all values and gradients are finite on all replicas."""
    return tf.math.is_finite(replicas.total(_sum([*values, *map(_values, gradients)])))


def _values(gradient):
    """The dense values of a gradient, also of a sparse one."""
    return getattr(gradient, "values", gradient)


def _row_and_column(gradient):
    """Flat parts that tell whether a gradient is finite: one row and one column of a product, else all entries."""
    parts = [gradient[..., 0, :], gradient[..., 0]] if _is_product(gradient) else [gradient]
    return [tf.reshape(tf.cast(part, tf.float32), [-1]) for part in parts]


def _is_product(gradient):
    """Whether the gradient is a kernel's: a sum over examples of a layer's inputs times its outputs' gradients."""
    if tf.executing_eagerly():
        return False  # eager tensors don't know their operation
    operation = gradient.op
    while operation.type in ("Cast", "Identity"):
        operation = operation.inputs[0].op
    return operation.type in _PRODUCTS


def _sum(parts):
    parts = [tf.cast(part, tf.float32) if part.dtype.size == 2 else part for part in parts]
    return tf.add_n([tf.cast(tf.reduce_sum(part), tf.float32) for part in parts] or [tf.zeros(())])


def _locate(x, losses):
    """The first bad row, or -1, and the index of the cause, int64 (2,)."""
    bad_x = tf.reduce_any(tf.stack([_bad_rows(values) for values in (*x, tf.zeros_like(losses))]), 0)
    in_x, in_losses = _first_row(bad_x), _first_row(_bad_rows(losses))
    return tf.where(in_x >= 0, [in_x, 0], tf.where(in_losses >= 0, [in_losses, 1], [in_losses, 2]))


def _bad_rows(values):
    """The rows of (n, ...) with NaN or infinite values, bool (n,)."""
    return tf.reduce_any(tf.logical_not(tf.math.is_finite(values)), axis=list(range(1, len(values.shape))))


def _first_row(flags):
    """The first row (n,) with a true flag, among the rows of all replicas; -1 if there is none. int64 scalar."""
    row, count = tf.argmax(tf.concat([flags, [True]], 0)), tf.size(flags, tf.int64)
    return replicas.first_row(row, count) if tf.distribute.has_strategy() else tf.where(row < count, row, -1)
