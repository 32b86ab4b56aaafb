"""The result of an audit, and its page."""

import dataclasses
import math
from typing import Any, NamedTuple

from kvae import html


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that a loss or a sampling function does and a variational bound doesn't.

    Attributes:
        name: short name, such as "kl-mean".
        sentence: what it does.
        consequence: what follows, in numbers.
        change: (a line as it is, the line as it should be), in Keras.
    """

    name: str
    sentence: str
    consequence: str
    change: tuple[str, str]

    def __str__(self):
        old, new = self.change
        return f"[{self.name}] {self.sentence} {self.consequence}\n    - {old}\n    + {new}"


class Check(NamedTuple):
    """A number of a model, computed in two ways.

    Attributes:
        what: of what.
        found: the model's number.
        expected: the other way's.
        holds: bool, whether both agree within their errors.
    """

    what: str
    found: str
    expected: str
    holds: bool


@dataclasses.dataclass(frozen=True)
class Audit:
    """The result of `kvae.audit` and `kvae.audit_model`.

    The loss is `scale` times (-log p(x|z) + beta KL) for the likelihood that is named, as far as gradients see.

    Attributes:
        likelihood: the likelihood in words, such as "Gaussian" or "Bernoulli on logits", or None if it is unknown.
        sigma2: sigma^2 of a Gaussian likelihood, or None.
        beta: the KL's weight relative to log p(x|z), at `batch_size`; None if one of the two is unknown.
        sigma2_at_beta_1: sigma^2 of the Gaussian for which the same loss has beta = 1, or None.
        likelihood_weight: the factor of log p(x|z) in the loss; of a Gaussian, the factor of the squared error.
        kl_weight: the KL's factor in the loss as it is written.
        scale: the factor of the whole bound.
        reduction: {"batch", "features", "latents": "sum", "mean" or other words}.
        free_bits: nats below which the KL costs nothing, per latent; 0 if there are none.
        capacity: nats C of a term |KL - C|, or nats beyond which the KL costs nothing, or None.
        bound: "ELBO", "importance-weighted", or another combination of several draws.
        findings: tuple of `Finding`, empty for a bound as declared.
        notes: tuple of sentences that are no findings.
        sampling: what the draws are, a `kvae.auditing.sampling.SamplingResult`, or None.
        log_likelihood: log p(x) of the networks, a `kvae.evaluation.LogLikelihood`, by `audit_model`; else None.
        free_bits_per_latent: bool, False if they are a sum's.
        log_sigma: bool, whether the KL reads z_log_var as log sigma.
        printed: the loss of the networks on the data, as the user's code prints it, or None.
        printed_in_nats: the same as minus a bound: without the factor of the whole loss, and with the constants.
        model: the networks in a `kvae.VAE` with the identified likelihood, by `audit_model`; else None.
        checks: tuple of `Check`, what was compared in a `kvae.VAE`, by `audit_model`; else empty.
    """

    likelihood: str | None
    sigma2: float | None
    beta: float | None
    sigma2_at_beta_1: float | None
    likelihood_weight: float
    kl_weight: float
    scale: float
    reduction: dict[str, str]
    free_bits: float = 0.0
    capacity: float | None = None
    bound: str = "ELBO"
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    sampling: Any = None
    log_likelihood: Any = None
    free_bits_per_latent: bool = True
    log_sigma: bool = False
    printed: float | None = None
    printed_in_nats: float | None = None
    model: Any = None
    checks: tuple[Check, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the findings."""
        return tuple(finding.name for finding in self.findings)

    def __str__(self):
        width = max(len(row[0]) for row in self._rows())
        lines = [f"{row[0]:<{width}}  {row[1]}" for row in self._rows()]
        found = [f"{number}. {finding}" for number, finding in enumerate(self.findings, 1)] or ["No finding."]
        return "\n".join([*lines, "", *found, *([""] if self.notes else []), *(f"- {note}" for note in self.notes)])

    __repr__ = __str__

    def _repr_html_(self):
        page = html.table(self._rows())
        for number, finding in enumerate(self.findings, 1):
            old, new = finding.change
            page += html.table(
                [
                    (f"{number}. {finding.name}", finding.sentence),
                    ("in numbers", finding.consequence),
                    ("instead of", old),
                    ("write", new),
                ]
            )
        page += "" if self.findings else html.bullets([html.NOTHING_FOUND])
        return f"<div>{page}{html.bullets(self.notes) if self.notes else ''}</div>"

    def _rows(self):
        if self.checks:
            return [
                (check.what, f"{check.found} | {check.expected}{'' if check.holds else ' (!)'}")
                for check in self.checks
            ]
        rows = [("likelihood", self._likelihood_in_words()), ("beta", self._beta_in_words())]
        rows += [(f"over the {name}", words) for name, words in self.reduction.items()]
        if self.bound != "ELBO":
            rows.append(("bound", self.bound))
        if self.free_bits:
            rows.append(("free bits", f"{self.free_bits:.4g} nats"))
        if self.capacity is not None:
            rows.append(("capacity", f"{self.capacity:.4g} nats"))
        if not math.isclose(self.scale, 1.0, rel_tol=2e-3):
            rows.append(("whole loss", f"{number(self.scale)} of the bound"))
        if self.printed is not None:
            rows.append(("the loss as printed", f"{self.printed:.2f}"))
        if self.printed_in_nats is not None:
            rows.append(("the same in nats", f"{self.printed_in_nats:.2f}"))
        if self.log_likelihood is not None:
            found = self.log_likelihood
            rows.append(("-ELBO of the networks, nats", f"{-found.elbo:.2f}"))
            rows.append(("-log p(x), nats", f"{-found.mean:.2f} +- {found.standard_error:.2f}"))
        return rows

    def _likelihood_in_words(self):
        if self.likelihood is None:
            return "not known"
        if self.sigma2 is None:
            return self.likelihood
        return f"{self.likelihood}, sigma^2 = {number(self.sigma2)} (sigma {number(math.sqrt(abs(self.sigma2)))})"

    def _beta_in_words(self):
        if self.beta is None:
            return "not known"
        effective = self.sigma2_at_beta_1
        if effective is None or math.isclose(self.beta, 1, rel_tol=1e-3):
            return number(self.beta)
        return f"{number(self.beta)}: the same optimum as beta = 1 with sigma^2 = {number(effective)}"


def number(value: float) -> str:
    """A number with four digits, or as 1 / k if it is one."""
    if 0 < abs(value) < 0.51 and abs(1 / value - round(1 / value)) < 1e-5 * abs(1 / value) < 1:
        return f"{'-' if value < 0 else ''}1/{abs(round(1 / value)):,}"
    return f"{value:.4g}"
