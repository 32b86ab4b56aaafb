"""Numbers as a table of HTML, for notebooks."""

import html

import numpy as np


def table(rows):
    """Rows of (what, its value, what that is), of which the last may be left out; everything is escaped."""
    lines = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows)
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def aligned(rows):
    """Rows of strings as lines of text: the first column and the last to the left, those between to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    align = "<" + ">" * (len(widths) - 2) + "<"
    return ["  ".join(map("{:{}{}}".format, row, align, widths)).rstrip() for row in rows]


def latents_table(columns):
    """`latents_rows` as a table."""
    return table(latents_rows(columns))


def latents_rows(columns, by=None):
    """A line of names, then a row a latent of {name: values (latent_dim,), or None, which are left out}, strings.

    by: the column of which the largest comes first; None for the latents' own order.
    """
    columns = {name: values for name, values in columns.items() if values is not None}
    order = range(len(next(iter(columns.values())))) if by is None else np.argsort(-columns[by], kind="stable")
    return [("latent", *columns), *((f"z{at}", *(_short(values[at]) for values in columns.values())) for at in order)]


def _short(value):
    if isinstance(value, np.bool_):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, np.floating) else str(value)
