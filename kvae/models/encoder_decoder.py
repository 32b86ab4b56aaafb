"""A model of two networks, an encoder and a decoder: how it is built, and made again from its configuration."""

from __future__ import annotations

import random
from typing import Any

import keras

from kvae.models.base import LatentModel

_RENAMED = {"posterior": "posterior_family"}  # arguments in files of 0.1.0


class EncoderDecoder(LatentModel):
    """A `LatentModel` of an encoder and a decoder.

    A subclass names its constructor's arguments in `config_names`; each is an attribute of the same name.

    Args:
        encoder: a Keras model from x (n, ...).
        decoder: a Keras model to images (n, ...).

    Raises:
        TypeError: if one of them isn't a Keras model.
    """

    config_names: tuple[str, ...] = ("encoder", "decoder")
    _copying = False

    def __init__(self, encoder: keras.layers.Layer, decoder: keras.layers.Layer, **kwargs: Any):
        super().__init__(**kwargs)
        for role, network in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(network, keras.layers.Layer):
                raise TypeError(
                    f"The {role} is {type(network).__name__}; expected a Keras model, such as kvae.networks gives."
                )
        self.encoder = encoder
        self.decoder = decoder

    @property
    def networks(self) -> tuple[keras.layers.Layer, ...]:
        """The networks that the model is made of."""
        return self.encoder, self.decoder

    def build(self, input_shape: tuple) -> None:
        """Build for examples of `input_shape`, (None, ...). A refused shape leaves the networks fit for another."""
        if not self.built and not all(network.built for network in self.networks):
            self._try_on_a_copy(tuple(input_shape[1:]))
        super().build(input_shape)

    def _try_on_a_copy(self, event_shape):
        state = random.getstate()  # Keras draws the seeds of the copy's initializers from it
        EncoderDecoder._copying = True
        try:
            copy = type(self).from_config(self.get_config())
        except Exception:  # of networks that Keras can't copy
            return
        finally:
            EncoderDecoder._copying = False
            random.setstate(state)
        copy._build_parts(event_shape)

    def _build_if_shape_is_known(self):
        """Build now if the encoder knows the shape of its input."""
        shape = getattr(self.encoder, "input_shape", None) if self.encoder.built else None
        shape = shape[0] if isinstance(shape, list) else shape
        if isinstance(shape, tuple) and shape and None not in shape[1:] and not EncoderDecoder._copying:
            self.build(shape)

    def _with_labels(self, z, x):
        """What the decoder reads for z: with labels, (z, y) with the y of x."""
        return z

    def get_config(self) -> dict[str, Any]:
        """Keras' hook: the constructor's arguments, serialized."""
        return {**super().get_config(), **{name: _serialized(getattr(self, name)) for name in self.config_names}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EncoderDecoder:
        """Keras' hook: a model as `get_config` describes it, also as 0.1.0 did."""
        config = {_RENAMED.get(name, name): value for name, value in config.items()}
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


def _serialized(value):
    if isinstance(value, list):
        return [_serialized(part) for part in value]
    return keras.saving.serialize_keras_object(value) if isinstance(value, keras.Operation) else value
