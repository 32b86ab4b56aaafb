"""Arguments and arrays that can't be read, and the advice for each."""

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

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


def advice_on_shape(shape: tuple, event_shape: tuple) -> str:
    """What to do about an array of another shape than (n, *event_shape)."""
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


def array_blocks(array: Any) -> Iterator[tuple[int, np.ndarray]]:
    """(start, rows) of an array, a few megabytes at a time."""
    rows = max(1, BLOCK_BYTES // max(1, np.asarray(array[:1]).nbytes))
    for start in range(0, array.shape[0], rows):
        yield start, np.asarray(array[start : start + rows])
