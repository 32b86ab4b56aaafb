"""What an argument or an array must be: its kind, dtype, shape and values, and the advice if it isn't."""

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kvae.data.errors import NOT_FINITE, NOT_FINITE_ADVICE

BLOCK_BYTES = 2**24


def validate_batch_size(batch_size: int) -> None:
    """Raise ValueError unless batch_size is an integer of at least 1."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}, expected an integer of at least 1")


def validate_shuffle(shuffle: int) -> None:
    """Raise TypeError or ValueError unless shuffle is a number of examples or 0."""
    if isinstance(shuffle, bool) or not isinstance(shuffle, int | np.integer):
        raise TypeError(f"shuffle is {shuffle!r}, expected the number of images in the shuffling pool, or 0")
    if shuffle < 0:
        raise ValueError(f"shuffle is {shuffle}, expected the number of images in the shuffling pool, or 0")


def validate_arrays(data: Any) -> int:
    """The number of examples in the arrays.

    Raises TypeError for objects that can't be read as arrays, ValueError for arrays of unequal lengths.
    """
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
        advice = _advice_on_shape(tuple(shape), tuple(event_shape))
        raise ValueError(f"{name} has the shape {shape}, but the model takes {expected}: {advice}")


def _advice_on_shape(shape, event_shape):
    example_shape = shape[1:]
    if shape == event_shape:
        return (
            "these are single examples, not batches: call .batch(n) on a stream, np.stack on a list of them, or give "
            "x[None] of one"
        )
    if (*example_shape, 1) == event_shape:
        return "add the axis of the channel with x[..., None]"
    if None not in example_shape and example_shape[1:] == event_shape:
        return f"an axis is too many: x.reshape({_listed(-1, *event_shape)}) makes an example of each entry along it"
    if len(example_shape) == len(event_shape) == 3:
        build = f"or build the networks for {_listed(*example_shape)}"
        if example_shape[:2] == event_shape[:2] and (example_shape[2], event_shape[2]) in ((3, 1), (1, 3)):
            function = "rgb_to_grayscale" if example_shape[2] == 3 else "grayscale_to_rgb"
            return f"change the channels with tf.image.{function}(x), {build}"
        if example_shape == (event_shape[2], *event_shape[:2]):
            return "the channels come first: move them to the end with np.moveaxis(x, 1, -1)"
        if example_shape[2] == event_shape[2]:
            return f"change the size with tf.image.resize(x, {event_shape[:2]}), {build}"
    if None not in example_shape and math.prod(example_shape) == math.prod(event_shape):
        return f"give its values that shape with x.reshape({_listed(-1, *event_shape)})"
    return "give data of that shape, or build the networks for this one"


def _listed(*sizes):
    return f"({', '.join(map(str, sizes))})"


def largest_magnitude(dtype: str) -> float:
    """The largest magnitude of x for a model of this dtype: the cube root of the dtype's largest number.

    A sum of squares over small variances then stays finite. It is 7e12 for float32.
    """
    return float(tf.as_dtype(dtype).max) ** (1 / 3)


def validate_array_values(array: Any, limit: float | None, name: str) -> None:
    """`validate_values` for an array, block by block."""
    if _may_be_wrong(array.dtype):
        for start, block in array_blocks(array):
            validate_values(block, limit, name, start)


def validate_values(values: np.ndarray, limit: float | None, name: str, start: int | None = None) -> None:
    """Raise ValueError for NaN or infinite values, and for magnitudes above the limit, if there is one.

    start: position of the first of these values in the array; None for a stream's first batch.
    """
    if not _may_be_wrong(values.dtype):
        return
    finite = np.isfinite(values)
    if not finite.all():
        position = _position(~finite, start)
        raise ValueError(f"{name} has {NOT_FINITE}{position}: {NOT_FINITE_ADVICE}")
    highest = max(float(np.max(values, initial=0)), -float(np.min(values, initial=0)))
    if limit is not None and highest > limit:
        position = _position(np.abs(values) > limit, start)
        raise ValueError(
            f"{name} has the magnitude {highest:.3g}{position}, of which sums of squares are too large for the model's "
            f"numbers, expected at most {limit:.0e}: scale the data, as (x - mean) / standard deviation does"
        )


def array_blocks(array: Any) -> Iterator[tuple[int, np.ndarray]]:
    """(start, rows) of an array, a few megabytes at a time."""
    rows = max(1, BLOCK_BYTES // max(1, np.asarray(array[:1]).nbytes))
    for start in range(0, array.shape[0], rows):
        yield start, np.asarray(array[start : start + rows])


def _may_be_wrong(dtype):
    kind = tf.as_dtype(dtype)
    return kind.is_floating or kind.size == 8


def _position(wrong, start):
    if start is None:
        return " in its first batch"
    return f", first in example {start + int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))}"
