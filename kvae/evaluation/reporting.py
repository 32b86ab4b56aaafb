"""One table of what a model's latents hold, and what is wrong with them."""

import dataclasses
import html
import math

import numpy as np
from keras import ops

from kvae.data import streams
from kvae.evaluation.aggregate import ActiveUnits, active_units
from kvae.evaluation.decomposition import Decomposition, elbo_decomposition
from kvae.evaluation.tables import aligned, latents_rows, table
from kvae.models import VAE, ConditionalVAE, HierarchicalVAE
from kvae.posteriors import DiagonalNormal

_COLLAPSED = 0.01  # the variance of a latent's posterior mean
_MISMATCH = 0.1  # nats, of one latent's aggregate posterior to the prior
_LARGE_GAP = 0.1  # of the KL to the prior
_AT_BOUND = 1.05  # of the smallest variance
_LATENTS = 10  # in text
_NOTHING = "nothing stands out"


@dataclasses.dataclass(frozen=True)
class Report:
    """decomposition: a `Decomposition`. units: an `ActiveUnits`. findings: sentences on what is wrong. Prints as a
    table, in a notebook as one of HTML.

    rows: (what, its value, what that is) of the table, strings. latents: its second table, a line of names and a row a
    latent, the largest KL to the prior first, or where that isn't known by latent the largest variance.
    """

    decomposition: Decomposition
    units: ActiveUnits
    findings: tuple

    @property
    def rows(self):
        found, parts = self.decomposition.likelihood, self.decomposition
        effective, latents = found.effective_samples, len(self.units.active)
        few = f"in one example; {np.sum(found.degenerate):,} have fewer than {found.few:g}"
        split = [
            ("  mutual information", str(parts.mutual_information), "of x and z, at most log(examples)"),
            ("  KL of the aggregate", str(parts.aggregate_kl), "KL(q(z) || p(z))"),
        ]
        rows = [
            ("log p(x)", str(parts.log_likelihood), f"nats, {len(found.values):,} examples, k = {found.samples:,}"),
            ("ELBO", str(parts.elbo), "log p(x) is above it by the KL to the true posterior"),
            ("reconstruction", str(parts.reconstruction), "E[log p(x|z)], the negative distortion"),
            ("KL to the prior", str(parts.kl), "KL(q(z|x) || p(z)), the rate"),
            *(split if parts.aggregate else []),
            ("KL to the true posterior", str(parts.gap), "KL(q(z|x) || p(z|x)), the ELBO's gap"),
            ("active latents", f"{np.sum(self.units.active)} of {latents}", "whose posterior mean varies with x"),
            (
                "effective samples",
                f"{np.median(effective):.0f} of {found.samples:,}",
                "median; few mean log p(x) is higher still",
            ),
            ("  the least", f"{np.min(effective):.1f}", few),
        ]
        if found.dimensions is not None:
            rows.insert(1, ("bits per dimension", f"{found.bits_per_dimension:.4f}", "-log2 p(x) / dimensions"))
        return rows

    @property
    def latents(self):
        by_latent = (self.decomposition.aggregate.latents if self.decomposition.aggregate else None) or {}
        variance, kl = "variance of its mean", by_latent.get("kl")
        columns = {
            "KL, nats": kl,
            "mutual information": by_latent.get("mutual_information"),
            "KL of the aggregate": by_latent.get("aggregate_kl"),
            variance: self.units.variances,
            "active": self.units.active,
        }
        return latents_rows(columns, variance if kl is None else "KL, nats")

    def __str__(self):
        latents, findings = aligned(self.latents), [f"! {finding}" for finding in self.findings or (_NOTHING,)]
        left_out = [f"and {len(latents) - 1 - _LATENTS} more, below these"] if len(latents) > 1 + _LATENTS else []
        return "\n".join([*aligned(self.rows), "", *latents[: 1 + _LATENTS], *left_out, "", *findings])

    def _repr_html_(self):
        findings = "".join(f"<li>{html.escape(finding)}</li>" for finding in self.findings or (_NOTHING,))
        return f"{table(self.rows)}{table(self.latents)}<ul>{findings}</ul>"


def report(
    model, data, samples=5_000, components=2_000, *, seed=0, batch_size=streams.BATCH_SIZE, verbose="auto", resume=None
):
    """A `Report` on a model, from what `elbo_decomposition`, whose arguments it takes, and `active_units` find."""
    parts = elbo_decomposition(
        model, data, samples, components, seed=seed, batch_size=batch_size, verbose=verbose, resume=resume
    )
    units = active_units(model, data, _COLLAPSED, batch_size)
    first = next(iter(streams.batches(data, batch_size)))
    findings = _latents(model, parts, units) + _posterior(model, parts) + _decoder(model, model._read(first))
    return Report(parts, units, tuple(findings))


def _latents(model, parts, units):
    findings = []
    if not np.all(units.active):
        bits = " or free bits" if isinstance(model, VAE) and model.kl_groups() == len(units.active) else ""
        findings.append(
            f"{np.sum(~units.active)} of {len(units.active)} latents collapsed, their posterior means having a "
            f"variance below {_COLLAPSED} over the data: {_listing(~units.active)}. Fewer latents do as well, or a "
            f"warm-up of beta{bits} may wake them."
        )
    mismatch = _mismatch(parts)
    if mismatch:
        findings.append(
            f"the prior isn't the aggregate posterior: {mismatch}. Samples will lie where no image was encoded: try "
            f"{_better_prior(model)}."
        )
    return findings


def _better_prior(model):
    if not isinstance(model, VAE):
        return "a kvae.VAE, whose prior can be learned"
    learned = "MixtureOfGaussians" if isinstance(model, ConditionalVAE) else "VampPrior"
    return f"a prior that is learned, such as kvae.{learned}()"


def _mismatch(parts):
    if parts.aggregate is None:
        return None
    by_latent, whole = (parts.aggregate.latents or {}).get("aggregate_kl"), parts.aggregate_kl
    if by_latent is not None and np.any(by_latent > _MISMATCH):
        listing = _listing(by_latent > _MISMATCH)
        return f"by more than {_MISMATCH} nats in latents {listing}, by {np.sum(by_latent):.1f} nats over all alone"
    if whole.value > max(1.0, 3 * whole.standard_error) and not _saturated(parts):
        return f"it is {whole} nats away"
    return None


def _saturated(parts):
    """Whether the data's posteriors overlap too little for their mixture to say anything of what lies between."""
    return parts.mutual_information.value > math.log(parts.aggregate.examples) - 1


def _posterior(model, parts):
    found, findings = parts.likelihood, []
    effective = float(np.median(found.effective_samples))
    if effective < found.few:
        findings.append(
            f"few draws count: of {found.samples:,} of q(z|x) {effective:.1f} (median), so that log p(x) is likely to "
            "be higher still. Take more samples, or check by annealed_importance_sampling."
        )
    elif np.any(found.degenerate):
        findings.append(
            f"in {np.sum(found.degenerate):,} of {len(found.values):,} examples fewer than {found.few:g} draws of "
            "q(z|x) count: their log p(x) may be far too low, where p(z|x) has a part that q(z|x) doesn't reach. Look "
            "at them (decomposition.likelihood.degenerate), and check them by annealed_importance_sampling."
        )
    large = parts.gap.value > _LARGE_GAP * parts.kl.value and parts.gap.value > 3 * parts.gap.standard_error
    if large and isinstance(model, VAE):  # PCA's posterior is p(z|x)
        findings.append(
            f"the posterior isn't p(z|x): the ELBO lacks {parts.gap} nats, beside a KL to the prior of "
            f"{parts.kl.value:.2f}. Try {_better_posterior(model)}."
        )
    return findings


def _better_posterior(model):
    if isinstance(model, HierarchicalVAE):
        return "larger networks as posteriors=, a larger encoder, or kvae.IWAE()"
    diagonal = isinstance(model.posterior_family, DiagonalNormal) and model.latent_dim > 1
    return f"{'kvae.posteriors.FullNormal() or ' if diagonal else ''}a flow, a larger encoder, or kvae.IWAE()"


def _decoder(model, x):
    smallest = getattr(getattr(model, "likelihood", None), "min_variance", None)
    if smallest is None or isinstance(model.likelihood.variance, float):
        return []
    log_var = model.conditional_at(x, model.posterior(x).mean).log_var
    share = np.mean(ops.convert_to_numpy(log_var) < math.log(_AT_BOUND * smallest))
    if share < 0.01:
        return []
    return [
        f"the decoder's variance is at its bound, {smallest:.2g}, in {share:.0%} of its values: log p(x) depends on "
        "that bound. Pixels that never change do it: add noise, choose a min_variance, or use a likelihood of discrete "
        "values."
    ]


def _listing(chosen):
    numbers = np.flatnonzero(chosen)
    return ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
