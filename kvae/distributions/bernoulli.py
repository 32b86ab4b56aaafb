"""The Bernoulli distribution."""

import dataclasses
import math

import keras
from keras import ops

from kvae.distributions.base import Distribution, sum_event


@ops.custom_gradient
def _sum_softplus(logits):
    """sum(log(1 + exp(logits))) over the event, with one logarithm for up to 32 of its terms, as of their product."""
    rows = ops.reshape(logits, (-1, math.prod(logits.shape[1:])))
    factors, terms = 1.0 + ops.exp(-ops.abs(rows)), 1
    while terms < 32 and factors.shape[1] % 2 == 0:
        half = factors.shape[1] // 2
        factors, terms = factors[:, :half] * factors[:, half:], 2 * terms

    def gradient(upstream):
        return ops.sigmoid(logits) * ops.reshape(upstream, (-1,) + (1,) * (len(logits.shape) - 1))

    return ops.sum(ops.relu(rows), axis=1) + ops.sum(ops.log(factors), axis=1), gradient


@dataclasses.dataclass(frozen=True)
class Bernoulli(Distribution):
    """Independent x in {0, 1} with probabilities sigmoid(logits).

    Args:
        logits: tensor (n, ...), log(p / (1 - p)).
    """

    logits: object

    @property
    def mean(self):
        return ops.sigmoid(self.logits)

    def log_prob(self, x):
        """sum(x logits - log(1 + exp(logits)))."""
        return sum_event(x * self.logits) - _sum_softplus(self.logits)

    def sample(self, seed):
        uniform = keras.random.uniform(ops.shape(self.logits), dtype=self.logits.dtype, seed=seed)
        return ops.cast(uniform < self.mean, self.logits.dtype)
