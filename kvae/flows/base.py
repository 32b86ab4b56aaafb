"""Base class of flows, and the distribution of a flow's output."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, Self

import keras
from keras import ops

from kvae import arguments
from kvae.arguments import Seed, Shape, Tensor
from kvae.distributions import Normal, Reparameterized
from kvae.distributions.base import freeze, frozen


class Flow(keras.layers.Layer, abc.ABC):
    """Base class of flows: layers z = f(eps; context) on (n, latent_dim), several maps one after the other.

    A flow starts as the identity or close to it. A subclass defines `call`, `build`, and `inverse` if it has one in
    closed form; otherwise it sets `invertible` to False.

    Args:
        steps: int >= 1, the number of maps.
        **kwargs: of `keras.layers.Layer`.

    Attributes:
        invertible: bool, True if `inverse` has a closed form. A prior needs it.

    Raises:
        ValueError: if `steps` is less than 1.

    Example:

    >>> class Scale(kvae.flows.Flow):
    ...     def build(self, input_shape, context_shape=None):
    ...         self.log_scale = self.add_weight(shape=input_shape[1:], initializer="zeros")
    ...         super().build(input_shape, context_shape)
    ...     def call(self, eps, context=None):
    ...         return eps * ops.exp(self.log_scale), ops.sum(self.log_scale)
    ...     def inverse(self, z, context=None):
    ...         return z * ops.exp(-self.log_scale), -ops.sum(self.log_scale)
    >>> prior = kvae.FlowPrior(Scale(steps=1))
    """

    invertible: bool = True

    def __init__(self, steps: int, **kwargs: Any):
        # Not in half precision, too coarse for log-determinants.
        super().__init__(**{"dtype": keras.config.dtype_policy().variable_dtype, **kwargs})
        self.steps = arguments.integer_at_least("steps", steps, 1)

    def build(self, input_shape: Shape, context_shape: Shape | None = None) -> None:
        """Create the weights.

        Args:
            input_shape: (None, latent_dim).
            context_shape: (None, units) if the maps depend on a context. Default None.
        """
        self.latent_dim, self.context_dim = input_shape[-1], _units(context_shape)
        super().build(input_shape)

    def build_for(self, input_shape: Shape, context_shape: Shape | None = None) -> None:
        """Build the flow, or check the shapes of a flow that is built already.

        Args:
            input_shape: (None, latent_dim).
            context_shape: (None, units) if the maps depend on a context. Default None.

        Raises:
            ValueError: if the flow was built for other shapes.
        """
        if not self.built:
            self.build(input_shape, context_shape)
        built, expected = (self.latent_dim, self.context_dim), (input_shape[-1], _units(context_shape))
        if built != expected:
            of_flow, here = (f"{latents} latents and a context of {units}" for latents, units in (built, expected))
            raise ValueError(f"The {type(self).__name__} was built for {of_flow}, and here are {here}: make another.")

    @abc.abstractmethod
    def call(self, eps: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map eps to z.

        Args:
            eps: tensor (n, latent_dim).
            context: tensor (n, units), or None (default).

        Returns:
            (z, log |det dz/deps|): tensors (n, latent_dim) and (n,).
        """

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z to eps.

        Args:
            z: tensor (n, latent_dim).
            context: tensor (n, units), or None (default).

        Returns:
            (eps, log |det deps/dz|): tensors (n, latent_dim) and (n,).

        Raises:
            NotImplementedError: if the flow has no inverse in closed form.
        """
        raise NotImplementedError(f"{type(self).__name__} has no inverse in closed form.")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "steps": self.steps}


def _units(context_shape):
    return 0 if context_shape is None else context_shape[-1]


@dataclasses.dataclass(frozen=True)
class Transformed(Reparameterized):
    """z = f(u; context) with u ~ base: log p(z) = log p(u) - log |det dz/du|.

    Args:
        base: `Normal` with n rows.
        flow: built `Flow`.
        context: tensor (n, units), or None (default).
        constants: tuple, `freeze` of the flow if it is constant to the gradient. Default ().

    Example:

    >>> flow = kvae.flows.Coupling(steps=2)
    >>> flow.build((None, 2))
    >>> q = kvae.flows.Transformed(kvae.distributions.Normal(ops.zeros((1, 2)), ops.zeros((1, 2))), flow)
    >>> q.log_prob(ops.zeros((1, 2))).numpy().round(4)  # an untrained flow is the identity: -log 2 pi
    array([-1.8379], dtype=float32)

    Reference:
        Rezende and Mohamed (2015), "Variational inference with normalizing flows", equation 5.
    """

    base: Normal
    flow: Flow
    context: Tensor | None = None
    constants: tuple[tuple[Any, Tensor], ...] = ()

    @property
    def mean(self) -> Tensor:
        """f(mean of the base), (n, latent_dim): a central point. E[z] has no closed form."""
        return self.reparameterize(ops.zeros_like(self.base.mean))

    def rsample_and_log_prob(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        u, log_prob = self.base.rsample_and_log_prob(eps)
        z, log_determinant = self.flow(u, self.context)
        return z, log_prob - log_determinant

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) = log p(u) + log |det du/dz| in nats, with u from the flow's inverse: z (n, latent_dim) to (n,)."""
        with frozen(self.constants):
            u, log_determinant = self.flow.inverse(z, self.context)
        return self.base.log_prob(u) + log_determinant

    def sample(self, seed: Seed) -> Tensor:
        return self.flow(self.base.sample(seed), self.context)[0]

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        context = None if self.context is None else function(self.context)
        return dataclasses.replace(self, base=self.base.map(function), context=context)

    def stop_gradient(self) -> Self:
        return dataclasses.replace(super().stop_gradient(), constants=freeze(self.flow))
