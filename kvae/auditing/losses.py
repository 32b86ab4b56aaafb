"""`audit`: a loss function as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kvae import arguments
from kvae.auditing import batch_findings, draw_findings, kl_findings, reconstruction_findings
from kvae.auditing import sampling as drawing
from kvae.auditing.black_box import BlackBox, shapes_of
from kvae.auditing.findings import Audit
from kvae.auditing.measures import Declared, Measures, measure
from kvae.data import arrays, elements

_ROWS = 1_000  # of the data


def audit(
    loss: Callable[..., Any],
    event_shape: Sequence[int],
    latent_dim: int,
    *,
    sampling: Callable[..., Any] | None = None,
    data: Any = None,
    samples: int | None = None,
    beta: float = 1.0,
    free_bits: float = 0.0,
    capacity: float | None = None,
    batch_size: int = 128,
    reconstruction_shape: Any = None,
) -> Audit:
    """Say what a loss of a variational autoencoder really minimizes.

    The loss is probed as a black box, by its values at chosen points: the likelihood that its reconstruction term is,
    with sigma^2; the KL term's weight, its terms in z_mean and z_log_var, floors and caps; sums and means over batch,
    values and latents. Everything that isn't the bound, as declared, is a finding.

    Args:
        loss: function of (x, reconstruction, z_mean, z_log_var), of Keras, TensorFlow or numpy code. x and the
            reconstruction are (n, *event_shape), the others (n, latent_dim). It returns a number, or one per
            example, or a dict with "loss". With a learned variance the reconstruction is the list [mean, log_var]. With
            a fifth argument the loss gets z, too. Arguments with well-known names go by name, such as those of
            (recon_x, x, mu, logvar).
        event_shape: ints, the shape of one x, such as (28, 28, 1).
        latent_dim: int, the size of z.
        sampling: function of [z_mean, z_log_var], or of the two, that draws z; None leaves it out.
        data: a stream of batches or an array, to see if x has values of the likelihood; None leaves it out. The
            first 1,000 examples are read.
        samples: int k for a loss of k draws: z is (n, k, latent_dim) and the reconstruction (n, k, *event_shape). None
            (default) for z (n, latent_dim).
        beta: number >= 0, the KL's weight as intended. Default 1.
        free_bits: number >= 0, nats per latent, or in sum, below which the KL should cost nothing. Default 0.
        capacity: number C of an intended term |KL - C|, or None (default).
        batch_size: int, at which a beta that depends on the batch is reported. Default 128.
        reconstruction_shape: shape of the decoder's output, or a list of the shapes of several, if it isn't that of x.

    Returns:
        an `Audit`. Print it, or let a notebook show it.

    Raises:
        TypeError: if an argument is of another kind.
        ValueError: if the loss can't be called, draws at random, or returns no number; for numbers out of range.

    Example:
        >>> def loss(x, reconstruction, z_mean, z_log_var):
        ...     error = ops.mean(ops.square(x - reconstruction), axis=-1)
        ...     kl = -0.5 * ops.sum(1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var), axis=-1)
        ...     return error + kl
        >>> result = kvae.audit(loss, event_shape=(784,), latent_dim=2)
        >>> result.names, round(result.sigma2, 3), round(result.beta, 3)
        (('squared-error-mean',), 392.0, 1.0)
    """
    shape = arguments.sizes("event_shape", event_shape)
    latent_dim = arguments.integer_at_least("latent_dim", latent_dim, 1)
    samples = None if samples is None else arguments.integer_at_least("samples", samples, 1)
    declared = Declared(
        arguments.real("beta", beta, 0),
        arguments.real("free_bits", free_bits, 0),
        None if capacity is None else arguments.real("capacity", capacity, 0),
        arguments.integer_at_least("batch_size", batch_size, 1),
    )
    shapes = shapes_of(reconstruction_shape)
    if sampling is not None and (not callable(sampling) or isinstance(sampling, type)):
        raise TypeError(f"sampling is {sampling!r}; expected a function of [z_mean, z_log_var] that returns z.")
    x = None if data is None else first_examples(data, shape)
    box = _black_box(loss, shape, latent_dim, shapes, samples)
    draws = None if sampling is None else drawing.identify(sampling, latent_dim)
    with np.errstate(all="ignore"):
        return _result(measure(box, declared, _levels(x)), draws, x)


def first_examples(data: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The first examples of data, as float64; uint8 scaled to [0, 1]. Raises ValueError for another shape."""
    blocks, count = [], 0
    for element in arrays.batches(data, _ROWS):
        x = np.asarray(elements.unpack(element)[0])
        blocks.append(np.asarray(elements.scale(x)))
        count += len(x)
        if count >= _ROWS:
            break
    x = np.concatenate(blocks)[:_ROWS].astype("float64") if blocks else np.zeros((0,))
    if not len(x):
        raise ValueError("data hold no example; expected at least one.")
    if shape is not None and x.shape[1:] != shape:
        raise ValueError(f"data hold examples of shape {x.shape[1:]}; expected the event_shape {shape}.")
    return x


def _levels(x):
    """The values that x has, if they are few."""
    if x is None:
        return None
    values = np.unique(x)
    return values if 2 < len(values) <= 64 else None


def _black_box(loss, shape, latent_dim, shapes, samples):
    try:
        return BlackBox(loss, shape, latent_dim, shapes, samples)
    except ValueError:
        if samples is not None or not callable(loss):
            raise
        try:
            box = BlackBox(loss, shape, latent_dim, shapes, 4)
        except ValueError:
            box = None
        if box is None or not box.takes_z:
            raise
        return box


def _result(found: Measures, draws: drawing.SamplingResult | None, x: np.ndarray | None) -> Audit:
    """The audit of what was measured."""
    term, family = found.kl, found.reconstruction.family
    sampled_sigma = draws is not None and draws.has_exponent(1.0)
    named = [
        *reconstruction_findings.findings(found),
        *kl_findings.findings(found, sampled_sigma, draws is not None and draws.softplus),
        *batch_findings.of_batches(found),
        *draw_findings.of_draws(found),
        *draw_findings.of_sampling(draws, term.of_log_sigma, term.raw_sigma == "softplus"),
        *batch_findings.of_data(found.reconstruction, x),
    ]
    known = family not in (None, "none")
    is_flat = term.shape in ("cap", "center")
    bound = found.draws.bound if found.draws is not None else "ELBO"
    return Audit(
        likelihood=family if known else None,
        sigma2=found.sigma2,
        beta=found.beta,
        sigma2_at_beta_1=found.sigma2_at_beta_1,
        likelihood_weight=found.reconstruction.factor,
        kl_weight=found.kl_weight,
        scale=found.scale if math.isfinite(found.scale) else 1.0,
        reduction=_reductions(found),
        free_bits=term.level if term.shape == "floor" else 0.0,
        capacity=term.level if is_flat else None,
        bound="ELBO" if bound == "mean" else bound,
        findings=tuple(named),
        notes=tuple(_notes(found, draws, x)),
        sampling=draws,
        free_bits_per_latent=term.per_latent,
        log_sigma=term.of_log_sigma,
    )


def _reductions(found):
    own = found.kl_weight / (found.declared.beta or 1.0)
    is_ratio = found.box.latent_dim > 1 and math.isclose(own * found.box.latent_dim, 1.0, rel_tol=2e-3)
    latents = "mean" if found.kl.is_mean or (found.kl.is_mean is None and is_ratio) else "sum"
    term = found.reconstruction
    values = found.reduction or ("not a sum" if not term.is_additive else "sum" if term.has_scale else "sum, weighted")
    return {"batch": found.batches.reduction, "values of x": values, "latents": latents}


def _notes(found, draws, x):
    family, box = found.reconstruction.family, found.box
    if family is None:
        yield "The reconstruction term is none of the likelihoods that the audit knows, so beta isn't known either."
    elif family == "normalized on the real numbers":
        yield "The reconstruction term is a density of x, but not Gaussian or Laplace; its scale isn't told."
    elif family.startswith("Bernoulli") and x is None:
        yield (
            "A cross-entropy is a likelihood of 0 and 1 alone. With grey values it is none: binarize x, or use the "
            "continuous Bernoulli. Give data= to have them looked at."
        )
    if found.kl.of_log_sigma and draws is not None and draws.has_exponent(1.0):
        yield "z_log_var is log sigma, in the KL as in the draws: only the name is wrong."
    if found.kl.raw_sigma == "softplus" and draws is not None and draws.softplus:
        yield "sigma is softplus(z_log_var), in the KL as in the draws: only the name is wrong."
    if found.batches.reduction == "sum":
        yield "The loss is a sum over the batch: the learning rate means another step at another batch size."
    is_bound = found.beta is not None and math.isclose(found.beta, found.declared.beta, rel_tol=2e-3)
    if is_bound and found.scale > 0 and not math.isclose(found.scale, 1.0, rel_tol=2e-3):
        yield f"The whole loss is {found.scale:.4g} times the bound: its optimum is the same, its number isn't in nats."
    if found.sums_draws and is_bound:
        yield f"The loss is a sum over the {box.samples} draws."
    if found.kl.of_batch:
        yield "The free bits hold for the batch's mean KL."
    if found.batches.couples:
        yield "The KL term of an example depends on the others of its batch."
    if not box.returns.startswith("a number"):
        yield f"The loss returns {box.returns}; the audit takes its mean, as Keras does."
    if not box.exact:
        yield "The loss computes in float32: numbers are good to three digits or so."
