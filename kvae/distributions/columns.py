"""The distribution of a table's row: a product of distributions by column."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from kvae.arguments import Seed, Tensor
from kvae.distributions.base import Distribution, seeds
from kvae.distributions.discrete import CategoricalLevels


@dataclasses.dataclass(frozen=True)
class ColumnsPart:
    """Some columns of x and their distribution, of u = (x - shift) / scale.

    Args:
        distribution: over u (n, columns), or None for columns that are given.
        columns: tuple of ints, the positions of the columns in x.
        shift, scale: arrays (columns,).
        is_density: bool, whether p(u) is a density: log p(x) = log p(u) - log scale.
        size: int, the position of the column with the sizes of the counts, or None.
    """

    distribution: Any
    columns: tuple[int, ...]
    shift: np.ndarray
    scale: np.ndarray
    is_density: bool
    size: int | None = None


@dataclasses.dataclass(frozen=True)
class ColumnsProduct(Distribution):
    """Independent columns x_1, ..., x_d, each with a distribution of its own: log p(x) = sum_j log p_j(x_j).

    The unit of x is the table's: densities count the scale of each column. The mean of a category is its most probable
    code, and its variance is that of the codes. A column that is given has no term, and its mean and sample are
    `given`.

    Args:
        parts: tuple of `ColumnsPart`, with each of the columns in one of them.
        given: array (d,), the values of columns that are given, and the sizes of counts, in means and samples.
    """

    parts: tuple[ColumnsPart, ...]
    given: np.ndarray

    @property
    def mean(self) -> Tensor:
        return self._joined([_mean(self._typical(part)) for part in self.parts])

    @property
    def variance(self) -> Tensor:
        variances = [None if p.distribution is None else self._typical(p).variance for p in self.parts]
        return self._joined(variances, squared=True)

    @property
    def factorizes(self) -> bool:
        return all(part.distribution is None or part.distribution.factorizes for part in self.parts)

    @property
    def code_probabilities(self) -> dict[int, Tensor]:
        """{column: (n, codes)} of the categories."""
        kinds = [(part, part.distribution) for part in self.parts if isinstance(part.distribution, CategoricalLevels)]
        return {
            column: ops.softmax(distribution.logits[:, place])
            for part, distribution in kinds
            for place, column in enumerate(part.columns)
        }

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """sum_j log p_j(x_j) in nats: (n, d) to (n,); `observed` masks x."""
        return sum(self._log_prob(part, x, observed) for part in self.at_sizes_of(x, observed).parts)

    def log_prob_by_column(self, x: Tensor, observed: Tensor) -> Tensor:
        """The terms log p_j(x_j) of `log_prob` in nats, x (n, d) to (n, d), 0 where `observed` is false."""
        terms: list[Any] = [None] * x.shape[-1]
        for part in self.at_sizes_of(x, observed).parts:
            for column in part.columns:
                is_it = np.arange(x.shape[-1]) == column
                terms[column] = self._log_prob(part, x, ops.logical_and(observed, is_it))
        return ops.stack([ops.zeros_like(x[:, 0]) + term for term in terms], axis=1)

    def at_sizes_of(self, x: Tensor, observed: Tensor | None = None) -> "ColumnsProduct":
        """The distribution with the counts' sizes that are in x, in place of `given`; `observed` masks x."""
        return dataclasses.replace(self, parts=tuple(self._sized(part, x, observed) for part in self.parts))

    def _log_prob(self, part, x, observed):
        """log p of the columns of a part, (n,)."""
        if part.distribution is None:
            return 0.0
        u = (take(x, part.columns) - _like(part.shift, x)) / _like(part.scale, x)
        mask: Any = None if observed is None else take(observed, part.columns)
        log_prob = part.distribution.log_prob(u) if mask is None else part.distribution.log_prob(u, mask)
        if not part.is_density:
            return log_prob
        log_scale = _like(np.log(part.scale), x)
        return log_prob - ops.sum(log_scale if mask is None else ops.where(mask, log_scale, 0.0), axis=-1)

    def sample(self, seed: Seed) -> Tensor:
        part_seeds = seeds(seed, len(self.parts))
        distributions = [self._typical(part) for part in self.parts]
        return self._joined(
            [None if d is None else d.sample(s) for d, s in zip(distributions, part_seeds, strict=True)]
        )

    def _sized(self, part, x, observed):
        """A part with the sizes in x."""
        if part.size is None:
            return part
        size = x[:, part.size : part.size + 1]
        if observed is not None:
            size = ops.where(observed[:, part.size : part.size + 1], size, float(self.given[part.size]))
        distribution = part.distribution.scaled(ops.log(ops.maximum(size, 1e-20)))
        return dataclasses.replace(part, distribution=distribution, size=None)

    def _typical(self, part):
        """The distribution of a part at its usual size."""
        if part.size is None:
            return part.distribution
        return part.distribution.scaled(float(np.log(max(float(self.given[part.size]), 1e-20))))

    def _joined(self, values, squared=False):
        """x of values by part: in the unit of x, and in the order of its columns."""
        first: Any = next(value for value in values if value is not None)
        rows, found = ops.shape(first)[0], []
        for part, value in zip(self.parts, values, strict=True):
            if value is None:
                given = 0 * self.given if squared else self.given
                row = _like(given[list(part.columns)], first)
                found.append(ops.broadcast_to(row, (rows, len(part.columns))))
                continue
            scale, shift = _like(part.scale, value), _like(part.shift, value)
            found.append(value * ops.square(scale) if squared else value * scale + shift)
        order = np.argsort([column for part in self.parts for column in part.columns])
        return take(ops.concatenate(found, axis=1), order.tolist())


def _mean(distribution):
    """The mean, of categories the most probable code."""
    if not isinstance(distribution, CategoricalLevels):
        return None if distribution is None else distribution.mean
    logits = distribution.logits
    return ops.cast(ops.argmax(logits, axis=-1), logits.dtype) / (logits.shape[-1] - 1)


def _like(values, x):
    """An array as a tensor of the dtype of x."""
    return ops.convert_to_tensor(values, x.dtype)


def take(x: Tensor, columns: Sequence[int]) -> Tensor:
    """Some columns of x (n, d): a slice if they are neighbors."""
    first, last = columns[0], columns[-1]
    if list(columns) == list(range(first, last + 1)):
        return x if (first, last + 1) == (0, x.shape[-1]) else x[:, first : last + 1]
    return ops.take(x, np.array(columns), axis=1)
