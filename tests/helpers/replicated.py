"""What the tests of one process with two replicas and of two processes share."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import kvae
from kvae.networks import dense_decoder


class VAEOfExamples(kvae.VAE):
    """Its noise is a function of the example alone, in whatever batch and on whatever replica it stands."""

    def losses_per_example(self, x, training=False, index=None):
        return super().losses_per_example(x, training, ops.cast(x[:, 0] * 2**20, "int64"))


def regularised(model=VAEOfExamples):
    """A small VAE with a layer's own loss."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    mean = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.3))(inputs)
    encoder = keras.Model(inputs, [mean, keras.layers.Dense(2)(inputs)])
    return model(encoder, dense_decoder((6,), 2, hidden=(8,)), seed=0)


def images(rows=101):
    return np.random.default_rng(0).random((rows, 6)).astype("float32")


def rows(count):
    """Arrays for `fit`."""
    return {
        "x": images(count),
        "y": np.zeros(count, "float32"),
        "sample_weight": np.linspace(0, 2, count, dtype="float32"),
    }


def shuffled(x, batch_size=25, seed=0):
    """A `kvae.data.Stream` of all of x (and of weights), in an order of its own each epoch."""
    steps = -(-len(x) // batch_size)
    weights = np.linspace(0, 2, len(x), dtype="float32")

    def batches(epoch, skip, shard_index, num_shards):
        rows = tf.random.experimental.stateless_shuffle(tf.range(len(x)), [seed, epoch])

        def batch(step):
            taken = rows[step * batch_size : (step + 1) * batch_size]
            size = tf.cast(tf.size(taken), tf.int64)
            taken = taken[size * shard_index // num_shards : size * (shard_index + 1) // num_shards]
            return tf.gather(x, taken), tf.zeros([tf.size(taken)]), tf.gather(weights, taken)

        return tf.data.Dataset.range(skip, steps).map(batch)

    return kvae.data.Stream(batches, steps, seed)


def in_files(folder, batch_size=20):
    """A plain dataset of 61 uint8 images, of known length, from two files of unequal length."""
    x = (images(61) * 255).astype("uint8")
    folder.mkdir()
    paths = [str(folder / name) for name in ("large", "small")]
    for path, rows in zip(paths, np.split(x, [54]), strict=True):
        rows.tofile(path)
    records = tf.data.FixedLengthRecordDataset(paths, x.shape[1])
    decoded = records.map(lambda record: tf.ensure_shape(tf.io.decode_raw(record, "uint8"), x.shape[1:]))
    return decoded.batch(batch_size).apply(tf.data.experimental.assert_cardinality(-(-len(x) // batch_size)))
