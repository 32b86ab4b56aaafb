"""Pages without a kernel: one HTML file with a model's networks in JavaScript."""

import base64
import json
import os
import pathlib
from html import escape
from typing import Any

import numpy as np
from keras import ops

from kvae import arguments, files
from kvae.distributions.normal import Normal
from kvae.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
)
from kvae.models import PCA
from kvae.plots.codes import RING
from kvae.posteriors import DiagonalNormal
from kvae.priors import StandardNormal
from kvae.widgets import network
from kvae.widgets.weights import SMALL, Weights

_FOLDER = pathlib.Path(__file__).with_name("page")
_DRAWS = 1000
_EXACT = 2**17  # numbers of a matrix that is more exact; a page of a dense 28x28 decoder then has 1.5 MB
_SCRIPTS = "network.js", "likelihoods.js", "page.js"


class Page:
    """An HTML page that needs neither a kernel nor the network.

    Args:
        name: of the page's template, "explorer" or "sketch".
        title: str.
        content: dict for JSON, the page's description of the model.
        weights: the arrays that the description names.
    """

    def __init__(self, name: str, title: str, content: dict[str, Any], weights: Weights):
        self.name, self.title, self.content, self.weights = name, title, content, weights

    @property
    def html(self) -> str:
        """The text of the file."""
        content = json.dumps({**self.content, "weights": self.weights.entries}, separators=(",", ":"))
        return render(self.name, self.title, content.replace("<", "\\u003c"), self.weights.text())

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the page to `path`, whole or not at all.

        Args:
            path: a name that ends in .html, in a local folder.
            overwrite: bool, whether to replace a file that is there.

        Raises:
            FileExistsError: if the file exists and `overwrite` is False.
            OSError: if it can't be written; the old file then stays.
            ValueError: if the path doesn't end in .html.
        """
        overwrite = arguments.boolean("overwrite", overwrite)
        path = files.absolute(path)
        if path.suffix != ".html":
            raise ValueError(f"path is {str(path)!r}, expected one that ends in .html")
        text = self.html.encode()
        with files.explain_errors(path, lambda: len(text)), files.lock_file(path):
            if os.path.lexists(path) and not overwrite:
                raise FileExistsError(f"{path} exists: give another name, or overwrite=True to replace what is there")
            with files.atomic_write(path) as file:
                file.write(text)


def render(name: str, title: str, model: str, weights: str) -> str:
    """The text of a page: the template `name`, with the model's description as JSON and the weights' text."""
    parts = {
        "style": _read("page.css"),
        "body": _read(f"{name}.html"),
        "title": escape(title),
        "scripts": "\n".join(map(_read, (*_SCRIPTS, f"{name}.js"))),
        "model": model,
        "weights": weights,
    }
    text = _read("page.html")
    for part, content in parts.items():
        text = text.replace("{{" + part + "}}", content)
    return text


def _read(name):
    return (_FOLDER / name).read_text(encoding="utf-8")


def explorer(
    model: Any,
    ranges: tuple[np.ndarray, np.ndarray],
    names: list[str],
    latents: list[int],
    dims: list[int],
    codes: np.ndarray | None,
    z: np.ndarray,
    prior: tuple[np.ndarray, np.ndarray] | None = None,
) -> Page:
    """The page of `explore`: sliders, the plane of two latents with the codes as points, and the decoded image.

    Args:
        model: a built VAE, PCA or autoencoder.
        ranges: (low, high) of the sliders, each (latent_dim,).
        names: of all latents.
        latents: the latents with a slider, in order.
        dims: the latents of the plane.
        codes: (n, latent_dim), or None.
        z: (latent_dim,), the code at the start.
        prior: (mean, standard deviation) of a normal prior, each (latent_dim,), or None. The plane gets its ring.

    Raises:
        ValueError: if the page can't run the model's networks. It names the layer.
    """
    weights = Weights(_EXACT)
    content = {
        "networks": [_decoder(model, weights)],
        "likelihood": _likelihood(model, weights),
        "image": _image_shape(model),
        "ranges": [_numbers(values) for values in ranges],
        "names": names,
        "latents": latents,
        "dims": dims,
        "codes": None if codes is None else [_numbers(code) for code in codes],
        "z": _numbers(z),
        "ring": prior and [_numbers(prior[0]), _numbers(RING * prior[1])],
    }
    return Page("explorer", f"Explore the latents of {_kind(model)}", content, weights)


def sketch(model: Any, examples: np.ndarray, count: int) -> Page:
    """The page of `kvae.widgets.sketch`: a canvas, q(z|x), a draw of z, p(x|z), and the two terms of the bound.

    Args:
        model: a built VAE.
        examples: images (n, ...) in [0, 1], the first one drawn at the start. The networks are rounded so that on
            images like these, and on draws of the prior, they stay close to the model.
        count: the number of them that the page offers.

    Raises:
        ValueError: if the page can't run the model's networks, its prior or its posterior family.
    """
    for part, known in ((model.prior, StandardNormal), (model.posterior_family, DiagonalNormal)):
        if type(part) is not known:
            raise ValueError(
                f"The model has a {type(part).__name__}; this page's KL is in closed form, of a DiagonalNormal "
                "posterior and a StandardNormal prior."
            )
    weights = Weights(SMALL)
    likelihood = _likelihood(model, weights)
    if likelihood["kind"] in ("none", "counts"):
        raise ValueError(f"The page draws images in [0, 1]; a {type(model.likelihood).__name__} scores other values.")
    z = np.random.default_rng(0).standard_normal((_DRAWS, model.latent_dim)).astype("float32")
    images = [np.resize(examples, (_DRAWS, *examples.shape[1:])), ops.convert_to_numpy(model.decode(z))]
    encoder = network.describe(model.encoder, "encoder", weights, np.concatenate(images).astype("float32"))
    pixels = (255 * examples[:count]).round().astype(np.uint8)
    content = {
        "networks": [encoder, network.describe(model.decoder, "decoder", weights, z)],
        "likelihood": likelihood,
        "image": _image_shape(model),
        "latent_dim": model.latent_dim,
        "examples": [base64.b64encode(each.tobytes()).decode() for each in pixels],
        "binary": bool(np.isin(pixels, (0, 255)).all()),
    }
    return Page("sketch", f"Draw an image for {_kind(model)}", content, weights)


def _kind(model):
    kind = type(model).__name__
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"


def _numbers(values):
    return [float(f"{value:.5g}") for value in np.ravel(values)]


def _image_shape(model):
    """(height, width, channels) of the model's images, or raises ValueError."""
    shape = tuple(model.event_shape)
    shape = (*shape, 1) if len(shape) == 2 else shape
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise ValueError(
            f"Examples of shape {tuple(model.event_shape)} can't be shown as images; expected (height, width), "
            "(height, width, 1) or (height, width, 3)."
        )
    return list(shape)


def _decoder(model, weights):
    if isinstance(model, PCA):
        mean, matrix = np.asarray(model.mean), np.asarray(model.components)
        return network.linear(matrix, mean, model.event_shape, weights)
    return network.describe(model.decoder, "decoder", weights)


def _likelihood(model, weights):
    """The likelihood as likelihoods.js reads it. An autoencoder and PCA have an image in place of p(x|z)."""
    likelihood = model.likelihood
    if likelihood is None or isinstance(model, PCA):
        return {"kind": "none"}
    kind = type(likelihood)
    if kind in (BernoulliLikelihood, ContinuousBernoulliLikelihood):
        return {"kind": "bernoulli" if kind is BernoulliLikelihood else "continuous_bernoulli"}
    if kind is GaussianLikelihood and likelihood.variance == "decoder":
        return {"kind": "gaussian", "floor": likelihood.min_variance}
    if kind is GaussianLikelihood:
        return {"kind": "gaussian", "log_var": weights.add(np.ravel(Normal(0.0, likelihood.log_var).log_var))}
    if kind in (PoissonLikelihood, NegativeBinomialLikelihood):
        return {"kind": "counts"}
    if kind is CategoricalLikelihood and likelihood.levels:
        return {"kind": "levels", "levels": likelihood.levels}
    if kind is DiscretizedLogisticLikelihood:
        return {"kind": "logistics", "levels": likelihood.levels, "components": likelihood.components}
    raise ValueError(
        f"The model's {kind.__name__} has no JavaScript: a page without a kernel knows the likelihoods of kvae for "
        "images. Show this model with a kernel."
    )
