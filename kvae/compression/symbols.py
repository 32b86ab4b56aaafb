"""Distributions as frequencies of whole numbers, which the stack of bits takes."""

import abc
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from kvae import distributions
from kvae.compression.ans import PRECISION

BUCKETS = 1 << 16  # of a latent, each with the same mass under the prior
_TOTAL = 1 << PRECISION


class Symbols(abc.ABC):
    """p of whole numbers 0 to levels - 1 at D positions, in each of n lanes.

    A subclass defines `cdf`. Frequencies are its steps in units of 2^-28, and at least `least` units.

    Attributes:
        least: int. With 1, each symbol can be stored. With 0, only those that `find` has found. Default 1.

    Args:
        levels: int >= 2, the number of symbols.
    """

    least = 1

    def __init__(self, levels: int):
        self.levels = levels

    @abc.abstractmethod
    def cdf(self, position: int, symbol: NDArray, values: NDArray) -> NDArray:
        """Return p(s < symbol), float64 (n,), for integers (n,) from 1 to levels - 1.

        Args:
            position: int.
            symbol: array (n,).
            values: integers (D, n), of the symbols at the positions before this one.
        """

    def interval(self, position: int, symbol: NDArray, values: NDArray) -> tuple[NDArray, NDArray]:
        """Return the start and the frequency of symbols (n,), each (n,) uint64; `values` as for `cdf`."""
        start = self._cumulative(position, symbol, values)
        return start, self._cumulative(position, symbol + 1, values) - start

    def find(self, position: int, slot: NDArray, values: NDArray) -> NDArray:
        """Return the symbols (n,) with these slots (n,) in their intervals; `values` as for `cdf`."""
        return self._bisect(position, slot, values, np.zeros(len(slot), "int64"), np.full(len(slot), self.levels))

    def _bisect(self, position, slot, values, low, high):
        """The symbols, which are in [low, high)."""
        for _ in range(int(np.max(high - low) - 1).bit_length()):
            middle = (low + high) // 2
            is_above = self._cumulative(position, middle, values) <= slot
            low, high = np.where(is_above, middle, low), np.where(is_above, high, middle)
        return low

    def _cumulative(self, position, symbol, values):
        inside = np.clip(symbol, 1, self.levels - 1)
        share = np.where(symbol <= 0, 0.0, np.where(symbol >= self.levels, 1.0, self.cdf(position, inside, values)))
        units = 2 * self.least  # a symbol: if rounding takes one away, one is left
        ends = (symbol > 0).astype("uint64") + (symbol >= self.levels)  # keep a frequency from being all
        inner = (share * (_TOTAL - 2 - units * self.levels)).astype("uint64")
        return inner + np.uint64(units) * symbol.astype("uint64") + ends


class _Table(Symbols):
    """p with a table of cumulative frequencies (levels + 1, n) at each position."""

    @abc.abstractmethod
    def table(self, position: int) -> NDArray: ...

    def cdf(self, position, symbol, values):
        return self.table(position)[symbol, np.arange(len(symbol))] / _TOTAL

    def interval(self, position, symbol, values):
        table, lanes = self.table(position), np.arange(len(symbol))
        start = table[symbol, lanes]
        return start, table[symbol + 1, lanes] - start

    def find(self, position, slot, values):
        return np.count_nonzero(self.table(position)[1:-1] <= slot, axis=0)


class _Bernoulli(_Table):
    def __init__(self, logits):
        super().__init__(2)
        of_zero = np.clip(np.rint(special.expit(-logits.T) * _TOTAL), 1, _TOTAL - 1).astype("uint64")
        ends = np.zeros_like(of_zero)
        self._tables = np.stack([ends, of_zero, ends + np.uint64(_TOTAL)], axis=1)

    def table(self, position):
        return self._tables[position]


class _Categorical(_Table):
    def __init__(self, logits):
        super().__init__(logits.shape[-1])
        self._logits = logits  # (n, D, levels)

    def table(self, position):
        shares = np.cumsum(special.softmax(self._logits[:, position].T, axis=0), axis=0)
        counts = np.arange(self.levels + 1, dtype="uint64")[:, None]
        inside = np.concatenate([np.zeros_like(shares[:1]), shares[:-1] / shares[-1:], np.ones_like(shares[:1])])
        return (inside * (_TOTAL - self.levels)).astype("uint64") + counts


class _LogisticMixture(Symbols):
    """Pixels of channels that share the component: p(channel given those before it) by the components' posterior."""

    def __init__(self, logits, means, log_scales, levels):
        super().__init__(levels)
        self._weights = special.softmax(logits, axis=-1)  # (n, pixels, components)
        self._means = means * (levels - 1)  # (n, pixels, channels, components)
        self._steepness = np.exp(-log_scales) / (levels - 1)
        self._channels = means.shape[2]

    def cdf(self, position, symbol, values):
        pixel, channel = divmod(position, self._channels)
        weights = self._weights[:, pixel]
        for before in range(channel):
            value = values[position - channel + before]
            weights = weights * np.maximum(self._probability(pixel, before, value), 1e-200)
            weights = weights / np.sum(weights, axis=1, keepdims=True)
        return np.sum(weights * special.expit(self._standardized(pixel, channel, symbol)), axis=1)

    def _standardized(self, pixel, channel, symbol):
        return (symbol[:, None] - 0.5 - self._means[:, pixel, channel]) * self._steepness[:, pixel, channel]

    def _probability(self, pixel, channel, value):
        """p(value) of each component, (n, components), from the tail in which the difference doesn't cancel."""
        below, above = (self._standardized(pixel, channel, symbol) for symbol in (value, value + 1))
        below = np.where(value[:, None] == 0, -np.inf, below)
        above = np.where(value[:, None] == self.levels - 1, np.inf, above)
        is_right = below > 0
        return np.where(
            is_right, special.expit(-below) - special.expit(-above), special.expit(above) - special.expit(below)
        )


class _Poisson(Symbols):
    def __init__(self, log_rate, levels):
        super().__init__(levels)
        self._rate = np.exp(log_rate)

    def cdf(self, position, symbol, values):
        return special.pdtr(symbol - 1, self._rate[:, position])


class _NegativeBinomial(Symbols):
    def __init__(self, log_mean, log_dispersion, levels):
        super().__init__(levels)
        self._r = np.exp(-log_dispersion)
        self._share = special.expit(-log_mean - log_dispersion)

    def cdf(self, position, symbol, values):
        return special.betainc(self._r[:, position], symbol, self._share[:, position])


class Buckets(Symbols):
    """q(z|x), diagonal, of latents in buckets.

    The buckets are the same for all x: of equal mass under a normal with the prior's mean and twice its standard
    deviation. They are fine where the prior is, and reach to 8.6 of its standard deviations.

    Args:
        mean: array (n, latent_dim) float64, of q.
        log_var: array (n, latent_dim).
        prior: `LatentPrior`.
    """

    least = 0  # with a unit for each bucket, one z of 2,000 would be drawn of p(z), and explain x badly
    _WIDTH = 2.0
    EDGES = _WIDTH * special.ndtri(np.arange(BUCKETS + 1) / BUCKETS)
    CENTERS = _WIDTH * special.ndtri((np.arange(BUCKETS) + 0.5) / BUCKETS)

    def __init__(self, mean: NDArray, log_var: NDArray, prior: "LatentPrior"):
        super().__init__(BUCKETS)
        self._mean, self._precision = (mean - prior.mean) / prior.sigma, prior.sigma * np.exp(-0.5 * log_var)

    def cdf(self, position, symbol, values):
        return special.ndtr((self.EDGES[symbol] - self._mean[:, position]) * self._precision[:, position])

    def find(self, position: int, slot: NDArray, values: NDArray) -> NDArray:
        z = self._mean[:, position] + special.ndtri((slot + 0.5) / _TOTAL) / self._precision[:, position]
        guess = (special.ndtr(z / self._WIDTH) * BUCKETS).astype("int64")
        low, high = np.maximum(guess - 1, 0), np.minimum(guess + 2, BUCKETS)
        is_between = self._cumulative(position, low, values) <= slot
        is_between &= slot < self._cumulative(position, high, values)
        if is_between.all():
            return self._bisect(position, slot, values, low, high)
        return super().find(position, slot, values)


class LatentPrior(Symbols):
    """p(z) of latents in the buckets of `Buckets`: a diagonal normal, or a mixture of those, one latent after another.

    Args:
        weights: array (components,), with sum 1.
        means: array (components, latent_dim).
        log_vars: array (components, latent_dim).

    Attributes:
        mean: array (latent_dim,).
        sigma: array (latent_dim,), the standard deviations of single latents.
    """

    def __init__(self, weights: NDArray, means: NDArray, log_vars: NDArray):
        super().__init__(BUCKETS)
        self.mean = weights @ means
        self.sigma = np.sqrt(weights @ (np.exp(log_vars) + (means - self.mean) ** 2))
        self._log_weights = np.log(np.maximum(weights, 1e-300))
        self._means, self._precisions = (means - self.mean) / self.sigma, self.sigma * np.exp(-0.5 * log_vars)
        self._table = None
        if len(weights) == 1:
            self._table = self._cumulative(0, np.arange(BUCKETS + 1), np.zeros((0, BUCKETS + 1), "int64"))

    def z(self, buckets: NDArray) -> NDArray:
        """Return z at the middle of the buckets: integers (latent_dim, n) to float64 (n, latent_dim)."""
        return self.mean + self.sigma * Buckets.CENTERS[buckets.T]

    def interval(self, position, symbol, values):
        if self._table is None:
            return super().interval(position, symbol, values)
        start = self._table[symbol]
        return start, self._table[symbol + 1] - start

    def find(self, position, slot, values):
        if self._table is None:
            return super().find(position, slot, values)
        return np.searchsorted(self._table, slot, side="right") - 1

    def cdf(self, position, symbol, values):
        if self._table is None and len(self._means) == 1:
            return special.ndtr(Buckets.EDGES[symbol])
        below = special.ndtr(self._standardized(position, symbol))
        return np.sum(self._shares(position, values) * below, axis=1)

    def _standardized(self, position, symbol):
        return (Buckets.EDGES[symbol][:, None] - self._means[:, position]) * self._precisions[:, position]

    def _shares(self, position, values):
        """p(component | the latents before this one), (n, components). Asked for the positions in their order."""
        if position == 0:
            self._logs = np.tile(self._log_weights, (values.shape[1], 1))
        elif position != self._position:
            below, above = (self._standardized(position - 1, values[position - 1] + end) for end in (0, 1))
            is_right = below > 0  # the difference of the tails, which doesn't cancel
            low, high = np.where(is_right, -above, below), np.where(is_right, -below, above)
            self._logs = self._logs + np.log(np.maximum(special.ndtr(high) - special.ndtr(low), 1e-300))
        self._position = position
        return special.softmax(self._logs, axis=1)


def likelihood_symbols(kind: type, parameters: dict[str, NDArray], levels: int) -> Symbols:
    """Return p(x|z) over whole numbers.

    Args:
        kind: the class of the distribution, one of `kvae.distributions`.
        parameters: {name: array (n, ...) float64} of the distribution.
        levels: int, the number of values of x.
    """
    rows = len(next(iter(parameters.values())))
    flat: Any = {name: values.reshape(rows, -1) for name, values in parameters.items()}
    if kind is distributions.Bernoulli:
        return _Bernoulli(flat["logits"])
    if kind in (distributions.CategoricalLevels, distributions.OneHotCategorical):
        return _Categorical(parameters["logits"].reshape(rows, -1, levels))
    if kind is distributions.DiscretizedLogisticMixture:
        *_, channels, components = parameters["means"].shape
        shape = rows, -1, channels, components
        means, log_scales = (parameters[name].reshape(shape) for name in ("means", "log_scales"))
        return _LogisticMixture(parameters["logits"].reshape(rows, -1, components), means, log_scales, levels)
    if kind is distributions.Poisson:
        return _Poisson(flat["log_rate"], levels)
    return _NegativeBinomial(flat["log_mean"], flat["log_dispersion"], levels)
