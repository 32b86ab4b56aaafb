"""What the models read: x out of a stream's elements, images as floats, and the checks made before any work."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from kvae.data import checks
from kvae.data.checks import BLOCK_BYTES, NOT_FINITE, check_batch_size
from kvae.data.errors import clear_errors
from kvae.data.stream import Stream

BATCH_SIZE = 256


def unpack(element):
    """(x, y, sample_weight) of x, (x,), (x, y), (x, y, sample_weight) or a tfds dict.

    In a dict "image" is x and "label", if it's there, is y. Elements may be tensors, arrays or a stream's
    `element_spec`. Raises ValueError for a dict without "image" and for tuples of other lengths.
    """
    parts = tuple(element) if isinstance(element, tuple | list) else (element,)
    if not 1 <= len(parts) <= 3:
        advice = ": np.stack makes one array of a list of examples" if len(parts) > 3 else ""
        raise ValueError(f"found a tuple of {len(parts)}, expected x, (x, y) or (x, y, sample_weight){advice}")
    x, y, sample_weight = parts + (None,) * (3 - len(parts))
    if isinstance(x, Mapping):
        if "image" not in x:
            raise ValueError(f'found a dict with the keys {sorted(x)}, expected one with the key "image": rename it')
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
    length = checks.check_kind(data)
    if sum(getattr(array, "nbytes", BLOCK_BYTES + 1) for array in tf.nest.flatten(data)) <= BLOCK_BYTES:
        return tf.data.Dataset.from_tensor_slices(data).batch(batch_size)

    def slices():
        for start in range(0, length, batch_size):
            part = slice(start, start + batch_size)
            yield tf.nest.map_structure(lambda array, part=part: np.asarray(array[part]), data)

    signature = tf.nest.map_structure(lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), data)
    stream = tf.data.Dataset.from_generator(slices, output_signature=signature)
    return stream.apply(tf.data.experimental.assert_cardinality(-(-length // batch_size)))


def image_shape(data):
    """The shape of one image, (height, width, channels), or of one event of another kind.

    data: a stream of batches, or arrays with the examples along axis 0. Raises ValueError where the stream
    doesn't tell the shape or where its elements look like single images.
    """
    if not isinstance(data, tf.data.Dataset):
        checks.check_kind(data)
        return tuple(unpack(data)[0].shape[1:])
    shape = _spec(data).shape
    if shape.rank is None or None in shape[1:]:
        raise ValueError(f"the stream doesn't tell its images' shape: found {shape}, expected (None, h, w, c)")
    unbatched = shape.rank == 3 and shape[0] is not None and shape[2] in (1, 3, 4)
    if shape.rank < 2 or unbatched:
        raise ValueError(f"the stream's elements have the shape {shape}, not batches: call .batch(n) on it first")
    return tuple(shape[1:])


def check(data, event_shape=None, steps=None, name="the data", dtype=None):
    """The first batch of x (scaled, float32, numpy), after everything that can be wrong was looked for.

    data: a stream of batches, or arrays, which are searched for NaN as a whole. event_shape: the shape of one
    example that the model takes; None takes any. steps: batches that will be read; None reads all. name: what
    errors call the data. dtype: of the model's variables, whose squares must hold x's; None takes any finite x.
    A stream's first batch is read, which for a shuffled one is a pass of its own: the next pass has another order.

    Raises TypeError for data of a kind or dtype that can't be read, ValueError for no data, an endless stream
    without steps, another shape than event_shape, NaN, infinite or too large values, and uint8 of 0 and 1 alone.
    """
    limit = None if dtype is None else checks.largest(dtype)
    if isinstance(data, tf.data.Dataset):
        x = _first_of_stream(data, event_shape, steps, name)
        checks.check_values(x, limit, name)
    else:
        length = checks.check_kind(data)
        array = unpack(data)[0]
        checks.check_dtype(array.dtype, name)
        checks.check_shape(array.shape, event_shape, name)
        if not length:
            raise ValueError(f"{name} is empty: found an array of shape {tuple(array.shape)}")
        checks.check_array(array, limit, name)
        x = array[:BATCH_SIZE]
    x = np.asarray(x)
    if x.dtype == np.uint8 and x.max(initial=0) == 1:
        raise ValueError(
            f"{name} is uint8 and holds 0 and 1 alone, but uint8 means 0 to 255 and is scaled by 1/255: give it as "
            "bool or float"
        )
    return keras.ops.convert_to_numpy(scale(x))


def is_stream(data):
    """Whether the data are a `tf.data.Dataset`."""
    return isinstance(data, tf.data.Dataset)


def are_pixels(data):
    """Whether x is uint8 or bool, in which there is no value outside of [0, 1] once they are scaled."""
    dtype = _spec(data).dtype if isinstance(data, tf.data.Dataset) else unpack(data)[0].dtype
    return tf.as_dtype(dtype) in (tf.uint8, tf.bool)


def finite(dataset, name="the data"):
    """The same stream, which stops at NaN or infinite values in a floating-point x (see `clear_errors`).

    Arrays are returned as they are: `check` has searched them.
    """
    if not isinstance(dataset, tf.data.Dataset) or not _spec(dataset).dtype.is_floating:
        return dataset

    def checked(batch, element):
        x = unpack(element)[0]
        spoilt = tf.reduce_any(tf.logical_not(tf.math.is_finite(x)), axis=tf.range(1, tf.rank(x)))
        told = [f"{name} has {NOT_FINITE}", batch, tf.argmax(tf.concat([spoilt, [True]], 0))]
        with tf.control_dependencies([tf.debugging.Assert(tf.logical_not(tf.reduce_any(spoilt)), told)]):
            return tf.nest.map_structure(tf.identity, element)

    def through(batches):
        return batches.enumerate().map(checked)

    return dataset.through(through) if isinstance(dataset, Stream) else through(dataset)


def expecting(data, supported, complaint, name="the data", part=0):
    """The same data, where x holds supported values alone: arrays are searched now, a stream stops at others.

    supported: function of x, scaled, to a bool tensor of its shape, or one that broadcasts to it; NaN and infinite
    values pass, which `finite` and the step of training look for. complaint: what the error says of another value.
    part: 0 for x, 1 for y. Raises ValueError; where a stream is read, within `clear_errors`.
    """

    def unsupported(values):
        x = tf.cast(values, "float32") if part else scale(values)
        return x, tf.logical_not(tf.broadcast_to(supported(x), tf.shape(x)) | ~tf.math.is_finite(x))

    def words(x, wrong, place):
        value = tf.strings.as_string(tf.boolean_mask(x, wrong)[0], shortest=True)
        return tf.strings.join([f"{name} holds the value ", value, " in ", place, f", {complaint}"])

    if not isinstance(data, tf.data.Dataset):
        for start, block in checks.blocks(unpack(data)[part]):
            x, wrong = unsupported(block)
            if tf.reduce_any(wrong):
                example = start + int(tf.where(wrong)[0][0])
                raise ValueError(words(x, wrong, f"example {example}").numpy().decode())
        return data

    def checked(batch, element):
        x, wrong = unsupported(unpack(element)[part])

        def stop():
            place = tf.strings.join(["batch ", tf.strings.as_string(batch), " (counted from 0)"])
            return tf.debugging.Assert(False, [tf.strings.join(["ValueError: ", words(x, wrong, place)])])

        with tf.control_dependencies([tf.cond(tf.reduce_any(wrong), stop, tf.no_op)]):
            return tf.nest.map_structure(tf.identity, element)

    def through(batches):
        return batches.enumerate().map(checked)

    return data.through(through) if isinstance(data, Stream) else through(data)


def _spec(dataset):
    spec = unpack(dataset.element_spec)[0]
    if not isinstance(spec, tf.TensorSpec):
        advice = "map makes one of it, with .to_tensor() or tf.sparse.to_dense"
        raise TypeError(f"x is {spec} in the stream, expected one dense tensor: {advice}")
    return spec


@clear_errors()
def _first_of_stream(dataset, event_shape, steps, name):
    spec = _spec(dataset)
    checks.check_dtype(spec.dtype, name)
    checks.check_shape(spec.shape, event_shape, name)
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY and steps is None:
        raise ValueError(f"{name} is an endless stream: say how many batches to read (steps), or use .take(n)")
    for element in batches(dataset).take(1):
        x = unpack(element)[0].numpy()
        checks.check_shape(x.shape, event_shape, name)
        if not len(x):
            raise ValueError(f"{name} is empty in its first batch: leave such batches out, as .filter(function) does")
        return x
    raise ValueError(f"{name} is empty: its stream ended before the first batch")
