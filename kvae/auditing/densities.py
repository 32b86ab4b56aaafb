"""Whether a density is one: the change of variables of its draws, its integral, and moments of its samples."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from keras import ops
from scipy import special

from kvae import likelihoods

_LOG_2PI = math.log(2 * math.pi)
_DRAWS = 4_000
_MOST_LEVELS = 256
_COUNTS = np.arange(400.0)


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float


def log_prob_of_draws(distribution: Any, eps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(z, log q(z) as the draw says, log N(eps; 0, I) - log |det dz/deps| by autodiff) for eps (n, latent_dim)."""
    noise: Any = tf.constant(eps, "float32")
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(noise)
        z, log_prob = distribution.rsample_and_log_prob(noise)
    jacobian = tape.batch_jacobian(z, noise, experimental_use_pfor=False).numpy().astype("float64")
    log_noise = -0.5 * np.sum(np.square(noise.numpy().astype("float64")) + _LOG_2PI, axis=1)
    return z.numpy(), log_prob.numpy(), log_noise - np.linalg.slogdet(jacobian)[1]


def log_integral(z: np.ndarray, density: Any, seed: int = 0) -> Estimate:
    """log of the integral of a density over z (n, latent_dim): a bridge from a normal with its samples' moments.

    Args:
        z: array (n, latent_dim), samples of the density.
        density: distribution of one row.
        seed: int.

    Reference:
        Meng and Wong (1996), "Simulating ratios of normalizing constants via a simple identity".
    """
    first, second = np.array_split(z, 2)  # the normal is of other samples than those that the bridge uses
    mean, root = first.mean(axis=0), np.linalg.cholesky(np.atleast_2d(np.cov(first.T)) + 1e-9 * np.eye(first.shape[1]))
    other = mean + np.random.default_rng(seed).normal(size=second.shape) @ root.T
    log_ratios = [
        ops.convert_to_numpy(density.log_prob(ops.convert_to_tensor(each.astype("float32"))))
        - _log_normal(each, mean, root)
        for each in (second, other)
    ]
    parts = [_bridge(*each) for each in zip(*(np.array_split(ratios, 8) for ratios in log_ratios), strict=True)]
    return Estimate(_bridge(*log_ratios), float(np.std(parts, ddof=1)) / math.sqrt(8))


def _log_normal(z, mean, root):
    """log N(z; mean, root root^T), (n,)."""
    standardized = np.linalg.solve(root, (z - mean).T)
    return -0.5 * np.sum(standardized**2 + _LOG_2PI, axis=0) - np.sum(np.log(np.diag(root)))


def gradient(function: Callable[[], Any], weights: list[Any]) -> tuple[float, list[np.ndarray]]:
    """The value of a function and its gradient by autodiff: 0 where there is none."""
    with tf.GradientTape() as tape:
        value = function()
    found = tape.gradient(value, weights)
    zeros = [np.zeros(weight.shape) for weight in weights]
    return float(value), [
        zero if each is None else np.asarray(ops.convert_to_numpy(each), "float64")
        for each, zero in zip(found, zeros, strict=True)
    ]


def _bridge(of_samples, of_normal):
    """log Z, from log p - log r at samples of p and at samples of r."""
    result = 0.0
    for _ in range(50):
        upper = special.logsumexp(of_normal - np.logaddexp(of_normal, result)) - math.log(len(of_normal))
        lower = special.logsumexp(-np.logaddexp(of_samples, result)) - math.log(len(of_samples))
        result = float(upper - lower)
    return result


class SmallEvent(NamedTuple):
    """A likelihood of events of two values, at some settings of the decoder's outputs: lists with one entry each."""

    total: list[float]  # of p over all x
    means: list[list[Any]]  # E[x] by the sum, as `mean` says, and of samples
    variances: list[list[Any]]  # the same of the variances
    errors: list[np.ndarray]  # standard errors of the samples' means
    declared: list[np.ndarray | None]  # the variance that such a likelihood has by its textbook


def small_event(likelihood: Any, settings: int = 4) -> SmallEvent | None:
    """What a copy of the likelihood for two values of x gives, or None if its values can't be told off."""
    copied = type(likelihood).from_config(likelihood.get_config())
    shape = _small_shape(likelihood)
    copied.build((None, *shape))
    copied.set_weights(
        [_first(old, new.shape) for old, new in zip(likelihood.get_weights(), copied.weights, strict=True)]
    )
    rng, result = np.random.default_rng(0), SmallEvent([], [], [], [], [])
    for _ in range(settings):
        outputs = [rng.normal(size=(1, *copied.decoder_shape(shape))) for _ in copied.parameters]
        grid = _grid(copied, shape, _distribution(copied, outputs, 1))
        if grid is None:
            return None
        x, weights = grid
        log_prob = ops.convert_to_numpy(_distribution(copied, outputs, len(x)).log_prob(_tensor(x)))
        p = weights * np.exp(log_prob.astype("float64"))
        total = float(np.sum(p))
        mean = np.tensordot(p, x, 1) / total
        variance = np.tensordot(p, x**2, 1) / total - mean**2
        distribution = _distribution(copied, outputs, _DRAWS)
        samples = ops.convert_to_numpy(distribution.sample(seed=0)).astype("float64")
        result.total.append(total)
        result.means.append([mean, _row(distribution.mean), samples.mean(axis=0)])
        result.variances.append([variance, _row(distribution.variance), samples.var(axis=0)])
        result.errors.append(samples.std(axis=0) / math.sqrt(_DRAWS) + 1e-3)
        result.declared.append(_textbook_variance(copied, mean))
    return result


def _small_shape(likelihood):
    shape = likelihood.event_shape
    if isinstance(likelihood, likelihoods.CategoricalLikelihood) and likelihood.levels is None:
        return (2, shape[-1]) if shape[-1] ** 2 <= 10_000 else (1, shape[-1])
    return (2,) if len(shape) == 1 else (*[1] * (len(shape) - 2), 2, 1)


def _first(old, shape):
    return old if old.shape == tuple(shape) else np.resize(old.ravel(), tuple(shape))


def _tensor(values):
    return ops.convert_to_tensor(np.asarray(values, "float32"))


def _distribution(likelihood, outputs, rows):
    return likelihood.distribution([_tensor(np.repeat(each, rows, axis=0)) for each in outputs])


def _row(values):
    return None if values is None else ops.convert_to_numpy(values)[0].astype("float64")


def _grid(likelihood, shape, distribution) -> tuple[np.ndarray, np.ndarray | float] | None:
    """All values of x (n, *shape), and the weight of each in a sum."""
    if isinstance(likelihood, likelihoods.CategoricalLikelihood) and likelihood.levels is None:
        chosen = np.array(list(itertools.product(range(shape[-1]), repeat=shape[0])))
        return np.eye(shape[-1])[chosen], 1.0
    axis = _values(likelihood, distribution)
    if axis is None:
        return None
    points, weights = axis
    x = np.stack(np.meshgrid(points, points, indexing="ij"), axis=-1).reshape(-1, *shape)
    return x, np.outer(weights, weights).ravel()


def _values(likelihood, distribution):
    """The values of one number of x and their weights."""
    if isinstance(likelihood, likelihoods.PoissonLikelihood | likelihoods.NegativeBinomialLikelihood):
        return None if likelihood.size is not None else (_COUNTS, np.ones(len(_COUNTS)))
    if likelihood.discrete:
        levels = getattr(likelihood, "levels", 2)
        inside = ops.convert_to_numpy(likelihood.supports(_tensor([0.0, 1.0])))
        if not np.all(inside) or levels > _MOST_LEVELS:
            return None
        return np.linspace(0, 1, levels), np.ones(levels)
    if not np.any(ops.convert_to_numpy(likelihood.supports(_tensor([-0.5, 1.5])))):
        points = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, 401))  # densest at the ends
    else:
        samples = ops.convert_to_numpy(distribution.sample(seed=1)).ravel()
        for seed in range(2, 12):
            samples = np.append(samples, ops.convert_to_numpy(distribution.sample(seed=seed)).ravel())
        scale = max(float(np.std(samples)), 1e-3)
        points = np.mean(samples) + scale * np.sinh(np.linspace(-4.0, 4.0, 601))
    steps = np.diff(points)
    return points, 0.5 * (np.append(steps, 0.0) + np.insert(steps, 0, 0.0))


def _textbook_variance(likelihood, mean) -> np.ndarray | None:
    """The variance of a value with this mean, by what the likelihood declares; None if it declares none."""
    if isinstance(likelihood, likelihoods.BernoulliLikelihood):
        return mean * (1 - mean)
    if getattr(likelihood, "zero_inflation", False):
        return None
    if isinstance(likelihood, likelihoods.PoissonLikelihood):
        return mean
    if isinstance(likelihood, likelihoods.NegativeBinomialLikelihood) and likelihood.dispersion != "decoder":
        return mean + np.exp(ops.convert_to_numpy(likelihood.log_dispersion).astype("float64")) * mean**2
    return None


def largest_difference(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """The largest difference of two arrays relative to the second (at least 0.01)."""
    return max(float(np.max(np.abs(a - b) / np.maximum(np.abs(b), 0.01))) for a, b in pairs)
