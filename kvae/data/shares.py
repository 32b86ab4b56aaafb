"""A worker's share of one pass over the data, and the sums and rows of all workers."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from kvae import _compat, replicas
from kvae.data import arrays, elements


class Share:
    """A stretch of the batches for each worker of a `tf.distribute` strategy, in the workers' order.

    A `Stream` or an array is read from the stretch's first batch on. Of a plain dataset the batches before it are
    read as well, and dropped. All workers must call the methods, in the same order.

    Args:
        strategy: the strategy of a model, or None. With a single worker all data are its share.

    Attributes:
        workers, number: ints, the number of workers and this one's, from 0.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None):
        self.strategy = strategy
        self.workers = 1 if strategy is None else replicas.workers(strategy)
        self.number = 0 if strategy is None or self.workers == 1 else _number(strategy)

    def batches(self, data: Any, batch_size: int = elements.BATCH_SIZE, together: int = 1) -> Any:
        """This worker's batches, a plain dataset. A single worker gets the data back.

        Args:
            data: a dataset of batches or arrays.
            batch_size: int, of arrays.
            together: int, how many consecutive batches stay on one worker.

        Raises:
            ValueError: for a dataset of unknown length, or one that each worker shuffles differently.
        """
        if self.workers == 1:
            return data
        if not isinstance(data, tf.data.Dataset):
            data = arrays.in_order(data, batch_size)
        elif any(map(_compat.shuffles_unseeded, _compat.sources(data))):
            raise ValueError(
                "x is shuffled by tf.data without a seed, by each worker in its own order, of which its share would "
                "repeat rows of others: give shuffle a seed, the same int on all workers"
            )
        first, last = self.stretch(num_batches(data), together)
        return arrays.batches_from(data, first).take(last - first)

    def stretch(self, count: int, together: int = 1) -> tuple[int, int]:
        """(first, last): of `count` batches this worker's are number first to last - 1."""
        groups = -(-count // together)
        first, last = (together * (groups * number // self.workers) for number in (self.number, self.number + 1))
        return first, min(last, count)

    def sum(self, *values: Any) -> tuple:
        """The sums of all workers' values (arrays or numbers of equal shapes), in float64; of one worker its own."""
        if self.workers == 1:
            return values
        shapes, sizes = [np.shape(value) for value in values], np.cumsum([np.size(value) for value in values])
        total = self._sum(np.concatenate([np.ravel(value).astype(np.float64) for value in values])).numpy()
        parts = np.split(total, sizes[:-1])
        return tuple(part.reshape(shape)[()] for part, shape in zip(parts, shapes, strict=True))

    def seed(self, seed: int | None) -> int | None:
        """The seed. For None, several workers agree on a random one, and a single worker gets None back."""
        if seed is not None or self.workers == 1:
            return seed
        return int(self.sum(np.random.default_rng().integers(2**31))[0]) % 2**31

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """The rows (n, ...) of all workers, in the workers' order. n may differ."""
        return rows if self.workers == 1 else self._rows(tf.constant(rows)).numpy()

    @functools.cached_property
    def _sum(self):
        strategy: Any = self.strategy

        def of_replica(value):
            context: Any = tf.distribute.get_replica_context()
            value = tf.where(self._is_first_replica(context), value, tf.zeros_like(value))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, value)

        def of_workers(value):
            return strategy.experimental_local_results(strategy.run(of_replica, args=(value,)))[0]

        return tf.function(of_workers, [tf.TensorSpec((None,), tf.float64)], autograph=False)

    @functools.cached_property
    def _rows(self):
        strategy: Any = self.strategy

        def of_replica(rows):
            count = tf.where(self._is_first_replica(tf.distribute.get_replica_context()), tf.shape(rows)[0], 0)
            return rows[:count]

        def of_workers(rows):
            return strategy.gather(strategy.run(of_replica, args=(rows,)), axis=0)

        return tf.function(of_workers, autograph=False, reduce_retracing=True)

    def _is_first_replica(self, context):
        """Whether a replica is the first one of its worker."""
        return context.replica_id_in_sync_group % (context.num_replicas_in_sync // self.workers) == 0


def num_batches(data: tf.data.Dataset) -> int:
    """The length of a dataset. Raises ValueError if it isn't known."""
    count = int(data.cardinality())
    if count < 0:
        length = "without end" if count == tf.data.INFINITE_CARDINALITY else "of unknown length"
        raise ValueError(
            f"x is a stream {length}, which several workers can't share: add "
            ".apply(tf.data.experimental.assert_cardinality(batches)) to it, or .take(batches)"
        )
    return count


def _number(strategy):
    """The number of this worker: a chief comes first."""
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec().as_dict()
    return int(resolver.task_id or 0) + (len(cluster.get("chief", ())) if resolver.task_type == "worker" else 0)
