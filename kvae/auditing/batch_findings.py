"""Findings about the batch, and about the data beside the likelihood."""

import math
from collections.abc import Iterator

import numpy as np

from kvae.auditing.findings import Finding, number
from kvae.auditing.measures import Measures
from kvae.auditing.reconstruction import Reconstruction

_LOSS = "loss = reconstruction + kl"


def of_batches(found: Measures) -> Iterator[Finding]:
    """What is wrong with the reduction over the batch."""
    is_of_codes = found.batches.couples and found.kl.shape == "other"  # such as a maximum mean discrepancy
    if found.batches.relative is not None and not is_of_codes:
        rows = found.declared.batch_size
        values = [found.kl_weight_at(n) / (found.scale if math.isfinite(found.scale) else 1.0) for n in (1, rows)]
        yield Finding(
            "beta-by-batch",
            "The KL's weight relative to the reconstruction depends on the number n of examples in the batch.",
            f"beta = {number(values[0])} at n = 1 and {number(values[1])} at n = {rows}.",
            ("kl = kl / batch_size", "loss = ops.mean(reconstruction + kl)"),
        )
    if found.batches.excess and not is_of_codes:
        rows = found.declared.batch_size
        values = [found.kl_weight_at(n) / (found.scale if math.isfinite(found.scale) else 1.0) for n in (1, rows)]
        names: dict[float | None, str] = {0.0: "a mean", 1.0: "a sum", -1.0: "a mean divided by n"}
        parts = [names.get(each, "no mean") for each in (found.batches.kl, found.batches.reconstruction)]
        by = "n" if found.batches.excess == 1 else f"n^{found.batches.excess:g}"
        total = 1 / values[0] if values[0] else math.inf
        guess = f" (n / N with N = {total:,.0f})" if by == "n" and total > 2 else ""
        yield Finding(
            "beta-by-batch",
            f"The KL is {parts[0]} over the n examples of a batch and the reconstruction {parts[1]}: beta is "
            f"proportional to {by}{guess}.",
            f"beta = {number(values[0])} at n = 1 and {number(values[1])} at n = {rows}: another batch size is another "
            "model.",
            (
                "loss = ops.mean(reconstruction) + (batch_size / N) * ops.mean(kl)",
                "loss = ops.mean(reconstruction + kl)",
            ),
        )
    if found.batches.uneven:
        yield Finding(
            "rows-uneven",
            "The examples of a batch don't count equally.",
            "An example's gradient depends on its position in the batch.",
            ("loss = loss[0]", "loss = ops.mean(loss)"),
        )
    if not found.additive:
        yield Finding(
            "not-a-sum",
            "The loss isn't a term of the reconstruction plus a term of z_mean and z_log_var.",
            "beta then differs from example to example, and the loss is no bound.",
            ("loss = reconstruction * kl", _LOSS),
        )


def of_data(term: Reconstruction, x: np.ndarray | None) -> Iterator[Finding]:
    """What of the data doesn't fit the likelihood."""
    family = term.family
    if x is None:
        return
    if family is None:
        if term.is_additive and term.tried and (len(np.unique(x)) <= 64 or np.allclose(x * 255, np.rint(x * 255))):
            yield Finding(
                "not-normalized",
                "The sum of exp(-reconstruction term) over the values of x depends on the reconstruction.",
                "It is no likelihood of such x, and the loss no bound of log p(x).",
                ("reconstruction = ...", "reconstruction = -log_prob(x)  # of a distribution over the values of x"),
            )
        return
    low, high = float(np.min(x)), float(np.max(x))
    grey = float(np.mean((x > 0) & (x < 1)))
    is_bernoulli = family.startswith("Bernoulli")
    if (is_bernoulli or family.startswith("continuous Bernoulli")) and (low < 0 or high > 1):
        yield Finding(
            "range",
            f"The data reach from {low:g} to {high:g}, and a {family} takes values in [0, 1].",
            "Outside of it the cross-entropy falls without end.",
            ("x = x", "x = x / 255"),
        )
    elif is_bernoulli and grey > 0.01:
        entropy = _entropy(x)
        yield Finding(
            "grey",
            f"{grey:.0%} of the values are grey, and a cross-entropy is a likelihood of 0 and 1 alone.",
            f"The loss is no -log p(x): a perfect reconstruction costs {entropy:.1f} nats an image, and its integral "
            "over x isn't 1.",
            ('likelihood "bernoulli" of grey x', "kvae.ContinuousBernoulliLikelihood(), or x = x > 0.5"),
        )
    elif family.startswith("continuous Bernoulli") and not grey:
        yield Finding(
            "binary",
            "All values are 0 or 1, where a continuous Bernoulli's density has no bound.",
            "The loss falls to minus infinity as the logits grow.",
            ("continuous Bernoulli", "kvae.BernoulliLikelihood()"),
        )
    elif family.startswith("Gaussian") and high > 1.5 and low >= 0 and np.all(x == np.rint(x)):
        yield Finding(
            "range",
            f"The data are whole numbers from {low:g} to {high:g}: sigma is in the same unit.",
            "For pixels of 0 to 255 the errors count 65,025 times as much beside the KL as for x / 255.",
            ("x = x", "x = x / 255"),
        )


def _entropy(x):
    p = np.clip(x, 1e-7, 1 - 1e-7)
    return float(np.mean(np.sum(-(p * np.log(p) + (1 - p) * np.log1p(-p)).reshape(len(x), -1), axis=1)))
