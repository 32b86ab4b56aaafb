"""Axes, tiled images and colors, shared by the plots."""

from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from kvae import arguments

CATEGORIES = matplotlib.color_sequences["petroff10"]  # for color-blind readers, visible on white and on black
CONTINUOUS, CYCLIC = "viridis", "twilight_shifted"


def check_axes(ax: Axes | None) -> None:
    """Raise TypeError unless ax is a matplotlib Axes or None."""
    if ax is not None:
        arguments.instance("ax", ax, Axes, "matplotlib Axes, such as plt.subplots()[1], or None")


def check_model(model: Any, *methods: str) -> None:
    """Raise TypeError unless the model is an object with these methods."""
    missing = [method for method in methods if not hasattr(model, method)]
    if missing or isinstance(model, type):
        found = f"the class {model.__name__}" if isinstance(model, type) else repr(model)
        raise TypeError(f"model is {found}; expected a fitted model of kvae, with {' and '.join(methods)}.")


def axes(ax: Axes | None, width: float, height: float, layout: str = "constrained") -> Axes:
    """Return ax, or the Axes of a new figure of width x height inches."""
    return plt.subplots(figsize=(width, height), layout=layout)[1] if ax is None else ax


def show_tiles(
    ax: Axes | None,
    images: ArrayLike,
    columns: int,
    gap: int = 1,
    inches: float = 0.75,
    left: float = 1.0,
    above_below: float = 0.45,
) -> Axes:
    """Draw images as one picture of tiles, row by row. The tile in row r and column c is centred on the point (c, r).

    Args:
        ax: Axes to draw in. None makes a new figure.
        images: (n, height, width) or (n, height, width, 1 or 3), values in [0, 1]. Other values are clipped.
        columns: tiles per row.
        gap: pixels of background around each tile.
        inches: width of a tile in a new figure.
        left: inches for labels to the left in a new figure.
        above_below: inches for labels above and below in a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for arrays of another shape.

    Example:
        >>> ax = show_tiles(None, np.random.default_rng(0).random((6, 8, 8)), columns=3)
        >>> ax.get_xlim()
        (np.float64(-0.5), np.float64(2.5))
    """
    images = np.asarray(images, np.float32)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"Examples of shape {images.shape[1:]} can't be drawn as images; expected (height, width), "
            "(height, width, 1) or (height, width, 3)."
        )
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    if channels == 3:
        images = np.concatenate([np.clip(images, 0, 1), np.ones((n, height, width, 1), np.float32)], axis=-1)
    empty = np.nan if channels == 1 else 0.0
    tiles = np.full((rows * columns, height + 2 * gap, width + 2 * gap, images.shape[-1]), empty, np.float32)
    tiles[:n, gap : gap + height, gap : gap + width] = images
    board = tiles.reshape(rows, columns, *tiles.shape[1:]).swapaxes(1, 2)
    board = board.reshape(rows * tiles.shape[1], columns * tiles.shape[2], -1)
    inches = min(inches, 8 / columns, 10 / rows)
    ax = axes(ax, max(columns * inches, 3.5) + left, rows * inches * height / width + above_below, "compressed")
    ax.imshow(
        board[..., 0] if channels == 1 else board,
        cmap="gray",
        vmin=0,
        vmax=1,
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        aspect=tiles.shape[1] / tiles.shape[2],
    )
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def number(value: float) -> str:
    """The text of a tick, with a proper minus sign."""
    return f"{value:.3g}".replace("-", "−")
