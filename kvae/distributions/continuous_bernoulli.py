"""The continuous Bernoulli distribution: values between 0 and 1."""

import dataclasses

import keras
from keras import ops

from kvae.distributions.base import Distribution, sum_event


@dataclasses.dataclass(frozen=True)
class ContinuousBernoulli(Distribution):
    """Independent x in [0, 1] with densities proportional to exp(x logits): a Bernoulli's, normalised over [0, 1].

    Loaiza-Ganem and Cunningham (2019), "The continuous Bernoulli: fixing a pervasive error in variational
    autoencoders". In logits the normaliser is the integral of exp(x logits), (exp(logits) - 1) / logits.

    Args:
        logits: tensor (n, ...), log(p / (1 - p)) of the paper's parameter. The mean is not sigmoid(logits).
    """

    logits: object

    @property
    def mean(self):
        """1 / (1 - exp(-logits)) - 1 / logits, or its series around logits = 0, where the two terms cancel."""
        near, far = self._near_and_far()
        square = ops.square(near)
        terms = 1 / 12 - square * (1 / 720 - square * (1 / 30240 - square * (1 / 1209600 - square / 47900160)))
        size = ops.abs(far)
        of_size = -1.0 / ops.expm1(-size) - 1.0 / size
        return ops.where(self._is_near(), 0.5 + near * terms, ops.where(far > 0, of_size, 1.0 - of_size))

    def log_prob(self, x):
        """sum(x logits - log((exp(logits) - 1) / logits))."""
        return sum_event(x * self.logits - self._log_normaliser())

    def sample(self, seed):
        """The inverse of the distribution function, log(1 + u (exp(logits) - 1)) / logits, at a uniform u."""
        u = keras.random.uniform(ops.shape(self.logits), dtype=self.logits.dtype, seed=seed)
        size = ops.maximum(ops.abs(self.logits), 1e-6)
        falling = -ops.log1p(u * ops.expm1(-size)) / size
        return ops.where(self.logits > 0, 1.0 - falling, falling)

    def _log_normaliser(self):
        """log((exp(logits) - 1) / logits), whose derivative, the mean, stays exact around logits = 0."""
        near, far = self._near_and_far()
        square = ops.square(near)
        terms = 1 / 2880 - square * (1 / 181440 - square * (1 / 9676800 - square / 479001600))
        series = 0.5 * near + square * (1 / 24 - square * terms)
        size = ops.abs(far)
        return ops.where(self._is_near(), series, ops.relu(far) + ops.log(-ops.expm1(-size) / size))

    def _is_near(self):
        return ops.abs(self.logits) < 0.5

    def _near_and_far(self):
        """The logits twice, each copy harmless where the other's formula is meant: so both have finite gradients."""
        is_near = self._is_near()
        return ops.where(is_near, self.logits, 0.0), ops.where(is_near, 1.0, self.logits)
