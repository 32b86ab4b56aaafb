"""Findings about the reconstruction term."""

import math
from collections.abc import Iterator

from kvae.auditing import families
from kvae.auditing.findings import Finding, number
from kvae.auditing.measures import Measures

_LOSS = "loss = reconstruction + kl"


def findings(found: Measures) -> Iterator[Finding]:
    """What is wrong with the reconstruction term."""
    term, features = found.reconstruction, found.box.features
    if term.family == "none":
        yield Finding(
            "reconstruction-dead",
            "The loss doesn't depend on the reconstruction.",
            "The decoder gets no gradient.",
            ("loss = kl", _LOSS),
        )
        return
    if term.family == "Bernoulli with x and reconstruction exchanged":
        yield Finding(
            "arguments-exchanged",
            "x and the reconstruction are exchanged in the cross-entropy.",
            "The logarithm is taken of x, where it is 0 or 1: the loss is linear in the reconstruction, and at its "
            "least where this is 0 or 1, or 16 nats a value off.",
            (
                "reconstruction = keras.losses.binary_crossentropy(output, x)",
                "reconstruction = keras.losses.binary_crossentropy(x, output)",
            ),
        )
    elif term.family in families.MISTAKEN:
        yield Finding(
            "likelihood-sign",
            f"The reconstruction term is a {term.family}: -x logits - log(1 + exp(logits)).",
            "It has no minimum: the logits run off.",
            ("log_p = x * logits + ops.softplus(logits)", "log_p = x * logits - ops.softplus(logits)"),
        )
    if term.factor < 0:
        yield Finding(
            "sign",
            "The reconstruction term falls as the reconstruction gets worse: its sign is wrong, or the function "
            "returns the bound, which is to be maximized.",
            "Minimized, it drives the reconstruction away from x without end.",
            ("loss = log_likelihood - kl", "loss = -log_likelihood + kl"),
        )
    if term.family is not None and " with learned " in term.family:
        yield from _learned(term)
    if term.uneven:
        yield Finding(
            "values-uneven",
            f"About {term.uneven:.0%} of the {features:,} values of x count differently from the others.",
            "The model isn't trained to reconstruct them as it is the rest.",
            ("reconstruction = ops.sum(...[:, 0], axis=-1)", "reconstruction = ops.sum(..., axis=all but the first)"),
        )
    yield from _weight(found)


def _learned(term):
    if abs(term.log_var_factor - 1) > 5e-3:
        best = f"(x - r)^2 / {number(term.log_var_factor)}" if term.log_var_factor > 0 else "none: it grows without end"
        yield Finding(
            "normalizer",
            f"The logarithm of the learned variance has {number(term.log_var_factor)} times its weight.",
            f"The best variance is then {best}, where (x - r)^2 is right.",
            (
                "-0.5 * (x - mean)**2 * ops.exp(-log_var)" + (" - log_var" if term.log_var_factor else ""),
                "-0.5 * ((x - mean)**2 * ops.exp(-log_var) + log_var)",
            ),
        )


def _weight(found):
    """A reconstruction term that is averaged, or weighted, beside a KL that isn't."""
    term, reduction, size = found.reconstruction, found.reduction, found.size_of_mean
    if found.sums_draws:
        return
    declared = found.declared.beta
    if found.beta is None and found.kl.shape != "other":
        return
    beta = found.beta
    if beta is not None and beta > 0 and math.isclose(beta, declared, rel_tol=2e-3) and not term.has_scale:
        return
    if term.has_scale:
        if reduction in (None, "sum") or size <= 2 or abs(found.scale) != 1:
            return
        yield _averaged_square(found, size)
    elif not math.isclose(abs(term.factor), 1.0, rel_tol=2e-3) and term.factor:
        times = 1 / abs(term.factor)
        if reduction == "mean over the last axis":
            sentence = (
                f"The cross-entropy is averaged over the last axis of {size:.0f} channels, and summed over the rest."
            )
            name, old = "channels-mean", "ops.sum(keras.losses.binary_crossentropy(x, output), axis=(1, 2))"
        elif reduction is not None:
            sentence = f"log p(x|z) is averaged over {_of_values(size, found.box.features)}."
            name, old = "features-mean", "ops.mean(keras.losses.binary_crossentropy(x, output))"
        else:
            sentence = f"log p(x|z) has the weight {number(abs(term.factor))}."
            name, old = "reconstruction-weight", f"{abs(term.factor):.4g} * reconstruction + kl"
        said = "" if beta is None else f"Beside this KL it is beta = {number(beta)}. "
        tail = (
            f"A code must gain {times:.4g} nats for each nat that it carries: "
            + ("the posterior collapses." if times > 20 else "latents that gain less are shut off.")
            if times > 1
            else f"A nat of code costs {times:.4g}."
        )
        yield Finding(name, sentence, said + tail, (old, f"{size:.0f} * {old}" if size > 1 else _LOSS))


def _of_values(size, features):
    return (
        f"the {features:,} values of x" if round(size) == features else f"{size:,.0f} of the {features:,} values of x"
    )


def _averaged_square(found, size):
    sigma2 = found.sigma2 if found.sigma2 is not None else size
    gain = found.box.features * 0.25 / (2 * sigma2)
    effective = found.sigma2_at_beta_1
    if effective is not None and not math.isclose(effective, sigma2, rel_tol=1e-3):
        gain = found.box.features * 0.25 / (2 * effective)
        tail = f"With this KL weight it is the optimum of beta = 1 and sigma^2 = {number(effective)}."
    else:
        tail = f"For x in [0, 1] a code can gain at most {gain:.3g} nats" + (
            ": it isn't worth one, and the posterior collapses." if gain < 1 else "."
        )
    return Finding(
        "squared-error-mean" if found.reconstruction.family != "Laplace" else "error-mean",
        f"The error is averaged over {_of_values(size, found.box.features)}"
        + (
            f": a Gaussian with sigma^2 = {number(sigma2)}, sigma = {math.sqrt(abs(sigma2)):.3g}."
            if found.sigma2
            else "."
        ),
        tail,
        (
            "reconstruction = ops.mean(ops.square(x - output))",
            "reconstruction = ops.sum(ops.square(x - output)) / (2 * sigma2)",
        ),
    )
