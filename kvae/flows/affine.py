"""Flows that scale and shift some latents by functions of others."""

from itertools import pairwise

import keras
import numpy as np
from keras import ops

from kvae import arguments
from kvae.flows.base import Flow


class MaskedNetwork(keras.layers.Layer):
    """Dense layers with kernels of the masks' shapes, kept to where those are 1; the last starts at zero."""

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


def made_masks(latent_dim, context, hidden):
    """Masks with which two outputs a latent depend on the latents before it, and on all of the context.

    Germain et al. (2015), "MADE: masked autoencoder for distribution estimation", equations 12 and 13.
    """
    degrees = [np.r_[np.arange(1, latent_dim + 1), np.zeros(context, int)]]
    least = 0 if context or latent_dim == 1 else 1  # the first latent's outputs see units of degree 0 alone
    degrees += [least + np.arange(units) % (latent_dim - least) for units in hidden]
    masks = [after >= before[:, None] for before, after in pairwise(degrees)]
    return [*masks, np.tile(np.arange(1, latent_dim + 1), 2) > degrees[-1][:, None]]


class _Affine(Flow):
    """A flow of steps z' = scale * z + shift, both given by small networks of z and the context.

    Args:
        steps: int.
        hidden: units of the networks' hidden layers, a sequence of ints.

    Raises:
        ValueError: for a number of steps or of units below 1.
    """

    def __init__(self, steps, hidden=(64,), **kwargs):
        super().__init__(steps, **kwargs)
        self.hidden = arguments.sizes("hidden", hidden)

    def get_config(self):
        return {**super().get_config(), "hidden": self.hidden}


@keras.saving.register_keras_serializable("kvae")
class Coupling(_Affine):
    """Half of the latents is scaled and shifted by functions of the other half; the halves take turns.

    Dinh, Sohl-Dickstein and Bengio (2017), "Density estimation using Real NVP", equations 7 and 8; the logarithm of a
    scale is held within +-2. Both directions take one pass.

    Raises:
        ValueError: when built for a single latent, which has no halves.
    """

    def __init__(self, steps=4, hidden=(64,), **kwargs):
        super().__init__(steps, hidden, **kwargs)

    def build(self, input_shape, context_shape=None):
        latent_dim = input_shape[-1]
        if latent_dim < 2:
            raise ValueError("A coupling flow needs at least 2 latents; with 1 use kvae.flows.Planar.")
        self.half = latent_dim // 2
        context = 0 if context_shape is None else context_shape[-1]
        halves = self.half, latent_dim - self.half
        self.networks = []
        for step in range(self.steps):
            known, moved = halves if step % 2 == 0 else reversed(halves)
            sizes = (known + context, *self.hidden, 2 * moved)
            self.networks.append(
                MaskedNetwork([np.ones(shape) for shape in pairwise(sizes)], dtype=self.variable_dtype)
            )
        super().build(input_shape, context_shape)

    def _step(self, number, z, context, sign):
        """Step `number` of z, or its inverse where the sign is -1."""
        first, second = z[:, : self.half], z[:, self.half :]
        known, moved = (first, second) if number % 2 == 0 else (second, first)
        inputs = known if context is None else ops.concatenate([known, context], axis=1)
        log_scale, shift = ops.split(self.networks[number](inputs), 2, axis=1)
        log_scale = 2.0 * ops.tanh(0.5 * log_scale)
        moved = moved * ops.exp(log_scale) + shift if sign > 0 else (moved - shift) * ops.exp(-log_scale)
        z = ops.concatenate([known, moved] if number % 2 == 0 else [moved, known], axis=1)
        return z, sign * ops.sum(log_scale, axis=1)

    def _run(self, numbers, z, context, sign):
        log_determinant = 0.0
        for number in numbers:
            z, term = self._step(number, z, context, sign)
            log_determinant = log_determinant + term
        return z, log_determinant

    def call(self, eps, context=None):
        return self._run(range(self.steps), eps, context, 1.0)

    def inverse(self, z, context=None):
        return self._run(reversed(range(self.steps)), z, context, -1.0)


@keras.saving.register_keras_serializable("kvae")
class InverseAutoregressive(_Affine):
    """z' = s z + (1 - s) m, where s = sigmoid(.) and m of a latent depend on those before it; the order then turns.

    Kingma et al. (2016), "Improved variational inference with inverse autoregressive flow", equations 13 and 14, with
    the networks of Germain et al. (2015), "MADE". One pass; the inverse takes latent_dim of them a step. The logit of
    s is held within 2 +- 6, since the inverse divides by s.
    """

    def __init__(self, steps=2, hidden=(64,), **kwargs):
        super().__init__(steps, hidden, **kwargs)

    def build(self, input_shape, context_shape=None):
        latent_dim = input_shape[-1]
        context = 0 if context_shape is None else context_shape[-1]
        masks = made_masks(latent_dim, context, self.hidden)
        self.networks = [MaskedNetwork(masks, dtype=self.variable_dtype) for _ in range(self.steps)]
        super().build(input_shape, context_shape)

    def _gate_and_mean(self, number, z, context):
        inputs = z if context is None else ops.concatenate([z, context], axis=1)
        raw, mean = ops.split(self.networks[number](inputs), 2, axis=1)
        raw = 2.0 + 6.0 * ops.tanh(raw / 6.0)  # at first a gate of 0.88: as the paper has it, most passes through
        return raw, mean

    def call(self, eps, context=None):
        z, log_determinant = eps, 0.0
        for number in range(self.steps):
            raw, mean = self._gate_and_mean(number, z, context)
            gate = ops.sigmoid(raw)
            z = ops.flip(gate * z + (1 - gate) * mean, axis=1)
            log_determinant = log_determinant - ops.sum(ops.softplus(-raw), axis=1)
        return z, log_determinant

    def inverse(self, z, context=None):
        log_determinant = 0.0
        for number in reversed(range(self.steps)):
            target, z = ops.flip(z, axis=1), ops.zeros_like(z)
            for _ in range(self.latent_dim):  # each pass makes one latent more the right one
                raw, mean = self._gate_and_mean(number, z, context)
                gate = ops.sigmoid(raw)
                z = (target - (1 - gate) * mean) / gate
            log_determinant = log_determinant + ops.sum(ops.softplus(-raw), axis=1)
        return z, log_determinant
