"""Reconstruction terms as they are written, by the likelihood that each is: -log p(x|z) up to terms of x alone.

The formulas are written anew here, in numpy, so that an audit of kvae's own losses compares two of them.
"""

import math
from collections.abc import Callable

import numpy as np


def _softplus(b):
    return np.logaddexp(0.0, b)


def _cross_entropy(a, b):
    return -(a * np.log(b) + (1 - a) * np.log1p(-b))


def _log_normalizer_of_logits(b):
    """log of the integral of exp(a b) over a in [0, 1]."""
    small = np.abs(b) < 1e-3
    safe = np.where(small, 1.0, b)
    return np.where(small, b / 2 + b**2 / 24, np.log(np.expm1(safe) / safe))


# By name: the term of one value, of x = a and the decoder's output b.
FAMILIES: dict[str, Callable] = {
    "Gaussian": lambda a, b: (a - b) ** 2,
    "Laplace": lambda a, b: np.abs(a - b),
    "Bernoulli on probabilities": _cross_entropy,
    "Bernoulli on logits": lambda a, b: _softplus(b) - a * b,
    "continuous Bernoulli on probabilities": lambda a, b: (
        _cross_entropy(a, b) + np.log1p(-b) + _log_normalizer_of_logits(np.log(b / (1 - b)))
    ),
    "continuous Bernoulli on logits": lambda a, b: _log_normalizer_of_logits(b) - a * b,
    "Poisson on rates": lambda a, b: b - a * np.log(b),
    "Poisson on logarithms of rates": lambda a, b: np.exp(b) - a * b,
    "Poisson on softplus": lambda a, b: _softplus(b) - a * np.log(_softplus(b)),
    "Gaussian on sigmoid(logits)": lambda a, b: (a - 1 / (1 + np.exp(-b))) ** 2,
    "Bernoulli with x and reconstruction exchanged": lambda a, b: _cross_entropy(b, np.clip(a, 1e-7, 1 - 1e-7)),
    "Bernoulli on logits with a sign wrong": lambda a, b: -_softplus(b) - a * b,
}
MISTAKEN = {"Bernoulli with x and reconstruction exchanged", "Bernoulli on logits with a sign wrong"}


def without_terms_of_x(values: np.ndarray) -> np.ndarray:
    """Values by x (rows) and reconstruction (columns) without the terms of x alone, for which no gradient is."""
    return values - values.mean(axis=1, keepdims=True)


def match(values: np.ndarray, a: np.ndarray, b: np.ndarray, tolerance: float) -> tuple[str, float] | None:
    """The family whose multiple the values are, and the factor; None if there is none.

    Args:
        values: array (len(a), len(b)), the reconstruction term of one value.
        a: values of x.
        b: values of the reconstruction.
        tolerance: of the residual's size, relative.
    """
    target = without_terms_of_x(values)
    size, best = np.linalg.norm(target), (math.inf, "", 0.0)
    with np.errstate(all="ignore"):
        for name, formula in FAMILIES.items():
            shape = without_terms_of_x(formula(a[:, None], b[None]))
            if not np.all(np.isfinite(shape)):
                continue
            factor = float(np.sum(target * shape) / np.sum(shape * shape))
            residual = float(np.linalg.norm(target - factor * shape) / size)
            best = min(best, (residual, name, factor))
    return best[1:] if best[0] < tolerance else None


def reductions(factor: float, event_shape: tuple[int, ...]) -> str | None:
    """How values are reduced if each has this factor: "sum", "mean", "mean over the last axis" ..., or None."""
    features = math.prod(event_shape)
    if math.isclose(factor, 1.0, rel_tol=1e-3):
        return "sum"
    if math.isclose(factor * features, 1.0, rel_tol=1e-3):
        return "mean"
    axes = range(len(event_shape))
    for mask in range(1, 2 ** len(event_shape) - 1):
        chosen = [axis for axis in axes if mask >> axis & 1]
        size = math.prod(event_shape[axis] for axis in chosen)
        if size > 1 and math.isclose(factor * size, 1.0, rel_tol=1e-3):
            last = chosen == [len(event_shape) - 1]
            return "mean over the last axis" if last else f"mean over axes of {size:,} values"
    return None
