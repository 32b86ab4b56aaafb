"""The plan of a run: data checked and read as a Stream, the position where it starts, the callbacks that watch it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvae import _compat, arguments, replicas
from kvae.data import arrays, elements, errors, validation
from kvae.data.runs import Run, distribute
from kvae.saving import model_card
from kvae.training import position
from kvae.training import steps_per_execution as grouping
from kvae.training.nonfinite import ReportSkippedSteps

_LARGE_VALUE, _ROWS_TO_TRY = 10.0, 32
_LARGE_KL = 1e4  # nats a latent


@contextlib.contextmanager
def planned(
    model: Any, given: tuple, validation_data: Any, steps_per_epoch: int | None, options: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Context manager: the arguments of `keras.Model.fit` for a run of `kvae.models.LatentModel.fit`.

    Args:
        model: a `LatentModel`; it is built for the data.
        given: (x, y, sample_weight), as the user gave them.
        validation_data: like x, or None.
        steps_per_epoch: int, or None for one pass over x.
        options: further arguments of Keras' `fit`.
    """
    replicas.validate_settings(model)
    check_counts(steps_per_epoch=steps_per_epoch, **options)
    callbacks = _listed(options.pop("callbacks", None))
    checkpoint = position.find_checkpoint(callbacks)
    arrays.validate_class_weight(given[0], options.get("class_weight"), checkpoint)
    given = elements.fit_arguments(*given)
    with errors.clear_errors(), contextlib.ExitStack() as stack:
        is_stream = isinstance(given[0], tf.data.Dataset)
        batch = first_batch(model, given[0] if is_stream else _without_none(given), "x", steps_per_epoch)
        first = batch.x
        validation.warn_if_constant(first, "x")
        if validation_data is not None:
            validation_data = _validation(model, validation_data, first.shape[1:], options)
        build_for(model, first)
        x_seen = {"dtype": batch.dtype, "largest": float(np.abs(first).max())}
        if not model.compiled:
            yield {"x": given[0]}  # Keras then says that it isn't
            return
        build_optimizer(model)
        warn_of_scale(model, batch)
        batch_size = len(first) if is_stream else _batch_size(options)
        settings = {"batch_size": batch_size, "steps_per_epoch": steps_per_epoch, "shuffle": options.get("shuffle")}
        recorder = model_card.Recorder(model, given, first, settings, x_seen)
        _warn_of_moving_loss(model, callbacks)
        x, y, sample_weight = _as_stream(model, given, checkpoint, options)
        steps = steps_per_epoch or _num_batches(x)
        start = position.start_of_run(model, options.get("initial_epoch", 0), steps)
        if checkpoint is None and steps_per_epoch:
            x = arrays.without_end(x, steps_per_epoch)
        if checkpoint is not None:
            run, verbose = position.settings(model, steps, recorder.data), options.get("verbose", "auto") != 0
            start = stack.enter_context(checkpoint.protect(model, start, run, options.get("epochs", 1), verbose))
            x, steps_per_epoch = _behind(model, x, start, steps), steps
            options["initial_epoch"] = start.epoch
            callbacks = [*(callback for callback in callbacks if callback is not checkpoint), checkpoint]
        callbacks = [recorder, *callbacks]
        x = distribute(x, model.distribute_strategy, steps_per_epoch)
        steps_per_epoch = _choose_steps(model, x, batch_size, callbacks, start, steps, steps_per_epoch, options)
        callbacks = [stack.enter_context(position.ResumeAt(x, start)), *callbacks]
        if hasattr(model.loss, "begin"):
            callbacks = [AnnounceWarmUp(start.first_epoch, start.first_update), *callbacks]
        if model._guard.limit:
            callbacks = [ReportSkippedSteps(model._guard, start, x), *callbacks]
        yield {
            **options,
            "x": x,
            "y": y,
            "sample_weight": sample_weight,
            "validation_data": validation_data,
            "steps_per_epoch": steps_per_epoch,
            "callbacks": callbacks,
        }


class AnnounceWarmUp(keras.callbacks.Callback):
    """Passes the number of the run's last step to the objective before training starts, and prints its answer.

    Args:
        first_epoch: the epoch that the run began with.
        first_update: the number of the optimizer's updates before it.
    """

    def __init__(self, first_epoch: int, first_update: int):
        super().__init__()
        self.first_epoch, self.first_update = first_epoch, first_update

    def on_train_begin(self, logs=None):
        last = self.params["steps"]
        if last is not None:
            last *= self.params["epochs"] - self.first_epoch
            last = self.first_update + last // (self.model.optimizer.gradient_accumulation_steps or 1)
        message = self.model.loss.begin(last)
        if message and self.params["verbose"]:
            print(message)


def once_through(model: Any, data: tuple, options: dict[str, Any]) -> tuple:
    """(x, y, sample_weight) as Keras should read them once, in order, for `evaluate` and `predict`."""
    if data[1:] and data[1] is not None:
        warn_of_target(model, tf.nest.map_structure(lambda part: part[: elements.BATCH_SIZE], data[:2]), "x")
    x, *others = arrays.for_one_pass(data, model.distribute_strategy, options)
    return distribute(x, model.distribute_strategy, once=True), *others


def first_batch(
    model: Any, data: Any, name: str, steps: int | None = None, event_shape: tuple | None = None
) -> validation.FirstBatch:
    """The first batch of usable data; the model stays as it was.

    Args:
        model: a `LatentModel`.
        data: a stream, an array or a tuple of arrays.
        name: what errors call the data.
        steps: the batches that will be read; None for all.
        event_shape: the shape of one example for a model that isn't built yet; None takes any.

    Raises:
        TypeError, ValueError: if the model can't use the data.
    """
    shape = model.event_shape if model.built else event_shape
    first = validation.validate_first_batch(data, shape, steps, name, model.variable_dtype)
    model._check_values(first.x, first.y)
    if not isinstance(data, tf.data.Dataset):
        model._scorable(data, name)
    warn_of_target(model, first.element, name)
    warn_of_other_scale(model, first, name)
    return first


def warn_of_other_scale(model: Any, first: validation.FirstBatch, name: str) -> None:
    """Warn of uint8 for a model trained on floats that weren't in [0, 1], and of 0..255 in floats for one of uint8."""
    seen, dtype, largest = model.record.x or {}, first.dtype, float(np.abs(first.x).max())
    if dtype == "uint8" and seen.get("dtype", dtype) != dtype and seen["largest"] > 2:
        arguments.warn(
            f"{name} is uint8, of which kvae makes [0, 1], but the model was trained on {seen['dtype']} of up to "
            f'{seen["largest"]:.3g}: give x.astype("{seen["dtype"]}").'
        )
    if dtype != "uint8" and seen.get("dtype") == "uint8" and largest > 2:
        arguments.warn(
            f"{name} is {dtype} of up to {largest:.3g}, but the model was trained on uint8, of which kvae makes "
            "[0, 1]: give uint8, or x / 255."
        )


def warn_of_target(model: Any, element: Any, name: str) -> None:
    """Warn of a y that looks like images to reconstruct, for a model that reconstructs x."""
    y = elements.target(element)
    if y is None or model._read_target(element):
        return
    if not np.array_equal(np.asarray(elements.unpack(element)[0]), np.asarray(y)):
        arguments.warn(
            f"The y of {name} has the shape of x and other values, and isn't read: a {type(model).__name__} "
            "reconstructs x itself. kvae.Autoencoder reconstructs y from x, as denoising wants it."
        )


def warn_of_scale(model: Any, first: validation.FirstBatch) -> None:
    """Warn if x is so far from 1 that the untrained encoder's answers are beyond all bounds, and training diverges."""
    largest = float(np.abs(first.x).max())
    if largest <= _LARGE_VALUE or int(model.optimizer.iterations) or "kl_loss" not in model.metric_names:
        return
    x = keras.tree.map_structure(lambda part: part[:_ROWS_TO_TRY], first_x(model, first))
    _, numbers = model.losses_per_example(x, index=tf.range(len(keras.tree.flatten(x)[0]), dtype="int64"))
    kl = float(np.mean(numbers["kl_loss"]))
    if not kl <= _LARGE_KL * model.latent_dim:
        arguments.warn(
            f"x reaches to {largest:.4g}, and the KL begins at {kl:.2g} nats, from where training hardly ever "
            f"recovers: {_advice_on_scale(first.x)}."
        )


def first_x(model: Any, first: validation.FirstBatch) -> Any:
    """x of the first batch as the model reads it, with the labels of a conditional model."""
    return model._read(first.element)


def _advice_on_scale(x):
    if x.min() >= 0 and x.max() <= 255 and x.ndim > 2:
        return "divide by 255 (uint8 is scaled by itself, tf.image.resize makes floats of it)"
    if x.min() >= 0 and np.array_equal(x, np.round(x)):
        return 'of counts the encoder should see log(1 + x), as that of kvae.networks.dense_encoder does with "log1p"'
    return "standardize each feature, as (x - mean) / standard deviation, or keras.layers.Normalization in the encoder"


def build_for(model: Any, first: np.ndarray) -> None:
    """Build the model, and the metrics that it was compiled with, for a first batch."""
    with model.distribute_strategy.scope():
        if not model.built:
            model.build((None, *first.shape[1:]))
        for metric in _compat.compiled_metrics(model):
            if not getattr(metric, "built", True):
                metric.build(first[:1], first[:1])
    _compat.close_for_state(model)


def check_counts(epochs: int | None = None, **options: Any) -> None:
    """Raise ValueError for numbers of steps, epochs or examples that aren't positive integers."""
    for name in ("batch_size", "steps", "steps_per_epoch", "validation_steps", "validation_batch_size"):
        if options.get(name) is not None:
            arguments.integer_at_least(name, options[name], 1)
    if epochs is not None:
        arguments.integer_at_least("epochs", epochs, 0)


def _validation(model: Any, data: Any, event_shape: tuple, options: dict[str, Any]) -> Any:
    """Validation data as Keras should read them, checked against the shape of the training data."""
    if not isinstance(data, tf.data.Dataset):
        data = _without_none(elements.fit_arguments(*elements.unpack(data)))
    first_batch(model, data, "validation_data", options.get("validation_steps"), event_shape)
    if not isinstance(data, tf.data.Dataset) and arrays.is_streamable(data, model.distribute_strategy):
        data = arrays.from_arrays(data, options.get("validation_batch_size") or _batch_size(options), shuffle=False)
    if isinstance(data, tf.data.Dataset):
        data = validation.stop_at_nonfinite(model._scorable(data, "validation_data"), "validation_data")
    return distribute(data, model.distribute_strategy, once=True)


def build_optimizer(model: Any) -> None:
    """Build it outside the graph, as XLA wants it, after the layers that a subclass calls in its loss alone."""
    if model.optimizer.built:
        return
    with model.distribute_strategy.scope():
        if not all(layer.built for layer in model.layers):
            symbol = model._symbol(model.event_shape, model.variable_dtype)
            specs = keras.tree.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), symbol)
            tf.function(model.losses_per_example, autograph=False).get_concrete_function(specs)
        if all(layer.built for layer in model.layers):  # else the first step builds the rest, and the optimizer
            model.optimizer.build(model.trainable_variables)


def _warn_of_moving_loss(model, callbacks):
    """Warn of callbacks that compare the losses of epochs, if these are losses of different objectives."""
    if not getattr(model.loss, "depends_on_step", False):
        return
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor in ("loss", "val_loss") and getattr(callback, "save_best_only", True):
            better = monitor.replace("loss", "elbo")
            arguments.warn(
                f"{type(callback).__name__} compares the {monitor} of epochs, but the KL's weight changes between "
                f'them, and with it the objective: use monitor="{better}", mode="max".'
            )


def _as_stream(model: Any, given: tuple, checkpoint: Any, options: dict[str, Any]) -> tuple:
    """(x, y, sample_weight), where arrays that kvae reads itself became a Stream in x."""
    if isinstance(given[0], tf.data.Dataset):
        return model._scorable(given[0], "x"), *given[1:]
    strategy = model.distribute_strategy
    if checkpoint is None and not arrays.is_streamable(_without_none(given), strategy, options):
        return given
    repeats = checkpoint is not None or replicas.workers(strategy) > 1
    return arrays.for_training(_without_none(given), options, repeats), None, None


def _behind(model: Any, x: Any, start: position.RunPosition, steps: Any) -> Any:
    """The data behind the batches that a resumed run has had, in whole groups of steps."""
    if steps is None:
        return arrays.resumable(x, steps, 0)  # which raises
    group = 1 if model._chooses_steps else model.steps_per_execution
    return arrays.resumable(x, steps, start.batches(-(-steps // group) * group))


def _choose_steps(model, x, batch_size, callbacks, start, steps, steps_per_epoch, options):
    """Choose the steps of one call, and whether one iterator reads all epochs. Returns Keras' `steps_per_epoch`."""
    counts = [steps_per_epoch, options.get("validation_steps"), start.step % (steps or 1)]
    if isinstance(x, tf.data.Dataset):
        options.setdefault("shuffle", False)  # a stream shuffles itself, and Keras would warn
    if isinstance(x, Run):
        counts[0] = x.steps_per_epoch if x.repeats else None
        steps_per_epoch = x.steps_per_epoch  # without it Keras starts two iterators an epoch
    if model._chooses_steps:
        model._group_steps(grouping.steps_per_execution(model, batch_size, callbacks, counts, steps_per_epoch))
    if isinstance(x, Run):
        x.repeats |= x.steps_per_epoch % model.steps_per_execution == 0
    return steps_per_epoch


def _num_batches(data: Any) -> int | None:
    """The batches of a dataset. None for arrays and for datasets of unknown or infinite length."""
    if isinstance(data, tf.data.Dataset) and int(data.cardinality()) >= 0:
        return int(data.cardinality())
    return None


def _batch_size(options: dict[str, Any]) -> int:
    return options.get("batch_size") or arrays.BATCH_SIZE


def _without_none(given: tuple) -> tuple:
    return given[0], *(part for part in given[1:] if part is not None)


def _listed(callbacks: Any) -> list:
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks.callbacks
    return keras.tree.flatten(callbacks or [])
