"""Charts of numbers: training curves, reconstruction errors, a matrix of values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from kvae.arguments import array, integer_at_least, real
from kvae.plots.canvas import CATEGORIES, CONTINUOUS, axes, check_axes, number

_STYLES = {
    "loss": ("loss", CATEGORIES[0]),
    "reconstruction_loss": ("reconstruction, −E[log p(x|z)]", CATEGORIES[6]),
    "kl_loss": ("KL(q(z|x) ‖ p(z))", CATEGORIES[5]),
}


def history(history: Any, ax: Axes | None = None) -> Axes:
    """Training curves against epochs: the loss and, for a VAE, the two terms, with the KL in a panel below.

    Args:
        history: the result of `fit` of a VAE or an autoencoder, or its dict of lists.
        ax: Axes to draw in. Its lower third becomes the panel of the KL. None makes a new figure.

    Returns:
        the (upper) Axes.

    Raises:
        ValueError: for a history without losses.

    Example:
        >>> ax = history({"loss": [3.0, 2.0, 1.5], "val_loss": [3.1, 2.2, 1.8]})
        >>> [line.get_label() for line in ax.lines]
        ['loss, training', 'loss, validation']
    """
    check_axes(ax)
    logs = history if isinstance(history, Mapping) else getattr(history, "history", None)
    if not isinstance(logs, Mapping) or not logs.get("loss"):
        raise ValueError(
            f"history is {type(history).__name__} without a loss; expected what fit of a VAE or an "
            "autoencoder returns (PCA is fitted in one pass and has none)."
        )
    epochs = 1 + np.asarray(getattr(history, "epoch", range(len(logs["loss"]))))
    is_vae = "kl_loss" in logs
    ax = axes(ax, 6, 4.8 if is_vae else 3.6)
    panels = [(ax, ["loss", "reconstruction_loss"])]
    if is_vae:
        panels.append((_panel_below(ax), ["kl_loss"]))
    for panel, metrics in panels:
        for metric in metrics:
            _curves(panel, epochs, logs, metric)
        panel.legend(frameon=False)
        panel.set_ylabel("nats per image" if is_vae else "squared error per image")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[-1][0].set_xlabel("epoch")
    ax.set_title("Training: " + ("the loss and the ELBO's two terms" if is_vae else "squared error"))
    return ax


def _curves(ax, epochs, logs, metric):
    if metric not in logs:
        return
    name, color = _STYLES[metric]
    for prefix, style, subset in ("", "-", "training"), ("val_", "--", "validation"):
        values = logs.get(prefix + metric)
        if values:
            every = len(epochs) // len(values)  # validation_freq
            at = epochs[every - 1 :: every][: len(values)]
            ax.plot(at, values, style, color=color, marker="o", ms=3.5, label=f"{name}, {subset}")


def _panel_below(ax):
    """New axes in the lower third of ax, with the same x axis."""
    spec = ax.get_subplotspec()
    if spec is None:
        raise ValueError("ax was not made by plt.subplots or add_subplot, so that it can't be split in two panels.")
    upper, lower = spec.subgridspec(2, 1, height_ratios=[2, 1])
    ax.set_subplotspec(upper)
    ax.tick_params(labelbottom=False)
    return ax.figure.add_subplot(lower, sharex=ax)


def comparison(errors: Mapping[str, Any], latent_dim: int | None = None, ax: Axes | None = None) -> Axes:
    """Bars of the models' squared reconstruction errors, with their change from the first model's.

    Args:
        errors: {name: squared error}, summed over an image: a number, a dict with the key "squared_error", or an
            array (n,) of each image's. An array adds a line for the 95 % interval of its mean.
        latent_dim: of all models, for the title.
        ax: Axes to draw in. None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for no errors, and values that aren't finite and non-negative.

    Example:
        >>> ax = comparison({"PCA": 20.0, "VAE": 15.0}, latent_dim=10)
        >>> [text.get_text() for text in ax.texts]
        ['20.00', '15.00  (−25 % vs PCA)']
    """
    check_axes(ax)
    if latent_dim is not None:
        integer_at_least("latent_dim", latent_dim, 1)
    if not isinstance(errors, Mapping):
        raise TypeError(f"errors is {errors!r}; expected {{name: squared error per image}}.")
    means, intervals = [], []
    for name, value in errors.items():
        value = np.asarray(value["squared_error"] if isinstance(value, Mapping) else value, np.float64).ravel()
        if not len(value) or not np.isfinite(value).all() or (value < 0).any():
            raise ValueError(f"errors[{name!r}] is {value}; expected finite squared errors of at least 0.")
        means.append(value.mean())
        intervals.append(1.96 * value.std(ddof=1) / np.sqrt(len(value)) if len(value) > 1 else 0.0)
    if not means:
        raise ValueError("errors is empty; expected {name: squared error per image}.")

    ax = axes(ax, 6, 1.4 + 0.5 * len(means))
    rows = range(len(means))
    text = ax.xaxis.label.get_color()
    bars = ax.barh(rows, means, 0.6, color=CATEGORIES[0], xerr=intervals if any(intervals) else None, ecolor=text)
    ax.bar_label(bars, _with_changes(means, next(iter(errors))), padding=5)
    ax.set_yticks(rows, list(errors))
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.margins(x=0.35)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel("squared error per image (less is better)" + ("; line: 95 % interval" if any(intervals) else ""))
    ax.set_title("Reconstructions (means)" + (f" from {latent_dim} latents" if latent_dim else ""))
    return ax


def _with_changes(means, first):
    """Each mean as text, with its change from the first."""
    changes = [f"{100 * (mean / means[0] - 1):+.0f} %".replace("-", "−") for mean in means[1:] if means[0]]
    return [f"{means[0]:.2f}"] + [
        f"{mean:.2f}" + (f"  ({changes[i]} vs {first})" if changes else "") for i, mean in enumerate(means[1:])
    ]


def matrix(
    values: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    label: str | None = None,
    largest: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A matrix of non-negative values as cells, each with its color and its value.

    Args:
        values: array (rows, columns), such as each latent's KL in each model.
        rows: names of the rows, from above.
        columns: names of the columns, from the left.
        label: of the color bar, with the unit of the values. None draws no bar.
        largest: value of the last color. None takes the largest of the values.
        ax: Axes to draw in. None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for values of another shape than the names', not finite or negative.

    Example:
        >>> ax = matrix([[0.0, 1.5]], rows=["VAE"], columns=["z0", "z1"], label="KL, nats")
        >>> [text.get_text() for text in ax.texts]
        ['0', '1.5']
    """
    check_axes(ax)
    for name, names in (("rows", rows), ("columns", columns)):
        if isinstance(names, str) or not isinstance(names, Sequence | np.ndarray):
            raise TypeError(f"{name} is {names!r}; expected a sequence of names.")
    if not isinstance(label, str | None):
        raise TypeError(f"label is {label!r}; expected a text, or None.")
    if largest is not None and real("largest", largest) <= 0:
        raise ValueError(f"largest is {largest!r}; expected a positive number.")
    values = array("values", values).astype(np.float64)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(
            f"values have the shape {values.shape}; expected ({len(rows)}, {len(columns)}), one for each name."
        )
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(
            f"values are from {values.min():g} to {values.max():g}; expected finite numbers of at least 0."
        )
    ax = axes(ax, 2.2 + 0.6 * len(columns), 1.1 + 0.42 * len(rows))
    highest = float(values.max()) or 1.0 if largest is None else largest
    picture = ax.imshow(values, cmap=CONTINUOUS, vmin=0, vmax=highest, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        color = "black" if value > 0.6 * highest else "white"  # viridis is dark below
        ax.text(column, row, number(round(value, 2)), ha="center", va="center", color=color)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if label is not None:
        ax.figure.colorbar(picture, ax=ax, label=label).outline.set_visible(False)
    return ax


def disentanglement(result: Any, ax: Axes | None = None) -> Axes:
    """Every factor against every latent: the mutual information as a share of the factor's entropy.

    Inactive latents are gray.

    Args:
        result: a `kvae.evaluation.Disentanglement`.
        ax: Axes to draw in. None makes a new figure.

    Returns:
        the Axes.

    Raises:
        TypeError: for other results.
    """
    check_axes(ax)
    if not hasattr(result, "information") or not hasattr(result, "factors"):
        raise TypeError(f"result is {result!r}; expected what kvae.evaluation.disentanglement returns.")
    names = [f"z{latent}" for latent in range(len(result.active))]
    ax = matrix(
        result.information, list(result.factors), names, label="share of the factor's entropy", largest=1, ax=ax
    )
    for latent in np.flatnonzero(~np.asarray(result.active)).tolist():
        ax.axvspan(latent - 0.5, latent + 0.5, color="0.75", lw=0)
        for text in [text for text in ax.texts if text.get_position()[0] == latent]:
            text.remove()
        ax.text(latent, (len(result.factors) - 1) / 2, "inactive", rotation=90, ha="center", va="center", color="0.3")
    ax.set_title("What each latent tells of each factor")
    return ax
