"""Which columns of a table a model explains."""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from kvae import html
from kvae.columns import Columns
from kvae.data import elements
from kvae.evaluation import scoring
from kvae.likelihoods import ColumnsLikelihood

_ROWS = 2048  # at once


class ColumnScores(NamedTuple):
    """The result of `column_scores`, an entry a column.

    Attributes:
        columns: `kvae.data.Columns`.
        values: (columns,), the numbers of values.
        log_likelihood: (columns,), means of E_q[log p(x_j|z)] over the rows with a value, in nats.
        error: (columns,), of the decoder's mean at E[z]: root mean squared errors in the unit of the column, and of
            categories the share of rows with another most probable category.
        baseline: (columns,), the errors of the values' mean, and of their most frequent category.
    """

    columns: Columns
    values: np.ndarray
    log_likelihood: np.ndarray
    error: np.ndarray
    baseline: np.ndarray

    def _repr_html_(self) -> str:
        rows: list[tuple[str, ...]] = [("column", "kind", "values", "log p(x|z), nats", "error", "without the model")]
        for number, column in enumerate(self.columns):
            values = (self.log_likelihood, self.error, self.baseline)
            shown = [f"{value[number]:.4g}" for value in values]
            rows.append((column.name, column.kind, f"{self.values[number]:,}", *shown))
        return html.table(rows)

    __repr__ = html.plain_repr(_repr_html_)


def column_scores(model: Any, data: Any, batch_size: int = elements.BATCH_SIZE) -> ColumnScores:
    """How well a model describes each column of a table: log p(x_j|z), and the error of its reconstruction.

    Args:
        model: a VAE with a `kvae.ColumnsLikelihood`.
        data: a stream of batches, or an array (n, columns).
        batch_size: int, of an array.

    Returns:
        A `ColumnScores`, a table in a notebook.

    Raises:
        TypeError: for a model with another likelihood.

    Example:
        >>> data = kvae.data.from_table({"a": [1.0, 2.0, 3.0, 4.0], "b": ["x", "y", "x", "x"]})
        >>> likelihood = kvae.ColumnsLikelihood(data.columns)
        >>> networks = kvae.networks
        >>> encoder, decoder = (f(likelihood, 2) for f in (networks.columns_encoder, networks.columns_decoder))
        >>> scores = kvae.evaluation.column_scores(kvae.VAE(encoder, decoder, likelihood), data)
        >>> scores.baseline.round(3)  # the standard deviation of a, and the share of y
        array([1.118, 0.25 ])
    """
    scoring.check_has_posterior(model)
    if not isinstance(model.likelihood, ColumnsLikelihood):
        found = type(model.likelihood).__name__
        raise TypeError(f"model has a {found}; expected one with a kvae.ColumnsLikelihood.")
    columns = model.likelihood.columns
    is_category = np.array([column.kind == "category" for column in columns])
    totals: Any = np.zeros((5, len(columns)))  # values, log p, errors, x, x^2
    counts = [np.zeros(len(column.categories)) for column in columns]
    for x, index in scoring.chunks(model, data, _ROWS, batch_size, False):
        x = model._scaled(x)
        observed = ops.logical_not(ops.isnan(x))
        filled, z = ops.where(observed, x, 0.0), model.draw(x, index=index).z[:, 0]
        terms = model.decoder_distribution(z).log_prob_by_column(filled, observed)
        mean = model.decoder_distribution(model.encode(x)).at_sizes_of(filled, observed).mean
        x, terms, mean, seen = (np.asarray(part, "float64") for part in (filled, terms, mean, observed))
        centered = x - [column.mean for column in columns]
        error = np.where(is_category, np.rint(mean) != x, np.square(mean - x))
        totals += [(part * seen).sum(0) for part in (np.ones_like(x), terms, error, centered, np.square(centered))]
        for number in np.flatnonzero(is_category):
            codes = x[seen[:, number] > 0, number].astype(int)
            counts[number] += np.bincount(codes, minlength=len(counts[number]))
    values = totals[0].astype(int)
    _, log_likelihood, error, first, second = totals / np.maximum(totals[0], 1)
    most = np.array([count.max(initial=0) for count in counts]) / np.maximum(totals[0], 1)
    error = np.where(is_category, error, np.sqrt(error))
    baseline = np.where(is_category, 1 - most, np.sqrt(np.maximum(second - np.square(first), 0)))
    return ColumnScores(columns, values, log_likelihood, error, baseline)
