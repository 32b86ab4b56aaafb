"""Base classes of distributions."""

import abc
import contextlib
import dataclasses
import inspect
import numbers
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self

import keras
import numpy as np
from keras import ops

from kvae.arguments import Seed, Tensor


def seeds(seed: Seed, count: int) -> list[Any]:
    """Return seeds of `count` independent draws: different ints from an int, or the same generator `count` times."""
    if isinstance(seed, numbers.Integral):
        return [int(number) for number in np.random.SeedSequence(int(seed)).generate_state(count)]
    return [seed] * count


def freeze(*layers: keras.layers.Layer) -> tuple[tuple[Any, Tensor], ...]:
    """Return the layers' variables, states of seeds included, with their present values as constants."""
    return tuple((v, ops.stop_gradient(ops.convert_to_tensor(v))) for layer in layers for v in layer.variables)


def frozen(values: tuple[tuple[Any, Tensor], ...]) -> AbstractContextManager:
    """Context manager. Within it variables have the values from `freeze`, and after it their own again."""
    return keras.StatelessScope(values) if values else contextlib.nullcontext()


class Distribution(abc.ABC):
    """Base class of distributions p(x): parameters with n rows give n distributions over events of shape (...).

    Axis 0 is the batch and all other axes are the event, in every method. A distribution has no weights and no state.
    If p factorizes over the values of x, `log_prob(x, observed)` is the log-probability of the values with a true
    entry in the mask `observed`, in which each of the other values counts 0.

    Attributes:
        mean: tensor (n, ...), E[x].
        variance: tensor (n, ...), the variance of each value of x, if it has a closed form.

    Example:

    >>> class Uniform(kvae.distributions.Distribution):
    ...     mean = ops.full((1, 2), 0.5)
    ...     def log_prob(self, x):
    ...         return kvae.distributions.sum_event(ops.where((x >= 0) & (x <= 1), 0.0, -np.inf))
    ...     def sample(self, seed):
    ...         return keras.random.uniform((1, 2), seed=seed)
    >>> Uniform().log_prob(ops.array([[0.2, 0.3], [0.2, 1.3]])).numpy()
    array([  0., -inf], dtype=float32)
    """

    mean: Tensor
    variance: Tensor | None = None

    @abc.abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) in nats with all its constants: x (n, ...) to (n,)."""

    @property
    def factorizes(self) -> bool:
        """True if `log_prob` takes `observed`, a mask of the values to count."""
        return "observed" in inspect.signature(self.log_prob).parameters

    @abc.abstractmethod
    def sample(self, seed: Seed) -> Tensor:
        """Draw one x ~ p per row, (n, ...). seed: int for the same draw each time, or `keras.random.SeedGenerator`."""

    def at_sizes_of(self, x: Tensor, observed: Tensor | None = None) -> "Distribution":
        """Return p of counts with the sizes in the rows x (n, ...), in place of the usual one. Others stay as they are.

        `observed` masks x: a size that isn't observed is the usual one.
        """
        return self


class Reparameterized(Distribution):
    """Base class of posteriors: dataclasses of tensors, with z a differentiable function of noise eps ~ N(0, I).

    A subclass is a frozen dataclass with `mean`, `log_prob` and `rsample_and_log_prob`.

    Example:

    >>> q = kvae.distributions.Normal(ops.zeros((2, 3)), ops.zeros((2, 3)))
    >>> isinstance(q, kvae.distributions.Reparameterized), tuple(q.repeat(5).mean.shape)
    (True, (10, 3))
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @abc.abstractmethod
    def rsample_and_log_prob(self, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Map noise eps ~ N(0, I) to (z, log p(z) in nats): (n, ...) to (n, ...) and (n,)."""

    def reparameterize(self, eps: Tensor) -> Tensor:
        """Map noise eps ~ N(0, I) to z, both (n, ...), differentiably (Kingma and Welling 2014, section 2.4)."""
        return self.rsample_and_log_prob(eps)[0]

    def sample(self, seed: Seed) -> Tensor:
        return self.reparameterize(keras.random.normal(ops.shape(self.mean), dtype=self.mean.dtype, seed=seed))

    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        """Return log p_k(z_m) in nats for all pairs of a point and a row: z (m, ...) to (m, n)."""
        rows, count = ops.shape(self.mean)[0], ops.shape(z)[0]
        tiled = ops.tile(z, (rows,) + (1,) * (len(z.shape) - 1))
        return ops.transpose(ops.reshape(self.repeat(count).log_prob(tiled), (rows, count)))

    def kl_divergence(self, other: Distribution) -> Tensor | None:
        """Return KL(self || other) in nats as terms (n, groups) to sum, or None if it has no closed form."""
        return None

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return a distribution of the same kind with function(parameter) for each parameter."""
        return dataclasses.replace(self, **{f.name: function(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def repeat(self, count: Tensor) -> Self:
        """Return the distribution with each row `count` times, n * count rows in the order of `keras.ops.repeat`."""
        return self.map(lambda parameter: ops.repeat(parameter, count, axis=0))

    def take(self, indices: Tensor) -> Self:
        """Return the distribution of the rows with these indices, an integer tensor (m,)."""
        return self.map(lambda parameter: ops.take(parameter, indices, axis=0))

    def stop_gradient(self) -> Self:
        """Return the same distribution with parameters that are constants to the gradient.

        If layers compute the parameters, the result keeps the layers' present weights and seeds. Made before a draw, it
        scores this draw under the same dropout.
        """
        return self.map(ops.stop_gradient)
