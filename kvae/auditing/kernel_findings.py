"""Findings about the KL's terms in z_mean and z_log_var."""

import math
from collections.abc import Iterator

from kvae.auditing.findings import Finding, number
from kvae.auditing.measures import Measures

RIGHT = "kl = -0.5 * ops.sum(1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var), axis=-1)"


def findings(found: Measures, sampled_sigma: bool, sampled_softplus: bool = False) -> Iterator[Finding]:
    """What is wrong with the terms. Draws may read z_log_var as log sigma, or as softplus's argument."""
    term = found.kl
    kernel = term.kernel
    if found.batches.couples and term.shape == "linear":
        return  # a term of the whole batch, such as a total correlation, is no kernel
    if kernel is None:
        if not found.box.exact:
            return
        yield Finding(
            "kl-variance",
            "The term in z_log_var is none of exp(z_log_var) - z_log_var.",
            "It isn't the KL of the normal that z_mean and z_log_var describe.",
            ("kl = ...", RIGHT),
        )
    elif term.raw_sigma == "softplus":
        if not sampled_softplus:
            yield Finding(
                "kl-softplus",
                "The KL reads z_log_var as the raw value of sigma = softplus(z_log_var).",
                "It is right if the draws do the same. Drawn with exp(z_log_var / 2), a z_log_var of 0 has sigma 1 and "
                f"is charged as one of {math.log(2):.3f}: {_kl(math.log(2)):.3f} nats for 0.",
                ("sigma = ops.softplus(z_log_var)", "sigma = ops.exp(0.5 * z_log_var)"),
            )
    elif found.prior_is_scaled:
        variance = term.prior_variance or math.nan
        yield Finding(
            "prior-variance",
            f"The terms are those of a KL to N(0, {number(variance)}), not to N(0, 1).",
            f"Draws of N(0, I) have {number(1 / math.sqrt(variance))} times the spread of the codes.",
            (f"kl = {term.in_words()}", RIGHT),
        )
    elif term.of_log_sigma:
        if not sampled_sigma:
            yield Finding(
                "kl-log-sigma",
                "The KL reads z_log_var as log sigma: it has exp(2 z_log_var).",
                "Drawn with exp(z_log_var / 2), a posterior of sigma 0.5 is charged as one of 0.25: "
                f"{_kl(0.25):.3f} nats for {_kl(0.5):.3f}.",
                (
                    "kl = -0.5 * ops.sum(1 + 2 * z_log_var - ops.square(z_mean) - ops.exp(2 * z_log_var), axis=-1)",
                    RIGHT,
                ),
            )
    elif term.prior_variance is None:
        yield _wrong_kernel(term, kernel)


def _kl(sigma):
    return 0.5 * (sigma**2 - 1) - math.log(sigma)


def _wrong_kernel(term, kernel):
    if not kernel:
        name, sentence = "kl-no-variance", "z_log_var doesn't count in the KL: it is a penalty of z_mean alone."
        consequence = "Nothing keeps the variances up: they go to 0, and the code becomes that of an autoencoder."
    elif "v^2" in kernel and "log(v)" not in kernel:
        name, sentence = "kl-square", f"The KL squares z_log_var where exp(z_log_var) belongs: {term.in_words()}."
        least = -kernel.get("v", 0.0) / (2 * kernel["v^2"])
        consequence = f"It is least at a variance of {math.exp(least):.3g} and lets one of 0.01 pass for "
        consequence += (
            f"{kernel.get('v', 0) * math.log(0.01) + kernel['v^2'] * math.log(0.01) ** 2:.3g} nats, not 1.81."
        )
    elif "log(v)" in kernel or term.raw_sigma:
        what = "the variance" if "v" in kernel else "sigma"
        words = "0.5 z_mean^2 + 0.5 z_log_var^2 - log |z_log_var|" if term.raw_sigma else term.in_words()
        name, sentence = "kl-no-logarithm", f"The KL takes z_log_var for {what} itself: {words}."
        consequence = "It isn't finite for z_log_var <= 0, where half of an untrained encoder's outputs lie."
    elif kernel.get("v", 0.0) > 0 or kernel.get("exp(v)", 0.0) < 0:
        name, sentence = "kl-variance-sign", f"The term in z_log_var has a wrong sign: {term.in_words()}."
        consequence = "It has no minimum at a variance of 1: the variances run to 0 or to infinity."
    else:
        name, sentence = (
            "kl-variance",
            f"The KL's terms in z_mean and z_log_var don't belong to one KL: {term.in_words()}.",
        )
        consequence = "The right one is 0.5 z_mean^2 + 0.5 exp(z_log_var) - 0.5 z_log_var: least at a variance of 1."
    return Finding(name, sentence, consequence, (f"kl = ops.sum({term.in_words()}, axis=-1)", RIGHT))
