"""Families of posteriors q(z|x): each makes a distribution of the encoder's outputs."""

import abc
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.arguments import Shape, Tensor
from kvae.distributions import MultivariateNormal, Normal, Reparameterized
from kvae.flows import Flow, Transformed

_SHRINKAGE = 0.01  # of the correlations of a full normal
_BELOW_LIMIT = 1e4


class Posterior(keras.layers.Layer, abc.ABC):
    """Base class of families of posteriors: layers, possibly with weights, from an encoder's outputs to q(z|x).

    A subclass defines `distribution`, and `outputs` unless the encoder's outputs are [z_mean, z_log_var].

    Attributes:
        scores_any_z: bool, False if log q(z|x) is known only for a z drawn from q. Default True.
        latent_dim: int, the size of z, once built.

    Example:

    >>> class Narrow(kvae.posteriors.Posterior):
    ...     def distribution(self, outputs):
    ...         mean, log_var = outputs
    ...         return kvae.distributions.Normal(mean, log_var - 2.0)
    >>> Narrow().outputs(latent_dim=3)
    {'z_mean': 3, 'z_log_var': 3}
    """

    scores_any_z: bool = True

    def build(self, input_shape: Sequence[Shape]) -> None:
        """Create the weights. input_shape: list of the encoder's output shapes, the first (None, latent_dim)."""
        self.latent_dim = input_shape[0][-1]
        super().build(input_shape)

    def outputs(self, latent_dim: int) -> dict[str, int]:
        """Return {name: units} of the encoder's outputs in order, for z of size latent_dim."""
        latent_dim = arguments.integer_at_least("latent_dim", latent_dim, 1)
        return {"z_mean": latent_dim, "z_log_var": latent_dim}

    @abc.abstractmethod
    def distribution(self, outputs: Sequence[Tensor]) -> Reparameterized:
        """Return q(z|x) from the list of the encoder's outputs, tensors (n, units)."""

    def check_outputs(self, shapes: Sequence[Shape]) -> None:
        """Raise ValueError unless the encoder's outputs have the expected shapes, a list of (None, units)."""
        expected = self.outputs(shapes[0][-1])
        if [tuple(shape[1:]) for shape in shapes] != [(units,) for units in expected.values()]:
            listing = ", ".join(f"{name} (n, {units})" for name, units in expected.items())
            advice = "The networks of kvae.networks give that with the argument posterior_family=."
            if len(expected) == 2 and len(shapes) == 3 and len(set(shapes)) == 1:
                advice = "Leave out the third, z: kvae draws it itself, in its Sampling layer."
            raise ValueError(
                f"The encoder gives outputs of shapes {shapes}; {type(self).__name__} reads [{listing}]. {advice}"
            )


@keras.saving.register_keras_serializable("kvae")
class DiagonalNormal(Posterior):
    """q(z|x) = N(z_mean, diag(exp(z_log_var))).

    Example:

    >>> q = kvae.posteriors.DiagonalNormal().distribution([ops.zeros((4, 2)), ops.zeros((4, 2))])
    >>> tuple(q.sample(seed=0).shape)
    (4, 2)

    Reference:
        Kingma and Welling (2014), "Auto-encoding variational Bayes", appendix C.2.
    """

    def distribution(self, outputs: Sequence[Tensor]) -> Normal:
        return Normal(*outputs)


@keras.saving.register_keras_serializable("kvae")
class FullNormal(Posterior):
    """q(z|x) = N(z_mean, L L^T) with exp(z_log_var / 2) on L's diagonal, and correlations from a third output.

    The exact posterior of a linear decoder is of this family. It is diagonal only if the decoder's columns are
    orthogonal.

    The third output, z_below, fills a lower triangular matrix B below its diagonal of 1, row by row. With C the
    correlation matrix of B B^T, the latents have the correlation matrix 0.99 C + 0.01 I. Its condition number stays
    below 100 latent_dim for all outputs: float32 suffices for the density of a given z. In the book z_below is in L
    itself. Then errors grow exponentially with latent_dim, even with bounded rows.

    Raises:
        ValueError: by `outputs`, for a single latent.

    Example:

    >>> family = kvae.posteriors.FullNormal()
    >>> family.outputs(latent_dim=3)
    {'z_mean': 3, 'z_log_var': 3, 'z_below': 3}
    >>> encoder = kvae.networks.dense_encoder((6,), 3, posterior_family=family)
    >>> model = kvae.VAE(encoder, kvae.networks.dense_decoder((6,), 3), posterior_family=family)

    Reference:
        Kingma and Welling (2019), "An introduction to variational autoencoders", section 2.5.1.
    """

    def outputs(self, latent_dim: int) -> dict[str, int]:
        names = super().outputs(latent_dim)
        if latent_dim < 2:
            raise ValueError("A FullNormal of 1 latent is a DiagonalNormal: use that.")
        return {**names, "z_below": latent_dim * (latent_dim - 1) // 2}

    def distribution(self, outputs: Sequence[Tensor]) -> MultivariateNormal:
        mean, log_var, below = outputs
        size = mean.shape[1]
        # Row i has i entries below the diagonal, one after the other in `below`.
        columns = np.zeros((size, size), "int32")
        columns[np.tril_indices(size, -1)] = np.arange(below.shape[1])
        below = ops.take(ops.clip(below, -_BELOW_LIMIT, _BELOW_LIMIT), columns.ravel(), axis=1)
        identity = ops.eye(size, dtype=mean.dtype)
        rows = ops.tril(ops.reshape(below, (-1, size, size)), -1) + identity
        rows = rows * ops.rsqrt(ops.sum(ops.square(rows), axis=2, keepdims=True))
        correlations = ops.matmul(rows, ops.transpose(rows, (0, 2, 1)))
        correlations = (1 - _SHRINKAGE) * correlations + _SHRINKAGE * identity
        return MultivariateNormal.with_correlations(mean, log_var, correlations)


@keras.saving.register_keras_serializable("kvae")
class FlowPosterior(Posterior):
    """q(z|x) of z = f(u; context) with u ~ N(z_mean, diag(exp(z_log_var))) and a learned flow f.

    E[z] has no closed form. The code of x, the result of `encode` and `transform`, is f(z_mean).

    Args:
        flow: `kvae.flows.Flow`: `Planar`, `InverseAutoregressive` or `Coupling`.
        context: int >= 0, the units of the encoder's third output, an input of f. With 0 (default) there is no third
            output, and f is the same for all x.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        TypeError: if `flow` is no flow.
        ValueError: if `context` is negative.

    Example:

    >>> family = kvae.posteriors.FlowPosterior(kvae.flows.InverseAutoregressive(steps=2), context=32)
    >>> family.outputs(latent_dim=8)
    {'z_mean': 8, 'z_log_var': 8, 'context': 32}

    Reference:
        Rezende and Mohamed (2015), "Variational inference with normalizing flows".
    """

    def __init__(self, flow: Flow, context: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.flow = arguments.instance("flow", flow, Flow, "one of kvae.flows, such as Planar(steps=8)")
        self.context = arguments.integer_at_least("context", context, 0)

    @property
    def scores_any_z(self) -> bool:
        return self.flow.invertible

    def outputs(self, latent_dim: int) -> dict[str, int]:
        return {**super().outputs(latent_dim), **({"context": self.context} if self.context else {})}

    def build(self, input_shape: Sequence[Shape]) -> None:
        self.flow.build_for(input_shape[0], *input_shape[2:])
        super().build(input_shape)

    def distribution(self, outputs: Sequence[Tensor]) -> Transformed:
        mean, log_var, *context = outputs
        return Transformed(Normal(mean, log_var), self.flow, *context)

    def get_config(self) -> dict[str, Any]:
        flow = keras.saving.serialize_keras_object(self.flow)
        return {**super().get_config(), "flow": flow, "context": self.context}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "flow": keras.saving.deserialize_keras_object(config["flow"])})
