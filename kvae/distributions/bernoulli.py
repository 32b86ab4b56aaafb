"""The Bernoulli distribution."""

import dataclasses
import math

import keras
from keras import ops

from kvae.arguments import Seed, Tensor
from kvae.distributions.base import Distribution
from kvae.distributions.normal import sum_event


@ops.custom_gradient
def _sum_softplus(logits):
    """sum(log(1 + exp(logits))) over the event, with one logarithm of a product in place of up to 32 logarithms."""
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

    Example:

    >>> p = kvae.distributions.Bernoulli(ops.array([[0.0, 0.0]]))
    >>> p.mean.numpy(), p.log_prob(ops.array([[0.0, 1.0]])).numpy().round(4)  # 2 log 1/2
    (array([[0.5, 0.5]], dtype=float32), array([-1.3863], dtype=float32))
    """

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        return ops.sigmoid(self.logits)

    def log_prob(self, x: Tensor) -> Tensor:
        """sum(x logits - log(1 + exp(logits))) in nats: (n, ...) to (n,)."""
        return sum_event(x * self.logits) - _sum_softplus(self.logits)

    def sample(self, seed: Seed) -> Tensor:
        uniform = keras.random.uniform(ops.shape(self.logits), dtype=self.logits.dtype, seed=seed)
        return ops.cast(uniform < self.mean, self.logits.dtype)
