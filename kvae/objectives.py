"""What is minimised: functions of a `Draw` and the step."""

import abc
import math
import numbers
import warnings
from typing import Any, NamedTuple

import keras
from keras import ops

from kvae import arguments
from kvae.schedules import WarmUp


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

    @property
    def log_weights(self):
        """log w = log p(x|z) + log p(z) - log q(z|x), (n, samples), whose mean is the ELBO."""
        return self.log_likelihood + self.log_prior - self.log_posterior

    @property
    def normalized_weights(self):
        """w_k / sum_j w_j, (n, samples)."""
        log_weights = self.log_weights
        return ops.exp(log_weights - ops.logsumexp(log_weights, axis=1, keepdims=True))

    @property
    def importance_weighted_bound(self):
        """log 1/k sum_k w_k, (n,), between the ELBO and log p(x) in expectation (Burda et al. 2016, theorem 1)."""
        log_weights = self.log_weights
        count = ops.cast(ops.shape(log_weights)[1], log_weights.dtype)
        return ops.logsumexp(log_weights, axis=1) - ops.log(count)


class Objective(abc.ABC):
    """A loss (n,) from a `Draw` and the number of the optimizer's step.

    samples: how many z an example the draw must have. doubly_reparameterized: how it's asked of `model.draw`.
    """

    samples = 1
    doubly_reparameterized = False

    @abc.abstractmethod
    def __call__(self, draw, step=0):
        """The loss of each example, (n,), in nats."""

    def begin(self, steps):
        """Called by `fit` before the first step; returns a sentence that `fit` prints then, or None.

        steps: the number of the run's last one, None where not known.
        """
        return None

    def check_model(self, model):
        """Raise ValueError where this objective can't be used with a VAE. Called by its `compile` and `build`."""
        return None

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
        beta: number >= 0, or a Keras schedule of the optimizer's step, such as `kvae.schedules.LinearWarmUp(1_000)`.
            `fit` warns before the first step where the run ends too early for the schedule to. Unless verbose is 0 it
            says the weight that the schedule leads to where that isn't 1, and after how many steps it does where the
            run's length isn't known: no word means that the run ends at 1.
        free_bits: nats a latent; a latent's KL below it costs this much and has no gradient. `compile` raises
            ValueError where the KL has no closed form a latent.

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

    def begin(self, steps):
        if not callable(self.beta):
            return None
        if isinstance(self.beta, WarmUp):
            self.beta.begin(steps)
        known, when = steps is not None, "when this run ends after step"
        if not known:  # the schedule's own end, where it has one
            steps = math.ceil(getattr(self.beta, "steps", None) or getattr(self.beta, "decay_steps", 10_000))
            when = "if this run, whose length isn't known, gets to step"
        reached = float(self.beta(steps))
        end = getattr(self.beta, "end", getattr(self.beta, "end_learning_rate", reached))
        weight = f"The KL's weight will be {reached:.3g} {when} {steps:,}"
        meaning = ": the loss is then no bound of log p(x)" if reached < 0.999 else ""
        if known and not math.isclose(reached, end, rel_tol=1e-3):
            advice = "Train longer, or give the warm-up as a share of the run."
            warnings.warn(f"{weight}, not {end:g}{meaning}. {advice}", stacklevel=2)
            return None
        return None if known and math.isclose(reached, 1, rel_tol=1e-3) else f"{weight}{meaning}."

    def check_model(self, model):
        if self.free_bits and model.built and kl_groups(model) != model.latent_dim:
            raise ValueError(
                "free_bits are nats a latent, and the KL of this model's posterior to its "
                f"{type(model.prior).__name__} has no closed form by latent: use free_bits=0, or a kvae.VAE with a "
                "StandardNormal prior and a DiagonalNormal or FullNormal posterior."
            )

    def get_config(self):
        beta = keras.saving.serialize_keras_object(self.beta) if callable(self.beta) else self.beta
        return {"beta": beta, "free_bits": self.free_bits}


@keras.saving.register_keras_serializable("kvae")
class IWAE(Objective):
    """-log 1/k sum_k p(x|z_k) p(z_k) / q(z_k|x), the negative k-sample importance-weighted bound of log p(x).

    Burda, Grosse and Salakhutdinov (2016), equation 8. Its plain gradient tells the encoder the less the larger k is
    (Rainforth et al. 2018); the doubly reparameterized one has the same expectation for the encoder, and a variance
    that goes to zero as q(z|x) approaches p(z|x) (Tucker et al. 2019, "Doubly reparameterized gradient estimators",
    equation 8). With k = 1 the bound is the ELBO, and that gradient the one of Roeder et al. (2017).

    Args:
        samples: int, k.
        gradient: "plain" or "doubly_reparameterized".

    Raises:
        ValueError: for a number below 1, or another gradient.
    """

    def __init__(self, samples=50, gradient="plain"):
        if gradient not in ("plain", "doubly_reparameterized"):
            raise ValueError(f"gradient is {gradient!r}; expected 'plain' or 'doubly_reparameterized'.")
        self.samples = arguments.integer_at_least("samples", samples, 1)
        self.gradient = gradient
        self.doubly_reparameterized = gradient == "doubly_reparameterized"

    def __call__(self, draw, step=0):
        return -draw.importance_weighted_bound

    def check_model(self, model):
        family = model.posterior_family
        if self.doubly_reparameterized and not family.scores_any_z:
            raise ValueError(
                "The doubly reparameterized gradient goes through log q(z|x) as a function of z, which this "
                f"{type(family).__name__} has not: use gradient='plain', or another posterior."
            )

    def get_config(self):
        return {"samples": self.samples, "gradient": self.gradient}


def kl_groups(model) -> int:
    """The number of columns of KL(q(z|x) || p(z)) in closed form, one a latent or fewer; 0 without a closed form."""
    symbol = model._symbol(model.event_shape, model.variable_dtype)
    x = keras.tree.map_structure(lambda part: ops.zeros((1, *part.shape[1:]), part.dtype), symbol)
    kl = model.prior.kl_divergence(model.posterior(x))
    return 0 if kl is None else kl.shape[1]


class AnnounceWarmUp(keras.callbacks.Callback):
    """Tells the model's objective, before the first step, which will be the last, and prints what it says to that.

    first_epoch, first_update: the epoch that the run began with, and the optimizer's updates before it.
    """

    def __init__(self, first_epoch, first_update):
        super().__init__()
        self.first_epoch, self.first_update = first_epoch, first_update

    def on_train_begin(self, logs=None):
        steps = self.params["steps"]
        if steps is not None:
            steps *= self.params["epochs"] - self.first_epoch
            steps = self.first_update + steps // (self.model.optimizer.gradient_accumulation_steps or 1)
        said = self.model.loss.begin(steps)
        if said and self.params["verbose"]:
            print(said)


def _non_negative(name, value, alternative=""):
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; expected a number{alternative}.")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is {value!r}; expected a finite number of at least 0{alternative}.")
    return float(value)
