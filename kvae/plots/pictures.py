"""Images that a model gives back, makes up, or decodes from chosen codes."""

import math
from collections.abc import Mapping

import matplotlib.patches
import numpy as np
from keras import ops
from scipy.special import ndtri

from kvae.data import elements
from kvae.plots.canvas import CATEGORIES, number, show_tiles
from kvae.plots.codes import EXAMPLES, check_count, first_examples, prior_of_codes, usage


def reconstructions(model, x, count=8, ax=None):
    """The first images of x in a row, and below them the model's reconstructions (means).

    Args:
        model: a model with `reconstruct`, or a dict {name: model} for a row each.
        x: a stream or an array of images, as the models take it.
        count: images.
        ax: Axes to draw in; None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for a count below 1, an empty x, and examples that aren't images.
    """
    check_count("count", count)
    models = model if isinstance(model, Mapping) else {"reconstruction": model}
    x, _ = first_examples(x, count)
    rows = [ops.convert_to_numpy(elements.scale(x)), *(each.reconstruct(x) for each in models.values())]
    ax = show_tiles(ax, np.concatenate(rows), columns=len(x))
    ax.set_yticks(range(len(rows)), ["original", *models])
    ax.set_title("Reconstructions (means)")
    return ax


def samples(model, count=64, seed=0, noise=False, ax=None):
    """A grid of images from the prior through the decoder: z ~ p(z), then the mean of p(x|z).

    Args:
        model: a model with `sample`, such as a VAE or PCA.
        count: images.
        seed: int for the same images each time; None goes on with the model's own generator.
        noise: bool, x ~ p(x|z) in place of its mean.
        ax: Axes to draw in; None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for a model without a density and a count below 1.
    """
    check_count("count", count)
    if not hasattr(model, "sample"):
        raise ValueError(
            f"{type(model).__name__} has no prior to sample from; give a VAE or PCA, or draw "
            "kvae.plots.manifold for an autoencoder of two latents."
        )
    images = model.sample(count, noise=noise, seed=seed)
    ax = show_tiles(ax, images, math.ceil(math.sqrt(count)), inches=0.6, left=0.2)
    ax.set_title("Samples: z ~ p(z), then " + ("x ~ p(x|z)" if noise else "the mean of p(x|z)"))
    return ax


def traversals(model, x, *, index=0, count=10, span=3.0, steps=7, ax=None):
    """A row a latent: the code of one image, with that latent moved and the others kept; decoded means.

    The latents used most come first: by KL(q(z|x) || p(z)), averaged over x, where the model has it, and by the
    standard deviation of the codes where it hasn't. They go from -span to span standard deviations about the mean:
    the prior's for a VAE; those of x's codes for an autoencoder, and for PCA, whose codes are scores. A frame marks
    the step nearest to the image's own code.

    Args:
        model: a model with `transform` and `inverse_transform`.
        x: a stream or an array of images, of which the first 512 are read.
        index: which of them is moved.
        count: rows at most.
        span: standard deviations.
        steps: columns.
        ax: Axes to draw in; None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for counts too small, a span that isn't positive, an index beyond the images read.
    """
    check_count("count", count)
    check_count("steps", steps, least=2)
    if not (np.isfinite(span) and span > 0):
        raise ValueError(f"span is {span!r}; expected a positive number of standard deviations.")
    x, _ = first_examples(x, EXAMPLES)
    if not 0 <= index < len(x):
        raise ValueError(f"index is {index}; expected 0 to {len(x) - 1}, one of the images read.")
    codes = model.transform(x)
    used, names = usage(model, x, codes)
    order = np.argsort(-used, kind="stable")[:count]
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
    ax.set_yticks(range(len(order)), [names[latent] for latent in order])
    ax.set_xticks(range(steps), [number(value) for value in values])
    ax.set_xlabel(f"the latent's value, in standard deviations of {'the prior' if prior else 'the codes'}")
    rows = f"the {len(order)} latents used most, of {len(used)}" if len(order) < len(used) else "one latent a row"
    ax.set_title(f"Traversals (means): {rows}\nframe: nearest to the image's own code")
    return ax


def manifold(model, x=None, *, size=15, ax=None):
    """Decoded means over the plane of two latents, at equal steps of probability.

    The grid's values are the quantiles (i + 1/2) / size: the prior's for a VAE; those of x's codes for an
    autoencoder, and for PCA, whose codes are scores.

    Args:
        model: a model of latent_dim 2, with `transform` and `inverse_transform`.
        x: a stream or an array of images, of which the first 512 are read; not needed for a VAE.
        size: images a side.
        ax: Axes to draw in; None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for another latent_dim, and for no x where the codes have no prior.
    """
    check_count("size", size, least=2)
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
    ticks = np.unique(np.linspace(0, size - 1, 5).round().astype(int))
    ax.set_xticks(ticks, [number(values[tick, 0]) for tick in ticks])
    ax.set_yticks(size - 1 - ticks, [number(values[tick, 1]) for tick in ticks])
    ax.set(xlabel="z0", ylabel="z1")
    ax.set_title(f"The plane of codes, decoded (means)\nat quantiles of {'the prior' if prior else 'the codes'}")
    return ax
