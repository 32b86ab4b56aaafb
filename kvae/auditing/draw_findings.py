"""Findings about the draws of z: how they are drawn, and how a loss combines several."""

import math
from collections.abc import Iterator

from kvae.auditing.findings import Finding, number
from kvae.auditing.measures import Measures
from kvae.auditing.sampling import SamplingResult

_DRAW = "z = z_mean + ops.exp(0.5 * z_log_var) * keras.random.normal(ops.shape(z_mean), seed=seed_generator)"
_BOUND = "loss = -(ops.logsumexp(log_w, axis=1) - np.log(k))"


def of_draws(found: Measures) -> Iterator[Finding]:
    """What is wrong with several draws."""
    draws, k = found.draws, found.box.samples
    if draws is None or k is None:
        return
    is_bound = found.beta is not None and math.isclose(found.beta, found.declared.beta, rel_tol=2e-3)
    if draws.bound == "sum" and not is_bound:
        yield Finding(
            "draws-sum",
            f"The {k} draws are summed: with k draws the reconstruction counts k times.",
            f"At k = {k} it is beta = {'unknown' if found.beta is None else number(found.beta)}.",
            ("ops.sum(log_likelihood, axis=1)", "ops.mean(log_likelihood, axis=1)"),
        )
    elif draws.bound not in ("mean", "sum", "importance-weighted"):
        yield Finding(
            "draws-combined",
            f"The {k} draws are combined as: {draws.bound}.",
            "Neither the mean of -log w (the ELBO) nor -log of the mean w (the importance-weighted bound) is that: it "
            "lies above or below log p(x) at random.",
            ("loss = ops.logsumexp(-log_w, axis=1)", _BOUND),
        )
    if abs(draws.constant) > 0:
        yield Finding(
            "draws-constant",
            f"{k} equal draws give {draws.constant:+.3f} nats in place of 0"
            + (f": -log k is missing (log {k} = {math.log(k):.3f})." if _is_log(draws.constant, k) else "."),
            f"The number claims {abs(draws.constant):.3f} nats too much, and more with every draw.",
            ("loss = -ops.logsumexp(log_w, axis=1)", _BOUND),
        )


def _is_log(constant, k):
    return math.isclose(abs(constant), math.log(k), rel_tol=0.02)


def of_sampling(
    result: SamplingResult | None, kl_of_log_sigma: bool, kl_of_softplus: bool = False
) -> Iterator[Finding]:
    """What is wrong with the draws of z. The KL may read z_log_var as log sigma, or as softplus's argument."""
    if result is None:
        return
    if result.no_noise:
        yield Finding(
            "no-noise",
            "z is z_mean: nothing is drawn.",
            "The KL charges for a variance that the decoder never sees; the number is no bound.",
            ("z = z_mean", _DRAW),
        )
        return
    if result.shared_rows:
        yield Finding(
            "one-noise-for-the-batch",
            "All examples of a batch get the same noise.",
            "The gradient's noise doesn't average out over the batch.",
            ("eps = keras.random.normal((latent_dim,))", "eps = keras.random.normal(ops.shape(z_mean), seed=...)"),
        )
    if result.shared_latents:
        yield Finding(
            "one-noise-for-the-latents",
            "All latents of an example get the same noise.",
            "z lies on a line through z_mean, where the KL is that of independent latents.",
            ("eps = keras.random.normal((n, 1))", "eps = keras.random.normal(ops.shape(z_mean), seed=...)"),
        )
    if result.repeats and not result.shared_rows:
        yield Finding(
            "noise-repeats",
            "Every call gives the same noise.",
            "An example in the same row gets the same eps in every epoch: the networks learn it.",
            ("eps = keras.random.normal(shape, seed=0)", "eps = keras.random.normal(shape, seed=seed_generator)"),
        )
    of_sigma = result.has_exponent(1.0)
    if of_sigma and not kl_of_log_sigma:
        yield Finding(
            "sigma",
            "sigma is exp(z_log_var), the variance, in place of its square root exp(z_log_var / 2).",
            "A variance of 0.25 is drawn with sigma = 0.25 in place of 0.5: the decoder sees less noise than the KL is "
            "paid for, and -loss may exceed log p(x).",
            ("z = z_mean + ops.exp(z_log_var) * eps", "z = z_mean + ops.exp(0.5 * z_log_var) * eps"),
        )
    elif result.softplus:
        if not kl_of_softplus:
            yield Finding(
                "sigma",
                "sigma is softplus(z_log_var), not exp(z_log_var / 2).",
                "A variance of 0.25 is drawn with sigma = 0.223 in place of 0.5.",
                ("z = z_mean + ops.softplus(z_log_var) * eps", "z = z_mean + ops.exp(0.5 * z_log_var) * eps"),
            )
    elif not of_sigma and not result.has_exponent(0.5):
        yield Finding(
            "sigma",
            f"sigma grows as exp({result.exponent:.2f} z_log_var), not as exp(0.5 z_log_var).",
            f"A variance of 0.25 is drawn with sigma = {result.factor * 0.25**result.exponent:.3g} in place of 0.5.",
            ("z = z_mean + z_log_var * eps", "z = z_mean + ops.exp(0.5 * z_log_var) * eps"),
        )
    elif not result.has_unit_factor:
        yield Finding(
            "sigma-factor",
            f"The noise has a standard deviation of {result.factor:.3g} in place of 1.",
            f"The KL charges for variances that are {result.factor**2:.3g} times as large in the draws.",
            (f"eps = keras.random.normal(shape, stddev={result.factor:.3g})", "eps = keras.random.normal(shape)"),
        )
    is_power = result.has_exponent(0.5) or result.has_exponent(1.0)
    if result.bias and not result.shared_rows:
        yield Finding(
            "noise-mean",
            f"The noise has a mean of {result.bias:.2f} standard deviations, not 0.",
            "z isn't centered on z_mean.",
            ("eps = keras.random.uniform(shape)", "eps = keras.random.normal(shape)"),
        )
    if is_power and not (result.shared_rows or result.shared_latents) and abs(result.kurtosis - 3) > 0.5:
        yield Finding(
            "noise-kind",
            f"The noise isn't normal: its fourth moment is {result.kurtosis:.2f}, not 3.",
            "The KL is that of a normal.",
            ("eps = keras.random.uniform(shape)", "eps = keras.random.normal(shape)"),
        )
