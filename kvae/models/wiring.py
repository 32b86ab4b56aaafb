"""Whether a model's networks and distributions fit each other: one clear error before any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from kvae.objectives import ELBO, Objective
from kvae.posteriors import DiagonalNormal, Posterior
from kvae.priors import Prior, StandardNormal


def prior_and_posterior(prior: Prior | None, family: Posterior | None, dtype: str) -> tuple[Prior, Posterior]:
    """Both, with the defaults N(0, I) and a diagonal normal. Raises TypeError for other objects."""
    prior = StandardNormal(dtype=dtype) if prior is None else prior
    if not isinstance(prior, Prior):
        raise TypeError(f"prior is {prior!r}; expected a kvae prior such as kvae.StandardNormal().")
    family = DiagonalNormal(dtype=dtype) if family is None else family
    if not isinstance(family, Posterior):
        raise TypeError(f"posterior_family is {family!r}; expected one of kvae.posteriors, such as FullNormal().")
    prior.check_posterior(family)
    return prior, family


def objective(model: Any, loss: Objective | None) -> Objective:
    """The loss of a VAE, by default `ELBO()`. Raises ValueError for one that the model can't minimize."""
    loss = ELBO() if loss is None else loss
    if not isinstance(loss, Objective):
        raise TypeError(f"loss is {loss!r}; a VAE's is a kvae.Objective such as kvae.ELBO(beta=1.0).")
    loss.check_model(model)
    return loss


def network_shapes(model: Any, event_shape: tuple) -> tuple[list[tuple], list[tuple]]:
    """The shapes of an encoder's and a decoder's outputs, with None for the batch."""
    codes = outputs_or_error(model.encoder, model._symbol(event_shape), "encoder")
    images = outputs_or_error(model.decoder, model._symbol(codes[0].shape[1:]), "decoder")
    return [tuple(code.shape) for code in codes], [tuple(image.shape) for image in images]


def build_encoder_and_decoder(model: Any, event_shape: tuple) -> None:
    """Check a VAE's two networks and build its posterior family. Raises ValueError if they don't fit."""
    code_shapes, image_shapes = network_shapes(model, event_shape)
    model.posterior_family.check_outputs(code_shapes)
    model.likelihood.check_outputs(image_shapes, event_shape)
    if not model.posterior_family.built:
        model.posterior_family.build(code_shapes)
    model.latent_dim = code_shapes[0][-1]
    check_built_for("posterior", (model.posterior_family.latent_dim,), (model.latent_dim,))


def build_densities(model: Any, event_shape: tuple, prior_dim: int) -> None:
    """Build the likelihood and the prior, over z (n, prior_dim). Raises ValueError if they don't fit."""
    build_likelihood(model, event_shape)
    if not model.prior.built:
        model.prior.build((None, prior_dim), event_shape)
    check_built_for("prior", (model.prior.latent_dim,), (prior_dim,))
    check_built_for("prior", model.prior.event_shape or event_shape, event_shape)


def build_likelihood(model: Any, event_shape: tuple) -> None:
    """Build the likelihood. Raises ValueError if another model has built it for another shape."""
    if not model.likelihood.built:
        model.likelihood.build((None, *event_shape))
    check_built_for("likelihood", model.likelihood.event_shape, event_shape)


def outputs_or_error(network: Any, inputs: Any, role: str) -> list:
    """A network's symbolic outputs. Raises ValueError if it doesn't take these inputs or returns a dict."""
    try:
        outputs = network(inputs)
    except (ValueError, TypeError) as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in keras.tree.flatten(inputs))
        raise ValueError(
            f"The {role} doesn't take inputs of shape {shapes}, which is what it would be given here: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    if isinstance(outputs, Mapping):
        raise ValueError(
            f"The {role} gives a dict with the keys {sorted(outputs)}; expected a tensor or a list of tensors, in the "
            "order [z_mean, z_log_var] of an encoder and [mean, log_var] of a decoder with two outputs."
        )
    return keras.tree.flatten(outputs)


def check_built_for(name: str, shape: tuple, expected: tuple) -> None:
    """Raise ValueError if another model has built a part for another shape."""
    if shape != expected:
        raise ValueError(f"The {name} was built for the shape {shape}, the model for {expected}: make another.")
