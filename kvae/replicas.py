"""What one replica of a `tf.distribute` strategy knows of the others. With one replica all of this costs nothing."""

import functools
import os

import keras
import tensorflow as tf
from keras import ops

CLIPPING = "clipnorm", "global_clipnorm", "clipvalue"
_WEYL, _MASK = 0x9E3779B9, 0xFFFFFFFF


def strategy():
    """That of the workers which the environment's TF_CONFIG names, or TensorFlow's default. Call it before all else."""
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def workers(strategy):
    """How many processes train together under a strategy."""
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec().as_dict() if resolver else {}
    return max(1, sum(len(cluster.get(task, ())) for task in ("chief", "worker")))


def is_first(strategy):
    """Whether this process is the one of those that train together which writes files."""
    resolver = strategy.cluster_resolver
    return resolver is None or resolver.task_type in (None, "chief") or not resolver.task_id


def agree(strategy, number):
    """Whether all workers call this with the same number, for which they wait for each other."""
    if workers(strategy) == 1:
        return True
    own = functools.partial(tf.constant, [number], tf.int64)
    gather = tf.function(lambda: strategy.gather(strategy.run(own), axis=0), autograph=False)
    return len(set(gather().numpy().tolist())) == 1


def _context():
    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def mean(values):
    """This replica's part of the mean over all replicas' examples: the parts' sum is the mean.

    values: (n,), where n may differ from replica to replica and be 0.
    """
    context = _context()
    if context is None:
        return ops.mean(values)
    count = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.shape(values, tf.int64))[0]
    return ops.sum(values) / ops.cast(count, values.dtype)


def part(value):
    """This replica's part of a value that is the same on all: the parts' sum is the value."""
    context = _context()
    return value if context is None else value / context.num_replicas_in_sync


def alone():
    """Whether there is but one replica."""
    return _context() is None


def total(value):
    """The sum of all replicas' values."""
    context = _context()
    return value if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def first_row(flags):
    """The first row, int64 (), of all replicas' together whose flag (n,) is set; -1 where there is none."""
    count, context = tf.size(flags, tf.int64), _context()
    row = tf.argmax(tf.concat([flags, [True]], 0))
    if context is None:
        return tf.where(row < count, row, -1)
    known = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=tf.int64)
    counts, rows = tf.unstack(context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack([known * count, known * row])))
    starts = tf.cumsum(counts, exclusive=True)
    first = tf.argmax(tf.concat([rows < counts, [True]], 0))
    return tf.concat([starts + rows, [-1]], 0)[first]


def clipped(optimizer, gradients):
    """This replica's parts of what the optimizer's clipping makes of the gradients' sums over all replicas.

    Keras' optimizers clip the gradients of each replica before they sum them, which does nothing to these parts.
    gradients: a list, of which some may be None.
    """
    context = _context()
    if context is None or not any(getattr(optimizer, name, None) for name in CLIPPING):
        return gradients
    known = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
    parts = iter(optimizer._clip_gradients(context.all_reduce(tf.distribute.ReduceOp.SUM, known)))
    return [gradient if gradient is None else next(parts) / context.num_replicas_in_sync for gradient in gradients]


def either(condition, true, false, *args):
    """true(*args) or false(*args), neither of which gives anything, as a condition says that is the same on all.

    args: structures of tensors. Where updates of variables are merged over the replicas, that can't be done within a
    condition of one replica, and the condition is one of all of them.
    """
    if alone() or tf.__internal__.distribute.strategy_supports_no_merge_call():
        ops.cond(condition, lambda: true(*args), lambda: false(*args))
        return

    def together(strategy, condition, *args):
        condition = strategy.experimental_local_results(condition)[0]
        for_each = strategy.extended.call_for_each_replica
        ops.cond(condition, lambda: for_each(true, args=args), lambda: for_each(false, args=args))

    tf.distribute.get_replica_context().merge_call(together, args=(condition, *args))


def at_least_one(x):
    """(x, its number of examples), where an empty x becomes one example of zeros; with one replica (x, None).

    x: (n, ...), or a structure of such. A batch may leave a replica without examples, and TensorFlow's fused
    convolutions fail on none.
    """
    if _context() is None:
        return x, None
    rows = tf.shape(tf.nest.flatten(x)[0])[0]
    missing = tf.cast(rows == 0, tf.int32)
    return tf.nest.map_structure(lambda a: tf.pad(a, [[0, missing]] + [[0, 0]] * (len(a.shape) - 1)), x), rows


def positions(seen, count):
    """Positions (count,), int64, of this replica's next examples in the stream that all replicas read together.

    seen: the examples that this replica has had. count: the examples that it has now. A step's examples stand in the
    replicas' order, after those of the steps before.
    """
    context, seen, count = _context(), ops.cast(seen, "int64"), ops.cast(count, "int64")
    if context is not None:
        number = context.replica_id_in_sync_group
        counts = tf.one_hot(number, context.num_replicas_in_sync, on_value=count, dtype=tf.int64)
        known = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.concat([[seen], counts], 0))
        seen = tf.reduce_sum(known[: number + 1])  # all that were seen, and the counts of the replicas before
    return seen + ops.arange(count, dtype="int64")


def logs(numbers):
    """A step's numbers in the shape that Keras averages over the replicas: () but for several workers, (1,) there."""
    if _context() is not None and isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
        return {name: ops.reshape(number, (1,)) for name, number in numbers.items()}
    return numbers


def check(model):
    """Raise ValueError where a compiled model asks for what Keras can't do over several replicas.

    Clipping is among it where an optimizer scales the loss, as with mixed_float16.
    """
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1 or not model.compiled:
        return
    optimizer = model.optimizer
    asked = {
        "steps_per_execution": model.steps_per_execution if model.steps_per_execution > 1 else None,
        "jit_compile": model.jit_compile,
        "gradient_accumulation_steps": getattr(optimizer, "gradient_accumulation_steps", None),
        "ema_overwrite_frequency": getattr(optimizer, "ema_overwrite_frequency", None),
        **{name: getattr(getattr(optimizer, "inner_optimizer", None), name, None) for name in CLIPPING},
    }
    for name, value in asked.items():
        if value:
            raise ValueError(
                f"{name} is {value}, which Keras can't do over the {strategy.num_replicas_in_sync} replicas of a "
                f"{type(strategy).__name__}: leave it out."
            )


class SeedGenerator(keras.random.SeedGenerator):
    """A `keras.random.SeedGenerator` whose seeds differ from replica to replica; the first has the plain ones."""

    def next(self, ordered=True):
        seed, context = super().next(ordered), _context()
        if context is None:
            return seed
        number = tf.cast(context.replica_id_in_sync_group, tf.int64) * _WEYL & _MASK
        return tf.bitwise.bitwise_xor(seed, tf.cast([number, 0], seed.dtype))
