"""What a sampling function draws: whether z has the standard deviation that z_log_var says."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

_LOG_VARS = np.array([-2.0, -1.0, 1.0, 2.0])
_LEAST = 20_000  # numbers in all


@dataclasses.dataclass(frozen=True)
class SamplingResult:
    """What the draws are.

    Attributes:
        factor: of the standard deviation at z_log_var = 0; right is 1.
        exponent: b in sigma = factor exp(b z_log_var); right is 1/2, and 1 means exp(log_var). nan without noise.
        bias: mean of (z - z_mean), in standard deviations.
        shared_rows: bool, whether all examples of a batch get one noise.
        shared_latents: bool, whether all latents of an example get one noise.
        repeats: bool, whether a second call gives the same noise.
        kurtosis: of the noise; 3 for a normal, 1.8 for a uniform one.
        exponent_error: standard error of `exponent`.
        factor_error: standard error of the logarithm of `factor`.
        softplus: bool, whether sigma is softplus(z_log_var).
    """

    factor: float
    exponent: float
    bias: float = 0.0
    shared_rows: bool = False
    shared_latents: bool = False
    repeats: bool = False
    kurtosis: float = 3.0
    exponent_error: float = 0.01
    factor_error: float = 0.01
    softplus: bool = False

    @property
    def no_noise(self) -> bool:
        """Whether z is z_mean."""
        return self.factor == 0.0

    @property
    def is_right(self) -> bool:
        """Whether sigma = exp(z_log_var / 2), within the error of the draws."""
        return not self.no_noise and self.has_exponent(0.5) and self.has_unit_factor

    @property
    def has_unit_factor(self) -> bool:
        """Whether sigma is 1 at z_log_var = 0, within the error of the draws."""
        return self.shared_rows or abs(math.log(self.factor)) < 0.02 + 4 * self.factor_error

    def has_exponent(self, value: float) -> bool:
        """Whether the exponent is this one, within the error of the draws."""
        return not self.no_noise and abs(self.exponent - value) < 0.02 + 4 * self.exponent_error


def identify(sampling: Callable, latent_dim: int) -> SamplingResult:
    """Draw from a function of [z_mean, z_log_var], or of the two, and measure.

    Raises:
        TypeError: if it is no function.
        ValueError: if it can't be called so, or doesn't return z.
    """
    if not callable(sampling) or isinstance(sampling, type):
        raise TypeError(f"sampling is {sampling!r}; expected a function of [z_mean, z_log_var] that returns z.")
    each = max(64, math.ceil(_LEAST / latent_dim / len(_LOG_VARS)))
    log_var = np.repeat(_LOG_VARS, each)[:, None] * np.ones((1, latent_dim))
    mean = np.random.default_rng(0).normal(size=log_var.shape)
    draw = _caller(sampling, mean, log_var)
    return measure(mean, log_var, draw(mean, log_var), draw(mean, log_var))


def measure(mean: np.ndarray, log_var: np.ndarray, z: np.ndarray, again: np.ndarray | None = None) -> SamplingResult:
    """What draws z of posteriors are, all (n, latent_dim). again: a second draw."""
    noise = z - mean
    if np.max(np.abs(noise)) <= 1e-5 * max(1.0, np.max(np.abs(mean))):
        return SamplingResult(0.0, math.nan)
    size, v, count = np.log(np.maximum(np.abs(noise), 1e-30)).ravel(), log_var.ravel(), noise.size
    spread = float(np.var(v))
    exponent = float(np.mean((v - v.mean()) * size) / spread) if spread > 0.05 else 0.5
    error = 1.2 / math.sqrt(count * spread) if spread > 0.05 else math.inf
    level = size.reshape(noise.shape) - (exponent if spread > 0.05 else 0.5) * log_var
    shared_rows = len(noise) > 20 and _is_one(level, noise, axis=0)
    shared_latents = noise.shape[1] > 1 and not shared_rows and _is_one(level, noise, axis=1)
    error *= math.sqrt(noise.shape[1]) if shared_latents else 1.0
    used = 0.5 if abs(exponent - 0.5) < 0.02 + 4 * error else exponent
    scaled = noise * np.exp(-np.clip(used, -3, 3) * log_var)
    factor = float(np.sqrt(np.mean(scaled**2)))
    unit = scaled / factor
    bias = float(np.mean(unit))
    independent = len(noise) if shared_latents else count
    return SamplingResult(
        factor,
        exponent,
        bias if abs(bias) > 5 / math.sqrt(independent) else 0.0,
        shared_rows,
        shared_latents,
        again is not None and bool(np.array_equal(z, again)),
        float(np.mean(unit**4)),
        error if math.isfinite(error) else 0.0,
        0.8 / math.sqrt(count),
        spread > 0.05 and abs(exponent - 0.5) > 0.02 + 4 * error and _is_softplus(noise, log_var),
    )


def _is_softplus(noise, log_var):
    """Whether noise / softplus(log_var) has a variance of 1, at low and at high log_var."""
    scaled = (noise / np.logaddexp(0.0, log_var)) ** 2
    parts = [scaled[log_var < np.median(log_var)], scaled[log_var >= np.median(log_var)]]
    return all(len(part) > 100 and abs(np.mean(part) - 1) < 0.02 + 8 / math.sqrt(len(part)) for part in parts)


def _is_one(level, noise, axis):
    """Whether the noise is the same along an axis: its signs, and log |noise| but for the part of z_log_var."""
    same_signs = np.mean(np.abs(np.mean(np.sign(noise), axis=axis))) > 0.99
    return bool(same_signs and np.median(np.std(level, axis=axis)) < 0.02)


def _caller(sampling, mean, log_var):
    """A function (mean, log_var) to z, an array."""
    first = None
    for pack in (lambda m, v: ([m, v],), lambda m, v: (m, v), lambda m, v: ((m, v),)):

        def draw(mean: Any, log_var: Any, pack: Any = pack) -> np.ndarray:
            tensors = [keras.ops.convert_to_tensor(each.astype("float32")) for each in (mean, log_var)]
            return np.asarray(sampling(*pack(*tensors)), "float64")

        try:
            z = draw(mean[:7], log_var[:7])
        except Exception as error:  # of code that someone wrote for other arguments
            first = first or error
            continue
        if z.shape == mean[:7].shape:
            return draw
        first = first or ValueError(f"it gives shape {z.shape} for {mean[:7].shape}")
    message = (str(first).strip().splitlines() or [""])[0]
    raise ValueError(
        f"sampling {sampling!r} can't be called: expected a function of [z_mean, z_log_var], each (n, latent_dim), "
        f"that returns z of the same shape; {type(first).__name__}: {message[:200]}"
    )
