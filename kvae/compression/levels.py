"""Examples as whole numbers 0 to levels - 1, and back to the same bytes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvae import likelihoods

MOST_LEVELS = 1 << 20


class Levels:
    """The values of x that a discrete likelihood knows, as whole numbers.

    Args:
        likelihood: a `kvae.Likelihood` with `discrete`, built.
        dtype: of x.

    Raises:
        TypeError: if the likelihood isn't one of those that can be coded.
    """

    def __init__(self, likelihood: Any, dtype: Any):
        self.dtype, self.event_shape = np.dtype(dtype), tuple(likelihood.event_shape)
        self.is_one_hot = isinstance(likelihood, likelihoods.CategoricalLikelihood) and likelihood.levels is None
        self._values = None
        if isinstance(likelihood, likelihoods.BernoulliLikelihood):
            self._values = self._between_zero_and_one(2)
        elif isinstance(likelihood, likelihoods.DiscretizedLogisticLikelihood) or (
            isinstance(likelihood, likelihoods.CategoricalLikelihood) and not self.is_one_hot
        ):
            self._values = self._between_zero_and_one(likelihood.levels)
        elif not self.is_one_hot and not isinstance(
            likelihood, likelihoods.PoissonLikelihood | likelihoods.NegativeBinomialLikelihood
        ):
            raise TypeError(
                f"The likelihood is {type(likelihood).__name__}; expected one of whole numbers that can be stored: "
                "Bernoulli, categorical, discretized logistic, Poisson or negative binomial."
            )

    def _between_zero_and_one(self, levels):
        """k / (levels - 1) in the dtype of x; uint8 counts 255 as 1, bool True."""
        if self.dtype == np.uint8:
            return (np.arange(levels) * 255 // (levels - 1)).astype("uint8")
        return (np.arange(levels) / (levels - 1)).astype(self.dtype)

    def symbols(self, x: NDArray) -> NDArray:
        """Return the whole numbers (n, D) of x (n, ...).

        Raises:
            ValueError: if x holds other values than the likelihood has probabilities for, bit by bit.
        """
        if self.is_one_hot:
            symbols = np.argmax(x, axis=-1)
        elif self._values is None:
            symbols = np.rint(np.clip(np.asarray(x, "float64"), 0, MOST_LEVELS))
        elif len(self._values) == 2:
            symbols = np.equal(x, self._values[1])
        else:
            scaled = np.asarray(x, "float64") / (255 if self.dtype == np.uint8 else 1)
            symbols = np.rint(np.clip(scaled, 0, 1) * (len(self._values) - 1))
        symbols = symbols.reshape(len(x), -1).astype("int32")
        restored = self.examples(symbols)
        x = np.ascontiguousarray(x)
        if restored.tobytes() != x.tobytes():
            wrong = restored.reshape(-1).view("uint8") != x.reshape(-1).view("uint8")
            value = x.reshape(-1)[np.flatnonzero(wrong)[0] // x.itemsize]
            raise ValueError(f"x holds {value!r}; expected {self._expected()}, so that the same bytes come back.")
        return symbols

    def examples(self, symbols: NDArray) -> NDArray:
        """Return x (n, ...) of whole numbers (n, D)."""
        if self.is_one_hot:
            classes = self.event_shape[-1]
            x = np.equal(symbols[..., None], np.arange(classes)).astype(self.dtype)
        else:
            x = symbols.astype(self.dtype) if self._values is None else self._values[symbols]
        return np.ascontiguousarray(x.reshape(-1, *self.event_shape))

    def count(self, symbols: NDArray) -> int:
        """Return the number of symbols that can occur beside these (n, D)."""
        if self.is_one_hot:
            return self.event_shape[-1]
        return max(2, int(symbols.max(initial=0)) + 1) if self._values is None else len(self._values)

    def _expected(self):
        if self.is_one_hot:
            return "a 1 among zeros along the last axis"
        if self._values is None:
            return f"counts 0, 1, 2, ... below {MOST_LEVELS:,}"
        few = ", ".join(f"{value!r}" for value in self._values[:2].tolist())
        return f"the {len(self._values)} levels {few}, ... of {self.dtype}" if len(self._values) > 2 else few
