"""What surrounds one step of training or evaluation: the batch, means over its examples, and safety from NaN."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kvae import _compat, replicas
from kvae.data import elements


class Step:
    """One batch on its way through a model: `x` as the networks take it, its `loss`, and `apply_gradients` of it.

    `target` has what else the model reads of the batch: {"target": images to reconstruct from x} of a denoising
    autoencoder, {"partner": images} of pairs, {} of most models.

    A context manager. Variables change only after the batch was read: a step that only discovers the stream's end
    must change neither the optimizer nor the seeds. On a replica without examples, `x` is one example of zeros that
    counts nowhere: TensorFlow's fused convolutions fail on empty batches.

    Args:
        model: a compiled `kvae.models.LatentModel`.
        data: a stream's element: x, (x, y), (x, y, sample_weight) or a tfds dict.
    """

    def __init__(self, model: Any, data: Any):
        self.model = model
        self.raw, target = model._read(data), model._read_target(data)  # uint8 pixels are still 0..255 here
        self.x, self.examples = model._scaled(self.raw), None
        self.target = {name: model._scaled(y) for name, y in target.items()}
        self.sample_weight = elements.weight_per_example(elements.unpack(data)[2])
        self.is_alone = tf.distribute.get_strategy().num_replicas_in_sync == 1
        if not self.is_alone:
            self.x, self.examples = replicas.at_least_one(self.x)
            self.target = {name: replicas.at_least_one(y)[0] for name, y in self.target.items()}
        self._contexts = contextlib.ExitStack()

    def __enter__(self) -> Step:
        grouped = self.model.steps_per_execution > 1  # Keras then looks for the end before it runs a step
        self._contexts.enter_context(tf.control_dependencies([] if grouped else tf.nest.flatten(self.x)))
        self._moved = self._moved_by_forward_pass()
        self._before = [tf.identity(variable.value) for variable in self._moved]
        return self

    def __exit__(self, *exception: Any) -> None:
        self._contexts.__exit__(*exception)

    @property
    def positions(self) -> Any:
        """The examples' positions in the stream, int64 (n,)."""
        count = ops.shape(tf.nest.flatten(self.x)[0])[0] if self.examples is None else self.examples
        return replicas.at_least_one(replicas.positions(self.model.means.examples, count))[0]

    def loss(self, losses: Any) -> Any:
        """The scalar to differentiate: the mean of losses (n,), plus the layers' own losses, times the loss scale.

        Each of several replicas gets its term: their sum is the mean over all replicas' examples.
        """
        return self.model.optimizer.scale_loss(self.unscaled_loss(losses))

    def unscaled_loss(self, losses: Any) -> Any:
        """The same without the optimizer's loss scale, in nats."""
        losses, own_losses = weighted(real_rows(losses, self.examples), self.sample_weight), sum(self.model.losses)
        if self.is_alone:
            return ops.mean(losses) + own_losses
        return replicas.mean(losses) + replicas.divided(own_losses)

    def apply_gradients(self, gradients: list, *, losses: Any, numbers: Mapping[str, Any]) -> dict[str, Any]:
        """Update the weights and the means, unless x, a loss or a gradient isn't finite. Returns the logs.

        Args:
            gradients: of the loss, a tensor or None for each weight of `model._optimized()`.
            losses: (n,), what is minimized, in nats.
            numbers: {name: (n,)}, what else the model reports.
        """
        model = self.model
        scales_itself = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)  # and skips infinite gradients
        model._guard.apply(
            [] if model.missing else tf.nest.flatten(self.raw),  # NaN is allowed, and the loss shows infinite values
            weighted(real_rows(losses, self.examples), self.sample_weight),
            [] if scales_itself else gradients,
            self._update,
            self._restore,
            gradients,
            self._before,
            (self.x, self.target, losses, numbers, self.sample_weight, self.examples),
        )
        return self.logs()

    def report(self, losses: Any, numbers: Mapping[str, Any]) -> None:
        """Add the examples to the model's means and to the metrics that it was compiled with."""
        self._report(self.x, self.target, losses, numbers, self.sample_weight, self.examples)

    def logs(self) -> dict[str, Any]:
        """The means so far, {name: scalar}, as Keras' `train_step` and `test_step` return them."""
        logs = self.model.get_metrics_result()
        return logs if self.is_alone else replicas.logs(logs)

    def _update(self, gradients, before, reported):
        model = self.model
        gradients = iter(gradients)
        for optimizer, weights in model._optimized():
            own = list(itertools.islice(gradients, len(weights)))
            own = own if self.is_alone else replicas.clipped(optimizer, own)
            optimizer.apply_gradients(zip(own, weights, strict=True))
        self._report(*reported)

    def _restore(self, gradients, before, reported):
        for variable, value in zip(self._moved, before, strict=True):
            variable.assign(value)

    def _report(self, x, target, losses, numbers, sample_weight, examples):
        model = self.model
        losses = real_rows(losses, examples)
        numbers = {name: real_rows(values, examples) for name, values in numbers.items()}
        model.means.update_state(weighted(losses, sample_weight) + sum(model.losses), numbers, sample_weight)
        model._update_own_metrics(numbers)
        for metric in _compat.compiled_metrics(model) if model._has_metrics else ():
            images, reconstructed = target.get("target", tf.nest.flatten(x)[0]), model(x, training=False)
            metric.update_state(
                real_rows(images, examples), real_rows(reconstructed, examples), sample_weight=sample_weight
            )

    def _moved_by_forward_pass(self):
        """Seeds, and what layers such as BatchNormalization keep of the batches."""
        counted = {id(variable) for metric in self.model.metrics for variable in metric.variables}
        return [variable for variable in self.model.non_trainable_variables if id(variable) not in counted]


class ExampleMeans(keras.metrics.Metric):
    """The means over examples of all of a model's numbers, in float64: a float32 sum over millions drifts.

    Args:
        names: the numbers' names, "loss" first. The loss comes weighted by the examples' weights and is divided by
            the number of examples; the means of the others are weighted means.
    """

    def __init__(self, names: Iterable[str], **kwargs: Any):
        super().__init__(**{"name": "means", "dtype": "float64", **kwargs})
        self.names = tuple(names)
        self.totals = self.add_variable((len(self.names),), "zeros", self.dtype, name="totals")
        self.examples = self.add_variable((), "zeros", self.dtype, name="examples")
        self.weights_seen = self.add_variable((), "zeros", self.dtype, name="weights_seen")

    def update_state(self, losses: Any, numbers: Mapping[str, Any], sample_weight: Any = None) -> None:
        """Add a batch: losses (n,), numbers {name: (n,)}, sample_weight (n,) or None."""
        values = [losses, *(weighted(numbers[name], sample_weight) for name in self.names[1:])]
        count = ops.cast(ops.shape(losses)[0], self.dtype)
        # Sum first, then stack: TensorFlow's graph optimizer zeroes sums of a stack that holds one tensor twice.
        self.totals.assign_add(ops.stack([ops.sum(ops.cast(value, self.dtype)) for value in values]))
        self.examples.assign_add(count)
        weight = count if sample_weight is None else ops.sum(ops.cast(sample_weight, self.dtype))
        self.weights_seen.assign_add(weight)

    def result(self) -> dict[str, Any]:
        """{name: mean}; NaN before the first example of a weight above 0, since 0 would be the best loss of all."""
        counts = ops.stack([self.examples.value] + [self.weights_seen.value] * (len(self.names) - 1))
        means = ops.where(self.weights_seen > 0, ops.divide_no_nan(self.totals, counts), float("nan"))
        return dict(zip(self.names, ops.unstack(means, len(self.names)), strict=True))


def real_rows(values: Any, examples: Any) -> Any:
    """The rows of real examples; `examples` is None if all are real."""
    return values if examples is None else values[:examples]


def weighted(losses: Any, sample_weight: Any) -> Any:
    """Losses (n,) times the examples' weights (n,); without weights, the losses."""
    return losses if sample_weight is None else losses * ops.cast(sample_weight, losses.dtype)
