"""Losses of draws z: the KL term as log q(z|x) - log p(z), and several draws as a mean or as an importance weight."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from kvae.auditing.black_box import BlackBox
from kvae.auditing.kl import KLTerm, sparse

PROBE = _X, _OUTPUT = 0.3, 0.5  # values of x and of the decoder's output


@dataclasses.dataclass(frozen=True)
class Draws:
    """How a loss combines k draws with terms a, b, ... (each -log of an importance weight).

    Attributes:
        bound: "mean" (the ELBO of k draws), "importance-weighted" (-log 1/k sum exp(-a)), "sum", or the name of
            another combination; "unknown" if it is none of these.
        constant: nats in which k equal draws differ from one of them; 0 for a bound.
    """

    bound: str
    constant: float = 0.0


def _log_mean(values):
    return float(np.logaddexp.reduce(values) - math.log(len(values)))


def _weighted(sign):
    def combine(values):
        weights = np.exp(sign * (values - np.max(sign * values) * sign))
        return float(np.sum(weights * values) / np.sum(weights))

    return combine


COMBINATIONS = {
    "mean": np.mean,
    "importance-weighted": lambda values: -_log_mean(-values),
    "weighted by the normalized weights": _weighted(-1),
    "weighted by the inverse weights": _weighted(1),
    "logarithm of the mean inverse weight": _log_mean,
    "best draw": np.min,
    "worst draw": np.max,
}


def sampled_kl(loss: BlackBox) -> KLTerm | None:
    """The KL term as one of draws z, or None if the loss doesn't read z there."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 3)) * (1.5, 1.0, 1.5)
    base = loss(_X, _OUTPUT)
    values = np.array([_at(loss, *point) for point in points]) - base
    mean, log_var, z = points.T
    square = (z - mean) ** 2
    columns = {
        "z^2": z**2,
        "scaled": square * np.exp(-log_var),
        "v": log_var,
        "mean^2": mean**2,
        "exp(v)": np.expm1(log_var),
        "by sigma": square * np.exp(-log_var / 2),
        "by log sigma": square * np.exp(-2 * log_var),
        "square": square,
    }
    if not np.all(np.isfinite(values)):
        return None
    noise = np.array([loss.noise(base, base + value) for value in values])
    found = sparse(np.stack(list(columns.values()), axis=1), values, noise)
    names = list(columns)
    factors = {} if found is None else {names[k]: value for k, value in found.items()}
    if not {"z^2", "scaled", "by sigma", "by log sigma", "square"} & factors.keys():
        return None
    weight_p, weight_q = 2 * factors.pop("z^2", 0.0), -2 * factors.pop("scaled", 0.0)
    log_var = factors.pop("v", 0.0)
    size = max(abs(weight_p), abs(weight_q))
    is_density = not factors and math.isclose(-2 * log_var, weight_q, rel_tol=5e-3, abs_tol=5e-3 * size)
    weight = weight_p if abs(weight_p) > 0 else weight_q
    return KLTerm("linear" if is_density else "other", weight, sampled=(weight_q, weight_p))


def _at(loss, mean, log_var, z):
    codes = np.zeros((3, loss.latent_dim))
    codes[:, 0] = mean, log_var, z
    return loss(_X, _OUTPUT, *codes)


def sums_draws(loss: BlackBox) -> bool:
    """Whether the reconstruction counts k times with k draws."""
    if not loss.samples or loss.samples < 2:
        return False
    one = _one_draw(loss)
    changes = [each(_X, _OUTPUT + 0.1) - each(_X, _OUTPUT) for each in (loss, one)]
    return abs(changes[0] - loss.samples * changes[1]) < 0.02 * abs(changes[0])


def _one_draw(loss):
    one = BlackBox(loss.loss, loss.event_shape, loss.latent_dim, loss.shapes, 1)
    one.power = loss.power
    return one


def combination(loss: BlackBox, scale: float, constants: Sequence[float] = ()) -> Draws | None:
    """How the loss combines its draws; None without draws.

    Args:
        loss: the loss.
        scale: the weight of log p(x|z) in it.
        constants: possible values of -log p(x|z) at `PROBE`.
    """
    if not loss.samples or loss.samples < 2:
        return None
    base, draws = loss(_X, _OUTPUT), loss.samples
    step = _step_of(loss, base, 1.5 * abs(scale))
    equal = [base, loss(_X, _OUTPUT + step)]
    mixed = np.full((loss.rows, draws, *(1,) * len(loss.shapes[0])), _OUTPUT)
    mixed[:, : draws // 2] += step
    mixed = np.broadcast_to(mixed, (loss.rows, draws, *loss.shapes[0]))
    value = loss(_X, [mixed, *[_OUTPUT] * (len(loss.shapes) - 1)])
    if sums_draws(loss):
        return Draws("sum")
    noise = loss.noise(*equal) / abs(scale)
    constant = _constant(loss, equal[0] / scale, scale, [each for each in constants if math.isfinite(each)])
    terms = np.array([equal[1]] * (draws // 2) + [equal[0]] * (draws - draws // 2)) / scale
    for name, combine in COMBINATIONS.items():
        if abs(combine(terms) - value / scale) <= 0.01 + 4 * noise:
            return Draws(name, constant if abs(constant) > 0.01 + 4 * noise else 0.0)
    return Draws("unknown", constant if abs(constant) > 0.01 + 4 * noise else 0.0)


def _constant(loss, value, scale, constants):
    """Nats by which k equal draws differ from one: -log k, or 0 where the value is one of the constants."""
    log_k = math.log(loss.samples)
    near = min(constants, key=lambda each: min(abs(value - each), abs(value + log_k - each)), default=math.nan)
    if abs(value - near) <= 0.01 or abs(value + log_k - near) <= 0.01:
        return value - near
    return value - _one_draw(loss)(_X, _OUTPUT) / scale


def _step_of(loss, base, target):
    """A change of the reconstruction that changes the loss by about the target, for the better or the worse."""
    for step in np.geomspace(1e-3, 0.4, 12):
        if abs(loss(_X, _OUTPUT + step) - base) >= target:
            return float(step)
    return 0.4
