"""A table of numbers as colours."""

import numpy as np

from kvae.plots.canvas import CONTINUOUS, axes, number


def matrix(values, rows, columns, *, label=None, largest=None, ax=None):
    """Numbers (rows, columns) of at least 0 as cells, each with its colour, from 0 up, and its value.

    Args:
        values: array (rows, columns), such as how well each latent tells each factor, or each latent's KL.
        rows: names from above.
        columns: names from the left.
        label: what the numbers are, with their unit, for the colour bar; None draws no bar.
        largest: the number of the last colour; None takes the largest of the values.
        ax: Axes to draw in; None makes a new figure.

    Returns:
        the Axes.

    Raises:
        ValueError: for numbers of another shape than the names', not finite or negative.
    """
    values = np.asarray(values, np.float64)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(
            f"values have the shape {values.shape}; expected ({len(rows)}, {len(columns)}), one for each name."
        )
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(
            f"values are from {values.min():g} to {values.max():g}; expected finite numbers of at least 0."
        )
    ax = axes(ax, 2.2 + 0.6 * len(columns), 1.1 + 0.42 * len(rows))
    largest = float(values.max()) or 1.0 if largest is None else largest
    picture = ax.imshow(values, cmap=CONTINUOUS, vmin=0, vmax=largest, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value > 0.6 * largest else "white"  # viridis is dark below
        ax.text(column, row, number(round(value, 2)), ha="center", va="center", color=colour)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if label is not None:
        ax.figure.colorbar(picture, ax=ax, label=label).outline.set_visible(False)
    return ax
