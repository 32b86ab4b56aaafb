"""Values in the place of missing ones: their means, standard deviations and draws given the observed values."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.data import arrays, errors
from kvae.distributions.columns import ColumnsProduct
from kvae.models import pca_missing
from kvae.noise import indexed_normal

_VALUES, _ROWS = 2**22, 2**15  # values of x, and z, that are decoded at once
_FEW = 100  # rows for each parameter of a column, so that its variance is hardly 1 % more


@dataclasses.dataclass(frozen=True)
class Imputation:
    """The result of `impute`. Observed values are as they were, with a standard deviation of 0.

    Attributes:
        mean: E[x|x observed], (n, ...). Of a category in a table it is the most probable code.
        stddev: the standard deviation of each value of x given the observed ones, (n, ...).
        draws: of x given its observed values, (draws, n, ...). Analyze each, and average, as multiple imputation does.
            Of a PCA with `bootstraps` each has other parameters, and mean and stddev are those of the mixture.
        effective_samples: (sum w)^2 / sum w^2 of each row's importance weights, (n,): with few, mean and draws rest on
            few z. Infinite if p(z|x observed) is exact, as in a PCA.
    """

    mean: np.ndarray
    stddev: np.ndarray
    draws: np.ndarray
    effective_samples: np.ndarray


def impute(model: Any, data: Any, draws: int, samples: int, seed: int, batch_size: int) -> Imputation:
    """`kvae.models.base.LatentModel.impute`, with checked arguments and data."""
    if draws > 1 and getattr(model, "bootstraps", None) == 0 and model.examples < _FEW * (model.latent_dim + 1):
        arguments.warn(
            f"The draws don't know how unsure the axes are after a fit to {int(model.examples):,} rows, so that "
            "intervals are too narrow: make the PCA with bootstraps=20."
        )
    rows, position = [], 0
    most = max(1, _rows_at_once(model) // (max(model.latent_dim, draws) if model._has_exact_scores else samples))
    with errors.clear_errors():
        for element in arrays.batches(data, batch_size):
            batch = ops.convert_to_numpy(model._scaled(model._read(element)))
            for start in range(0, len(batch), most):
                x = batch[start : start + most]
                rng = np.random.default_rng([seed, position])
                moments = _exactly if model._has_exact_scores else _by_weights
                rows.append(_filled(x, *moments(model, x, position, draws, samples, seed, rng)))
                position += len(x)
    mean, stddev, drawn, effective = zip(*rows, strict=True)
    return Imputation(
        np.concatenate(mean), np.concatenate(stddev), np.concatenate(drawn, axis=1), np.concatenate(effective)
    )


def _rows_at_once(model):
    return max(16, min(_ROWS, _VALUES // int(np.prod(model.event_shape))))


def _filled(x, mean, variance, drawn, effective):
    missing = np.isnan(x)
    return (
        np.where(missing, mean, x).astype(x.dtype),
        np.where(missing, np.sqrt(np.maximum(variance, 0.0)), 0.0).astype(x.dtype),
        np.where(missing, drawn, x).astype(x.dtype),
        effective,
    )


def _exactly(model, x, position, draws, samples, seed, rng):
    """Of a model with p(z|x) in closed form, x linear in z: (mean, variance, draws, effective samples).

    With several sets of parameters, mean and variance are those of their mixture, as by Rubin's rules: the mean of the
    variances, and the variance of the means.
    """
    flat, parameters = x.reshape(len(x), -1), model._parameters()
    means, variances, drawn = [], [], np.empty((draws, *flat.shape), x.dtype)
    for number, (center, loadings, noise) in enumerate(parameters):
        posterior = pca_missing.posterior(pca_missing.observe(flat, center, loadings, noise))
        center, loadings, noise, z, factor = (
            ops.convert_to_numpy(each) for each in (center, loadings, noise, posterior.mean, posterior.cholesky)
        )
        means.append(z @ loadings.T + center)
        variances.append(np.square(loadings @ factor).sum(axis=2) + noise)
        eps = rng.normal(size=(len(range(number, draws, len(parameters))), *z.shape))
        values = (z + np.einsum("nkl,mnl->mnk", factor, eps)) @ loadings.T + center
        drawn[number :: len(parameters)] = values + np.sqrt(noise) * rng.normal(size=values.shape)
    variance = np.mean(variances, axis=0) + np.var(means, axis=0)
    mean, drawn = np.mean(means, axis=0).reshape(x.shape), drawn.reshape(draws, *x.shape)
    return mean, variance.reshape(x.shape), drawn, np.full(len(x), np.inf)


def _by_weights(model, x, position, draws, samples, seed, rng):
    """Self-normalized importance weighting of z ~ q(z|x): (mean, variance, draws, effective samples).

    Given z the missing values are independent of the observed ones. So their mean is that of E[x|z] under p(z|x
    observed), and their variance is the mean of Var[x|z] plus the variance of E[x|z].
    """
    block = max(1, _rows_at_once(model) // len(x))
    total = _Weighted(x.shape)
    codes, log_weights = [], []
    for number, start in enumerate(range(0, samples, block)):
        count = min(block, samples - start)
        key = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        z, log_weight = _draw(model, x, position, count, key)
        p = _conditional(model, np.repeat(x, count, axis=0), z)
        mean, variance = (_by_row(values, len(x)) for values in (p.mean, _variance(p, rng)))
        probabilities = p.code_probabilities if isinstance(p, ColumnsProduct) else {}
        shares = {column: _by_row(values, len(x)) for column, values in probabilities.items()}
        codes.append(_by_row(z, len(x)))
        log_weights.append(log_weight)
        total.add(log_weight, mean, variance, shares)
    chosen = _choose(np.concatenate(log_weights, axis=1), draws, rng)
    z = np.take_along_axis(np.concatenate(codes, axis=1), chosen[:, :, None], axis=1)
    return *total.moments(), _decoded(model, x, z, rng), total.effective_samples


def _conditional(model, x, z):
    """p(x|z), with what x (n, ...) says of it beside z: the sizes of counts."""
    p, observed = model.decoder_distribution(z), ~np.isnan(x)
    if not model.likelihood.reads_sizes:
        return p
    filled = ops.convert_to_tensor(np.where(observed, x, 0.0).astype(x.dtype))
    return p.at_sizes_of(filled, ops.convert_to_tensor(observed))


def _decoded(model, x, z, rng):
    """A draw of p(x|z) for each z (n, draws, latent_dim): (draws, n, ...)."""
    rows, draws, latent_dim = z.shape
    flat, most = z.transpose(1, 0, 2).reshape(-1, latent_dim), _rows_at_once(model)
    found = [np.zeros((0, *model.event_shape), z.dtype)]
    for start in range(0, len(flat), most):
        part = flat[start : start + most]
        p = _conditional(model, x[np.arange(start, start + len(part)) % rows], ops.convert_to_tensor(part))
        found.append(ops.convert_to_numpy(p.sample(int(rng.integers(2**31)))))
    return np.concatenate(found).reshape(draws, rows, *model.event_shape)


def _draw(model, x, position, count, key):
    """(z (n * count, latent_dim), log of their weights (n, count)). A row without observed values draws from p(z)."""
    positions = np.arange(position, position + len(x))
    eps = ops.reshape(
        indexed_normal(positions, count * model.latent_dim, key=key, dtype=x.dtype), (-1, model.latent_dim)
    )
    posterior, prior = model.posterior(x), model.prior_distribution()
    z, log_posterior = posterior.repeat(count).rsample_and_log_prob(eps)
    empty = np.isnan(x).reshape(len(x), -1).all(axis=1)
    if empty.any():
        of_prior = model.prior_distribution(count).sample(keras.random.SeedGenerator(key))
        is_empty = np.repeat(empty, count)[:, None]
        z = ops.where(is_empty, ops.tile(of_prior, (len(x), 1)), z)
    log_likelihood = model.log_likelihood(np.repeat(x, count, axis=0), z)
    log_weights = _by_row(log_likelihood + prior.log_prob(z) - log_posterior, len(x)).astype("float64")
    return z, np.where(empty[:, None], 0.0, log_weights)


def _by_row(values, rows):
    values = ops.convert_to_numpy(values)
    return values.reshape(rows, -1, *values.shape[1:])


def _variance(p, rng):
    """Var[x|z], (n, ...): in closed form, or else the squared distance of a draw from the mean."""
    variance = getattr(p, "variance", None)
    return ops.square(p.sample(int(rng.integers(2**31))) - p.mean) if variance is None else variance


def _choose(log_weights, draws, rng):
    """For each row as many indices of its weights as there are draws, by their shares: (n, draws)."""
    shares = np.cumsum(np.exp(log_weights - log_weights.max(axis=1, keepdims=True)), axis=1)
    points = rng.random((len(shares), draws)) * shares[:, -1:]
    return np.stack([np.searchsorted(*row, side="right") for row in zip(shares, points, strict=True)])


class _Weighted:
    """Means over the draws of rows, added block by block, relative to the largest weight so far."""

    def __init__(self, shape: tuple):
        self.largest, self.weights, self.squared_weights = np.full(shape[0], -np.inf), *np.zeros((2, shape[0]))
        self.sums = np.zeros((3, *shape))  # of E[x|z], its square and Var[x|z]
        self.shares: dict[int, np.ndarray] = {}  # of the codes of categories, by column

    def add(self, log_weights: np.ndarray, means: np.ndarray, variances: np.ndarray, shares: dict) -> None:
        """log_weights: (n, count); means and variances of x given z: (n, count, ...); shares: (n, count, codes)."""
        largest = np.maximum(self.largest, log_weights.max(axis=1))
        weights, shrink = np.exp(log_weights - largest[:, None]), np.exp(self.largest - largest)
        self.largest = largest
        self.weights = self.weights * shrink + weights.sum(axis=1)
        self.squared_weights = self.squared_weights * shrink**2 + np.square(weights).sum(axis=1)
        means = means.astype("float64")
        added = [np.einsum("nk,nk...->n...", weights, values) for values in (means, means**2, variances)]
        self.sums = self.sums * self._as_column(shrink) + np.stack(added)
        for column, values in shares.items():
            share = np.einsum("nk,nkc->nc", weights, values)
            self.shares[column] = self.shares.get(column, 0.0) * shrink[:, None] + share

    def _as_column(self, values):
        return values.reshape(-1, *(1,) * (self.sums.ndim - 2))

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """The means, of categories the most probable codes, and the variances."""
        mean, square, variance = self.sums / self._as_column(self.weights)
        variance = variance + np.maximum(square - mean**2, 0.0)
        for column, shares in self.shares.items():
            first, second = (shares @ np.arange(shares.shape[1]) ** power / self.weights for power in (1, 2))
            mean[:, column], variance[:, column] = shares.argmax(axis=1), second - first**2
        return mean, variance

    @property
    def effective_samples(self) -> np.ndarray:
        return self.weights**2 / self.squared_weights
