"""One table of what a model's latents hold, and what is wrong with them."""

import dataclasses
import math

import numpy as np
from keras import ops

from kvae import html
from kvae.data import arrays, elements, errors
from kvae.evaluation.aggregate import ActiveUnits, active_units
from kvae.evaluation.decomposition import Decomposition, elbo_decomposition
from kvae.models import VAE, ConditionalVAE, HierarchicalVAE
from kvae.objectives import kl_groups
from kvae.posteriors import DiagonalNormal
from kvae.priors import StandardNormal

_COLLAPSED = 0.01  # of a latent's variance, that of its posterior mean
_MISMATCH, _MISMATCH_OF_ALL = 0.1, 1.0  # nats, of the aggregate posterior to the prior: of one latent, of all together
_CONFIDENCE = 0.25  # nats by the root of the latents' number, of which log q(z|x) has a standard deviation of 0.7
_LARGE_GAP = 0.1  # of the KL to the prior
_AT_BOUND = 1.05  # of the smallest variance
_LATENTS = 10  # in text


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
            ("  KL of the aggregate", str(parts.aggregate_kl), f"KL(q(z) || p(z)){_of_these_alone(parts)}"),
        ]
        beyond = [
            ("KL to the true posterior", str(parts.gap), "KL(q(z|x) || p(z|x)), the ELBO's gap"),
            ("  overconfidence", str(parts.overconfidence), "above 0: q(z|x) too narrow, or off; below: too wide"),
        ]
        rows = [
            ("log p(x)", str(parts.log_likelihood), f"nats, {len(found.values):,} examples, k = {found.samples:,}"),
            ("ELBO", str(parts.elbo), "log p(x) is above it by the KL to the true posterior"),
            ("reconstruction", str(parts.reconstruction), "E[log p(x|z)], the negative distortion"),
            ("KL to the prior", str(parts.kl), "KL(q(z|x) || p(z)), the rate"),
            *(split if parts.aggregate else []),
            *(beyond if found.samples > 1 else []),
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
        return html.latent_rows(columns, variance if kl is None else "KL, nats")

    def __str__(self):
        latents, findings = (
            html.text_table(self.latents),
            [f"! {finding}" for finding in self.findings or (html.NOTHING_FOUND,)],
        )
        left_out = [f"and {len(latents) - 1 - _LATENTS} more, below these"] if len(latents) > 1 + _LATENTS else []
        return "\n".join([*html.text_table(self.rows), "", *latents[: 1 + _LATENTS], *left_out, "", *findings])

    _repr_html_ = html.report


def report(
    model, data, samples=5_000, components=2_000, *, seed=0, batch_size=elements.BATCH_SIZE, verbose="auto", resume=None
):
    """A `Report` on a model, from what `elbo_decomposition`, whose arguments it takes, and `active_units` find."""
    parts = elbo_decomposition(
        model, data, samples, components, seed=seed, batch_size=batch_size, verbose=verbose, resume=resume
    )
    units = active_units(model, data, batch_size=batch_size)
    findings = _latents(model, parts, units) + _posterior(model, parts) + _decoder(model, data, batch_size)
    return Report(parts, units, tuple(findings))


def _latents(model, parts, units):
    z = model.prior_distribution(10_000).sample(0) if parts.aggregate is None else parts.aggregate.z
    findings, collapsed = [], units.variances < _COLLAPSED * np.var(z, axis=0)
    if np.any(collapsed):
        bits = " or free bits" if isinstance(model, VAE) and kl_groups(model) == len(collapsed) else ""
        findings.append(
            f"{np.sum(collapsed)} of {len(collapsed)} latents collapsed, the variance of their posterior means over "
            f"the data being below {_COLLAPSED:.0%} of theirs: {_listing(collapsed)}. Fewer latents do as well, or a "
            f"warm-up of beta{bits} may wake them."
        )
    mismatch, kl = _mismatch(parts)
    if mismatch:
        findings.append(
            f"the prior isn't the aggregate posterior: {mismatch}. {_missed(model, parts.aggregate.z, kl)}: try "
            f"{_better_prior(model)}."
        )
    return findings


def _better_prior(model):
    if not isinstance(model, VAE):
        return "a kvae.VAE, whose prior can be learned"
    if not isinstance(model.prior, StandardNormal):
        return f"longer training, or a larger {type(model.prior).__name__}"
    learned = "MixtureOfGaussians" if isinstance(model, ConditionalVAE) else "VampPrior"
    return f"a prior that is learned, such as kvae.{learned}()"


def _mismatch(parts):
    """(what is off or None, KL(q(z) || p(z)) of that), where it's sure that it isn't for the want of examples."""
    aggregate, whole = parts.aggregate, parts.aggregate_kl
    if aggregate is None:
        return None, None
    by_latent = (aggregate.latents or {}).get("aggregate_kl")
    if by_latent is not None:
        off = (by_latent > _MISMATCH) & (aggregate.latents["least_aggregate_kl"] > 0)
        if np.any(off):
            kl = np.sum(by_latent)
            return f"by more than {_MISMATCH} nats in latents {_listing(off)}, by {kl:.1f} nats over all alone", kl
    if whole.value > _MISMATCH_OF_ALL and aggregate.least_aggregate_kl > 0:
        return f"it is {whole} nats away", whole.value
    return None, None


def _missed(model, z, kl):
    """What is wrong with samples, of z of the aggregate posterior, (m, latent_dim), and its KL to the prior.

    KL(q || p) = (E_p[log p] - E_q[log p]) + (H(p) - H(q)): whether more of it is that q reaches where p is thin, or
    that q leaves out where p isn't.
    """
    prior = model.prior_distribution(len(z))
    own = prior.sample(0)
    log_probs = [ops.convert_to_numpy(prior.log_prob(of)) for of in (own, ops.cast(z, own.dtype))]
    if np.mean(log_probs[0]) - np.mean(log_probs[1]) > kl / 2:
        return "Images are encoded where hardly a sample lies, so that samples show too little of them"
    return "Samples will lie where no image was encoded"


def _of_these_alone(parts):
    if parts.aggregate is None:
        return ""
    least = max(0.0, parts.aggregate.least_aggregate_kl)
    if parts.aggregate_kl.value - least < _MISMATCH_OF_ALL:
        return ""
    return f" of these x, whose q(z|x) overlap too little to tell: over all x at least {least:.2f}"


def _posterior(model, parts):
    found, findings = parts.likelihood, []
    if found.samples == 1:
        return ["a single draw gives the ELBO, not log p(x), and says nothing of the posterior: take more samples."]
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
    return findings + _confidence(model, parts.overconfidence)


def _confidence(model, found):
    """found: the `Estimate` of the overconfidence."""
    if not abs(found.value) > max(_CONFIDENCE * math.sqrt(model.latent_dim), 3 * found.standard_error):
        return []
    nats = f"{abs(found.value):.2f} +- {found.standard_error:.2f} nats or more"
    if found.value < 0:
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
    """Of the decoder's values over all of the data, those with a log-variance below the bound."""
    if model.likelihood.variance != "decoder":
        return np.mean(ops.convert_to_numpy(model.likelihood.log_var) < bound)
    below = values = 0
    for element in arrays.batches(model._checked(data, "data"), batch_size):
        x = model._read(element)
        z = model._with_labels(model.posterior(x).mean, x)
        log_var = ops.convert_to_numpy(model.decoder_distribution(z).log_var)
        below, values = below + np.sum(log_var < bound), values + log_var.size
    return below / values


def _listing(chosen):
    numbers = np.flatnonzero(chosen)
    return ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
