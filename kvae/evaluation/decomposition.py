"""The terms of the ELBO, and its gap to log p(x)."""

import dataclasses
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from kvae import arguments, html
from kvae.data import elements
from kvae.evaluation.aggregate import AggregatePosterior, aggregate_posterior, scores_any_z
from kvae.evaluation.importance import LogLikelihood, log_likelihood


class Estimate(NamedTuple):
    """A mean and its standard error.

    Example:
        >>> print(Estimate(-91.237, 0.041))
        -91.24 +- 0.04
    """

    value: float
    standard_error: float

    def __str__(self):
        return f"{self.value:.2f} +- {self.standard_error:.2f}"


def estimate(values: np.ndarray) -> Estimate:
    """The mean of values (n,) with its standard error; nan for a single value."""
    spread = np.std(values, ddof=1) if len(values) > 1 else math.nan
    return Estimate(float(np.mean(values)), float(spread / math.sqrt(len(values))))


@dataclasses.dataclass(frozen=True)
class Decomposition:
    """log p(x) = reconstruction - kl + gap, and kl = mutual_information + aggregate_kl: `Estimate`s in nats.

    Attributes:
        likelihood: the `LogLikelihood` of all the data.
        aggregate: the `AggregatePosterior` of a subset. None if the posterior scores only its own z; the KL isn't
            split then, and `mutual_information` and `aggregate_kl` are None.
    """

    likelihood: LogLikelihood
    aggregate: AggregatePosterior | None

    @property
    def log_likelihood(self) -> Estimate:
        """log p(x)."""
        return estimate(self.likelihood.values)

    @property
    def elbo(self) -> Estimate:
        """The ELBO: reconstruction - kl."""
        return estimate(self.likelihood.reconstruction - self.likelihood.kl)

    @property
    def reconstruction(self) -> Estimate:
        """E_q[log p(x|z)]."""
        return estimate(self.likelihood.reconstruction)

    @property
    def kl(self) -> Estimate:
        """KL(q(z|x) || p(z)), to the prior."""
        return estimate(self.likelihood.kl)

    @property
    def gap(self) -> Estimate:
        """KL(q(z|x) || p(z|x)), to the true posterior: log p(x) - ELBO. nan at k = 1, the ELBO itself."""
        if self.likelihood.samples == 1:
            return Estimate(math.nan, math.nan)
        return estimate(self.likelihood.values - self.likelihood.reconstruction + self.likelihood.kl)

    @property
    def overconfidence(self) -> Estimate:
        """E_q[log q(z|x)] - E_p(z|x)[log q(z|x)]: positive if q is too narrow or misplaced, negative if too wide."""
        return estimate(self.likelihood.overconfidence)

    @property
    def mutual_information(self) -> Estimate | None:
        """I(x; z), at most the logarithm of the number of examples."""
        return None if self.aggregate is None else estimate(self.aggregate.mutual_information)

    @property
    def aggregate_kl(self) -> Estimate | None:
        """KL(q(z) || p(z)) of the aggregate posterior: kl - mutual_information."""
        kl, information = self.kl, self.mutual_information
        if information is None:
            return None
        return Estimate(kl.value - information.value, math.hypot(kl.standard_error, information.standard_error))

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
    __repr__ = html.plain_repr(html.decomposition)


def elbo_decomposition(
    model: Any,
    data: Any,
    samples: int = 5_000,
    components: int = 2_000,
    *,
    seed: int = 0,
    batch_size: int = elements.BATCH_SIZE,
    verbose: bool | str = "auto",
    resume: str | pathlib.Path | None = None,
) -> Decomposition:
    """log p(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)) + KL(q(z|x) || p(z|x)), with the second term split.

    Args:
        model, data, samples, seed, batch_size, verbose, resume: as in `log_likelihood`.
        components: as in `aggregate_posterior`, for the split of the KL to the prior.

    Returns:
        a `Decomposition`.

    Raises:
        TypeError: if the model has no posterior.
        ValueError: as `log_likelihood` and `aggregate_posterior`.
        OSError: if the file `resume` can't be written.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> pca = kvae.PCA(2).fit(x, verbose=0)
        >>> terms = kvae.evaluation.elbo_decomposition(pca, x, samples=20, verbose=0)
        >>> abs(terms.gap.value) < 1e-9  # PCA's posterior is exact
        True
    """
    samples, seed = arguments.integer_at_least("samples", samples, 1), arguments.seed(seed, random=False)
    components, verbose = arguments.integer_at_least("components", components, 2), arguments.verbosity(verbose)
    if resume is not None:
        arguments.path("resume", resume)
    aggregate = aggregate_posterior(model, data, components, seed, batch_size) if scores_any_z(model) else None
    likelihood = log_likelihood(model, data, samples, seed=seed, batch_size=batch_size, verbose=verbose, resume=resume)
    return Decomposition(likelihood, aggregate)


class RateDistortion(NamedTuple):
    """`Estimate`s in nats. Their sum is the negative ELBO.

    Attributes:
        rate: KL(q(z|x) || p(z)).
        distortion: -E_q[log p(x|z)].
    """

    rate: Estimate
    distortion: Estimate

    _repr_html_ = html.rate_distortion
    __repr__ = html.plain_repr(html.rate_distortion)


def rate_distortion(
    model: Any,
    data: Any,
    samples: int = 10,
    *,
    seed: int = 0,
    batch_size: int = elements.BATCH_SIZE,
    verbose: bool | str = "auto",
) -> RateDistortion:
    """The model's point in the rate-distortion plane: the nats of z, and the nats of x given z.

    Args:
        samples: draws per example. Both numbers are means over them.
        model, data, seed, batch_size, verbose: as in `log_likelihood`.

    Returns:
        a `RateDistortion`.

    Raises:
        TypeError, ValueError: as `log_likelihood`.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> pca = kvae.PCA(2).fit(x, verbose=0)
        >>> rate, distortion = kvae.evaluation.rate_distortion(pca, x, verbose=0)
        >>> bool(abs(rate.value + distortion.value + pca.log_prob(x).numpy().mean()) < 1e-9)
        True

    Reference:
        Alemi et al. (2018), "Fixing a broken ELBO".
    """
    result = log_likelihood(model, data, samples, seed=seed, batch_size=batch_size, verbose=verbose)
    return RateDistortion(estimate(result.kl), estimate(-result.reconstruction))
