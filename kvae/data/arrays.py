"""Arrays in memory, and plain datasets, as Streams."""

import random
import warnings

import numpy as np
import tensorflow as tf

from kvae import _compat, replicas
from kvae.data import elements, validation
from kvae.data.stream import Stream, next_epoch

BATCH_SIZE = 32  # Keras', of arrays
_AT_ONCE = 2**20  # bytes: each call of Python costs what the copying of some batches does


def from_arrays(arrays, batch_size, shuffle=True, seed=0):
    """A Stream of batches of the arrays' rows, tuples where there are several arrays.

    arrays: a tuple of numpy arrays, tensors or memory maps, or of structures of such, with the examples along axis 0;
    they aren't copied, and what is read at once is a batch, or as many as make a megabyte. shuffle: whether an epoch's
    order is drawn, of (seed, epoch); it is held, 8 bytes a row, and takes some times that while it is drawn. Raises
    ValueError for a batch size below 1 and for arrays of unequal lengths.
    """
    validation.validate_batch_size(batch_size)
    length = validation.validate_arrays(arrays)
    flat = [array.numpy() if tf.is_tensor(array) else array for array in tf.nest.flatten(arrays)]
    steps = -(-length // batch_size)
    together = max(1, _AT_ONCE // max(1, batch_size * sum(array[:1].nbytes for array in flat)))

    def read(rows):
        parts = tf.numpy_function(lambda rows: [array[rows] for array in flat], [rows], [array.dtype for array in flat])
        parts = [tf.ensure_shape(part, (None, *array.shape[1:])) for part, array in zip(parts, flat, strict=True)]
        packed = tf.nest.pack_sequence_as(arrays, parts)
        return packed if len(packed) > 1 else packed[0]

    def batches(epoch, skip, shard_index, num_shards):
        group = together if num_shards == 1 else 1
        first, last = (batch_size * number // num_shards for number in (shard_index, shard_index + 1))
        rows = shuffle and tf.random.experimental.stateless_shuffle(tf.range(length, dtype=tf.int64), [seed, epoch])

        def group_of_batches(number):
            start = (skip + number * group) * batch_size
            start, stop = start + first, start + (group - 1) * batch_size + last
            return read(rows[start:stop] if shuffle else tf.range(*tf.unstack(tf.minimum([start, stop], length))))

        groups = tf.data.Dataset.range(-(-(steps - skip) // group)).map(group_of_batches)
        return (groups.rebatch(batch_size) if group > 1 else groups).prefetch(2)

    return Stream(tf.autograph.experimental.do_not_convert(batches), steps, seed)


def is_streamable(arrays, strategy, kwargs=None):
    """Whether arrays are read as a Stream, and not by Keras, whose pipeline may sleep at the end of an epoch.

    They are where all of a structure are numpy's or tensors. kwargs: of `fit`, two of which are for Keras. Raises
    ValueError for what Keras would read over several workers, each of them in its own order.
    """
    flat = tf.nest.flatten(arrays)
    if any(isinstance(array, tf.data.Dataset) for array in flat):
        return False
    for_keras = [name for name in ("validation_split", "class_weight") if (kwargs or {}).get(name)]
    for_keras += [type(array).__name__ for array in flat if not (isinstance(array, np.ndarray) or tf.is_tensor(array))]
    if for_keras and replicas.workers(strategy) > 1:
        raise ValueError(
            f"several workers can't share {for_keras[0]}: give them numpy arrays or a stream, the parts as x and "
            "validation_data, and weights of classes as sample_weight"
        )
    return not for_keras


def for_one_pass(parts, strategy, kwargs):
    """(x, y, sample_weight), which may be None, as Keras should read them once, in their order.

    kwargs: of `evaluate` or `predict`, whose batch_size arrays take with them where they become a Stream.
    """
    given = tuple(part for part in parts if part is not None)
    if not is_streamable(given, strategy):
        return parts
    return from_arrays(given, kwargs.pop("batch_size", None) or BATCH_SIZE, shuffle=False), None, None


def validate_class_weight(data, class_weight, checkpoint):
    """Raise ValueError for class_weight with a Stream or a Checkpoint, whose epochs Keras would lose."""
    if class_weight and (checkpoint is not None or isinstance(data, Stream)):
        raise ValueError(
            "class_weight can't go with a Stream or a Checkpoint: give sample_weight, or map a stream's (x, y) to "
            "(x, y, weights)"
        )


def for_training(arrays, kwargs, repeats):
    """A tuple of x and what there is of (y, sample_weight) as a Stream; what `fit` was told of it leaves its kwargs.

    repeats: whether its order is the same in each process, else Python's random numbers draw one.
    """
    if kwargs.pop("validation_split", 0):
        raise ValueError("validation_split can't go with a Checkpoint: give the two parts as x and validation_data")
    batch_size = kwargs.pop("batch_size", None) or BATCH_SIZE
    kwargs.setdefault("validation_batch_size", batch_size)
    return from_arrays(arrays, batch_size, kwargs.pop("shuffle", True), 0 if repeats else random.randrange(2**31))


def num_batches(data):
    """The batches of a dataset; None of arrays, of an endless dataset, and of one that doesn't know it."""
    if isinstance(data, tf.data.Dataset) and int(data.cardinality()) >= 0:
        return int(data.cardinality())
    return None


def resumable(data, steps, taken):
    """A dataset as epochs of so many steps read it behind the batches that were `taken`: Streams, and plain ones so.

    A plain dataset of `steps` batches becomes a Stream that is passed over in each epoch; the batches of any other
    follow on each other without end. Raises ValueError for one of unknown length, and warns of one that shuffles.
    """
    if isinstance(data, Stream):
        return data
    count = int(data.cardinality())
    if count == tf.data.UNKNOWN_CARDINALITY:
        raise ValueError(
            "x is a stream of unknown length, in which a run can't find its place: add "
            ".apply(tf.data.experimental.assert_cardinality(batches)) to it"
        )
    if any(isinstance(source, Stream) for source in _compat.sources(data)):
        warnings.warn(
            "x was made from a Stream by tf.data, which draws the Stream's epochs: a run that is stopped will go on, "
            "but not bit by bit if the Stream is shuffled. Give stream.apply(lambda batches: ...) for that.",
            stacklevel=3,
        )
    elif any(map(_compat.shuffles, _compat.sources(data))):
        warnings.warn(
            "x is shuffled by tf.data, whose order a process that goes on doesn't repeat: a run that is stopped will "
            "go on, but not bit by bit. Shuffle with kvae.data (load, from_npy, ...) for that, or give arrays.",
            stacklevel=3,
        )
    if count == steps:
        return _passes(data, steps)
    endless = data if count == tf.data.INFINITE_CARDINALITY else data.repeat()
    return endless.skip(taken)


def _passes(dataset, length):
    """A Stream each of whose epochs is another pass over a plain dataset of so many batches, in the order it has."""

    def batches(epoch, skip, shard_index, num_shards):
        def shard(*batch):
            batch = tf.nest.map_structure(lambda array: array[shard_index::num_shards], batch)
            return batch if len(batch) > 1 else batch[0]

        return dataset.skip(skip) if num_shards == 1 else dataset.skip(skip).map(shard)

    return Stream(tf.autograph.experimental.do_not_convert(batches), length)


def batches(data, batch_size=elements.BATCH_SIZE):
    """A `tf.data.Dataset` of batches.

    data: a dataset, returned as it is (of a Stream, the next epoch), or an array, a tuple or a dict of arrays with
    the examples along axis 0 (numpy, a memory map, or anything else that has a shape and can be sliced), read slice
    by slice and, unless they are small, never copied as a whole. The last batch may be smaller. Raises TypeError for
    anything else, ValueError for arrays of unequal lengths.
    """
    if isinstance(data, tf.data.Dataset):
        return next_epoch(data)
    validation.validate_batch_size(batch_size)
    data = tuple(data) if isinstance(data, list) else data
    length = validation.validate_arrays(data)
    if (
        sum(getattr(array, "nbytes", validation.BLOCK_BYTES + 1) for array in tf.nest.flatten(data))
        <= validation.BLOCK_BYTES
    ):
        return tf.data.Dataset.from_tensor_slices(data).batch(batch_size)

    def slices():
        for start in range(0, length, batch_size):
            part = slice(start, start + batch_size)
            yield tf.nest.map_structure(lambda array, part=part: np.asarray(array[part]), data)

    signature = tf.nest.map_structure(lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), data)
    stream = tf.data.Dataset.from_generator(slices, output_signature=signature)
    return stream.apply(tf.data.experimental.assert_cardinality(-(-length // batch_size)))
