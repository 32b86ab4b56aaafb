"""Bounds of log p(x): the ELBO, weighted or with free bits, and the importance-weighted bound."""

from typing import Any

import keras
from keras import ops

from kvae import arguments
from kvae.arguments import Tensor
from kvae.objectives.base import (
    Objective,
    Schedule,
    begin_schedule,
    kl_groups,
    number_or_schedule,
    serialized,
)
from kvae.objectives.draw import Draw


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
