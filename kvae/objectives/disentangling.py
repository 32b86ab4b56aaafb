"""Objectives for disentangled codes. They couple the examples of a batch: q(z) is estimated from its posteriors."""

import math
from typing import Any

import keras
from keras import ops

from kvae import arguments
from kvae.arguments import Tensor
from kvae.distributions import MultivariateNormal, Normal
from kvae.objectives.base import (
    Objective,
    Schedule,
    begin_schedule,
    number_or_schedule,
    posterior_of,
    serialized,
    value_at,
)
from kvae.objectives.bounds import Draw


@keras.saving.register_keras_serializable("kvae")
class BetaTCVAE(Objective):
    """loss = -E_q[log p(x|z)] + alpha I(x; z) + beta TC(z) + gamma sum_j KL(q(z_j) || p(z_j)).

    With q(z) = 1/N sum_x q(z|x), the KL of the ELBO is the sum of the mutual information I(x; z) = E[log q(z|x) -
    log q(z)], the total correlation TC(z) = KL(q(z) || prod_j q(z_j)), and the KLs of single latents. The loss is
    computed as -ELBO + (alpha - 1) I + (beta - 1) TC + (gamma - 1) sum_j KL: the same expectation, and equal to the
    negative ELBO for weights of 1.

    log q(z_i) and log q(z_ij) are estimated from the n posteriors q(z|x_k) of a batch:

    - "weighted" sampling: log 1/(N n) sum_k q(z_i|x_k). Biased: for large n each is too small by log N, and TC too
      large by (latent_dim - 1) log N. This constant has no gradient.
    - "stratified" sampling: log [1/N q(z_i|x_i) + (N - 1) / (N (n - 1)) sum_k!=i q(z_i|x_k)], the estimator of
      `kvae.evaluation.aggregate_posterior`. The sum is unbiased, its logarithm is not. In the paper one of the others
      has the weight (N - n + 1) / (N (n - 1)), and the rest 1 / (n - 1): this is the mean over all choices of that one.

    The loss of an example depends on its batch, and so on the batch size, also in `evaluate`; the other metrics don't.
    Sample weights weigh losses, not posteriors. Each of several replicas estimates q(z) from its share of a batch. The
    densities of all pairs take n^2 latent_dim numbers.

    Args:
        examples: int >= 2, N, the number of training examples.
        alpha: number >= 0, the weight of the mutual information. Default 1.
        beta: number >= 0, or a Keras schedule, as for `kvae.ELBO`: the weight of the total correlation. Default 6.
        gamma: number >= 0, the weight of the KLs of single latents. Default 1.
        sampling: "weighted" (default) or "stratified".

    Raises:
        TypeError: if a weight is no number (or, for beta, no schedule).
        ValueError: if a number is out of its range, or `sampling` has another value. `compile` raises it if q(z_j|x)
            has no closed form, or if gamma isn't 1 and the prior isn't a normal with independent latents.

    Example:

    >>> posterior = kvae.distributions.Normal(ops.array([[-3.0, -3.0], [3.0, 3.0]]), ops.zeros((2, 2)))
    >>> draw = kvae.Draw(posterior.mean[:, None], *ops.zeros((3, 2, 1)), kl=ops.ones((2, 2)), posterior=posterior)
    >>> objective = kvae.BetaTCVAE(examples=2, beta=2.0, sampling="stratified")
    >>> kvae.BetaTCVAE(examples=2, beta=1.0)(draw).numpy(), objective(draw).numpy().round(2)  # TC = log 2
    (array([2., 2.], dtype=float32), array([2.69, 2.69], dtype=float32))

    Reference:
        Chen, Li, Grosse and Duvenaud (2018), "Isolating sources of disentanglement in variational autoencoders",
        section 3, and appendix C for both estimators.
    """

    keep_posterior = True

    def __init__(
        self,
        examples: int,
        alpha: float = 1.0,
        beta: float | Schedule = 6.0,
        gamma: float = 1.0,
        sampling: str = "weighted",
    ):
        self.examples = arguments.integer_at_least("examples", examples, 2)
        self.alpha, self.gamma = arguments.real("alpha", alpha, 0), arguments.real("gamma", gamma, 0)
        self.beta = number_or_schedule("beta", beta)
        self.depends_on_step = callable(beta)
        self.sampling = arguments.choice("sampling", sampling, ("weighted", "stratified"))

    def __call__(self, draw: Draw, step: Tensor = 0) -> Tensor:
        log_aggregate, log_marginals = self.log_aggregate(draw)
        terms = (
            (self.alpha, draw.log_posterior - log_aggregate),
            (value_at(self.beta, step, log_aggregate.dtype), log_aggregate - log_marginals),
            (self.gamma, log_marginals - draw.log_prior),
        )
        return -draw.elbo + ops.mean(sum((weight - 1.0) * term for weight, term in terms), axis=1)

    def log_aggregate(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return estimates of log q(z) and sum_j log q(z_j) at a draw's z, each (n, samples), in nats.

        Args:
            draw: `Draw` of n examples with its posterior, a `kvae.distributions.Normal`.
        """
        posterior = _posterior(draw, self)
        count = ops.shape(posterior.mean)[0]
        pairs = Normal(posterior.mean[None, None], posterior.log_var[None, None])
        # By z's example, z's sample, posterior and latent.
        standardized = (draw.z[:, :, None] - pairs.mean) * ops.exp(-0.5 * pairs.log_var)
        log_densities = -0.5 * (ops.square(standardized) + pairs.log_var + math.log(2 * math.pi))
        log_weights = self._log_weights(count, log_densities.dtype)[:, None]
        log_aggregate = ops.logsumexp(ops.sum(log_densities, axis=3) + log_weights, axis=2)
        log_marginals = ops.sum(ops.logsumexp(log_densities + log_weights[..., None], axis=2), axis=2)
        return log_aggregate, log_marginals

    def _log_weights(self, count, dtype):
        """log of the weight of q(z_i|x_k) in the estimate of q(z_i), (n, n)."""
        n, log_examples = ops.cast(count, dtype), math.log(self.examples)
        if self.sampling == "weighted":
            return ops.zeros((count, count), dtype) - log_examples - ops.log(n)
        others = math.log(self.examples - 1) - log_examples - ops.log(ops.maximum(n - 1.0, 1.0))
        return ops.where(ops.eye(count, dtype=dtype) > 0, -log_examples, others)

    def begin(self, steps: int | None) -> str | None:
        return begin_schedule(self.beta, steps, "total correlation's weight")

    def check_model(self, model: Any) -> None:
        _check_posterior(self, model, Normal, "a kvae.VAE with a DiagonalNormal posterior")
        if self.gamma != 1 and model.built and not isinstance(model.prior_distribution(), Normal):
            raise ValueError(
                f"gamma is {self.gamma:g}, the weight of the KLs of single latents to their priors p(z_j), and a "
                f"{type(model.prior).__name__} has no p(z_j): use gamma=1, or a kvae.StandardNormal."
            )

    def get_config(self) -> dict[str, Any]:
        config = {"examples": self.examples, "alpha": self.alpha, "beta": serialized(self.beta)}
        return {**config, "gamma": self.gamma, "sampling": self.sampling}


@keras.saving.register_keras_serializable("kvae")
class DIP(Objective):
    """loss = -ELBO + lambda_od sum_i!=j C_ij^2 + lambda_d sum_i (C_ii - 1)^2: the codes' covariance C should be I.

    DIP-VAE-I takes C = Cov_x(E_q[z]), the covariance of the posterior means. DIP-VAE-II takes the covariance of
    q(z) = E_x[q(z|x)], C = Cov_x(E_q[z]) + E_x[Cov_q(z)]. "DIP" is the disentangled inferred prior.

    Both are those of the n examples of a batch, with 1/n. The penalty is added to each example's loss: it depends on
    the batch and its size, also in `evaluate`; the other metrics don't. Sample weights weigh losses, not
    covariances. Each of several replicas takes the covariance of its share of a batch.

    Args:
        kind: "I" or "II". Default "II".
        lambda_od: number >= 0, the weight of the off-diagonal entries. Default 10.
        lambda_d: number >= 0, the weight of the diagonal. Default None: as in the paper's experiments, 10 lambda_od for
            kind "I", and lambda_od for kind "II".

    Raises:
        TypeError: if a weight is no number.
        ValueError: if a weight is negative, or `kind` has another value. `compile` raises it for a posterior other than
            a DiagonalNormal or FullNormal.

    Example:

    >>> posterior = kvae.distributions.Normal(ops.array([[1.0, 1.0], [-1.0, -1.0]]), ops.zeros((2, 2)))
    >>> draw = kvae.Draw(posterior.mean[:, None], *ops.zeros((3, 2, 1)), kl=ops.ones((2, 2)), posterior=posterior)
    >>> for kind in ("I", "II"):
    ...     kvae.DIP(kind, lambda_od=1.0, lambda_d=1.0)(draw).numpy()  # C = [[1, 1], [1, 1]] and [[2, 1], [1, 2]]
    array([4., 4.], dtype=float32)
    array([6., 6.], dtype=float32)

    Reference:
        Kumar, Sattigeri and Balakrishnan (2018), "Variational inference of disentangled latent concepts from unlabeled
        observations", equations 6 and 7.
    """

    keep_posterior = True

    def __init__(self, kind: str = "II", lambda_od: float = 10.0, lambda_d: float | None = None):
        self.kind = arguments.choice("kind", kind, ("I", "II"))
        self.lambda_od = arguments.real("lambda_od", lambda_od, 0)
        usual = self.lambda_od * (10 if kind == "I" else 1)
        self.lambda_d = usual if lambda_d is None else arguments.real("lambda_d", lambda_d, 0)

    def __call__(self, draw: Draw, step: Tensor = 0) -> Tensor:
        posterior = _posterior(draw, self)
        centered = posterior.mean - ops.mean(posterior.mean, axis=0)
        covariance = ops.mean(centered[:, :, None] * centered[:, None], axis=0)
        if self.kind == "II":
            covariance = covariance + ops.mean(_covariances(posterior), axis=0)
        variances = ops.diagonal(covariance)
        off_diagonal = ops.sum(ops.square(covariance)) - ops.sum(ops.square(variances))
        penalty = self.lambda_od * off_diagonal + self.lambda_d * ops.sum(ops.square(variances - 1.0))
        return -draw.elbo + penalty

    def check_model(self, model: Any) -> None:
        kinds = Normal, MultivariateNormal
        _check_posterior(self, model, kinds, "a kvae.VAE with a DiagonalNormal or FullNormal posterior")

    def get_config(self) -> dict[str, Any]:
        return {"kind": self.kind, "lambda_od": self.lambda_od, "lambda_d": self.lambda_d}


@keras.saving.register_keras_serializable("kvae")
class AnnealedCapacity(Objective):
    """loss = -E_q[log p(x|z)] + gamma |KL - C(step)|: the KL is held at a capacity of C nats, raised during training.

    KL is the mean of KL(q(z|x) || p(z)) over a batch, as in the authors' experiments: examples may differ in their
    nats, and only the mean has to be C. The penalty is added to each example's loss: it depends on the batch, also in
    `evaluate`; the other metrics don't. Sample weights weigh losses, not the mean. Each of several replicas takes the
    mean over its share of a batch.

    Args:
        capacity: number >= 0, or a Keras schedule of the optimizer's step: C in nats, such as
            `kvae.schedules.LinearWarmUp(100_000, end=25)`, the paper's on dSprites.
        gamma: number >= 0, the weight of the difference. Default 1000, the paper's.

    Raises:
        TypeError: if an argument is no number (or, for the capacity, no schedule).
        ValueError: if a number is negative or not finite.

    Example:

    >>> draw = kvae.Draw(None, *ops.zeros((3, 2, 1)), kl=ops.array([[2.0], [4.0]]))
    >>> objective = kvae.AnnealedCapacity(kvae.schedules.LinearWarmUp(100, end=10.0), gamma=5.0)
    >>> [objective(draw, step).numpy().tolist() for step in (0, 30, 1_000)]  # |3 - 0|, |3 - 3|, |3 - 10|
    [[15.0, 15.0], [0.0, 0.0], [35.0, 35.0]]

    Reference:
        Burgess et al. (2018), "Understanding disentangling in beta-VAE".
    """

    def __init__(self, capacity: float | Schedule, gamma: float = 1_000.0):
        self.capacity = number_or_schedule("capacity", capacity)
        self.depends_on_step = callable(capacity)
        self.gamma = arguments.real("gamma", gamma, 0)

    def __call__(self, draw: Draw, step: Tensor = 0) -> Tensor:
        kl = ops.mean(draw.kl_loss)
        return draw.reconstruction_loss + self.gamma * ops.abs(kl - value_at(self.capacity, step, kl.dtype))

    def begin(self, steps: int | None) -> str | None:
        return begin_schedule(self.capacity, steps, "KL's capacity in nats")

    def get_config(self) -> dict[str, Any]:
        return {"capacity": serialized(self.capacity), "gamma": self.gamma}


def _posterior(draw, objective):
    if draw.posterior is None:
        raise ValueError(
            f"The draw has no posterior, which {type(objective).__name__} compares with the batch's others: take it "
            "from model.draw(x, keep_posterior=True), or give kvae.Draw(posterior=...)."
        )
    return draw.posterior


def _check_posterior(objective, model, kinds, expected):
    """Raise ValueError unless a built model's q(z|x) is one of these distributions."""
    found = posterior_of(model) if model.built else None
    if found is not None and not isinstance(found, kinds):
        family = type(model).__name__ if type(model).__name__ == "HierarchicalVAE" else ""
        name = family or f"{type(model).__name__}'s {type(model.posterior_family).__name__}"
        raise ValueError(
            f"{type(objective).__name__} needs moments of q(z|x) by latent in closed form, which a {name} has not: use "
            f"{expected}."
        )


def _covariances(posterior):
    """Cov_q(z) of each row, (n, d, d)."""
    if isinstance(posterior, Normal):
        return ops.exp(posterior.log_var)[:, :, None] * ops.eye(posterior.mean.shape[1], dtype=posterior.mean.dtype)
    factor = posterior.cholesky
    return ops.matmul(factor, ops.transpose(factor, (0, 2, 1)))
