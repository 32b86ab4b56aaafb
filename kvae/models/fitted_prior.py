"""A prior that is fitted to the codes of a trained VAE: the second stage of a two-stage VAE."""

from typing import Any

import keras
import numpy as np
from keras import ops
from scipy import special

from kvae import arguments
from kvae.data import arrays, elements, errors
from kvae.models.vae import VAE
from kvae.optimizers import Adam
from kvae.priors import MixtureOfGaussians, Prior

_DRAWS = 4  # z ~ q(z|x) per example
_MOST = 100_000  # examples
_ROWS = 20_000  # codes for expectation-maximization
_CHUNKS = 20  # of these codes, to save memory
_ITERATIONS = 25  # of expectation-maximization
_FLOOR = 1e-4  # added to variances, as a share of the codes'


def fit_prior(
    model: VAE,
    x: Any,
    prior: Prior,
    *,
    steps: int = 2_000,
    batch_size: int = 512,
    learning_rate: float = 2e-3,
    seed: int | None = None,
) -> VAE:
    """Fit a prior to a trained VAE's codes: maximize E_x E_q(z|x)[log p(z)] over the weights of p(z) alone.

    Encoder, decoder and likelihood stay as they are, and so do reconstructions. The ELBO rises by as much as the KL
    falls. Only codes are read, not images, so it costs little. Samples profit if q(z), the mean of q(z|x) over the
    data, differs from the prior of the training.

    A `MixtureOfGaussians` is fitted by expectation-maximization, in 25 passes over the codes. Others take steps of
    Adam.

    Args:
        model: a trained `VAE`. The result has its networks and likelihood, not copies of them.
        x: a stream of batches or an array, as `fit` reads them. At most 100,000 examples are read.
        prior: a prior with weights, such as `MixtureOfGaussians(100, covariance="full")`.
        steps: int >= 1, of Adam. Default 2,000. This and the next two are for priors other than mixtures.
        batch_size: int >= 1, codes in a step. Default 512.
        learning_rate: number > 0, Adam's at the start; it falls to 0 by a cosine. Default 2e-3.
        seed: int, or None (default) for a random one; of z and of the batches.

    Returns:
        `VAE` with this prior, the record of the model's training, and compiled like the model: with the `ELBO` if its
            objective doesn't suit the prior.

    Raises:
        TypeError: if `model` is no VAE, or `prior` no prior.
        ValueError: if the prior has no weights, or a number is out of its range.

    Example:
        >>> x = np.random.default_rng(0).random((20, 6)).astype("float32")
        >>> networks = kvae.networks.dense_encoder((6,), 2), kvae.networks.dense_decoder((6,), 2)
        >>> vae = kvae.fit_prior(kvae.VAE(*networks), x, kvae.MixtureOfGaussians(3))
        >>> vae.sample(4).shape
        (4, 6)

    Reference:
        Dai and Wipf (2019), "Diagnosing and enhancing VAE models", section 4.
    """
    arguments.instance("model", model, VAE, "a trained kvae.VAE")
    arguments.instance("prior", prior, Prior, "a kvae prior with weights, such as kvae.MixtureOfGaussians()")
    steps = arguments.integer_at_least("steps", steps, 1)
    if arguments.real("learning_rate", learning_rate) <= 0:
        raise ValueError(f"learning_rate is {learning_rate!r}; expected a number above 0.")
    batch_size = arguments.integer_at_least("batch_size", batch_size, 1)
    seed = arguments.seed(seed)
    z = _draws(model, x, seed)
    config = {name: getattr(model, name) for name in model.config_names}
    fitted = type(model)(**{**config, "prior": prior})
    fitted.build((None, *model.event_shape))
    if not prior.trainable_weights:
        raise ValueError(f"prior is a {type(prior).__name__} without weights to fit: give kvae.MixtureOfGaussians().")
    rng = np.random.default_rng(seed)
    if isinstance(prior, MixtureOfGaussians):
        _expectation_maximization(prior, z, rng)
    else:
        _ascend(prior, model.posterior, z[rng.integers(len(z), size=steps * batch_size)], batch_size, learning_rate)
    _compile_alike(fitted, model)
    fitted.record = model.record
    return fitted


def _compile_alike(fitted, model):
    """Compile as the model is, since its record tells of that training; with the ELBO if its objective doesn't fit."""
    config = model.get_compile_config() if model.compiled else None
    try:
        fitted.compile_from_config(config or {})
    except (TypeError, ValueError):  # free bits with a mixture, or an objective that isn't registered
        fitted.compile()


def _draws(model, x, seed):
    """z ~ q(z|x), _DRAWS for each example: an array (n * _DRAWS, latent_dim)."""
    generator, draws, examples = keras.random.SeedGenerator(seed), [], 0
    with errors.clear_errors():
        for element in arrays.batches(model._checked(x, "x"), elements.BATCH_SIZE):
            posterior = model.posterior(model._scaled(model._read(element)))
            draws += [ops.convert_to_numpy(posterior.sample(generator)) for _ in range(_DRAWS)]
            examples += len(draws[-1])
            if examples >= _MOST:
                break
    return np.concatenate(draws)


def _ascend(prior, posterior, z, batch_size, learning_rate):
    """Adam's steps up log p(z), one for each `batch_size` rows of z."""
    steps = len(z) // batch_size
    density = NegativeLogDensity(prior, posterior)
    schedule: Any = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    optimizer = Adam(learning_rate=schedule, global_clipnorm=1.0)
    density.compile(optimizer, loss=lambda _, losses: losses, steps_per_execution=min(steps, 20))
    density.fit(z, np.zeros(len(z), z.dtype), batch_size=batch_size, shuffle=False, verbose=0)


def _expectation_maximization(prior, z, rng):
    """Fit a mixture by EM. It begins with the rows around as many random ones, each row in the nearest's component."""
    z = rng.permutation(z)[:_ROWS].astype(np.float64)
    center = np.mean(z, axis=0)
    z = z - center
    products = (z[:, :, None] * z[:, None]).reshape(len(z), -1)
    seeds = rng.choice(z, prior.components, replace=len(z) < prior.components)
    nearest = np.argmin(np.sum(seeds**2, axis=1) - 2 * z @ seeds.T, axis=1)
    shares = np.eye(prior.components)[nearest]
    floor = _FLOOR * np.diag(np.var(z, axis=0))
    is_full = prior.covariance == "full"
    for _ in range(_ITERATIONS):
        counts = shares.sum(axis=0) + 1e-6
        means = shares.T @ z / counts[:, None]
        squares = (shares.T @ products / counts[:, None]).reshape(-1, *floor.shape)
        covariances = squares - means[:, :, None] * means[:, None] + floor
        factors = np.linalg.cholesky(covariances if is_full else covariances * np.eye(len(floor)))
        log_joint = [_log_joint(chunk, counts, means, factors) for chunk in np.array_split(z, _CHUNKS)]
        shares = special.softmax(np.concatenate(log_joint), axis=1)
    scales = np.diagonal(factors, axis1=1, axis2=2)
    prior.logits.assign(np.log(counts))
    prior.means.assign(means + center)
    prior.log_vars.assign(2 * np.log(scales))
    if is_full:
        prior.below.assign(factors / scales[:, :, None])


def _log_joint(z, counts, means, factors):
    """log of count_k N(z; mean_k, L_k L_k^T) up to a constant, (n, components)."""
    inverses = np.linalg.inv(factors)
    shifts = (inverses @ means[:, :, None]).ravel().astype(np.float32)
    eps = z.astype(np.float32) @ inverses.reshape(-1, z.shape[1]).T.astype(np.float32) - shifts
    eps = eps.reshape(len(z), *means.shape)
    log_scales = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    return np.log(counts) - log_scales - 0.5 * np.einsum("nki,nki->nk", eps, eps)


class NegativeLogDensity(keras.Model):
    """-log p(z) of a prior. A VampPrior's components are those of `posterior`, whose weights aren't trained."""

    def __init__(self, prior, posterior):
        super().__init__(name="negative_log_density")
        self.prior, self._posterior = prior, posterior

    def call(self, z):
        return -self.prior.log_prob(z, self._posterior)
