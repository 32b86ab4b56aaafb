"""The number that a loss prints for trained networks, beside the ELBO and log p(x)."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from keras import ops

from kvae import evaluation
from kvae.auditing.black_box import by_position
from kvae.auditing.findings import Audit, Finding

_ROWS = 100  # at once
_REPEATS = 4


def batches(x: np.ndarray) -> Iterator[Any]:
    """x as tensors of float32 of at most 100 rows."""
    for start in range(0, len(x), _ROWS):
        yield ops.convert_to_tensor(x[start : start + _ROWS].astype("float32"))


def with_log_likelihood(result: Audit, x: np.ndarray, samples: int) -> Audit:
    """The result with log p(x) by `result.model`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of grey values: the audit has a finding of its own
        found = evaluation.log_likelihood(result.model, x.astype("float32"), samples=samples, verbose=False)
    return dataclasses.replace(result, log_likelihood=found)


def with_printed(result: Audit, loss: Callable, encoder: Any, decoder: Any, x: np.ndarray) -> Audit:
    """The result with the loss on x, and a finding if it claims more than log p(x)."""
    values = [_mean_loss(result, loss, encoder, decoder, x, seed) for seed in range(_REPEATS)]
    if not np.all(np.isfinite(values)):
        return result
    printed = float(np.mean(values)) if result.printed is None else result.printed
    result = dataclasses.replace(result, printed=printed)
    scale = _scale(result)
    if not scale or scale < 0:
        return result
    constant = _constant(result, loss, decoder, x, scale)
    if not math.isfinite(constant):
        return result
    in_nats = printed / scale + constant
    result = dataclasses.replace(result, printed_in_nats=in_nats)
    if abs(constant) > 0.01 * abs(in_nats) + 0.01:
        note = (
            f"The loss leaves out {constant:.2f} nats an example, such as D / 2 log(2 pi sigma^2): no gradient sees it."
        )
        result = dataclasses.replace(result, notes=(*result.notes, note))
    found = result.log_likelihood
    error = float(np.std(values, ddof=1)) / scale / math.sqrt(_REPEATS)
    sampling_error = found.sampling_error if math.isfinite(found.sampling_error) else 0.0
    above = -in_nats - found.mean
    if above <= 4 * error + 3 * sampling_error + 0.02 + 1e-4 * abs(in_nats):
        return result
    finding = Finding(
        "above-log-p",
        f"The loss claims log p(x) >= {-in_nats:.2f} nats, and log p(x) of these networks is {found.mean:.2f}.",
        f"It is no bound: it lies {above:.2f} nats above the number that it should bound.",
        ("print(-loss)", "print(kvae.evaluation.log_likelihood(result.model, x))"),
    )
    return dataclasses.replace(result, findings=(*result.findings, finding))


def _mean_loss(result, loss, encoder, decoder, x, seed):
    """The mean of the loss per example, with the encoder's own z or a draw as `result.sampling` is; or nan."""
    rng, total = np.random.default_rng(seed), 0.0
    is_sum = result.reduction.get("batch") == "sum"
    for part in batches(x):
        mean, log_var, *drawn = encoder(part, training=False)
        eps = ops.convert_to_tensor(rng.normal(size=mean.shape).astype("float32"))
        z = drawn[0] if drawn else mean + _sigma(result, log_var) * eps
        value = _call(loss, part, decoder(z, training=False), mean, log_var, z)
        total += value if is_sum else value * len(part)
    return total / len(x)


def _sigma(result, log_var):
    draws = result.sampling
    if draws is None or draws.no_noise or draws.is_right:
        return ops.exp(0.5 * log_var) if draws is None or not draws.no_noise else 0.0
    return draws.factor * ops.exp(draws.exponent * log_var)


def _call(loss, x, output, mean, log_var, z):
    """The mean of what the loss returns, or nan if it takes other tensors."""
    for arguments in ((x, output, mean, log_var), (x, output, mean, log_var, z)):
        try:
            value = by_position(loss)(*arguments)
        except Exception:  # of code for other arguments
            continue
        if isinstance(value, dict):
            value = value.get("loss", value.get("total_loss", math.nan))
        return float(np.mean(np.asarray(value, "float64")))
    return math.nan


def _scale(result):
    """Of the loss relative to -log p(x|z) + KL: of a Gaussian with beta = 1 elsewhere, the KL's weight."""
    if result.sigma2 is not None and result.sigma2_at_beta_1:
        return result.scale * (result.beta or 1.0)
    return result.scale


def _constant(result, loss, decoder, x, scale):
    """-log p(x|z) minus the loss in nats, at a KL of 0."""
    part = next(batches(x))
    zeros = ops.zeros((len(part), result.model.latent_dim))
    output = decoder(zeros, training=False)
    value = _call(loss, part, output, zeros, zeros, zeros) / scale
    value = value / len(part) if result.reduction.get("batch") == "sum" else value
    if result.free_bits:
        latents = result.model.latent_dim if result.free_bits_per_latent else 1
        value -= (result.beta or 1.0) * result.free_bits * latents * result.scale / scale
    elif result.capacity is not None:
        return math.nan
    return float(-np.mean(result.model.log_likelihood(part, zeros))) - value
