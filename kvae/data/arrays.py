"""Arrays, and plain datasets, as batches: `batches` for one pass, `from_arrays` for a Stream with epochs."""

import math
import random
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from kvae import _compat, arguments, replicas
from kvae.data import elements
from kvae.data.stream import Stream, next_epoch, rows_of_shard

BATCH_SIZE = 32  # of arrays in `fit`, `evaluate` and `predict`, as in Keras
_SMALL = elements.BLOCK_BYTES  # bytes that may be copied
_AT_ONCE = 2**20  # bytes: a call of Python costs as much as copying some batches


def batches(data: Any, batch_size: int = elements.BATCH_SIZE) -> tf.data.Dataset:
    """The data as batches for one pass in order.

    Args:
        data: a dataset, which is returned as it is; a `Stream`, of which it is the next epoch; or an array, a tuple or
            a dict of arrays with the examples along axis 0. An array is numpy's, a memory map, or another object with
            a shape and slices. Large arrays are read slice by slice and never copied as a whole.
        batch_size: int, examples in a batch of arrays. The last batch may be smaller. Default 256.

    Raises:
        TypeError: for other objects.
        ValueError: for arrays of unequal lengths.

    Example:

    >>> import numpy as np
    >>> from kvae.data import arrays
    >>> [len(x) for x in arrays.batches(np.zeros((5, 2)), batch_size=2)]
    [2, 2, 1]
    """
    if isinstance(data, tf.data.Dataset):
        return next_epoch(data)
    elements.validate_batch_size(batch_size)
    data = tuple(data) if isinstance(data, list) else data
    length, flat = elements.validate_arrays(data), tf.nest.flatten(data)
    if all(isinstance(array, np.ndarray) for array in flat) and sum(array.nbytes for array in flat) <= _SMALL:
        return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(elements.native, data)).batch(batch_size)
    read = _reader((data,))

    def batch(number):
        return read(tf.range(number * batch_size, tf.minimum((number + 1) * batch_size, length)))

    return tf.data.Dataset.range(-(-length // batch_size)).map(tf.autograph.experimental.do_not_convert(batch))


def batches_from(data: tf.data.Dataset, first: int) -> tf.data.Dataset:
    """The batches of one pass from number `first` on. A `Stream` doesn't read those before it."""
    return data._epoch(data.next_epoch, first) if isinstance(data, Stream) else data.skip(first)


def from_arrays(arrays: tuple, batch_size: int, shuffle: bool = True, seed: int = 0) -> Stream:
    """A Stream of batches of the arrays' rows, tuples if there are several arrays.

    Args:
        arrays: a tuple of numpy arrays, tensors, memory maps, or datasets of h5py, zarr or dask, or of structures of
            these, with the examples along axis 0. They aren't copied, and are let go with the Stream. One read takes
            a batch, or as many batches as make a megabyte.
        batch_size: int.
        shuffle: whether the rows are shuffled in each epoch. The order takes 8 bytes a row.
        seed: int, decides on the order with the epoch.

    Raises:
        ValueError: for a batch size below 1 and for arrays of unequal lengths.

    Example:

    >>> import numpy as np
    >>> from kvae.data.arrays import from_arrays
    >>> stream = from_arrays((np.arange(5), np.arange(5) ** 2), batch_size=2, shuffle=False)
    >>> [y.tolist() for _, y in stream.epoch(0).as_numpy_iterator()]
    [[0, 1], [4, 9], [16]]
    """
    elements.validate_batch_size(batch_size)
    length, read = elements.validate_arrays(arrays), _reader(arrays)
    num_batches = -(-length // batch_size)
    row_bytes = [math.prod(each.shape[1:]) * tf.as_dtype(each.dtype).size for each in tf.nest.flatten(arrays)]
    together = max(1, _AT_ONCE // max(1, batch_size * sum(row_bytes)))
    if shuffle:
        _warn_of_chunks(tf.nest.flatten(arrays), batch_size)

    def batches(epoch, skip, shard_index, num_shards):
        group = together if num_shards == 1 else 1
        first, last = (batch_size * number // num_shards for number in (shard_index, shard_index + 1))
        rows = _compat.stateless_shuffle(tf.range(length, dtype=tf.int64), [seed, epoch]) if shuffle else None

        def group_of_batches(number):
            start = (skip + number * group) * batch_size
            start, stop = start + first, start + (group - 1) * batch_size + last
            if rows is None:
                return read(tf.range(*tf.unstack(tf.minimum([start, stop], length))))
            return read(rows[start:stop])

        groups = tf.data.Dataset.range(-(-(num_batches - skip) // group)).map(group_of_batches)
        return (groups.rebatch(batch_size) if group > 1 else groups).prefetch(2)

    stream = Stream(tf.autograph.experimental.do_not_convert(batches), num_batches, seed)
    if shuffle:
        stream._unshuffled = lambda: from_arrays(arrays, batch_size, shuffle=False)
    return stream


def in_order(data: Any, batch_size: int) -> Stream:
    """A Stream of an array, or of a tuple of arrays, in their own order."""
    data = tuple(data) if isinstance(data, list) else data
    return from_arrays(data if isinstance(data, tuple) else (data,), batch_size, shuffle=False)


def _reader(arrays):
    """A function from row numbers (n,), a tensor, to these rows of the arrays, a tuple if there are several."""
    flat = [array.numpy() if tf.is_tensor(array) else array for array in tf.nest.flatten(arrays)]

    def chosen(rows):
        return [elements.native(_chosen_rows(array, rows)) for array in flat]

    def read(rows):
        columns = _compat.numpy_function(chosen, [rows], [elements.native_dtype(array.dtype) for array in flat])
        columns = [tf.ensure_shape(c, (None, *array.shape[1:])) for c, array in zip(columns, flat, strict=True)]
        element = tf.nest.pack_sequence_as(arrays, columns)
        return element if len(element) > 1 else element[0]

    return read


def _chosen_rows(array, rows):
    """The rows of an array, in their order: a copy, since TensorFlow may compute in the memory that it is given."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return np.array(array[int(rows[0]) : int(rows[-1]) + 1])
    if isinstance(array, np.ndarray):
        return array[rows]
    order = np.argsort(rows)  # as h5py wants them
    select = getattr(array, "oindex", array)  # zarr's name
    return np.asarray(select[rows[order]])[np.argsort(order)]


def _warn_of_chunks(flat, batch_size):
    for array in flat:
        rows = (getattr(array, "chunks", None) or (1,))[0]
        if isinstance(rows, int) and rows > 1 and not isinstance(array, np.ndarray):
            arguments.warn(
                f"Each shuffled batch reads up to {batch_size} chunks of {rows} rows of {array!r}: "
                "kvae.data.from_hdf5(path, name) reads a chunk once an epoch."
            )


# What `fit`, `evaluate` and `predict` were given ----------------------------------------------------------------------


def is_streamable(arrays: Any, strategy: tf.distribute.Strategy, kwargs: dict | None = None) -> bool:
    """Whether arrays are read as a Stream. Otherwise Keras reads them; its pipeline may sleep at an epoch's end.

    Args:
        arrays: a structure of arrays.
        strategy: the strategy of the model.
        kwargs: the arguments of `fit`. Keras alone handles validation_split and class_weight.

    Raises:
        ValueError: if Keras would read the arrays on several workers, each in its own order.
    """
    flat = tf.nest.flatten(arrays)
    if any(isinstance(array, tf.data.Dataset) for array in flat):
        return False
    for_keras = [name for name in ("validation_split", "class_weight") if (kwargs or {}).get(name)]
    on_disk = [array for array in flat if isinstance(array, np.memmap) or not isinstance(array, np.ndarray | tf.Tensor)]
    if for_keras and on_disk:
        raise ValueError(
            f"{for_keras[0]} would read all of a {type(on_disk[0]).__name__} into memory: give validation_data, and "
            "weights of classes as sample_weight"
        )
    if for_keras and replicas.workers(strategy) > 1:
        raise ValueError(
            f"several workers can't share {for_keras[0]}: give them numpy arrays or a stream, the parts as x and "
            "validation_data, and weights of classes as sample_weight"
        )
    return not for_keras


def for_one_pass(parts: tuple, strategy: tf.distribute.Strategy, kwargs: dict) -> tuple:
    """(x, y, sample_weight) as `evaluate` and `predict` hand them to Keras: arrays as a Stream in their own order.

    Args:
        parts: (x, y, sample_weight), with None for missing parts.
        strategy: the strategy of the model.
        kwargs: the other arguments. A Stream takes batch_size out of them.
    """
    given = tuple(part for part in parts if part is not None)
    if not is_streamable(given, strategy):
        return parts
    return from_arrays(given, kwargs.pop("batch_size", None) or BATCH_SIZE, shuffle=False), None, None


def for_training(arrays: tuple, kwargs: dict, repeats: bool) -> Stream:
    """The arrays of `fit`, (x,), (x, y) or (x, y, sample_weight), as a Stream.

    Args:
        arrays: a tuple of arrays.
        kwargs: the other arguments of `fit`. batch_size and shuffle leave them.
        repeats: whether every process draws the same order. Otherwise Python's random numbers decide.

    Raises:
        ValueError: for validation_split.
    """
    if kwargs.pop("validation_split", 0):
        raise ValueError("validation_split can't go with a Checkpoint: give the two parts as x and validation_data")
    batch_size = kwargs.pop("batch_size", None) or BATCH_SIZE
    kwargs.setdefault("validation_batch_size", batch_size)
    return from_arrays(arrays, batch_size, kwargs.pop("shuffle", True), 0 if repeats else random.randrange(2**31))


def validate_class_weight(data: Any, class_weight: dict | None, checkpoint: Any) -> None:
    """Raise ValueError for class_weight with a Stream or a Checkpoint, since Keras would lose their epochs."""
    if class_weight is not None and not isinstance(class_weight, dict):
        raise TypeError(f"class_weight is {class_weight!r}; expected a dict from class numbers to weights.")
    if class_weight and (checkpoint is not None or isinstance(data, Stream)):
        raise ValueError(
            "class_weight can't go with a Stream or a Checkpoint: give sample_weight, or map a stream's (x, y) to "
            "(x, y, weights)"
        )


def without_end(data: Any, steps_per_epoch: int) -> Any:
    """The data for epochs of the next `steps_per_epoch` batches: a plain dataset begins anew at its end."""
    if not isinstance(data, tf.data.Dataset) or isinstance(data, Stream):
        return data
    cardinality = int(data.cardinality())
    ends = cardinality != tf.data.INFINITE_CARDINALITY and (cardinality < 0 or cardinality % steps_per_epoch)
    return data.repeat() if ends else data


def resumable(dataset: tf.data.Dataset, steps: int, taken: int) -> tf.data.Dataset:
    """The dataset as a run reads it that goes on behind `taken` batches, with `steps` batches in an epoch.

    A Stream is returned as it is. A plain dataset of `steps` batches becomes a Stream with the same pass as every
    epoch. Of any other one the batches follow each other without end.

    Raises:
        ValueError: for a dataset of unknown length.

    Warns:
        UserWarning: for a dataset that tf.data shuffles.
    """
    if isinstance(dataset, Stream):
        return dataset
    count = int(dataset.cardinality())
    if count == tf.data.UNKNOWN_CARDINALITY:
        raise ValueError(
            "x is a stream of unknown length, in which a run can't find its place: add "
            ".apply(tf.data.experimental.assert_cardinality(batches)) to it"
        )
    sources = _compat.sources(dataset)
    if any(isinstance(source, Stream) for source in sources):
        warnings.warn(
            "x was made from a Stream by tf.data, which draws the Stream's epochs: a run that is stopped will go on, "
            "but not bit by bit if the Stream is shuffled. Give stream.apply(lambda batches: ...) for that.",
            stacklevel=6,
        )
    elif any(map(_compat.shuffles, sources)):
        warnings.warn(
            "x is shuffled by tf.data, whose order a process that goes on doesn't repeat: a run that is stopped will "
            "go on, but not bit by bit. Shuffle with kvae.data (load, from_npy, ...) for that, or give arrays.",
            stacklevel=6,
        )
    if count == steps:
        return _passes(dataset, steps)
    endless = dataset if count == tf.data.INFINITE_CARDINALITY else dataset.repeat()
    return endless.skip(taken)


def _passes(dataset, length):
    """A Stream with one pass over a plain dataset of `length` batches as every epoch."""

    def batches(epoch, skip, shard_index, num_shards):
        def shard(*batch):
            batch = rows_of_shard(batch, shard_index, num_shards)
            return batch if len(batch) > 1 else batch[0]

        return dataset.skip(skip) if num_shards == 1 else dataset.skip(skip).map(shard)

    return Stream(tf.autograph.experimental.do_not_convert(batches), length)
