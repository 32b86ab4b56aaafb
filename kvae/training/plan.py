"""The plan of a run: data checked and read as a Stream, the position where it starts, the callbacks that watch it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvae import _compat, arguments, replicas
from kvae.data import arrays, elements, errors, provenance, validation
from kvae.data.runs import Run, distribute
from kvae.data.stream import Stream
from kvae.saving import model_card
from kvae.training import advice, position
from kvae.training import steps_per_execution as grouping
from kvae.training.nonfinite import ReportSkippedSteps


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
    replicas.warn_of_layers(model)
    check_counts(steps_per_epoch=steps_per_epoch, **options)
    callbacks = _listed(options.pop("callbacks", None))
    checkpoint = position.find_checkpoint(callbacks)
    arrays.validate_class_weight(given[0], options.get("class_weight"), checkpoint)
    if checkpoint is not None:
        advice.warn_of_reordering(given[0])
    given = elements.fit_arguments(*given)
    if options.get("class_weight") and given[1] is None and not isinstance(given[0], tf.data.Dataset):
        raise ValueError("class_weight is given without y: give the class numbers as y, or sample_weight")
    with errors.clear_errors(), model._step_groups.kept_for_another_fit(), contextlib.ExitStack() as stack:
        is_stream = isinstance(given[0], tf.data.Dataset)
        batch = first_batch(model, given[0] if is_stream else _without_none(given), "x", steps_per_epoch)
        first_x = batch.x
        advice.warn_if_constant(first_x, "x")
        if model.missing:
            advice.warn_of_empty_columns(given[0], batch, "x")
        if validation_data is not None:
            validation_data = _validation(model, validation_data, first_x.shape[1:], options)
        build_for(model, first_x)
        x_seen = {"dtype": batch.dtype, "largest": batch.largest}
        if not model.compiled:
            yield {"x": given[0]}  # Keras then says that it isn't
            return
        build_optimizer(model)
        advice.warn_of_scale(model, batch)
        batch_size = len(first_x) if is_stream else _batch_size(options)
        settings = {"batch_size": batch_size, "steps_per_epoch": steps_per_epoch, "shuffle": options.get("shuffle")}
        recorder = model_card.Recorder(model, given, first_x, settings, x_seen)
        x, y, sample_weight = _as_stream(model, given, batch, checkpoint, options)
        steps = steps_per_epoch or _num_batches(x)
        advice.warn_of_moving_loss(model, callbacks, steps, options.get("epochs", 1))
        start = position.start_of_run(model, options.get("initial_epoch", 0), steps)
        if checkpoint is None and steps_per_epoch:
            x = arrays.without_end(x, steps_per_epoch)
        if checkpoint is not None:
            _validate_built(model)
            run = position.settings(model, steps, recorder.data, _first_batches(x, validation_data))
            epochs, verbose = options.get("epochs", 1), options.get("verbose", "auto") != 0
            callbacks = [callback for callback in callbacks if callback is not checkpoint]
            start = stack.enter_context(checkpoint.protect(model, start, run, epochs, verbose, callbacks))
            x, steps_per_epoch = _after(model, x, start, steps), steps
            options |= {"initial_epoch": start.epoch, "epochs": start.epoch if checkpoint.has_ended else epochs}
            callbacks = [*callbacks, checkpoint]
        callbacks = [recorder, *callbacks]
        x = distribute(x, model.distribute_strategy, steps_per_epoch)
        counts = [steps_per_epoch, options.get("validation_steps"), start.step % (steps or 1)]
        if model.distribute_strategy.num_replicas_in_sync > 1:  # no group may pass the end of the data
            counts += [_steps_of_run(x), 0 if validation_data is None else _steps_of_run(validation_data)]
        steps_per_epoch = _choose_steps(model, x, batch_size, callbacks, counts, steps_per_epoch, options)
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
    if not isinstance(data[0], tf.data.Dataset):
        elements.validate_arrays(tuple(part for part in data if part is not None))
    if data[1:] and data[1] is not None and not model._read_target(data):
        advice.warn_of_target(model, tf.nest.map_structure(lambda part: part[: elements.BATCH_SIZE], data[:2]), "x")
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
    first = validation.validate_first_batch(data, shape, steps, name, model.variable_dtype, model.missing)
    model._check_values(first.x, first.y)
    if not isinstance(data, tf.data.Dataset):
        model._scorable(data, name)
    target = model._read_target(first.element if isinstance(data, tf.data.Dataset) else data)
    for kind, y in target.items():
        _validate_target(model, y, first, name, kind)
    if not target:
        advice.warn_of_target(model, first.element, name)
    advice.warn_of_other_scale(model, first, name)
    return first


def _validate_target(model: Any, y: Any, first: validation.FirstBatch, name: str, kind: str) -> None:
    """Raise as for x if y, the images that the model reads beside x, is unfit; of a stream it is its first batch's."""
    y, of = np.asarray(y) if tf.is_tensor(y) else y, f"the {kind} of {name}"
    found = validation.validate_first_batch(y, first.x.shape[1:], None, of, model.variable_dtype, model.missing)
    model._check_values(found.x, None)
    model._scorable(y, of)
    pixels, others = sorted((first, found), key=lambda each: each.dtype != "uint8")
    if pixels.dtype == "uint8" != others.dtype and others.largest > 2:
        raise ValueError(
            f"{name} is {first.dtype} and its {kind} {found.dtype}: kvae makes [0, 1] of uint8 alone, and the other "
            f"one goes up to {others.largest:.3g}; give both in one dtype"
        )


def build_for(model: Any, first: np.ndarray) -> None:
    """Build the model, and the metrics that it was compiled with, for a first batch."""
    with model.distribute_strategy.scope():
        if not model.built:
            model.build((None, *first.shape[1:]))
        for metric in _compat.compiled_metrics(model):
            if not getattr(metric, "built", True):
                metric.build(first[:1], first[:1])
    _compat.close_for_state(model)


def check_counts(**options: Any) -> None:
    """Raise ValueError for impossible numbers of steps, epochs or examples, and for a share outside of [0, 1)."""
    for name in ("batch_size", "steps", "steps_per_epoch", "validation_steps", "validation_batch_size"):
        if options.get(name) is not None:
            arguments.integer_at_least(name, options[name], 1)
    frequency = options.get("validation_freq", 1)
    if isinstance(frequency, list | tuple | set | range):  # the epochs themselves
        arguments.sizes("validation_freq", frequency)
    else:
        arguments.integer_at_least("validation_freq", frequency, 1)
    for name in {"epochs", "initial_epoch"} & options.keys():
        arguments.integer_at_least(name, options[name], 0)
    split = options.get("validation_split", 0.0)
    if not arguments.is_real(split, 0) or split >= 1:
        raise ValueError(f"validation_split is {split!r}; expected a share of the examples in [0, 1).")


def _validation(model: Any, data: Any, event_shape: tuple, options: dict[str, Any]) -> Any:
    """Validation data as Keras should read them, checked against the shape of the training data."""
    data = elements.as_dataset(data)
    if not isinstance(data, tf.data.Dataset):
        data = _without_none(elements.fit_arguments(*elements.unpack(data)))
    first = first_batch(model, data, "validation_data", options.get("validation_steps"), event_shape)
    if not isinstance(data, tf.data.Dataset) and arrays.is_streamable(data, model.distribute_strategy):
        data = arrays.from_arrays(data, options.get("validation_batch_size") or _batch_size(options), shuffle=False)
    if isinstance(data, tf.data.Dataset):
        parts = parts_read(model, first)
        data = validation.with_shapes(data, first.element, "validation_data", parts)
        data = validation.stop_at_negative_weights(data, "validation_data")
        data = model._scorable(data, "validation_data")
        for part in parts:
            data = validation.stop_at_nonfinite(data, "validation_data", model.missing, part)
    return distribute(data, model.distribute_strategy, once=True)


def build_optimizer(model: Any) -> None:
    """Build the optimizer outside the graph, as XLA wants it, after layers that only a subclass's loss calls."""
    if model.optimizer.built:
        return
    added = model._added_layers()
    with model.distribute_strategy.scope():
        if not all(layer.built for layer in added):
            symbol = model._symbol(model.event_shape, model.variable_dtype)
            x = keras.tree.map_structure(lambda tensor: tf.zeros((1, *tensor.shape[1:]), tensor.dtype), symbol)
            model.losses_per_example(x, index=tf.zeros((1,), tf.int64))
        if all(layer.built for layer in added):  # else the first step builds the rest, and the optimizer
            for optimizer, weights in model._optimized():
                optimizer.build(weights)


def _as_stream(
    model: Any, given: tuple, first: validation.FirstBatch, checkpoint: Any, options: dict[str, Any]
) -> tuple:
    """(x, y, sample_weight), where arrays that kvae reads itself became a Stream in x."""
    if isinstance(given[0], tf.data.Dataset):
        x = validation.with_shapes(given[0], first.element, "x", parts_read(model, first))
        return model._scorable(validation.stop_at_negative_weights(x, "x"), "x"), *given[1:]
    strategy = model.distribute_strategy
    if checkpoint is None and not arrays.is_streamable(_without_none(given), strategy, options):
        return given
    repeats = checkpoint is not None or replicas.workers(strategy) > 1
    return arrays.for_training(_without_none(given), options, repeats), None, None


def _validate_built(model):
    """Raise ValueError if a checkpoint couldn't hold all variables of the run."""
    missing = [layer.name for layer in model._added_layers() if not layer.built]
    if missing:
        raise ValueError(
            f"a Checkpoint wants all layers built before the first step, and {missing[0]} isn't: build it in the "
            "constructor, as layer.build((None, size)), or call it in losses_per_example"
        )


def _first_batches(x: Any, validation_data: Any) -> dict[str, str | None]:
    """The hashes of the first batches, by name: they differ if data, batch size, order or map differ."""
    hashes = {"data": provenance.first_batch_hash(x)}
    if hashes["data"] is None and isinstance(x, Stream):
        arguments.warn(
            "x is another one each time that it is read, as after a map that draws random numbers: a run that is "
            "stopped will go on, but not bit by bit. Draw from tf.random.stateless_uniform and the like for that."
        )
    is_stream = isinstance(validation_data, tf.data.Dataset)
    return hashes | {"validation data": provenance.first_batch_hash(validation_data) if is_stream else "none"}


def parts_read(model, first):
    """What the model reads of an element in its loss: 0 for x, 1 for y."""
    return (0, 1) if model._read_target(first.element) else (0,)


def _after(model: Any, x: Any, start: position.RunPosition, steps: Any) -> Any:
    """The data after the batches that a resumed run has read, in whole groups of steps."""
    if steps is None:
        return arrays.resumable(x, 0, 0)  # which raises
    group = 1 if model._step_groups.is_automatic else model.steps_per_execution
    return arrays.resumable(x, steps, start.batches(-(-steps // group) * group))


def _steps_of_run(data: Any) -> int:
    """The batches of an epoch of a Stream as `fit` reads it; 1 for other data."""
    return data.steps_per_epoch if isinstance(data, Run) else 1


def _choose_steps(model, x, batch_size, callbacks, counts, steps_per_epoch, options):
    """Choose the steps of one call, and whether one iterator reads all epochs. Returns Keras' `steps_per_epoch`."""
    if isinstance(x, tf.data.Dataset):
        options.setdefault("shuffle", False)  # a stream shuffles itself, and Keras would warn
    if isinstance(x, Run):
        counts[0] = x.steps_per_epoch if x.repeats else None
        steps_per_epoch = x.steps_per_epoch  # without it Keras starts two iterators an epoch
    if model._step_groups.is_automatic:
        model._step_groups.use(grouping.steps_per_execution(model, batch_size, callbacks, counts, steps_per_epoch))
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
    callbacks = keras.tree.flatten(callbacks or [])
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            found = f"the class {callback.__name__}" if isinstance(callback, type) else repr(callback)
            raise TypeError(f"callbacks holds {found}; expected Keras callbacks, made by calling their classes.")
    return callbacks
