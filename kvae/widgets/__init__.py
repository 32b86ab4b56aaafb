"""Interactive widgets for JupyterLab and other notebooks."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kvae.arguments import integer_at_least
from kvae.data import elements
from kvae.models import PCA, VAE, Autoencoder, ConditionalVAE
from kvae.plots.codes import EXAMPLES, check_dims, first_examples, prior_of_codes, usage
from kvae.widgets import pages

__all__ = ["explore", "sketch"]

_SPAN = 3.0  # standard deviations


def explore(model: Any, data: Any = None, *, count: int = 10, dims: Sequence[int] | None = None) -> Any:
    """Sliders for the latents, the decoded image (a mean) beside them, and the plane of two latents to click on.

    The sliders span three standard deviations on either side of the mean: with data of the aggregate posterior
    E_x[q(z|x)] (of the codes for an autoencoder and for PCA, its codes are scores), without data of the prior.

    Args:
        model: a VAE, a PCA or an autoencoder.
        data: a stream or an array of images. The codes of its first 512 are the points of the plane, and the most used
            latents have the first sliders. An autoencoder needs it.
        count: the most sliders. The other latents stay at their means.
        dims: the two latents of the plane. None takes the first two sliders'.

    Returns:
        an ipywidgets widget. Its attribute `z` (latent_dim,) is the displayed code, and can be set. Its method
        `save("explorer.html")` writes a page with the same sliders, and the decoder in JavaScript, for a browser
        without a kernel.

    Raises:
        ImportError: without ipywidgets and anywidget.
        TypeError: for a model with labels, or with codes of another kind, as a VQVAE's.
        ValueError: for unknown dims, for examples that aren't images, and for an autoencoder without data.

    Example:
        >>> x = np.random.default_rng(0).random((20, 8, 8))
        >>> widget = kvae.widgets.explore(kvae.PCA(2).fit(x, verbose=0), x)
        >>> len(widget.sliders), widget.z.shape
        (2, (2,))
    """
    try:
        from kvae.widgets.explorer import Explorer
    except ImportError as error:
        raise ImportError(
            f"explore needs ipywidgets and anywidget ({error}): python -m pip install ipywidgets anywidget"
        ) from error
    integer_at_least("count", count, 1)
    check_dims(dims)
    _check_kind(model)
    model.check_built()
    x: Any = None
    codes: Any = None
    order, names = np.arange(model.latent_dim), [f"z{i}" for i in range(model.latent_dim)]
    if data is not None:
        x, _ = first_examples(data, EXAMPLES)
        codes = model.transform(x)
        used, names = usage(model, x, codes)
        order = np.argsort(-used, kind="stable")
    plane = order[:2].tolist() if dims is None else list(dims)
    if len(set(plane)) != min(2, model.latent_dim) or not all(0 <= dim < model.latent_dim for dim in plane):
        raise ValueError(f"dims are {plane}; expected two of the {model.latent_dim} latents, counted from 0.")
    center, scale = _moments(model, x, codes)
    latents = order[:count].tolist()
    return Explorer(
        model, center - _SPAN * scale, center + _SPAN * scale, latents, names, plane, codes, prior_of_codes(model)
    )


def sketch(model: Any, data: Any, *, count: int = 8) -> pages.Page:
    """A page to draw an image on, with q(z|x), a draw of z, the mean of p(x|z) and the two terms of the bound.

    Both networks run in the page, in JavaScript with rounded weights: it needs neither a kernel nor the network. A page
    of `dense_encoder` and `dense_decoder` of 28x28 pixels has less than 2 MB.

    Args:
        model: a VAE with a `StandardNormal` prior and a diagonal normal posterior.
        data: a stream or an array of images in [0, 1], or of uint8. The page starts from the first of them. The first
            512 tell which numbers the networks meet, and how to round the weights.
        count: the number of images to start from.

    Returns:
        a page. Its method `save("sketch.html")` writes it, `save("sketch.html", overwrite=True)` in place of a file.

    Raises:
        TypeError: for models of other kinds.
        ValueError: for another prior or posterior family, for layers and likelihoods that the page can't run, and for
            examples that aren't images in [0, 1].

    Example:
        >>> encoder = kvae.networks.dense_encoder((8, 8, 1), latent_dim=2)
        >>> vae = kvae.VAE(encoder, kvae.networks.dense_decoder((8, 8, 1), latent_dim=2), "bernoulli")
        >>> page = kvae.widgets.sketch(vae, np.zeros((3, 8, 8, 1), "uint8"))
        >>> page.html[:15]
        '<!doctype html>'
    """
    integer_at_least("count", count, 1)
    if not isinstance(model, VAE) or isinstance(model, ConditionalVAE):
        raise TypeError(f"model is {type(model).__name__}; sketch takes a VAE without labels.")
    model.check_built()
    x, _ = first_examples(data, max(count, EXAMPLES))
    x = np.asarray(elements.scale(x, model.variable_dtype))
    if x.shape[1:] != tuple(model.event_shape) or x.min() < 0 or x.max() > 1:
        raise ValueError(
            f"The examples have the shape {x.shape[1:]} and values from {x.min():g} to {x.max():g}; sketch draws "
            f"images of the model's shape {tuple(model.event_shape)} with values in [0, 1]."
        )
    return pages.sketch(model, x, count)


def _check_kind(model):
    if not isinstance(model, PCA | VAE | Autoencoder) or isinstance(model, ConditionalVAE):
        raise TypeError(f"model is {type(model).__name__}; explore takes a VAE, a PCA or an autoencoder.")


def _moments(model, x, codes):
    """The mean and standard deviation of each latent, over the data or the prior."""
    if isinstance(model, VAE):
        prior = prior_of_codes(model)
        if x is None and prior:
            return prior
        codes = _draws(model, x)
    elif codes is None and isinstance(model, PCA):
        variance = np.asarray(model.explained_variance)
        return np.zeros(len(variance)), np.sqrt(variance)
    elif codes is None:
        raise ValueError("An autoencoder's codes have no prior: give data, whose codes set the range.")
    return codes.mean(axis=0), np.maximum(codes.std(axis=0), 1e-3)


def _draws(model, x):
    """z of the aggregate posterior, or of the prior if x is None. The model's own seed doesn't advance."""
    if x is None:
        return np.asarray(model.prior_distribution(EXAMPLES).sample(keras.random.SeedGenerator(0)))
    return np.asarray(model.draw(x, index=np.arange(len(x))).z)[:, 0]
