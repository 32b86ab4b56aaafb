"""Numbers about models: how training went, and how well each reconstructs."""

from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import MaxNLocator

from kvae.plots.canvas import CATEGORIES, axes

_STYLES = {
    "loss": ("loss", CATEGORIES[0]),
    "reconstruction_loss": ("reconstruction, −E[log p(x|z)]", CATEGORIES[6]),
    "kl_loss": ("KL(q(z|x) ‖ p(z))", CATEGORIES[5]),
}


def history(history, ax=None):
    """Training curves against epochs: the loss, and a VAE's two terms, the KL in a panel of its own below.

    Args:
        history: what `fit` of a VAE or an autoencoder returns, or its dict of lists.
        ax: Axes to draw in, which gives its lower third to the KL; None makes a new figure.

    Returns:
        the (upper) Axes.

    Raises:
        ValueError: for a history without losses.
    """
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
    name, colour = _STYLES[metric]
    for prefix, style, subset in ("", "-", "training"), ("val_", "--", "validation"):
        values = logs.get(prefix + metric)
        if values:
            every = len(epochs) // len(values)  # validation_freq
            at = epochs[every - 1 :: every][: len(values)]
            ax.plot(at, values, style, color=colour, marker="o", ms=3.5, label=f"{name}, {subset}")


def _panel_below(ax):
    """New axes in the lower third of ax's place, with the same x axis."""
    spec = ax.get_subplotspec()
    if spec is None:
        raise ValueError("ax was not made by plt.subplots or add_subplot, so that it can't be split in two panels.")
    upper, lower = spec.subgridspec(2, 1, height_ratios=[2, 1])
    ax.set_subplotspec(upper)
    ax.tick_params(labelbottom=False)
    return ax.figure.add_subplot(lower, sharex=ax)


def comparison(errors, latent_dim=None, ax=None):
    """Bars of the squared error of an image's reconstruction, one a model, with the change from the first.

    Args:
        errors: {name: squared error}, summed over an image: a number, an array (n,) with one of each image, whose
            95 % interval of the mean is drawn, or a dict with the key "squared_error", as `evaluate` gives.
        latent_dim: the size of all their codes, for the title.
        ax: Axes to draw in; None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for no errors, and values that aren't finite and non-negative.
    """
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
    """Each mean as text, with its change from the first one's."""
    changes = [f"{100 * (mean / means[0] - 1):+.0f} %".replace("-", "−") for mean in means[1:] if means[0]]
    return [f"{means[0]:.2f}"] + [
        f"{mean:.2f}" + (f"  ({changes[i]} vs {first})" if changes else "") for i, mean in enumerate(means[1:])
    ]
