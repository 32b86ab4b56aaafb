"""The Bernoulli distribution of 0 and 1, and the continuous one of values between them."""

import dataclasses
import math

import keras
from keras import ops

from kvae.arguments import Seed, Tensor
from kvae.distributions.base import Distribution
from kvae.distributions.normal import sum_event

_NO_TERM = -1e4  # logits, of which log(1 + exp(logits)) is 0


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

    @property
    def variance(self) -> Tensor:
        return self.mean * ops.sigmoid(-self.logits)

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """sum(x logits - log(1 + exp(logits))) in nats: (n, ...) to (n,); `observed` masks x."""
        counted = self.logits if observed is None else ops.where(observed, self.logits, _NO_TERM)
        return sum_event(x * self.logits, observed) - _sum_softplus(counted)

    def sample(self, seed: Seed) -> Tensor:
        uniform = keras.random.uniform(ops.shape(self.logits), dtype=self.logits.dtype, seed=seed)
        return ops.cast(uniform < self.mean, self.logits.dtype)


@dataclasses.dataclass(frozen=True)
class ContinuousBernoulli(Distribution):
    """Independent x in [0, 1] with densities exp(x logits) logits / (exp(logits) - 1).

    This is the Bernoulli's formula with a normalizer for [0, 1]: the integral of exp(x logits) is
    (exp(logits) - 1) / logits. The mean is not sigmoid(logits).

    Args:
        logits: tensor (n, ...), log(p / (1 - p)) of the paper's parameter.

    Example:

    >>> p = kvae.distributions.ContinuousBernoulli(ops.array([[0.0, 2.0]]))
    >>> p.mean.numpy().round(4), p.log_prob(ops.array([[0.3, 1.0]])).numpy().round(4)
    (array([[0.5   , 0.6565]], dtype=float32), array([0.8386], dtype=float32))

    Reference:
        Loaiza-Ganem and Cunningham (2019), "The continuous Bernoulli: fixing a pervasive error in variational
        autoencoders".
    """

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        """1 / (1 - exp(-logits)) - 1 / logits, (n, ...). Near logits = 0, with cancelling terms, its series."""
        near, far = self._near_and_far()
        square = ops.square(near)
        terms = 1 / 12 - square * (1 / 720 - square * (1 / 30240 - square * (1 / 1209600 - square / 47900160)))
        size = ops.abs(far)
        of_size = -1.0 / ops.expm1(-size) - 1.0 / size
        return ops.where(self._is_near(), 0.5 + near * terms, ops.where(far > 0, of_size, 1.0 - of_size))

    @property
    def variance(self) -> Tensor:
        """1 / logits^2 - 1 / (4 sinh(logits / 2)^2), the derivative of the mean. Near logits = 0 its series."""
        near, far = self._near_and_far()
        square = ops.square(near)
        series = 1 / 12 - square * (1 / 240 - square * (1 / 6048 - square * (1 / 172800 - square / 5322240)))
        decay = ops.exp(-ops.abs(far))
        closed = 1.0 / ops.square(far) - decay / ops.square(1.0 - decay)
        return ops.where(self._is_near(), series, closed)

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """sum(x logits - log((exp(logits) - 1) / logits)) in nats: (n, ...) to (n,); `observed` masks x."""
        return sum_event(x * self.logits - self._log_normalizer(), observed)

    def sample(self, seed: Seed) -> Tensor:
        """log(1 + u (exp(logits) - 1)) / logits, the inverse of the distribution function at a uniform u from seed."""
        u = keras.random.uniform(ops.shape(self.logits), dtype=self.logits.dtype, seed=seed)
        size = ops.maximum(ops.abs(self.logits), 1e-6)
        falling = -ops.log1p(u * ops.expm1(-size)) / size
        return ops.where(self.logits > 0, 1.0 - falling, falling)

    def _log_normalizer(self):
        """log((exp(logits) - 1) / logits). Its derivative, the mean, stays exact around logits = 0."""
        near, far = self._near_and_far()
        square = ops.square(near)
        terms = 1 / 2880 - square * (1 / 181440 - square * (1 / 9676800 - square / 479001600))
        series = 0.5 * near + square * (1 / 24 - square * terms)
        size = ops.abs(far)
        return ops.where(self._is_near(), series, ops.relu(far) + ops.log(-ops.expm1(-size) / size))

    def _is_near(self):
        return ops.abs(self.logits) < 0.5

    def _near_and_far(self):
        """The logits for the series and for the closed form, each safe outside of its range: finite gradients."""
        is_near = self._is_near()
        return ops.where(is_near, self.logits, 0.0), ops.where(is_near, 1.0, self.logits)
