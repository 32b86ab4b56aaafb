"""What the ELBO is made of, and what it lacks."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from kvae import arguments, html
from kvae.data import elements
from kvae.evaluation.aggregate import AggregatePosterior, aggregate_posterior, scores_any_z
from kvae.evaluation.importance import LogLikelihood, log_likelihood


class Estimate(NamedTuple):
    """A mean and its standard error."""

    value: float
    standard_error: float

    def __str__(self):
        return f"{self.value:.2f} +- {self.standard_error:.2f}"


def estimate(values):
    """The mean of numbers (n,), as an `Estimate`."""
    spread = np.std(values, ddof=1) if len(values) > 1 else math.nan
    return Estimate(float(np.mean(values)), float(spread / math.sqrt(len(values))))


@dataclasses.dataclass(frozen=True)
class Decomposition:
    """log p(x) = reconstruction - kl + gap, and kl = mutual_information + aggregate_kl: `Estimate`s in nats.

    likelihood: the `LogLikelihood` of all the data. aggregate: the `AggregatePosterior` of a subset, or None where the
    posterior can't score another's z; the KL isn't split then, and its two parts are None.
    """

    likelihood: LogLikelihood
    aggregate: AggregatePosterior | None

    @property
    def log_likelihood(self):
        return estimate(self.likelihood.values)

    @property
    def elbo(self):
        return estimate(self.likelihood.reconstruction - self.likelihood.kl)

    @property
    def reconstruction(self):
        """E_q[log p(x|z)]."""
        return estimate(self.likelihood.reconstruction)

    @property
    def kl(self):
        """KL(q(z|x) || p(z)), the prior."""
        return estimate(self.likelihood.kl)

    @property
    def gap(self):
        """KL(q(z|x) || p(z|x)), the true posterior: what the ELBO lacks. nan at k = 1, which is the ELBO."""
        if self.likelihood.samples == 1:
            return Estimate(math.nan, math.nan)
        return estimate(self.likelihood.values - self.likelihood.reconstruction + self.likelihood.kl)

    @property
    def overconfidence(self):
        """E_q[log q(z|x)] - E_p(z|x)[log q(z|x)]: above 0 where q is too narrow or off its place, below it too wide."""
        return estimate(self.likelihood.overconfidence)

    @property
    def mutual_information(self):
        """Of an example and its z, at most the logarithm of the number of examples."""
        return None if self.aggregate is None else estimate(self.aggregate.mutual_information)

    @property
    def aggregate_kl(self):
        """KL(q(z) || p(z)), the aggregate posterior's: the rest of `kl`."""
        parts = self.kl, self.mutual_information
        if self.aggregate is None:
            return None
        return Estimate(parts[0].value - parts[1].value, math.hypot(*(part.standard_error for part in parts)))

    def __str__(self):
        terms = (
            f"log p(x) {self.log_likelihood} = reconstruction {self.reconstruction} - KL to the prior {self.kl} + "
            f"KL to the true posterior {self.gap}"
        )
        if self.aggregate is None:
            return terms
        split = f"mutual information {self.mutual_information} + KL of the aggregate posterior {self.aggregate_kl}"
        return f"{terms}; KL to the prior = {split}"

    _repr_html_ = html.decomposition


def elbo_decomposition(
    model, data, samples=5_000, components=2_000, *, seed=0, batch_size=elements.BATCH_SIZE, verbose="auto", resume=None
):
    """log p(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)) + KL(q(z|x) || p(z|x)), and the second term split.

    See `log_likelihood`, whose estimate the last term depends on, and `aggregate_posterior`, which takes `components`.
    Returns a `Decomposition`.
    """
    samples, seed = arguments.integer_at_least("samples", samples, 1), arguments.seed(seed, random=False)
    split = aggregate_posterior(model, data, components, seed, batch_size) if scores_any_z(model) else None
    found = log_likelihood(model, data, samples, seed=seed, batch_size=batch_size, verbose=verbose, resume=resume)
    return Decomposition(found, split)


class RateDistortion(NamedTuple):
    """`Estimate`s in nats. rate: KL(q(z|x) || p(z)). distortion: -E_q[log p(x|z)]. Their sum is the negative ELBO."""

    rate: Estimate
    distortion: Estimate

    _repr_html_ = html.rate_distortion


def rate_distortion(model, data, samples=10, *, seed=0, batch_size=elements.BATCH_SIZE, verbose="auto"):
    """What z costs, and what x costs that knows z: the model's point in the plane of Alemi et al. (2018).

    samples: int, the draws per example of which both are the means. Returns a `RateDistortion`.
    """
    found = log_likelihood(model, data, samples, seed=seed, batch_size=batch_size, verbose=verbose)
    return RateDistortion(estimate(found.kl), estimate(-found.reconstruction))
