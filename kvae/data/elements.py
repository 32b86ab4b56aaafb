"""The elements of a stream: x, y and sample weights of a batch, and x as the models take it."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

BATCH_SIZE = 256  # of arrays, if a method isn't told


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
    """(x, y, sample_weight) for Keras' `fit`. x may be a tuple of arrays that holds all three."""
    if isinstance(x, tuple | list) and y is None and sample_weight is None:
        x, y, sample_weight = unpack(x)
    # Keras drops the weights of examples without a y. The weights stand in for y, and no model here reads it.
    return x, sample_weight if y is None else y, sample_weight


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


def is_dataset(data: Any) -> bool:
    """Whether the data are a `tf.data.Dataset`, such as a `Stream`."""
    return isinstance(data, tf.data.Dataset)


def x_spec(dataset: tf.data.Dataset) -> tf.TensorSpec:
    """The shape and dtype of x in a dataset's batches. Raises TypeError unless x is one dense tensor."""
    spec = unpack(dataset.element_spec)[0]
    if not isinstance(spec, tf.TensorSpec):
        advice = "map makes one of it, with .to_tensor() or tf.sparse.to_dense"
        raise TypeError(f"x is {spec} in the stream, expected one dense tensor: {advice}")
    return spec


def are_pixels(data: Any) -> bool:
    """Whether x is uint8 or bool: scaled, it holds no value outside of [0, 1]."""
    dtype = x_spec(data).dtype if is_dataset(data) else unpack(data)[0].dtype
    return tf.as_dtype(dtype) in (tf.uint8, tf.bool)
