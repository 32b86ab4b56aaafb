"""Flows that scale and shift latents by functions of other latents."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.arguments import Shape, Tensor
from kvae.flows.base import Flow


class MaskedNetwork(keras.layers.Layer):
    """Dense layers with masked kernels, one per mask. The last layer starts at zero."""

    def __init__(self, masks, **kwargs):
        super().__init__(**kwargs)
        self.masks = [np.asarray(mask, self.dtype) for mask in masks]
        last = len(masks) - 1
        self.kernels, self.biases = [], []
        for number, mask in enumerate(masks):
            initializer = "zeros" if number == last else "glorot_uniform"
            self.kernels.append(self.add_weight(name=f"kernel_{number}", shape=mask.shape, initializer=initializer))
            self.biases.append(self.add_weight(name=f"bias_{number}", shape=mask.shape[1:], initializer="zeros"))
        self.built = True

    def call(self, h):
        for number, (kernel, bias, mask) in enumerate(zip(self.kernels, self.biases, self.masks, strict=True)):
            h = ops.elu(h) if number else h
            h = ops.matmul(h, kernel * mask) + bias
        return h


def made_masks(latent_dim: int, context: int, hidden: Sequence[int]) -> list[np.ndarray]:
    """Return masks for two outputs per latent that depend on the latents before it and on all of the context.

    Germain et al. (2015), "MADE: masked autoencoder for distribution estimation", equations 12 and 13.
    """
    degrees = [np.r_[np.arange(1, latent_dim + 1), np.zeros(context, int)]]
    least = 0 if context or latent_dim == 1 else 1  # the first latent's outputs see only units of degree 0
    degrees += [least + np.arange(units) % (latent_dim - least) for units in hidden]
    masks = [after >= before[:, None] for before, after in pairwise(degrees)]
    return [*masks, np.tile(np.arange(1, latent_dim + 1), 2) > degrees[-1][:, None]]


class _Affine(Flow):
    """Base class of flows z' = scale * z + shift, with scale and shift from small networks of z and the context."""

    def __init__(self, steps: int, hidden: Sequence[int] = (64,), **kwargs: Any):
        super().__init__(steps, **kwargs)
        self.hidden = arguments.sizes("hidden", hidden)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden": self.hidden}


@keras.saving.register_keras_serializable("kvae")
class Coupling(_Affine):
    """z'_2 = z_2 exp(s(z_1)) + t(z_1): one half of the latents scales and shifts the other half, in turns.

    The logarithm s of a scale stays within +-2. Both directions take one pass.

    Args:
        steps: int >= 1, the number of maps. Default 4.
        hidden: sequence of ints, the units of the networks' hidden layers. Default (64,).
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if `steps` or a number of units is less than 1, or at build if there are fewer than 2 latents.

    Example:

    >>> flow = kvae.flows.Coupling(steps=2)
    >>> flow.build((None, 2))
    >>> z, log_determinant = flow(ops.array([[1.0, 2.0]]))
    >>> eps, _ = flow.inverse(z)
    >>> eps.numpy(), log_determinant.numpy()  # the identity before training
    (array([[1., 2.]], dtype=float32), array([0.], dtype=float32))
    >>> prior = kvae.FlowPrior(kvae.flows.Coupling())

    Reference:
        Dinh, Sohl-Dickstein and Bengio (2017), "Density estimation using Real NVP", equations 7 and 8.
    """

    def __init__(self, steps: int = 4, hidden: Sequence[int] = (64,), **kwargs: Any):
        super().__init__(steps, hidden, **kwargs)

    def build(self, input_shape: Shape, context_shape: Shape | None = None) -> None:
        latent_dim = input_shape[-1]
        if latent_dim < 2:
            raise ValueError("A coupling flow needs at least 2 latents; with 1 use kvae.flows.Planar.")
        self.half = latent_dim // 2
        context = 0 if context_shape is None else context_shape[-1]
        halves = self.half, latent_dim - self.half
        self.networks = []
        for step in range(self.steps):
            kept, moved = halves if step % 2 == 0 else reversed(halves)
            sizes = (kept + context, *self.hidden, 2 * moved)
            self.networks.append(
                MaskedNetwork([np.ones(shape) for shape in pairwise(sizes)], dtype=self.variable_dtype)
            )
        super().build(input_shape, context_shape)

    def _step(self, number: int, z, context, sign):
        """Step `number` on z, or its inverse with sign -1, and the log-determinant."""
        first, second = z[:, : self.half], z[:, self.half :]
        kept, moved = (first, second) if number % 2 == 0 else (second, first)
        inputs = kept if context is None else ops.concatenate([kept, context], axis=1)
        log_scale, shift = ops.split(self.networks[number](inputs), 2, axis=1)
        log_scale = 2.0 * ops.tanh(0.5 * log_scale)
        moved = moved * ops.exp(log_scale) + shift if sign > 0 else (moved - shift) * ops.exp(-log_scale)
        z = ops.concatenate([kept, moved] if number % 2 == 0 else [moved, kept], axis=1)
        return z, sign * ops.sum(log_scale, axis=1)

    def _run(self, numbers, z, context, sign):
        log_determinant = 0.0
        for number in numbers:
            z, term = self._step(number, z, context, sign)
            log_determinant = log_determinant + term
        return z, log_determinant

    def call(self, eps: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(range(self.steps), eps, context, 1.0)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(reversed(range(self.steps)), z, context, -1.0)


@keras.saving.register_keras_serializable("kvae")
class InverseAutoregressive(_Affine):
    """z' = s z + (1 - s) m: the gate s and the mean m of a latent depend on the latents before it.

    The order of the latents is reversed after each step. The map takes one pass per step, the inverse latent_dim
    passes. The logit of s stays within 2 +- 6, because the inverse divides by s.

    Args:
        steps: int >= 1, the number of maps. Default 2.
        hidden: sequence of ints, the units of the networks' hidden layers. Default (64,).
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if `steps` or a number of units is less than 1.

    Example:

    >>> flow = kvae.flows.InverseAutoregressive(steps=2)
    >>> flow.build((None, 2))
    >>> z, log_determinant = flow(ops.array([[1.0, 2.0]]))
    >>> eps, inverse_log_determinant = flow.inverse(z)
    >>> eps.numpy().round(4), (log_determinant + inverse_log_determinant).numpy().round(4)
    (array([[1., 2.]], dtype=float32), array([0.], dtype=float32))
    >>> posterior_family = kvae.posteriors.FlowPosterior(kvae.flows.InverseAutoregressive(), context=32)

    Reference:
        Kingma et al. (2016), "Improved variational inference with inverse autoregressive flow", equations 13 and 14;
        for the networks Germain et al. (2015), "MADE: masked autoencoder for distribution estimation".
    """

    def __init__(self, steps: int = 2, hidden: Sequence[int] = (64,), **kwargs: Any):
        super().__init__(steps, hidden, **kwargs)

    def build(self, input_shape: Shape, context_shape: Shape | None = None) -> None:
        latent_dim = input_shape[-1]
        context = 0 if context_shape is None else context_shape[-1]
        masks = made_masks(latent_dim, context, self.hidden)
        self.networks = [MaskedNetwork(masks, dtype=self.variable_dtype) for _ in range(self.steps)]
        super().build(input_shape, context_shape)

    def _gate_and_mean(self, number: int, z, context):
        inputs = z if context is None else ops.concatenate([z, context], axis=1)
        raw, mean = ops.split(self.networks[number](inputs), 2, axis=1)
        raw = 2.0 + 6.0 * ops.tanh(raw / 6.0)  # the gate starts at 0.88: as in the paper, most passes through
        return raw, mean

    def call(self, eps: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_determinant = eps, 0.0
        for number in range(self.steps):
            raw, mean = self._gate_and_mean(number, z, context)
            gate = ops.sigmoid(raw)
            z = ops.flip(gate * z + (1 - gate) * mean, axis=1)
            log_determinant = log_determinant - ops.sum(ops.softplus(-raw), axis=1)
        return z, log_determinant

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_determinant = 0.0
        for number in reversed(range(self.steps)):
            target, z = ops.flip(z, axis=1), ops.zeros_like(z)
            raw: Any = None
            for _ in range(self.latent_dim):  # each pass solves for one more latent
                raw, mean = self._gate_and_mean(number, z, context)
                gate = ops.sigmoid(raw)
                z = (target - (1 - gate) * mean) / gate
            log_determinant = log_determinant + ops.sum(ops.softplus(-raw), axis=1)
        return z, log_determinant
