"""What an objective is a function of: samples of q(z|x) and their log-probabilities."""

from typing import Any, NamedTuple

import keras
from keras import ops

from kvae.arguments import Tensor
from kvae.layers import WeightedPath


class Draw(NamedTuple):
    """Samples z ~ q(z|x) of n examples and their log-probabilities, in nats: `model.draw` returns one.

    Args:
        z: tensor (n, samples, latent_dim).
        log_likelihood: tensor (n, samples), log p(x|z).
        log_prior: tensor (n, samples), log p(z).
        log_posterior: tensor (n, samples), log q(z|x).
        kl: tensor (n, groups), KL(q(z|x) || p(z)) in closed form as a sum over groups of latents. One group per latent
            if prior and posterior factorize. None (default) if there is no closed form.
        posterior: q(z|x), the distribution of n rows, for objectives that compare a batch's examples. None (default)
            if it isn't at hand.

    Example:

    >>> draw = kvae.Draw(
    ...     z=ops.zeros((1, 2, 3)),
    ...     log_likelihood=ops.array([[-5.0, -7.0]]),
    ...     log_prior=ops.array([[-3.0, -3.0]]),
    ...     log_posterior=ops.array([[-2.0, -2.0]]),
    ... )
    >>> draw.reconstruction_loss.numpy(), draw.kl_loss.numpy(), draw.elbo.numpy()
    (array([6.], dtype=float32), array([1.], dtype=float32), array([-7.], dtype=float32))
    """

    z: Tensor
    log_likelihood: Tensor
    log_prior: Tensor
    log_posterior: Tensor
    kl: Tensor | None = None
    posterior: Any = None

    @property
    def reconstruction_loss(self) -> Tensor:
        """-E_q[log p(x|z)] in nats, (n,)."""
        return -ops.mean(self.log_likelihood, axis=1)

    @property
    def kl_by_group(self) -> Tensor:
        """KL(q(z|x) || p(z)) in nats, (n, groups): the closed form, or else an estimate from the samples, (n, 1)."""
        if self.kl is not None:
            return self.kl
        return ops.mean(self.log_posterior - self.log_prior, axis=1, keepdims=True)

    @property
    def kl_loss(self) -> Tensor:
        """KL(q(z|x) || p(z)) in nats, (n,)."""
        return ops.sum(self.kl_by_group, axis=1)

    @property
    def elbo(self) -> Tensor:
        """E_q[log p(x|z)] - KL(q(z|x) || p(z)) in nats, (n,): a lower bound of log p(x), always with beta = 1."""
        return -self.reconstruction_loss - self.kl_loss

    @property
    def log_weights(self) -> Tensor:
        """log w = log p(x|z) + log p(z) - log q(z|x) in nats, (n, samples). Its mean is the ELBO."""
        return self.log_likelihood + self.log_prior - self.log_posterior

    @property
    def normalized_weights(self) -> Tensor:
        """w_k / sum_j w_j, (n, samples)."""
        log_weights = self.log_weights
        return ops.exp(log_weights - ops.logsumexp(log_weights, axis=1, keepdims=True))

    @property
    def importance_weighted_bound(self) -> Tensor:
        """log 1/k sum_k w_k in nats, (n,): in expectation between the ELBO and log p(x) (Burda et al. 2016)."""
        log_weights = self.log_weights
        count = ops.cast(ops.shape(log_weights)[1], log_weights.dtype)
        return ops.logsumexp(log_weights, axis=1) - ops.log(count)


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
        posterior=posterior,
    )
    if doubly_reparameterized:
        path.weights = ops.stop_gradient(drawn.normalized_weights)
    return drawn
