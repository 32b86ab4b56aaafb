"""How every model here trains and is evaluated: `train_step`, `test_step`, `fit`, on streams, per example."""

import keras
import tensorflow as tf
from keras import ops

from kvae import optimizers, replicas
from kvae.data import streams
from kvae.data.distributed import distributed
from kvae.data.stream import Run
from kvae.models import execution
from kvae.models.means import Means, weighted
from kvae.objectives import Beginning

_BATCH_SIZE = 32  # Keras', of arrays


class TrainedModel(keras.Model):
    """A Keras model that minimises a loss of x alone, whose numbers are means over examples.

    A subclass gives `reported`, the names of its numbers, `losses_per_example`, and `event_shape` once it is built.
    """

    reported = ("loss",)
    event_shape = None
    chooses_steps = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.means = Means(self.reported)

    def losses_per_example(self, x, training=False, index=None):
        """What is minimised and reported: (loss (n,), {name: (n,)} for the other names in `reported`).

        x: (n, ...), scaled. index: positions (n,) in the stream, of which any noise is then a function; None for
        fresh noise.
        """
        raise NotImplementedError

    def compile(self, optimizer="adam", *, steps_per_execution="auto", **kwargs):
        """As `keras.Model.compile`.

        optimizer: "adam" is `kvae.optimizers.Adam`, all else as Keras has it. steps_per_execution: an int, or "auto",
        with which each `fit` takes as many as are fast (see `kvae.models.execution`).
        """
        self.chooses_steps = steps_per_execution == "auto"
        super().compile(
            optimizer=optimizers.Adam() if optimizer == "adam" else optimizer,
            steps_per_execution=1 if self.chooses_steps else steps_per_execution,
            **kwargs,
        )

    def get_compile_config(self):
        config = super().get_compile_config()
        return {**config, "steps_per_execution": "auto"} if config and self.chooses_steps else config

    def train_step(self, data):
        x, sample_weight = self._inputs(data)
        # The step that finds the end of a stream must not advance the optimizer and the seeds; in a group it doesn't.
        with tf.control_dependencies(tf.nest.flatten(x) if self.steps_per_execution == 1 else []):
            with tf.GradientTape() as tape:
                losses, parts = replicas.nonempty(lambda x: self.losses_per_example(x, training=True), x)
                loss = self._minimised(losses, sample_weight)
                scaled = self.optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled, self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
            return self._report(x, losses, parts, sample_weight)

    def test_step(self, data):
        x, sample_weight = self._inputs(data)
        index = replicas.positions(self.means.examples, ops.shape(_images(x))[0])
        losses, parts = replicas.nonempty(lambda x, index: self.losses_per_example(x, index=index), x, index)
        return self._report(x, losses, parts, sample_weight)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """What `train_step` minimises, a scalar, for x (and y) as the stream gives them; y_pred isn't looked at."""
        losses, _ = self.losses_per_example(self._inputs(x if y is None else (x, y))[0], training=training)
        return self._minimised(losses, sample_weight)

    def _minimised(self, losses, sample_weight):
        return replicas.mean(weighted(losses, sample_weight)) + replicas.part(sum(self.losses))

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: `fit` has built all. Under a strategy Keras would read a batch, and fail where it doesn't divide."""

    def predict_step(self, data):
        return self(self._inputs(data)[0], training=False)

    def _inputs(self, data):
        sample_weight = streams.unpack(data)[2]
        if sample_weight is not None:
            # Keras' trace for weights of both shapes has no rank left.
            shape = tf.TensorShape(sample_weight.shape)
            if shape.rank is not None and tuple(shape[1:]) not in ((), (1,)):
                raise ValueError(f"sample_weight has the shape {shape}; expected one weight an example, (n,).")
            sample_weight = ops.reshape(sample_weight, (-1,))
        return self._scaled(self._read(data)), sample_weight

    def _read(self, element):
        """What the model takes of a stream's element: x, (n, ...), here the images alone."""
        return streams.unpack(element)[0]

    def _scaled(self, x):
        return streams.scale(x, self.variable_dtype)

    def _report(self, x, losses, parts, sample_weight):
        self.means.update_state(weighted(losses, sample_weight) + sum(self.losses), parts, sample_weight)
        for metric in self._compiled_metrics():
            reconstructed = replicas.nonempty(lambda x: self(x, training=False), x)
            metric.update_state(_images(x), reconstructed, sample_weight=sample_weight)
        return replicas.logs(self.get_metrics_result())

    @property
    def metrics(self):
        return [self.means, *self._compiled_metrics()]

    def _compiled_metrics(self):
        return [metric for metric in super().metrics if metric is not self.means and metric.name != "loss"]

    def fit(self, x=None, y=None, *, sample_weight=None, validation_data=None, steps_per_epoch=None, **kwargs):
        """Train: `keras.Model.fit`, after x and validation_data were checked (see `kvae.data.streams.check`).

        y isn't read. A stream's first batch is read once more than Keras would, for the checks.

        Of a `Stream` epoch k reads epoch k, or, with steps_per_epoch, its batches from k * steps_per_epoch on. A fit
        that isn't the model's first and isn't given an initial_epoch goes on behind the steps that it has taken.

        A model made under a `tf.distribute` strategy trains on all its replicas, with the weights that one would have:
        batches are those of all replicas together. Clipping by norm is each replica's own; steps_per_execution,
        jit_compile and accumulated gradients raise ValueError.
        """
        replicas.check(self)
        given, y, sample_weight = streams.fit_arguments(x, y, sample_weight)
        first = self._first_batch(given, "x", steps_per_epoch)
        x = streams.finite(given, "x")
        if validation_data is not None:
            if not isinstance(validation_data, tf.data.Dataset):
                parts = streams.fit_arguments(*streams.unpack(validation_data))
                validation_data = tuple(part for part in parts if part is not None)
            validation_data = self._checked(validation_data, "validation_data", kwargs.get("validation_steps"))
            validation_data = distributed(validation_data, self.distribute_strategy, once=True)
        x = distributed(x, self.distribute_strategy, steps_per_epoch)
        counts = [steps_per_epoch, kwargs.get("validation_steps")]
        if isinstance(x, Run):
            kwargs["callbacks"] = [_EpochOrder(x, kwargs.get("initial_epoch", 0)), *_listed(kwargs.get("callbacks"))]
            counts[0] = x.steps if x.steps != x.stream.steps else None
            steps_per_epoch = x.steps  # else Keras starts two iterators an epoch
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # the stream's own affair; Keras would warn
        if self.compiled and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)  # outside the graph, as XLA wants it
        if self.chooses_steps:
            rows = len(first) if isinstance(given, tf.data.Dataset) else kwargs.get("batch_size") or _BATCH_SIZE
            self._group_steps(execution.steps_per_execution(self, rows, _listed(kwargs.get("callbacks")), counts))
        if hasattr(self.loss, "begin"):
            kwargs["callbacks"] = [Beginning(kwargs.get("initial_epoch", 0)), *_listed(kwargs.get("callbacks"))]
        with streams.clear_errors():
            return super().fit(
                x,
                y,
                sample_weight=sample_weight,
                validation_data=validation_data,
                steps_per_epoch=steps_per_epoch,
                **kwargs,
            )

    def _group_steps(self, steps):
        if steps != self.steps_per_execution:
            self.steps_per_execution = steps
            self.train_function = self.test_function = self.predict_function = None

    def evaluate(self, x=None, y=None, *, sample_weight=None, steps=None, **kwargs):
        """The mean over the examples of each of `reported`: `keras.Model.evaluate` after x was checked.

        The noise is a fixed function of an example's position: in data of one order the numbers repeat exactly, and
        they don't depend on the batches.
        """
        replicas.check(self)
        x, y, sample_weight = streams.fit_arguments(x, y, sample_weight)
        if not kwargs.get("_use_cached_eval_dataset"):
            x = distributed(self._checked(x, "x", steps), self.distribute_strategy, once=True)
            self._group_for(steps)
        with streams.clear_errors():
            return super().evaluate(x, y, sample_weight=sample_weight, steps=steps, **kwargs)

    def predict(self, x, *, steps=None, **kwargs):
        """Reconstructions, as `reconstruct` gives them: `keras.Model.predict` after x was checked."""
        x = distributed(self._checked(x, "x", steps), self.distribute_strategy, once=True)
        self._group_for(steps)
        with streams.clear_errors():
            return super().predict(x, steps=steps, **kwargs)

    def _group_for(self, steps):
        if self.chooses_steps:
            self._group_steps(execution.divisor(self.steps_per_execution, [steps]))

    def _checked(self, data, name, steps=None):
        """The data as they should be read, or one clear error before any work."""
        self._first_batch(data, name, steps)
        return streams.finite(data, name)

    def _first_batch(self, data, name, steps):
        """The first batch (numpy, scaled) of data that can be used, for which the model is then built."""
        first = streams.check(data, self.event_shape if self.built else None, steps, name)
        with self.distribute_strategy.scope():
            if not self.built:
                self.build((None, *first.shape[1:]))
            self._check_values(first)
            for metric in self._compiled_metrics():
                if not getattr(metric, "built", True):
                    metric.build(first[:1], first[:1])
        return first

    def _check_values(self, x):
        """Raise ValueError for values (numpy, scaled) that the model can't score."""


def _images(x):
    return tf.nest.flatten(x)[0]


def _listed(callbacks):
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks.callbacks
    return keras.tree.flatten(callbacks or [])


class _EpochOrder(keras.callbacks.Callback):
    """Says with which epoch the run begins, which is known when its first one does: a callback may let it go on."""

    def __init__(self, run, initial_epoch):
        super().__init__()
        self.run, self.initial_epoch = run, initial_epoch
        self.begun = False

    def on_train_begin(self, logs=None):
        self.steps_taken = int(ops.convert_to_numpy(self.model.optimizer.iterations))

    def on_epoch_begin(self, epoch, logs=None):
        if not self.begun:
            again = epoch == self.initial_epoch == 0
            self.run.next_epoch = -(-self.steps_taken // self.run.steps) if again else epoch
            self.begun = True
