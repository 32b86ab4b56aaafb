"""What a model reads of its data, and what it refuses: before any work, or in the middle of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kvae.data import elements, errors, validation


def first_batch(
    model: Any, data: Any, name: str, steps: int | None = None, event_shape: tuple | None = None
) -> np.ndarray:
    """The first batch of usable data, scaled; the model stays as it was.

    Args:
        model: a `LatentModel`.
        data: a stream, an array or a tuple of arrays.
        name: what errors call the data.
        steps: the batches that will be read; None for all.
        event_shape: the shape of one example for a model that isn't built yet; None takes any.

    Raises:
        TypeError, ValueError: if the model can't use the data.
    """
    with errors.clear_errors():
        shape = model.event_shape if model.built else event_shape
        first = validation.validate_first_batch(data, shape, steps, name, model.variable_dtype).x
    model._check_values(first)
    if not elements.is_dataset(data):
        supported(model, data, name)
    return first


def guarded(model: Any, data: Any, name: str) -> Any:
    """The same data; a stream now stops at values that the model can't score."""
    return supported(model, data, name) if elements.is_dataset(data) else data


def supported(model: Any, data: Any, name: str) -> Any:
    """The same data. Arrays are searched now for values without a probability, and a stream stops at them."""
    likelihood = model.likelihood
    if likelihood is None or likelihood.expected is None or (likelihood.takes_pixels and elements.are_pixels(data)):
        return data
    complaint = f"{type(likelihood).__name__} expects {likelihood.expected}"
    return validation.stop_at_unsupported(data, likelihood.supports, complaint, name)


def build_for(model: Any, first: np.ndarray) -> None:
    """Build the model, and the metrics that it was compiled with, for a first batch."""
    with model.distribute_strategy.scope():
        if not model.built:
            model.build((None, *first.shape[1:]))
        for metric in model._compiled_metrics():
            if not getattr(metric, "built", True):
                metric.build(first[:1], first[:1])


def labels(element: Any) -> dict[str, Any]:
    """A stream element's labels by name. Raises ValueError for labels named "code"."""
    y = elements.unpack(element)[1]
    if isinstance(y, Mapping) and "code" in y:
        raise ValueError('x has labels named "code", as the codes beside them are: rename them with map')
    return y if isinstance(y, Mapping) else {} if y is None else {"label": y}
