"""The aggregate posterior q(z) = E_x[q(z|x)], and which latents say something of x."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from kvae import arguments, html
from kvae.data import arrays, elements, errors
from kvae.distributions import Normal
from kvae.evaluation import draws

_ROWS = 250


class ActiveUnits(NamedTuple):
    """variances: of each latent's posterior mean over the data, (latent_dim,). active: those above the threshold."""

    variances: np.ndarray
    active: np.ndarray

    _repr_html_ = html.active_units


@errors.clear_errors()
def active_units(model, data, threshold=0.01, batch_size=elements.BATCH_SIZE):
    """The latents whose posterior mean varies with x: Var_x(E_q[z]) > threshold (Burda et al. 2016, section 5.3).

    data: a stream of batches or an array. Returns an `ActiveUnits`.
    """
    draws.check_has_posterior(model)
    count, mean, squares = 0, 0.0, 0.0
    for element in arrays.batches(model._checked(data, "data"), batch_size):
        codes = _float64(model.posterior(model._read(element)).mean)
        before, count = mean, count + len(codes)
        mean = before + np.sum(codes - before, axis=0) / count
        squares = squares + np.sum((codes - before) * (codes - mean), axis=0)
    return ActiveUnits(squares / count, squares / count > threshold)


class AggregatePosterior(NamedTuple):
    """KL(q(z|x) || p(z)) split, in nats, at z drawn from the posteriors of some examples.

    The means over the examples are the divergences. mutual_information: log q(z|x) - log q(z), (m,), the mean at most
    log(examples). aggregate_kl: log q(z) - log p(z), (m,). total_correlation: log q(z) - sum_j log q(z_j), (m,).
    latents: {"kl", "mutual_information", "aggregate_kl", "least_aggregate_kl": (latent_dim,)}, of each latent alone.
    total_correlation and latents are None unless the posterior is a `Normal`, of independent latents; so are the
    latents' KLs unless the prior is, too. examples: those of the data. z: those drawn, (m, latent_dim).

    least_aggregate_kl, also of each latent: what KL(q(z) || p(z)) is at least over all x that there might be, by three
    standard errors. aggregate_kl, whose mixture is of these x alone, is too large for them where few posteriors
    overlap; a mixture of the others' posteriors, without z's own, makes it too small.
    """

    mutual_information: np.ndarray
    aggregate_kl: np.ndarray
    total_correlation: np.ndarray | None
    latents: dict | None
    examples: int
    z: np.ndarray
    least_aggregate_kl: float

    _repr_html_ = html.aggregate_posterior


@errors.clear_errors()
def aggregate_posterior(model, data, components=2_000, seed=0, batch_size=elements.BATCH_SIZE):
    """How E_x[KL(q(z|x) || p(z))] is mutual information of x and z, and how much KL(q(z) || p(z)).

    Hoffman and Johnson (2016), "ELBO surgery"; the total correlation: Chen et al. (2018), "Isolating sources of
    disentanglement". q(z) is the mixture of the data's own N posteriors: exactly so where N <= components, else by a
    uniform subset of M of them, z's own counted as what it is, one of N, and the others for the rest (their appendix
    C.2): 1/N q(z|x) + (N - 1) / (N (M - 1)) sum over others q(z|x'), which is unbiased.

    Args:
        model: a VAE or PCA.
        data: a stream of batches or an array.
        components: int, M, at least 2.
        seed: int, of the subset and the noise, or None for a random one.
        batch_size: of arrays.

    Returns:
        an `AggregatePosterior`.

    Raises:
        TypeError: for a model without a posterior.
        ValueError: for a posterior that can't score another's z, as a planar flow can't, and for a single example.
    """
    draws.check_has_posterior(model)
    if not scores_any_z(model):
        raise ValueError(
            f"q(z) is a mixture of the data's posteriors, and this {type(model.posterior_family).__name__} scores only "
            "the z that it drew itself: use another posterior, such as kvae.posteriors.FullNormal()."
        )
    components = arguments.integer_at_least("components", components, 2)
    rng = np.random.default_rng(arguments.seed(seed)).spawn(1)[0]  # not what x itself may have been drawn with
    x, examples = _subset(map(model._read, arrays.batches(model._checked(data, "data"), batch_size)), components, rng)
    kept = min(components, examples)
    if kept < 2:
        raise ValueError("data is a single example; the aggregate posterior is a mixture of at least 2.")
    parts = [slice(start, start + _ROWS) for start in range(0, kept, _ROWS)]
    posteriors = [model.posterior(keras.tree.map_structure(lambda of_x, p=part: of_x[p], x)) for part in parts]
    prior, numbers = model.prior_distribution(), np.arange(kept)
    z, own, log_prior, log_aggregate, log_others = [], [], [], [], []
    for part, posterior in zip(parts, posteriors, strict=True):
        eps = rng.normal(size=posterior.mean.shape)
        drawn = posterior.reparameterize(ops.cast(eps, posterior.mean.dtype))
        pairs = np.concatenate([_float64(other.pairwise_log_prob(drawn)) for other in posteriors], axis=1)
        rows = numbers[part]
        z.append(_float64(drawn))
        own.append(pairs[np.arange(len(pairs)), rows])
        log_prior.append(_float64(prior.log_prob(drawn)))
        for found, values in zip((log_aggregate, log_others), _log_mixtures(pairs, rows, examples), strict=True):
            found.append(values)
    z, own, log_prior, log_aggregate, log_others = map(np.concatenate, (z, own, log_prior, log_aggregate, log_others))
    total_correlation = latents = None
    if isinstance(posteriors[0], Normal):
        log_marginals, latents = _latents(z, posteriors, prior, examples)
        total_correlation = log_aggregate - log_marginals
    parts = own - log_aggregate, log_aggregate - log_prior
    return AggregatePosterior(*parts, total_correlation, latents, examples, z, float(_least(log_others - log_prior)))


def scores_any_z(model):
    """Whether the model's posteriors have a density in closed form at z that they didn't draw."""
    return getattr(getattr(model, "posterior_family", None), "scores_any_z", True)


def _subset(batches, most, rng):
    """(a uniform subset of at most so many x, the number of all), in one pass (Vitter 1985, algorithm R).

    batches: of x, an array or more of them.
    """
    kept, seen = [], 0
    for batch in batches:
        for x in zip(*map(ops.convert_to_numpy, keras.tree.flatten(batch)), strict=True):
            place = seen if seen < most else rng.integers(seen + 1)
            if place < most:
                kept[place : place + 1] = [x]
            seen += 1
    return keras.tree.pack_sequence_as(batch, [np.stack(part) for part in zip(*kept, strict=True)]), seen


def _log_mixtures(log_densities, rows, examples):
    """log q(z_i) of log q(z_i|x_j), (m, M), the z_i being those of the examples `rows` (m,) among the M; and the same
    without their own q(z_i|x_i)."""
    places = np.arange(len(rows)), rows
    own, others = log_densities[places], log_densities.copy()
    others[places] = -np.inf
    largest = np.max(others, axis=1, keepdims=True)
    log_others = np.log(np.sum(np.exp(others - largest), axis=1)) + largest[:, 0] - np.log(others.shape[1] - 1)
    return np.logaddexp(own - np.log(examples), log_others + np.log1p(-1 / examples)), log_others


def _least(values):
    """The means of (m, ...) less three of their standard errors."""
    return np.mean(values, axis=0) - 3 * np.std(values, axis=0, ddof=1) / np.sqrt(len(values))


def _latents(z, posteriors, prior, examples):
    """(sum_j log q(z_j), {name: (latent_dim,)}), each latent taken alone."""
    means = np.concatenate([_float64(posterior.mean) for posterior in posteriors])
    log_vars = np.concatenate([_float64(posterior.log_var) for posterior in posteriors])
    numbers, own = np.arange(len(z)), _log_normal(z, means, log_vars)
    log_aggregate, log_others = np.empty_like(z), np.empty_like(z)
    for latent in range(z.shape[1]):
        for start in range(0, len(z), _ROWS):
            part = slice(start, start + _ROWS)
            pairs = _log_normal(z[part, latent, None], means[:, latent], log_vars[:, latent])
            found = _log_mixtures(pairs, numbers[part], examples)
            log_aggregate[part, latent], log_others[part, latent] = found
    latents = {"mutual_information": np.mean(own - log_aggregate, axis=0)}
    latents |= dict.fromkeys(("kl", "aggregate_kl", "least_aggregate_kl"))
    if isinstance(prior, Normal):
        log_prior = _log_normal(z, _float64(prior.mean), _float64(prior.log_var))
        latents["kl"] = np.mean(own - log_prior, axis=0)
        latents["aggregate_kl"] = np.mean(log_aggregate - log_prior, axis=0)
        latents["least_aggregate_kl"] = _least(log_others - log_prior)
    return np.sum(log_aggregate, axis=1), latents


def _log_normal(z, mean, log_var):
    return -0.5 * ((z - mean) ** 2 * np.exp(-log_var) + log_var + np.log(2 * np.pi))


def _float64(values):
    return ops.convert_to_numpy(values).astype("float64")
