"""A `Stream` as `fit` reads it, alone or by the replicas of a `tf.distribute` strategy."""

from typing import Any

import tensorflow as tf

from kvae import _compat, replicas
from kvae.data.stream import Stream, next_epoch


class Run(_compat.WrappedDataset):
    """A `Stream` as `fit` reads it: one epoch after the other from `next_epoch` on, the first without `skip` batches.

    Args:
        stream: the `Stream`.
        steps_per_epoch: int, the batches of an epoch of `fit`; None for the stream's.

    Attributes:
        repeats: whether one iterator reads all epochs without an end, as it must if an epoch of `fit` isn't one of the
            stream. Otherwise each epoch has an iterator. Its start takes some hundredths of a second.
    """

    def __init__(self, stream: Stream, steps_per_epoch: int | None = None):
        self.stream, self.next_epoch = stream, 0
        self.skip: Any = 0  # pyright: ignore[reportIncompatibleMethodOverride]
        self.steps_per_epoch = steps_per_epoch or stream.num_batches
        self.repeats = self.steps_per_epoch != stream.num_batches
        super().__init__(stream)

    def upcoming(self, shard_index: int = 0, num_shards: int = 1) -> tf.data.Dataset:
        """The plain dataset of the next iterator."""
        if self.repeats:
            first = self.next_epoch * self.steps_per_epoch + self.skip
            return self.stream.from_batch(first, shard_index=shard_index, num_shards=num_shards)
        return self.stream._epoch(self.next_epoch, self.skip, (shard_index, num_shards))

    def __iter__(self):
        iterator = iter(self.upcoming())
        self.advance()
        return iterator

    def advance(self):
        """Let the next iterator read the next epoch from its start."""
        self.next_epoch, self.skip = self.next_epoch + 1, 0

    def cardinality(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        return tf.constant(tf.data.INFINITE_CARDINALITY if self.repeats else self.steps_per_epoch, tf.int64)


class DistributedRun(Run, tf.distribute.DistributedDataset):
    """A `Stream` as a strategy's replicas read it: every worker its shard of each batch, every replica its part of it.

    No worker reads another's shard. All have the same number of batches, and the epochs come in the stream's order. A
    batch with fewer rows than replicas has no rows on some of them.

    Args:
        stream: the `Stream`.
        strategy: the `tf.distribute.Strategy`.
        steps_per_epoch: int, the batches of an epoch of `fit`; None for the stream's.
        once: whether each iterator reads the stream's next epoch, as evaluation does.
    """

    def __init__(self, stream, strategy, steps_per_epoch=None, once=False):
        super().__init__(stream, steps_per_epoch)
        self.strategy, self.once = strategy, once
        self.next_epoch = stream.next_epoch if once else 0

    def __iter__(self):
        def for_worker(context):
            num_workers, num_replicas = context.num_input_pipelines, context.num_replicas_in_sync
            batches = self.upcoming(context.input_pipeline_id, num_workers)
            split = batches.flat_map(lambda *batch: _split(batch, num_replicas // num_workers))
            # With an end in sight TensorFlow would ask all workers at each step whether they have reached it.
            return split.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

        iterator = iter(self.strategy.distribute_datasets_from_function(for_worker))
        if not self.once:
            self.advance()
        return iterator


def distribute(data, strategy: tf.distribute.Strategy, steps_per_epoch: int | None = None, once: bool = False):
    """The data as Keras reads them under a strategy: each worker its part of every batch.

    Args:
        data: a `Stream` (it becomes a `Run`), a plain dataset (it keeps its own sharding policy) or arrays.
        strategy: the strategy of the model.
        steps_per_epoch: int, the batches of an epoch of `fit`; None for the stream's.
        once: whether a Stream is read for its next epoch alone.

    Raises:
        ValueError: if the workers can't share a Stream's batches, or if each of several workers would shuffle a plain
            dataset in its own order.
    """
    with strategy.scope():
        is_alone = not tf.distribute.has_strategy()
    if is_alone and isinstance(data, Stream):
        return next_epoch(data) if once else Run(data, steps_per_epoch)
    if is_alone or not isinstance(data, tf.data.Dataset):
        return data
    num_workers = replicas.workers(strategy)
    if isinstance(data, Stream):
        if num_workers > 1:  # it raises if it can't be shared
            data.batches(tf.constant(0, tf.int64), skip=0, shard_index=0, num_shards=num_workers)
        return DistributedRun(data, strategy, steps_per_epoch, once)
    if num_workers > 1 and any(map(_compat.shuffles_unseeded, _compat.sources(data))):
        raise ValueError(
            "the data are shuffled by tf.data without a seed, by each worker in its own order, of which its share "
            "would repeat what others have had: give shuffle a seed, the same int on all workers"
        )
    policies = tf.data.experimental.AutoShardPolicy
    if data.options().experimental_distribute.auto_shard_policy != policies.AUTO:
        return data
    # Left to choose, TensorFlow gives each worker some of the files. Keras counts the steps of all files, and would
    # never read the end of the larger part.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = policies.DATA
    return data.with_options(options)


def _split(batch, num_parts):
    """The batch as a dataset of `num_parts` batches, the first ones full and the last ones smaller or of no rows."""
    batch = batch[0] if len(batch) == 1 else batch
    rows = tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0]
    size = -(-rows // num_parts)
    return tf.data.Dataset.range(num_parts).map(
        lambda part: tf.nest.map_structure(lambda array: array[part * size : (part + 1) * size], batch)
    )
