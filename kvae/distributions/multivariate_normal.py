"""Normal distributions with a full covariance matrix."""

import dataclasses
import math
from typing import Self

from keras import ops

from kvae.arguments import Tensor
from kvae.distributions.base import Distribution, Reparameterized
from kvae.distributions.normal import LOG_VAR_LIMIT, Normal, sum_event


@dataclasses.dataclass(frozen=True)
class MultivariateNormal(Reparameterized):
    """N(mean, L L^T) with L = D U: D diagonal with exp(log_var / 2), U lower triangular with 1 on its diagonal.

    Each row of L has the scale of its own latent: solving with L stays exact for small variances. The density of a
    given z is as exact as U is well-conditioned.

    Args:
        mean: tensor (n, d).
        log_var: tensor (n, d), the logarithm of the variance of z_i given z_1 to z_i-1, clipped to [-40, 40].
        below: tensor (n, d, d) with U's entries below the diagonal. Other entries are ignored.

    Example:

    >>> correlations = ops.array([[[1.0, 0.6], [0.6, 1.0]]])
    >>> q = kvae.distributions.MultivariateNormal.with_correlations(ops.zeros((1, 2)), ops.zeros((1, 2)), correlations)
    >>> q.cholesky.numpy().round(2)
    array([[[1.  , 0.  ],
            [0.75, 1.  ]]], dtype=float32)
    """

    mean: Tensor
    log_var: Tensor
    below: Tensor

    def __post_init__(self):
        object.__setattr__(self, "log_var", ops.clip(self.log_var, -LOG_VAR_LIMIT, LOG_VAR_LIMIT))

    @classmethod
    def with_correlations(cls, mean: Tensor, log_var: Tensor, correlations: Tensor) -> Self:
        """Return the N(mean, L L^T) with a given correlation matrix.

        Args:
            mean: tensor (n, d).
            log_var: tensor (n, d), as in the constructor.
            correlations: tensor (n, d, d), positive definite with 1 on its diagonal.
        """
        factor = _cholesky(correlations)
        return cls(mean, log_var, factor / ops.diagonal(factor, axis1=1, axis2=2)[:, :, None])

    @property
    def _unit(self):
        return ops.tril(self.below, -1) + ops.eye(self.mean.shape[1], dtype=self.mean.dtype)

    @property
    def cholesky(self) -> Tensor:
        """L, (n, d, d)."""
        return ops.exp(0.5 * self.log_var)[:, :, None] * self._unit

    def _log_prob(self, eps_squared):
        constant = self.mean.shape[1] * math.log(2 * math.pi)
        return -0.5 * (eps_squared + ops.sum(self.log_var, axis=1) + constant)

    def log_prob(self, z: Tensor) -> Tensor:
        """-1/2 (|L^-1 (z - mean)|^2 + log det L L^T + d log 2 pi) in nats: (n, d) to (n,)."""
        standardized = (z - self.mean) * ops.exp(-0.5 * self.log_var)
        eps = ops.solve_triangular(self._unit, ops.expand_dims(standardized, 2), lower=True)
        return self._log_prob(sum_event(ops.square(eps)))

    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        standardized = (ops.transpose(z)[None] - self.mean[:, :, None]) * ops.exp(-0.5 * self.log_var)[:, :, None]
        eps = ops.solve_triangular(self._unit, standardized, lower=True)  # (n, d, m)
        return self._log_prob(ops.transpose(ops.sum(ops.square(eps), axis=1)))

    def rsample_and_log_prob(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        """z = mean + L eps and its log-density in nats: (n, d) to (n, d) and (n,)."""
        z = self.mean + ops.squeeze(ops.matmul(self.cholesky, ops.expand_dims(eps, 2)), 2)
        return z, self._log_prob(sum_event(ops.square(eps)))

    def kl_divergence(self, other: Distribution) -> Tensor | None:
        """KL(self || other) in nats by the chain rule: one term >= 0 per latent.

        A latent's term is the expected KL of z_i given z_1 to z_i-1.

        Args:
            other: `Normal` of n rows or one row. For other distributions there is no closed form.

        Returns:
            tensor (n, d) to sum, or None.
        """
        if not isinstance(other, Normal):
            return None
        diagonal = Normal(self.mean, self.log_var).kl_divergence(other)
        ratio = ops.exp(0.5 * (self.log_var - other.log_var))
        return diagonal + 0.5 * ops.sum(ops.square(ratio[:, :, None] * ops.tril(self.below, -1)), axis=2)


@ops.custom_gradient
def _cholesky(matrices):
    """Cholesky factors of (n, d, d) by Murray (2016). NaN gives NaN, also in the gradient, and doesn't end the run."""
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
