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
    function of the seed and the row's position, so every pass has the same weights. Where each pass has an order of
    its own it is a function of the row's values: equal rows then have equal weights, and many of them weigh too much.

    Args:
        stream: a `tf.data.Dataset` of batches, with or without weights.
        seed: int.
        start: int, the position of the stream's first row; None if each pass has an order of its own.

    Reference:
        Newton and Raftery (1994), "Approximate Bayesian inference with the weighted likelihood bootstrap".
    """

    def __init__(self, stream: Any, seed: int, start: int | None = 0):
        self.stream, self.seed, self.start = stream, seed, start

    def cardinality(self) -> int:
        return int(self.stream.cardinality())

    def __iter__(self) -> Iterator[tuple]:
        start = self.start
        for element in self.stream:
            batch, _, weights = elements.unpack(element)
            keys = ops.convert_to_numpy(batch)
            if start is not None:
                keys = np.arange(start, start + len(keys))
                start += len(keys)
            drawn = exponential_weights(keys, self.seed)
            yield batch, None, drawn if weights is None else drawn * np.asarray(weights, "float64").reshape(-1)


def exponential_weights(keys: np.ndarray, seed: int) -> np.ndarray:
    """Exponential numbers (n,) of mean 1, of keys (n, ...): the same for the same key and seed.

    All NaN count as one value. Each is -log u, u from the highest 53 bits of a hash of the key.
    """
    rows = np.asarray(keys, "float64").reshape(len(keys), -1)
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
