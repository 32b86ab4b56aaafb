"""Data that a model can't use are refused: by the first batch before any work, and by every batch of a stream."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kvae.data import elements
from kvae.data.errors import INFINITE, NOT_FINITE, NOT_FINITE_ADVICE
from kvae.data.stream import Stream, next_epoch


class FirstBatch(NamedTuple):
    """The first batch of data after the checks.

    Attributes:
        x: array (n, ...), float32, scaled.
        element: the batch as it was read; of arrays their first rows.
        dtype: str, the dtype of x as it was read.
        y: of a stream the labels of this batch, of arrays all labels; None without labels.
        largest: the largest magnitude in x, without NaN.
    """

    x: np.ndarray
    element: Any
    dtype: str
    y: Any
    largest: float


# The first batch ------------------------------------------------------------------------------------------------------


def validate_first_batch(
    data: Any,
    event_shape: tuple | None = None,
    steps: int | None = None,
    name: str = "the data",
    dtype: str | None = None,
    missing: bool = False,
) -> FirstBatch:
    """Read the first batch and refuse data unfit for a model.

    A stream's first batch is read in a pass of its own. If tf.data shuffles, the next pass has another order.

    Args:
        data: a stream of batches, or arrays. Arrays are searched for NaN as a whole.
        event_shape: the model's shape of one example; None takes any.
        steps: the number of batches to read later; None for all.
        name: the name of the data in errors.
        dtype: the dtype of the model's variables. Squares of x must fit in it. None takes any finite x.
        missing: whether NaN means "not observed" and is allowed.

    Returns:
        A `FirstBatch`.

    Raises:
        TypeError: for data of an unknown kind or dtype.
        ValueError: for no data, an endless stream without steps, another shape than event_shape, NaN, infinite or too
            large values, and uint8 with 0 and 1 alone.

    Example:

    >>> import numpy as np
    >>> from kvae.data import validation
    >>> validation.validate_first_batch(np.zeros((9, 2), "uint8"), event_shape=(2,)).x.dtype
    dtype('float32')
    """
    limit = None if dtype is None else largest_magnitude(dtype)
    if isinstance(data, tf.data.Dataset):
        x, element = _first_element(data, event_shape, steps, name)
        validate_values(x, limit, name, missing=missing)
        _, y, weights = elements.unpack(element)
        if weights is not None:
            elements.refuse_negative_weights(weights, f"sample_weight of {name}")
    else:
        length = elements.validate_arrays(data, name)
        array, y, weights = elements.unpack(data)
        elements.validate_weights(weights, f"sample_weight of {name}")
        validate_dtype(array.dtype, name)
        validate_shape(array.shape, event_shape, name)
        if not length:
            raise ValueError(f"{name} is empty: found an array of shape {tuple(array.shape)}")
        validate_array_values(array, limit, name, missing)
        element = tf.nest.map_structure(lambda array: array[: elements.BATCH_SIZE], data)
        x = np.asarray(elements.unpack(element)[0])
    if x.dtype == np.uint8 and x.max(initial=0) == 1:
        raise ValueError(
            f"{name} is uint8 and holds 0 and 1 alone, but uint8 means 0 to 255 and is scaled by 1/255: give it as "
            "bool or float"
        )
    scaled = keras.ops.convert_to_numpy(elements.scale(x))
    largest = float(np.nanmax(np.abs(scaled), initial=0.0))
    return FirstBatch(scaled, element, tf.as_dtype(x.dtype).name, y, largest)


def _first_element(dataset, event_shape, steps, name):
    spec, _, weights = elements.unpack(dataset.element_spec)
    validate_dtype(_dense(spec).dtype, name)
    elements.validate_weights(weights, f"sample_weight of {name}")
    validate_shape(spec.shape, event_shape, name)
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY and steps is None:
        raise ValueError(f"{name} is an endless stream: say how many batches to read (steps), or use .take(n)")
    for element in next_epoch(dataset).take(1):
        x = np.asarray(elements.unpack(element)[0])
        validate_shape(x.shape, event_shape, name)
        if not len(x):
            raise ValueError(f"{name} is empty in its first batch: leave such batches out, as .filter(function) does")
        return x, element
    raise ValueError(f"{name} is empty: its stream ended before the first batch")


def image_shape(data: Any) -> tuple[int, ...]:
    """The shape of one image, (height, width, channels), or of one event of another kind.

    Args:
        data: a stream of batches, or arrays with the examples along axis 0.

    Raises:
        ValueError: if the stream doesn't know the shape, or if its elements look like single images.

    Example:

    >>> import numpy as np, kvae
    >>> kvae.data.image_shape(np.zeros((10, 28, 28, 1)))
    (28, 28, 1)
    """
    if not isinstance(data, tf.data.Dataset):
        elements.validate_arrays(data)
        return tuple(elements.unpack(data)[0].shape[1:])
    shape = x_spec(data).shape
    if shape.rank is None or None in shape[1:]:
        raise ValueError(f"the stream doesn't tell its images' shape: found {shape}, expected (None, h, w, c)")
    unbatched = shape.rank == 3 and shape[0] is not None and shape[2] in (1, 3, 4)
    if shape.rank < 2 or unbatched:
        raise ValueError(f"the stream's elements have the shape {shape}, not batches: call .batch(n) on it first")
    sizes: Any = shape[1:].as_list()
    return tuple(sizes)


def x_spec(dataset: tf.data.Dataset) -> tf.TensorSpec:
    """The shape and dtype of x in a dataset's batches. Raises TypeError unless x is one dense tensor."""
    return _dense(elements.unpack(dataset.element_spec)[0])


def _dense(spec):
    if not isinstance(spec, tf.TensorSpec):
        advice = "map makes one of it, with .to_tensor() or tf.sparse.to_dense"
        raise TypeError(f"x is {spec} in the stream, expected one dense tensor: {advice}")
    return spec


def are_pixels(data: Any) -> bool:
    """Whether x is uint8 or bool: scaled, it holds no value outside of [0, 1]."""
    dtype = x_spec(data).dtype if isinstance(data, tf.data.Dataset) else elements.unpack(data)[0].dtype
    return tf.as_dtype(dtype) in (tf.uint8, tf.bool)


# Dtypes, shapes, values -----------------------------------------------------------------------------------------------


def validate_dtype(dtype: Any, name: str) -> None:
    """Raise TypeError for dtypes other than real numbers."""
    try:
        kind = dtype if isinstance(dtype, tf.DType) else tf.as_dtype(dtype)
        is_real = kind.is_floating or kind.is_integer or kind.is_bool
    except TypeError:  # a dtype of NumPy alone, such as dates
        is_real = False
    if not is_real:
        dtype_name = getattr(dtype, "name", dtype)
        advice = "np.abs(x) or its parts" if "complex" in str(dtype_name) else 'x.astype("float32") of what are numbers'
        raise TypeError(
            f"{name} has the dtype {dtype_name}, expected uint8 (0..255), bool or a float type: give {advice}"
        )


def validate_shape(shape: Any, event_shape: tuple | None, name: str) -> None:
    """Raise ValueError, with advice, unless the shape is (n, *event_shape). event_shape is None for any."""
    shape = tf.TensorShape(shape)
    if shape.rank is not None and 0 in shape[1:].as_list():
        raise ValueError(f"{name} has the shape {shape}, whose examples hold no values: expected at least one in each")
    if event_shape is None or shape.rank is None:
        return
    if shape.rank < 1 or not shape[1:].is_compatible_with(event_shape):
        expected = str(("n", *event_shape)).replace("'", "")
        advice = elements.advice_on_shape(tuple(shape), tuple(event_shape))
        raise ValueError(f"{name} has the shape {shape}, but the model takes {expected}: {advice}")


def largest_magnitude(dtype: str) -> float:
    """The largest magnitude of x for a model of this dtype: the cube root of the dtype's largest number.

    A sum of squares over small variances then stays finite. It is 7e12 for float32.
    """
    return float(tf.as_dtype(dtype).max) ** (1 / 3)


def validate_array_values(array: Any, limit: float | None, name: str, missing: bool = False) -> None:
    """`validate_values` for an array, block by block."""
    if _may_be_wrong(array.dtype):
        for start, block in elements.array_blocks(array):
            validate_values(block, limit, name, start, missing)


def validate_values(
    values: np.ndarray, limit: float | None, name: str, start: int | None = None, missing: bool = False
) -> None:
    """Raise ValueError for NaN or infinite values, and for magnitudes above the limit, if there is one.

    start: position of the first of these values in the array; None for a stream's first batch. missing: whether NaN is
    allowed.
    """
    if not _may_be_wrong(values.dtype):
        return
    if missing:
        values = np.where(np.isnan(values), 0, values)
    finite = np.isfinite(values)
    if not finite.all():
        position = _position(~finite, start)
        raise ValueError(f"{name} has {_not_finite(missing)}{position}: {NOT_FINITE_ADVICE}")
    highest = max(float(np.max(values, initial=0)), -float(np.min(values, initial=0)))
    if limit is not None and highest > limit:
        position = _position(np.abs(values) > limit, start)
        raise ValueError(
            f"{name} has the magnitude {highest:.3g}{position}, of which sums of squares are too large for the model's "
            f"numbers, expected at most {limit:.0e}: scale the data, as (x - mean) / standard deviation does"
        )


def _not_finite(missing):
    return INFINITE if missing else NOT_FINITE


def _may_be_wrong(dtype):
    kind = tf.as_dtype(dtype)
    return kind.is_floating or kind.size == 8


def _position(wrong, start):
    if start is None:
        return " in its first batch"
    return f", first in example {start + int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))}"


# While a stream is read -----------------------------------------------------------------------------------------------


def stop_at_nonfinite(data: Any, name: str = "the data", missing: bool = False, part: int = 0) -> Any:
    """The same stream, with a check of every batch: NaN or an infinite value in a floating-point x ends it.

    With part 1 it is y that is looked at.

    With `missing`, NaN means "not observed" and passes.

    Within `clear_errors` this is a ValueError with batch and row. Arrays are returned as they are, since
    `validate_first_batch` searches them as a whole.
    """
    spec = elements.unpack(data.element_spec)[part] if isinstance(data, tf.data.Dataset) else None
    if not isinstance(spec, tf.TensorSpec) or not spec.dtype.is_floating:
        return data
    name = f"the y of {name}" if part else name

    def check(batch, element):
        x = elements.unpack(element)[part]
        wrong = tf.math.is_inf(x) if missing else tf.logical_not(tf.math.is_finite(x))
        nonfinite = tf.reduce_any(wrong, axis=tf.range(1, tf.rank(x)))
        message = [f"{name} has {_not_finite(missing)}", batch, tf.argmax(tf.concat([nonfinite, [True]], 0))]
        with tf.control_dependencies([tf.debugging.Assert(tf.logical_not(tf.reduce_any(nonfinite)), message)]):
            return tf.nest.map_structure(tf.identity, element)

    return _check_batches(data, check)


def stop_at_negative_weights(data: tf.data.Dataset, name: str = "the data") -> tf.data.Dataset:
    """The same stream. A sample_weight below 0 or not finite ends it, within `clear_errors` as a ValueError."""
    if elements.unpack(data.element_spec)[2] is None:
        return data

    def find(element):
        weights = tf.cast(elements.unpack(element)[2], "float64")
        wrong = (weights < 0) | ~tf.math.is_finite(weights)  # of "not weights >= 0" TensorFlow makes weights < 0
        start, end = f"sample_weight of {name} is ", "; expected a finite number of at least 0"
        return wrong, lambda place: tf.strings.join([start, _first_of(weights, wrong), " in ", place, end])

    return _stop_where(data, find)


def with_shapes(data: Any, first: Any, name: str = "the data", parts: tuple[int, ...] = (0,)) -> Any:
    """The same stream, in which x has the shape of the first batch's examples: another shape ends it.

    A stream whose shapes TensorFlow knows is returned as it is.

    Args:
        data: a stream of batches.
        first: its first element.
        name: the name of the data in errors.
        parts: 0 for x, 1 for y, which a denoising autoencoder reconstructs.
    """
    specs, read = tf.nest.flatten(data.element_spec), elements.unpack(data.element_spec)
    places = [number for number, spec in enumerate(specs) if any(spec is read[part] for part in parts)]
    if all(specs[place].shape.rank is not None and None not in specs[place].shape[1:] for place in places):
        return data
    shapes = {place: tuple(tf.nest.flatten(first)[place].shape[1:]) for place in places}

    def check(batch, element):
        leaves = tf.nest.flatten(element)
        for place, shape in shapes.items():
            part = leaves[place]
            found, expected = tf.shape(part), ("n", *shape)
            same = tf.size(found) == len(expected) and tf.reduce_all(found[1:] == tf.constant(shape, tf.int32))
            sizes = tf.strings.reduce_join(tf.as_string(found), separator=", ")
            start = [f"ValueError: {name} has the shape (", sizes, ") in batch ", tf.strings.as_string(batch)]
            end = f" (counted from 0), but {expected} in its first: make all examples of one shape".replace("'", "")
            with tf.control_dependencies([tf.debugging.Assert(same, [tf.strings.join([*start, end])])]):
                leaves[place] = tf.ensure_shape(tf.identity(part), (None, *shape))
        return tf.nest.pack_sequence_as(element, leaves)

    return _check_batches(data, check)


def stop_at_unsupported(data: Any, supported: Callable, complaint: str, name: str = "the data", part: int = 0) -> Any:
    """The same data, with a check for values without a probability. NaN and infinite values pass here.

    Arrays are searched now. Of a stream every batch is checked when it is read, and an unsupported value ends it.

    Args:
        data: a stream of batches, or arrays.
        supported: function from x, scaled, to a bool tensor; it broadcasts to the shape of x.
        complaint: the end of the error message.
        name: the name of the data in errors.
        part: 0 to check x, 1 to check y, which isn't scaled.

    Raises:
        ValueError: for arrays at once, for a stream within `clear_errors`.
    """

    def unsupported(values):
        x = tf.cast(values, "float32") if part else elements.scale(values)
        return x, tf.logical_not(tf.broadcast_to(supported(x), tf.shape(x)) | ~tf.math.is_finite(x))

    def message(x, wrong, position):
        return tf.strings.join([f"{name} holds the value ", _first_of(x, wrong), " in ", position, f", {complaint}"])

    if not isinstance(data, tf.data.Dataset):
        for start, block in elements.array_blocks(elements.unpack(data)[part]):
            x, wrong = unsupported(block)
            if tf.reduce_any(wrong):
                example = start + int(tf.where(wrong)[0][0])
                raise ValueError(message(x, wrong, f"example {example}").numpy().decode())
        return data

    def find(element):
        x, wrong = unsupported(elements.unpack(element)[part])
        return wrong, lambda place: message(x, wrong, place)

    return _stop_where(data, find)


def _first_of(values, wrong):
    return tf.strings.as_string(tf.boolean_mask(values, wrong)[0], shortest=True)


def _stop_where(dataset, find):
    """The dataset, ended by the first batch with a value that is wrong.

    find: function from an element to a tensor of bools, and a function from the batch's place to the error's text.
    """

    def check(batch, element):
        wrong, message = find(element)

        def stop():
            place = tf.strings.join(["batch ", tf.strings.as_string(batch), " (counted from 0)"])
            return tf.debugging.Assert(False, [tf.strings.join(["ValueError: ", message(place)])])

        with tf.control_dependencies([tf.cond(tf.reduce_any(wrong), stop, tf.no_op)]):
            return tf.nest.map_structure(tf.identity, element)

    return _check_batches(dataset, check)


def _check_batches(dataset, check):
    """The dataset, or the Stream, with check(number of the batch, element) in place of each element."""

    def numbered(batches):
        return batches.enumerate().map(check)

    return dataset._each_epoch(numbered) if isinstance(dataset, Stream) else numbered(dataset)
