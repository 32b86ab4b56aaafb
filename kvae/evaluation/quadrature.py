"""log p(x) and p(z|x) by quadrature, for models with few latents: what every bound and estimate is measured against."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from scipy import special

from kvae import arguments
from kvae.data import elements
from kvae.evaluation import scoring
from kvae.models.double import double

_MOST_LATENTS = 3
_FIRST = {1: 513, 2: 65, 3: 25}  # points on an axis of the search
_FINEST = {1: 16_385, 2: 257, 3: 97}  # points on an axis of the quadrature
_DEPTH = 45.0  # nats below the highest density; e^-45 of it is left out
_ROWS = 4_096  # z decoded at once
_DRAWS = 256  # of q(z|x) and of p(z), by which the search begins


@dataclasses.dataclass(frozen=True, eq=False)
class ExactPosterior:
    """The result of `exact_posterior`, in nats.

    Attributes:
        log_prob: array (n,), log p(x).
        error: array (n,), what halving the grid's step changed: the error is below it.
        mean: array (n, latent_dim), E[z|x].
        covariance: array (n, latent_dim, latent_dim), of p(z|x).
        axes: for each x a list with the grid's values on each axis, arrays (points,).
        density: for each x an array (points, ...), p(z|x) on the grid.
    """

    log_prob: NDArray
    error: NDArray
    mean: NDArray
    covariance: NDArray
    axes: list[list[NDArray]]
    density: list[NDArray]

    def __repr__(self):
        return (
            f"ExactPosterior of {len(self.log_prob)} examples: log p(x) {np.mean(self.log_prob):.4f} nats on average, "
            f"error below {np.max(self.error):.1g}"
        )


def exact_posterior(model: Any, x: Any, *, tolerance: float = 1e-6) -> ExactPosterior:
    """Integrate p(x|z) p(z) over z for each x: log p(x), and the true posterior p(z|x) = p(x|z) p(z) / p(x) on a grid.

    The trapezoidal rule in float64, on a box around all of p(z|x) that is within e^-45 of its peak. For densities that
    are smooth and fall off, its error shrinks exponentially with the number of points. This doubles until log p(x)
    stays the same within `tolerance`. ReLUs are no smooth functions and need more points. The box is found from the
    prior and from draws of q(z|x), so a narrow mode far from both would be missed.

    Args:
        model: a `kvae.VAE` of at most 3 latents, without labels.
        x: array (n, ...), a few examples: each decodes some thousand z with 1 or 2 latents, a million with 3.
        tolerance: number > 0, in nats. `error` tells if it wasn't reached at 16,385, 257 and 97 points on an axis of
            1, 2 and 3 latents.

    Returns:
        An `ExactPosterior`.

    Raises:
        TypeError: if the model has no p(z) of a code (n, latent_dim).
        ValueError: if it has more than 3 latents.

    Example:

    >>> sizes = (6,), 2, (8,), "tanh"
    >>> networks = kvae.networks.dense_encoder(*sizes), kvae.networks.dense_decoder(*sizes)
    >>> exact = kvae.evaluation.exact_posterior(kvae.VAE(*networks, seed=0), np.zeros((3, 6), "float32"))
    >>> exact.log_prob.shape, exact.mean.shape, bool(np.all(exact.error < 1e-6))
    ((3,), (3, 2), True)
    """
    scoring.check_has_posterior(model)
    tolerance = arguments.real("tolerance", tolerance)
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance!r}; expected a number above 0, such as 1e-6.")
    if not hasattr(model, "posterior_family") or hasattr(model, "label_dim"):
        raise TypeError(f"model is a {type(model).__name__}; quadrature expects a kvae.VAE without labels.")
    if model.missing:
        raise TypeError(
            "The model takes missing values, and quadrature integrates p of whole examples: use one without."
        )
    x = np.asarray(x)
    model._checked(x, "x")
    if model.latent_dim > _MOST_LATENTS:
        raise ValueError(
            f"The model has {model.latent_dim} latents; a grid takes at most {_MOST_LATENTS}: use "
            "kvae.evaluation.log_likelihood, which draws."
        )
    joint = _Joint(model)
    results = [_integrate(joint, x[row : row + 1], tolerance) for row in range(len(x))]
    columns = zip(*results, strict=True)
    log_prob, error, mean, covariance = (np.array(column) for column in (next(columns) for _ in range(4)))
    return ExactPosterior(log_prob, error, mean, covariance, *map(list, columns))


class _Joint:
    """log p(x|z) + log p(z) in float64."""

    def __init__(self, model):
        self._model = model
        self._decoder, self._likelihood = double(model.decoder), double(model.likelihood)
        self._encoder, self._family = double(model.encoder), double(model.posterior_family)
        self._prior = double(model.prior, event_shape=model.event_shape).distribution(1, self.posterior)
        self.latent_dim = model.latent_dim

    def posterior(self, x):
        outputs = self._encoder(elements.scale(x, "float64"), training=False)
        return self._family.distribution([ops.cast(output, "float64") for output in keras.tree.flatten(outputs)])

    def draws(self, x):
        """z (m, latent_dim), of q(z|x) and of p(z)."""
        of_q = self.posterior(x).repeat(_DRAWS).sample(0)
        of_p = double(self._model.prior, event_shape=self._model.event_shape).distribution(_DRAWS, self.posterior)
        return np.concatenate([of_q, of_p.sample(0)])

    def log_prob(self, x, z):
        """x (1, ...) and z (m, latent_dim) to (m,)."""
        x = elements.scale(x, "float64")
        parts = []
        for start in range(0, len(z), _ROWS):
            rows = ops.convert_to_tensor(z[start : start + _ROWS])
            outputs = keras.tree.flatten(self._decoder(rows, training=False))
            p = self._likelihood.distribution([ops.cast(output, "float64") for output in outputs])
            parts.append(p.log_prob(ops.repeat(x, len(rows), axis=0)) + self._prior.log_prob(rows))
        return np.concatenate(parts)


def _integrate(joint, x, tolerance):
    """log p(x), its error, mean, covariance, axes and density for one x (1, ...)."""
    low, high = _box(joint, x)
    points, before = _FIRST[joint.latent_dim], np.inf
    while True:
        axes = [np.linspace(start, end, points) for start, end in zip(low, high, strict=True)]
        grid = np.stack([each.ravel() for each in np.meshgrid(*axes, indexing="ij")], axis=1)
        log_joint = joint.log_prob(x, grid)
        step = np.prod([axis[1] - axis[0] for axis in axes])
        log_prob = special.logsumexp(log_joint) + np.log(step)
        error = abs(log_prob - before)
        if error < tolerance or 2 * points - 1 > _FINEST[joint.latent_dim]:
            break
        points, before = 2 * points - 1, log_prob
    density = np.exp(log_joint - log_prob)
    weights = density * step
    mean = weights @ grid
    covariance = (weights[:, None] * (grid - mean)).T @ (grid - mean)
    return log_prob, error, mean, covariance, axes, density.reshape([points] * joint.latent_dim)


def _box(joint, x):
    """The least and the largest z of the box, arrays (latent_dim,). It shrinks to where the density is."""
    draws = joint.draws(x)
    spread = np.ptp(draws, axis=0)
    low, high = draws.min(axis=0) - spread, draws.max(axis=0) + spread
    count = _FIRST[joint.latent_dim]
    at_draws = joint.log_prob(x, draws)
    for _ in range(20):
        axes = [np.linspace(start, end, count) for start, end in zip(low, high, strict=True)]
        grid = np.stack([each.ravel() for each in np.meshgrid(*axes, indexing="ij")], axis=1)
        values = joint.log_prob(x, grid)
        peak = max(values.max(), at_draws.max())
        step = np.array([axis[1] - axis[0] for axis in axes])
        inside = np.concatenate([grid[values > peak - _DEPTH], draws[at_draws > peak - _DEPTH]])
        new_low, new_high = inside.min(axis=0) - step, inside.max(axis=0) + step
        if (
            np.all(new_high - new_low > 0.9 * (high - low))
            and np.all(new_low >= low - step)
            and np.all(new_high <= high)
        ):
            break
        low, high = new_low, new_high
    return low, high
