"""Mixtures of distributions."""

import dataclasses

import keras
from keras import ops

from kvae.arguments import Seed, Tensor
from kvae.distributions.base import Distribution, Reparameterized, seeds


@dataclasses.dataclass(frozen=True)
class Mixture(Distribution):
    """p(z) = sum_k weight_k p_k(z), the same distribution for each of `count` rows.

    Args:
        components: distribution over latents with k rows, such as a `Normal` with parameters (k, latent_dim).
        log_weights: tensor (k,), the logarithms of weights with sum 1. None (default) for equal weights.
        count: int, the number of rows. Default 1.

    Example:

    >>> means = ops.array([[-2.0], [2.0]])
    >>> p = kvae.distributions.Mixture(kvae.distributions.Normal(means, ops.zeros((2, 1))))
    >>> p.log_prob(ops.array([[0.0], [2.0]])).numpy().round(4)
    array([-2.9189, -1.6118], dtype=float32)
    """

    components: Reparameterized
    log_weights: Tensor | None = None
    count: int = 1

    @property
    def _log_weights(self):
        if self.log_weights is not None:
            return self.log_weights
        mean = self.components.mean
        return ops.full((mean.shape[0],), -ops.log(ops.cast(mean.shape[0], mean.dtype)), dtype=mean.dtype)

    @property
    def mean(self) -> Tensor:
        mean = ops.matmul(ops.exp(self._log_weights)[None], self.components.mean)
        return ops.repeat(mean, self.count, axis=0)

    def log_prob(self, z: Tensor) -> Tensor:
        """log sum_k weight_k p_k(z) in nats: (n, latent_dim) to (n,)."""
        return ops.logsumexp(self._log_weights + self.components.pairwise_log_prob(z), axis=1)

    def sample(self, seed: Seed) -> Tensor:
        component_seed, z_seed = seeds(seed, 2)
        numbers = keras.random.categorical(self._log_weights[None], self.count, seed=component_seed)[0]
        return self.components.take(numbers).sample(z_seed)
