"""The plane of two latents: what it decodes to, and where in it the codes are."""

import numpy as np

from kvae.plots.canvas import CATEGORIES, number, show_tiles
from kvae.plots.codes import check_count, first_examples

MARGIN = 0.1  # beyond the outermost codes, as a share of their range


def plane(codes, size):
    """(horizontal, vertical) values of an even grid over codes (n, 2), each (size,), a margin beyond the outermost."""
    low, high = codes.min(axis=0), codes.max(axis=0)
    return np.linspace(low - MARGIN * (high - low), high + MARGIN * (high - low), size).T


def code_map(model, x, *, size=15, count=2000, ax=None):
    """Decoded means on an even grid over the plane of two latents, and x's codes upon it as dots.

    `manifold` shows the plane at equal steps of probability; here the steps are those of the latents, so that a hole
    is as large as it is.

    Args:
        model: a model of latent_dim 2, with `transform` and `inverse_transform`.
        x: a stream or an array of images, whose codes also set the range: a tenth beyond the outermost.
        size: images a side.
        count: examples of x that are read.
        ax: Axes to draw in; None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for another latent_dim and counts too small.
    """
    check_count("size", size, least=2)
    check_count("count", count)
    if model.latent_dim != 2:
        raise ValueError(f"The model has latent_dim {model.latent_dim}; a map is drawn for 2 latents.")
    codes = model.transform(first_examples(x, count)[0])
    across, up = plane(codes, size)
    z = np.stack(np.meshgrid(across, up[::-1]), axis=-1).reshape(-1, 2).astype(codes.dtype)
    ax = show_tiles(ax, model.inverse_transform(z), size, gap=0, inches=0.4, left=0.7, above_below=1.1)
    # A tile is a step wide and centred on its code; rows are counted from the top.
    column = np.interp(codes[:, 0], across, np.arange(size))
    row = np.interp(codes[:, 1], up, np.arange(size)[::-1])
    ax.scatter(column, row, s=9, color=CATEGORIES[1], edgecolors="black", linewidths=0.25, rasterized=True)
    ticks = np.unique(np.linspace(0, size - 1, 5).round().astype(int))
    ax.set_xticks(ticks, [number(across[tick]) for tick in ticks])
    ax.set_yticks(size - 1 - ticks, [number(up[tick]) for tick in ticks])
    ax.set(xlabel="z0", ylabel="z1")
    ax.set_title(f"The plane of codes, decoded (means)\ndots: the codes of {len(codes)} images")
    return ax
