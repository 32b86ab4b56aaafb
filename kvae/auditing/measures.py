"""All that the probes of a loss saw, and the numbers that follow: the scale of the bound, beta and sigma^2."""

import dataclasses
import functools
import math

import numpy as np

from kvae.auditing import batches, families, importance, kl, reconstruction
from kvae.auditing.black_box import BlackBox
from kvae.auditing.importance import Draws
from kvae.auditing.kl import KLTerm
from kvae.auditing.reconstruction import Reconstruction


@dataclasses.dataclass(frozen=True)
class Declared:
    """What the user says that the loss should be.

    Attributes:
        beta: the KL's weight.
        free_bits: nats per latent, or in sum, that cost nothing.
        capacity: C of |KL - C|, or None.
        batch_size: at which a weight that depends on it is reported.
    """

    beta: float = 1.0
    free_bits: float = 0.0
    capacity: float | None = None
    batch_size: int = 128


@dataclasses.dataclass(frozen=True)
class Measures:
    """What the probes saw of one loss."""

    box: BlackBox
    declared: Declared
    batches: batches.Batches
    reconstruction: Reconstruction
    kl: KLTerm
    additive: bool

    @functools.cached_property
    def draws(self) -> Draws | None:
        """How several draws are combined."""
        return importance.combination(self.box, self.scale, self._constants()) if self.scale else None

    def _constants(self):
        """-log p(x|z) of one draw at the probe, with and without the constants of a Gaussian; or none."""
        family, (a, b), features = self.reconstruction.family or "", importance.PROBE, self.box.features
        if family not in families.FAMILIES:
            return ()
        value = features * float(families.FAMILIES[family](np.array(a), np.array(b)))
        if family == "Laplace":
            scale = 1 / abs(self.reconstruction.factor)
            return value / scale, value / scale + features * math.log(2 * scale)
        if self.sigma2 is None:
            return (value,)
        value /= 2 * self.sigma2
        return value, value + features / 2 * math.log(2 * math.pi * self.sigma2)

    @functools.cached_property
    def sums_draws(self) -> bool:
        """Whether several draws are summed, so that the reconstruction counts as often."""
        return importance.sums_draws(self.box)

    @functools.cached_property
    def kl_weight(self) -> float:
        """Of the KL at the batch size, relative to a mean over the batch (or to the reconstruction's own sum)."""
        return self.kl_weight_at(self.declared.batch_size)

    def kl_weight_at(self, rows: int) -> float:
        """The KL's weight in a batch of so many examples."""
        weight = self.kl.weight * (self.kl.prior_variance or 1.0 if self.prior_is_scaled else 1.0)
        if self.batches.relative is not None:
            return weight * self.batches.relative.get(rows, math.nan)
        return weight * (rows / self.box.rows) ** self.batches.excess

    @property
    def prior_is_scaled(self) -> bool:
        """Whether the term is a KL to a normal with another variance than 1."""
        variance = self.kl.prior_variance
        return variance is not None and not math.isclose(variance, 1.0, rel_tol=3e-3)

    @functools.cached_property
    def reduction(self) -> str | None:
        """Over the values of x: "sum", "mean" ..., or None if it is no such factor."""
        found, factor = self.reconstruction, abs(self.reconstruction.factor)
        if not math.isfinite(factor) or not factor:
            return None
        shape = self.box.event_shape
        reduced = families.reductions(factor, shape)
        is_half = reduced is None and found.has_scale and found.family != "Laplace"
        return families.reductions(2 * factor, shape) if is_half else reduced

    @functools.cached_property
    def scale(self) -> float:
        """The factor of the whole bound. Of a scale family it is 1, or that of a mean beside an equally small KL."""
        found = self.reconstruction
        if found.family in (None, "none"):
            return math.nan
        if not found.has_scale:
            return float(round(found.factor)) if abs(found.factor - round(found.factor)) < 1e-6 else found.factor
        sign = math.copysign(self.box.samples or 1 if self.sums_draws else 1, found.factor)
        weight = abs(self.kl.weight)
        if self.reduction and self.reduction.startswith("mean") and self.kl.shape != "dead":
            size = self.size_of_mean
            if math.isclose(weight * size, self.declared.beta or 1.0, rel_tol=2e-3):
                return sign / size
        return sign

    @property
    def size_of_mean(self) -> float:
        """The number of values that the reconstruction is a mean of; 1 for a sum."""
        factor = abs(self.reconstruction.factor)
        if self.reduction in (None, "sum"):
            return 1.0
        size = 1 / factor
        return size if families.reductions(factor, self.box.event_shape) else size / 2

    @property
    def beta(self) -> float | None:
        """The weight of the KL relative to log p(x|z)."""
        if self.kl.shape == "dead":
            return 0.0
        known = math.isfinite(self.scale) and self.scale and self.kl.shape != "other"
        return self.kl_weight / self.scale if known else None

    @property
    def sigma2(self) -> float | None:
        """sigma^2 of a Gaussian."""
        is_gaussian = self.reconstruction.family in ("Gaussian", "Gaussian on sigmoid(logits)")
        return self.scale / (2 * self.reconstruction.factor) if is_gaussian else None

    @property
    def sigma2_at_beta_1(self) -> float | None:
        """sigma^2 of the Gaussian for which the same loss has beta = 1."""
        if self.sigma2 is None or not self.beta or self.beta < 0:
            return None
        return self.sigma2 * self.beta


def measure(box: BlackBox, declared: Declared, levels: np.ndarray | None = None) -> Measures:
    """Probe a loss. levels: the values of x that the data have, if they are few."""
    found = batches.identify(box, declared.batch_size)
    term = reconstruction.identify(box, levels)
    divergence = importance.sampled_kl(box) if box.takes_z else None
    return Measures(box, declared, found, term, divergence or kl.identify(box), _is_additive(box))


def _is_additive(box):
    """Whether the loss is a term of (x, reconstruction) plus a term of (z_mean, z_log_var)."""
    code = {"mean": 1.5, "log_var": -0.5}
    corners = [box(0.3, 0.5), box(0.3, 0.9), box(0.3, 0.5, **code), box(0.3, 0.9, **code)]
    if not all(map(math.isfinite, corners)):
        return True
    mixed = corners[3] - corners[2] - corners[1] + corners[0]
    return abs(mixed) <= 4 * box.noise(*corners) + 1e-3 * min(
        abs(corners[1] - corners[0]), abs(corners[2] - corners[0])
    )
