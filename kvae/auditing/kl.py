"""The KL term of a loss, from its values along z_mean and z_log_var: weight, kernel, floor, cap and center."""

import dataclasses
import itertools
import math

import numpy as np

from kvae.auditing.black_box import BlackBox

_NAMES = "v", "exp(v)", "v^2", "exp(2 v)", "exp(v / 2)"  # of the kernel's terms, v = z_log_var
_RAW_SIGMAS = {"softplus": lambda v: np.logaddexp(0.0, v), "absolute": np.abs}
_AT_POSITIVE = "v", "log(v)", "v^2"
_X, _OUTPUT = 0.3, 0.5


@dataclasses.dataclass(frozen=True)
class KLTerm:
    """What the KL term is, as a function of t, the KL in nats that it should be.

    Attributes:
        shape: "linear", "floor" (max(t, level)), "cap" (min(t, level)), "center" (|t - level|), "dead", or "other".
        weight: of one nat of z_mean^2 / 2, where the term isn't flat.
        level: nats of the floor, cap or center.
        per_latent: bool, whether the level is that of each latent and not of the sum.
        of_batch: bool, whether the level is that of the batch's mean.
        kernel: {name: factor} of the terms in v = z_log_var, relative to the weight; None if it is none of these.
        uneven: share of the latents that don't count as the others do.
        linear_in_mean: factor of z_mean itself relative to the weight: minus the prior's mean.
        is_mean: bool, whether the term is a mean over the latents: with twice as many, one counts half. None if the
            loss doesn't take another number of latents.
        sampled: None, or (weight of log q(z|x), weight of -log p(z)) if the term is one of draws.
    """

    shape: str
    weight: float
    level: float = 0.0
    per_latent: bool = True
    of_batch: bool = False
    kernel: dict[str, float] | None = None
    uneven: float = 0.0
    linear_in_mean: float = 0.0
    is_mean: bool | None = None
    sampled: tuple[float, float] | None = None

    @property
    def prior_variance(self) -> float | None:
        """s^2 if the term is a KL to N(., s^2), else None."""
        kernel = self.kernel or {}
        if set(kernel) == {"v", "exp(v)"} and math.isclose(kernel["exp(v)"], 0.5, rel_tol=3e-3) and kernel["v"] < 0:
            return -2 * kernel["v"]
        return None

    @property
    def of_log_sigma(self) -> bool:
        """Whether z_log_var is read as log sigma."""
        kernel = self.kernel or {}
        right = {"v": -1.0, "exp(2 v)": 0.5}
        return set(kernel) == set(right) and all(math.isclose(kernel[k], right[k], rel_tol=3e-3) for k in right)

    @property
    def raw_sigma(self) -> str | None:
        """ "softplus" or "absolute" if sigma is that function of z_log_var, else None."""
        return next((name for name in _RAW_SIGMAS if self.kernel is not None and set(self.kernel) == {name}), None)

    def in_words(self) -> str:
        """The kernel as a formula."""
        terms = [("z_mean^2", 0.5), *(self.kernel or {}).items()]
        text = "".join(f" {'-' if factor < 0 else '+'} {abs(factor):.3g} {name}" for name, factor in terms)
        return text.removeprefix(" + ").replace("v", "z_log_var").replace("z_log_zariance", "v")


def identify(loss: BlackBox) -> KLTerm:
    """The KL term of a loss, at a fixed x and reconstruction."""
    start = loss.log_var
    shape, weight, level = _profile(loss, start, lambda t: _one_latent(loss, math.sqrt(2 * t)))
    if shape == "dead":
        alive = _largest_change(loss, start)
        return KLTerm("dead" if not alive else "other", 0.0)
    if shape == "other":
        return KLTerm("other", weight)
    per_latent, total = True, level
    if shape != "linear" and loss.latent_dim > 1:
        count = loss.latent_dim
        _, _, total = _profile(loss, start, lambda t: np.full(count, math.sqrt(2 * t / count)))
        per_latent = math.isclose(total, count * level, rel_tol=0.02)
    of_batch = shape == "floor" and _level_is_of_batch(loss, start, level)
    center = level if shape in ("floor", "center") else 0.0
    mean = math.sqrt(2 * (2 * center + 8)) if center else 0.0
    return KLTerm(
        shape,
        weight,
        level,
        per_latent,
        of_batch,
        _kernel(loss, start, mean, weight, level if shape == "cap" else math.inf),
        _uneven(loss, start, mean or 2.0) if shape != "cap" else 0.0,
        _odd_part(loss, start, mean or 2.0, weight),
        _is_mean(loss, mean or 2.0, weight) if shape != "cap" else None,
    )


def _one_latent(loss, value):
    mean = np.zeros(loss.latent_dim)
    mean[0] = value
    return mean


def _profile(loss, log_var, mean_at):
    """(shape, weight, level) of the loss along t, the KL that z_mean should cost."""
    t = np.geomspace(1e-3, 1e3, 25) if loss.exact else np.geomspace(1e-2, 1e6, 25)
    start = loss(_X, _OUTPUT, 0.0, log_var)
    values = np.array([loss(_X, _OUTPUT, mean_at(each), log_var) for each in t]) - start
    if not np.all(np.isfinite(values)):
        return "other", math.nan, 0.0
    noise = np.array([loss.noise(start, start + value) for value in values])
    slopes, errors = np.diff(values) / np.diff(t), 2 * noise[1:] / np.diff(t)
    size = float(np.max(np.abs(slopes) - errors))
    if size <= 0:
        return "dead", 0.0, 0.0
    good = errors < 0.02 * size
    slopes, errors, ends, changes = slopes[good], errors[good], t[1:][good], values[1:][good]
    allowed = 2e-3 * size + 2 * errors
    first, last = slopes[0], slopes[-1]
    others = [k for k, slope in enumerate(slopes) if np.all(np.abs(slope - np.array([first, last])) > allowed[k])]
    is_zero = np.abs(np.array([first, last])) <= [allowed[0], allowed[-1]]
    if len(others) > 1:
        return "other", float(last), 0.0
    if abs(first - last) <= allowed[0] + allowed[-1]:
        weight = float(changes[-1] / ends[-1])
        near = ends < 50  # a floor below the first step shows in what is missing
        missing = ends[near] - changes[near] / weight
        error = noise[1:][good][near] / abs(weight)
        if len(missing) and missing[0] > 5e-3 * ends[near][0] + 8 * error[0] and np.all(missing > 0):
            return "floor", weight, float(missing[0])
        return "linear", weight, 0.0
    if is_zero[0]:
        above = int(np.argmax(np.abs(slopes - last) <= allowed))
        upper = above + 1 if above + 1 < len(slopes) else above
        return "floor", float(last), float(ends[upper] - changes[upper] / last)
    if is_zero[1]:
        return "cap", float(first), float(changes[-1] / first)
    if abs(first + last) <= 2 * (allowed[0] + allowed[-1]):
        above = min(int(np.argmax(np.abs(slopes - last) <= allowed)) + 1, len(slopes) - 1)
        return "center", float(last), float((ends[above] - changes[above] / last) / 2)
    return "other", float(last), 0.0


def _largest_change(loss, log_var):
    """Whether z_log_var changes the loss where z_mean doesn't."""
    values = [loss(_X, _OUTPUT, 0.0, each) for each in (log_var, 1.5, 3.0)]
    return math.isfinite(values[0]) and np.ptp(values) > loss.noise(*values)


def _level_is_of_batch(loss, log_var, level):
    """Whether a floor holds for the mean over the batch: one example above it, the others at 0, then cost nothing."""
    mean = np.zeros((loss.rows, loss.latent_dim))
    mean[0, 0] = math.sqrt(2 * level * (1 + (loss.rows - 1) / 2))
    change = loss(_X, _OUTPUT, mean, log_var) - loss(_X, _OUTPUT, 0.0, log_var)
    return abs(change) <= loss.noise(change, loss(_X, _OUTPUT))


def _kernel(loss, start, mean, weight, cap):
    """{name: factor} of the terms in z_log_var, or None. start: the log-variance at which the loss is finite."""
    reach = 1.0 if cap > 0.6 else 0.5 * math.sqrt(cap)
    points = np.array([-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0]) * reach
    if not loss.exact and cap > 2000:
        points = np.array([-12.0, -8.0, -4.0, -2.0, 2.0, 4.0, 6.0, 8.0])
    columns, names = np.stack([points, np.expm1(points), points**2, np.expm1(2 * points), np.expm1(points / 2)]), _NAMES
    if cap <= 0.6:  # too short a range for so many terms
        columns, names = columns[:3], _NAMES[:3]
    changes = _along_log_var(loss, 0.0, mean, points)
    if not np.all(np.isfinite(changes)) and start:
        points = start + np.array([0.25, 0.5, 1.0, 2.0, 3.0])
        columns, names = np.stack([points - start, np.log(points / start), points**2 - start**2]), _AT_POSITIVE
        changes = _along_log_var(loss, start, mean, points)
    if not np.all(np.isfinite(changes)):
        return None
    base = loss(_X, _OUTPUT, _one_latent(loss, mean), start)
    noise = np.array([loss.noise(base, base + change) for change in changes]) / abs(weight)
    found = sparse(columns.T, changes / weight, noise)
    if found is None:
        return _raw_sigma(points, changes / weight, noise)
    return {names[k]: value for k, value in found.items()}


def _raw_sigma(points, values, noise):
    """{name: 1.0} if the terms are those of a KL with sigma = softplus(v) or |v|, else None."""
    for name, sigma in _RAW_SIGMAS.items():
        expected = 0.5 * sigma(points) ** 2 - np.log(sigma(points))
        off = values - expected
        if np.max(np.abs(off - np.mean(off))) <= 1e-4 * np.ptp(expected) + 4 * np.max(noise):
            return {name: 1.0}
    return None


def _along_log_var(loss, start, mean, points):
    mean = _one_latent(loss, mean)
    base = loss(_X, _OUTPUT, mean, start)
    log_vars = np.full((len(points), loss.latent_dim), start)
    log_vars[:, 0] = points
    return np.array([loss(_X, _OUTPUT, mean, row) for row in log_vars]) - base


def sparse(columns: np.ndarray, values: np.ndarray, noise: np.ndarray) -> dict[int, float] | None:
    """{column: factor} of the fewest columns, at most four, that give the values within their noise; or None."""
    if np.min(noise) > 0.1:  # nothing can be told
        return None
    error = 5e-4 * np.abs(values) + noise
    columns, values = columns / error[:, None], values / error
    if np.all(np.abs(values) <= 4):
        return {}
    for terms in range(1, 5):
        best = math.inf, {}
        for chosen in itertools.combinations(range(columns.shape[1]), terms):
            factors = np.linalg.lstsq(columns[:, chosen], values, rcond=None)[0]
            residual = float(np.max(np.abs(columns[:, chosen] @ factors - values)))
            best = min(best, (residual, dict(zip(chosen, map(float, factors), strict=True))), key=lambda each: each[0])
        if best[0] <= 4:
            return best[1]
    return None


def _uneven(loss, log_var, mean):
    """Share of the latents that cost another amount than most."""
    base, costs = loss(_X, _OUTPUT, 0.0, log_var), []
    for latent in range(0, loss.latent_dim, max(1, loss.latent_dim // 64)):
        z_mean = np.zeros(loss.latent_dim)
        z_mean[latent] = mean
        costs.append(loss(_X, _OUTPUT, z_mean, log_var) - base)
    usual = max(costs, key=abs)
    return float(np.mean(np.abs(np.array(costs) - usual) > 0.02 * abs(usual) + 4 * loss.noise(base)))


def _is_mean(loss, mean, weight):
    """Whether one of twice as many latents counts half as much; None if the loss refuses as many."""
    try:
        wider = BlackBox(loss.loss, loss.event_shape, 2 * loss.latent_dim, loss.shapes, loss.samples)
    except ValueError:
        return None
    wider.power = loss.power
    sizes = []
    for box in (loss, wider):
        change = box(_X, _OUTPUT, _one_latent(box, 2 * mean), loss.log_var, rows=loss.rows)
        sizes.append(change - box(_X, _OUTPUT, _one_latent(box, mean), loss.log_var, rows=loss.rows))
    if not np.all(np.isfinite(sizes)) or abs(sizes[0]) < 1e-2 * abs(weight):
        return None
    return bool(abs(sizes[1] / sizes[0] - 0.5) < 0.02)


def _odd_part(loss, log_var, mean, weight):
    """The factor of z_mean itself, relative to the weight of z_mean^2 / 2."""
    values = [loss(_X, _OUTPUT, _one_latent(loss, sign * mean), log_var) for sign in (1, -1)]
    if abs(values[0] - values[1]) <= 4 * loss.noise(*values):
        return 0.0
    return (values[0] - values[1]) / (2 * mean * weight)
