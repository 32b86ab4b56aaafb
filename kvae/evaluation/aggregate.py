"""The aggregate posterior q(z) = E_x[q(z|x)], and the latents in use."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kvae import arguments, html
from kvae.data import arrays, elements, errors
from kvae.distributions import Normal
from kvae.evaluation import scoring

_ROWS = 250  # posteriors, and z, at once


class ActiveUnits(NamedTuple):
    """The result of `active_units`.

    Attributes:
        variances: (latent_dim,), of each latent's posterior mean over the data.
        active: (latent_dim,), True for variances above the threshold.
    """

    variances: np.ndarray
    active: np.ndarray

    _repr_html_ = html.active_units
    __repr__ = html.plain_repr(html.active_units)


@errors.clear_errors()
def active_units(model: Any, data: Any, threshold: float = 0.01, batch_size: int = elements.BATCH_SIZE) -> ActiveUnits:
    """Find the latents with a varying posterior mean: Var_x(E_q[z]) > threshold.

    Args:
        model: a VAE or PCA.
        data: a stream of batches or an array.
        threshold: the least variance of an active latent.
        batch_size: of arrays.

    Returns:
        an `ActiveUnits`.

    Raises:
        TypeError: if the model has no posterior.
        ValueError: for unusable data.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> kvae.evaluation.active_units(kvae.PCA(2).fit(x, verbose=0), x).active
        array([ True,  True])

    Reference:
        Burda, Grosse and Salakhutdinov (2016), "Importance weighted autoencoders", section 5.3.
    """
    scoring.check_has_posterior(model)
    threshold = arguments.real("threshold", threshold, 0)
    count, mean, squares = 0, np.zeros(model.latent_dim), np.zeros(model.latent_dim)
    for element in arrays.batches(model._checked(data, "data"), batch_size):
        codes = _float64(model.posterior(model._read(element)).mean)
        before, count = mean, count + len(codes)
        mean = before + np.sum(codes - before, axis=0) / count
        squares = squares + np.sum((codes - before) * (codes - mean), axis=0)
    return ActiveUnits(squares / count, squares / count > threshold)


class AggregatePosterior(NamedTuple):
    """The result of `aggregate_posterior`: KL(q(z|x) || p(z)) split, in nats, at z drawn from m posteriors.

    The divergences are the means of the arrays.

    Attributes:
        mutual_information: log q(z|x) - log q(z), (m,). Its mean is at most log(examples).
        aggregate_kl: log q(z) - log p(z), (m,). The mixture q(z) is of these x alone. If few posteriors overlap,
            aggregate_kl is too large for a q(z) over all possible x.
        total_correlation: log q(z) - sum_j log q(z_j), (m,). None unless the posterior is a `Normal`.
        latents: {"kl", "mutual_information", "aggregate_kl", "least_aggregate_kl": (latent_dim,)}, for each latent
            alone. None unless the posterior is a `Normal`. The KLs are None unless the prior is a `Normal`, too.
        examples: number of examples in the data.
        z: the draws, (m, latent_dim).
        least_aggregate_kl: the least KL(q(z) || p(z)) over all possible x, three standard errors below its estimate.
            The estimate leaves z's own posterior out of the mixture, so it is too small.
    """

    mutual_information: np.ndarray
    aggregate_kl: np.ndarray
    total_correlation: np.ndarray | None
    latents: dict[str, np.ndarray | None] | None
    examples: int
    z: np.ndarray
    least_aggregate_kl: float

    _repr_html_ = html.aggregate_posterior
    __repr__ = html.plain_repr(html.aggregate_posterior)


@errors.clear_errors()
def aggregate_posterior(
    model: Any, data: Any, components: int = 2_000, seed: int | None = 0, batch_size: int = elements.BATCH_SIZE
) -> AggregatePosterior:
    """Split E_x[KL(q(z|x) || p(z))] into the mutual information of x and z, and KL(q(z) || p(z)).

    q(z) is the mixture of the posteriors of all N examples: exactly, if N <= components. Otherwise it is estimated
    from a uniform subset of M of them, without bias: 1/N q(z|x) + (N - 1) / (N (M - 1)) sum over the others q(z|x').

    Args:
        model: a VAE or PCA.
        data: a stream of batches or an array.
        components: M, at least 2.
        seed: of the subset and the noise, an int, or None for a random one.
        batch_size: of arrays.

    Returns:
        an `AggregatePosterior`.

    Raises:
        TypeError: if the model has no posterior.
        ValueError: for a single example, and for a posterior such as a planar flow (it scores only its own z).

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> split = kvae.evaluation.aggregate_posterior(kvae.PCA(2).fit(x, verbose=0), x)
        >>> split.z.shape, bool(split.mutual_information.mean() < np.log(50))
        ((50, 2), True)

    Reference:
        Hoffman and Johnson (2016), "ELBO surgery"; Chen et al. (2018), "Isolating sources of disentanglement in
        variational autoencoders", appendix C.2, also for the total correlation.
    """
    scoring.check_has_posterior(model)
    if not scores_any_z(model):
        raise ValueError(
            f"q(z) is a mixture of the data's posteriors, and this {type(model.posterior_family).__name__} scores only "
            "the z that it drew itself: use another posterior, such as kvae.posteriors.FullNormal()."
        )
    components = arguments.integer_at_least("components", components, 2)
    rng = np.random.default_rng(arguments.seed(seed)).spawn(1)[0]  # x itself may come from default_rng(seed)
    x, examples = _subset(map(model._read, arrays.batches(model._checked(data, "data"), batch_size)), components, rng)
    kept = min(components, examples)
    if kept < 2:
        raise ValueError("data is a single example; the aggregate posterior is a mixture of at least 2.")
    blocks = [slice(start, start + _ROWS) for start in range(0, kept, _ROWS)]
    posteriors = [model.posterior(keras.tree.map_structure(lambda array, b=block: array[b], x)) for block in blocks]
    prior, numbers = model.prior_distribution(), np.arange(kept)
    columns: list[list[np.ndarray]] = [[] for _ in range(5)]
    for block, posterior in zip(blocks, posteriors, strict=True):
        eps = rng.normal(size=posterior.mean.shape)
        z = posterior.reparameterize(ops.cast(eps, posterior.mean.dtype))
        pairs = np.concatenate([_float64(other.pairwise_log_prob(z)) for other in posteriors], axis=1)
        rows = numbers[block]
        log_own = pairs[np.arange(len(pairs)), rows]
        values = _float64(z), log_own, _float64(prior.log_prob(z)), *_log_mixtures(pairs, rows, examples)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    z, log_own, log_prior, log_aggregate, log_others = map(np.concatenate, columns)
    total_correlation = latents = None
    if isinstance(posteriors[0], Normal):
        log_marginals, latents = _latents(z, posteriors, prior, examples)
        total_correlation = log_aggregate - log_marginals
    return AggregatePosterior(
        mutual_information=log_own - log_aggregate,
        aggregate_kl=log_aggregate - log_prior,
        total_correlation=total_correlation,
        latents=latents,
        examples=examples,
        z=z,
        least_aggregate_kl=float(_least(log_others - log_prior)),
    )


def scores_any_z(model: Any) -> bool:
    """Whether the model's posteriors have a density in closed form at any z."""
    return getattr(getattr(model, "posterior_family", None), "scores_any_z", True)


def _subset(batches, most, rng):
    """(x of a uniform subset of at most `most` examples, number of all), in one pass (Vitter 1985, algorithm R)."""
    kept, seen, batch = [], 0, None
    for batch in batches:
        for x in zip(*map(ops.convert_to_numpy, keras.tree.flatten(batch)), strict=True):
            index = seen if seen < most else rng.integers(seen + 1)
            if index < most:
                kept[index : index + 1] = [x]
            seen += 1
    arrays = [np.stack(column) for column in zip(*kept, strict=True)]
    return keras.tree.pack_sequence_as(batch, arrays), seen


def _log_mixtures(log_densities, rows, examples):
    """log q(z_i), (m,), from log q(z_i|x_j), (m, M); and the same without z_i's own q(z_i|x_i).

    rows: (m,), the columns of the own posteriors. examples: the number N of all examples.
    """
    positions = np.arange(len(rows)), rows
    log_own, others = log_densities[positions], log_densities.copy()
    others[positions] = -np.inf
    largest = np.max(others, axis=1, keepdims=True)
    log_others = np.log(np.sum(np.exp(others - largest), axis=1)) + largest[:, 0] - np.log(others.shape[1] - 1)
    return np.logaddexp(log_own - np.log(examples), log_others + np.log1p(-1 / examples)), log_others


def _least(values):
    """The means of (m, ...) less three of their standard errors."""
    return np.mean(values, axis=0) - 3 * np.std(values, axis=0, ddof=1) / np.sqrt(len(values))


def _latents(z, posteriors, prior, examples):
    """(sum_j log q(z_j), {name: (latent_dim,)}), each latent taken alone."""
    means = np.concatenate([_float64(posterior.mean) for posterior in posteriors])
    log_vars = np.concatenate([_float64(posterior.log_var) for posterior in posteriors])
    numbers, log_own = np.arange(len(z)), _log_normal(z, means, log_vars)
    log_aggregate, log_others = np.empty_like(z), np.empty_like(z)
    for latent in range(z.shape[1]):
        for start in range(0, len(z), _ROWS):
            block = slice(start, start + _ROWS)
            pairs = _log_normal(z[block, latent, None], means[:, latent], log_vars[:, latent])
            mixtures = _log_mixtures(pairs, numbers[block], examples)
            log_aggregate[block, latent], log_others[block, latent] = mixtures
    latents: dict[str, np.ndarray | None] = {"mutual_information": np.mean(log_own - log_aggregate, axis=0)}
    latents |= dict.fromkeys(("kl", "aggregate_kl", "least_aggregate_kl"))
    if isinstance(prior, Normal):
        log_prior = _log_normal(z, _float64(prior.mean), _float64(prior.log_var))
        latents["kl"] = np.mean(log_own - log_prior, axis=0)
        latents["aggregate_kl"] = np.mean(log_aggregate - log_prior, axis=0)
        latents["least_aggregate_kl"] = _least(log_others - log_prior)
    return np.sum(log_aggregate, axis=1), latents


def _log_normal(z, mean, log_var):
    return -0.5 * ((z - mean) ** 2 * np.exp(-log_var) + log_var + np.log(2 * np.pi))


def _float64(values):
    return np.asarray(ops.convert_to_numpy(values), "float64")
