"""One table of a model's measurements, and sentences on its faults."""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np
from keras import ops

from kvae import html
from kvae.data import arrays, elements, errors
from kvae.evaluation.aggregate import ActiveUnits, active_units
from kvae.evaluation.decomposition import Decomposition, Estimate, elbo_decomposition
from kvae.models import VAE, ConditionalVAE, HierarchicalVAE
from kvae.objectives import kl_groups
from kvae.posteriors import DiagonalNormal
from kvae.priors import StandardNormal

_COLLAPSED = 0.01  # of a latent's variance: the least variance of its posterior mean
_MISMATCH, _MISMATCH_OF_ALL = 0.1, 1.0  # nats from the aggregate posterior to the prior: of one latent, of all together
_CONFIDENCE = 0.25  # nats by the root of the number of latents; log q(z|x) has a standard deviation of 0.7 by it
_LARGE_GAP = 0.1  # of the KL to the prior
_AT_BOUND = 1.05  # times the smallest variance
_LATENTS = 10  # rows of the second table, as text


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of `report`. It prints as a table, and in a notebook as an HTML table.

    Attributes:
        decomposition: a `Decomposition`.
        units: an `ActiveUnits`.
        findings: sentences on the model's faults.
    """

    decomposition: Decomposition
    units: ActiveUnits
    findings: tuple[str, ...]

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """The rows of the table: (name, value, explanation)."""
        terms, likelihood = self.decomposition, self.decomposition.likelihood
        effective, latents = likelihood.effective_samples, len(self.units.active)
        few = f"in one example; {np.sum(likelihood.degenerate):,} have fewer than {likelihood.few:g}"
        split = [
            ("  mutual information", str(terms.mutual_information), "of x and z, at most log(examples)"),
            ("  KL of the aggregate", str(terms.aggregate_kl), f"KL(q(z) || p(z)){_of_these_alone(terms)}"),
        ]
        beyond = [
            ("KL to the true posterior", str(terms.gap), "KL(q(z|x) || p(z|x)), the ELBO's gap"),
            ("  overconfidence", str(terms.overconfidence), "above 0: q(z|x) too narrow, or off; below: too wide"),
        ]
        size = f"nats, {len(likelihood.values):,} examples, k = {likelihood.samples:,}"
        rows = [
            ("log p(x)", str(terms.log_likelihood), size),
            ("ELBO", str(terms.elbo), "log p(x) is above it by the KL to the true posterior"),
            ("reconstruction", str(terms.reconstruction), "E[log p(x|z)], the negative distortion"),
            ("KL to the prior", str(terms.kl), "KL(q(z|x) || p(z)), the rate"),
            *(split if terms.aggregate else []),
            *(beyond if likelihood.samples > 1 else []),
            ("active latents", f"{np.sum(self.units.active)} of {latents}", "whose posterior mean varies with x"),
            (
                "effective samples",
                f"{np.median(effective):.0f} of {likelihood.samples:,}",
                "median; few mean log p(x) is higher still",
            ),
            ("  the least", f"{np.min(effective):.1f}", few),
        ]
        if likelihood.dimensions is not None:
            rows.insert(1, ("bits per dimension", f"{likelihood.bits_per_dimension:.4f}", "-log2 p(x) / dimensions"))
        return rows

    @property
    def latents(self) -> list[tuple[str, ...]]:
        """The second table: a header and one row per latent, largest KL to the prior, or variance, first."""
        aggregate = self.decomposition.aggregate
        by_latent = (aggregate.latents if aggregate else None) or {}
        variance, kl = "variance of its mean", by_latent.get("kl")
        columns = {
            "KL, nats": kl,
            "mutual information": by_latent.get("mutual_information"),
            "KL of the aggregate": by_latent.get("aggregate_kl"),
            variance: self.units.variances,
            "active": self.units.active,
        }
        return html.latent_rows(columns, variance if kl is None else "KL, nats")

    def __str__(self):
        latents, findings = html.text_table(self.latents), self.findings or (html.NOTHING_FOUND,)
        left_out = [f"and {len(latents) - 1 - _LATENTS} more, below these"] if len(latents) > 1 + _LATENTS else []
        lines = [*html.text_table(self.rows), "", *latents[: 1 + _LATENTS], *left_out, ""]
        return "\n".join([*lines, *(f"! {finding}" for finding in findings)])

    _repr_html_ = html.report
    __repr__ = html.plain_repr(html.report)


def report(
    model: Any,
    data: Any,
    samples: int = 5_000,
    components: int = 2_000,
    *,
    seed: int = 0,
    batch_size: int = elements.BATCH_SIZE,
    verbose: bool | str = "auto",
    resume: str | pathlib.Path | None = None,
) -> Report:
    """Measure a model by `elbo_decomposition` and `active_units`, and name its faults.

    Args:
        model, data, samples, components, seed, batch_size, verbose, resume: as in `elbo_decomposition`.

    Returns:
        a `Report`.

    Raises:
        TypeError, ValueError, OSError: as `elbo_decomposition`.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(500, 4))
        >>> pca = kvae.PCA(2).fit(x, verbose=0)
        >>> kvae.evaluation.report(pca, x, samples=20, verbose=0).findings
        ()
    """
    terms = elbo_decomposition(
        model, data, samples, components, seed=seed, batch_size=batch_size, verbose=verbose, resume=resume
    )
    units = active_units(model, data, batch_size=batch_size)
    findings = _latents(model, terms, units) + _posterior(model, terms) + _decoder(model, data, batch_size)
    return Report(terms, units, tuple(findings))


def _latents(model, terms, units):
    z = model.prior_distribution(10_000).sample(0) if terms.aggregate is None else terms.aggregate.z
    findings, collapsed = [], units.variances < _COLLAPSED * np.var(z, axis=0)
    if np.any(collapsed):
        bits = " or free bits" if isinstance(model, VAE) and kl_groups(model) == len(collapsed) else ""
        findings.append(
            f"{np.sum(collapsed)} of {len(collapsed)} latents collapsed, the variance of their posterior means over "
            f"the data being below {_COLLAPSED:.0%} of theirs: {_listing(collapsed)}. Fewer latents do as well, or a "
            f"warm-up of beta{bits} may wake them."
        )
    mismatch, kl = _mismatch(terms)
    if mismatch and terms.aggregate:
        findings.append(
            f"the prior isn't the aggregate posterior: {mismatch}. {_fault_of_samples(model, terms.aggregate.z, kl)}: "
            f"try {_better_prior(model)}."
        )
    return findings


def _better_prior(model):
    if not isinstance(model, VAE):
        return "a kvae.VAE, whose prior can be learned"
    if not isinstance(model.prior, StandardNormal):
        return f"longer training, or a larger {type(model.prior).__name__}"
    learned = "MixtureOfGaussians" if isinstance(model, ConditionalVAE) else "VampPrior"
    return f"a prior that is learned, such as kvae.{learned}()"


def _mismatch(terms):
    """(a description of a mismatch or None, its KL(q(z) || p(z))), if a lack of examples can't explain it."""
    aggregate, of_all = terms.aggregate, terms.aggregate_kl
    if aggregate is None:
        return None, None
    by_latent = (aggregate.latents or {}).get("aggregate_kl")
    if by_latent is not None:
        off = (by_latent > _MISMATCH) & (aggregate.latents["least_aggregate_kl"] > 0)
        if np.any(off):
            kl = np.sum(by_latent)
            return f"by more than {_MISMATCH} nats in latents {_listing(off)}, by {kl:.1f} nats over all alone", kl
    if of_all.value > _MISMATCH_OF_ALL and aggregate.least_aggregate_kl > 0:
        return f"it is {of_all} nats away", of_all.value
    return None, None


def _fault_of_samples(model, z, kl):
    """A sentence on the model's samples, from z of the aggregate posterior, (m, latent_dim), and its KL to the prior.

    KL(q || p) = (E_p[log p] - E_q[log p]) + (H(p) - H(q)). If the first term is the larger one, q reaches regions of
    low p; otherwise q leaves out regions of high p.
    """
    prior = model.prior_distribution(len(z))
    samples = prior.sample(0)
    log_probs = [np.mean(np.asarray(prior.log_prob(draws))) for draws in (samples, ops.cast(z, samples.dtype))]
    if log_probs[0] - log_probs[1] > kl / 2:
        return "Images are encoded where hardly a sample lies, so that samples show too little of them"
    return "Samples will lie where no image was encoded"


def _of_these_alone(terms):
    if terms.aggregate is None:
        return ""
    least = max(0.0, terms.aggregate.least_aggregate_kl)
    if terms.aggregate_kl.value - least < _MISMATCH_OF_ALL:
        return ""
    return f" of these x, whose q(z|x) overlap too little to tell: over all x at least {least:.2f}"


def _posterior(model, terms):
    likelihood, findings = terms.likelihood, []
    if likelihood.samples == 1:
        return ["a single draw gives the ELBO, not log p(x), and says nothing of the posterior: take more samples."]
    effective = float(np.median(likelihood.effective_samples))
    if effective < likelihood.few:
        findings.append(
            f"few draws count: of {likelihood.samples:,} of q(z|x) {effective:.1f} (median), so that log p(x) is "
            "likely to be higher still. Take more samples, or check by annealed_importance_sampling."
        )
    elif np.any(likelihood.degenerate):
        findings.append(
            f"in {np.sum(likelihood.degenerate):,} of {len(likelihood.values):,} examples fewer than "
            f"{likelihood.few:g} draws of q(z|x) count: their log p(x) may be far too low, where p(z|x) has a part "
            "that q(z|x) doesn't reach. Look at them (decomposition.likelihood.degenerate), and check them by "
            "annealed_importance_sampling."
        )
    large = terms.gap.value > _LARGE_GAP * terms.kl.value and terms.gap.value > 3 * terms.gap.standard_error
    if large and isinstance(model, VAE):  # PCA's posterior is p(z|x)
        findings.append(
            f"the posterior isn't p(z|x): the ELBO lacks {terms.gap} nats, beside a KL to the prior of "
            f"{terms.kl.value:.2f}. Try {_better_posterior(model)}."
        )
    return findings + _confidence(model, terms.overconfidence)


def _confidence(model, overconfidence: Estimate):
    size, error = abs(overconfidence.value), overconfidence.standard_error
    if not size > max(_CONFIDENCE * math.sqrt(model.latent_dim), 3 * error):
        return []
    nats = f"{size:.2f} +- {error:.2f} nats or more"
    if overconfidence.value < 0:
        return [f"q(z|x) is too wide: by {nats}, log q(z|x) is higher at z of p(z|x) than at its own."]
    return [
        f"q(z|x) is too narrow (overconfident), or beside p(z|x): by {nats}, log q(z|x) is lower at z of p(z|x) than "
        "at its own. What lies where no draw falls is missing in log p(x) and the ELBO's gap, even where many draws "
        "count: check by annealed_importance_sampling."
    ]


def _better_posterior(model):
    if isinstance(model, HierarchicalVAE):
        return "larger networks as posteriors=, a larger encoder, or kvae.IWAE()"
    diagonal = isinstance(model.posterior_family, DiagonalNormal) and model.latent_dim > 1
    return f"{'kvae.posteriors.FullNormal() or ' if diagonal else ''}a flow, a larger encoder, or kvae.IWAE()"


def _decoder(model, data, batch_size):
    smallest = getattr(getattr(model, "likelihood", None), "min_variance", None)
    if smallest is None or isinstance(model.likelihood.variance, float):
        return []
    share = _share_at_bound(model, data, batch_size, math.log(_AT_BOUND * smallest))
    if share < 0.01:
        return []
    return [
        f"the decoder's variance is at its bound, {smallest:.2g}, in {share:.0%} of its values: log p(x) depends on "
        "that bound. Pixels that never change do it: add noise, choose a min_variance, or use a likelihood of discrete "
        "values."
    ]


@errors.clear_errors()
def _share_at_bound(model, data, batch_size, bound):
    """The share of the decoder's log-variances below the bound, over all of the data."""
    if model.likelihood.variance != "decoder":
        return np.mean(ops.convert_to_numpy(model.likelihood.log_var) < bound)
    below = values = 0
    for element in arrays.batches(model._checked(data, "data"), batch_size):
        x = model._read(element)
        z = model._with_labels(model.posterior(x).mean, x)
        log_var = np.asarray(model.decoder_distribution(z).log_var)
        below, values = below + np.sum(log_var < bound), values + log_var.size
    return below / values


def _listing(chosen):
    numbers = np.flatnonzero(chosen)
    return ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
