"""Priors, posteriors and objectives, small, for tests of all of them."""

import numpy as np
import scipy.stats
import tensorflow as tf
from small_models import dense_vae

import kvae
from kvae.distributions import Normal
from kvae.flows import Coupling, InverseAutoregressive, Planar
from kvae.posteriors import DiagonalNormal, FlowPosterior, FullNormal

PRIORS = {
    "normal": lambda: kvae.StandardNormal(),
    "mixture": lambda: kvae.MixtureOfGaussians(3),
    "vamp": lambda: kvae.VampPrior(4, initial_mean=0.5, initial_std=0.1),
    "flow": lambda: kvae.FlowPrior(Coupling(2, hidden=(4,))),
}
POSTERIORS = {
    "diagonal": lambda: DiagonalNormal(),
    "full": lambda: FullNormal(),
    "planar": lambda: FlowPosterior(Planar(2), context=3),
    "coupling": lambda: FlowPosterior(Coupling(2, hidden=(4,))),
    "autoregressive": lambda: FlowPosterior(InverseAutoregressive(2, hidden=(4,)), context=3),
}
OBJECTIVES = {
    "elbo": lambda: kvae.ELBO(),
    "iwae": lambda: kvae.IWAE(3),
    "dreg": lambda: kvae.IWAE(3, gradient="doubly_reparameterized"),
}


def made(prior, posterior, **arguments):
    return dense_vae(prior=PRIORS[prior](), posterior_family=POSTERIORS[posterior](), **arguments)


def z_below(covariance):
    """The third output with which a FullNormal has the correlations of a covariance matrix."""
    deviations = np.sqrt(np.diag(covariance))
    correlations = covariance / np.outer(deviations, deviations)
    factor = np.linalg.cholesky((correlations - 0.01 * np.eye(len(covariance))) / 0.99)
    return (factor / np.diag(factor)[:, None])[np.tril_indices(len(covariance), -1)]


def normals(rng, rows, dtype="float64"):
    """(Normal of so many rows over 4 latents, the same of scipy)."""
    mean, log_var = rng.normal(size=(rows, 4)), rng.uniform(-6, 2, size=(rows, 4))
    scipys = [scipy.stats.multivariate_normal(m, np.diag(np.exp(v))) for m, v in zip(mean, log_var, strict=True)]
    return Normal(tf.constant(mean, dtype), tf.constant(log_var, dtype)), scipys


def gradient(model, x, samples, doubly, index=None):
    """Of the mean loss, by each trainable weight."""
    with tf.GradientTape() as tape:
        draw = model.draw(x, samples, doubly_reparameterized=doubly, index=index)
        loss = -tf.reduce_mean(draw.importance_weighted_bound)
    variables = [weight.value for weight in model.trainable_weights]
    return [np.asarray(g) for g in tape.gradient(loss, variables, unconnected_gradients="zero")]
