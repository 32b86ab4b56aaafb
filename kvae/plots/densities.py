"""Densities over the plane of two latents. The colors show square roots, to keep faint regions visible."""

from typing import Any

import matplotlib.lines
import matplotlib.patches
import numpy as np
from matplotlib.axes import Axes

from kvae.arguments import integer_at_least
from kvae.plots.canvas import CATEGORIES, axes, check_axes, check_model
from kvae.plots.codes import first_examples

_TRUTH, _LINES = "Blues", CATEGORIES[1]
_DRAWS = 400_000  # z of the aggregate posterior
_FARTHEST = 9.0  # nats below its peak a density counts as zero


def aggregate_posterior(model: Any, x: Any, *, count: int = 1000, size: int = 60, ax: Axes | None = None) -> Axes:
    """The aggregate posterior q(z), the mean of q(z|x) over images, as a filled density, and lines of the prior p(z).

    q(z) is a histogram of draws of each q(z|x). The lines bound the regions of highest density with 50 % and 95 % of
    p(z).

    Args:
        model: a VAE of latent_dim 2.
        x: a stream or an array of images.
        count: number of images.
        size: cells per side of the histogram.
        ax: Axes to draw in. None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for another latent_dim, an empty x, and a too small count or size.
    """
    check_axes(ax)
    _check(model, count, size)
    x, _ = first_examples(x, count)
    drawn = _draws(model.posterior(x).repeat(-(-_DRAWS // len(x))))
    prior, prior_z = model.prior_distribution(), _draws(model.prior_distribution(10_000))
    all_z = np.concatenate([drawn[:: len(drawn) // 10_000], prior_z])
    grid = _grid(np.quantile(all_z, 0.002, axis=0), np.quantile(all_z, 0.998, axis=0), size)
    half = (grid[1, 1] - grid[0, 0]) / 2
    edges = [np.append(side - h, side[-1] + h) for side, h in zip((grid[0, :, 0], grid[:, 0, 1]), half, strict=True)]
    filled = np.histogram2d(*drawn.T, bins=edges)[0].T
    lines = _over(prior.log_prob, grid), _levels(prior.log_prob, prior_z)
    ax = _draw(ax, grid, filled, lines, "q(z): mean of q(z|x)", "p(z): 50 %, 95 %")
    ax.set_title("Aggregate posterior and prior")
    return ax


def posterior(model: Any, x: Any, index: int = 0, *, size: int = 100, ax: Axes | None = None) -> Axes:
    """p(z|x) of one image by quadrature, as a filled density, and lines of its approximation q(z|x).

    The lines bound the regions of highest density with 50 % and 95 % of q(z|x). The title gives KL(q(z|x) || p(z|x)),
    the ELBO's gap for this image.

    Args:
        model: a VAE of latent_dim 2. Its posterior must score any z.
        x: a stream or an array of images.
        index: of the image, counted from 0.
        size: points per side of the grid for both densities.
        ax: Axes to draw in. None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: as `aggregate_posterior`; for an index beyond x, and a posterior that can score only its own z.
    """
    check_axes(ax)
    integer_at_least("index", index, 0)
    _check(model, 1, size)
    family = getattr(model, "posterior_family", None)
    if family is not None and not family.scores_any_z:
        raise ValueError(
            f"This {type(family).__name__} scores only the z that it drew itself: use another "
            "posterior, such as kvae.posteriors.FullNormal()."
        )
    x, _ = first_examples(x, index + 1)
    if index >= len(x):
        raise ValueError(f"index is {index}; expected 0 to {len(x) - 1}, one of the images.")
    x = x[index:]
    q, prior = model.posterior(x), model.prior_distribution()

    def log_joint(z):
        return model.log_likelihood(model._scaled(np.repeat(x, len(z), axis=0)), z) + prior.log_prob(z)

    def log_q(z):
        return q.pairwise_log_prob(z)[:, 0]

    q_z = _draws(q.repeat(10_000))
    drawn = np.concatenate([q_z, _draws(model.prior_distribution(500))])
    coarse = _grid(drawn.min(axis=0), drawn.max(axis=0), 2 * size)
    values = [_over(function, coarse) for function in (log_joint, log_q)]
    relevant = coarse[np.any([value > value.max() - _FARTHEST for value in values], axis=0)]
    margin = coarse[1, 1] - coarse[0, 0]
    grid = _grid(relevant.min(axis=0) - margin, relevant.max(axis=0) + margin, size)
    joint, lines = _over(log_joint, grid), (_over(log_q, grid), _levels(log_q, q_z))
    log_p, log_q_on_grid = (values - np.logaddexp.reduce(values, axis=None) for values in (joint, lines[0]))
    ax = _draw(ax, grid, np.exp(log_p), lines, "p(z|x), by quadrature", "q(z|x): 50 %, 95 %")
    ax.set_title(f"KL(q(z|x) ‖ p(z|x)) = {np.sum(np.exp(log_q_on_grid) * (log_q_on_grid - log_p)):.2f} nats")
    return ax


def _check(model, count, size):
    integer_at_least("count", count, 1)
    integer_at_least("size", size, 2)
    check_model(model, "transform")
    if not hasattr(model, "posterior") or model.latent_dim != 2:
        raise ValueError(
            f"{type(model).__name__} has latent_dim {model.latent_dim}; densities are drawn of a VAE with 2 latents."
        )


def _draws(distribution):
    return np.asarray(distribution.sample(seed=0))


def _grid(low, high, size):
    """Points (size, size, 2): z0 varies along the second axis, z1 along the first."""
    sides = np.linspace(low, high, size, dtype=np.float32)
    return np.stack(np.meshgrid(*sides.T), axis=-1)


def _over(function, grid):
    """The function on the grid, (size, size), one row at a time."""
    return np.stack([np.asarray(function(row), np.float64) for row in grid])


def _draw(ax, grid, filled, lines, name, name_of_lines):
    ax = axes(ax, 4.4, 4)
    root = np.sqrt(filled / filled.max())
    ax.pcolormesh(grid[..., 0], grid[..., 1], root, cmap=_TRUTH, vmin=0, vmax=1, rasterized=True)
    values, levels = lines
    ax.contour(grid[..., 0], grid[..., 1], values, levels, colors=[_LINES], linewidths=2, linestyles="solid")
    area = matplotlib.patches.Patch(color=CATEGORIES[0], label=name)
    line = matplotlib.lines.Line2D([], [], color=_LINES, lw=2, label=name_of_lines)
    ax.legend(handles=[area, line], fontsize=8, loc="upper right", framealpha=0.7)
    ax.set(xlabel="z0", ylabel="z1")
    return ax


def _levels(log_density, drawn):
    """The log-densities exceeded by 95 % and 50 % of the draws (n, 2)."""
    return np.unique(np.quantile(np.asarray(log_density(drawn)), (0.05, 0.5)))
