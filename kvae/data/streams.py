"""What the models read: x out of a stream's elements, images as floats, and the checks made before any work."""

import contextlib
import re
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from kvae.data.stream import Stream

BATCH_SIZE = 256
BLOCK_BYTES = 2**24
NOT_FINITE = "NaN or infinite values"
NOT_FINITE_ADVICE = "remove those examples (or replace the values, as np.nan_to_num does) before training"


def unpack(element):
    """(x, y, sample_weight) of x, (x,), (x, y), (x, y, sample_weight) or a tfds dict.

    In a dict "image" is x and "label", if it's there, is y. Elements may be tensors, arrays or a stream's
    `element_spec`. Raises ValueError for a dict without "image" and for tuples of other lengths.
    """
    parts = tuple(element) if isinstance(element, tuple | list) else (element,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"found a tuple of {len(parts)}, expected x, (x, y) or (x, y, sample_weight)")
    x, y, sample_weight = parts + (None,) * (3 - len(parts))
    if isinstance(x, Mapping):
        if "image" not in x:
            raise ValueError(f'found a dict with the keys {sorted(x)}, expected one with the key "image"')
        y = x.get("label") if y is None else y
        x = x["image"]
    return x, y, sample_weight


def fit_arguments(x, y, sample_weight):
    """(x, y, sample_weight) for Keras' `fit`, where x may be a tuple of arrays that holds all three."""
    if isinstance(x, tuple | list) and y is None and sample_weight is None:
        x, y, sample_weight = unpack(x)
    # Keras drops the weights of examples without a y, so they get one, which no model here reads.
    return x, sample_weight if y is None else y, sample_weight


def scale(x, dtype="float32"):
    """x as a float tensor: uint8 is 0..255 and becomes x (1/255), bool becomes 0 or 1, all else is only cast."""
    x = keras.ops.convert_to_tensor(x)
    pixels = keras.backend.standardize_dtype(x.dtype) == "uint8"
    x = keras.ops.cast(x, dtype)
    return x * (1 / 255) if pixels else x  # graphs turn x / 255 into this, which differs in the last bit


def batches(data, batch_size=BATCH_SIZE):
    """A `tf.data.Dataset` of batches.

    data: a dataset, returned as it is (of a Stream, the next epoch), or an array, a tuple or a dict of arrays with
    the examples along axis 0 (numpy, a memory map, or anything else that has a shape and can be sliced), read slice
    by slice and, unless they are small, never copied as a whole. The last batch may be smaller. Raises TypeError for
    anything else, ValueError for arrays of unequal lengths.
    """
    if isinstance(data, Stream):
        return data.epoch(data.next_epoch)
    if isinstance(data, tf.data.Dataset):
        return data
    check_batch_size(batch_size)
    data = tuple(data) if isinstance(data, list) else data
    length = _length(data)
    if sum(getattr(array, "nbytes", BLOCK_BYTES + 1) for array in tf.nest.flatten(data)) <= BLOCK_BYTES:
        return tf.data.Dataset.from_tensor_slices(data).batch(batch_size)

    def slices():
        for start in range(0, length, batch_size):
            part = slice(start, start + batch_size)
            yield tf.nest.map_structure(lambda array, part=part: np.asarray(array[part]), data)

    signature = tf.nest.map_structure(lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), data)
    stream = tf.data.Dataset.from_generator(slices, output_signature=signature)
    return stream.apply(tf.data.experimental.assert_cardinality(-(-length // batch_size)))


def check_batch_size(batch_size):
    """Raise ValueError unless it is an integer of at least 1."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}, expected an integer of at least 1")


def check_shuffle(shuffle):
    """Raise TypeError or ValueError unless it is a number of examples, or 0."""
    if isinstance(shuffle, bool) or not isinstance(shuffle, int | np.integer):
        raise TypeError(f"shuffle is {shuffle!r}, expected the number of images in the shuffling pool, or 0")
    if shuffle < 0:
        raise ValueError(f"shuffle is {shuffle}, expected the number of images in the shuffling pool, or 0")


def image_shape(data):
    """The shape of one image, (height, width, channels), or of one event of another kind.

    data: a stream of batches, or arrays with the examples along axis 0. Raises ValueError where the stream
    doesn't tell the shape or where its elements look like single images.
    """
    if not isinstance(data, tf.data.Dataset):
        _length(data)
        return tuple(unpack(data)[0].shape[1:])
    shape = _spec(data).shape
    if shape.rank is None or None in shape[1:]:
        raise ValueError(f"the stream doesn't tell its images' shape: found {shape}, expected (None, h, w, c)")
    unbatched = shape.rank == 3 and shape[0] is not None and shape[2] in (1, 3, 4)
    if shape.rank < 2 or unbatched:
        raise ValueError(f"the stream's elements have the shape {shape}, not batches: call .batch(n) on it first")
    return tuple(shape[1:])


def check(data, event_shape=None, steps=None, name="the data"):
    """The first batch of x (scaled, float32, numpy), after everything that can be wrong was looked for.

    data: a stream of batches, or arrays, which are searched for NaN as a whole. event_shape: the shape of one
    example that the model takes; None takes any. steps: batches that will be read; None reads all. name: what
    errors call the data. A stream's first batch is read, which for a shuffled one is a pass of its own:
    the next pass has another order.

    Raises TypeError for data of a kind or dtype that can't be read, ValueError for no data, an endless stream
    without steps, another shape than event_shape, NaN or infinite values, and uint8 of 0 and 1 alone.
    """
    if isinstance(data, tf.data.Dataset):
        x = _first_of_stream(data, event_shape, steps, name)
    else:
        length = _length(data)
        array = unpack(data)[0]
        _check_dtype(array.dtype, name)
        _check_shape(array.shape, event_shape, name)
        if not length:
            raise ValueError(f"{name} is empty: found an array of shape {tuple(array.shape)}")
        _check_array(array, name)
        x = array[:BATCH_SIZE]
    x = np.asarray(x)
    if x.dtype == np.uint8 and x.max(initial=0) == 1:
        raise ValueError(
            f"{name} is uint8 and holds 0 and 1 alone, but uint8 means 0 to 255 and is scaled by 1/255: give it as "
            "bool or float"
        )
    return keras.ops.convert_to_numpy(scale(x))


def finite(dataset, name="the data"):
    """The same stream, which stops at NaN or infinite values in a floating-point x (see `clear_errors`).

    Arrays are returned as they are: `check` has searched them.
    """
    if not isinstance(dataset, tf.data.Dataset) or not _spec(dataset).dtype.is_floating:
        return dataset

    def checked(batch, element):
        x = unpack(element)[0]
        is_finite = tf.reduce_all(tf.math.is_finite(x))
        with tf.control_dependencies([tf.debugging.Assert(is_finite, [f"{name} has {NOT_FINITE}", batch])]):
            return tf.nest.map_structure(tf.identity, element)

    def through(batches):
        return batches.enumerate().map(checked)

    return dataset.through(through) if isinstance(dataset, Stream) else through(dataset)


@contextlib.contextmanager
def clear_errors():
    """Within it, what a `finite` stream found is one ValueError, not TensorFlow's page of graph nodes.

    An assertion whose text begins with OSError or ValueError is that error.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(rf"([\w ]+ has {NOT_FINITE})\W*\[(\d+)\]", str(error))
        told = re.search(r"assertion failed: \[(OSError|ValueError): (.+)\]", str(error))
        if told:
            words = told[2].encode().decode("unicode_escape").encode("latin-1").decode()  # as TensorFlow escapes them
            raise {"OSError": OSError, "ValueError": ValueError}[told[1]](words) from None
        if not found:
            raise
        message = f"{found[1]} in batch {found[2]} (counted from 0): {NOT_FINITE_ADVICE}"
        raise ValueError(message) from None


def _spec(dataset):
    spec = unpack(dataset.element_spec)[0]
    if not isinstance(spec, tf.TensorSpec):
        raise TypeError(f"x is {spec} in the stream, expected one dense tensor")
    return spec


def _length(data):
    arrays = tf.nest.flatten(data)
    for array in arrays:
        if not hasattr(array, "shape") or not hasattr(array, "__getitem__"):
            raise TypeError(
                f"found {type(array).__name__}, expected a tf.data.Dataset or numpy arrays: np.asarray makes an array "
                "of a list, tf.data.Dataset.from_generator a stream of a generator"
            )
    shapes = [tuple(array.shape) for array in arrays]
    if () in shapes or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(f"found arrays of shapes {shapes}, expected as many examples in each along axis 0")
    return shapes[0][0]


def _check_dtype(dtype, name):
    kind = dtype if isinstance(dtype, tf.DType) else tf.as_dtype(dtype)
    if not (kind.is_floating or kind.is_integer or kind.is_bool):
        found = dtype.name if hasattr(dtype, "name") else dtype
        raise TypeError(f"{name} has the dtype {found}, expected uint8 (0..255), bool or a float type")


def _check_shape(shape, event_shape, name):
    shape = tf.TensorShape(shape)
    if event_shape is None or shape.rank is None:
        return
    event_shape = tuple(event_shape)
    if shape.rank == len(event_shape) and shape.is_compatible_with(event_shape):
        advice = "these are single examples, not batches: call .batch(n) on a stream, or give x[None]"
    elif shape[1:].as_list() == list(event_shape[:-1]) and event_shape[-1:] == (1,):
        advice = "add the axis of the channel with x[..., None]"
    else:
        advice = "give data of that shape, or build the networks for this one"
    if shape.rank < 1 or not shape[1:].is_compatible_with(event_shape):
        expected = str(("n", *event_shape)).replace("'", "")
        raise ValueError(f"{name} has the shape {shape}, but the model takes {expected}: {advice}")


def _check_array(array, name):
    if not tf.as_dtype(array.dtype).is_floating:
        return
    rows = max(1, BLOCK_BYTES // max(1, np.asarray(array[:1]).nbytes))
    for start in range(0, array.shape[0], rows):
        block = np.isfinite(np.asarray(array[start : start + rows]))
        if not block.all():
            first = start + int(np.argmin(block.reshape(len(block), -1).all(axis=1)))
            raise ValueError(f"{name} has {NOT_FINITE}, first in example {first}: {NOT_FINITE_ADVICE}")


@clear_errors()
def _first_of_stream(dataset, event_shape, steps, name):
    spec = _spec(dataset)
    _check_dtype(spec.dtype, name)
    _check_shape(spec.shape, event_shape, name)
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY and steps is None:
        raise ValueError(f"{name} is an endless stream: say how many batches to read (steps), or use .take(n)")
    for element in batches(dataset).take(1):
        x = unpack(element)[0].numpy()
        _check_shape(x.shape, event_shape, name)
        if np.issubdtype(x.dtype, np.inexact) and not np.isfinite(x).all():
            raise ValueError(f"{name} has {NOT_FINITE} in its first batch: {NOT_FINITE_ADVICE}")
        return x
    raise ValueError(f"{name} is empty: its stream ended before the first batch")
