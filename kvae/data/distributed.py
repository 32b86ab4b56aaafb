"""A stream that the replicas of a `tf.distribute` strategy read together."""

import tensorflow as tf

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
    """
    with strategy.scope():
        alone = not tf.distribute.has_strategy()
    if isinstance(data, Stream):
        if not alone:
            return DistributedRun(data, strategy, steps, once)
        return data.epoch(data.next_epoch) if once else Run(data, steps)
    if alone or not isinstance(data, tf.data.Dataset):
        return data
    policies = tf.data.experimental.AutoShardPolicy
    if data.options().experimental_distribute.auto_shard_policy != policies.AUTO:
        return data
    # Left to choose, TensorFlow gives each worker some of the files, and Keras, which counts the steps of the whole,
    # never reads the end of the larger part.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = policies.DATA
    return data.with_options(options)


def _split(batch, parts):
    """The batch as a dataset of `parts` batches, the first ones full and the last ones smaller or of no rows."""
    batch = batch[0] if len(batch) == 1 else batch
    rows = tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0]
    size = -(-rows // parts)
    return tf.data.Dataset.range(parts).map(
        lambda part: tf.nest.map_structure(lambda array: array[part * size : (part + 1) * size], batch)
    )
