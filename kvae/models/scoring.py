"""Draws of z scored under p(x|z), p(z) and q(z|x), and images drawn from p(z): what VAEs and PCA share."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kvae.layers import WeightedPath
from kvae.objectives import Draw


def score(
    model: Any,
    x: Any,
    posterior: Any,
    eps: Any,
    training: bool = False,
    prior: Any = None,
    doubly_reparameterized: bool = False,
) -> Draw:
    """z = z_mean + sigma * eps and its log-densities: a `Draw`, in nats.

    Args:
        model: gives p(x|z) as `log_likelihood` and p(z) as `prior_distribution`.
        x: tensor (n, ...), scaled.
        posterior: q(z|x), a distribution of n rows.
        eps: noise (n, samples, latent_dim).
        training: bool, passed to the networks.
        prior: `model.prior_distribution()` if it is at hand; a VampPrior's costs a pass of the encoder.
        doubly_reparameterized: bool. If True, the posterior's parameters get the gradient of Tucker et al. (2019) for
            the importance-weighted bound: through z alone, weighted once more. The numbers stay the same.
    """
    samples, latent_dim = eps.shape[1:]
    prior = model.prior_distribution(training=training) if prior is None else prior
    repeated = posterior
    if samples > 1:
        x = keras.tree.map_structure(lambda values: ops.repeat(values, samples, axis=0), x)
        repeated = posterior.repeat(samples)
    constant = repeated.stop_gradient() if doubly_reparameterized else None
    z, log_posterior = repeated.rsample_and_log_prob(ops.reshape(eps, (-1, latent_dim)))
    path = WeightedPath()
    if constant is not None:
        z = path(z)
        rescored = constant.log_prob(z)  # for its gradient alone: the draw's own value is free of z's rounding
        log_posterior = ops.stop_gradient(log_posterior) + (rescored - ops.stop_gradient(rescored))

    def by_sample(values):
        return ops.reshape(values, (-1, samples))

    drawn = Draw(
        z=ops.reshape(z, (-1, samples, latent_dim)),
        log_likelihood=by_sample(model.log_likelihood(x, z, training)),
        log_prior=by_sample(prior.log_prob(z)),
        log_posterior=by_sample(log_posterior),
        kl=model.prior.kl_divergence(posterior),
    )
    if doubly_reparameterized:
        path.weights = ops.stop_gradient(drawn.normalized_weights)
    return drawn


def sample(model: Any, count: int, noise: bool, seed: int | None) -> np.ndarray:
    """`count` images of z ~ p(z), an array (count, ...): means of p(x|z), or with `noise` draws of it.

    An int `seed` repeats them; with None the model's own generator goes on.
    """
    count, generator = model._count_and_generator(count, seed)
    distribution = model.decoder_distribution(model.prior_distribution(count).sample(generator))
    return ops.convert_to_numpy(distribution.sample(generator) if noise else distribution.mean)
