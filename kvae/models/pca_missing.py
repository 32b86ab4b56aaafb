"""Probabilistic PCA of rows with gaps: p(z|x observed), log p(x observed), and the fit by EM."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kvae.data import elements
from kvae.data.shares import Share
from kvae.distributions import MultivariateNormal
from kvae.models import pca_solvers

_ADVICE = "give more varied examples, or a smaller latent_dim"
_START = {"tolerance": 0.02, "max_passes": 4}  # of the randomized solver on x with means in its gaps


class Observed(NamedTuple):
    """What the observed values of x say of z: p(z|x) has the precision L L^T and the mean L^-T half.

    mask, (n, features), holds 1 for observed values; centered, (n, features), is x - mean, 0 in the gaps.
    """

    mask: Any
    centered: Any
    factor: Any
    half: Any

    @property
    def mean(self) -> Any:
        """E[z|x], (n, latent_dim)."""
        return ops.solve_triangular(ops.transpose(self.factor, (0, 2, 1)), self.half[:, :, None], lower=False)[:, :, 0]

    @property
    def covariance(self) -> Any:
        """Cov[z|x], (n, latent_dim, latent_dim)."""
        identity = ops.zeros_like(self.factor) + ops.eye(self.factor.shape[-1], dtype=self.factor.dtype)
        inverse = ops.solve_triangular(self.factor, identity, lower=True)
        return ops.matmul(ops.transpose(inverse, (0, 2, 1)), inverse)


def observe(x: Any, mean: Any, loadings: Any, noise_variance: Any) -> Observed:
    """The parts of p(z|x) for rows x (n, features) with NaN in the gaps, x = mean + loadings z + noise.

    Args:
        x: tensor (n, features) of float64.
        mean: (features,).
        loadings: W, (features, latent_dim).
        noise_variance: number > 0.

    Reference:
        Tipping and Bishop (1999), "Probabilistic principal component analysis", equations 6 to 9, of the rows of W
        with an observed value alone.
    """
    latent_dim = loadings.shape[1]
    is_observed = ops.logical_not(ops.isnan(x))
    centered = ops.where(is_observed, x - mean, 0.0)
    mask = ops.cast(is_observed, centered.dtype)
    rows, columns = np.tril_indices(latent_dim)
    products = ops.matmul(mask, ops.take(loadings, rows, axis=1) * ops.take(loadings, columns, axis=1))
    positions = np.zeros((latent_dim, latent_dim), "int32")
    positions[rows, columns] = positions[columns, rows] = np.arange(len(rows))
    gram = ops.reshape(ops.take(products, positions.ravel(), axis=1), (-1, latent_dim, latent_dim))
    factor = ops.cholesky(gram / noise_variance + ops.eye(latent_dim, dtype=gram.dtype))
    pull = ops.matmul(centered, loadings) / noise_variance
    half = ops.solve_triangular(factor, pull[:, :, None], lower=True)[:, :, 0]
    return Observed(mask, centered, factor, half)


def posterior(observed: Observed) -> MultivariateNormal:
    """p(z|x), a distribution of n rows over z."""
    factor = ops.cholesky(observed.covariance)
    scale = ops.diagonal(factor, axis1=1, axis2=2)
    return MultivariateNormal(observed.mean, 2.0 * ops.log(scale), factor / scale[:, :, None])


def log_prob(observed: Observed, noise_variance: Any) -> Any:
    """log p(x) of the observed values, (n,), in nats: 0 for a row without any."""
    count = ops.sum(observed.mask, axis=1)
    log_determinant = 2.0 * ops.sum(ops.log(ops.diagonal(observed.factor, axis1=1, axis2=2)), axis=1)
    distance = ops.sum(ops.square(observed.centered), axis=1) / noise_variance
    distance = distance - ops.sum(ops.square(observed.half), axis=1)
    return -0.5 * (count * (math.log(2 * math.pi) + ops.log(noise_variance)) + log_determinant + distance)


def expectation_maximization(
    stream: Any,
    features: int,
    rank: int,
    seed: int | None = None,
    tolerance: float = 1e-5,
    max_passes: int = 100,
    verbose: int | str = 0,
    share: Share | None = None,
) -> tuple[pca_solvers.Solution, float] | None:
    """Maximum likelihood from the observed values, in 8 features (rank + 2)^2 bytes, or None if nothing is missing.

    A pass over the stream is a step. After each step, z is scaled to the covariance that it has over the rows, which
    multiplies the speed and leaves the maximum as it is. The start is the PCA of x with its means in the gaps.

    Args:
        stream: a `tf.data.Dataset` of batches, with the same rows in every pass, in any order; NaN in the gaps.
        features: the number of values of an example.
        rank: the number of axes.
        seed: int or None, of the start.
        tolerance: the fit stops after a pass that raises log p(x) by fewer nats for each observed value.
        max_passes: the fit warns if they don't reach the tolerance.
        verbose: 0 for no progress bar.
        share: as for `pca_solvers.randomized`.

    Returns:
        (the solution, the noise's variance), or None.

    Raises:
        ValueError: for a stream that changes its length, or without any value.

    Reference:
        Ilin and Raiko (2010), "Practical approaches to principal component analysis in the presence of missing
        values", section 3; Liu, Rubin and Wu (1998), "Parameter expansion to accelerate EM: the PX-EM algorithm".
    """
    rows = _Rows(stream, features, share or Share())
    counts, total = np.zeros(features), np.zeros(features)
    for x, weights in rows:
        counts += weights @ ~np.isnan(x)
        total += weights @ np.where(np.isnan(x), 0.0, x)
    counts, total = rows.share.sum(counts, total)
    if rows.is_complete:
        return None
    if not counts.any():
        raise ValueError("x has no value at all that is observed: expected numbers beside the NaN")
    if rows.count <= rank:
        raise ValueError(f"x has {rows.count} examples; {rank} axes need more than that, of a weight above 0.")
    _warn_of_empty_columns(counts)
    mean = total / np.maximum(counts, 1e-300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of axes that haven't converged
        start = pca_solvers.randomized(_Filled(rows, mean), features, rank, seed, share=share, **_START)
    if not start.total_variance > 0:
        raise ValueError(f"x has no variance beside its gaps, so that it has no density: {_ADVICE}.")
    noise = max((start.total_variance - start.variances.sum()) / (features - rank), 1e-6 * start.total_variance)
    loadings = start.axes.T * np.sqrt(np.maximum(start.variances - noise, 1e-3 * noise))
    bar = keras.utils.Progbar(max_passes, unit_name="pass", verbose=1 if verbose else 0)
    before, gain = -math.inf, math.inf
    for number in range(max_passes):
        try:
            log_likelihood, mean, loadings, noise = _step(rows, mean, loadings, noise, counts)
        except np.linalg.LinAlgError:
            raise ValueError(f"x has too few values beside its gaps for {rank} axes: {_ADVICE}.") from None
        gain, before = (log_likelihood - before) / counts.sum(), log_likelihood
        bar.update(number + 1, finalize=gain < tolerance or number + 1 == max_passes)
        if gain < tolerance or not noise > 0:
            break
    else:
        warnings.warn(
            f"log p(x) rose by {gain:.1g} nats for each observed value in the last of {max_passes} passes, more than "
            f"the tolerance of {tolerance:.1g}: give a larger max_passes",
            stacklevel=4,
        )
    axes, scales, _ = np.linalg.svd(loadings, full_matrices=False)
    variances = np.square(scales) + noise
    return pca_solvers.Solution(
        rows.count, mean, float(variances.sum() + (features - rank) * noise), variances, axes.T
    ), noise


def _step(rows, mean, loadings, noise, counts):
    """(log p(x) of these parameters, the parameters after a step of EM and the scaling of z)."""
    features, rank = loadings.shape
    size = rank + 1  # z and 1
    lower = np.tril_indices(size)
    moments, products = np.zeros((features, len(lower[0]))), np.zeros((features, size))
    squares, log_likelihood, total, weight = np.zeros(features), 0.0, np.zeros(len(lower[0])), 0.0
    parameters = [ops.convert_to_tensor(values, "float64") for values in (mean, loadings, noise)]
    for x, weights in rows:
        observed = observe(x, *parameters)
        log_likelihood += weights @ ops.convert_to_numpy(log_prob(observed, parameters[-1]))
        mask, centered, z, covariance = (
            ops.convert_to_numpy(each)
            for each in (observed.mask, observed.centered, observed.mean, observed.covariance)
        )
        z = np.concatenate([z, np.ones((len(z), 1))], axis=1)
        outer = z[:, lower[0]] * z[:, lower[1]]
        within = lower[0] < rank  # the covariance's part of E[z z^T]; of 1 there is none
        outer[:, within] += covariance[:, lower[0][within], lower[1][within]]
        outer *= weights[:, None]
        moments += mask.T @ outer
        products += centered.T @ (z * weights[:, None])
        squares += weights @ np.square(centered)
        total, weight = total + outer.sum(axis=0), weight + weights.sum()
    moments, products, squares, log_likelihood, total, weight = rows.share.sum(
        moments, products, squares, log_likelihood, total, weight
    )
    normal = _symmetric(moments, lower, size)
    normal[counts == 0] = np.eye(size)
    solved = np.linalg.solve(normal, products[:, :, None])[:, :, 0]
    new_noise = float((squares - np.sum(solved * products, axis=1)).sum() / counts.sum())
    second = _symmetric(total[None], lower, size)[0] / weight
    center, scatter = second[rank, :rank], second[:rank, :rank]
    scaling = np.linalg.cholesky(scatter - np.outer(center, center))
    new_mean = mean + solved[:, rank] + solved[:, :rank] @ center
    return log_likelihood, new_mean, solved[:, :rank] @ scaling, new_noise


def _symmetric(flat, lower, size):
    full = np.zeros((len(flat), size, size))
    full[:, lower[0], lower[1]] = full[:, lower[1], lower[0]] = flat
    return full


def _warn_of_empty_columns(counts):
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        listing = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        warnings.warn(
            f"x has no value at all in {len(empty)} of its {len(counts)} columns ({listing}): the model knows nothing "
            "about them and fills them with 0. Leave them out.",
            stacklevel=5,
        )


class _Rows:
    """(x, weights) of a stream in blocks of float64, as often as it is iterated. `count` is that of all workers."""

    def __init__(self, stream: Any, features: int, share: Share):
        self.stream, self.features, self.share = stream, features, share
        self.count: Any = None
        self.is_complete = True

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        count, gaps = 0, False
        most = max(32, pca_solvers.BLOCK_BYTES // (8 * self.features))
        for element in self.stream:
            batch, _, weights = elements.unpack(element)
            if weights is not None:
                weights = np.asarray(elements.weight_per_example(weights, len(batch)), "float64")
            for start in range(0, len(batch), most):
                x = ops.convert_to_numpy(elements.scale(batch[start : start + most], "float64"))
                x = x.reshape(-1, self.features)
                own = np.ones(len(x)) if weights is None else weights[start : start + most]
                gaps = gaps or np.isnan(x).any()
                count += np.count_nonzero(own)
                yield x, own
        count, gaps = self.share.sum(count, gaps)
        count, self.is_complete = int(count), not gaps
        if self.count not in (None, count):
            raise ValueError(
                f"x has {self.count} examples in one pass and {count} in another: expectation-maximization needs the "
                "same ones in every pass"
            )
        self.count = count


class _Filled:
    """The rows with `mean` in the gaps, as a stream of (x, y, sample_weight)."""

    def __init__(self, rows: _Rows, mean: np.ndarray):
        self.rows, self.mean = rows, mean

    def cardinality(self) -> int:
        return -1

    def __iter__(self) -> Iterator[tuple]:
        for x, weights in self.rows:
            yield np.where(np.isnan(x), self.mean, x), None, weights
