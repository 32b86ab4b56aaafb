"""Communication between the replicas of a `tf.distribute` strategy. With a single replica it costs nothing."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kvae import _compat, arguments
from kvae.arguments import Tensor

CLIPPING = "clipnorm", "global_clipnorm", "clipvalue"


def strategy() -> tf.distribute.Strategy:
    """Return a strategy for the workers in the environment's TF_CONFIG, or TensorFlow's default without one.

    Call it before all other TensorFlow functions.
    """
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def workers(strategy: tf.distribute.Strategy) -> int:
    """Return the number of processes in a strategy's training."""
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec().as_dict() if resolver else {}
    return max(1, sum(len(cluster.get(task, ())) for task in ("chief", "worker")))


def is_first(strategy: tf.distribute.Strategy) -> bool:
    """Return True in one process of all workers, the writer of files."""
    resolver = strategy.cluster_resolver
    return resolver is None or resolver.task_type in (None, "chief") or not resolver.task_id


def agree(strategy: tf.distribute.Strategy, number: int) -> bool:
    """Return True if all workers call this with the same number. Each worker waits for the others."""
    if workers(strategy) == 1:
        return True
    value = functools.partial(tf.constant, [number], tf.int64)
    gather = tf.function(lambda: strategy.gather(strategy.run(value), axis=0), autograph=False)
    return len(set(gather().numpy().tolist())) == 1


@contextlib.contextmanager
def first_alone(strategy: tf.distribute.Strategy, task: str) -> Iterator[bool]:
    """Context manager of what one process of all workers should do; it gives True to this one.

    The others wait for its end. If it fails, they raise OSError with the name of the task.
    """
    first, failed = is_first(strategy), 1
    try:
        yield first
        failed = 0
    finally:
        succeeded = agree(strategy, failed)
    if not succeeded:
        raise OSError(f"the first worker couldn't {task}: see its error")


def _context():
    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def mean(values: Tensor) -> Tensor:
    """Return this replica's term of the mean over all replicas' examples: the sum over the replicas is the mean.

    Args:
        values: tensor (n,). n may differ between replicas and be 0.
    """
    context = _context()
    if context is None:
        return ops.mean(values)
    count = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.shape(values, tf.int64))[0]
    return ops.sum(values) / ops.cast(count, values.dtype)


def divided(value: Tensor) -> Tensor:
    """Return value / replicas, for a value equal on all replicas: the sum over the replicas is the value."""
    context = _context()
    return value if context is None else value / context.num_replicas_in_sync


def total(value: Tensor) -> Tensor:
    """Return the sum of all replicas' values."""
    context = _context()
    return value if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def first_row(row: Tensor, count: Tensor) -> Tensor:
    """Return the first row that the replicas found, counted over the rows of all replicas.

    Args:
        row: int64 scalar, the row found here, or `count` if there is none.
        count: int64 scalar, the number of rows here.

    Returns:
        int64 scalar, -1 if no replica found one.
    """
    context = _context()
    if context is None:
        return tf.where(row < count, row, -1)
    mine = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=tf.int64)
    counts, rows = tf.unstack(context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack([mine * count, mine * row])))
    starts = tf.cumsum(counts, exclusive=True)
    first = tf.argmax(tf.concat([rows < counts, [True]], 0))
    return tf.concat([starts + rows, [-1]], 0)[first]


def clipped(optimizer: keras.optimizers.Optimizer, gradients: list) -> list:
    """Return this replica's terms of the clipped sum of all replicas' gradients.

    Keras' optimizers clip each replica's gradients before they sum them. They leave these terms as they are.

    Args:
        optimizer: Keras optimizer. Without clipping the gradients come back unchanged.
        gradients: list of tensors or None.
    """
    context = _context()
    if context is None or not any(getattr(optimizer, name, None) for name in CLIPPING):
        return gradients
    tensors = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
    sums = iter(_compat.clip_gradients(optimizer, context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)))
    return [gradient if gradient is None else next(sums) / context.num_replicas_in_sync for gradient in gradients]


def either(condition: Tensor, true: Callable[..., None], false: Callable[..., None], *args: Any) -> None:
    """Call true(*args) or false(*args), by a condition equal on all replicas.

    Some strategies merge updates of variables over the replicas, which fails within one replica's condition. For these
    the condition is one for all replicas.

    Args:
        condition: bool scalar.
        true: function without a result.
        false: function without a result.
        *args: structures of tensors.
    """
    if not tf.distribute.has_strategy() or _compat.updates_variables_in_a_condition():
        ops.cond(condition, lambda: true(*args), lambda: false(*args))
        return

    def together(strategy, condition, *args):
        condition = strategy.experimental_local_results(condition)[0]
        for_each = strategy.extended.call_for_each_replica
        ops.cond(condition, lambda: for_each(true, args=args), lambda: for_each(false, args=args))

    tf.distribute.get_replica_context().merge_call(together, args=(condition, *args))


def at_least_one(x: Any) -> tuple[Any, Tensor | None]:
    """Replace an empty x by one example of zeros, and return it with the true number of examples.

    A batch may leave a replica without examples, and TensorFlow's fused convolutions fail on 0 examples.

    Args:
        x: tensor (n, ...), or a structure of such tensors.

    Returns:
        (x, n), or (x, None) if there is one replica only.
    """
    if _context() is None:
        return x, None
    rows = tf.shape(tf.nest.flatten(x)[0])[0]
    missing = tf.cast(rows == 0, tf.int32)
    return tf.nest.map_structure(lambda a: tf.pad(a, [[0, missing]] + [[0, 0]] * (len(a.shape) - 1)), x), rows


def places(count: Tensor) -> tuple[Tensor, Tensor]:
    """Return the places of this replica's rows in the batch of all replicas, and the number of all rows.

    The replicas have the batch's rows in order, the first replica the first ones.

    Args:
        count: int scalar, the rows here.

    Returns:
        int64 tensor (count,), int64 scalar.
    """
    context, count = _context(), ops.cast(count, "int64")
    if context is None:
        return ops.arange(count, dtype="int64"), count
    number, size = context.replica_id_in_sync_group, context.num_replicas_in_sync
    counts = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.one_hot(number, size, on_value=count, dtype=tf.int64))
    return tf.reduce_sum(counts[:number]) + ops.arange(count, dtype="int64"), tf.reduce_sum(counts)


def positions(seen: Tensor, count: Tensor) -> Tensor:
    """Return the positions of this replica's next examples in the stream shared by all replicas, int64 (count,).

    Args:
        seen: int scalar, this replica's examples in all earlier steps.
        count: int scalar, its examples in this step.
    """
    return total(ops.cast(seen, "int64")) + places(count)[0]


def steps_together(step: Callable, strategy: tf.distribute.Strategy, count: int) -> Callable:
    """Return a function that takes `count` steps of a strategy in one call, as Keras' `train_function` takes one.

    Keras' own groups of steps fail over several replicas. Its step also sums the logs over the replicas each time;
    here the last step of a call does.

    Args:
        step: function from a replica's batch to its logs, such as a model's `train_step`.
        strategy: the model's.
        count: int > 1. The function takes an iterator with at least as many batches.
    """
    each = tf.function(lambda batch: strategy.run(step, args=(batch,)), reduce_retracing=True, autograph=False)

    def together(iterator):
        def another(number):
            each(iterator.get_next())
            return number + 1

        tf.while_loop(lambda number: number < count - 1, another, [tf.constant(0)])
        return _compat.reduce_logs(each(iterator.get_next()), strategy)

    return tf.function(together, reduce_retracing=True, autograph=False)


def logs(numbers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a step's numbers in the right shape for Keras' mean over replicas: (1,) for several workers, else ()."""
    if _context() is not None and isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
        return {name: ops.reshape(number, (1,)) for name, number in numbers.items()}
    return numbers


def validate_settings(model: Any) -> None:
    """Raise ValueError if Keras can't combine a compiled model's settings with several replicas.

    With a loss-scaling optimizer, as in mixed_float16, clipping is one of them.
    """
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1 or not model.compiled:
        return
    optimizer, is_automatic = model.optimizer, model._step_groups.is_automatic
    settings = {
        "steps_per_execution": None if is_automatic or model.steps_per_execution == 1 else model.steps_per_execution,
        "jit_compile": model.jit_compile,
        "gradient_accumulation_steps": getattr(optimizer, "gradient_accumulation_steps", None),
        "ema_overwrite_frequency": getattr(optimizer, "ema_overwrite_frequency", None),
        **{name: getattr(getattr(optimizer, "inner_optimizer", None), name, None) for name in CLIPPING},
    }
    for name, value in settings.items():
        if value:
            raise ValueError(
                f"{name} is {value}, which Keras can't do over the {strategy.num_replicas_in_sync} replicas of a "
                f"{type(strategy).__name__}: leave it out."
            )


def warn_of_layers(model: Any) -> None:
    """Warn of layers with which several replicas don't get the weights of one: they see their own rows alone."""
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return
    found = sorted({type(layer).__name__ for layer in _compat.layers_within(model) if _sees_its_rows_alone(layer)})
    if found:
        arguments.warn(
            f"the networks have {' and '.join(found)}: each of the {strategy.num_replicas_in_sync} replicas draws or "
            "takes statistics for its own rows alone, so the weights won't be those of one replica. "
            "BatchNormalization(synchronized=True) takes the statistics of all rows."
        )


def _sees_its_rows_alone(layer):
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer.trainable and not layer.synchronized
    draws = getattr(layer, "seed_generator", None) is not None or hasattr(layer, "generator")
    return draws and not type(layer).__module__.startswith("kvae.") and getattr(layer, "rate", 1) != 0
