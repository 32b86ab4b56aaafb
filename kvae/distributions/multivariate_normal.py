"""Normal distributions whose covariance is not diagonal, as values."""

import dataclasses
import math

from keras import ops

from kvae.distributions.base import Reparameterized, sum_event
from kvae.distributions.normal import LOG_VAR_LIMIT, Normal


@dataclasses.dataclass(frozen=True)
class MultivariateNormal(Reparameterized):
    """N(mean, L L^T), L being lower triangular with the diagonal exp(log_var / 2), held within exp(+-25).

    Args:
        mean: tensor (n, d).
        log_var: tensor (n, d), the logarithms of L's squared diagonal: the variance of z_i given those before it.
        below: tensor (n, d, d), whose entries below the diagonal are L's; the others aren't read.
    """

    mean: object
    log_var: object
    below: object

    def __post_init__(self):
        object.__setattr__(self, "log_var", ops.clip(self.log_var, -LOG_VAR_LIMIT, LOG_VAR_LIMIT))

    @property
    def cholesky(self):
        """L, (n, d, d)."""
        return (
            ops.tril(self.below, -1)
            + ops.eye(self.mean.shape[1], dtype=self.mean.dtype) * ops.exp(0.5 * self.log_var)[:, None]
        )

    def _log_prob(self, eps_squared):
        constant = self.mean.shape[1] * math.log(2 * math.pi)
        return -0.5 * (eps_squared + ops.sum(self.log_var, axis=1) + constant)

    def log_prob(self, z):
        """-1/2 (|L^-1 (z - mean)|^2 + log det L L^T + d log 2 pi)."""
        eps = ops.solve_triangular(self.cholesky, ops.expand_dims(z - self.mean, 2), lower=True)
        return self._log_prob(sum_event(ops.square(eps)))

    def pairwise_log_prob(self, z):
        difference = ops.transpose(z)[None] - self.mean[:, :, None]
        eps = ops.solve_triangular(self.cholesky, difference, lower=True)  # (n, d, m)
        return self._log_prob(ops.transpose(ops.sum(ops.square(eps), axis=1)))

    def rsample_and_log_prob(self, eps):
        """z = mean + L eps."""
        z = self.mean + ops.squeeze(ops.matmul(self.cholesky, ops.expand_dims(eps, 2)), 2)
        return z, self._log_prob(sum_event(ops.square(eps)))

    def kl_divergence(self, other):
        """KL(self || other) for a `Normal` of diagonal covariance, a column a latent, none of them negative.

        A column is the term of z_i given those before it, by the chain rule, in expectation over those.
        """
        if not isinstance(other, Normal):
            return None
        diagonal = Normal(self.mean, self.log_var).kl_divergence(other)
        below = ops.sum(ops.square(ops.tril(self.below, -1)), axis=2)
        return diagonal + 0.5 * below * ops.exp(-other.log_var)
