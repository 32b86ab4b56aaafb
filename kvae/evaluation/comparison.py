"""Reconstruction errors, and several models' numbers on the same data."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kvae import arguments
from kvae.data import arrays, elements, errors
from kvae.evaluation import scoring


def squared_error(model: Any, data: Any, batch_size: int = elements.BATCH_SIZE) -> float:
    """mean_x ||x - decode(encode(x))||^2, summed over each image.

    Codes and reconstructions are means, so the result repeats exactly. Given (noisy, clean), a denoising autoencoder
    is measured against the clean images.

    Args:
        model: any model of kvae.
        data: a stream of batches or an array.
        batch_size: of arrays.

    Returns:
        a float, in squared units of the scaled images ([0, 1] for uint8).

    Raises:
        ValueError: for unusable data.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> pca = kvae.PCA(2).fit(x, verbose=0)
        >>> error = kvae.evaluation.squared_error(pca, x)
        >>> bool(np.isclose(error, np.sum((x - pca.reconstruct(x)) ** 2) / 50))
        True
    """
    scoring.check_is_model(model)
    total, count = 0.0, 0
    with errors.clear_errors():
        for element in arrays.batches(model._checked(data, "data"), batch_size):
            x = model._scaled(model._read(element))
            images = model._read_target(element).get("target")  # of a denoising autoencoder
            images = keras.tree.flatten(x)[0] if images is None else model._scaled(images)
            difference = np.asarray(images - model(x, training=False))
            total += float(np.nansum(np.square(difference, dtype="float64")))  # NaN where x isn't observed
            count += len(difference)
    return total / count


def compare(models: Mapping[str, Any], data: Any, batch_size: int = elements.BATCH_SIZE) -> dict[str, dict[str, float]]:
    """Evaluate several models on the same data, each with its squared error.

    Args:
        models: {name: compiled model}, such as {"PCA": pca, "autoencoder": ae, "VAE": vae}, preferably with equal
            latent_dim.
        data: a stream of batches or an array; of pairs x alone, since an `AdaGVAE`'s bound of a pair isn't one of x.
        batch_size: of arrays.

    Returns:
        {name: {metric: value}}: the metrics of each model's `evaluate`, and "squared_error".

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> pca = kvae.PCA(2).fit(x, verbose=0)
        >>> sorted(kvae.evaluation.compare({"PCA": pca}, x)["PCA"])
        ['log_likelihood', 'loss', 'squared_error']
    """
    arguments.instance("models", models, Mapping, "a dict {name: model}")
    for name, model in models.items():
        scoring.check_is_model(model, f"models[{name!r}]")
    stream = arrays.batches(data, batch_size)
    results = {}
    for name, model in models.items():
        results[name] = model.evaluate(stream, return_dict=True, verbose=0)
        results[name].setdefault("squared_error", squared_error(model, stream))
    return results
