"""Numbers as a table of HTML, for notebooks."""

import html

import numpy as np


def table(rows):
    """Rows of (what, its value, what that is), of which the last may be left out; everything is escaped."""
    lines = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows)
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def latents_table(columns):
    """A row a latent of the columns {name: values (latent_dim,)}."""
    rows = [("latent", *columns)]
    rows += [(f"z{latent}", *map(_short, values)) for latent, values in enumerate(zip(*columns.values(), strict=True))]
    return table(rows)


def _short(value):
    return f"{value:.3f}" if isinstance(value, np.floating) else str(value)
