"""Codes as points, beside what is known of their images."""

import matplotlib.patches
import numpy as np
from matplotlib.colors import ListedColormap

from kvae.plots.canvas import CATEGORIES, CONTINUOUS, CYCLIC, axes
from kvae.plots.codes import EXAMPLES, check_count, first_examples, prior_of_codes, usage


def latents(model, x, labels=None, *, dims=None, count=2000, names=None, period=None, ax=None):
    """Two of the codes (posterior means; PCA's scores) as points, coloured by a label or a continuous factor.

    Args:
        model: a model with `transform`.
        x: a stream or an array of images, with or without labels.
        labels: None for the labels in x, the name of one in its dict, or an array (n,) beside an array x. Floats,
            and integers of more than ten values, are a continuous factor.
        dims: the two latents; None for the two used most (see `traversals`).
        count: examples.
        names: of the categories: a sequence or a dict that their values index.
        period: of a factor that comes round, such as 2 pi for an angle; its colours come round as well.
        ax: Axes to draw in; None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for fewer than two latents, and for latents, labels or names that aren't there.
    """
    check_count("count", count)
    title = labels if isinstance(labels, str) else "label"
    x, y = first_examples(x, count, labels)
    if y is not None and y.shape != (len(x),):
        raise ValueError(f"labels have the shape {y.shape}; expected one value an example, ({len(x)},).")
    codes = model.transform(x)
    used, latent_names = usage(model, x[:EXAMPLES], codes)
    dims = np.sort(np.argsort(-used, kind="stable")[:2]).tolist() if dims is None else list(dims)
    if len(dims) != 2 or not all(0 <= dim < len(used) for dim in dims):
        raise ValueError(f"dims are {dims}; expected two of the {len(used)} latents, counted from 0.")

    ax = axes(ax, 6, 4.8)
    points, prior = codes[:, dims], prior_of_codes(model)
    if y is None:
        _points(ax, points, facecolors=[CATEGORIES[0]])
    elif period is not None or y.dtype.kind == "f" or len(np.unique(y)) > len(CATEGORIES):
        _by_factor(ax, points, y, title, period)
    else:
        _by_category(ax, points, y, title, names)
    if prior:
        _prior_outline(ax, *(values[dims] for values in prior))
    ax.set(xlabel=latent_names[dims[0]], ylabel=latent_names[dims[1]])
    ax.set_title(f"Codes of {len(x)} images (means)")
    return ax


def _points(ax, points, **style):
    # Outlined, since palettes and colour maps have colours near the background's.
    outline = {"linewidths": 0.25, "edgecolors": ax.xaxis.label.get_color()}
    return ax.scatter(*points.T, s=16, rasterized=True, **outline, **style)


def _by_factor(ax, points, y, title, period):
    limits = {"cmap": CONTINUOUS} if period is None else {"cmap": CYCLIC, "vmin": 0, "vmax": period}
    drawn = _points(ax, points, c=y if period is None else y % period, **limits)
    ax.figure.colorbar(drawn, ax=ax, label=title).outline.set_visible(False)


def _by_category(ax, points, y, title, names):
    values, number = np.unique(y, return_inverse=True)
    try:
        texts = [str(value if names is None else names[value]) for value in values]
    except (IndexError, KeyError, TypeError):
        raise ValueError(f"names are {names}; expected one for each label, which are {list(values)}.") from None
    # All at once, in the order of the data: drawn one after another, the last category would hide the others.
    drawn = _points(ax, points, c=number, cmap=ListedColormap(CATEGORIES), vmin=0, vmax=len(CATEGORIES) - 1)
    handles, _ = drawn.legend_elements(num=None)
    ax.legend(handles, texts, title=title, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _prior_outline(ax, centre, scale):
    """The ellipse that holds 95 % of a normal prior in the plane."""
    radii = np.sqrt(-2 * np.log(0.05)) * scale
    colour = ax.xaxis.label.get_color()
    ax.add_patch(matplotlib.patches.Ellipse(centre, *(2 * radii), fill=False, ls="--", ec=colour))
    box = {"fc": ax.get_facecolor(), "ec": "none", "alpha": 0.7, "pad": 1}
    ax.text(centre[0], centre[1] + radii[1], "95 % of p(z)", ha="center", va="center", bbox=box)
    shared = max(len(axis.get_siblings(ax)) for axis in (ax.get_shared_x_axes(), ax.get_shared_y_axes())) > 1
    ax.set_aspect("equal", adjustable="box" if shared else "datalim")  # as matplotlib wants it
