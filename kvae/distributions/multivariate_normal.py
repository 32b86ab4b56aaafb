"""Normal distributions whose covariance is not diagonal, as values."""

import dataclasses
import math

from keras import ops

from kvae.distributions.base import Reparameterized, sum_event
from kvae.distributions.normal import LOG_VAR_LIMIT, Normal


@dataclasses.dataclass(frozen=True)
class MultivariateNormal(Reparameterized):
    """N(mean, L L^T), L = D U: D diagonal, exp(log_var / 2) within exp(+-20), U lower triangular with a diagonal of 1.

    Each row of L has the scale of its own latent, so that small variances don't make solving with it inexact;
    that, and so the density of a given z, is as exact as U is well-conditioned.

    Args:
        mean: tensor (n, d).
        log_var: tensor (n, d), the logarithms of L's squared diagonal: the variance of z_i given those before it.
        below: tensor (n, d, d), whose entries below the diagonal are U's; the others aren't read.
    """

    mean: object
    log_var: object
    below: object

    def __post_init__(self):
        object.__setattr__(self, "log_var", ops.clip(self.log_var, -LOG_VAR_LIMIT, LOG_VAR_LIMIT))

    @classmethod
    def with_correlations(cls, mean, log_var, correlations):
        """The N(mean, L L^T) whose correlation matrix is given, (n, d, d), with the log_var of L's diagonal."""
        factor = _cholesky(correlations)
        return cls(mean, log_var, factor / ops.diagonal(factor, axis1=1, axis2=2)[:, :, None])

    @property
    def _unit(self):
        return ops.tril(self.below, -1) + ops.eye(self.mean.shape[1], dtype=self.mean.dtype)

    @property
    def cholesky(self):
        """L, (n, d, d)."""
        return ops.exp(0.5 * self.log_var)[:, :, None] * self._unit

    def _log_prob(self, eps_squared):
        constant = self.mean.shape[1] * math.log(2 * math.pi)
        return -0.5 * (eps_squared + ops.sum(self.log_var, axis=1) + constant)

    def log_prob(self, z):
        """-1/2 (|L^-1 (z - mean)|^2 + log det L L^T + d log 2 pi)."""
        standardised = (z - self.mean) * ops.exp(-0.5 * self.log_var)
        eps = ops.solve_triangular(self._unit, ops.expand_dims(standardised, 2), lower=True)
        return self._log_prob(sum_event(ops.square(eps)))

    def pairwise_log_prob(self, z):
        standardised = (ops.transpose(z)[None] - self.mean[:, :, None]) * ops.exp(-0.5 * self.log_var)[:, :, None]
        eps = ops.solve_triangular(self._unit, standardised, lower=True)  # (n, d, m)
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
        ratio = ops.exp(0.5 * (self.log_var - other.log_var))
        return diagonal + 0.5 * ops.sum(ops.square(ratio[:, :, None] * ops.tril(self.below, -1)), axis=2)


@ops.custom_gradient
def _cholesky(matrices):
    """The Cholesky factors of (n, d, d): a NaN stays one, in the gradient too, where Keras' own function stops the run.

    Murray (2016), "Differentiation of the Cholesky decomposition".
    """
    finite = ops.isfinite(matrices)
    identity = ops.eye(matrices.shape[1], dtype=matrices.dtype)
    factor = ops.cholesky(ops.where(finite, matrices, identity))

    def gradient(upstream):
        transposed = _transpose(factor)
        inner = ops.tril(ops.matmul(transposed, upstream)) * (1 - 0.5 * identity)
        half = ops.solve_triangular(transposed, inner, lower=False)
        both = ops.solve_triangular(transposed, _transpose(half), lower=False)
        return 0.5 * (both + _transpose(both))

    return ops.where(finite, factor, matrices), gradient


def _transpose(matrices):
    return ops.transpose(matrices, (0, 2, 1))
