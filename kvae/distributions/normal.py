"""The normal distribution of diagonal covariance."""

import dataclasses
import math

from keras import ops

from kvae.distributions.base import Reparameterized, sum_event

_LOG_2PI = math.log(2.0 * math.pi)
LOG_VAR_LIMIT = 40.0


@dataclasses.dataclass(frozen=True)
class Normal(Reparameterized):
    """N(mean, diag(exp(log_var))), with log_var held within +-40 so that no density and no KL overflows float32.

    Args:
        mean: tensor (n, ...).
        log_var: tensor that broadcasts to the mean's shape; the logarithm of the variance, sigma squared.
    """

    mean: object
    log_var: object

    def __post_init__(self):
        object.__setattr__(self, "log_var", ops.clip(self.log_var, -LOG_VAR_LIMIT, LOG_VAR_LIMIT))

    @property
    def stddev(self):
        return ops.exp(0.5 * self.log_var)

    def log_prob(self, x):
        """-1/2 sum((x - mean)^2 / sigma^2 + log sigma^2 + log 2 pi)."""
        standardised = (x - self.mean) * ops.exp(-0.5 * self.log_var)
        return -0.5 * sum_event(ops.square(standardised) + (self.log_var + _LOG_2PI))

    def pairwise_log_prob(self, z):
        """log N(z_m; mean_k, sigma_k^2), (m, d) to (m, n): the square multiplied out, which makes it a matrix product.

        In float64: in float32 its terms, of up to 1e5, leave an error of hundredths of a nat where sigma is small.
        """
        z, mean, log_var = (ops.cast(values, "float64") for values in (z, self.mean, self.log_var))
        precision = ops.exp(-log_var)
        columns = ops.concatenate([precision, -2.0 * mean * precision], axis=1)
        distance = ops.matmul(ops.concatenate([ops.square(z), z], axis=1), ops.transpose(columns))
        distance = ops.maximum(distance + sum_event(ops.square(mean) * precision), 0.0)
        return ops.cast(-0.5 * (distance + sum_event(log_var + _LOG_2PI)), self.mean.dtype)

    def reparameterize(self, eps):
        """mean + sigma * eps, differentiable in both parameters (Kingma and Welling 2014, section 2.4)."""
        return self.mean + self.stddev * eps

    def rsample_and_log_prob(self, eps):
        """z = mean + sigma * eps, and -1/2 sum(eps^2 + log sigma^2 + log 2 pi)."""
        log_prob = -0.5 * sum_event(ops.square(eps) + (self.log_var + _LOG_2PI))
        return self.reparameterize(eps), log_prob

    def kl_divergence(self, other):
        """KL(self || other) in nats, a column a dimension: their sum is the divergence (both are diagonal).

        1/2 ((mean - mean')^2 / sigma'^2 + expm1(d) - d) with d = log sigma^2 - log sigma'^2: the textbook's
        exp(d) - 1 - d falls below zero in float32 near its minimum, this doesn't. None where the other isn't a Normal.
        """
        if not isinstance(other, Normal):
            return None
        difference = self.log_var - other.log_var
        standardised = (self.mean - other.mean) * ops.exp(-0.5 * other.log_var)
        return 0.5 * (ops.square(standardised) + ops.expm1(difference) - difference)
