"""Mixtures of distributions, as values."""

import dataclasses

import keras
from keras import ops

from kvae.distributions.base import Distribution, seeds


@dataclasses.dataclass(frozen=True)
class Mixture(Distribution):
    """p(z) = sum_k weight_k p_k(z), the same for each of `count` rows.

    Args:
        components: a distribution over latents with k rows, such as `Normal` with parameters (k, latent_dim).
        log_weights: tensor (k,), the logarithms of weights that sum to one; None where they are equal.
        count: int, the rows.
    """

    components: Distribution
    log_weights: object = None
    count: int = 1

    @property
    def _log_weights(self):
        if self.log_weights is not None:
            return self.log_weights
        mean = self.components.mean
        return ops.full((mean.shape[0],), -ops.log(ops.cast(mean.shape[0], mean.dtype)), dtype=mean.dtype)

    @property
    def mean(self):
        mean = ops.matmul(ops.exp(self._log_weights)[None], self.components.mean)
        return ops.repeat(mean, self.count, axis=0)

    def log_prob(self, z):
        """log sum_k weight_k p_k(z): (n, latent_dim) to (n,)."""
        return ops.logsumexp(self._log_weights + self.components.pairwise_log_prob(z), axis=1)

    def sample(self, seed):
        chosen, drawn = seeds(seed, 2)
        numbers = keras.random.categorical(self._log_weights[None], self.count, seed=chosen)[0]
        return self.components.take(numbers).sample(drawn)
