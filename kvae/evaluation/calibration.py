"""A test of q(z|x) = p(z|x) on simulated data."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from scipy import special

from kvae import arguments, html
from kvae.evaluation import scoring

_ROWS = 500  # runs at once


class Calibration(NamedTuple):
    """The result of `simulation_based_calibration`.

    Attributes:
        ranks: (runs, latent_dim), the ranks of the true z among the draws of q(z|x), from 0 to num_draws.
        p_values: (latent_dim,), of chi-squared tests for uniform ranks.
    """

    ranks: np.ndarray
    p_values: np.ndarray

    @property
    def calibrated(self) -> bool:
        """True if no latent's ranks differ from uniform ranks, at a level of 1 % for all latents together."""
        return bool(np.min(self.p_values) > 0.01 / len(self.p_values))

    _repr_html_ = html.calibration
    __repr__ = html.plain_repr(html.calibration)


def simulation_based_calibration(
    model: Any,
    runs: int = 10_000,
    num_draws: int = 99,
    bins: int = 20,
    seed: int | None = 0,
    *,
    draws: int | None = None,
) -> Calibration:
    """Draw z ~ p(z) and x ~ p(x|z), and rank z among draws of q(z|x): uniformly distributed if q(z|x) is p(z|x).

    Too many ranks at both ends mean a too narrow q(z|x), too many in the middle a too wide one.

    Args:
        model: a VAE or PCA. The labels of a ConditionalVAE can't be simulated.
        runs: number of z.
        num_draws: draws of each q(z|x).
        bins: of the chi-squared test, a divisor of num_draws + 1.
        seed: an int, or None for a random one.
        draws: deprecated name of num_draws.

    Returns:
        a `Calibration`.

    Raises:
        TypeError: if the model has no p(z).
        ValueError: for a model with labels, for numbers below their least, and if bins doesn't divide num_draws + 1.

    Example:
        >>> pca = kvae.PCA(2).fit(np.random.default_rng(0).normal(size=(50, 4)), verbose=0)
        >>> result = kvae.evaluation.simulation_based_calibration(pca, runs=200, num_draws=19)
        >>> result.ranks.shape, result.calibrated
        ((200, 2), True)

    Reference:
        Talts et al. (2018), "Validating Bayesian inference algorithms with simulation-based calibration", algorithm 1.
    """
    if draws is not None:
        num_draws = arguments.renamed("draws", draws, "num_draws", None)
    scoring.check_simulates(model)
    scoring.check_has_posterior(model)
    for name, value, least in (("runs", runs, 1), ("num_draws", num_draws, 1), ("bins", bins, 2)):
        arguments.integer_at_least(name, value, least)
    if (num_draws + 1) % bins:
        raise ValueError(f"bins is {bins} and num_draws {num_draws}; expected bins to divide num_draws + 1.")
    generator, ranks = keras.random.SeedGenerator(arguments.seed(seed)), []
    for start in range(0, runs, _ROWS):
        z = model.prior_distribution(min(_ROWS, runs - start)).sample(generator)
        posterior = model.posterior(model.decoder_distribution(z).sample(generator))
        drawn = ops.reshape(posterior.repeat(num_draws).sample(generator), (len(z), num_draws, -1))
        ranks.append(ops.convert_to_numpy(ops.sum(drawn < z[:, None], axis=1)))
    ranks = np.concatenate(ranks)
    counts = [np.bincount(column * bins // (num_draws + 1), minlength=bins) for column in ranks.T]
    return Calibration(ranks, _p_values(np.array(counts)))


def _p_values(counts):
    """Of chi-squared tests for uniform counts, a row (bins,) each. `scipy.stats` would be slow to import."""
    expected = counts.mean(axis=1, keepdims=True)
    return special.chdtrc(counts.shape[1] - 1, np.sum((counts - expected) ** 2 / expected, axis=1))
