"""Distributions over classes, and over images with a few levels between 0 and 1, such as k / 255."""

import dataclasses

import keras
from keras import ops

from kvae.arguments import Seed, Tensor
from kvae.distributions.base import Distribution, seeds
from kvae.distributions.normal import sum_event

LOG_SCALE_LIMIT = 8.0


def _choose(logits, seed):
    """Draw a class for each row of the last axis: logits (..., classes) to integers (...)."""
    rows = ops.reshape(logits, (-1, logits.shape[-1]))
    return ops.reshape(keras.random.categorical(rows, 1, seed=seed), ops.shape(logits)[:-1])


@dataclasses.dataclass(frozen=True)
class OneHotCategorical(Distribution):
    """One class at each position, with probabilities softmax(logits). x is one-hot along its last axis.

    The mean has the probabilities in place of the zeros and ones of x.

    Args:
        logits: tensor (n, ..., classes).

    Example:

    >>> p = kvae.distributions.OneHotCategorical(ops.zeros((1, 4)))
    >>> p.mean.numpy(), p.log_prob(ops.one_hot([2], 4)).numpy().round(4)  # log 1/4
    (array([[0.25, 0.25, 0.25, 0.25]], dtype=float32), array([-1.3863], dtype=float32))
    """

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        return ops.softmax(self.logits)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1.0 - self.mean)

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """sum(x log softmax(logits)) in nats: (n, ..., classes) to (n,); `observed` masks x."""
        return sum_event(x * ops.log_softmax(self.logits), observed)

    def sample(self, seed: Seed) -> Tensor:
        return ops.one_hot(_choose(self.logits, seed), self.logits.shape[-1], dtype=self.logits.dtype)


@dataclasses.dataclass(frozen=True)
class CategoricalLevels(Distribution):
    """Independent x in {0, 1 / (levels - 1), ..., 1} with a probability for each level, softmax(logits).

    Args:
        logits: tensor (n, ..., levels), with one axis more than x.

    Example:

    >>> p = kvae.distributions.CategoricalLevels(ops.zeros((1, 2, 3)))  # 2 pixels, levels 0, 1/2 and 1
    >>> p.mean.numpy(), p.log_prob(ops.array([[0.0, 0.5]])).numpy().round(4)  # 2 log 1/3
    (array([[0.5, 0.5]], dtype=float32), array([-2.1972], dtype=float32))
    """

    logits: Tensor

    @property
    def _values(self):
        return ops.linspace(0.0, 1.0, self.logits.shape[-1], dtype=self.logits.dtype)

    @property
    def mean(self) -> Tensor:
        return ops.sum(ops.softmax(self.logits) * self._values, axis=-1)

    @property
    def variance(self) -> Tensor:
        return ops.sum(ops.softmax(self.logits) * ops.square(self._values - self.mean[..., None]), axis=-1)

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """The sum of log softmax(logits) at the levels of x, in nats: (n, ...) to (n,); `observed` masks x."""
        level = ops.cast(ops.round(x * (self.logits.shape[-1] - 1)), "int32")
        return -sum_event(ops.sparse_categorical_crossentropy(level, self.logits, from_logits=True), observed)

    def sample(self, seed: Seed) -> Tensor:
        level = ops.cast(_choose(self.logits, seed), self.logits.dtype)
        return level / (self.logits.shape[-1] - 1)


@dataclasses.dataclass(frozen=True)
class DiscretizedLogisticMixture(Distribution):
    """Images with levels k / (levels - 1): mixtures of logistics, rounded to the nearest level.

    The first and the last level take the tails. A pixel draws one of K components, and given the component its
    channels are independent. PixelCNN++ adds linear terms between the channels (section 2.2); this class doesn't.
    Probabilities of narrow components are exact here, approximate there.

    Args:
        logits: tensor (n, ..., K), of the components.
        means: tensor (n, ..., channels, K), in the unit of x.
        log_scales: tensor (n, ..., channels, K), in the unit of x, clipped to [-8, 8]. At -8 a component at the center
            of one of 256 levels gives it the probability 0.994. At 8 the levels within are equally probable.
        levels: int, the number of levels. Default 256.

    Example:

    >>> shape = (1, 2, 2, 3, 1)  # an image of 2x2 pixels, 3 channels, one component
    >>> p = kvae.distributions.DiscretizedLogisticMixture(
    ...     ops.zeros((1, 2, 2, 1)), means=ops.full(shape, 0.5), log_scales=ops.full(shape, -2.0)
    ... )
    >>> tuple(p.sample(seed=0).shape), p.log_prob(ops.full((1, 2, 2, 3), 128 / 255)).numpy().round(2)
    ((1, 2, 2, 3), array([-59.13], dtype=float32))

    Reference:
        Salimans et al. (2017), "PixelCNN++: improving the PixelCNN with discretized logistic mixture likelihood and
        other modifications", section 2.1.
    """

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    levels: int = 256

    def __post_init__(self):
        object.__setattr__(self, "log_scales", ops.clip(self.log_scales, -LOG_SCALE_LIMIT, LOG_SCALE_LIMIT))

    def _in_levels(self):
        """The means and the inverse scales in the unit of one level."""
        return self.means * (self.levels - 1), ops.exp(-self.log_scales) / (self.levels - 1)

    def _moment(self, power):
        """E[x^power] with E[k^p] = sum_j (j^p - (j - 1)^p) p(k >= j), one j at a time to save memory."""
        means, steepness = self._in_levels()

        def add(j, total):
            j = ops.cast(j, means.dtype)
            above = ops.sigmoid((means + 0.5 - j) * steepness)
            return total + (above if power == 1 else (2.0 * j - 1.0) * above)

        by_component = ops.fori_loop(1, self.levels, add, ops.zeros_like(means)) / (self.levels - 1) ** power
        return ops.sum(ops.expand_dims(ops.softmax(self.logits), -2) * by_component, axis=-1)

    @property
    def mean(self) -> Tensor:
        return self._moment(1)

    @property
    def variance(self) -> Tensor:
        return ops.maximum(self._moment(2) - ops.square(self.mean), 0.0)

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """The sum over pixels of log sum_K softmax(logits) prod_channels (sigmoid(b) - sigmoid(a)), in nats.

        a and b are the standardized ends of the level of x, infinite for the tails. The difference is computed without
        cancellation as sigmoid(b) sigmoid(-a) (1 - exp(a - b)).

        `observed` is a mask of x, as in the base class.
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
        if observed is not None:  # given the component the channels are independent
            log_prob = ops.where(ops.expand_dims(observed, -1), log_prob, 0.0)
        by_component = ops.log_softmax(self.logits) + ops.sum(log_prob, axis=-2)
        return sum_event(ops.logsumexp(by_component, axis=-1))

    def sample(self, seed: Seed) -> Tensor:
        component_seed, x_seed = seeds(seed, 2)
        component = ops.one_hot(_choose(self.logits, component_seed), self.logits.shape[-1], dtype=self.means.dtype)
        component = ops.expand_dims(component, -2)
        mean = ops.sum(self.means * component, axis=-1)
        scale = ops.exp(ops.sum(self.log_scales * component, axis=-1))
        u = keras.random.uniform(ops.shape(mean), 1e-7, 1.0, dtype=mean.dtype, seed=x_seed)
        x = mean + scale * (ops.log(u) - ops.log1p(-u))
        return ops.round(ops.clip(x, 0.0, 1.0) * (self.levels - 1)) / (self.levels - 1)
