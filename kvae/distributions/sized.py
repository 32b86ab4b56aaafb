"""Counts with more zeros than a count distribution has, and counts whose means are shares of a size."""

import dataclasses
from typing import Any

import keras
from keras import ops

from kvae.arguments import Seed, Tensor
from kvae.distributions.base import Distribution, seeds
from kvae.distributions.counts import NegativeBinomial, Poisson
from kvae.distributions.normal import sum_event


@dataclasses.dataclass(frozen=True)
class ZeroInflated(Distribution):
    """Independent counts, each 0 with probability sigmoid(zero_logits), and else a draw of `base`.

    Args:
        base: `Poisson` or `NegativeBinomial` of n rows.
        zero_logits: tensor (n, ...).

    Example:

    >>> base = kvae.distributions.Poisson(ops.zeros((1, 1)))
    >>> p = kvae.distributions.ZeroInflated(base, zero_logits=ops.zeros((1, 1)))
    >>> p.log_prob(ops.zeros((1, 1))).numpy().round(4)  # log(1/2 + 1/2 exp(-1))
    array([-0.3799], dtype=float32)

    Reference:
        Lambert (1992), "Zero-inflated Poisson regression, with an application to defects in manufacturing".
    """

    base: Poisson | NegativeBinomial
    zero_logits: Tensor

    @property
    def mean(self) -> Tensor:
        return ops.sigmoid(-self.zero_logits) * self.base.mean

    @property
    def variance(self) -> Tensor:
        """(1 - p) (variance + p mean^2), with p = sigmoid(zero_logits) and the moments of `base`."""
        zero, mean = ops.sigmoid(self.zero_logits), self.base.mean
        return (1.0 - zero) * (self.base.variance + zero * ops.square(mean))

    def scaled(self, log_size: Tensor) -> "ZeroInflated":
        """The same counts with the means of `base` times exp(log_size)."""
        return dataclasses.replace(self, base=self.base.scaled(log_size))

    def elementwise_log_prob(self, x: Tensor) -> Tensor:
        """log p of each count in nats, x (n, ...) to (n, ...)."""
        counted = ops.log_sigmoid(-self.zero_logits) + self.base.elementwise_log_prob(x)
        return ops.where(x == 0, ops.logaddexp(ops.log_sigmoid(self.zero_logits), counted), counted)

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """sum(log(p [x = 0] + (1 - p) p_base(x))) in nats, p = sigmoid(zero_logits): (n, ...) to (n,).

        `observed` masks x.
        """
        return sum_event(self.elementwise_log_prob(x), observed)

    def sample(self, seed: Seed) -> Tensor:
        of_zero, of_count = seeds(seed, 2)
        uniform = keras.random.uniform(ops.shape(self.zero_logits), dtype=self.zero_logits.dtype, seed=of_zero)
        return ops.where(uniform < ops.sigmoid(self.zero_logits), 0.0, self.base.sample(of_count))


@dataclasses.dataclass(frozen=True)
class SharesOfTotal(Distribution):
    """Counts given their sum: their means are the sum times the means of `base`, which are shares.

    `log_prob` is log p(x | the sum of x), so it takes no mask of x. Means and samples are those at `typical_size`.

    Args:
        base: `Poisson`, `NegativeBinomial` or `ZeroInflated` of n rows, with means that sum to 1.
        typical_size: number > 0.

    Example:

    >>> shares = kvae.distributions.Poisson(ops.log(ops.array([[0.25, 0.75]])))
    >>> p = kvae.distributions.SharesOfTotal(shares, typical_size=100.0)
    >>> p.mean.numpy().round(3), p.log_prob(ops.array([[2.0, 6.0]])).numpy().round(4)  # Poisson with the rates 2 and 6
    (array([[25., 75.]], dtype=float32), array([-3.1355], dtype=float32))
    """

    base: Any
    typical_size: float

    @property
    def _typical(self):
        return self.base.scaled(ops.log(ops.convert_to_tensor(self.typical_size, self.base.mean.dtype)))

    @property
    def mean(self) -> Tensor:
        return self._typical.mean

    @property
    def variance(self) -> Tensor:
        return self._typical.variance

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x | size) in nats, x (n, ...) to (n,), with the size sum(x)."""
        return sum_event(self.at_sizes_of(x).elementwise_log_prob(x))

    def at_sizes_of(self, x: Tensor, observed: Tensor | None = None) -> Any:
        """The counts of rows with the totals of x (n, ...); `observed` isn't read."""
        total = ops.sum(x, axis=tuple(range(1, len(x.shape))), keepdims=True)
        return self.base.scaled(ops.log(ops.maximum(total, 1e-20)))

    def sample(self, seed: Seed) -> Tensor:
        return self._typical.sample(seed)
