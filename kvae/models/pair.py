"""What an autoencoder and a VAE share: an encoder and a decoder that fit each other."""

import random
from collections.abc import Mapping

import keras
from keras import ops

from kvae.models.base import LatentModel

_RENAMED = {"posterior": "posterior_family"}  # in files of 0.1.0


class PairModel(LatentModel):
    """A latent model made of two networks, an encoder and a decoder.

    A subclass gives `check_networks`, which reads what they put out and raises ValueError for a bad pair.
    """

    _copying = False

    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(**kwargs)
        for role, network in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(network, keras.layers.Layer):
                raise TypeError(
                    f"The {role} is {type(network).__name__}; expected a Keras model, such as kvae.networks gives."
                )
        self.encoder = encoder
        self.decoder = decoder

    @property
    def networks(self):
        return self.encoder, self.decoder

    def build(self, input_shape):
        if not self.built and not all(network.built for network in self.networks):
            self._try_copy(tuple(input_shape[1:]))
        super().build(input_shape)

    def _try_copy(self, event_shape):
        """Build a copy first, so that a shape which is refused leaves the networks fit for another."""
        state = random.getstate()  # from which Keras would draw the seeds of the copy's initializers
        PairModel._copying = True
        try:
            copy = type(self).from_config(self.get_config())
        except Exception:  # networks that Keras can't copy
            return
        finally:
            PairModel._copying = False
            random.setstate(state)
        copy.build_parts(event_shape)

    def _build_if_shape_is_known(self):
        shape = getattr(self.encoder, "input_shape", None) if self.encoder.built else None
        shape = shape[0] if isinstance(shape, list) else shape
        if isinstance(shape, tuple) and shape and None not in shape[1:] and not PairModel._copying:
            self.build(shape)

    def build_parts(self, event_shape):
        codes = outputs_or_error(self.encoder, self.symbol(event_shape), "encoder")
        z = self.symbol(codes[0].shape[1:])
        self.check_networks(
            [tuple(code.shape) for code in codes],
            [tuple(output.shape) for output in outputs_or_error(self.decoder, z, "decoder")],
            event_shape,
        )
        self.latent_dim = codes[0].shape[-1]

    def check_networks(self, code_shapes, output_shapes, event_shape):
        """Raise ValueError for outputs that don't fit. Shapes have None for the batch."""
        raise NotImplementedError

    def outputs_of(self, network, inputs, training=False):
        """The network's outputs as a list, in the dtype of the variables: here the probabilities begin."""
        outputs = network(inputs, training=training)
        return [ops.cast(output, self.variable_dtype) for output in keras.tree.flatten(outputs)]

    def get_config(self):
        config = super().get_config()
        networks = {"encoder": self.encoder, "decoder": self.decoder}
        return {
            **config,
            **{name: keras.saving.serialize_keras_object(net) for name, net in networks.items()},
        }

    @classmethod
    def from_config(cls, config):
        config = {_RENAMED.get(name, name): value for name, value in config.items()}
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


def outputs_or_error(network, inputs, role):
    """The list of a network's symbolic outputs; ValueError where it doesn't take these inputs, or gives a dict."""
    try:
        outputs = network(inputs)
    except (ValueError, TypeError) as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in keras.tree.flatten(inputs))
        raise ValueError(
            f"The {role} doesn't take inputs of shape {shapes}, which is what it would be given here: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    if isinstance(outputs, Mapping):
        raise ValueError(
            f"The {role} gives a dict with the keys {sorted(outputs)}; expected a tensor or a list of tensors, in the "
            "order [z_mean, z_log_var] of an encoder and [mean, log_var] of a decoder with two outputs."
        )
    return keras.tree.flatten(outputs)


def check_built_for(name, found, expected):
    """Raise ValueError where a part that another model may have built doesn't fit this one."""
    if found != expected:
        raise ValueError(f"The {name} was built for the shape {found}, the model for {expected}: make another.")
