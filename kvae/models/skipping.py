"""Steps that `fit` leaves out, because weights that have met a NaN are lost: how they are found, and what is said."""

import time
import warnings

import keras
import numpy as np
import tensorflow as tf

from kvae import replicas
from kvae.data.errors import NOT_FINITE, NOT_FINITE_ADVICE
from kvae.data.runs import Run

IN_A_ROW = 10
ROOM = 4  # places kept of an epoch's faults: the first ones and the last
LARGE = 1e12  # of a sum of losses and gradients
LOOKS_EVERY = 1.0  # seconds
PRODUCTS = "MatMul", "Conv2DBackpropFilter", "Conv3DBackpropFilterV2"
CAUSES = (f"x has {NOT_FINITE}", "the loss isn't finite", "the gradients aren't finite")


def check(most):
    """Raise ValueError unless it is a number of steps, or 0."""
    if isinstance(most, bool) or not isinstance(most, int | np.integer) or most < 0:
        raise ValueError(f"skip_nonfinite is {most!r}, expected a number of steps, or 0 to look for nothing")
    return int(most)


class Guard:
    """What keeps a step with NaN or infinite values from the weights, and counts on the device how many there were.

    most: the steps in a row after which none is taken any more, until the next run.
    """

    def __init__(self, most):
        self.most, self.strategy = most, tf.distribute.get_strategy()
        self.counts = _counter((3,))  # steps and skipped steps of the epoch, skipped steps in a row
        self.places = _counter((ROOM, 3))  # step, row, cause
        self.variables = [self.counts, self.places]

    def apply(self, inputs, losses, gradients, apply, restore, *args):
        """apply(*args) where losses, floats among the inputs and gradients are finite, else restore(*args), counted.

        inputs: x as the stream gives it, (n, ...) each. losses: (n,). gradients: a list, empty where the optimizer
        looks after them. All replicas do the same.
        """
        if not self.most:
            apply(*args)
            return
        inputs = [x for x in inputs if x.dtype.is_floating]
        fine = _finite([*inputs, losses], [part for part in gradients if part is not None])
        fine = fine & (self.counts[2] < self.most)
        place = None if replicas.alone() else _place(inputs, losses)

        def applied(place, *args):
            apply(*args)
            self.counts.assign(self.counts * [1, 1, 0] + [1, 0, 0])

        def skipped(place, *args):
            restore(*args)
            place = _place(inputs, losses) if place is None else place
            step, before, in_a_row = tf.unstack(self.counts)
            places = tf.tensor_scatter_nd_update(
                self.places, [[tf.minimum(before, ROOM - 1)]], [tf.concat([[step], place], 0)]
            )
            going = in_a_row < self.most
            self.places.assign(tf.where(going, places, self.places))
            self.counts.assign(self.counts + tf.cast(going, tf.int64))

        replicas.either(fine, applied, skipped, place, *args)

    def begin(self, step, in_a_row=None):
        """Count an epoch from its step `step` on."""
        in_a_row = self.read()[2] if in_a_row is None else in_a_row
        for counts in self.strategy.experimental_local_results(self.counts):
            counts.assign([step, 0, in_a_row])

    def read(self):
        """(steps, skipped steps, skipped steps in a row), ints."""
        return self.strategy.experimental_local_results(self.counts)[0].numpy().tolist()

    def found(self):
        """Where the epoch's first faults were and the last, [(step, row or -1, cause)]."""
        places = self.strategy.experimental_local_results(self.places)[0].numpy().tolist()
        return places[: min(self.read()[1], ROOM)]


def _counter(shape):
    return tf.Variable(
        tf.zeros(shape, tf.int64),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,  # each replica has its own, all alike
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _finite(values, gradients):
    """Whether all of them are finite, on all replicas.

    A sum is finite where what it is of is. A NaN or an infinity that comes into a product of matrices fills a row or a
    column of it, so that of a gradient that is one some of each tell; only where these are large, all is looked at,
    since what is too large for a float may then stand alone.
    """
    gradients = [getattr(gradient, "values", gradient) for gradient in gradients]
    if not replicas.alone():
        return tf.math.is_finite(replicas.total(_sum([*values, *gradients])))
    some = [part for gradient in gradients for part in _crossing(gradient)]
    total = _sum([*values, tf.concat(some, 0)] if some else values)
    return tf.cond(tf.abs(total) < LARGE, lambda: True, lambda: tf.math.is_finite(total + _sum(gradients)))


def _crossing(gradient):
    """What tells whether a gradient is finite, flat: of a product the first row and column, of all others all."""
    parts = [gradient[..., 0, :], gradient[..., 0]] if _is_product(gradient) else [gradient]
    return [tf.reshape(tf.cast(part, tf.float32), [-1]) for part in parts]


def _is_product(gradient):
    """Whether it sums over the examples what went into a layer times what comes back, as a kernel's does."""
    if isinstance(gradient, tf.__internal__.EagerTensor):
        return False  # which doesn't tell
    operation = gradient.op
    while operation.type in ("Cast", "Identity"):
        operation = operation.inputs[0].op
    return operation.type in PRODUCTS


def _sum(parts):
    parts = [tf.cast(part, tf.float32) if part.dtype.size == 2 else part for part in parts]
    return tf.add_n([tf.cast(tf.reduce_sum(part), tf.float32) for part in parts] or [tf.zeros(())])


def _place(inputs, losses):
    """The first row with a fault, or -1, and the fault's cause, int64 (2,)."""
    of_x = replicas.first_row(tf.reduce_any(tf.stack([_spoilt(x) for x in (*inputs, tf.zeros_like(losses))]), 0))
    of_losses = replicas.first_row(_spoilt(losses))
    return tf.where(of_x >= 0, [of_x, 0], tf.where(of_losses >= 0, [of_losses, 1], [of_losses, 2]))


def _spoilt(values):
    """Which rows of (n, ...) hold NaN or infinite values, (n,)."""
    return tf.reduce_any(tf.logical_not(tf.math.is_finite(values)), axis=list(range(1, len(values.shape))))


class SkippedSteps(keras.callbacks.Callback):
    """Adds `skipped_steps` to an epoch's logs once there were any, says where, and ends a run that takes none more.

    place: where the run starts. data: what it reads.
    """

    def __init__(self, guard, place, data):
        super().__init__()
        self.guard, self.place, self.data = guard, place, data
        self.epoch = self.next_look = 0
        self.any = False

    def on_train_begin(self, logs=None):
        self.guard.begin(0, in_a_row=0)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.guard.begin(self.place.step if epoch == self.place.epoch else 0)

    def on_train_batch_begin(self, batch, logs=None):
        if time.monotonic() >= self.next_look:
            self.next_look = time.monotonic() + LOOKS_EVERY
            self._check_going()

    def on_epoch_end(self, epoch, logs=None):
        self._check_going()
        steps, skipped, _ = self.guard.read()
        if skipped:
            warnings.warn(f"fit skipped {skipped} of {steps} steps of epoch {epoch}: {self._places()}", stacklevel=2)
        if skipped and not self.any:
            self.any = True
            history = self.model.history
            if history is not None and history.epoch:
                history.history.setdefault("skipped_steps", [0] * len(history.epoch))
        if self.any and logs is not None:
            logs["skipped_steps"] = skipped

    def _check_going(self):
        *_, in_a_row = self.guard.read()
        if in_a_row >= self.guard.most:
            raise ValueError(
                f"fit stopped in epoch {self.epoch} after {in_a_row} skipped steps in a row, with the weights of the "
                f"step before them: {self._places()}"
            )

    def _places(self):
        """What was found where."""
        found = self.guard.found()
        causes = sorted({cause for *_, cause in found})
        said = "; ".join(f"{CAUSES[cause]} in {self._listed(found, cause)}" for cause in causes)
        advice = NOT_FINITE_ADVICE if 0 in causes else "look at these examples, or lower the learning rate"
        return f"{said} (counted from 0); {advice}"

    def _listed(self, found, cause):
        listed = [self._place(step, row) for step, row, of in found if of == cause]
        return ", ".join([*listed, "..."] if self.guard.read()[1] > ROOM else listed)

    def _place(self, step, row):
        epoch = self.epoch
        if isinstance(self.data, Run):
            epoch += self.place.stream_epoch - self.place.epoch
            epoch, step = divmod(epoch * self.data.steps_per_epoch + step, self.data.stream.num_batches)
        row = f", row {row}" if row >= 0 else ""
        return f"epoch {epoch}, batch {step}{row}"
