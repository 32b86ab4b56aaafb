"""Normal distributions, with a diagonal or a full covariance matrix."""

import dataclasses
import math
from typing import Self

from keras import ops

from kvae.arguments import Tensor
from kvae.distributions.base import Distribution, Reparameterized

_LOG_2PI = math.log(2.0 * math.pi)
_LOG_VAR_LIMIT = 40.0


def sum_event(values: Tensor, observed: Tensor | None = None) -> Tensor:
    """Sum over all axes but the batch: (n, ...) to (n,).

    Args:
        values: tensor (n, ...).
        observed: bool tensor (n, ...), a mask of the values to sum, or None (default) for all.

    Returns:
        tensor (n,).

    Example:

    >>> kvae.distributions.sum_event(ops.ones((2, 3, 4))).numpy()
    array([12., 12.], dtype=float32)
    """
    if observed is not None:
        values = ops.where(observed, values, 0.0)
    return ops.sum(values, axis=tuple(range(1, len(values.shape))))


@dataclasses.dataclass(frozen=True)
class Normal(Reparameterized):
    """N(mean, diag(exp(log_var))).

    log_var is clipped to [-40, 40], so that neither density nor KL overflows float32.

    Args:
        mean: tensor (n, ...).
        log_var: tensor that broadcasts to the mean's shape: log sigma^2, the logarithm of the variance.

    Example:

    >>> q = kvae.distributions.Normal(mean=ops.array([[1.0, 0.0]]), log_var=ops.zeros((1, 2)))
    >>> q.log_prob(ops.array([[1.0, 0.0]])).numpy().round(4)  # -log 2 pi
    array([-1.8379], dtype=float32)
    >>> p = kvae.distributions.Normal(ops.zeros((1, 2)), ops.zeros((1, 2)))
    >>> q.kl_divergence(p).numpy()
    array([[0.5, 0. ]], dtype=float32)
    """

    mean: Tensor
    log_var: Tensor

    def __post_init__(self):
        object.__setattr__(self, "log_var", ops.clip(self.log_var, -_LOG_VAR_LIMIT, _LOG_VAR_LIMIT))

    @property
    def stddev(self) -> Tensor:
        """sigma = exp(log_var / 2), of log_var's shape."""
        return ops.exp(0.5 * self.log_var)

    @property
    def variance(self) -> Tensor:
        """sigma^2, (n, ...)."""
        return ops.zeros_like(self.mean) + ops.exp(self.log_var)

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """-1/2 sum((x - mean)^2 / sigma^2 + log sigma^2 + log 2 pi) in nats: (n, ...) to (n,); `observed` masks x."""
        standardized = (x - self.mean) * ops.exp(-0.5 * self.log_var)
        return -0.5 * sum_event(ops.square(standardized) + (self.log_var + _LOG_2PI), observed)

    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        """log N(z_m; mean_k, sigma_k^2) in nats, z (m, d) to (m, n), by one matrix product.

        The square is multiplied out. Its terms reach 1e5, and in float32 the error would be hundredths of a nat for
        small sigma: the product is in float64.
        """
        z, mean, log_var = (ops.cast(values, "float64") for values in (z, self.mean, self.log_var))
        precision = ops.exp(-log_var)
        columns = ops.concatenate([precision, -2.0 * mean * precision], axis=1)
        distance = ops.matmul(ops.concatenate([ops.square(z), z], axis=1), ops.transpose(columns))
        distance = ops.maximum(distance + sum_event(ops.square(mean) * precision), 0.0)
        return ops.cast(-0.5 * (distance + sum_event(log_var + _LOG_2PI)), self.mean.dtype)

    def reparameterize(self, eps: Tensor) -> Tensor:
        """z = mean + sigma * eps, (n, ...) (Kingma and Welling 2014, section 2.4)."""
        return self.mean + self.stddev * eps

    def rsample_and_log_prob(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        """z = mean + sigma * eps, and -1/2 sum(eps^2 + log sigma^2 + log 2 pi) in nats."""
        log_prob = -0.5 * sum_event(ops.square(eps) + (self.log_var + _LOG_2PI))
        return self.reparameterize(eps), log_prob

    def kl_divergence(self, other: Distribution) -> Tensor | None:
        """1/2 ((mean - mean')^2 / sigma'^2 + expm1(d) - d) in nats by dimension, with d = log sigma^2 - log sigma'^2.

        With expm1 the term stays above zero in float32 near d = 0, unlike exp(d) - 1 - d.

        Args:
            other: `Normal` of n rows or one row. For other distributions there is no closed form.

        Returns:
            tensor (n, ...) to sum, or None.
        """
        if not isinstance(other, Normal):
            return None
        difference = self.log_var - other.log_var
        standardized = (self.mean - other.mean) * ops.exp(-0.5 * other.log_var)
        return 0.5 * (ops.square(standardized) + ops.expm1(difference) - difference)


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
        object.__setattr__(self, "log_var", ops.clip(self.log_var, -_LOG_VAR_LIMIT, _LOG_VAR_LIMIT))

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
