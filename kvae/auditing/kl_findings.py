"""Findings about the KL term."""

import math
from collections.abc import Iterator

from kvae.auditing import kernel_findings
from kvae.auditing.findings import Finding, number
from kvae.auditing.kernel_findings import RIGHT
from kvae.auditing.measures import Measures

_AS_MEAN = RIGHT.replace("ops.sum", "ops.mean")
_LOSS = "loss = reconstruction + kl"
_CODE = 20.0  # nats of a code in examples


def findings(found: Measures, sampled_sigma: bool = False, sampled_softplus: bool = False) -> Iterator[Finding]:
    """What is wrong with the KL term. Draws may read z_log_var as log sigma, or as softplus's argument."""
    term = found.kl
    if term.shape == "dead":
        yield from _dead(found)
        return
    if term.sampled is not None:
        yield from _sampled(found)
        return
    if term.shape == "other":
        yield from _unknown(found)
        return
    if term.weight * math.copysign(1, found.scale if math.isfinite(found.scale) else 1) < 0:
        yield _wrong_sign()
    yield from kernel_findings.findings(found, sampled_sigma, sampled_softplus)
    yield from _level(found)
    if term.uneven:
        yield Finding(
            "latents-uneven",
            f"{term.uneven:.0%} of the latents count differently from the others in the KL.",
            "A latent that costs less leaves N(0, 1): samples of the prior then miss what the decoder knows.",
            ("kl = ...[:, 0]", RIGHT),
        )
    if abs(term.linear_in_mean) > 3e-3:
        yield Finding(
            "kl-mean-shifted",
            f"The term is least at z_mean = {-term.linear_in_mean:.3g}, not at 0.",
            "It is a KL to a prior with that mean: draws of N(0, I) are no samples of the model.",
            ("kl = 0.5 * ops.sum(ops.square(z_mean - c) + ...)", RIGHT),
        )
    if found.beta is not None and found.beta > 0 and not found.batches.excess and found.batches.relative is None:
        yield from _weight(found)


def _dead(found):
    if found.declared.beta == 0:
        return
    yield Finding(
        "kl-dead",
        "The KL term never changes: it is left out, or clamped to a capacity of 0.",
        f"A code of {_CODE:g} nats costs 0 of them: this trains an autoencoder, whose variances go to 0 and whose "
        "samples z ~ N(0, I) decode to nothing.",
        ("kl = ops.clip(kl, 0.0, capacity)  # capacity 0", _LOSS),
    )


def _unknown(found):
    if found.batches.couples:
        return
    yield Finding(
        "kl-unknown",
        "The term in z_mean and z_log_var grows neither as z_mean^2 / 2 nor flat in pieces.",
        "So it is no multiple of KL(q(z|x) || N(0, I)), and the loss is no bound of log p(x).",
        ("kl = ...", RIGHT),
    )


def _wrong_sign():
    return Finding(
        "kl-sign",
        "The KL has the opposite sign of the reconstruction term.",
        f"A code of {_CODE:g} nats earns {_CODE:g}: z_mean and z_log_var run off to infinity.",
        ("loss = reconstruction - kl", _LOSS),
    )


def _level(found):
    term, declared, latents = found.kl, found.declared, found.box.latent_dim
    scope = "per latent" if term.per_latent and latents > 1 else "in sum"
    scope += " of the batch's mean" if term.of_batch else ""
    if term.shape == "floor":
        allowed = [declared.free_bits, declared.free_bits * latents]
        if any(math.isclose(term.level, each, rel_tol=5e-3) for each in allowed if each):
            return
        total = term.level * (latents if term.per_latent else 1)
        yield Finding(
            "free-bits",
            f"The KL costs nothing below {term.level:.4g} nats {scope}; declared are {declared.free_bits:g}.",
            f"Up to {total:.4g} nats of code are free, and the loss lies above -ELBO by as much where they are unused.",
            (f"kl = ops.maximum(kl, {term.level:.4g})", RIGHT),
        )
    elif declared.free_bits:
        yield Finding(
            "free-bits",
            f"There are no free bits; declared are {declared.free_bits:g} nats.",
            "Every nat costs from the first one on.",
            (_LOSS, f"kl_by_latent = ops.maximum(kl_by_latent, {declared.free_bits:g})"),
        )
    if term.shape == "cap":
        yield Finding(
            "kl-cap",
            f"The KL costs nothing beyond {term.level:.4g} nats {scope}: it is clamped from above.",
            f"A code of {max(_CODE, 5 * term.level):g} nats costs {term.level:.4g}: the loss lies below "
            "-ELBO, and is no bound of log p(x).",
            ("kl = ops.minimum(kl, capacity)", "kl = ops.abs(kl - capacity)  # or no capacity"),
        )
    declared_center = declared.capacity is not None and math.isclose(term.level, declared.capacity, rel_tol=5e-3)
    if term.shape == "center" and not declared_center:
        yield Finding(
            "kl-center",
            f"The KL term is |KL - {term.level:.4g}|: a KL below {term.level:.4g} nats costs as one above.",
            f"The optimum has a KL of about {term.level:.4g} nats, and the loss is no bound of log p(x). If it is "
            f"meant, declare capacity={term.level:.4g}.",
            ("kl = ops.abs(kl - capacity)", RIGHT),
        )


def _sampled(found):
    weight_q, weight_p = found.kl.sampled
    scale = found.scale if math.isfinite(found.scale) else 1.0
    q, p = weight_q / scale, weight_p / scale
    if found.kl.shape == "other":
        yield Finding(
            "density-q",
            "log q(z|x) isn't the log-density of N(z_mean, exp(z_log_var)).",
            "Then log p(x|z) + log p(z) - log q(z|x) is no importance weight, and its mean no bound.",
            ("log_q = ...", "log_q = -0.5 * ops.sum((z - z_mean)**2 * ops.exp(-z_log_var) + z_log_var + log_2pi, -1)"),
        )
        return
    if q > 1e-3 and p > 1e-3 and abs(q - p) > 5e-3 * max(q, p):
        yield Finding(
            "prior-variance",
            f"log p(z) is that of N(0, {number(q / p)}), or {number(p / q)} times that of N(0, 1).",
            f"Draws of N(0, I) have {number(math.sqrt(p / q))} times the spread of the codes.",
            (
                f"kl = log_q + {p / 2:.3g} * ops.sum(z**2, axis=-1)",
                "kl = log_q + 0.5 * ops.sum(z**2 + log_2pi, axis=-1)",
            ),
        )
    elif q < -1e-3 or p < -1e-3 or abs(q - p) > 5e-3 * max(abs(q), abs(p)):
        signs = f"{-p:+.3g} log p(z) {q:+.3g} log q(z|x)"
        yield Finding(
            "weights-sign",
            f"The loss has {signs} beside -log p(x|z); the importance weight's logarithm is log p(x|z) + log p(z) - "
            "log q(z|x).",
            "At q = p(z|x) the right weights are all p(x). These aren't constant: the number is no bound, and its "
            "gradient drives q(z|x) the wrong way.",
            ("log_w = log_p_x - log_p_z + log_q", "log_w = log_p_x + log_p_z - log_q"),
        )
    elif not math.isclose(p, found.declared.beta, rel_tol=2e-3):
        yield from _weight(found)


def _weight(found):
    """The KL's weight isn't the declared one."""
    beta, declared, latents, features = found.beta, found.declared.beta, found.box.latent_dim, found.box.features
    if math.isclose(beta, declared, rel_tol=2e-3):
        return
    own = found.kl_weight / declared if declared else math.inf  # the KL's own factor, whatever the reconstruction's is
    of_variance = 2 * (found.kl.kernel or {}).get("exp(v)", 0.5)  # a wrong kernel may have the right weight there
    if math.isclose(own * of_variance, 1.0, rel_tol=3e-3) and not math.isclose(of_variance, 1.0, rel_tol=3e-3):
        return
    if math.isclose(own, 1.0, rel_tol=2e-3):
        return  # the reconstruction's weight is the finding
    what = _consequence(found, beta)
    is_ratio = latents > 1 and math.isclose(own * latents, 1.0, rel_tol=2e-3)
    if found.kl.is_mean or (found.kl.is_mean is None and is_ratio):
        rest = own * latents
        weighted = "" if math.isclose(rest, 1.0, rel_tol=2e-3) else f", with the weight {number(rest)}"
        yield Finding(
            "kl-mean",
            f"The KL is averaged over the {latents} latents{weighted}: beta = {number(beta)}.",
            what,
            (_AS_MEAN, RIGHT),
        )
    elif features > 1 and math.isclose(own * features, 1.0, rel_tol=2e-3):
        yield Finding(
            "kl-by-features",
            f"The KL is divided by the {features:,} values of x: beta = {number(beta)}.",
            what,
            (f"kl = kl / {features}", RIGHT),
        )
    else:
        yield Finding(
            "kl-weight",
            f"The KL has the weight {number(found.kl_weight)}: beta = {number(beta)}, declared {number(declared)}.",
            what,
            (f"loss = reconstruction + {found.kl_weight:.4g} * kl", _LOSS),
        )


def _consequence(found, beta):
    if found.sigma2_at_beta_1 is not None:
        sigma = math.sqrt(found.sigma2_at_beta_1)
        return (
            f"Its optimum is that of beta = 1 with sigma^2 = {number(found.sigma2_at_beta_1)} (sigma = {sigma:.3g}) in "
            f"place of {number(found.sigma2)}, and its number is no bound of log p(x)."
        )
    off = f"A code of {_CODE:g} nats costs {beta * _CODE:.3g}, so the loss lies that far from -ELBO, and "
    if beta < found.declared.beta:
        return off + "q(z|x) narrows: draws of N(0, I) miss the codes."
    return off + "latents that gain less are shut off."
