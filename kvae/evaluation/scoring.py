"""The examples of a stream, some at a time, for measurements; checks of the model."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kvae import arguments
from kvae.data import arrays, elements, errors, progress
from kvae.models.base import LatentModel
from kvae.models.scoring import blocks, examples_at_once, rows_of, scorer, signature

__all__ = [
    "blocks",
    "check_has_posterior",
    "check_has_prior",
    "check_is_model",
    "check_simulates",
    "chunks",
    "examples_at_once",
    "rows_of",
    "scorer",
    "signature",
]


def check_is_model(model: Any, name: str = "model") -> None:
    """Raise TypeError for other things than a model of kvae."""
    arguments.instance(name, model, LatentModel, "a model of kvae, such as a fitted kvae.VAE")


def check_has_posterior(model: Any) -> None:
    """Raise TypeError for a model without q(z|x)."""
    check_is_model(model)
    if not hasattr(model, "posterior"):
        raise TypeError(f"{type(model).__name__} has no posterior to draw from; expected a VAE, or a PCA.")


def check_has_prior(model: Any) -> None:
    """Raise TypeError for a model without p(z)."""
    check_is_model(model)
    if not hasattr(model, "prior_distribution"):
        raise TypeError(f"{type(model).__name__} has no p(z) to draw from; expected a VAE, or a PCA.")


def check_simulates(model: Any) -> None:
    """Raise TypeError for a model without p(z), ValueError for a model with labels or an unbuilt one."""
    check_has_prior(model)
    model.check_built()
    if hasattr(model, "label_dim"):
        raise ValueError(
            f"A {type(model).__name__} draws images of labels that are given, and here it has to draw the data itself: "
            "use a model without labels, or annealed_importance_sampling, which takes data."
        )


def chunks(
    model: Any,
    data: Any,
    most: int,
    batch_size: int,
    verbose: bool | str,
    skip: int = 0,
    skipped: Callable[[Any], None] | None = None,
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield x and the positions (n,) int64 of at most `most` examples at a time.

    Args:
        model: reads x from the stream's elements.
        data: a stream or arrays, as the models take them.
        most: examples at a time.
        batch_size: of arrays.
        verbose: whether to show a progress bar. "auto" shows one on a terminal and in a notebook.
        skip: number of examples at the start to give to `skipped` instead.
        skipped: function of their x.
    """
    verbose = arguments.verbosity(verbose)
    elements.validate_batch_size(batch_size)
    stream = arrays.batches(model._checked(data, "data"), batch_size)
    batches, done = int(stream.cardinality()), 0
    bar = progress.bar(None, "example", verbose)
    with errors.clear_errors():
        for element in stream:
            batch = model._read(element)
            length = len(tf.nest.flatten(batch)[0])
            bar.target = bar.target or (batches * length if batches > 0 else None)
            left_out = min(max(skip - done, 0), length)
            if left_out and skipped:
                skipped(rows_of(batch, 0, left_out))
            for start in range(left_out, length, most):
                stop = min(start + most, length)
                yield rows_of(batch, start, stop), np.arange(done + start, done + stop, dtype="int64")
                bar.update(done + stop)
            done += length
    bar.target = done
    bar.update(done, finalize=True)
