"""Planar flows: one hidden unit a step."""

import math
from typing import Any

import keras
from keras import ops

from kvae.arguments import Shape, Tensor
from kvae.flows.base import Flow

TINY = 1e-9


@keras.saving.register_keras_serializable("kvae")
class Planar(Flow):
    """z' = z + u tanh(w z + b), step by step. With a context, u, w and b are linear in it.

    The paper's condition w u > -1 is met by w u <- 0.999 (softplus(w u + log(e - 1)) - 1). The shift makes u = 0 the
    identity. The factor keeps a margin, because float32 may round a number just above -1 to -1.

    The inverse has no closed form: use this flow for posteriors.

    Args:
        steps: int >= 1, the number of maps. Default 8.
        **kwargs: of `keras.layers.Layer`.

    Example:

    >>> flow = kvae.flows.Planar(steps=4)
    >>> flow.build((None, 3))
    >>> z, log_determinant = flow(ops.ones((2, 3)))
    >>> z.numpy()[0], log_determinant.numpy()  # the identity before training
    (array([1., 1., 1.], dtype=float32), array([0., 0.], dtype=float32))
    >>> posterior_family = kvae.posteriors.FlowPosterior(kvae.flows.Planar(steps=8), context=32)

    Reference:
        Rezende and Mohamed (2015), "Variational inference with normalizing flows", equations 10 to 12 and appendix A.1.
    """

    invertible = False

    def __init__(self, steps: int = 8, **kwargs: Any):
        super().__init__(steps, **kwargs)

    def build(self, input_shape: Shape, context_shape: Shape | None = None) -> None:
        latent_dim = input_shape[-1]
        shape = (self.steps, latent_dim)
        self.u = self.add_weight(name="u", shape=shape, initializer="zeros")
        self.w = self.add_weight(
            name="w", shape=shape, initializer=keras.initializers.RandomNormal(stddev=latent_dim**-0.5)
        )
        self.b = self.add_weight(name="b", shape=(self.steps,), initializer="zeros")
        self.amortized = None
        if context_shape is not None:
            units = self.steps * (2 * latent_dim + 1)
            self.amortized = self.add_weight(name="amortized", shape=(context_shape[-1], units), initializer="zeros")
        super().build(input_shape, context_shape)

    def call(self, eps: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        parameters = ops.concatenate([self.u, self.w, ops.expand_dims(self.b, 1)], axis=1)[None]
        if self.amortized is not None:
            parameters = parameters + ops.reshape(ops.matmul(context, self.amortized), (-1, *parameters.shape[1:]))
        z, log_determinant = eps, 0.0
        for step in range(self.steps):
            u, w, b = ops.split(parameters[:, step], [self.latent_dim, 2 * self.latent_dim], axis=1)
            inner = ops.sum(w * u, axis=1, keepdims=True)
            constrained = 0.999 * (ops.softplus(inner + math.log(math.e - 1)) - 1)
            square = ops.sum(ops.square(w), axis=1, keepdims=True)
            u = u + (constrained - inner) * w / (square + TINY)
            inner = (constrained * square + inner * TINY) / (square + TINY)  # the new w u, without the sum's rounding
            activation = ops.tanh(ops.sum(w * z, axis=1, keepdims=True) + b)
            slope = (1 - ops.square(activation)) * inner
            z = z + u * activation
            log_determinant = log_determinant + ops.log1p(slope)[:, 0]
        return z, log_determinant
