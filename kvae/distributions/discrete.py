"""Distributions over classes, and over images whose values are a few levels between 0 and 1, such as k / 255."""

import dataclasses

import keras
from keras import ops

from kvae.distributions.base import Distribution, seeds, sum_event

LOG_SCALE_LIMIT = 8.0


def _choose(logits, seed):
    """A class for each row of the last axis: logits (..., classes) to integers (...)."""
    rows = ops.reshape(logits, (-1, logits.shape[-1]))
    return ops.reshape(keras.random.categorical(rows, 1, seed=seed), ops.shape(logits)[:-1])


@dataclasses.dataclass(frozen=True)
class OneHotCategorical(Distribution):
    """One class at each position, with probabilities softmax(logits); x is one-hot along its last axis.

    The mean has the probabilities in place of x's zeros and ones.

    Args:
        logits: tensor (n, ..., classes).
    """

    logits: object

    @property
    def mean(self):
        return ops.softmax(self.logits)

    def log_prob(self, x):
        """sum(x log softmax(logits))."""
        return sum_event(x * ops.log_softmax(self.logits))

    def sample(self, seed):
        return ops.one_hot(_choose(self.logits, seed), self.logits.shape[-1], dtype=self.logits.dtype)


@dataclasses.dataclass(frozen=True)
class CategoricalLevels(Distribution):
    """Independent x in {0, 1 / (levels - 1), ..., 1}, each level with a probability of its own, softmax(logits).

    Args:
        logits: tensor (n, ..., levels), an axis more than x.
    """

    logits: object

    @property
    def mean(self):
        values = ops.linspace(0.0, 1.0, self.logits.shape[-1], dtype=self.logits.dtype)
        return ops.sum(ops.softmax(self.logits) * values, axis=-1)

    def log_prob(self, x):
        """The sum of log softmax(logits) at x's levels."""
        level = ops.cast(ops.round(x * (self.logits.shape[-1] - 1)), "int32")
        return -sum_event(ops.sparse_categorical_crossentropy(level, self.logits, from_logits=True))

    def sample(self, seed):
        level = ops.cast(_choose(self.logits, seed), self.logits.dtype)
        return level / (self.logits.shape[-1] - 1)


@dataclasses.dataclass(frozen=True)
class DiscretizedLogisticMixture(Distribution):
    """Images of levels k / (levels - 1): logistic variables rounded to the nearest level, the ends taking the rest.

    A pixel draws one of K components and its channels are independent given that: channels depend on each other
    through the component alone. Salimans et al. (2017), "PixelCNN++", section 2.1, without section 2.2's linear terms
    between the channels; their probabilities exactly, without their approximation for narrow components.

    Args:
        logits: tensor (n, ..., K), of the components.
        means: tensor (n, ..., channels, K), in x's units.
        log_scales: tensor (n, ..., channels, K), in x's units, held within +-8: at the lower end a component in the
            middle of a level gives it the probability 0.994 (of 256), above it no level stands out.
        levels: int.
    """

    logits: object
    means: object
    log_scales: object
    levels: int = 256

    def __post_init__(self):
        object.__setattr__(self, "log_scales", ops.clip(self.log_scales, -LOG_SCALE_LIMIT, LOG_SCALE_LIMIT))

    def _in_levels(self):
        """The means, and one over the scales, with levels one apart."""
        return self.means * (self.levels - 1), ops.exp(-self.log_scales) / (self.levels - 1)

    @property
    def mean(self):
        """E[k] is the sum of p(k >= j) over j = 1, 2, ..., one j at a time to spare memory."""
        means, steepness = self._in_levels()

        def add(j, total):
            return total + ops.sigmoid((means + 0.5 - ops.cast(j, means.dtype)) * steepness)

        by_component = ops.fori_loop(1, self.levels, add, ops.zeros_like(means)) / (self.levels - 1)
        return ops.sum(ops.expand_dims(ops.softmax(self.logits), -2) * by_component, axis=-1)

    def log_prob(self, x):
        """The sum over pixels of log sum_K softmax(logits) prod over channels (sigmoid(b) - sigmoid(a)).

        a and b are a level's ends, standardised: -inf and inf at the first and the last level. The difference is
        sigmoid(b) sigmoid(-a) (1 - exp(a - b)), which has no cancellation.
        """
        means, steepness = self._in_levels()
        level = ops.expand_dims(ops.round(x * (self.levels - 1)), -1)
        below_end = ops.log_sigmoid((level + 0.5 - means) * steepness)
        above_start = ops.log_sigmoid((means - level + 0.5) * steepness)
        within = ops.log(-ops.expm1(-steepness))
        first, last = level < 0.5, level > self.levels - 1.5
        log_prob = (
            ops.where(last, 0.0, below_end)
            + ops.where(first, 0.0, above_start)
            + ops.where(ops.logical_or(first, last), 0.0, within)
        )
        by_component = ops.log_softmax(self.logits) + ops.sum(log_prob, axis=-2)
        return sum_event(ops.logsumexp(by_component, axis=-1))

    def sample(self, seed):
        of_component, of_x = seeds(seed, 2)
        component = ops.one_hot(_choose(self.logits, of_component), self.logits.shape[-1], dtype=self.means.dtype)
        component = ops.expand_dims(component, -2)
        mean = ops.sum(self.means * component, axis=-1)
        scale = ops.exp(ops.sum(self.log_scales * component, axis=-1))
        u = keras.random.uniform(ops.shape(mean), 1e-7, 1.0, dtype=mean.dtype, seed=of_x)
        x = mean + scale * (ops.log(u) - ops.log1p(-u))
        return ops.round(ops.clip(x, 0.0, 1.0) * (self.levels - 1)) / (self.levels - 1)
