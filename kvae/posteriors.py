"""q(z|x): what the encoder's outputs say of the latents of an image."""

import abc

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.distributions import MultivariateNormal, Normal, Reparameterized
from kvae.flows import Flow, Transformed

_SHRINKAGE = 0.01  # of a full normal's correlations
_BELOW_LIMIT = 1e4


class Posterior(keras.layers.Layer, abc.ABC):
    """q(z|x) from the list of an encoder's outputs. A layer, since a posterior may have weights of its own."""

    scores_any_z = True  # False where only the z that it drew have a log q(z|x)

    def build(self, input_shape):
        """input_shape: those of the encoder's outputs, a list, the first (None, latent_dim)."""
        self.latent_dim = input_shape[0][-1]
        super().build(input_shape)

    def outputs(self, latent_dim):
        """What the encoder must give, in this order: {name: units}. `kvae.networks` asks for it."""
        return {"z_mean": latent_dim, "z_log_var": latent_dim}

    @abc.abstractmethod
    def distribution(self, outputs) -> Reparameterized:
        """q(z|x), given the list of the encoder's outputs, each (n, units)."""

    def check_outputs(self, shapes):
        """Raise ValueError unless the encoder's output shapes are what this posterior reads."""
        expected = self.outputs(shapes[0][-1])
        if [tuple(shape[1:]) for shape in shapes] != [(units,) for units in expected.values()]:
            listing = ", ".join(f"{name} (n, {units})" for name, units in expected.items())
            raise ValueError(
                f"The encoder gives outputs of shapes {shapes}; {type(self).__name__} reads [{listing}]. The networks "
                "of kvae.networks give that with the argument posterior_family=."
            )


@keras.saving.register_keras_serializable("kvae")
class DiagonalNormal(Posterior):
    """q(z|x) = N(z_mean, diag(exp(z_log_var))) (Kingma and Welling 2014, appendix C.2)."""

    def distribution(self, outputs):
        return Normal(*outputs)


@keras.saving.register_keras_serializable("kvae")
class FullNormal(Posterior):
    """q(z|x) = N(z_mean, L L^T) with exp(z_log_var / 2) on L's diagonal, and correlations given by the third output.

    Kingma and Welling (2019), "An introduction to variational autoencoders", section 2.5.1. The exact posterior of a
    linear decoder is of this kind, and diagonal only where the decoder's columns are orthogonal.

    z_below stands below the diagonal of 1 of a lower triangular B, row by row; with C the correlation matrix of B B^T,
    the latents' is 0.99 C + 0.01 I. No correlation passes 0.99, and the matrix's condition number stays below
    100 latent_dim whatever the encoder gives, so that single precision suffices for the density of a given z. With
    z_below in L itself, as in that book, errors grow exponentially with latent_dim, and they still do where each row
    of it is bounded.
    """

    def outputs(self, latent_dim):
        if latent_dim < 2:
            raise ValueError("A FullNormal of 1 latent is a DiagonalNormal: use that.")
        return {**super().outputs(latent_dim), "z_below": latent_dim * (latent_dim - 1) // 2}

    def distribution(self, outputs):
        mean, log_var, below = outputs
        size = mean.shape[1]
        # Row i has i entries below the diagonal, one after the other in `below`.
        places = np.zeros((size, size), "int32")
        places[np.tril_indices(size, -1)] = np.arange(below.shape[1])
        below = ops.take(ops.clip(below, -_BELOW_LIMIT, _BELOW_LIMIT), places.ravel(), axis=1)
        identity = ops.eye(size, dtype=mean.dtype)
        rows = ops.tril(ops.reshape(below, (-1, size, size)), -1) + identity
        rows = rows * ops.rsqrt(ops.sum(ops.square(rows), axis=2, keepdims=True))
        correlations = ops.matmul(rows, ops.transpose(rows, (0, 2, 1)))
        correlations = (1 - _SHRINKAGE) * correlations + _SHRINKAGE * identity
        return MultivariateNormal.with_correlations(mean, log_var, correlations)


@keras.saving.register_keras_serializable("kvae")
class FlowPosterior(Posterior):
    """q(z|x) of z = f(u; context), u ~ N(z_mean, diag(exp(z_log_var))), f being a flow (Rezende and Mohamed 2015).

    E[z] has no closed form, so that the code of x, what `encode` and `transform` give, is f(z_mean).

    Args:
        flow: a `kvae.flows.Flow`: `Planar`, `InverseAutoregressive` or `Coupling`.
        context: units of the encoder's third output, on which f depends; with 0 there is none, and f is the same for
            all x.
    """

    def __init__(self, flow, context=0, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(flow, Flow):
            raise TypeError(f"flow is {flow!r}; expected one of kvae.flows, such as Planar(steps=8).")
        self.flow, self.context = flow, arguments.integer_at_least("context", context, 0)

    @property
    def scores_any_z(self):
        return self.flow.invertible

    def outputs(self, latent_dim):
        return {**super().outputs(latent_dim), **({"context": self.context} if self.context else {})}

    def build(self, input_shape):
        self.flow.build_for(input_shape[0], *input_shape[2:])
        super().build(input_shape)

    def distribution(self, outputs):
        mean, log_var, *context = outputs
        return Transformed(Normal(mean, log_var), self.flow, *context)

    def get_config(self):
        flow = keras.saving.serialize_keras_object(self.flow)
        return {**super().get_config(), "flow": flow, "context": self.context}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "flow": keras.saving.deserialize_keras_object(config["flow"])})
