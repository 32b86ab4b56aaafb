"""The elements of data: x, y and sample weights of a batch, x as the models take it, and readable arrays."""

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvae import _compat

BATCH_SIZE = 256  # of arrays, if a method isn't told
BLOCK_BYTES = 2**24


def unpack(element: Any) -> tuple[Any, Any, Any]:
    """(x, y, sample_weight) of one element, with None for missing parts.

    Args:
        element: x, (x,), (x, y), (x, y, sample_weight) or a dict of tensorflow-datasets, with x under "image" and y
            under "label", if present. Its leaves may be tensors, arrays or the specs of a stream's `element_spec`.

    Raises:
        ValueError: for a dict without "image" and for a tuple of another length.

    Example:

    >>> from kvae.data import elements
    >>> elements.unpack({"image": "pixels", "label": 3, "id": 8})
    ('pixels', 3, None)
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


def fit_arguments(x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """(x, y, sample_weight) for Keras' `fit`. x may be a tuple of arrays that holds all three.

    y and sample_weight may also be lists, or series of pandas.
    """
    if isinstance(x, tuple | list) and y is None and sample_weight is None:
        x, y, sample_weight = unpack(x)
    x = as_dataset(x)
    y, sample_weight = _as_array("y", y), _as_array("sample_weight", sample_weight)
    validate_weights(sample_weight)
    # Keras drops the weights of examples without a y: zeros, which no model here reads, stand in for it.
    if y is None and sample_weight is not None:
        y = np.zeros(np.shape(sample_weight)[:1], "float32")
    return x, y, sample_weight


def _as_array(name, values):
    """A list, an eager tensor, or a frame or series of pandas, as an array; other values as they are."""
    if isinstance(values, list | tuple):
        try:
            return np.asarray(values)
        except ValueError:
            raise ValueError(f"{name} is a ragged {type(values).__name__}, expected one value an example") from None
    if hasattr(values, "to_numpy"):
        return _of_frame(values)
    return values.numpy() if tf.is_tensor(values) and hasattr(values, "numpy") else values


def _of_frame(frame):
    """A DataFrame as an array. Numbers and bools of pandas' nullable types become floats, their NA becomes NaN."""
    kinds = [getattr(dtype, "kind", "O") for dtype in np.atleast_1d(getattr(frame, "dtypes", ()))]
    values = frame.to_numpy()
    is_nullable = values.dtype == object and kinds and all(kind in "biuf" for kind in kinds)
    return frame.to_numpy("float64", na_value=np.nan) if is_nullable else values


def validate_weights(weights: Any, name: str = "sample_weight") -> None:
    """Raise TypeError unless the weights, an array or a spec, are real numbers, or None.

    Raises ValueError for an array with a weight below 0 or not finite, or with no other than 0.
    """
    if weights is None:
        return
    try:
        dtype = tf.as_dtype(weights.dtype)
        is_real = dtype.is_floating or dtype.is_integer or dtype.is_bool
    except (AttributeError, TypeError):
        is_real = False
    if not is_real:
        found = f"a {type(weights).__name__} of {weights.dtype}" if hasattr(weights, "dtype") else repr(weights)
        raise TypeError(f"{name} is {found}, expected an array of real numbers (n,), one an example")
    if not isinstance(weights, np.ndarray) or not len(weights):
        return
    refuse_negative_weights(weights, name)
    if not weights.any():
        raise ValueError(f"{name} is 0 for all {len(weights):,} examples, so that none counts: expected some above 0")


def refuse_negative_weights(weights: Any, name: str) -> None:
    """Raise ValueError if one of the weights, an array or an eager tensor (n,) or (n, 1), is below 0 or not finite."""
    weights = np.asarray(weights)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        row = int(np.argmax(wrong.reshape(len(weights), -1).any(axis=1)))
        raise ValueError(
            f"{name} is {weights[row]} for example {row:,}; expected a finite number of at least 0: how much it counts"
        )


def weight_per_example(sample_weight: Any, count: int | None = None) -> Any:
    """Weights (n,) or (n, 1) as (n,), None as None. Raises ValueError for another shape, or an n other than `count`."""
    if sample_weight is None:
        return None
    shape = tf.TensorShape(sample_weight.shape)  # of unknown rank where Keras traces for weights of both shapes
    if shape.rank is not None and (tuple(shape[1:]) not in ((), (1,)) or count not in (None, shape[0])):
        raise ValueError(f"sample_weight has the shape {shape}; expected one weight an example, ({count or 'n'},).")
    return keras.ops.reshape(sample_weight, (-1,))


def as_dataset(data: Any) -> Any:
    """A `keras.utils.PyDataset` as a `tf.data.Dataset` in order, a DataFrame as an array, other data as they are."""
    if isinstance(data, tuple):
        return tuple(as_dataset(part) for part in data)
    if not isinstance(data, keras.utils.PyDataset):
        return _of_frame(data) if hasattr(data, "to_numpy") else data
    if data.num_batches is None:
        raise ValueError("found a PyDataset without a length; give it a __len__, the number of its batches")

    def without_none(batch: Any) -> Any:
        parts = [part for part in (batch if isinstance(batch, tuple | list) else (batch,)) if part is not None]
        return tuple(parts) if len(parts) > 1 else parts[0]

    def leaves(batch):
        return [native(np.array(part)) for part in tf.nest.flatten(without_none(batch))]

    def read(number):
        if number == 0:
            data.on_epoch_begin()
        arrays = leaves(data[int(number)])
        if number == data.num_batches - 1:
            data.on_epoch_end()
        return arrays

    structure = without_none(data[0])
    first = leaves(structure)

    def batch(number):
        arrays = _compat.numpy_function(read, [number], [array.dtype for array in first])
        arrays = [tf.ensure_shape(array, (None, *like.shape[1:])) for array, like in zip(arrays, first, strict=True)]
        return tf.nest.pack_sequence_as(structure, arrays)

    return tf.data.Dataset.range(data.num_batches).map(tf.autograph.experimental.do_not_convert(batch))


def target(element: Any) -> Any:
    """The y of an element if it has the shape of x, such as clean images beside noisy ones; else None."""
    x, y, _ = unpack(element)
    if not all(hasattr(part, "shape") and hasattr(part, "dtype") for part in (x, y)):
        return None
    shapes = [tf.TensorShape(part.shape) for part in (x, y)]
    is_alike = all(shape.rank is not None and shape.rank > 1 for shape in shapes) and shapes[0][1:] == shapes[1][1:]
    return y if is_alike and tf.as_dtype(y.dtype) != tf.string else None


def scale(x: Any, dtype: str = "float32") -> Any:
    """x as a float tensor: uint8 (0 to 255) becomes x / 255, bool becomes 0 or 1, other dtypes are cast.

    Args:
        x: array or tensor of any shape.
        dtype: name of the float dtype. Default "float32".

    Example:

    >>> import numpy as np
    >>> from kvae.data import elements
    >>> print(elements.scale(np.array([0, 51, 255], "uint8")).numpy().round(3))
    [0.  0.2 1. ]
    """
    x = keras.ops.convert_to_tensor(x)
    pixels = keras.backend.standardize_dtype(x.dtype) == "uint8"
    x = keras.ops.cast(x, dtype)
    return x * (1 / 255) if pixels else x  # graphs turn x / 255 into this product, which differs in the last bit


def native_dtype(dtype: Any) -> Any:
    """A dtype of numpy with this machine's order of bytes: TensorFlow would read others as they lie."""
    return dtype.newbyteorder("=") if isinstance(dtype, np.dtype) else dtype


def native(array: np.ndarray) -> np.ndarray:
    """The array with this machine's order of bytes; a copy only if it has another."""
    return array.astype(native_dtype(array.dtype), copy=False)


# Arrays and arguments that can't be read, and the advice for each -----------------------------------------------------


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


def validate_damaged(damaged: str) -> None:
    """Raise ValueError unless damaged is "error" or "skip"."""
    if damaged not in ("error", "skip"):
        raise ValueError(f"damaged is {damaged!r}, expected one of ('error', 'skip')")


def validate_arrays(data: Any, name: str = "x") -> int:
    """The number of examples in the arrays. `name` is the name of x in messages.

    Raises TypeError for objects that can't be read as arrays, ValueError for arrays of unequal lengths.
    """
    parts = data if isinstance(data, tuple | list) and 1 <= len(data) <= 3 else (data,)
    names = [name, *(part if name == "x" else f"{part} of {name}" for part in ("y", "sample_weight"))]
    for part_name, part in zip(names, parts, strict=False):
        for array in tf.nest.flatten(part):
            if advice := _advice_on_kind(array):
                found = f"{part_name}: found {type(array).__name__}"
                raise TypeError(f"{found}, expected a tf.data.Dataset or numpy arrays: {advice}")
    if isinstance(parts[0], tuple | list) and parts[0] is not data:
        raise TypeError(
            f"{name}: found a {type(parts[0]).__name__} of {len(parts[0])} arrays as x, expected one array: "
            "np.concatenate makes one of them"
        )
    arrays = tf.nest.flatten(data)
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
