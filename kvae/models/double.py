"""Copies of a model's parts that compute in float64."""

import copy
from typing import Any

import keras

_FLOATS = "float16", "bfloat16", "float32", "mixed_float16", "mixed_bfloat16"


def double(layer: Any, **build: Any) -> Any:
    """Return a copy of a built layer or network that computes in float64.

    Args:
        layer: a Keras layer.
        **build: further arguments of its `build`.

    Raises:
        TypeError: if Keras can't copy it.
    """
    try:
        made = keras.saving.deserialize_keras_object(_in_double(keras.saving.serialize_keras_object(layer)))
        if not made.built:
            made.build(_build_shape(layer), **build)
        made.set_weights(layer.get_weights())
    except Exception as error:
        raise TypeError(
            f"{type(layer).__name__} {layer.name!r} can't be copied with numbers of 64 bits "
            f"({str(error).strip().splitlines()[0]}): give it get_config and keras.saving."
            "register_keras_serializable, or make it of Keras' layers."
        ) from error
    return made


def _build_shape(layer):
    if hasattr(layer, "latent_dim"):  # a prior or a family of posteriors
        shape = (None, layer.latent_dim)
        return [shape, shape] if hasattr(layer, "scores_any_z") else shape
    return (None, *layer.event_shape)  # a likelihood


def _in_double(config):
    """A copy of a serialized configuration with float64 for each float dtype and policy."""
    if isinstance(config, dict):
        return {
            key: "float64" if key in ("dtype", "name") and value in _FLOATS else _in_double(value)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_in_double(value) for value in config)
    return copy.copy(config)
