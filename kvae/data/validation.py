"""What is asked of data before any work: their kind, dtype, shape and values, and the advice where they don't fit."""

import math
import os
import warnings

import keras
import numpy as np
import tensorflow as tf

from kvae.data import elements
from kvae.data.errors import NOT_FINITE, NOT_FINITE_ADVICE, clear_errors
from kvae.data.stream import Stream, next_epoch

BLOCK_BYTES = 2**24


def validate_batch_size(batch_size):
    """Raise ValueError unless it is an integer of at least 1."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}, expected an integer of at least 1")


def validate_shuffle(shuffle):
    """Raise TypeError or ValueError unless it is a number of examples, or 0."""
    if isinstance(shuffle, bool) or not isinstance(shuffle, int | np.integer):
        raise TypeError(f"shuffle is {shuffle!r}, expected the number of images in the shuffling pool, or 0")
    if shuffle < 0:
        raise ValueError(f"shuffle is {shuffle}, expected the number of images in the shuffling pool, or 0")


def largest_magnitude(dtype):
    """The largest magnitude of x that a model of this dtype takes: the cube root of the dtype's largest number.

    Its square, over small variances and summed over many values, is then a number still: 7e12 for float32.
    """
    return float(tf.as_dtype(dtype).max) ** (1 / 3)


def validate_arrays(data):
    """How many examples the arrays hold. TypeError for what is no array that can be read, ValueError for others."""
    arrays = tf.nest.flatten(data)
    for array in arrays:
        if advice := _advice_on_kind(array):
            raise TypeError(f"found {type(array).__name__}, expected a tf.data.Dataset or numpy arrays: {advice}")
    shapes = [tuple(array.shape) for array in arrays]
    if () in shapes or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(f"found arrays of shapes {shapes}, expected as many examples in each along axis 0")
    return shapes[0][0]


def _advice_on_kind(array):
    if isinstance(array, str | bytes | os.PathLike):
        return (
            "kvae.data.load reads packed data and sets by name, kvae.data.from_folder a folder of images, "
            "kvae.data.from_npy .npy files"
        )
    if hasattr(array, "to_numpy"):
        return "its .to_numpy() is one"
    if isinstance(array, tf.RaggedTensor):
        return "its rows differ in length, and .to_tensor() pads them"
    if isinstance(array, tf.SparseTensor):
        return "tf.sparse.to_dense makes one"
    if hasattr(array, "toarray"):
        return "its .toarray() is one (of too many rows, in a tf.data.Dataset.from_generator, batch by batch)"
    if np.ma.is_masked(array):
        return "masked values have no number, and .filled(value) gives them one"
    if callable(array) or hasattr(array, "__next__"):
        return "tf.data.Dataset.from_generator(function, output_signature=...) makes a stream of a generator function"
    if all(hasattr(array, attribute) for attribute in ("shape", "dtype", "__getitem__")):
        return None
    return (
        "np.asarray makes an array of numbers, np.stack of a list of examples, tf.data.Dataset.from_generator a stream "
        "of what yields batches"
    )


def validate_dtype(dtype, name):
    """Raise TypeError for what isn't real numbers."""
    try:
        kind = dtype if isinstance(dtype, tf.DType) else tf.as_dtype(dtype)
        known = kind.is_floating or kind.is_integer or kind.is_bool
    except TypeError:  # of NumPy alone, as dates are
        known = False
    if not known:
        found = getattr(dtype, "name", dtype)
        advice = "np.abs(x) or its parts" if "complex" in str(found) else 'x.astype("float32") of what are numbers'
        raise TypeError(f"{name} has the dtype {found}, expected uint8 (0..255), bool or a float type: give {advice}")


def validate_shape(shape, event_shape, name):
    """Raise ValueError, with advice, for another shape than (n, *event_shape); event_shape: None for any."""
    shape = tf.TensorShape(shape)
    if shape.rank is not None and 0 in shape[1:].as_list():
        raise ValueError(f"{name} has the shape {shape}, whose examples hold no values: expected at least one in each")
    if event_shape is None or shape.rank is None:
        return
    if shape.rank < 1 or not shape[1:].is_compatible_with(event_shape):
        expected = str(("n", *event_shape)).replace("'", "")
        advice = _advice_on_shape(tuple(shape), tuple(event_shape))
        raise ValueError(f"{name} has the shape {shape}, but the model takes {expected}: {advice}")


def _advice_on_shape(shape, event_shape):
    found = shape[1:]
    if shape == event_shape:
        return (
            "these are single examples, not batches: call .batch(n) on a stream, np.stack on a list of them, or give "
            "x[None] of one"
        )
    if (*found, 1) == event_shape:
        return "add the axis of the channel with x[..., None]"
    if None not in found and found[1:] == event_shape:
        return f"an axis is too many: x.reshape({_listed(-1, *event_shape)}) makes an example of each entry along it"
    if len(found) == len(event_shape) == 3:
        build = f"or build the networks for {_listed(*found)}"
        if found[:2] == event_shape[:2] and (found[2], event_shape[2]) in ((3, 1), (1, 3)):
            function = "rgb_to_grayscale" if found[2] == 3 else "grayscale_to_rgb"
            return f"change the channels with tf.image.{function}(x), {build}"
        if found == (event_shape[2], *event_shape[:2]):
            return "the channels come first: move them to the end with np.moveaxis(x, 1, -1)"
        if found[2] == event_shape[2]:
            return f"change the size with tf.image.resize(x, {event_shape[:2]}), {build}"
    if None not in found and math.prod(found) == math.prod(event_shape):
        return f"give its values that shape with x.reshape({_listed(-1, *event_shape)})"
    return "give data of that shape, or build the networks for this one"


def _listed(*sizes):
    return f"({', '.join(map(str, sizes))})"


def validate_array_values(array, limit, name):
    """Raise ValueError for what `validate_values` finds in an array, which is read block by block."""
    if _may_be_wrong(array.dtype):
        for start, block in array_blocks(array):
            validate_values(block, limit, name, start)


def validate_values(values, limit, name, start=None):
    """Raise ValueError for NaN or infinite values, and for magnitudes above the limit, if there is one.

    start: which example of the array the values begin with; None for those of a stream's first batch.
    """
    if not _may_be_wrong(values.dtype):
        return
    finite = np.isfinite(values)
    if not finite.all():
        place = _place(~finite, start)
        raise ValueError(f"{name} has {NOT_FINITE}{place}: {NOT_FINITE_ADVICE}")
    highest = max(float(np.max(values, initial=0)), -float(np.min(values, initial=0)))
    if limit is not None and highest > limit:
        place = _place(np.abs(values) > limit, start)
        raise ValueError(
            f"{name} has the magnitude {highest:.3g}{place}, of which sums of squares are too large for the model's "
            f"numbers, expected at most {limit:.0e}: scale the data, as (x - mean) / standard deviation does"
        )


def warn_if_constant(x, name):
    """Warn where all values of the first batch are one, from which nothing can be learned."""
    if x.size > 1 and x.min() == x.max():
        warnings.warn(
            f"Every value in the first batch of {name} is {float(x.flat[0]):g}, of which there is nothing to learn: "
            "see whether the data were read and scaled as they should be (whole numbers divided by // 255 are 0).",
            stacklevel=3,
        )


def array_blocks(array):
    """(start, rows) of an array, a few megabytes at a time."""
    rows = max(1, BLOCK_BYTES // max(1, np.asarray(array[:1]).nbytes))
    for start in range(0, array.shape[0], rows):
        yield start, np.asarray(array[start : start + rows])


def _may_be_wrong(dtype):
    kind = tf.as_dtype(dtype)
    return kind.is_floating or kind.size == 8


def _place(wrong, start):
    if start is None:
        return " in its first batch"
    return f", first in example {start + int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))}"


def image_shape(data):
    """The shape of one image, (height, width, channels), or of one event of another kind.

    data: a stream of batches, or arrays with the examples along axis 0. Raises ValueError where the stream
    doesn't tell the shape or where its elements look like single images.
    """
    if not isinstance(data, tf.data.Dataset):
        validate_arrays(data)
        return tuple(elements.unpack(data)[0].shape[1:])
    shape = elements.x_spec(data).shape
    if shape.rank is None or None in shape[1:]:
        raise ValueError(f"the stream doesn't tell its images' shape: found {shape}, expected (None, h, w, c)")
    unbatched = shape.rank == 3 and shape[0] is not None and shape[2] in (1, 3, 4)
    if shape.rank < 2 or unbatched:
        raise ValueError(f"the stream's elements have the shape {shape}, not batches: call .batch(n) on it first")
    return tuple(shape[1:])


def validate_first_batch(data, event_shape=None, steps=None, name="the data", dtype=None):
    """The first batch of x (scaled, float32, numpy), after everything that can be wrong was looked for.

    data: a stream of batches, or arrays, which are searched for NaN as a whole. event_shape: the shape of one
    example that the model takes; None takes any. steps: batches that will be read; None reads all. name: what
    errors call the data. dtype: of the model's variables, whose squares must hold x's; None takes any finite x.
    A stream's first batch is read, which for a shuffled one is a pass of its own: the next pass has another order.

    Raises TypeError for data of a kind or dtype that can't be read, ValueError for no data, an endless stream
    without steps, another shape than event_shape, NaN, infinite or too large values, and uint8 of 0 and 1 alone.
    """
    limit = None if dtype is None else largest_magnitude(dtype)
    if isinstance(data, tf.data.Dataset):
        x = _first_of_stream(data, event_shape, steps, name)
        validate_values(x, limit, name)
    else:
        length = validate_arrays(data)
        array = elements.unpack(data)[0]
        validate_dtype(array.dtype, name)
        validate_shape(array.shape, event_shape, name)
        if not length:
            raise ValueError(f"{name} is empty: found an array of shape {tuple(array.shape)}")
        validate_array_values(array, limit, name)
        x = array[: elements.BATCH_SIZE]
    x = np.asarray(x)
    if x.dtype == np.uint8 and x.max(initial=0) == 1:
        raise ValueError(
            f"{name} is uint8 and holds 0 and 1 alone, but uint8 means 0 to 255 and is scaled by 1/255: give it as "
            "bool or float"
        )
    return keras.ops.convert_to_numpy(elements.scale(x))


def stop_at_nonfinite(dataset, name="the data"):
    """The same stream, which stops at NaN or infinite values in a floating-point x (see `clear_errors`).

    Arrays are returned as they are: `validate_first_batch` has searched them.
    """
    if not isinstance(dataset, tf.data.Dataset) or not elements.x_spec(dataset).dtype.is_floating:
        return dataset

    def checked(batch, element):
        x = elements.unpack(element)[0]
        spoilt = tf.reduce_any(tf.logical_not(tf.math.is_finite(x)), axis=tf.range(1, tf.rank(x)))
        told = [f"{name} has {NOT_FINITE}", batch, tf.argmax(tf.concat([spoilt, [True]], 0))]
        with tf.control_dependencies([tf.debugging.Assert(tf.logical_not(tf.reduce_any(spoilt)), told)]):
            return tf.nest.map_structure(tf.identity, element)

    def through(batches):
        return batches.enumerate().map(checked)

    return _apply(dataset, through)


def stop_at_unsupported(data, supported, complaint, name="the data", part=0):
    """The same data, where x holds supported values alone: arrays are searched now, a stream stops at others.

    supported: function of x, scaled, to a bool tensor of its shape, or one that broadcasts to it; NaN and infinite
    values pass, which `stop_at_nonfinite` and the step of training look for. complaint: what the error says of
    another value. part: 0 for x, 1 for y. Raises ValueError; where a stream is read, within `clear_errors`.
    """

    def unsupported(values):
        x = tf.cast(values, "float32") if part else elements.scale(values)
        return x, tf.logical_not(tf.broadcast_to(supported(x), tf.shape(x)) | ~tf.math.is_finite(x))

    def words(x, wrong, place):
        value = tf.strings.as_string(tf.boolean_mask(x, wrong)[0], shortest=True)
        return tf.strings.join([f"{name} holds the value ", value, " in ", place, f", {complaint}"])

    if not isinstance(data, tf.data.Dataset):
        for start, block in array_blocks(elements.unpack(data)[part]):
            x, wrong = unsupported(block)
            if tf.reduce_any(wrong):
                example = start + int(tf.where(wrong)[0][0])
                raise ValueError(words(x, wrong, f"example {example}").numpy().decode())
        return data

    def checked(batch, element):
        x, wrong = unsupported(elements.unpack(element)[part])

        def stop():
            place = tf.strings.join(["batch ", tf.strings.as_string(batch), " (counted from 0)"])
            return tf.debugging.Assert(False, [tf.strings.join(["ValueError: ", words(x, wrong, place)])])

        with tf.control_dependencies([tf.cond(tf.reduce_any(wrong), stop, tf.no_op)]):
            return tf.nest.map_structure(tf.identity, element)

    def through(batches):
        return batches.enumerate().map(checked)

    return _apply(data, through)


def _apply(dataset, function):
    """The dataset, or the Stream, through a function to one of as many batches."""
    return dataset._each_epoch(function) if isinstance(dataset, Stream) else function(dataset)


@clear_errors()
def _first_of_stream(dataset, event_shape, steps, name):
    spec = elements.x_spec(dataset)
    validate_dtype(spec.dtype, name)
    validate_shape(spec.shape, event_shape, name)
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY and steps is None:
        raise ValueError(f"{name} is an endless stream: say how many batches to read (steps), or use .take(n)")
    for element in next_epoch(dataset).take(1):
        x = elements.unpack(element)[0].numpy()
        validate_shape(x.shape, event_shape, name)
        if not len(x):
            raise ValueError(f"{name} is empty in its first batch: leave such batches out, as .filter(function) does")
        return x
    raise ValueError(f"{name} is empty: its stream ended before the first batch")
