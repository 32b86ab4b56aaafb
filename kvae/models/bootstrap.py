"""A stream's rows with random weights: the spread of fits to them shows a fit's uncertainty."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import ops

from kvae.data import elements

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Reweighted:
    """The rows of a stream, each with an exponential weight of mean 1: a stream of (x, None, weights).

    Parameters fitted by weighted maximum likelihood are one draw from their approximate posterior. The weight is a
    function of the row's values and the seed, so every pass has the same weights, in whatever order the rows come.
    Equal rows have equal weights.

    Args:
        stream: a `tf.data.Dataset` of batches, with or without weights.
        seed: int.

    Reference:
        Newton and Raftery (1994), "Approximate Bayesian inference with the weighted likelihood bootstrap".
    """

    def __init__(self, stream: Any, seed: int):
        self.stream, self.seed = stream, seed

    def cardinality(self) -> int:
        return int(self.stream.cardinality())

    def __iter__(self) -> Iterator[tuple]:
        for element in self.stream:
            batch, _, weights = elements.unpack(element)
            drawn = exponential_weights(ops.convert_to_numpy(batch), self.seed)
            yield batch, None, drawn if weights is None else drawn * np.asarray(weights, "float64").reshape(-1)


def exponential_weights(x: np.ndarray, seed: int) -> np.ndarray:
    """Exponential numbers (n,) of mean 1, of the rows x (n, ...): the same for the same row and seed.

    All NaN count as one value. Each is -log u, u from the highest 53 bits of a hash of the row.
    """
    rows = np.asarray(x, "float64").reshape(len(x), -1)
    bits = np.where(np.isnan(rows), np.inf, rows).view(np.uint64)
    rng = np.random.default_rng(seed)
    factors = rng.integers(0, 2**64, bits.shape[1], np.uint64) | np.uint64(1)
    key = _mixed(_mixed(bits) * factors)
    key = _mixed(key.sum(axis=1, dtype=np.uint64) + rng.integers(0, 2**64, dtype=np.uint64))
    return -np.log((key >> np.uint64(11)).astype("float64") * 2.0**-53 + 2.0**-54)


def _mixed(values):
    """A permutation of 64-bit numbers that spreads every bit: the finalizer of splitmix64."""
    values = values + _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
