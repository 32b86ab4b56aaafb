"""What the models read of a stream's elements: x, y and weights, and images as floats."""

from collections.abc import Mapping

import keras
import tensorflow as tf

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


def is_dataset(data):
    """Whether the data are a `tf.data.Dataset`."""
    return isinstance(data, tf.data.Dataset)


def are_pixels(data):
    """Whether x is uint8 or bool, in which there is no value outside of [0, 1] once they are scaled."""
    dtype = x_spec(data).dtype if isinstance(data, tf.data.Dataset) else unpack(data)[0].dtype
    return tf.as_dtype(dtype) in (tf.uint8, tf.bool)


def x_spec(dataset):
    """The `tf.TensorSpec` of x in a dataset. Raises TypeError where it is no dense tensor."""
    spec = unpack(dataset.element_spec)[0]
    if not isinstance(spec, tf.TensorSpec):
        advice = "map makes one of it, with .to_tensor() or tf.sparse.to_dense"
        raise TypeError(f"x is {spec} in the stream, expected one dense tensor: {advice}")
    return spec
