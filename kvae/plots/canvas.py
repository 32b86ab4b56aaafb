"""What the plots are drawn with: axes, tiled images, colours."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

CATEGORIES = matplotlib.color_sequences["petroff10"]  # for colour-blind readers, visible on white and on black
CONTINUOUS, CYCLIC = "viridis", "twilight_shifted"


def axes(ax, width, height, layout="constrained"):
    """ax, or the Axes of a new figure of so many inches."""
    return plt.subplots(figsize=(width, height), layout=layout)[1] if ax is None else ax


def show_tiles(ax, images, columns, gap=1, inches=0.75, left=1.0, above_below=0.45):
    """Draw images (n, height, width) or (n, height, width, 1 or 3), values in [0, 1], row by row as one picture.

    The tile in row r and column c is centred on the point (c, r). Values beyond [0, 1] are clipped, grey ones by
    the colour map's limits. gap: pixels around each tile that let the background through. inches: the width of a
    tile, and left, above_below: the room for labels, where ax is None. Returns the Axes.
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


def number(value):
    """A tick's text, with a real minus."""
    return f"{value:.3g}".replace("-", "−")
