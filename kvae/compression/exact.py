"""A model's networks, with results that are the same in each process, on any number of threads."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray
from scipy import special

from kvae import distributions
from kvae.compression.symbols import LatentPrior
from kvae.data import elements
from kvae.models.double import double

_GRID = 2.0**14  # results are multiples of 2^-14
_NEAR = 1e-12  # relative difference of two runs in float64, at the most


class Rounding:
    """Rounds numbers that differ by 1e-12 from run to run to the same multiples of 2^-14.

    A number too near to the middle of two multiples could go to either. The first run, which compresses, notes the
    multiple that it took for each of those, and the second takes it from the notes. Few of ten million are so near.

    Args:
        notes: integers (m, 3) of an earlier run, each (call, index, multiple), or None for the first run.
    """

    def __init__(self, notes: NDArray | None = None):
        self._is_first = notes is None
        self._notes = [] if notes is None else np.asarray(notes).tolist()

    @property
    def notes(self) -> NDArray:
        """The notes of the first run, int64 (m, 3)."""
        return np.array(self._notes, "int64").reshape(-1, 3)

    def __call__(self, call: int, values: list[Any]) -> list[NDArray]:
        """Return float64 tensors, rounded, as arrays.

        Args:
            call: int, a number of its own for each call of a run.
            values: tensors (n, ...).

        Raises:
            ValueError: for values that aren't finite.
        """
        arrays = [ops.convert_to_numpy(value) for value in values]
        flat = np.concatenate([array.ravel() for array in arrays]) * _GRID
        if not np.isfinite(flat).all():
            raise ValueError("the networks gave values that aren't finite")
        multiples = np.floor(flat + 0.5)
        if self._is_first:
            distance = np.abs(flat - np.floor(flat) - 0.5)
            near = np.flatnonzero(distance < _NEAR * (_GRID + np.abs(flat)))
            self._notes += [(call, int(index), int(multiples[index])) for index in near]
        else:
            for _, index, multiple in (note for note in self._notes if note[0] == call):
                multiples[index] = multiple
        multiples /= _GRID
        parts = np.split(multiples, np.cumsum([array.size for array in arrays])[:-1])
        return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]


class Networks:
    """q(z|x) and p(x|z) of a model in float64.

    Args:
        model: a `kvae.VAE`.

    Attributes:
        latent_dim: int.
    """

    def __init__(self, model: Any):
        self._encoder, self._decoder = double(model.encoder), double(model.decoder)
        self._family, self._likelihood = double(model.posterior_family), double(model.likelihood)
        self._prior = double(model.prior, event_shape=model.event_shape)
        self.latent_dim = int(model.latent_dim)

    def prior(self, rounding: Rounding) -> LatentPrior:
        """Return p(z)."""
        normals: Any = normals_of(self._prior.distribution(1, lambda u: self._family.distribution(self._encoded(u))))
        log_weights, means, log_vars = rounding(-1, [ops.cast(value, "float64") for value in normals])
        return LatentPrior(special.softmax(log_weights), means, log_vars)

    def posterior(self, x: NDArray, rounding: Rounding, call: int) -> tuple[NDArray, NDArray]:
        """Return the mean and the log-variance of q(z|x), each (n, latent_dim), for x (n, ...)."""
        q = self._family.distribution(self._encoded(elements.scale(x, "float64")))
        mean, log_var = rounding(call, [q.mean, q.log_var])
        return mean, log_var

    def _encoded(self, x):
        return _outputs(self._encoder, x)

    def conditional(self, z: NDArray, rounding: Rounding, call: int) -> tuple[type, dict[str, NDArray]]:
        """Return the class of p(x|z) and {name: array (n, ...)}, its parameters, for z (n, latent_dim)."""
        p: Any = self._likelihood.distribution(_outputs(self._decoder, tf.constant(z)))
        fields = {field.name: getattr(p, field.name) for field in dataclasses.fields(p)}
        tensors = {name: value for name, value in fields.items() if tf.is_tensor(value)}
        shape = len(z), *self._likelihood.event_shape
        whole = [
            value if len(value.shape) >= len(shape) else ops.broadcast_to(value, shape) for value in tensors.values()
        ]
        return type(p), dict(zip(tensors, rounding(call, whole), strict=True))


def normals_of(prior: Any) -> list[Any] | None:
    """[log of weights (k,), means (k, latent_dim), log-variances] of a prior of diagonal normals, or None."""
    weights, normals = ops.zeros((1,)), prior
    if isinstance(prior, distributions.Mixture):
        normals = prior.components
        weights = ops.zeros(normals.mean.shape[:1]) if prior.log_weights is None else prior.log_weights
    if type(normals) is not distributions.Normal:
        return None
    return [weights, ops.convert_to_tensor(normals.mean), ops.convert_to_tensor(normals.log_var)]


def _outputs(network, inputs):
    return [ops.cast(output, "float64") for output in keras.tree.flatten(network(inputs, training=False))]
