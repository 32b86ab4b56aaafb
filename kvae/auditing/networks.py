"""`audit_model`: networks that somebody trained, put into a `kvae.VAE` with the likelihood that their loss is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from kvae import _compat, arguments
from kvae import likelihoods as all_likelihoods
from kvae.auditing import comparison, draw_findings
from kvae.auditing import sampling as drawing
from kvae.auditing.findings import Audit, Finding
from kvae.auditing.losses import audit, first_examples
from kvae.auditing.parts import Parts
from kvae.likelihoods import Likelihood
from kvae.models import VAE


def audit_model(
    encoder: keras.layers.Layer,
    decoder: keras.layers.Layer | None = None,
    loss: Callable[..., Any] | None = None,
    *,
    data: Any,
    likelihood: str | Likelihood | None = None,
    sampling: Callable[..., Any] | None = None,
    printed: float | None = None,
    samples: int = 100,
    beta: float = 1.0,
    free_bits: float = 0.0,
    capacity: float | None = None,
) -> Audit:
    """Say what two trained networks and their loss are, and what log p(x) is beside the number that the loss prints.

    Of a whole `kvae.VAE` in the first argument it computes the parts in a second way: log q(z|x) by autodiff, the KL by
    draws, the integrals of p(z) and p(x|z) and the moments of their samples, the objective by its formula in numpy, its
    gradient by finite differences, log p(x) by draws. It finds a mistake in a prior, posterior, likelihood or objective
    of your own. Of two networks it looks at the draws of z, at the loss as `kvae.audit` does, and at what the decoder's
    last layer gives the loss. Then it puts both into a `kvae.VAE` with the identified likelihood, for log p(x).

    Args:
        encoder: a Keras model from x to [z_mean, z_log_var], or to [z_mean, z_log_var, z]; or a compiled `kvae.VAE`,
            with `data` and `samples` as the only other arguments.
        decoder: a Keras model from z (n, latent_dim) to the reconstruction, or to [mean, log_var]. None for a VAE.
        loss: as in `kvae.audit`, of four arguments or of five with z (n, latent_dim); None audits the networks alone.
        data: a stream of batches or an array of x as the networks take it (uint8 is scaled to [0, 1]), preferably
            unseen. The first 1,000 examples are read.
        likelihood: of the decoder's outputs, as in `kvae.VAE`, if the loss isn't given or its likelihood is no Gaussian
            or Bernoulli. None (default) takes the loss's.
        sampling: as in `kvae.audit`. None (default) takes the encoder's third output, if it has one.
        printed: number that the user's own code prints for these networks, per example. None (default) computes the
            loss on the data, with the encoder's z.
        samples: int >= 1, draws of z per example for log p(x). Default 100.
        beta: as in `kvae.audit`.
        free_bits: as in `kvae.audit`.
        capacity: as in `kvae.audit`.

    Returns:
        an `Audit`, with `log_likelihood`, `printed` and `model` where a likelihood is known, and `checks` of a VAE.

    Raises:
        TypeError: if an argument is of another kind.
        ValueError: if the networks, the loss and the data don't fit each other.

    Example:
        >>> encoder = kvae.networks.dense_encoder((6,), latent_dim=2, hidden=(8,))
        >>> decoder = kvae.networks.dense_decoder((6,), latent_dim=2, hidden=(8,))
        >>> def loss(x, reconstruction, z_mean, z_log_var):
        ...     kl = -0.5 * ops.sum(1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var), axis=-1)
        ...     return ops.sum(ops.square(x - reconstruction), axis=-1) + kl
        >>> x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
        >>> result = kvae.audit_model(encoder, decoder, loss, data=x, samples=10)
        >>> result.names, result.sigma2, bool(result.log_likelihood.mean > result.log_likelihood.elbo)
        ((), 0.5, True)
    """
    samples = arguments.integer_at_least("samples", samples, 1)
    if decoder is None:
        others = {"loss": loss, "likelihood": likelihood, "sampling": sampling, "printed": printed}
        others |= {"beta": beta != 1.0, "free_bits": free_bits != 0.0, "capacity": capacity is not None}
        return _whole(encoder, data, samples, [name for name, value in others.items() if value])
    for role, network in (("encoder", encoder), ("decoder", decoder)):
        arguments.instance(role, network, keras.layers.Layer, "a Keras model, such as the networks of a trained VAE")
    printed = None if printed is None else arguments.real("printed", printed)
    given = None if likelihood is None else all_likelihoods.get(likelihood)
    x = first_examples(data)
    mean, log_var, z = _encoded(encoder, x)
    outputs = _outputs(decoder, mean[:2])
    declared = {"beta": beta, "free_bits": free_bits, "capacity": capacity}
    result = _nothing()
    if loss is not None:
        shapes = [output.shape[1:] for output in outputs]
        result = audit(
            loss, x.shape[1:], mean.shape[1], sampling=sampling, data=x, reconstruction_shape=shapes, **declared
        )
    elif sampling is not None:
        draws = drawing.identify(sampling, mean.shape[1])
        result = dataclasses.replace(result, sampling=draws, findings=tuple(draw_findings.of_sampling(draws, False)))
    result = _with_draws(result, mean, log_var, z)
    result = _add(result, _activation_findings(decoder, outputs, result.likelihood))
    model = _model(encoder, decoder, given, result, x, mean)
    if model is None:
        result = dataclasses.replace(result, printed=printed)
        return _note(result, "No kvae likelihood is the identified one; give likelihood= to have log p(x) estimated.")
    result = comparison.with_log_likelihood(dataclasses.replace(result, model=model, printed=printed), x, samples)
    return result if loss is None else comparison.with_printed(result, loss, encoder, decoder, x)


def _whole(model, data, samples, others):
    """The audit of a `kvae.VAE`."""
    if not isinstance(model, VAE) or hasattr(model, "label_dim") or model.missing:
        what = type(model).__name__ + (" with missing=True" if getattr(model, "missing", False) else "")
        raise TypeError(
            f"encoder is a {what}, without a decoder; expected an encoder and a decoder, or a whole kvae.VAE "
            "without labels and missing values."
        )
    if others:
        raise ValueError(
            f"{', '.join(others)} given with a whole {type(model).__name__}, which has its own: leave out."
        )
    if not model.built or not model.compiled:
        raise ValueError(f"The {type(model).__name__} isn't compiled; expected a model after compile(optimizer, loss).")
    x = first_examples(data, tuple(model.event_shape))
    parts = Parts(model, x, samples)
    parts.run()
    return dataclasses.replace(
        _nothing(),
        likelihood=type(model.likelihood).__name__,
        findings=tuple(parts.findings),
        notes=tuple(parts.notes),
        checks=tuple(parts.checks),
        log_likelihood=parts.log_likelihood,
        model=model,
    )


def _nothing():
    return Audit(None, None, None, None, math.nan, math.nan, 1.0, {})


def _add(result, findings):
    return dataclasses.replace(result, findings=(*result.findings, *findings))


def _note(result, note):
    return dataclasses.replace(result, notes=(*result.notes, note))


def _encoded(encoder, x):
    """z_mean, z_log_var and z or None, as arrays. Raises ValueError if the encoder gives something else."""
    try:
        outputs = [
            [np.asarray(each, "float64") for each in _list(encoder(part, training=False))]
            for part in comparison.batches(x)
        ]
    except (TypeError, ValueError) as error:
        line = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"The encoder doesn't take x of shape (n, {x.shape[1:]}): {line}") from error
    shapes = [each.shape[1:] for each in outputs[0]]
    if len(shapes) not in (2, 3) or len(set(shapes)) != 1 or len(shapes[0]) != 1:
        raise ValueError(
            f"The encoder gives {len(shapes)} output(s) of shapes {shapes}; expected [z_mean, z_log_var] or "
            "[z_mean, z_log_var, z], each (n, latent_dim)."
        )
    columns = [np.concatenate(each) for each in zip(*outputs, strict=True)]
    return columns[0], columns[1], columns[2] if len(columns) == 3 else None


def _list(outputs):
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _outputs(decoder, z):
    try:
        return [np.asarray(each, "float64") for each in _list(decoder(ops.convert_to_tensor(z.astype("float32"))))]
    except (TypeError, ValueError) as error:
        line = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"The decoder doesn't take z of shape {z.shape}: {line}") from error


def _with_draws(result, mean, log_var, z):
    """Look at the z that the encoder gives."""
    if z is None:
        return result
    draws = drawing.measure(mean, log_var, z)
    known = {finding.name for finding in result.findings}
    found = [each for each in draw_findings.of_sampling(draws, result.log_sigma) if each.name not in known]
    found = [each for each in found if each.name not in ("noise-mean", "noise-kind") or z.size > 2_000]
    is_consistent = result.log_sigma and draws.has_exponent(1.0)
    kept = [each for each in result.findings if not (is_consistent and each.name == "kl-log-sigma")]
    return dataclasses.replace(result, findings=(*kept, *found), sampling=result.sampling or draws)


def _activation_findings(decoder, outputs, family):
    """Whether the loss reads logits and the decoder gives probabilities, or the reverse."""
    low, high = float(np.min(outputs[0])), float(np.max(outputs[0]))
    last = (_compat.last_activations(decoder) or [""])[0]
    if family is None:
        return
    if family.endswith("on logits") and last in ("sigmoid", "hard_sigmoid", "hardsigmoid"):
        yield Finding(
            "sigmoid-twice",
            f"The decoder ends in {last}, and the loss reads logits: the sigmoid is applied twice.",
            "Probabilities then stay between 0.5 and 0.73.",
            ('keras.layers.Dense(units, activation="sigmoid")', "keras.layers.Dense(units)"),
        )
    if family.endswith("on probabilities") and (low < 0 or high > 1):
        yield Finding(
            "no-sigmoid",
            f"The loss reads probabilities, and the decoder gives numbers from {low:.3g} to {high:.3g}.",
            "Outside of [0, 1] a cross-entropy is clipped or nan: no gradient.",
            ("keras.layers.Dense(units)", 'keras.layers.Dense(units, activation="sigmoid")'),
        )


def _model(encoder, decoder, given, result, x, mean):
    """A `kvae.VAE` of both networks, or None if no likelihood of kvae is the identified one."""
    symbol = keras.Input(x.shape[1:])
    try:
        first, second = _list(encoder(symbol))[:2]
        if result.log_sigma and result.sampling is not None and result.sampling.has_exponent(1.0):
            second = 2 * second
        encoder = keras.Model(symbol, [first, second])
        code = keras.Input(mean.shape[1:])
        outputs = _list(decoder(code))
        family = result.likelihood or ""
        if given is None and family.endswith("on probabilities") and not family.startswith("Poisson"):
            clipped = ops.clip(outputs[0], 1e-6, 1 - 1e-6)
            outputs = [ops.log(clipped) - ops.log(1 - clipped)]
        likelihood = given or _likelihood(result, x, mean, decoder)
        if likelihood is None:
            return None
        return VAE(encoder, keras.Model(code, outputs if len(outputs) > 1 else outputs[0]), likelihood, seed=0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The networks don't fit into a kvae.VAE: {str(error).strip().splitlines()[0]}") from error


def _likelihood(result, x, mean, decoder):
    family = result.likelihood or ""
    if family == "Gaussian" and result.sigma2 and result.sigma2 > 0:
        return all_likelihoods.GaussianLikelihood(variance=result.sigma2_at_beta_1 or result.sigma2)
    if family == "Gaussian with learned variance":
        return all_likelihoods.GaussianLikelihood(variance="decoder")
    if family == "Gaussian with the batch's variance":
        error = [np.asarray(decoder(part)) for part in comparison.batches(mean)]
        return all_likelihoods.GaussianLikelihood(variance=float(np.mean((np.concatenate(error) - x) ** 2)))
    if family.startswith("Bernoulli on"):
        return all_likelihoods.BernoulliLikelihood()
    if family.startswith("continuous Bernoulli on"):
        return all_likelihoods.ContinuousBernoulliLikelihood()
    return None
