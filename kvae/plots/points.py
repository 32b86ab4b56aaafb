"""Codes as points, colored by the labels of their images."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.patches
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from numpy.typing import ArrayLike

from kvae.arguments import integer_at_least
from kvae.plots.canvas import CATEGORIES, CONTINUOUS, CYCLIC, axes
from kvae.plots.codes import EXAMPLES, first_examples, prior_of_codes, usage


def latents(
    model: Any,
    x: Any,
    labels: str | ArrayLike | None = None,
    *,
    dims: Sequence[int] | None = None,
    count: int = 2000,
    names: Sequence[str] | Mapping[Any, str] | None = None,
    period: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Two latents of the codes (posterior means; PCA's scores) as points, colored by a label or a continuous factor.

    Args:
        model: a model with `transform`.
        x: a stream or an array of images, with or without labels.
        labels: None takes the labels in x; a string names a label in its dict; an array (n,) goes with an array x.
            Floats, and integers of more than ten values, are a continuous factor.
        dims: the two latents. None takes the two most used (see `traversals`).
        count: number of examples.
        names: of the categories, indexed by their values.
        period: of a periodic factor, such as 2 pi for an angle. The colors repeat with it.
        ax: Axes to draw in. None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for fewer than two latents, and for unknown latents, labels or names.
    """
    integer_at_least("count", count, 1)
    title = labels if isinstance(labels, str) else "label"
    x, y = first_examples(x, count, labels)
    if y is not None and y.shape != (len(x),):
        raise ValueError(f"labels have the shape {y.shape}; expected one value an example, ({len(x)},).")
    codes = model.transform(x)
    used, latent_names = usage(model, x[:EXAMPLES], codes)
    pair = np.sort(np.argsort(-used, kind="stable")[:2]).tolist() if dims is None else list(dims)
    if len(pair) != 2 or not all(0 <= dim < len(used) for dim in pair):
        raise ValueError(f"dims are {pair}; expected two of the {len(used)} latents, counted from 0.")

    ax = axes(ax, 6, 4.8)
    points, prior = codes[:, pair], prior_of_codes(model)
    if y is None:
        _points(ax, points, facecolors=[CATEGORIES[0]])
    elif period is not None or y.dtype.kind == "f" or len(np.unique(y)) > len(CATEGORIES):
        _by_factor(ax, points, y, title, period)
    else:
        _by_category(ax, points, y, title, names)
    if prior:
        _prior_outline(ax, *(values[pair] for values in prior))
    ax.set(xlabel=latent_names[pair[0]], ylabel=latent_names[pair[1]])
    ax.set_title(f"Codes of {len(x)} images (means)")
    return ax


def _points(ax, points, **style):
    # The outline sets off colors that are close to the background's.
    outline = {"linewidths": 0.25, "edgecolors": ax.xaxis.label.get_color()}
    return ax.scatter(*points.T, s=16, rasterized=True, **outline, **style)


def _by_factor(ax, points, y, title, period):
    limits = {"cmap": CONTINUOUS} if period is None else {"cmap": CYCLIC, "vmin": 0, "vmax": period}
    drawn = _points(ax, points, c=y if period is None else y % period, **limits)
    ax.figure.colorbar(drawn, ax=ax, label=title).outline.set_visible(False)


def _by_category(ax, points, y, title, names):
    values, indices = np.unique(y, return_inverse=True)
    try:
        texts = [str(value if names is None else names[value]) for value in values]
    except (IndexError, KeyError, TypeError):
        raise ValueError(f"names are {names}; expected one for each label, which are {list(values)}.") from None
    # All at once, in the order of the data: drawn in turn, the last category would hide the others.
    drawn = _points(ax, points, c=indices, cmap=ListedColormap(CATEGORIES), vmin=0, vmax=len(CATEGORIES) - 1)
    handles, _ = drawn.legend_elements(num=None)
    ax.legend(handles, texts, title=title, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _prior_outline(ax, centre, scale):
    """The ellipse with 95 % of a normal prior in the plane."""
    radii = np.sqrt(-2 * np.log(0.05)) * scale
    color = ax.xaxis.label.get_color()
    ax.add_patch(matplotlib.patches.Ellipse(centre, *(2 * radii), fill=False, ls="--", ec=color))
    box = {"fc": ax.get_facecolor(), "ec": "none", "alpha": 0.7, "pad": 1}
    ax.text(centre[0], centre[1] + radii[1], "95 % of p(z)", ha="center", va="center", bbox=box)
    shared = max(len(axis.get_siblings(ax)) for axis in (ax.get_shared_x_axes(), ax.get_shared_y_axes())) > 1
    ax.set_aspect("equal", adjustable="box" if shared else "datalim")  # matplotlib allows no other for shared axes
