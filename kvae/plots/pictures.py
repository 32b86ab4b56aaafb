"""Images from a model: reconstructions, samples, and decoded codes."""

import math
from collections.abc import Mapping
from typing import Any

import matplotlib.patches
import numpy as np
from keras import ops
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.special import ndtri

from kvae import arguments
from kvae.arguments import boolean, integer_at_least, real
from kvae.arguments import seed as checked_seed
from kvae.data import elements
from kvae.plots.canvas import CATEGORIES, check_axes, check_model, number, show_tiles
from kvae.plots.codes import EXAMPLES, first_examples, prior_of_codes, usage

_MARGIN = 0.1  # of a map beyond the outermost codes, as a share of their range


def reconstructions(model: Any, x: Any, count: int = 8, ax: Axes | None = None) -> Axes:
    """The first images of x in a row, above the model's reconstructions (means).

    Args:
        model: a model with `reconstruct`, or a dict {name: model} with a row for each.
        x: a stream or an array of images, as the models take it.
        count: number of images.
        ax: Axes to draw in. None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for a count below 1, an empty x, and examples that aren't images.

    Example:
        >>> x = np.random.default_rng(0).random((20, 8, 8))
        >>> ax = reconstructions({"PCA": kvae.PCA(2).fit(x, verbose=0)}, x)
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['original', 'PCA']
    """
    check_axes(ax)
    integer_at_least("count", count, 1)
    models = model if isinstance(model, Mapping) else {"reconstruction": model}
    for each in models.values():
        check_model(each, "reconstruct")
    x, _ = first_examples(x, count)
    rows = [ops.convert_to_numpy(elements.scale(x)), *(each.reconstruct(x) for each in models.values())]
    ax = show_tiles(ax, np.concatenate(rows), columns=len(x))
    ax.set_yticks(range(len(rows)), ["original", *models])
    ax.set_title("Reconstructions (means)")
    return ax


def samples(model: Any, count: int = 64, seed: int | None = 0, noise: bool = False, ax: Axes | None = None) -> Axes:
    """A grid of images from the prior through the decoder: z ~ p(z), then the mean of p(x|z).

    Args:
        model: a model with `sample`, such as a VAE or PCA.
        count: number of images.
        seed: an int gives the same images each time; None continues the model's own generator.
        noise: whether to draw x ~ p(x|z) instead of its mean.
        ax: Axes to draw in. None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for a model without a density and a count below 1.
    """
    check_axes(ax)
    integer_at_least("count", count, 1)
    boolean("noise", noise)
    seed = checked_seed(seed)
    check_model(model)
    if not hasattr(model, "sample"):
        raise ValueError(
            f"{type(model).__name__} has no prior to sample from; give a VAE or PCA, or draw "
            "kvae.plots.manifold for an autoencoder of two latents."
        )
    images = model.sample(count, noise=noise, seed=seed)
    ax = show_tiles(ax, images, math.ceil(math.sqrt(count)), inches=0.6, left=0.2)
    ax.set_title("Samples: z ~ p(z), then " + ("x ~ p(x|z)" if noise else "the mean of p(x|z)"))
    return ax


def traversals(
    model: Any,
    x: Any,
    *,
    index: int = 0,
    count: int = 10,
    span: float = 3.0,
    steps: int = 7,
    names: Mapping[int, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """One row per latent: the code of one image with this latent moved and the others kept, decoded (means).

    Without names, the most used latents come first: by KL(q(z|x) || p(z)), averaged over x, or, if the model has none,
    by the standard deviation of the codes. A latent goes from -span to span standard deviations about its mean: the
    prior's for a VAE with a normal prior, otherwise the codes' (PCA's are scores). A frame marks the step nearest to
    the image's own code.

    Args:
        model: a model with `transform` and `inverse_transform`.
        x: a stream or an array of images. Its first 512 are read.
        index: of the image, counted from 0.
        count: the most rows.
        span: the largest distance from the mean, in standard deviations.
        steps: number of columns.
        names: {latent: name}, the rows and their labels, such as {3: "hue"}. None labels the most used latents.
        ax: Axes to draw in. None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for a count or steps too small, a span that isn't positive, an index beyond these images, and names
            of latents that the model hasn't.
    """
    check_axes(ax)
    check_model(model, "transform", "inverse_transform")
    integer_at_least("count", count, 1)
    integer_at_least("steps", steps, 2)
    integer_at_least("index", index, 0)
    if real("span", span) <= 0:
        raise ValueError(f"span is {span!r}; expected a positive number of standard deviations.")
    x, _ = first_examples(x, EXAMPLES)
    if not 0 <= index < len(x):
        raise ValueError(f"index is {index}; expected 0 to {len(x) - 1}, one of the images read.")
    codes = model.transform(x)
    if names is None:
        used, labels = usage(model, x, codes)
        order = np.argsort(-used, kind="stable")[:count]
    else:
        arguments.instance("names", names, Mapping, "{latent: name}")
        if not names or set(names) - set(range(codes.shape[1])):
            raise ValueError(f"names are of the latents {list(names)}; expected some of 0 to {codes.shape[1] - 1}.")
        used, labels, order = codes[0], names, list(names)[:count]
    prior = prior_of_codes(model)
    centre, scale = prior or (codes.mean(axis=0), codes.std(axis=0))
    values = np.linspace(-span, span, steps)
    moved = np.tile(codes[index], (len(order), steps, 1))
    for row, latent in enumerate(order):
        moved[row, :, latent] = centre[latent] + scale[latent] * values
    images = model.inverse_transform(moved.reshape(-1, codes.shape[1]))

    ax = show_tiles(ax, images, steps, left=1.4, above_below=1.1)
    for row, latent in enumerate(order):
        nearest = np.abs(moved[row, :, latent] - codes[index, latent]).argmin()
        corner = (nearest - 0.5, row - 0.5)
        ax.add_patch(matplotlib.patches.Rectangle(corner, 1, 1, fill=False, ec=CATEGORIES[1], lw=2, clip_on=False))
    ax.set_yticks(range(len(order)), [labels[latent] for latent in order])
    ax.set_xticks(range(steps), [number(value) for value in values])
    ax.set_xlabel(f"the latent's value, in standard deviations of {'the prior' if prior else 'the codes'}")
    some = f"{len(order)} of {len(used)} latents" if names else f"the {len(order)} latents used most, of {len(used)}"
    rows = some if len(order) < len(used) else "one latent a row"
    ax.set_title(f"Traversals (means): {rows}\nframe: nearest to the image's own code")
    return ax


def _mark_axes(ax, across, up):
    """Ticks at round numbers beside a board of tiles, with the latents' values of its columns and of its rows."""
    for set_ticks, values, tiles in (
        (ax.set_xticks, across, np.arange(len(across))),
        (ax.set_yticks, up, np.arange(len(up))[::-1]),  # rows are counted from the top
    ):
        ticks = [tick for tick in MaxNLocator(5).tick_values(*values[[0, -1]]) if values[0] <= tick <= values[-1]]
        set_ticks(np.interp(ticks, values, tiles), [number(tick) for tick in ticks])
    ax.set(xlabel="z0", ylabel="z1")


def manifold(model: Any, x: Any = None, *, size: int = 15, ax: Axes | None = None) -> Axes:
    """Decoded means over the plane of two latents, at equal steps of probability.

    The grid's values are the quantiles (i + 1/2) / size: of the prior for a VAE, of x's codes for an autoencoder and
    for PCA (its codes are scores).

    Args:
        model: a model of latent_dim 2, with `transform` and `inverse_transform`.
        x: a stream or an array of images. Its first 512 are read. A VAE doesn't need it.
        size: images per side.
        ax: Axes to draw in. None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for another latent_dim, and without x if the codes have no prior.
    """
    check_axes(ax)
    check_model(model, "transform", "inverse_transform")
    integer_at_least("size", size, 2)
    if model.latent_dim != 2:
        raise ValueError(f"The model has latent_dim {model.latent_dim}; a manifold is drawn for 2 latents.")
    shares, prior = (np.arange(size) + 0.5) / size, prior_of_codes(model)
    if prior:
        values = prior[0] + prior[1] * ndtri(shares)[:, None]
    elif x is not None:
        values = np.quantile(model.transform(first_examples(x, EXAMPLES)[0]), shares, axis=0)
    else:
        raise ValueError(f"The codes of {type(model).__name__} have no prior: give x, whose codes set the range.")
    z = np.stack(np.meshgrid(values[:, 0], values[::-1, 1]), axis=-1).reshape(-1, 2)

    ax = show_tiles(ax, model.inverse_transform(z), size, gap=0, inches=0.5, left=0.7, above_below=1.1)
    _mark_axes(ax, *values.T)
    ax.set_title(f"The plane of codes, decoded (means)\nat quantiles of {'the prior' if prior else 'the codes'}")
    return ax


def code_map(model: Any, x: Any, *, size: int = 15, count: int = 2000, ax: Axes | None = None) -> Axes:
    """Decoded means on an even grid over the plane of two latents, and x's codes upon it as dots.

    `manifold` takes equal steps of probability, `code_map` equal steps of the latents: a hole has its true size.

    Args:
        model: a model of latent_dim 2, with `transform` and `inverse_transform`.
        x: a stream or an array of images. Its codes also set the range: a tenth beyond the outermost.
        size: images per side.
        count: number of examples to read.
        ax: Axes to draw in. None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for another latent_dim, and a too small count or size.
    """
    check_axes(ax)
    check_model(model, "transform", "inverse_transform")
    integer_at_least("size", size, 2)
    integer_at_least("count", count, 1)
    if model.latent_dim != 2:
        raise ValueError(f"The model has latent_dim {model.latent_dim}; a map is drawn for 2 latents.")
    codes = model.transform(first_examples(x, count)[0])
    low, high = codes.min(axis=0), codes.max(axis=0)
    across, up = np.linspace(low - _MARGIN * (high - low), high + _MARGIN * (high - low), size).T
    z = np.stack(np.meshgrid(across, up[::-1]), axis=-1).reshape(-1, 2).astype(codes.dtype)
    ax = show_tiles(ax, model.inverse_transform(z), size, gap=0, inches=0.4, left=0.7, above_below=1.1)
    # A tile is a step wide and centred on its code; rows are counted from the top.
    column = np.interp(codes[:, 0], across, np.arange(size))
    row = np.interp(codes[:, 1], up, np.arange(size)[::-1])
    ax.scatter(column, row, s=9, color=CATEGORIES[1], edgecolors="black", linewidths=0.25, rasterized=True)
    _mark_axes(ax, across, up)
    ax.set_title(f"The plane of codes, decoded (means)\ndots: the codes of {len(codes)} images")
    return ax
