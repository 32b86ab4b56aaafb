"""What is minimised: functions of a `Draw` and the step."""

import abc
import math
import numbers
from typing import Any, NamedTuple

import keras
from keras import ops


class Draw(NamedTuple):
    """What a model says of n examples at z ~ q(z|x), in nats.

    z: (n, samples, latent_dim). log_likelihood, log_prior, log_posterior: log p(x|z), log p(z) and log q(z|x), each
    (n, samples). kl: KL(q(z|x) || p(z)) in closed form, (n, groups), one column a latent where both factorise, or
    None where there is no closed form.
    """

    z: Any
    log_likelihood: Any
    log_prior: Any
    log_posterior: Any
    kl: Any = None

    @property
    def reconstruction_loss(self):
        """-E_q[log p(x|z)], (n,)."""
        return -ops.mean(self.log_likelihood, axis=1)

    @property
    def kl_by_group(self):
        """KL(q(z|x) || p(z)) as (n, groups): the closed form, or its estimate from the samples as one group."""
        if self.kl is not None:
            return self.kl
        return ops.mean(self.log_posterior - self.log_prior, axis=1, keepdims=True)

    @property
    def kl_loss(self):
        """KL(q(z|x) || p(z)), (n,)."""
        return ops.sum(self.kl_by_group, axis=1)

    @property
    def elbo(self):
        """E_q[log p(x|z)] - KL(q(z|x) || p(z)), (n,): a lower bound of log p(x), whatever is minimised."""
        return -self.reconstruction_loss - self.kl_loss


class Objective(abc.ABC):
    """A loss (n,) from a `Draw` and the number of the optimizer's step."""

    @abc.abstractmethod
    def __call__(self, draw, step=0):
        """The loss of each example, (n,), in nats."""

    @abc.abstractmethod
    def get_config(self):
        """The constructor's arguments, serialisable."""

    @classmethod
    def from_config(cls, config):
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


@keras.saving.register_keras_serializable("kvae")
class ELBO(Objective):
    """-E_q[log p(x|z)] + beta KL(q(z|x) || p(z)), the negative evidence lower bound where beta is 1.

    Kingma and Welling (2014), equation 3; beta: Higgins et al. (2017); free bits: Kingma et al. (2016), appendix C.8,
    here for each example rather than for the batch's mean, so that the loss of an example depends on it alone.

    Args:
        beta: number >= 0, or a Keras schedule of the optimizer's step. A linear warm-up over 1,000 steps is
            `keras.optimizers.schedules.PolynomialDecay(0.0, 1_000, end_learning_rate=1.0)`.
        free_bits: nats a latent; a latent's KL below it costs this much and has no gradient.

    Raises:
        ValueError: for a beta or free_bits that is negative or not finite.
    """

    def __init__(self, beta=1.0, free_bits=0.0):
        if not isinstance(beta, keras.optimizers.schedules.LearningRateSchedule):
            beta = _non_negative("beta", beta, " or a Keras schedule (keras.optimizers.schedules)")
        self.beta = beta
        self.free_bits = _non_negative("free_bits", free_bits)

    def __call__(self, draw, step=0):
        beta = self.beta(step) if callable(self.beta) else self.beta
        kl = draw.kl_by_group
        if self.free_bits:
            kl = ops.maximum(kl, self.free_bits)
        return draw.reconstruction_loss + ops.cast(beta, kl.dtype) * ops.sum(kl, axis=1)

    def get_config(self):
        beta = keras.saving.serialize_keras_object(self.beta) if callable(self.beta) else self.beta
        return {"beta": beta, "free_bits": self.free_bits}


def _non_negative(name, value, alternative=""):
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; expected a number{alternative}.")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is {value!r}; expected a finite number of at least 0{alternative}.")
    return float(value)
