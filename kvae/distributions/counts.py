"""Distributions over counts 0, 1, 2, ..."""

import dataclasses

import keras
from keras import ops

from kvae.distributions.base import Distribution, seeds, sum_event

LOG_MEAN_LIMIT = 50.0
LOG_DISPERSION_LIMIT = 20.0


def log_rising_factorial(start, count):
    """log(start (start + 1) ... (start + count - 1)) = log Gamma(start + count) - log Gamma(start), elementwise.

    By Stirling's series at start + 8 and the eight factors before it (NIST handbook, 5.5.1 and 5.11.1). The difference
    is taken term by term: for a large start both log Gammas are nearly all of it equal, and float32 would lose it.

    Args:
        start: positive number or tensor.
        count: tensor of numbers >= 0, whole or not.
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
    """Poisson counts: how many points of a process with rate 1 lie before `rate`.

    Its m-th point lies at a gamma(m) distributed place, the m - 1 before it uniformly in between, so a binomial number
    of them before `rate` where the m-th is beyond it: for this m it is, but for one case in 10^13.
    """
    of_place, of_count = seeds(seed, 2)
    points = ops.ceil(rate + 10.0 * ops.sqrt(rate) + 20.0)
    place = keras.random.gamma(ops.shape(rate), points, dtype=rate.dtype, seed=of_place)
    share = ops.minimum(rate / place, 1.0)
    return keras.random.binomial(ops.shape(rate), points - 1.0, share, dtype=rate.dtype, seed=of_count)


@dataclasses.dataclass(frozen=True)
class Poisson(Distribution):
    """Independent counts with p(x) = rate^x exp(-rate) / x!, mean and variance `rate`.

    Args:
        log_rate: tensor (n, ...), held within +-50 so that no rate overflows float32.
    """

    log_rate: object

    def __post_init__(self):
        object.__setattr__(self, "log_rate", ops.clip(self.log_rate, -LOG_MEAN_LIMIT, LOG_MEAN_LIMIT))

    @property
    def mean(self):
        return ops.exp(self.log_rate)

    def log_prob(self, x):
        """sum(x log rate - rate - log x!)."""
        return sum_event(x * self.log_rate - self.mean - log_rising_factorial(1.0, x))

    def sample(self, seed):
        return _poisson(self.mean, seed)


@dataclasses.dataclass(frozen=True)
class NegativeBinomial(Distribution):
    """Independent counts with variance mean + dispersion mean^2: a Poisson whose rate is gamma distributed.

    With r = 1 / dispersion, p(x) = Gamma(r + x) / (Gamma(r) x!) (r / (r + mean))^r (mean / (r + mean))^x. A dispersion
    of 0 would be the Poisson. Its inverse r is the theta of scvi-tools and R's MASS ("inverse dispersion").

    Args:
        log_mean: tensor (n, ...), held within +-50.
        log_dispersion: tensor that broadcasts to the means' shape, held within +-20.
    """

    log_mean: object
    log_dispersion: object

    def __post_init__(self):
        for name, limit in (("log_mean", LOG_MEAN_LIMIT), ("log_dispersion", LOG_DISPERSION_LIMIT)):
            object.__setattr__(self, name, ops.clip(getattr(self, name), -limit, limit))

    @property
    def mean(self):
        return ops.exp(self.log_mean)

    def log_prob(self, x):
        """sum(log Gamma(r + x) / (Gamma(r) x!) - r softplus(l) - x softplus(-l)), where l = log(mean / r)."""
        r = ops.exp(-self.log_dispersion)
        log_odds = self.log_mean + self.log_dispersion
        ways = log_rising_factorial(r, x) - log_rising_factorial(1.0, x)
        return sum_event(ways - r * ops.softplus(log_odds) - x * ops.softplus(-log_odds))

    def sample(self, seed):
        of_rate, of_count = seeds(seed, 2)
        r = ops.broadcast_to(ops.exp(-self.log_dispersion), ops.shape(self.log_mean))
        rate = keras.random.gamma(ops.shape(r), r, dtype=r.dtype, seed=of_rate) / r * self.mean
        return _poisson(rate, of_count)
