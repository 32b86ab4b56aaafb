"""The codes of a model: those of the first examples, how much each latent is used, and both as a plot of points."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.patches
import numpy as np
from keras import ops
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from numpy.typing import ArrayLike

from kvae.arguments import integer_at_least, is_integer, real
from kvae.data import arrays, elements
from kvae.data.validation import validate_dtype, validate_values
from kvae.plots.canvas import CATEGORIES, CONTINUOUS, CYCLIC, axes, check_axes, check_model

EXAMPLES = 512
RING = np.sqrt(-2 * np.log(0.05))  # standard deviations: the circle with 95 % of a normal distribution in a plane


def first_examples(
    data: Any, count: int, labels: str | ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """(x, y) of the first `count` examples, from as few batches as possible.

    Args:
        data: a stream or arrays.
        count: number of examples.
        labels: None takes the stream's own labels; a string names a label in its dict; an array goes with an array x.

    Returns:
        two arrays. y is None if there are no labels.

    Raises:
        ValueError: for empty data, and for unknown labels.

    Example:
        >>> x, y = first_examples((np.zeros((9, 4)), np.arange(9)), 3)
        >>> x.shape, y
        ((3, 4), array([0, 1, 2]))
    """
    if labels is not None and not isinstance(labels, str):
        if hasattr(data, "element_spec"):
            raise ValueError(
                "labels is an array and x a stream, whose order may change from pass to pass; give a "
                "stream of (x, label), or the name of a label in its dict."
            )
        try:
            labels = np.asarray(labels)
        except ValueError:
            raise ValueError(f"labels is a ragged {type(labels).__name__}; expected one value an example.") from None
        data, labels = (elements.unpack(data)[0], labels), None
    xs, ys, seen = [], [], 0
    size = min(count, elements.BATCH_SIZE)
    stream = arrays.batches(data, size)
    if not hasattr(data, "element_spec"):
        stream = stream.take(-(-count // size))  # otherwise tf.data reads ahead
    for element in stream:
        x, y, _ = elements.unpack(element)
        validate_dtype(x.dtype, "x")
        validate_values(np.asarray(x), None, "x")
        y = _named(element, labels) if labels is not None else y
        xs.append(np.asarray(x))
        ys.append(None if y is None or isinstance(y, Mapping) else np.asarray(y))
        seen += len(xs[-1])
        if seen >= count:
            break
    if not seen:
        raise ValueError("x is empty: there is nothing to draw.")
    return np.concatenate(xs)[:count], None if ys[0] is None else np.concatenate(ys)[:count]


def _named(element, name):
    members = element if isinstance(element, tuple | list) else (element,)
    dicts = [member for member in members if isinstance(member, Mapping)]
    for member in dicts:
        if name in member:
            return member[name]
    names = sorted(key for member in dicts for key in member)
    raise ValueError(f"labels is {name!r}, which x doesn't have; its names are {names}.")


def usage(model: Any, x: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """How much the model uses each latent, (latent_dim,), and a label for each.

    It is KL(q(z|x) || p(z)) if the model has one per latent, otherwise the standard deviation of the codes.
    """
    used = _kl(model, x)
    if used is not None and used.shape == codes.shape[1:]:
        texts = [f"KL {value:.2f} nats" for value in used]
    else:
        used = codes.std(axis=0)
        texts = [f"sd {value:.3g}" for value in used]
    return used, [f"z{latent}   {text}" for latent, text in enumerate(texts)]


def _kl(model, x) -> np.ndarray | None:
    """The columns of the KL, averaged over x. None if the model has no closed form."""
    if not hasattr(model, "draw"):
        return None
    total: Any = 0.0
    for start in range(0, len(x), elements.BATCH_SIZE):
        block: Any = elements.scale(x[start : start + elements.BATCH_SIZE], model.variable_dtype)
        # Noise by position: a picture must not advance the model's own seed.
        kl = model.draw(block, index=np.arange(start, start + len(block))).kl
        if kl is None:
            return None
        total = total + np.asarray(kl).sum(axis=0)
    return total / len(x)


def check_dims(dims: Any) -> None:
    """Raise ValueError unless dims is a sequence of integers from 0 on, or None."""
    is_sequence = isinstance(dims, Sequence | np.ndarray) and not isinstance(dims, str)
    if dims is not None and not (is_sequence and all(is_integer(dim, 0) for dim in dims)):
        raise ValueError(f"dims are {dims!r}; expected two latents, counted from 0, such as (0, 1).")


def prior_of_codes(model: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """(mean, standard deviation) of a normal prior of the codes, each (latent_dim,). None without one.

    PCA has none: its codes are scores, but `decoder_distribution` takes z.
    """
    if not hasattr(model, "decoder_distribution"):
        return None
    z = ops.ones((1, model.latent_dim), dtype=model.variable_dtype)
    prior = model.prior_distribution()
    if not hasattr(prior, "log_var") or not np.allclose(model.decode(z), model.decoder_distribution(z).mean):
        return None
    return np.asarray(prior.mean)[0], np.exp(0.5 * np.asarray(prior.log_var)[0])


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
    check_axes(ax)
    check_model(model, "transform")
    integer_at_least("count", count, 1)
    check_dims(dims)
    if not isinstance(names, Sequence | Mapping | None):
        raise TypeError(f"names is {names!r}; expected a sequence or a dict of the categories' names.")
    if period is not None and real("period", period) <= 0:
        raise ValueError(f"period is {period!r}; expected a positive number.")
    title = labels if isinstance(labels, str) else "label"
    x, y = first_examples(x, count, labels)
    if y is not None and y.shape != (len(x),):
        raise ValueError(f"labels have the shape {y.shape}; expected one value an example, ({len(x)},).")
    codes = model.transform(x)
    used, latent_names = usage(model, x[:EXAMPLES], codes)
    pair = np.sort(np.argsort(-used, kind="stable")[:2]).tolist() if dims is None else list(dims)
    if len(pair) != 2 or len(set(pair)) != 2 or max(pair) >= len(used):
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
        outline_prior(ax, *(values[pair] for values in prior))
        shared = max(len(axis.get_siblings(ax)) for axis in (ax.get_shared_x_axes(), ax.get_shared_y_axes())) > 1
        ax.set_aspect("equal", adjustable="box" if shared else "datalim")  # no other for shared axes
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


def outline_prior(ax: Axes, center: np.ndarray, scale: np.ndarray) -> None:
    """Draw the ellipse with 95 % of a normal prior in a plane: its mean and standard deviation, each (2,)."""
    radii = RING * scale
    color = ax.xaxis.label.get_color()
    ax.add_patch(matplotlib.patches.Ellipse(tuple(center), *(2 * radii), fill=False, ls="--", ec=color))
    box = {"fc": ax.get_facecolor(), "ec": "none", "alpha": 0.7, "pad": 1}
    text = ax.text(center[0], center[1] + radii[1], "95 % of p(z)", ha="center", va="center", bbox=box)
    text.set_clip_on(True)
