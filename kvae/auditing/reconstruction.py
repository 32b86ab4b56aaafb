"""The reconstruction term of a loss: the likelihood that it is, its weight, and which values of x it counts."""

import dataclasses
import math

import numpy as np

from kvae.auditing import families, normalization
from kvae.auditing.black_box import BlackBox

X, OUTPUTS, LOG_VARS = np.array([0.0, 0.3, 0.5, 0.8, 1.0]), np.array([0.1, 0.3, 0.5, 0.7, 0.9]), (-1.0, 0.0, 1.0)
_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """What the reconstruction term is.

    Attributes:
        family: name in `families.FAMILIES`; "Gaussian with learned variance", "Gaussian with the batch's variance";
            "normalized on ..." for other densities; "none" if the reconstruction doesn't count; None if unknown.
        factor: of one value: c in c (x - r)^2, or the weight of the log-likelihood.
        log_var_factor: the factor of log sigma^2 / 2 relative to the square's, with a learned variance.
        uneven: share of the values of x that don't count as the others do.
        is_additive: bool, whether it is a sum over the values of x.
        tried: bool, whether it was tried if the term is a normalized likelihood.
    """

    family: str | None
    factor: float = math.nan
    log_var_factor: float = 1.0
    uneven: float = 0.0
    is_additive: bool = True
    tried: bool = False

    @property
    def has_scale(self) -> bool:
        """Whether a factor is another scale of the same family, and no weight of its log-likelihood."""
        return self.family in ("Gaussian", "Laplace", "Gaussian on sigmoid(logits)")


def identify(loss: BlackBox, levels: np.ndarray | None = None) -> Reconstruction:
    """The reconstruction term of a loss. levels: the values of x that the data have, if they are few."""
    if not loss.is_event:
        return _by_normalization(loss, levels)
    if loss.is_learned:
        return _learned(loss) or _by_normalization(loss, levels)
    a, values = _grid(loss)
    if len(a) < 2 or not np.all(np.isfinite(values)):
        return Reconstruction(None)
    target = families.without_terms_of_x(values)
    if np.max(np.abs(target)) * loss.features <= loss.noise(loss(0.3, 0.5), loss(0.3, 0.9)):
        pattern = np.linspace(0.2, 0.8, loss.features).reshape(loss.event_shape)
        values = loss(0.3, 0.5), loss(0.3, pattern)  # an angle between images is 0 for even ones
        is_dead = loss.features == 1 or abs(values[1] - values[0]) <= loss.noise(*values)
        return Reconstruction("none", 0.0) if is_dead else Reconstruction(None, is_additive=False)
    uneven, additive = _evenness(loss)
    if not additive and (factor := _weight_of_logarithm(loss)):
        return Reconstruction("Gaussian with the batch's variance", factor, is_additive=False)
    matched = families.match(values, a, OUTPUTS, _TOLERANCE) if additive else None
    if matched is not None:
        return Reconstruction(*matched, uneven=uneven)
    return Reconstruction(None, is_additive=False) if not additive else _by_normalization(loss, levels)


def _grid(loss):
    """(values of x, the term of one value by x and reconstruction) from images of one value each."""
    raw = np.array([[loss(x, output) for output in OUTPUTS] for x in X])
    keep = np.all(np.isfinite(raw), axis=1)
    raw = raw[keep]
    return X[keep], (raw - (raw[:1, :1] if len(raw) else 0.0)) / loss.features


def _evenness(loss):
    """(share of the values that don't count as the others, whether the term is a sum over the values)."""
    base, full = loss(0.3, 0.5), loss(0.3, 0.9)
    if loss.features == 1:
        return 0.0, True
    whole, halves = full - base, []
    chosen = np.random.default_rng(0).permutation(loss.features).reshape(-1)
    groups = np.array_split(chosen, min(loss.features, 8 if loss.exact else 2))
    changes = []
    for group in groups:
        output = np.full(loss.features, 0.5)
        output[group] = 0.9
        changes.append(loss(0.3, output.reshape(loss.event_shape)) - base)
        halves.append(len(group) / loss.features)
    noise = loss.noise(base, full) + 1e-3 * abs(whole)
    if abs(sum(changes) - whole) > len(groups) * noise:
        return 0.0, False
    shares = np.array(changes) / whole
    if np.all(np.abs(shares - halves) <= np.array(halves) * 0.01 + noise / abs(whole)):
        return 0.0, True
    step = max(1, loss.features // 64)
    singles = []
    for index in range(0, loss.features, step):
        output = np.full(loss.features, 0.5)
        output[index] = 0.9
        singles.append(loss(0.3, output.reshape(loss.event_shape)) - base)
    usual = max(singles, key=abs)
    return float(np.mean(np.abs(np.array(singles) - usual) > 0.01 * abs(usual))), True


def _weight_of_logarithm(loss):
    """The weight w if the term is w D / 2 log(mean (x - r)^2): the Gaussian with the variance that is best."""
    pattern = np.linspace(0.5, 1.0, loss.features).reshape(loss.event_shape)
    for size in (8.0, 0.01):
        values = [loss(0.3, 0.3 + size * times * pattern) for times in (1, 2, 4, 8)]
        steps = np.diff(values) / (loss.features * math.log(2))
        if np.all(np.isfinite(steps)) and abs(steps[0]) > 0 and np.ptp(steps) <= 2e-3 * abs(steps[0]):
            return float(steps[-1])
    return None


# By name: the error's part by x - r and the second output, and the factor of that output beside it.
_LEARNED = {
    "Gaussian with learned variance": (lambda error, log_var: 0.5 * error**2 * np.exp(-log_var), 0.5),
    "Gaussian with learned log sigma": (lambda error, log_var: 0.5 * error**2 * np.exp(-2 * log_var), 1.0),
    "Laplace with learned log scale": (lambda error, log_scale: np.abs(error) * np.exp(-log_scale), 1.0),
}


def _learned(loss):
    """With outputs [location, logarithm of the scale]: the family and its factors, or None."""
    errors, scales = (each.ravel() for each in np.meshgrid((0.0, 0.2, 0.5), LOG_VARS))
    base = loss(0.3, [0.3, 0.0])
    values = np.array([loss(0.3, [0.3 + e, s]) - base for e, s in zip(errors, scales, strict=True)]) / loss.features
    if not np.all(np.isfinite(values)) or not np.any(values):
        return None
    for name, (formula, factor) in _LEARNED.items():
        columns = np.stack([formula(errors, scales), scales], axis=1)
        found = np.linalg.lstsq(columns, values, rcond=None)[0]
        if np.linalg.norm(columns @ found - values) <= _TOLERANCE * np.linalg.norm(values):
            weight = float(found[0])
            return Reconstruction(name, weight, float(found[1]) / (factor * weight))
    return None


def _by_normalization(loss, levels):
    found = normalization.identify(loss, levels)
    return (
        Reconstruction(None, tried=normalization.applies(loss))
        if found is None
        else Reconstruction(f"normalized on {found[0]}", found[1])
    )
