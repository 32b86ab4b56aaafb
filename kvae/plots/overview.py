"""One figure of several models: what they reconstruct, what they make, what a latent moves."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from kvae import arguments
from kvae.plots.canvas import show_tiles
from kvae.plots.pictures import reconstructions, traversals

_COLUMNS, _TILE = 8, 0.62  # tiles in a row of a panel, and their inches


def overview(
    models: Mapping[str, Any], x: Any, samples: Mapping[str, ArrayLike], names: Mapping[int, str] | None = None
) -> Figure:
    """Four panels: reconstructions of each model, a traversal of the last one, and samples of two sources.

    Args:
        models: {label: model}, each with `reconstruct`; the last one is a VAE. A label may have a number in it.
        x: a stream or an array of images, as the models take it.
        samples: {title: images (n, height, width, channels)}, of two sources. The first 24 images are drawn.
        names: {latent: name}, the rows of the traversal; see `traversals`. None draws the five latents used most.

    Returns:
        the Figure.

    Raises:
        TypeError: if `models` or `samples` is no dict.
        ValueError: for other than two sources of samples.

    Example:
        >>> x = np.random.default_rng(0).random((20, 8, 8, 1))
        >>> networks = kvae.networks.dense_encoder((8, 8, 1), 2), kvae.networks.dense_decoder((8, 8, 1), 2)
        >>> vae = kvae.VAE(*networks)
        >>> figure = overview({"VAE": vae}, x, {"data": x, "VAE": vae.sample(24)})
        >>> len(figure.axes)
        4
    """
    arguments.instance("models", models, Mapping, "a dict {label: model}")
    arguments.instance("samples", samples, Mapping, "a dict {title: images}")
    if len(samples) != 2:
        raise ValueError(f"samples has {len(samples)} sources; expected 2, {{title: images}}.")
    *_, vae = models.values()
    rows = max(1 + len(models), len(names) if names else 5)
    height = (rows + 3) * _TILE + 1.6
    figure = plt.figure(figsize=(2 * (_COLUMNS * _TILE + 1.3), height), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[rows + 0.7, 3.4])
    left, right = (figure.add_subplot(grid[0, column]) for column in range(2))
    reconstructions(models, x, _COLUMNS, ax=left).set_title("Images never seen, and what comes back from their codes")
    traversals(vae, x, steps=_COLUMNS, span=2.5, count=rows, names=names, ax=right)
    right.set_title("VAE: one latent of an image moved at a time")
    right.set(xticks=[], xlabel="")
    for column, (title, images) in enumerate(samples.items()):
        ax = show_tiles(figure.add_subplot(grid[1, column]), np.asarray(images)[: 3 * _COLUMNS], _COLUMNS)
        ax.set_title(title)
    return figure
