"""A stream that the replicas of a `tf.distribute` strategy read together."""

import tensorflow as tf

from kvae import replicas
from kvae.data.stream import Run, Stream


class DistributedRun(Run, tf.distribute.DistributedDataset):
    """A `Stream` as a strategy's replicas read it: of each batch every worker its share, every replica its part.

    No worker reads another's share, all have as many batches (of no rows, where there are too few), and the epochs
    come in the stream's order.

    Args:
        stream: the `Stream`.
        strategy: the `tf.distribute.Strategy`.
        steps: int, the batches of an epoch of `fit`; None takes the stream's.
        once: whether each iterator reads the stream's next epoch, as evaluation does.
    """

    def __init__(self, stream, strategy, steps=None, once=False):
        super().__init__(stream, steps)
        self.strategy, self.once = strategy, once
        self.next_epoch = stream.next_epoch if once else 0

    def __iter__(self):
        def parts(context):
            workers, replicas = context.num_input_pipelines, context.num_replicas_in_sync
            batches = self.batches(share=(context.input_pipeline_id, workers))
            split = batches.flat_map(lambda *batch: _split(batch, replicas // workers))
            # With an end in sight TensorFlow would ask all workers at each step whether they have reached it.
            return split.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

        iterator = iter(self.strategy.distribute_datasets_from_function(parts))
        if not self.once:
            self.advance()
        return iterator


def distributed(data, strategy, steps=None, once=False):
    """The data as Keras should get them under the strategy, of whose workers each takes its part of every batch.

    data: a `Stream`, which becomes a `Run` of so many `steps` an epoch, or, with `once`, is read for its next epoch
        alone; a plain dataset, whose own choice of a sharding policy stands; or arrays.

    Raises ValueError for a Stream whose batches can't be shared by as many workers, and where each of several workers
    would shuffle a plain dataset in its own order.
    """
    workers = replicas.workers(strategy)
    with strategy.scope():
        alone = not tf.distribute.has_strategy()
    if isinstance(data, Stream):
        if not alone:
            if workers > 1:
                data.order(tf.constant(0, tf.int64), skip=0, share=(0, workers))  # or it says why it can't
            return DistributedRun(data, strategy, steps, once)
        return data.epoch(data.next_epoch) if once else Run(data, steps)
    if alone or not isinstance(data, tf.data.Dataset):
        return data
    if workers > 1 and _shuffles_unseeded(data):
        raise ValueError(
            "the data are shuffled by tf.data without a seed, by each worker in its own order, of which its share "
            "would repeat what others have had: give shuffle a seed, the same int on all workers"
        )
    policies = tf.data.experimental.AutoShardPolicy
    if data.options().experimental_distribute.auto_shard_policy != policies.AUTO:
        return data
    # Left to choose, TensorFlow gives each worker some of the files, and Keras, which counts the steps of the whole,
    # never reads the end of the larger part.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = policies.DATA
    return data.with_options(options)


def _shuffles_unseeded(dataset):
    """Whether a `tf.data.Dataset.shuffle` in it has neither a seed of its own nor the global one."""
    seeds = getattr(dataset, "_seed", None), getattr(dataset, "_seed2", None)
    unseeded = "Shuffle" in type(dataset).__name__ and not any(seed is None or int(seed) for seed in seeds)
    return unseeded or any(map(_shuffles_unseeded, dataset._inputs()))


def _split(batch, parts):
    """The batch as a dataset of `parts` batches, the first ones full and the last ones smaller or of no rows."""
    batch = batch[0] if len(batch) == 1 else batch
    rows = tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0]
    size = -(-rows // parts)
    return tf.data.Dataset.range(parts).map(
        lambda part: tf.nest.map_structure(lambda array: array[part * size : (part + 1) * size], batch)
    )
