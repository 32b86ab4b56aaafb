"""What may mean something else than the user thinks, told before the first step: one warning a case."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kvae import arguments
from kvae.data import elements
from kvae.data.validation import FirstBatch

_LARGE_VALUE, _ROWS_TO_TRY = 10.0, 32
_LARGE_KL = 1e4  # nats a latent


def warn_if_constant(x: np.ndarray, name: str) -> None:
    """Warn if all values of the first batch are the same. A model learns nothing from them."""
    if x.size > 1 and x.min() == x.max():
        arguments.warn(
            f"Every value in the first batch of {name} is {float(x.flat[0]):g}, of which there is nothing to learn: "
            "see whether the data were read and scaled as they should be (whole numbers divided by // 255 are 0)."
        )


def warn_of_empty_columns(data: Any, first: FirstBatch, name: str) -> None:
    """Warn of columns of x, or pixels, that no row has a value in: of an array, or of a stream's first batch."""
    is_stream = hasattr(data, "element_spec")
    x = first.x if is_stream else elements.unpack(data)[0]
    observed = np.any([(~np.isnan(block)).any(axis=0) for _, block in elements.array_blocks(x)], axis=0)
    empty = np.argwhere(~observed)
    if len(empty):
        numbers = [tuple(place.tolist()) if len(place) > 1 else int(place[0]) for place in empty[:5]]
        arguments.warn(
            f"{'The first batch of ' if is_stream else ''}{name} has no value at all in {len(empty)} of its "
            f"{observed.size} columns ({', '.join(map(str, numbers))}{', ...' if len(empty) > 5 else ''}). If that is "
            "so in all of the data, nothing is learned about them: leave them out."
        )


def warn_of_target(model: Any, element: Any, name: str) -> None:
    """Warn of a y that looks like images to reconstruct, for a model that reconstructs x and reads no y."""
    y = elements.target(element)
    if model._reads_labels:
        return
    if y is None:
        return _warn_of_reshaped_target(element, name)
    x, y = (keras.ops.convert_to_numpy(elements.scale(part)) for part in (elements.unpack(element)[0], y))
    is_one_hot = y.ndim == 2 and np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()
    if not is_one_hot and not np.allclose(x, y, rtol=1e-5, atol=1e-6):
        arguments.warn(
            f"The y of {name} has the shape of x and other values, and isn't read: a {type(model).__name__} "
            "reconstructs x itself. kvae.Autoencoder reconstructs y from x, as denoising wants it."
        )


def _warn_of_reshaped_target(element, name):
    """Warn of a y with as many numbers an example as x, in another shape: it may be images for a denoiser."""
    x, y, _ = elements.unpack(element)
    shapes = [tuple(getattr(part, "shape", ())[1:]) for part in (x, y)]
    if shapes[0] != shapes[1] and None not in shapes[0] + shapes[1] and 1 < np.prod(shapes[0]) == np.prod(shapes[1]):
        arguments.warn(
            f"The y of {name} has examples of shape {shapes[1]}, as many numbers as x has in {shapes[0]}, and isn't "
            "read. If x is to become y, as denoising wants it, give kvae.Autoencoder a y of x's shape."
        )


def warn_of_other_scale(model: Any, first: FirstBatch, name: str) -> None:
    """Warn of uint8 for a model trained on floats that weren't in [0, 1], and of 0..255 in floats for one of uint8."""
    seen, dtype, largest = model.record.x or {}, first.dtype, first.largest
    if dtype == "uint8" and seen.get("dtype", dtype) != dtype and seen["largest"] > 2:
        arguments.warn(
            f"{name} is uint8, of which kvae makes [0, 1], but the model was trained on {seen['dtype']} of up to "
            f'{seen["largest"]:.3g}: give x.astype("{seen["dtype"]}").'
        )
    if dtype != "uint8" and seen.get("dtype") == "uint8" and largest > 2:
        arguments.warn(
            f"{name} is {dtype} of up to {largest:.3g}, but the model was trained on uint8, of which kvae makes "
            "[0, 1]: give uint8, or x / 255."
        )


def warn_of_scale(model: Any, first: FirstBatch) -> None:
    """Warn if x is so far from 1 that the untrained encoder's answers are beyond all bounds, and training diverges."""
    largest = first.largest
    if (
        largest <= _LARGE_VALUE
        or int(keras.ops.convert_to_numpy(model.optimizer.iterations))
        or "kl_loss" not in model.metric_names
    ):
        return
    x = keras.tree.map_structure(lambda part: part[:_ROWS_TO_TRY], model._read(first.element))
    _, numbers = model.losses_per_example(x, index=np.arange(len(keras.tree.flatten(x)[0])))
    kl = float(np.mean(numbers["kl_loss"]))
    if not kl <= _LARGE_KL * model.latent_dim:
        arguments.warn(
            f"x reaches to {largest:.4g}, and the KL begins at {kl:.2g} nats, from where training hardly ever "
            f"recovers: {_advice_on_scale(first.x)}."
        )


def _advice_on_scale(x):
    if x.min() >= 0 and x.max() <= 255 and x.ndim > 2:
        return "divide by 255 (uint8 is scaled by itself, tf.image.resize makes floats of it)"
    if x.min() >= 0 and np.array_equal(x, np.round(x)):
        return 'let the encoder of counts see log(1 + x): kvae.networks.dense_encoder(..., preprocessing="log1p")'
    return "standardize each feature, as (x - mean) / standard deviation, or keras.layers.Normalization in the encoder"


def warn_of_moving_loss(model: Any, callbacks: list, steps: int | None, epochs: int) -> None:
    """Warn of callbacks that compare the losses of epochs, if these are losses of different objectives."""
    if not getattr(model.loss, "depends_on_step", False):
        return
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor not in ("loss", "val_loss") or not getattr(callback, "save_best_only", True):
            continue
        if _moves(model, steps, getattr(callback, "start_from_epoch", 0), epochs):
            better = monitor.replace("loss", "elbo")
            arguments.warn(
                f"{type(callback).__name__} compares the {monitor} of epochs, but the objective's schedule makes these "
                f'losses of different objectives: use monitor="{better}", mode="max".'
            )


def _moves(model, steps, first_epoch, epochs):
    """Whether the objective of epoch `first_epoch` may be another one than that of the last."""
    beta: Any = getattr(model.loss, "beta", getattr(model.loss, "capacity", None))
    done, is_schedule = int(model.optimizer.iterations), callable(beta)
    if not is_schedule or steps is None:
        return True
    if getattr(beta, "share", None) is not None:  # of a run that hasn't begun
        return first_epoch < beta.share * epochs
    try:
        first, last = (float(beta(done + epoch * steps)) for epoch in (first_epoch, epochs))
    except (TypeError, ValueError):  # of a warm-up that is a share of a run
        return True
    return first != last


def warn_of_reordering(x: Any) -> None:
    """Warn of a `PyDataset` that reorders itself between epochs: a resumed run can't know its order."""
    own = keras.utils.PyDataset
    if isinstance(x, own) and any(
        getattr(type(x), hook) is not getattr(own, hook) for hook in ("on_epoch_begin", "on_epoch_end")
    ):
        arguments.warn(
            f"x is a {type(x).__name__} that changes between epochs: a run that is stopped will go on, but in the "
            "order of its first epoch, not bit by bit."
        )
