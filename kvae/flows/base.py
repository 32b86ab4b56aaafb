"""What a flow is, and the distribution that it makes of a normal one."""

import abc
import dataclasses

import keras
from keras import ops

from kvae import arguments
from kvae.distributions import Normal, Reparameterized
from kvae.distributions.base import held, hold


class Flow(keras.layers.Layer, abc.ABC):
    """z = f(eps; context) of (n, latent_dim), some maps one after the other, the identity or close to it at the start.

    Args:
        steps: int, the number of maps.
    """

    invertible = True  # False where only the map itself has a closed form

    def __init__(self, steps, **kwargs):
        # Not in half precision, where the log-determinants would be off: here the probabilities begin.
        super().__init__(**{"dtype": keras.config.dtype_policy().variable_dtype, **kwargs})
        self.steps = arguments.integer_at_least("steps", steps, 1)

    def build(self, input_shape, context_shape=None):
        """input_shape: (None, latent_dim). context_shape: (None, units) where the maps depend on an image."""
        self.latent_dim, self.context_dim = input_shape[-1], _units(context_shape)
        super().build(input_shape)

    def build_for(self, input_shape, context_shape=None):
        """`build`, but for a flow that something else has built: ValueError where it doesn't fit."""
        if not self.built:
            self.build(input_shape, context_shape)
        found, expected = (self.latent_dim, self.context_dim), (input_shape[-1], _units(context_shape))
        if found != expected:
            of_flow, here = (f"{latents} latents and a context of {units}" for latents, units in (found, expected))
            raise ValueError(f"The {type(self).__name__} was built for {of_flow}, and here are {here}: make another.")

    @abc.abstractmethod
    def call(self, eps, context=None):
        """(z, log |det dz/deps|): (n, latent_dim) and context (n, units) to (n, latent_dim) and (n,)."""

    def inverse(self, z, context=None):
        """(eps, log |det deps/dz|), shapes as in `call`."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse in closed form.")

    def get_config(self):
        return {**super().get_config(), "steps": self.steps}


def _units(context_shape):
    return 0 if context_shape is None else context_shape[-1]


@dataclasses.dataclass(frozen=True)
class Transformed(Reparameterized):
    """z = f(u; context) with u ~ base: log p(z) = log p(u) - log |det dz/du| (Rezende and Mohamed 2015, equation 5).

    Args:
        base: `Normal` of n rows.
        flow: a built `Flow`.
        context: tensor (n, units), or None.
        constants: what `hold` gave of the flow where it is constant to the gradient, else ().
    """

    base: Normal
    flow: Flow
    context: object = None
    constants: tuple = ()

    @property
    def mean(self):
        """f(the base's mean): a point in the middle, since E[z] has no closed form."""
        return self.reparameterize(ops.zeros_like(self.base.mean))

    def rsample_and_log_prob(self, eps):
        u, log_prob = self.base.rsample_and_log_prob(eps)
        z, log_determinant = self.flow(u, self.context)
        return z, log_prob - log_determinant

    def log_prob(self, z):
        with held(self.constants):
            u, log_determinant = self.flow.inverse(z, self.context)
        return self.base.log_prob(u) + log_determinant

    def sample(self, seed):
        return self.flow(self.base.sample(seed), self.context)[0]

    def map(self, function):
        context = None if self.context is None else function(self.context)
        return dataclasses.replace(self, base=self.base.map(function), context=context)

    def stop_gradient(self):
        return dataclasses.replace(super().stop_gradient(), constants=hold(self.flow))
