"""Distributions over counts 0, 1, 2, ..."""

import dataclasses

import keras
from keras import ops

from kvae.arguments import Seed, Tensor
from kvae.distributions.base import Distribution, seeds
from kvae.distributions.normal import sum_event

LOG_MEAN_LIMIT = 50.0
LOG_DISPERSION_LIMIT = 20.0


def log_rising_factorial(start: Tensor, count: Tensor) -> Tensor:
    """log(start (start + 1) ... (start + count - 1)) = log Gamma(start + count) - log Gamma(start), elementwise.

    Stirling's series at start + 8, and the eight factors before it (NIST handbook, 5.5.1 and 5.11.1). The terms are
    subtracted pairwise: for a large start the two log Gammas are nearly equal, and float32 would lose their difference.

    Args:
        start: positive number, or tensor of such.
        count: tensor of real numbers >= 0.
    """
    far = start + 8.0
    stirling = (far - 0.5) * ops.log1p(count / far) + count * (ops.log(far + count) - 1.0)
    factors = sum(ops.log1p(count / (start + step)) for step in range(8))
    return stirling + _stirling_remainder(far + count) - _stirling_remainder(far) - factors


def _stirling_remainder(x):
    """log Gamma(x) - ((x - 1/2) log x - x + 1/2 log 2 pi), for x >= 8."""
    square = 1.0 / (x * x)
    return (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188)))) / x


def _poisson(rate, seed):
    """Draw Poisson counts: the number of points of a process with rate 1 in [0, rate].

    The position of the m-th point is gamma(m) distributed, and the m - 1 points before it are uniform. Given that the
    m-th is beyond `rate`, a binomial number of them is within. With this m it is, except in one case of 10^13.
    """
    of_position, of_count = seeds(seed, 2)
    points = ops.ceil(rate + 10.0 * ops.sqrt(rate) + 20.0)
    position = keras.random.gamma(ops.shape(rate), points, dtype=rate.dtype, seed=of_position)
    share = ops.minimum(rate / position, 1.0)
    return keras.random.binomial(ops.shape(rate), points - 1.0, share, dtype=rate.dtype, seed=of_count)


@dataclasses.dataclass(frozen=True)
class Poisson(Distribution):
    """Independent counts with p(x) = rate^x exp(-rate) / x!. Mean and variance are `rate`.

    Args:
        log_rate: tensor (n, ...), the logarithm of the rate, clipped to [-50, 50]: no rate overflows float32.

    Example:

    >>> p = kvae.distributions.Poisson(ops.log(ops.array([[2.0, 5.0]])))
    >>> p.log_prob(ops.array([[0.0, 5.0]])).numpy().round(4)
    array([-3.7403], dtype=float32)
    """

    log_rate: Tensor

    def __post_init__(self):
        object.__setattr__(self, "log_rate", ops.clip(self.log_rate, -LOG_MEAN_LIMIT, LOG_MEAN_LIMIT))

    @property
    def mean(self) -> Tensor:
        return ops.exp(self.log_rate)

    @property
    def variance(self) -> Tensor:
        return self.mean

    def scaled(self, log_size: Tensor) -> "Poisson":
        """The same counts with means times exp(log_size), a tensor that broadcasts."""
        return dataclasses.replace(self, log_rate=self.log_rate + log_size)

    def elementwise_log_prob(self, x: Tensor) -> Tensor:
        """x log rate - rate - log x! in nats, of each count: (n, ...)."""
        return x * self.log_rate - self.mean - log_rising_factorial(1.0, x)

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """sum(x log rate - rate - log x!) in nats: (n, ...) to (n,); `observed` masks x."""
        return sum_event(self.elementwise_log_prob(x), observed)

    def sample(self, seed: Seed) -> Tensor:
        return _poisson(self.mean, seed)


@dataclasses.dataclass(frozen=True)
class NegativeBinomial(Distribution):
    """Independent counts with variance mean + dispersion mean^2: a Poisson with a gamma distributed rate.

    With r = 1 / dispersion, p(x) = Gamma(r + x) / (Gamma(r) x!) (r / (r + mean))^r (mean / (r + mean))^x. At
    dispersion = 0 this is the Poisson. The inverse r is the theta of scvi-tools and of R's MASS ("inverse dispersion").

    Args:
        log_mean: tensor (n, ...), the logarithm of the mean, clipped to [-50, 50].
        log_dispersion: tensor that broadcasts to the shape of the means, clipped to [-20, 20].

    Example:

    >>> p = kvae.distributions.NegativeBinomial(ops.log(ops.array([[2.0]])), log_dispersion=ops.array(0.0))
    >>> p.log_prob(ops.array([[0.0]])).numpy().round(4)  # log 1/3
    array([-1.0986], dtype=float32)
    """

    log_mean: Tensor
    log_dispersion: Tensor

    def __post_init__(self):
        for name, limit in (("log_mean", LOG_MEAN_LIMIT), ("log_dispersion", LOG_DISPERSION_LIMIT)):
            object.__setattr__(self, name, ops.clip(getattr(self, name), -limit, limit))

    @property
    def mean(self) -> Tensor:
        return ops.exp(self.log_mean)

    @property
    def variance(self) -> Tensor:
        return self.mean + ops.exp(self.log_dispersion) * ops.square(self.mean)

    def scaled(self, log_size: Tensor) -> "NegativeBinomial":
        """The same counts with means times exp(log_size), a tensor that broadcasts, and the same dispersion."""
        return dataclasses.replace(self, log_mean=self.log_mean + log_size)

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """sum(log Gamma(r + x) / (Gamma(r) x!) - r softplus(l) - x softplus(-l)) in nats, with l = log(mean / r).

        `observed` is a mask of x, as in the base class.
        """
        return sum_event(self.elementwise_log_prob(x), observed)

    def elementwise_log_prob(self, x: Tensor) -> Tensor:
        """The terms of `log_prob`, one for each count: x (n, ...) to (n, ...)."""
        r = ops.exp(-self.log_dispersion)
        log_odds = self.log_mean + self.log_dispersion
        ways = log_rising_factorial(r, x) - log_rising_factorial(1.0, x)
        return ways - r * ops.softplus(log_odds) - x * ops.softplus(-log_odds)

    def sample(self, seed: Seed) -> Tensor:
        of_rate, of_count = seeds(seed, 2)
        r = ops.broadcast_to(ops.exp(-self.log_dispersion), ops.shape(self.log_mean))
        rate = keras.random.gamma(ops.shape(r), r, dtype=r.dtype, seed=of_rate) / r * self.mean
        return _poisson(rate, of_count)
