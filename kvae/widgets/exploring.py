"""What a code looks like, for every code."""

import keras
import numpy as np
from keras import ops

from kvae.models import PCA, VAE, Autoencoder, ConditionalVAE
from kvae.plots.codes import EXAMPLES, check_count, first_examples, prior_of_codes, usage

_SPAN = 3.0  # standard deviations


def explore(model, data=None, *, count=10, dims=None):
    """Sliders for the latents, the decoded image (a mean) beside them, and the plane of two latents, to be clicked.

    The sliders go three standard deviations to either side of the mean: with data those of the aggregate posterior
    E_x[q(z|x)] (of the codes for PCA, whose codes are scores, and an autoencoder), without those of the prior.

    Args:
        model: a VAE, a PCA or an autoencoder.
        data: a stream or an array of images, of which the first 512 are read: their codes are the plane's points, and
            the latents used most have the first sliders. An autoencoder needs it.
        count: sliders at most; the other latents stay at their means.
        dims: the two latents of the plane; None for the first two sliders'.

    Returns:
        an ipywidgets widget, whose `z` (latent_dim,) is the code that is shown; it can be set.

    Raises:
        ImportError: without ipywidgets and anywidget.
        TypeError: for a model whose codes can't be moved one by one, or that takes labels.
        ValueError: for dims that aren't there, examples that aren't images, and an autoencoder without data.
    """
    try:
        from kvae.widgets.explorer import Explorer
    except ImportError as error:
        raise ImportError(
            f"explore needs ipywidgets and anywidget ({error}): python -m pip install 'keras-vae[notebooks]'"
        ) from error
    check_count("count", count)
    if not isinstance(model, PCA | VAE | Autoencoder) or isinstance(model, ConditionalVAE):
        raise TypeError(f"model is {type(model).__name__}; explore takes a VAE, a PCA or an autoencoder.")
    model.check_built()
    codes, order, names = None, np.arange(model.latent_dim), [f"z{i}" for i in range(model.latent_dim)]
    if data is not None:
        x, _ = first_examples(data, EXAMPLES)
        codes = model.transform(x)
        used, names = usage(model, x, codes)
        order = np.argsort(-used, kind="stable")
    dims = order[:2].tolist() if dims is None else list(dims)
    if len(set(dims)) != min(2, model.latent_dim) or not all(0 <= dim < model.latent_dim for dim in dims):
        raise ValueError(f"dims are {dims}; expected two of the {model.latent_dim} latents, counted from 0.")
    centre, scale = _moments(model, None if data is None else x, codes)
    shown = order[:count].tolist()
    return Explorer(model, centre - _SPAN * scale, centre + _SPAN * scale, shown, names, dims, codes)


def _moments(model, x, codes):
    """The mean and the standard deviation of each latent, over the data or a priori."""
    if isinstance(model, VAE):
        if x is None and prior_of_codes(model):
            return prior_of_codes(model)
        codes = _draws(model, x)
    elif codes is None and isinstance(model, PCA):
        return np.zeros(model.latent_dim), np.sqrt(ops.convert_to_numpy(model.explained_variance))
    elif codes is None:
        raise ValueError("An autoencoder's codes have no prior: give data, whose codes set the range.")
    return codes.mean(axis=0), np.maximum(codes.std(axis=0), 1e-3)


def _draws(model, x):
    """Of the aggregate posterior, or of the prior where x is None, without moving the model's own seeds on."""
    if x is None:
        return ops.convert_to_numpy(model.prior_distribution(EXAMPLES).sample(keras.random.SeedGenerator(0)))
    return ops.convert_to_numpy(model.draw(x, index=np.arange(len(x))).z)[:, 0]
