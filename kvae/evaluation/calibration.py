"""Whether a posterior is the one that it stands in for, on data that the model makes itself."""

from typing import NamedTuple

import keras
import numpy as np
import scipy.stats
from keras import ops

from kvae import arguments, html
from kvae.evaluation import draws as drawing

_ROWS = 500


class Calibration(NamedTuple):
    """ranks: (runs, latent_dim), of the z that made x among draws of q(z|x): from 0 to draws. p_values: (latent_dim,),
    of a chi-squared test that they are uniform."""

    ranks: np.ndarray
    p_values: np.ndarray

    @property
    def calibrated(self):
        """Whether no latent's ranks differ from uniform ones: False in one of 100 cases by chance."""
        return bool(np.min(self.p_values) > 0.01 / len(self.p_values))

    _repr_html_ = html.calibration


def simulation_based_calibration(model, runs=10_000, draws=99, bins=20, seed=0):
    """Draw z ~ p(z) and x ~ p(x|z); where q(z|x) is p(z|x), z's rank among draws of q(z|x) is uniform.

    Talts et al. (2018), "Validating Bayesian inference algorithms with simulation-based calibration", algorithm 1.
    Too many ranks at both ends mean a q(z|x) that is too narrow, too many in the middle one that is too wide.

    Args:
        model: a VAE or PCA; no ConditionalVAE: its labels can't be simulated.
        runs: int, the z.
        draws: int, of each q(z|x).
        bins: int, of the test; a divisor of draws + 1.
        seed: int, or None for a random one.

    Returns:
        a `Calibration`.

    Raises:
        TypeError: for a model without p(z).
        ValueError: for a model with labels, and for numbers that are too small or don't fit each other.
    """
    drawing.check_simulates(model)
    drawing.check_has_posterior(model)
    for name, value, least in (("runs", runs, 1), ("draws", draws, 1), ("bins", bins, 2)):
        arguments.integer_at_least(name, value, least)
    if (draws + 1) % bins:
        raise ValueError(f"bins is {bins} and draws {draws}; expected bins to divide draws + 1.")
    generator, ranks = keras.random.SeedGenerator(arguments.seed(seed)), []
    for start in range(0, runs, _ROWS):
        z = model.prior_distribution(min(_ROWS, runs - start)).sample(generator)
        posterior = model.posterior(model.decoder_distribution(z).sample(generator))
        drawn = ops.reshape(posterior.repeat(draws).sample(generator), (len(z), draws, -1))
        ranks.append(ops.convert_to_numpy(ops.sum(drawn < z[:, None], axis=1)))
    ranks = np.concatenate(ranks)
    counts = [np.bincount(column * bins // (draws + 1), minlength=bins) for column in ranks.T]
    return Calibration(ranks, np.array([scipy.stats.chisquare(count).pvalue for count in counts]))
