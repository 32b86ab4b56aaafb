"""Samples of q(z|x) and their log-probabilities, a `Draw`, and the bounds of log p(x) computed from it."""

from typing import Any, NamedTuple

import keras
from keras import ops

from kvae import arguments
from kvae.arguments import Tensor
from kvae.layers import WeightedPath
from kvae.objectives.base import Objective, Schedule, begin_schedule, kl_groups, number_or_schedule, serialized


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
        """log w = log p(x|z) + log p(z) - log q(z|x) in nats, (n, samples). Its expectation is the ELBO."""
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
    keep_posterior: bool = False,
) -> Draw:
    """z, of a diagonal normal z_mean + sigma * eps, and its log-densities: a `Draw`, in nats.

    Args:
        model: gives p(x|z) as `log_likelihood` and p(z) as `prior_distribution`.
        x: tensor (n, ...), scaled.
        posterior: q(z|x), a distribution of n rows.
        eps: noise (n, samples, latent_dim).
        training: bool, passed to the networks.
        prior: `model.prior_distribution()` if it is at hand; a VampPrior's costs a pass of the encoder.
        doubly_reparameterized: bool. If True, the posterior's parameters get the gradient of Tucker et al. (2019) for
            the importance-weighted bound: through z alone, weighted once more. The numbers stay the same.
        keep_posterior: bool, whether the draw holds q(z|x). A `tf.function` can't return such a draw.
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
    log_prior = prior.log_prob(z)

    def by_sample(values):
        return ops.reshape(values, (-1, samples))

    drawn = Draw(
        z=ops.reshape(z, (-1, samples, latent_dim)),
        log_likelihood=by_sample(model.log_likelihood(x, z, training)),
        log_prior=by_sample(log_prior),
        log_posterior=by_sample(log_posterior),
        kl=model.prior.kl_divergence(posterior),
        posterior=posterior if keep_posterior else None,
    )
    if doubly_reparameterized:
        path.weights = ops.stop_gradient(drawn.normalized_weights)
    return drawn


@keras.saving.register_keras_serializable("kvae")
class ELBO(Objective):
    """loss = -E_q[log p(x|z)] + beta KL(q(z|x) || p(z)): with beta = 1 the negative evidence lower bound.

    Free bits apply to each example, not to the batch's mean as in the paper: an example's loss depends on no other.

    With a schedule for beta, `fit` warns before the first step if the run is too short for the schedule. With
    verbose > 0 it also prints the KL's final weight if this isn't 1, or if the run's length is unknown.

    Args:
        beta: number >= 0, or a Keras schedule of the optimizer's step such as `kvae.schedules.LinearWarmUp(1_000)`.
            Default 1.
        free_bits: number >= 0, in nats per latent. A latent's KL below this counts as this much and has no gradient.
            `compile` raises ValueError if the KL has no closed form by latent. Default 0.

    Raises:
        TypeError: if an argument is no number (or, for beta, no schedule).
        ValueError: if a number is negative or not finite.

    Example:

    >>> draw = kvae.Draw(
    ...     ops.zeros((1, 1, 2)), ops.array([[-6.0]]), ops.zeros((1, 1)), ops.zeros((1, 1)), kl=ops.array([[0.1, 2.0]])
    ... )
    >>> objectives = kvae.ELBO(), kvae.ELBO(beta=4.0), kvae.ELBO(free_bits=0.5)
    >>> [round(float(objective(draw)[0]), 3) for objective in objectives]
    [8.1, 14.4, 8.5]

    Reference:
        Kingma and Welling (2014), "Auto-encoding variational Bayes", equation 3; for beta Higgins et al. (2017),
        "beta-VAE"; for free bits Kingma et al. (2016), "Improved variational inference with inverse autoregressive
        flow", appendix C.8.
    """

    def __init__(self, beta: float | Schedule = 1.0, free_bits: float = 0.0):
        self.beta = number_or_schedule("beta", beta)
        self.depends_on_step = callable(beta)
        self.free_bits = arguments.real("free_bits", free_bits, 0)

    def __call__(self, draw: Draw, step: Tensor = 0) -> Tensor:
        beta = self.beta(step) if callable(self.beta) else self.beta
        kl = draw.kl_by_group
        if self.free_bits:
            kl = ops.maximum(kl, self.free_bits)
        return draw.reconstruction_loss + ops.cast(beta, kl.dtype) * ops.sum(kl, axis=1)

    def begin(self, steps: int | None) -> str | None:
        if not callable(self.beta):
            return None
        return begin_schedule(self.beta, steps, "KL's weight", 1.0, ": the loss is then no bound of log p(x)")

    def check_model(self, model: Any) -> None:
        if self.free_bits and model.built and kl_groups(model) != model.latent_dim:
            raise ValueError(
                "free_bits are nats a latent, and the KL of this model's posterior to its "
                f"{type(model.prior).__name__} has no closed form by latent: use free_bits=0, or a kvae.VAE with a "
                "StandardNormal prior and a DiagonalNormal or FullNormal posterior."
            )

    def get_config(self) -> dict[str, Any]:
        return {"beta": serialized(self.beta), "free_bits": self.free_bits}


@keras.saving.register_keras_serializable("kvae")
class IWAE(Objective):
    """loss = -log 1/k sum_k p(x|z_k) p(z_k) / q(z_k|x): the negative importance-weighted bound of log p(x).

    With the plain gradient the encoder's signal-to-noise ratio falls as k grows (Rainforth et al. 2018). The doubly
    reparameterized gradient has the same expectation for the encoder, and its variance goes to zero as q(z|x)
    approaches p(z|x). With k = 1 the bound is the ELBO, and this gradient is the one of Roeder et al. (2017).

    Args:
        samples: int >= 1, k. Default 50.
        gradient: "plain" (default) or "doubly_reparameterized".

    Raises:
        ValueError: if `samples` is less than 1, or `gradient` has another value.

    Example:

    >>> draw = kvae.Draw(
    ...     ops.zeros((1, 2, 3)), ops.array([[-5.0, -7.0]]), ops.zeros((1, 2)), ops.zeros((1, 2))
    ... )
    >>> round(float(kvae.IWAE(samples=2)(draw)[0]), 3)
    5.566

    Reference:
        Burda, Grosse and Salakhutdinov (2016), "Importance weighted autoencoders", equation 8; Tucker et al. (2019),
        "Doubly reparameterized gradient estimators", equation 8.
    """

    def __init__(self, samples: int = 50, gradient: str = "plain"):
        if gradient not in ("plain", "doubly_reparameterized"):
            raise ValueError(f"gradient is {gradient!r}; expected 'plain' or 'doubly_reparameterized'.")
        self.samples = arguments.integer_at_least("samples", samples, 1)
        self.gradient = gradient
        self.doubly_reparameterized = gradient == "doubly_reparameterized"

    def __call__(self, draw: Draw, step: Tensor = 0) -> Tensor:
        return -draw.importance_weighted_bound

    def check_model(self, model: Any) -> None:
        family = model.posterior_family
        if self.doubly_reparameterized and not family.scores_any_z:
            raise ValueError(
                "The doubly reparameterized gradient goes through log q(z|x) as a function of z, which this "
                f"{type(family).__name__} has not: use gradient='plain', or another posterior."
            )

    def get_config(self) -> dict[str, Any]:
        return {"samples": self.samples, "gradient": self.gradient}
